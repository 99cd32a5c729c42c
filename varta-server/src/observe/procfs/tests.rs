//! Tests of snapshots on real processes.

use std::ffi::CString;
use std::fs;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::sys::signal::Signal;
use nix::sys::stat::Mode;
use nix::unistd::{Pid, Uid, mkfifo};

use super::*;
use crate::base::clock::Clock;
use crate::domain::process::ExitStatus;
use crate::domain::process::MAX_THREADS;
use crate::domain::process::{ProcessActivity, classify};
use crate::observe::testing::{ARGUMENT, Child, PART, await_that};

fn look(pid: u32, start_time: NonZeroU64) -> Option<ProcessSnapshot> {
    ProcReader::find().look(pid, start_time, Clock::start().now())
}

/// Takes snapshots until one shows this activity.
fn await_doing(child: &Child, doing: ProcessActivity) -> ProcessSnapshot {
    let (pid, start_time) = (child.pid(), child.start_time());
    let mut last = None;
    await_that(doing.as_str(), || {
        last = look(pid, start_time);
        last.as_ref().is_some_and(|look| classify(look, None).activity == doing)
    });
    last.unwrap()
}

#[test]
fn a_process_that_waits_is_idle_and_it_is_seen_where() {
    let child = Child::asleep();
    let look = await_doing(&child, ProcessActivity::Idle);
    let details = look.details.as_ref().unwrap();
    assert_eq!((look.threads, details.states.count(State::Sleeping)), (1, 1));
    assert_eq!((look.pid, &*look.command), (child.pid(), "cat"));
    assert!(details.switches.is_some() && details.resident_bytes.is_some_and(|bytes| bytes > 0));
    // Standard input, output and error, and descriptors inherited from the test program.
    assert!(details.descriptors.is_some_and(|descriptors| (3..100).contains(&descriptors.open)));
    // `/proc/PID/syscall` is readable for tracers, which parents may be almost everywhere.
    if let Some(call) = details.call {
        assert_eq!(i64::from(call), libc::SYS_read);
    }
}

#[test]
fn a_process_that_a_signal_stopped_is_stopped_until_it_goes_on() {
    let child = Child::asleep();
    child.signal(Signal::SIGSTOP);
    assert_eq!(await_doing(&child, ProcessActivity::Stopped).state, State::Stopped);
    child.signal(Signal::SIGCONT);
    await_doing(&child, ProcessActivity::Idle);
}

#[test]
fn a_process_that_a_debugger_holds_is_traced() {
    let child = Child::asleep();
    let pid = Pid::from_raw(i32::try_from(child.pid()).unwrap());
    if let Err(error) = nix::sys::ptrace::attach(pid) {
        println!("not tested: nothing may be traced here: {error}");
        return;
    }
    assert_eq!(await_doing(&child, ProcessActivity::Traced).state, State::Traced);
}

#[test]
fn a_process_that_runs_is_busy_and_has_used_cpu() {
    let mut child = Child::playing("busy");
    child.hear("busy");
    let (pid, start_time, clock) = (child.pid(), child.start_time(), Clock::start());
    let host = ProcReader::find();
    let first = host.look(pid, start_time, clock.now()).unwrap();
    await_that("it has worked", || {
        let now = host.look(pid, start_time, clock.now()).unwrap();
        let has_used = now.since(&first).is_some_and(|change| change.cpu > Duration::ZERO);
        has_used && classify(&now, Some(&first)).activity == ProcessActivity::Busy
    });
}

#[test]
fn a_zombie_is_gone_and_it_is_seen_how_it_died() {
    let mut child = Child::shell("read line; exit 3");
    let start_time = child.start_time();
    child.close_input();
    let mut zombie = None;
    await_that("it is a zombie", || {
        zombie = look(child.pid(), start_time).filter(ProcessSnapshot::is_dead);
        zombie.is_some()
    });
    let zombie = zombie.unwrap();
    assert_eq!(classify(&zombie, None).activity, ProcessActivity::Gone);
    assert_eq!(zombie.death, Some(ExitStatus::Exited { code: 3 }));
}

#[test]
fn nobody_is_seen_where_nobody_is_or_where_another_is() {
    let mut child = Child::asleep();
    let (pid, start_time) = (child.pid(), child.start_time());
    assert_eq!(look(pid, start_time.checked_add(1).unwrap()), None);
    child.close_input();
    child.reap();
    assert_eq!(look(pid, start_time), None);
}

/// A named pipe whose opening blocks a child, and with it its parent, in uninterruptible sleep.
struct Trap {
    path: PathBuf,
    _directory: tempfile::TempDir,
}

impl Trap {
    fn set() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("pipe");
        mkfifo(&path, Mode::S_IRWXU).unwrap();
        Trap { path, _directory: directory }
    }
}

impl Drop for Trap {
    /// Releases the blocked process: opening a pipe for reading and writing does not block.
    fn drop(&mut self) {
        let _ = fs::OpenOptions::new().read(true).write(true).open(&self.path);
    }
}

/// The child's part for [`Child::playing_at`] with a [`Trap`]. The C library lets the new process share the
/// memory of its parent, which the kernel keeps in state D until the new process runs its program; before
/// that, the new process opens the pipe.
pub(crate) fn be_blocked(pipe: &Path) {
    use nix::fcntl::OFlag;
    use nix::spawn::{PosixSpawnAttr, PosixSpawnFileActions, posix_spawn};

    let mut actions = PosixSpawnFileActions::init().unwrap();
    actions.add_open(0, pipe, OFlag::O_RDONLY, Mode::empty()).unwrap();
    let program = CString::new("/bin/true").unwrap();
    let no_words: [CString; 0] = [];
    let attributes = PosixSpawnAttr::init().unwrap();
    posix_spawn(program.as_c_str(), &actions, &attributes, &[&program], &no_words).unwrap();
}

#[test]
fn a_process_that_nothing_interrupts_is_blocked() {
    let trap = Trap::set();
    let child = Child::playing_at("blocked", &trap.path);
    let look = await_doing(&child, ProcessActivity::Blocked);
    // The blocked task is one of several threads of the test program, or its only one.
    let stuck = look.details.unwrap().stuck;
    assert!(look.state == State::Uninterruptible || stuck.is_some());
    drop(trap);
}

#[test]
fn what_may_not_be_read_is_not_there_and_no_fault() {
    if !Uid::effective().is_root() {
        // Process 1 belongs to root, on this host at least.
        let start_time = Stat::of_thread(1, 1).map(|stat| stat.start_time);
        if let Some(start_time) = start_time {
            assert!(look(1, start_time).is_some());
        }
        return;
    }
    // Root may read everything, so another user takes the snapshot.
    let target = Child::asleep();
    let seen = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "observe::testing::helper", "--nocapture"])
        .envs([(PART, "stranger"), (ARGUMENT, &*target.pid().to_string())])
        .current_dir("/")
        .uid(65_534)
        .gid(65_534)
        .output();
    match seen {
        Ok(seen) => {
            let seen = String::from_utf8_lossy(&seen.stdout);
            assert!(
                seen.contains("a stranger sees cat, channel None, call None, threads 1 sleeping"),
                "{seen}"
            );
        }
        Err(error) => println!("not tested: another user cannot run this program: {error}"),
    }
}

/// Asserts the snapshot that an unprivileged user gets.
pub(crate) fn be_stranger(pid: u32) {
    let start_time = Stat::of_thread(pid, pid).unwrap().start_time;
    let look = look(pid, start_time).unwrap();
    let Details { channel, call, states, .. } = look.details.as_deref().unwrap();
    println!("\na stranger sees {}, channel {channel:?}, call {call:?}, threads {states}", look.command);
}

/// A new cgroup, where one can be made.
struct OwnCgroup {
    directory: PathBuf,
    /// The file that freezes it, and what is written there to freeze and to thaw it.
    freezer: (&'static str, [&'static str; 2]),
}

impl OwnCgroup {
    fn make(version_1: bool) -> io::Result<Self> {
        let hierarchies = Hierarchies::find();
        let (hierarchy, freezer) = if version_1 {
            (hierarchies.with_controller("freezer"), ("freezer.state", ["FROZEN", "THAWED"]))
        } else {
            (hierarchies.unified.as_ref(), ("cgroup.freeze", ["1", "0"]))
        };
        let path = hierarchy.and_then(|found| found.directory(&own_path()));
        let directory = path.ok_or(io::ErrorKind::NotFound)?;
        fs::create_dir(&directory)?;
        fs::create_dir(directory.join("below"))?;
        Ok(OwnCgroup { directory, freezer })
    }

    fn write(&self, file: &str, text: &str) -> io::Result<()> {
        fs::write(self.directory.join(file), text)
    }

    fn freeze(&self, frozen: bool) -> io::Result<()> {
        let (file, [freeze, thaw]) = self.freezer;
        self.write(file, if frozen { freeze } else { thaw })
    }
}

fn own_path() -> String {
    format!("/varta-test-{}", std::process::id())
}

impl Drop for OwnCgroup {
    fn drop(&mut self) {
        let _ = self.freeze(false);
        for directory in [&self.directory.join("below"), &self.directory] {
            await_that("the cgroup is removed", || fs::remove_dir(directory).is_ok() || !directory.exists());
        }
    }
}

#[test]
fn a_process_below_a_frozen_cgroup_is_frozen_in_either_version_and_it_is_seen_where() {
    for version_1 in [false, true] {
        let made = OwnCgroup::make(version_1);
        // Declared after the cgroup and so dropped before it.
        let child = Child::asleep();
        let cgroup = match made {
            Ok(cgroup) => cgroup,
            Err(error) => {
                println!("not tested: no cgroup can be made here: {error}");
                continue;
            }
        };
        if let Err(error) = cgroup.write("below/cgroup.procs", &child.pid().to_string()) {
            println!("not tested: no process can be moved here: {error}");
            continue;
        }
        await_doing(&child, ProcessActivity::Idle);
        cgroup.freeze(true).unwrap();
        let look = await_doing(&child, ProcessActivity::Frozen);
        let seen = look.details.unwrap().cgroup.unwrap();
        assert_eq!(&*seen.path, format!("{}/below", own_path()));
        assert_eq!(seen.frozen_at.as_deref(), Some(&*own_path()), "version 1: {version_1}");
        cgroup.freeze(false).unwrap();
        await_doing(&child, ProcessActivity::Idle);
        drop(child);
        drop(cgroup);
    }
}

#[test]
fn a_parent_that_waits_for_its_vfork_child_is_seen_with_that_child() {
    let trap = Trap::set();
    let child = Child::playing_at("blocked", &trap.path);
    let look = await_doing(&child, ProcessActivity::Blocked);
    let details = look.details.as_ref().unwrap();
    let explained = classify(&look, None).sentence;
    match (look.state, details.channel.as_deref(), &details.stuck) {
        (State::Uninterruptible, Some(_), _) => {
            assert!(explained.contains("vfork"), "{look:?}");
            let awaited = details.awaits.as_ref().unwrap();
            assert_eq!(Stat::of_process(awaited.pid).unwrap().parent, child.pid());
        }
        (_, _, Some(BlockedThread { channel: Some(_), .. })) => {
            assert!(explained.contains("vfork"), "{look:?}");
        }
        _ => println!("not tested: the kernel does not show where threads wait"),
    }
    drop(trap);
}

/// A tree that looks like `/proc`.
struct FakeProc(tempfile::TempDir);

impl FakeProc {
    fn new() -> Self {
        FakeProc(tempfile::tempdir().unwrap())
    }

    fn file(&self, path: &str, text: &str) -> &Self {
        let path = self.0.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
        self
    }

    /// A thread in this state of the process 70, which started at 1000, of so many.
    fn thread(&self, thread: u32, state: &str, threads: u32) -> &Self {
        let stat = stat_line(thread, state, 1, threads, 1000);
        if thread == 70 {
            self.file("70/stat", &stat);
        }
        self.file(&format!("70/task/{thread}/stat"), &stat)
    }

    fn look(&self) -> ProcessSnapshot {
        let reader = ProcReader::at(self.0.path().to_owned(), Hierarchies::default());
        reader.look(70, NonZeroU64::new(1000).unwrap(), MonoTime::START).unwrap()
    }
}

fn stat_line(pid: u32, state: &str, parent: u32, threads: u32, started: u32) -> String {
    format!("{pid} (worker) {state} {parent} 70 70 0 -1 0 0 0 0 0 5 5 0 0 20 0 {threads} 0 {started} 0 0\n")
}

#[test]
fn a_process_whose_core_is_dumped_is_known_for_that() {
    let proc = FakeProc::new();
    proc.thread(70, "D", 1).file("70/task/70/status", "Name:\tworker\nCoreDumping:\t1\n");
    assert_eq!(classify(&proc.look(), None).activity, ProcessActivity::DumpingCore);
    proc.file("70/task/70/status", "Name:\tworker\nCoreDumping:\t0\n");
    assert_eq!(classify(&proc.look(), None).activity, ProcessActivity::Blocked);
}

#[test]
fn a_process_that_waits_for_a_file_system_in_user_space_is_blocked() {
    let proc = FakeProc::new();
    proc.thread(70, "S", 1).file("70/task/70/wchan", "request_wait_answer");
    let explained = classify(&proc.look(), None);
    assert_eq!(explained.activity, ProcessActivity::Blocked);
    assert!(explained.sentence.contains("FUSE"), "{}", explained.sentence);
}

#[test]
fn where_the_main_thread_has_ended_the_first_that_lives_is_looked_at() {
    let proc = FakeProc::new();
    proc.thread(70, "Z", 3).thread(71, "Z", 3).thread(72, "S", 3);
    proc.file("70/task/70/status", "Name:\tworker\n").file("70/task/70/wchan", "0");
    proc.file("70/task/72/status", "Name:\tworker\nVmRSS:\t2048 kB\n");
    proc.file("70/task/72/wchan", "futex_do_wait").file("70/task/72/syscall", "202 0x0\n");
    proc.file(
        "70/task/72/limits",
        "Max open files            20                40                files     \n",
    );
    let look = proc.look();
    let details = look.details.as_deref().unwrap();
    assert_eq!((look.state, details.lead), (State::Sleeping, Some(72)));
    assert_eq!((details.channel.as_deref(), details.call), (Some("futex_do_wait"), Some(202)));
    assert_eq!(details.resident_bytes, Some(2 << 20));
    assert_eq!(details.states.to_string(), "1 sleeping, 2 ended");
    assert_eq!(classify(&look, None).activity, ProcessActivity::Idle);
    // All have ended: a zombie.
    let proc = FakeProc::new();
    proc.thread(70, "Z", 1);
    let look = proc.look();
    assert_eq!((look.state, look.details.unwrap().lead), (State::Ended, None));
}

#[test]
fn the_awaited_child_is_the_newest_and_found_also_where_children_are_not_listed() {
    let proc = FakeProc::new();
    proc.thread(70, "D", 1).file("70/task/70/wchan", "kernel_clone");
    for (pid, parent, started) in [(71, 70, 1500), (75, 70, 1700), (80, 1, 1800), (12, 70, 1600)] {
        proc.file(&format!("{pid}/stat"), &stat_line(pid, "S", parent, 1, started));
    }
    proc.file("75/task/75/wchan", "wait_for_partner").file("71/task/71/wchan", "do_poll");
    let awaits = |proc: &FakeProc| proc.look().details.unwrap().awaits.unwrap();
    assert_eq!(awaits(&proc), AwaitedChild { pid: 75, channel: Some("wait_for_partner".into()) });
    proc.file("70/task/70/children", "12 71 ");
    assert_eq!(awaits(&proc), AwaitedChild { pid: 71, channel: Some("do_poll".into()) });
    // One that waits for something else awaits no child.
    proc.file("70/task/70/wchan", "nfs_wait");
    assert_eq!(proc.look().details.unwrap().awaits, None);
}

#[test]
fn many_threads_are_all_counted_and_the_first_of_them_looked_at() {
    let mut child = Child::playing("many threads");
    child.hear("all are there");
    let look = look(child.pid(), child.start_time()).unwrap();
    assert!(look.threads > 100, "{}", look.threads);
    assert_eq!(usize::try_from(look.details.unwrap().states.total()), Ok(MAX_THREADS));
}

#[test]
fn this_process_has_its_own_pid_in_its_own_namespace() {
    let pids = namespace_pids(std::process::id());
    assert_eq!(pids.first(), Some(&std::process::id()));
    assert!(namespace_pids(u32::MAX).is_empty());
}

#[test]
fn changes_are_told_only_between_two_looks_at_one_process_in_their_order() {
    let child = Child::asleep();
    let host = ProcReader::find();
    let at = |seconds| host.look(child.pid(), child.start_time(), MonoTime::from_secs(seconds)).unwrap();
    let (first, second) = (at(1), at(3));
    let change = second.since(&first).unwrap();
    assert_eq!(change.over, Duration::from_secs(2));
    assert!(change.switches.is_some());
    assert_eq!(first.since(&second), None);
    assert_eq!(second.since(&ProcessSnapshot { pid: 1, ..first.clone() }), None);
    let glance = host.quick_sample(child.pid(), child.start_time(), MonoTime::from_secs(4)).unwrap();
    let change = glance.since(&first).unwrap();
    assert_eq!((change.over, change.switches), (Duration::from_secs(3), None));
}

#[test]
fn a_child_is_found_by_its_parent_and_nothing_else_is() {
    let (own, child) = (std::process::id(), Child::asleep());
    let started = Stat::of_thread(own, own).unwrap().start_time;
    let found = ProcReader::find().child(own, started, child.pid());
    assert_eq!(found, Some((child.pid(), child.start_time())));
    let later = started.checked_add(1).unwrap();
    for (parent, started, pid) in [(own, later, child.pid()), (1, started, child.pid()), (own, started, own)]
    {
        assert_eq!(ProcReader::find().child(parent, started, pid), None, "{pid} of {parent}");
    }
    let tree = tempfile::tempdir().unwrap();
    // The child 900 of 800, which knows it as 7, in a namespace of its own.
    for (pid, parent, inner, children) in [(800, 1, 1, "850 900 "), (850, 800, 6, ""), (900, 800, 7, "")] {
        let directory = tree.path().join(pid.to_string());
        fs::create_dir_all(directory.join(format!("task/{pid}"))).unwrap();
        let stat = fs::read_to_string("/proc/self/stat").unwrap();
        let rest: Vec<_> = stat.rsplit_once(") ").unwrap().1.split(' ').skip(2).collect();
        fs::write(directory.join("stat"), format!("{pid} (x) S {parent} {}", rest.join(" "))).unwrap();
        fs::write(directory.join("status"), format!("NSpid:\t{pid}\t{inner}\n")).unwrap();
        fs::write(directory.join(format!("task/{pid}/children")), children).unwrap();
    }
    let reader = ProcReader::at(tree.path().to_path_buf(), Hierarchies::default());
    let started = reader.stat(&tree.path().join("800/stat")).unwrap().start_time;
    assert_eq!(reader.child(800, started, 7).map(|(pid, _)| pid), Some(900));
    assert_eq!(reader.child(800, started, 900), None, "its parent does not know it by that");
}
