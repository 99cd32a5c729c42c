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
fn a_process_that_a_debugger_holds_is_stopped() {
    let child = Child::asleep();
    let pid = Pid::from_raw(i32::try_from(child.pid()).unwrap());
    if let Err(error) = nix::sys::ptrace::attach(pid) {
        println!("not tested: nothing may be traced here: {error}");
        return;
    }
    assert_eq!(await_doing(&child, ProcessActivity::Stopped).state, State::Traced);
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
struct OwnCgroup(PathBuf);

impl OwnCgroup {
    fn make() -> io::Result<Self> {
        let hierarchy = Hierarchy::find().ok_or(io::ErrorKind::NotFound)?;
        let path = hierarchy.directory(&format!("/varta-test-{}", std::process::id())).unwrap();
        fs::create_dir(&path)?;
        Ok(OwnCgroup(path))
    }

    fn write(&self, file: &str, text: &str) -> io::Result<()> {
        fs::write(self.0.join(file), text)
    }
}

impl Drop for OwnCgroup {
    fn drop(&mut self) {
        let _ = self.write("cgroup.freeze", "0");
        await_that("the cgroup is removed", || fs::remove_dir(&self.0).is_ok() || !self.0.exists());
    }
}

#[test]
fn a_process_in_a_frozen_cgroup_is_frozen() {
    let made = OwnCgroup::make();
    // Declared after the cgroup and so dropped before it.
    let child = Child::asleep();
    let cgroup = match made {
        Ok(cgroup) => cgroup,
        Err(error) => return println!("not tested: no cgroup can be made here: {error}"),
    };
    if let Err(error) = cgroup.write("cgroup.procs", &child.pid().to_string()) {
        return println!("not tested: no process can be moved here: {error}");
    }
    await_doing(&child, ProcessActivity::Idle);
    cgroup.write("cgroup.freeze", "1").unwrap();
    let look = await_doing(&child, ProcessActivity::Frozen);
    let seen = look.details.unwrap().cgroup.unwrap();
    assert!(seen.path.ends_with(&format!("/varta-test-{}", std::process::id())), "{seen:?}");
    cgroup.write("cgroup.freeze", "0").unwrap();
    await_doing(&child, ProcessActivity::Idle);
    drop(child);
    drop(cgroup);
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
