//! Claims about how processes end and who takes their place.

use std::num::NonZeroU64;
use std::time::Duration;

use varta_proto::Status;
use varta_proto::control::AgentName;

use crate::base::Glob;
use crate::domain::beat::{ControlMessage, Hello, ReceivedControl};
use crate::domain::process::{Lineage, ProcessId, SuccessExit};
use crate::domain::rules::{Rule, Rules};
use crate::domain::tracker::tests::*;

const KILLED: ExitStatus = ExitStatus::Killed { signal: 9, core_dumped: false };
const WITHIN: Duration = Policy::DEFAULT_REPLACED_WITHIN;

/// A worker of one prefork server.
const WORKER: Lineage = Lineage { command: 7 };

impl World {
    /// A process of this name and lineage comes and beats once.
    fn comes(&mut self, pid: u32, name: &str, lineage: Lineage, at: MonoTime) -> Handle {
        self.spawn(pid, name, u64::from(pid));
        self.processes.processes.entry(pid).and_modify(|process| process.lineage = lineage);
        let mut handle = Handle::connect(pid, at);
        self.hear(handle.next(at, Status::Ok));
        handle
    }

    /// The process of [`World::comes`] ends.
    fn ends(&mut self, pid: u32, death: ExitStatus, lineage: Lineage, at: MonoTime) {
        self.processes.processes.remove(&pid);
        let process = ProcessId::new(pid, NonZeroU64::new(u64::from(pid)).unwrap());
        self.tracker.handle_exit(process, death, lineage, at, at);
        self.check();
    }

    fn changes(&mut self) -> Vec<Transition> {
        std::iter::from_fn(|| self.tracker.poll_transition()).collect()
    }

    fn alarms(&self, now: MonoTime) -> usize {
        self.tracker.alarms(0..usize::MAX, now).filter(|found| found.to.is_alarm()).count()
    }

    fn restarts(&self) -> u64 {
        self.tracker.restarts().map(|(_, count)| count).sum()
    }
}

/// The end of a process of [`World::comes`] that the kernel has reported.
fn ended(pid: u32, death: ExitStatus) -> EndedProcess {
    let process = ProcessId::new(pid, NonZeroU64::new(u64::from(pid)).unwrap());
    EndedProcess { pid, process: Some(process), death, lineage: WORKER }
}

/// A Hello with the name `billing`.
fn says_billing(pid: u32, at: MonoTime) -> ReceivedControl {
    let hello = Hello { name: Some(AgentName::parse("billing").unwrap()), ..Hello::default() };
    ReceivedControl { received_at: at, sender: Sender::local(pid), said: ControlMessage::Hello(hello) }
}

fn with_rule(name: &str, set: impl FnOnce(&mut Rule)) -> World {
    let mut rule = Rule::of(Glob::parse(name).unwrap());
    set(&mut rule);
    let mut rules = Rules::default();
    rules.add(rule).unwrap();
    World::with(Policy { stall_after: STALL_AFTER, rules, ..Policy::default() })
}

#[test]
fn a_process_that_was_asked_to_end_is_gone_and_one_that_was_killed_is_down() {
    let signal = |signal| ExitStatus::Killed { signal, core_dumped: false };
    let code = |code| ExitStatus::Exited { code };
    let table = [
        (signal(15), Verdict::Gone),
        (signal(2), Verdict::Gone),
        (signal(1), Verdict::Gone),
        (code(143), Verdict::Gone),
        (code(130), Verdict::Gone),
        (code(129), Verdict::Gone),
        (signal(9), Verdict::Down),
        (signal(11), Verdict::Down),
        (code(1), Verdict::Down),
        (code(30), Verdict::Down),
    ];
    for (death, verdict) in table {
        let mut world = World::new();
        world.comes(7, "worker", WORKER, at(0));
        world.changes();
        world.ends(7, death, WORKER, at(1));
        let [change] = &world.changes()[..] else { panic!("one end is one change") };
        assert_eq!(change.to, verdict, "{death}");
        let cause = match death {
            ExitStatus::Killed { signal, .. } => Cause::Killed { signal },
            ExitStatus::Exited { code } => Cause::Exited { code: Some(code) },
            ExitStatus::Unknown => Cause::Exited { code: None },
        };
        assert_eq!(change.cause, cause, "the cause says by what");
    }
}

#[test]
fn a_rule_says_which_ends_are_ordinary_for_its_agents() {
    let only = SuccessExit::of(["0", "30"]).unwrap();
    for (death, verdict) in [
        (ExitStatus::Exited { code: 30 }, Verdict::Gone),
        (ExitStatus::Killed { signal: 15, core_dumped: false }, Verdict::Down),
    ] {
        let mut world = with_rule("uwsgi*", |rule| rule.success_exit = Some(only));
        world.comes(7, "uwsgi", WORKER, at(0));
        world.comes(8, "other", Lineage::default(), at(0));
        world.changes();
        world.ends(7, death, WORKER, at(1));
        assert_eq!(world.verdict(7), Some(verdict), "{death}");
        world.ends(8, death, Lineage::default(), at(1));
        assert_ne!(world.verdict(8), Some(verdict), "the rule is not for it");
    }
}

#[test]
fn the_end_of_a_worker_is_no_alarm_when_another_takes_its_place_in_time() {
    let mut world = World::new();
    world.comes(7, "uwsgi", WORKER, at(0));
    world.changes();
    world.ends(7, KILLED, WORKER, at(1));
    assert_eq!(world.alarms(at(2)), 0, "another may take its place");
    world.comes(8, "uwsgi", WORKER, at(2));
    let changes = world.changes();
    let [down, up] = &changes[..] else { panic!("{changes:?}") };
    assert_eq!((down.to, down.settles_at), (Verdict::Down, at(1) + WITHIN));
    assert_eq!((up.to, up.cause), (UP, Cause::Restarted));
    assert_eq!(up.predecessor.as_ref().map(|agent| agent.pid), Some(7));
    assert_eq!((world.verdict(7), world.verdict(8)), (None, Some(UP)), "no dead row is left");
    assert_eq!((world.restarts(), world.alarms(at(60))), (1, 0));
}

#[test]
fn an_end_that_the_kernel_has_reported_is_handled_before_the_first_beat_of_the_successor() {
    let mut world = World::new();
    for pid in [7, 9] {
        world.comes(pid, "billing", WORKER, at(0));
        world.comes(pid + 100, "mail", WORKER, at(0));
    }
    world.changes();
    world.processes.ended = vec![ended(7, KILLED), ended(107, KILLED), ended(4_000, KILLED)];
    world.comes(8, "billing", WORKER, at(1));
    let changes = world.changes();
    let [gone, up] = &changes[..] else { panic!("{changes:?}") };
    assert_eq!((gone.agent.pid, gone.to, gone.cause), (7, Verdict::Gone, Cause::Killed { signal: 9 }));
    assert_eq!(gone.successor.as_ref().map(|agent| agent.pid), Some(8));
    assert_eq!((up.agent.pid, up.from, up.cause), (8, None, Cause::FirstBeat), "it comes up once");
    assert_eq!((world.verdict(7), world.restarts()), (None, 1));
    assert_eq!(world.verdict(107), Some(UP), "what is not its predecessor has its turn");
    // The same end once more, in its turn.
    world.ends(7, KILLED, WORKER, at(1));
    assert_eq!(world.changes(), []);
}

#[test]
fn an_end_without_a_successor_is_an_alarm_when_nobody_came_in_time() {
    let mut world = World::new();
    world.comes(7, "worker", WORKER, at(0));
    world.ends(7, KILLED, WORKER, at(1));
    assert_eq!(world.alarms((at(1) + WITHIN).before(Duration::from_millis(1))), 0);
    assert_eq!(world.alarms(at(1) + WITHIN), 1);
    world.comes(8, "worker", WORKER, at(60));
    assert_eq!((world.verdict(7), world.alarms(at(60))), (None, 0), "a late successor ends the alarm");
}

#[test]
fn one_newcomer_takes_the_place_of_one_that_ended() {
    let mut world = World::new();
    for pid in [7, 8] {
        world.comes(pid, "worker", WORKER, at(0));
    }
    world.processes.ended = [7, 8].map(|pid| ended(pid, KILLED)).to_vec();
    world.comes(9, "worker", WORKER, at(4));
    world.ends(7, KILLED, WORKER, at(4));
    world.ends(8, KILLED, WORKER, at(4));
    assert_eq!((world.verdict(7), world.verdict(8)), (None, Some(Verdict::Down)));
    world.processes.ended.clear();
    world.comes(10, "worker", WORKER, at(5));
    assert_eq!((world.verdict(8), world.restarts()), (None, 2));
}

#[test]
fn a_worker_that_is_added_beside_others_takes_nobodys_place() {
    let mut world = World::new();
    world.comes(7, "worker", WORKER, at(0));
    world.comes(8, "worker", WORKER, at(1));
    world.changes();
    world.ends(7, KILLED, WORKER, at(1));
    let [down] = &world.changes()[..] else { panic!("one end is one change") };
    assert_eq!((down.to, &down.successor), (Verdict::Down, &None), "it may have crashed for the same reason");
    assert_eq!((world.verdict(8), world.restarts()), (Some(UP), 0));
}

#[test]
fn a_name_that_is_only_a_command_is_succeeded_by_the_same_command_in_the_same_directory() {
    let mut world = World::new();
    world.comes(7, "python3", WORKER, at(0));
    for round in 1..=5 {
        let (pid, next) = (6 + round, 7 + round);
        world.ends(pid, KILLED, WORKER, at(u64::from(round) * 100));
        world.comes(9_000 + round, "python3", Lineage { command: 99 }, at(u64::from(round) * 100 + 1));
        assert_eq!(world.verdict(pid), Some(Verdict::Down), "a stranger of the same name takes no place");
        world.comes(next, "python3", WORKER, at(u64::from(round) * 100 + 2));
        assert_eq!(world.verdict(pid), None);
    }
    assert_eq!(world.restarts(), 5);
}

#[test]
fn a_successor_that_says_its_name_later_comes_up_once() {
    let mut world = World::new();
    world.comes(7, "python3", Lineage::default(), at(0));
    world.handle_control(&says_billing(7, at(0)));
    world.ends(7, KILLED, Lineage::default(), at(1));
    world.changes();
    world.comes(8, "python3", Lineage::default(), at(9));
    world.handle_control(&says_billing(8, at(9)));
    let changes = world.changes();
    let [first, second] = &changes[..] else { panic!("{changes:?}") };
    assert_eq!((first.from, first.to), (None, UP));
    assert_eq!((second.from, second.to, second.cause), (Some(UP), UP, Cause::Restarted));
    assert_eq!(second.predecessor.as_ref().map(|agent| agent.pid), Some(7));
}

#[test]
fn an_end_that_is_known_by_the_hello_of_the_successor_is_handled_before_it() {
    let mut world = World::new();
    world.comes(7, "python3", Lineage::default(), at(0));
    world.handle_control(&says_billing(7, at(0)));
    world.changes();
    world.processes.ended = vec![ended(7, KILLED)];
    world.comes(8, "python3", Lineage::default(), at(9));
    world.handle_control(&says_billing(8, at(9)));
    let changes = world.changes();
    let [up, gone] = &changes[..] else { panic!("{changes:?}") };
    assert_eq!((up.agent.pid, up.to, up.cause), (8, UP, Cause::FirstBeat));
    assert_eq!((gone.agent.pid, gone.to), (7, Verdict::Gone));
    assert_eq!((world.tracker.len(), world.restarts()), (1, 1));
}

#[test]
fn without_a_grace_an_alarm_is_due_at_once() {
    let mut world = with_rule("worker", |rule| rule.replaced_within = Some(Duration::ZERO));
    world.comes(7, "worker", WORKER, at(0));
    world.changes();
    world.ends(7, KILLED, WORKER, at(2));
    let changes = world.changes();
    assert_eq!((changes[0].to, changes[0].settles_at), (Verdict::Down, at(2)));
    assert_eq!(world.alarms(at(2)), 1);
}

#[test]
fn who_panicked_is_an_alarm_whoever_comes_after() {
    let mut world = World::new();
    let handle = world.comes(7, "worker", WORKER, at(0));
    let frame = Frame::new(Status::Critical, 7, 1, NONCE_TERMINAL, 0);
    world.hear(ReceivedBeat { received_at: at(1), frame, ..handle.frame(at(1), Status::Ok) });
    world.processes.ended = vec![ended(7, ExitStatus::Exited { code: 101 })];
    world.comes(8, "worker", WORKER, at(1));
    world.changes();
    world.ends(7, ExitStatus::Exited { code: 101 }, WORKER, at(1));
    let changes = world.changes();
    assert_eq!(
        (changes[0].to, changes[0].cause, changes[0].settles_at),
        (Verdict::Down, Cause::Panicked, at(1))
    );
}

#[test]
fn a_status_that_becomes_known_late_corrects_the_verdict() {
    for (death, verdict) in [(ExitStatus::Exited { code: 0 }, Verdict::Gone), (KILLED, Verdict::Down)] {
        let mut world = World::new();
        world.comes(7, "worker", WORKER, at(0));
        world.ends(7, ExitStatus::Unknown, WORKER, at(1));
        assert_eq!(world.verdict(7), Some(Verdict::Down));
        world.changes();
        world.ends(7, death, WORKER, at(9));
        assert_eq!(world.verdict(7), Some(verdict));
        assert_eq!(world.changes().len(), usize::from(verdict == Verdict::Gone));
        // Whoever comes now takes its place, once.
        world.comes(8, "worker", WORKER, at(10));
        assert_eq!((world.verdict(7), world.restarts()), (None, 1));
    }
}

#[test]
fn a_process_that_ended_before_it_could_be_looked_at_is_no_alarm_unless_it_is_known_that_it_crashed() {
    for (death, verdict) in [
        (ExitStatus::Unknown, Verdict::Gone),
        (ExitStatus::Exited { code: 0 }, Verdict::Gone),
        (ExitStatus::Exited { code: 3 }, Verdict::Down),
        (KILLED, Verdict::Down),
    ] {
        let mut world = World::new();
        world.hear(Handle::connect(7, at(0)).next(at(0), Status::Ok));
        world.tracker.handle_absence(7, None, death, at(1));
        assert_eq!(world.verdict(7), Some(verdict), "{death}");
    }
    // Identified, and gone when it was to be watched.
    let mut world = World::new();
    world.comes(7, "worker", WORKER, at(0));
    world.tracker.handle_absence(
        7,
        Some(ProcessId::new(7, NonZeroU64::new(7).unwrap())),
        ExitStatus::Unknown,
        at(0),
    );
    assert_eq!(world.verdict(7), Some(Verdict::Gone));
}

#[test]
fn a_beat_of_a_process_that_is_there_proves_that_it_lives() {
    let mut world = World::new();
    let mut handle = world.comes(7, "worker", WORKER, at(0));
    let process = ProcessId::new(7, NonZeroU64::new(7).unwrap());
    // A wrong conclusion, as from a look that failed.
    world.tracker.handle_exit(process, ExitStatus::Unknown, WORKER, at(1), at(1));
    world.changes();
    world.refuse_looks(at(1));
    world.requests.clear();
    world.hear(handle.next(at(2), Status::Ok));
    assert_eq!(world.transitions(), [(7, UP, Cause::Recovered)]);
    world.refuse_looks(at(2));
    assert_eq!(world.requests, [TrackerRequest::Watch(process)], "its next end is noticed");
}

#[test]
fn a_process_that_is_hidden_has_a_successor_as_any_though_it_is_not_known_how_it_ended() {
    let mut world = World::new();
    let hidden =
        |pid| EndedProcess { pid, process: None, death: ExitStatus::Unknown, lineage: Lineage::default() };
    // `/proc` shows none of them, and each is named by its Hello.
    let comes = |world: &mut World, pid, seconds| {
        world.handle_control(&says_billing(pid, at(seconds)));
        world.hear(Handle::connect(pid, at(seconds)).next(at(seconds), Status::Ok));
    };
    comes(&mut world, 1, 0);
    comes(&mut world, 2, 0);
    for pid in 3..8 {
        world.changes();
        world.processes.ended = vec![hidden(pid - 1), hidden(99)];
        comes(&mut world, pid, u64::from(pid));
        let [end, up] = &world.changes()[..] else { panic!("an end and a first beat") };
        assert_eq!((end.agent.pid, end.to), (pid - 1, Verdict::Gone));
        assert_eq!((up.agent.pid, up.to), (pid, UP));
        // Who was reported twice, and whose successor has the pid of another, replaces nobody.
        world.tracker.handle_absence(pid - 1, None, KILLED, at(u64::from(pid)));
        assert!(world.changes().is_empty());
        assert_eq!((world.verdict(pid - 1), world.verdict(1)), (None, Some(UP)));
    }
    assert_eq!(world.restarts(), 5);
    assert_eq!(world.alarms(at(3_600)), 0);
}
