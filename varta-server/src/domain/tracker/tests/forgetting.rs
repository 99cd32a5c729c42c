//! How long agents are kept that do not beat: by a rule for their names, by their states, and until a user asks for
//! their end.

use super::*;
use crate::base::Glob;
use crate::domain::process::ProcessId;
use crate::domain::{AgentPattern, Expected, ExpectedAgents, ForgetAfter, Rule, Rules};

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3_600);

fn at(seconds: u64) -> MonoTime {
    MonoTime::from_secs(seconds)
}

fn rules(forget_after: ForgetAfter) -> Rules {
    let mut rules = Rules::default();
    rules.add(Rule { forget_after, ..Rule::of(Glob::parse("worker").unwrap()) }).unwrap();
    rules
}

/// A world with a rule for `worker`, in which an agent of that name has beaten once, and so has a `stranger`.
fn with_rule(forget_after: ForgetAfter) -> World {
    let mut world = World::with(Policy { rules: rules(forget_after), ..Policy::default() });
    for (pid, name) in [(PID, "worker"), (PID + 1, "stranger")] {
        world.spawn(pid, name, 100);
        world.hear(Handle::connect(pid, at(0)).next(at(0), Status::Ok));
    }
    world
}

fn end(world: &mut World, pid: u32, death: ExitStatus) {
    let process = ProcessId::new(pid, NonZeroU64::new(100).unwrap());
    world.tracker.handle_exit(process, death, Lineage::default(), at(1), at(1));
}

#[test]
fn an_agent_is_kept_for_as_long_as_the_rule_for_its_name_says_of_its_state() {
    let kept = ForgetAfter { stalled: Some(MINUTE), down: Some(2 * MINUTE), gone: Some(HOUR) };
    let ends = [
        (None, Verdict::Stalled, 60),
        (Some(ExitStatus::Exited { code: 1 }), Verdict::Down, 120),
        (Some(ExitStatus::Exited { code: 0 }), Verdict::Gone, 3_600),
    ];
    for (death, verdict, seconds) in ends {
        let mut world = with_rule(kept);
        if let Some(death) = death {
            end(&mut world, PID, death);
        }
        world.pass(at(seconds - 1));
        assert_eq!(world.verdict(PID), Some(verdict));
        world.pass(at(seconds + 1));
        assert_eq!(world.verdict(PID), None, "{verdict:?}");
        assert_eq!(world.verdict(PID + 1), Some(Verdict::Stalled), "no rule is for it");
    }
}

#[test]
fn a_state_of_which_the_rule_says_nothing_is_kept_by_default() {
    let mut world = with_rule(ForgetAfter { down: Some(HOUR), ..ForgetAfter::default() });
    end(&mut world, PID, ExitStatus::Exited { code: 0 });
    world.pass(at(61));
    assert_eq!(world.verdict(PID), None);
}

#[test]
fn other_rules_hold_for_those_who_are_silent_already() {
    let mut world = with_rule(ForgetAfter::default());
    end(&mut world, PID, ExitStatus::Exited { code: 1 });
    world.pass(at(600));
    assert_eq!(world.verdict(PID), Some(Verdict::Down));
    world.tracker.handle_rules(rules(ForgetAfter::all(MINUTE)), &ExpectedAgents::default(), at(600));
    world.pass(at(602));
    assert_eq!((world.verdict(PID), world.verdict(PID + 1)), (None, Some(Verdict::Stalled)));
    let longer = rules(ForgetAfter::all(48 * HOUR));
    world.tracker.handle_rules(longer, &ExpectedAgents::default(), at(602));
    world.pass(at(86_402));
    assert_eq!(world.verdict(PID + 1), None, "the default is a day");
}

impl World {
    /// The pids of the selected agents that are forgotten, and of those that live.
    fn forget(&mut self, who: &str) -> (Vec<u32>, Vec<u32>) {
        let who = AgentPattern::parse(who).unwrap();
        let selected = self.tracker.selected(&who, 0..usize::MAX);
        let expected = self.tracker.selected_expected(&who).into_iter().map(|agent| (agent, Life::Ended));
        let (mut forgotten, mut living) = (Vec::new(), Vec::new());
        for (agent, life) in selected.into_iter().chain(expected) {
            let is_forgotten = self.tracker.handle_forget(&agent);
            assert_eq!(is_forgotten, life == Life::Ended, "{agent}");
            if is_forgotten { &mut forgotten } else { &mut living }.push(agent.pid);
        }
        self.check();
        (forgotten, living)
    }

    /// The agents that were forgotten since the last call.
    fn forgotten(&mut self) -> Vec<(u32, ForgetReason)> {
        let changes = std::iter::from_fn(|| self.tracker.poll_registry_change());
        let of = |change| match change {
            RegistryChange::Forgotten(Forgotten { agent, reason }) => Some((agent.pid, reason)),
            RegistryChange::Known(_) => None,
            RegistryChange::Job(_) | RegistryChange::JobForgotten(_) => unreachable!("there are no jobs"),
        };
        changes.filter_map(of).collect()
    }
}

#[test]
fn who_is_down_or_gone_is_forgotten_on_request_and_who_lives_is_not() {
    let mut world = with_rule(ForgetAfter::default());
    assert_eq!(world.forget("worker"), (vec![], vec![PID]), "it is up");
    world.pass(at(60));
    assert_eq!(world.verdict(PID), Some(Verdict::Stalled));
    assert_eq!(world.forget("w*"), (vec![], vec![PID]), "its process hangs");
    for (pid, code) in [(PID, 1), (PID + 1, 0)] {
        end(&mut world, pid, ExitStatus::Exited { code });
    }
    world.transitions();
    assert_eq!(world.forget("nobody"), (vec![], vec![]));
    assert_eq!(world.forget(&PID.to_string()), (vec![PID], vec![]));
    assert_eq!(world.forget("*"), (vec![PID + 1], vec![]));
    assert_eq!((world.verdict(PID), world.tracker.len()), (None, 0));
    assert_eq!(world.forgotten(), [PID, PID + 1].map(|pid| (pid, ForgetReason::Requested)));
    assert_eq!(world.transitions(), [], "no verdict has changed");
    // Its pid is another's by now.
    world.spawn(PID, "worker", 200);
    world.hear(Handle::connect(PID, at(70)).next(at(70), Status::Ok));
    assert_eq!(world.verdict(PID), Some(UP));
}

#[test]
fn who_is_silent_on_another_host_is_forgotten_on_request() {
    let mut world = World::new();
    let sender = Sender::udp("10.0.0.7:4000".parse().unwrap(), 7);
    let beat = ReceivedBeat { sender, ..Handle::connect(7, at(1)).next(at(1), Status::Ok) };
    assert_eq!(world.hear(beat), FrameOutcome::Accepted);
    assert_eq!(world.forget("7"), (vec![], vec![7]));
    world.pass(at(60));
    assert_eq!(world.forget("7"), (vec![7], vec![]));
    world.pass(at(100_000));
    assert_eq!(world.forgotten(), [(7, ForgetReason::Requested)], "once");
}

#[test]
fn who_is_expected_and_has_not_come_is_not_waited_for_after_a_request() {
    let mut expected = ExpectedAgents::default();
    for name in ["backup", "billing"] {
        expected.add(Expected::named(name).unwrap()).unwrap();
    }
    let mut world = World::with(Policy { expected, ..Policy::default() });
    assert_eq!(world.forget("billing"), (vec![0], vec![]));
    world.pass(at(600));
    assert_eq!(world.transitions(), [(0, Verdict::Expected, Cause::NeverSeen)], "the other is missing");
    assert_eq!(world.forget("b*"), (vec![0], vec![]));
    assert_eq!(world.tracker.missing().count(), 0);
    assert_eq!(world.forgotten(), [(0, ForgetReason::Requested); 2]);
}

#[test]
fn whoever_is_forgotten_is_told_with_the_reason() {
    let mut world = World::with(Policy { max_agents: 1, stall_after: STALL_AFTER, ..Policy::default() });
    for (pid, death) in [(PID, ExitStatus::Exited { code: 1 }), (PID + 1, ExitStatus::Exited { code: 1 })] {
        world.spawn(pid, &format!("worker-{pid}"), 100);
        assert_eq!(world.hear(Handle::connect(pid, at(1)).next(at(1), Status::Ok)), FrameOutcome::Accepted);
        end(&mut world, pid, death);
    }
    assert_eq!(world.forgotten(), [(PID, ForgetReason::Evicted)]);
    world.pass(at(100_000));
    assert_eq!(world.forgotten(), [(PID + 1, ForgetReason::Expired)]);
}

#[test]
fn a_silent_process_that_could_not_be_identified_lives_until_its_end_is_known() {
    let mut world = World::with(Policy::default());
    // `/proc` does not show it.
    let pid = PID + 7;
    world.hear(Handle::connect(pid, at(0)).next(at(0), Status::Ok));
    world.pass(at(60));
    assert_eq!(world.verdict(pid), Some(Verdict::Stalled));
    let who = AgentPattern::parse(&pid.to_string()).unwrap();
    assert_eq!(world.tracker.selected(&who, 0..usize::MAX)[0].1, Life::Silent(None));
    assert_eq!(world.forget("*"), (vec![], vec![pid]));
    world.tracker.handle_absence(pid, None, ExitStatus::Unknown, at(60));
    assert_eq!(world.forget("*"), (vec![pid], vec![]));
}
