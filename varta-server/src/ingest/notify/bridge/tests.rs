//! Who speaks for whom, told as what happened when.

use std::collections::BTreeMap;

use super::*;
use crate::domain::beat::KeepAlives;

/// A process as the kernel would show it.
#[derive(Clone, Debug)]
struct FakeProcess {
    parent: u32,
    age: Duration,
    cgroup: Option<&'static str>,
    uid: u32,
    /// Its pid in a PID namespace of its own.
    inner: Option<u32>,
    within: Option<Duration>,
    end: Option<ExitStatus>,
}

#[derive(Debug, Default)]
struct FakeKin {
    processes: BTreeMap<u32, FakeProcess>,
    watched: Vec<u32>,
}

impl Kin for FakeKin {
    fn parent(&mut self, pid: u32) -> Option<u32> {
        self.processes.get(&pid).map(|process| process.parent).filter(|parent| *parent > 0)
    }
    fn age(&mut self, pid: u32) -> Option<Duration> {
        self.processes.get(&pid).map(|process| process.age)
    }
    fn cgroup(&mut self, pid: u32) -> Option<String> {
        self.processes.get(&pid)?.cgroup.map(str::to_owned)
    }
    fn uid(&mut self, pid: u32) -> Option<u32> {
        self.processes.get(&pid).map(|process| process.uid)
    }
    fn resolve(&mut self, of: u32, inner: u32) -> Option<u32> {
        match self.processes.get(&of)?.inner {
            Some(own) => (own == inner).then_some(of),
            None => Some(inner),
        }
    }
    fn keep_alives_within(&mut self, pid: u32) -> Option<Duration> {
        self.processes.get(&pid)?.within
    }
    fn watch(&mut self, pid: u32, _: Option<OwnedFd>) -> bool {
        let is_there = self.processes.get(&pid).is_some_and(|process| process.end.is_none());
        if !self.watched.contains(&pid) {
            self.watched.push(pid);
        }
        is_there
    }
    fn unwatch(&mut self, pid: u32) -> Option<OwnedFd> {
        self.watched.retain(|watched| *watched != pid);
        None
    }
    fn end_of(&mut self, pid: u32) -> Option<ExitStatus> {
        self.processes.get(&pid).map_or(Some(ExitStatus::Unknown), |process| process.end)
    }
}

/// The pid of the shell that starts everything, of which nobody says anything.
const SHELL: u32 = 100;
const USER: u32 = 1_000;
const HOURS: Duration = Duration::from_secs(7_200);
const WELL: ExitStatus = ExitStatus::Exited { code: 0 };

struct Host {
    bridge: Bridge<FakeKin>,
    now: MonoTime,
}

impl Host {
    fn new() -> Self {
        let mut host = Host { bridge: Bridge::new(FakeKin::default()), now: MonoTime::from_secs(1_000) };
        host.add(SHELL, 1, HOURS);
        host
    }

    fn add(&mut self, pid: u32, parent: u32, age: Duration) -> &mut FakeProcess {
        let process =
            FakeProcess { parent, age, cgroup: None, uid: USER, inner: None, within: None, end: None };
        self.bridge.kin.processes.entry(pid).or_insert(process)
    }

    /// A process that has just been started.
    fn start(&mut self, pid: u32, parent: u32) -> &mut FakeProcess {
        self.add(pid, parent, Duration::from_millis(20))
    }

    fn say(&mut self, pid: u32, text: &str) -> Vec<Fate> {
        let uid = self.bridge.kin.processes.get(&pid).map_or(USER, |process| process.uid);
        let sender = Credentials { pid, uid, gid: 100 };
        self.bridge.handle(&sender, None, ServiceMessage::parse(text.as_bytes()), self.now)
    }

    fn end(&mut self, pid: u32, end: ExitStatus) -> Vec<Fate> {
        if let Some(process) = self.bridge.kin.processes.get_mut(&pid) {
            process.end = Some(end);
        }
        self.bridge.handle_end(pid, self.now)
    }

    /// Lets time pass, and settles.
    fn pass(&mut self, time: Duration) -> Vec<Fate> {
        self.now = self.now + time;
        for process in self.bridge.kin.processes.values_mut() {
            process.age += time;
        }
        self.bridge.settle(self.now)
    }
}

/// Who said something, and whether it was a sign of life.
fn signs(fates: &[Fate]) -> Vec<(u32, bool)> {
    let sign = |fate: &Fate| match fate {
        Fate::Said(pid, _, said) => Some((*pid, said.is_beat)),
        Fate::Passed | Fate::Unattributed | Fate::NoRoom => None,
    };
    assert!(fates.iter().all(|fate| sign(fate).is_some()), "{fates:?}");
    fates.iter().filter_map(sign).collect()
}

fn only(fates: Vec<Fate>) -> Notification {
    match <[Fate; 1]>::try_from(fates) {
        Ok([Fate::Said(_, _, said)]) => said,
        other => panic!("{other:?}"),
    }
}

const SETTLE: Duration = SETTLES_AFTER;

#[test]
fn a_daemon_that_has_run_for_a_while_is_a_service_at_once_and_one_that_has_just_started_when_it_is_still_there()
 {
    let mut host = Host::new();
    host.add(7, SHELL, HOURS);
    let said = only(host.say(7, "READY=1\nSTATUS=Ready to accept connections"));
    assert!(said.is_beat && said.keep_alives == Some(KeepAlives::Unawaited));
    assert_eq!(said.status.as_deref(), Some("Ready to accept connections"));

    host.start(8, SHELL);
    assert_eq!(host.say(8, "STATUS=Starting"), []);
    assert_eq!(host.say(8, "READY=1"), []);
    assert_eq!(host.bridge.next_due(), Some(host.now + SETTLE));
    let fates = host.pass(SETTLE);
    assert_eq!(signs(&fates), [(8, true), (8, true)]);
    let first = MonoTime::from_secs(1_000);
    assert!(matches!(fates[0], Fate::Said(8, at, _) if at == first), "it counts from when it was said");
}

#[test]
fn a_tool_speaks_for_its_parent_and_what_its_parent_starts_later_speaks_for_that_at_once() {
    let mut host = Host::new();
    host.add(50, SHELL, HOURS);
    host.start(51, 50);
    assert_eq!(host.say(51, "READY=1"), []);
    let said = host.end(51, WELL);
    assert_eq!(signs(&said), [(50, true)]);
    host.start(52, 50);
    assert_eq!(signs(&host.say(52, "WATCHDOG=1")), [(50, true)]);
    host.end(52, WELL);
    host.start(53, 50);
    assert_eq!(host.say(53, "STOPPING=1"), []);
    assert!(only(host.end(53, WELL)).is_goodbye);
    assert_eq!(host.bridge.len(), 1, "the tools are no services");
}

#[test]
fn a_service_that_ends_badly_right_after_its_start_is_no_tool() {
    for end in [ExitStatus::Exited { code: 3 }, ExitStatus::Killed { signal: 9, core_dumped: false }] {
        let mut host = Host::new();
        host.start(60, SHELL);
        assert_eq!(host.say(60, "READY=1\nSTATUS=Gunicorn arbiter booted"), []);
        assert_eq!(signs(&host.end(60, end)), [(60, true)]);
        assert_eq!(host.bridge.len(), 0);
    }
}

#[test]
fn a_tool_whose_parent_is_nobody_speaks_for_the_one_service_of_its_cgroup_or_is_counted() {
    let mut host = Host::new();
    host.add(70, SHELL, HOURS).cgroup = Some("/a.service");
    host.say(70, "READY=1");
    let orphan = |host: &mut Host, pid, cgroup| {
        host.start(pid, 1).cgroup = Some(cgroup);
        let held = host.say(pid, "STATUS=half way");
        assert_eq!(held, []);
        host.end(pid, WELL)
    };
    assert_eq!(signs(&orphan(&mut host, 71, "/a.service")), [(70, false)]);
    assert_eq!(orphan(&mut host, 72, "/b.service"), [Fate::Unattributed]);
    host.add(73, SHELL, HOURS).cgroup = Some("/a.service");
    host.say(73, "READY=1");
    assert_eq!(orphan(&mut host, 74, "/a.service"), [Fate::Unattributed], "there are two by now");
    // Of one that was gone before its message was read nothing is known.
    assert_eq!(host.say(4_000_000, "READY=1"), [Fate::Unattributed]);
    assert_eq!(host.bridge.len(), 2);
}

#[test]
fn what_a_child_says_of_itself_is_not_its_services() {
    let mut host = Host::new();
    host.add(80, SHELL, HOURS);
    host.say(80, "READY=1");
    host.add(81, 80, HOURS);
    for own in ["READY=1", "STOPPING=1", "ERRNO=22", "EXIT_STATUS=3", "STOPPING=1\nSTATUS=bye"] {
        for fate in host.say(81, own) {
            let is_mute = |said: &Notification| !said.is_beat && !said.is_goodbye;
            assert!(
                matches!(&fate, Fate::Passed) || matches!(&fate, Fate::Said(80, _, said) if is_mute(said)),
                "{own}"
            );
        }
    }
    assert_eq!(signs(&host.say(81, "WATCHDOG=1")), [(80, true)], "its keep-alives are its service's");
    assert_eq!(host.bridge.len(), 1);
}

#[test]
fn errors_of_tools_that_inherit_the_socket_make_no_service() {
    let mut host = Host::new();
    host.start(90, SHELL);
    for said in ["ERRNO=22", "EXIT_STATUS=0", "", "BARRIER=1", "STOPPING=1", "FDSTORE=1\nFDNAME=x"] {
        assert!(matches!(host.say(90, said)[..], [Fate::Passed | Fate::Unattributed]), "{said}");
    }
    assert_eq!((host.pass(SETTLE), host.bridge.len()), (vec![], 0));
}

#[test]
fn who_was_ready_beneath_a_service_takes_its_place_when_that_ends() {
    let mut host = Host::new();
    host.add(110, SHELL, HOURS);
    host.say(110, "READY=1");
    host.start(111, 110);
    host.start(112, 110);
    assert_eq!((host.say(111, "READY=1"), host.say(112, "READY=1")), (vec![], vec![]));
    host.pass(SETTLE);
    assert_eq!(host.bridge.len(), 1);
    assert_eq!(host.end(111, WELL), []);
    assert_eq!(signs(&host.end(110, WELL)), [(112, true)]);
    assert_eq!(host.bridge.len(), 1);
    assert_eq!(signs(&host.say(112, "STATUS=alone")), [(112, false)]);
}

#[test]
fn a_main_process_may_be_named_by_kin_of_the_same_user_and_by_nobody_else() {
    let mut host = Host::new();
    host.add(120, SHELL, HOURS);
    host.add(121, 120, HOURS);
    assert_eq!(signs(&host.say(121, "READY=1\nMAINPID=120")), [(120, true)]);
    assert_eq!(host.bridge.take_refused_main_pids(), 0);

    let mut host = Host::new();
    host.add(130, SHELL, HOURS);
    host.add(131, SHELL, HOURS);
    host.add(132, SHELL, HOURS).uid = 0;
    host.add(133, 130, HOURS).uid = 0;
    for forged in [131, 132, 133, 1, std::process::id()] {
        assert_eq!(signs(&host.say(130, &format!("READY=1\nMAINPID={forged}"))), [(130, true)], "{forged}");
    }
    assert_eq!(host.bridge.take_refused_main_pids(), 5);
    assert_eq!(host.bridge.len(), 1);
}

#[test]
fn a_service_that_names_another_main_process_is_that_one_from_then_on() {
    let mut host = Host::new();
    host.add(140, SHELL, HOURS);
    host.say(140, "READY=1");
    host.add(141, 140, HOURS);
    let fates = host.say(140, "MAINPID=141");
    assert!(matches!(&fates[..], [Fate::Said(140, _, left), Fate::Said(141, _, came)]
        if left.is_goodbye && came.is_beat));
    assert_eq!(host.bridge.len(), 1);
}

#[test]
fn a_main_pid_of_another_namespace_is_who_has_it_there() {
    let mut host = Host::new();
    host.add(150, SHELL, HOURS).inner = Some(1);
    assert_eq!(signs(&host.say(150, "READY=1\nMAINPID=1")), [(150, true)]);
    assert_eq!(signs(&host.say(150, "READY=1\nMAINPID=9")), [(150, true)], "nobody has it");
    assert_eq!(host.bridge.take_refused_main_pids(), 1);
}

#[test]
fn keep_alives_are_awaited_once_they_come_within_what_is_known_of_their_time() {
    let mut host = Host::new();
    host.add(160, SHELL, HOURS).within = Some(Duration::from_secs(30));
    assert_eq!(only(host.say(160, "READY=1")).keep_alives, Some(KeepAlives::Unawaited));
    let within = |host: &mut Host, text| only(host.say(160, text)).keep_alives;
    assert_eq!(within(&mut host, "WATCHDOG=1"), Some(KeepAlives::Within(Duration::from_secs(30))));
    let two = Some(KeepAlives::Within(Duration::from_secs(2)));
    assert_eq!(within(&mut host, "WATCHDOG_USEC=2000000"), two);
    assert_eq!(within(&mut host, "STATUS=busy"), None, "it changes nothing");

    host.add(161, SHELL, HOURS);
    assert_eq!(only(host.say(161, "WATCHDOG=1")).keep_alives, Some(KeepAlives::Unawaited));
    let mut known: Vec<Option<KeepAlives>> = Vec::new();
    for gap in [1, 10, 10, 60, 10] {
        host.now = host.now + Duration::from_secs(gap);
        let said = only(host.say(161, "WATCHDOG=1")).keep_alives;
        // What is said once holds.
        known.push(said.or(known.last().copied().flatten()));
    }
    let every = |seconds| Some(KeepAlives::Every(Duration::from_secs(seconds)));
    assert_eq!(known, [None, None, every(10), every(60), every(60)]);
    for _ in 0..8 {
        host.now = host.now + Duration::from_secs(10);
        known.extend(only(host.say(161, "WATCHDOG=1")).keep_alives.map(Some));
    }
    assert_eq!(known.last(), Some(&every(10)), "a stall is no interval for long");
}

#[test]
fn a_keep_alive_that_says_nothing_new_is_an_ordinary_beat_but_for_one_now_and_then() {
    let mut host = Host::new();
    host.add(165, SHELL, HOURS).within = Some(Duration::from_secs(30));
    host.say(165, "READY=1");
    let said: Vec<_> = (0..40).map(|_| only(host.say(165, "WATCHDOG=1")).is_plain()).collect();
    assert_eq!(said.iter().filter(|is_plain| !**is_plain).count(), 3, "{said:?}");
    assert!(!only(host.say(165, "WATCHDOG=1\nSTATUS=x")).is_plain());
    assert!(!only(host.say(165, "WATCHDOG=trigger")).is_plain());
}

#[test]
fn after_stopping_nothing_is_a_sign_of_life_until_it_is_ready_again() {
    let mut host = Host::new();
    host.add(170, SHELL, HOURS);
    host.say(170, "READY=1\nWATCHDOG=1");
    assert!(only(host.say(170, "STOPPING=1")).is_goodbye);
    for after in ["WATCHDOG=1", "STATUS=closing", "EXTEND_TIMEOUT_USEC=30000000", "RELOADING=1"] {
        let said = only(host.say(170, after));
        assert!(!said.is_beat && !said.is_goodbye, "{after}");
    }
    assert!(only(host.say(170, "READY=1")).is_beat);
    assert!(only(host.say(170, "WATCHDOG=1")).is_beat);
}

#[test]
fn what_a_service_sent_before_its_end_counts_although_it_is_read_after_that() {
    let mut host = Host::new();
    host.add(180, SHELL, HOURS);
    host.say(180, "READY=1");
    assert_eq!(host.end(180, ExitStatus::Killed { signal: 15, core_dumped: false }), []);
    assert!(only(host.say(180, "STOPPING=1")).is_goodbye);
    host.pass(SETTLE);
    assert_eq!(host.say(180, "STOPPING=1"), [Fate::Unattributed]);
}

#[test]
fn what_is_known_is_bounded_and_what_has_ended_makes_room() {
    let mut host = Host::new();
    for pid in 0..u32::try_from(MAX_SERVICES).unwrap() + 10 {
        host.add(10_000 + pid, SHELL, HOURS);
        let fates = host.say(10_000 + pid, "READY=1");
        assert_eq!(fates == [Fate::NoRoom], pid >= u32::try_from(MAX_SERVICES).unwrap(), "{pid}");
    }
    assert_eq!(host.bridge.len(), MAX_SERVICES);
    host.end(10_000, WELL);
    host.pass(SETTLE);
    assert_eq!(signs(&host.say(10_000 + u32::try_from(MAX_SERVICES).unwrap(), "READY=1")).len(), 1);

    let mut host = Host::new();
    for pid in 0..u32::try_from(MAX_UNSETTLED).unwrap() + 10 {
        host.start(10_000 + pid, SHELL);
        let fates = host.say(10_000 + pid, "READY=1");
        assert_eq!(fates == [Fate::NoRoom], pid >= u32::try_from(MAX_UNSETTLED).unwrap(), "{pid}");
    }
    let held = (0..20).filter(|_| host.say(10_000, "READY=1").is_empty()).count();
    assert_eq!(held, MAX_HELD - 1);
}

#[test]
fn one_that_turns_out_to_be_known_while_it_could_be_a_tool_is_itself_and_is_decided_on() {
    let mut host = Host::new();
    host.start(195, SHELL);
    assert_eq!(host.say(195, "READY=1"), []);
    host.bridge.know(195, None, host.now);
    assert_eq!(signs(&host.end(195, WELL)), [(195, true)]);
    assert_eq!((host.pass(SETTLE), host.bridge.next_due()), (vec![], None));
}

#[test]
fn a_service_from_before_a_restart_goes_on_as_one() {
    let mut host = Host::new();
    host.add(190, SHELL, HOURS);
    host.bridge.know(190, Some(Duration::from_secs(9)), host.now);
    host.add(191, 190, HOURS);
    let said = only(host.say(191, "WATCHDOG=1"));
    assert_eq!((said.is_beat, said.keep_alives), (true, Some(KeepAlives::Within(Duration::from_secs(9)))));
    assert_eq!(host.bridge.len(), 1);
}
