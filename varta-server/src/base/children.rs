//! Child processes: those that this program starts, whose exit status somebody waits for, and those that it
//! adopts because their parent has ended.
//!
//! A program adopts orphans as process 1 of a PID namespace, or as a subreaper. Nobody else reaps them, and a
//! dead child that is not reaped keeps its pid for ever. The kernel reports dead children in no useful order, so
//! own children are listed here, and only others are reaped.
#![allow(
    unsafe_code,
    reason = "waitid has no safe interface that reads every status, and neither has a change between fork and exec"
)]

use std::collections::HashSet;
use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStderr, Command, ExitStatus};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use nix::errno::Errno;
use nix::sys::prctl;
use nix::sys::resource::{Resource, setrlimit};
use nix::unistd::getpid;
use tokio::signal::unix::{SignalKind, signal};

use crate::base::inherited::changed_file_limits;

/// The most children that are reaped at once; the others are when the next ends.
const MAX_AT_ONCE: usize = 4_096;

/// The pids of the children that this process has started and not reaped.
static OWN: Mutex<Option<HashSet<u32>>> = Mutex::new(None);
/// Whether this process reaps children that it has adopted.
static ADOPTS: AtomicBool = AtomicBool::new(false);

/// A child whose exit status is read by [`OwnChild::wait`] or [`OwnChild::try_wait`], and by nobody else.
#[derive(Debug)]
pub(crate) struct OwnChild {
    child: Child,
}

/// Starts a child, with the limit of open files that this program was started with: a program that uses
/// select(2), or closes all descriptors that it may have, does not expect a million.
///
/// # Errors
///
/// As [`Command::spawn`].
pub(crate) fn spawn(command: &mut Command) -> io::Result<OwnChild> {
    if let Some((soft, hard)) = changed_file_limits() {
        let give = move || setrlimit(Resource::RLIMIT_NOFILE, soft, hard).map_err(io::Error::from);
        // SAFETY: between fork and exec the closure makes one system call, and allocates nothing.
        unsafe { command.pre_exec(give) };
    }
    // Held until the child is listed, which may have ended by then.
    let mut own = own();
    let child = command.spawn()?;
    own.get_or_insert_default().insert(child.id());
    Ok(OwnChild { child })
}

impl OwnChild {
    /// The pid.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Its standard error, if that is a pipe that nobody has taken.
    pub(crate) fn take_stderr(&mut self) -> Option<ChildStderr> {
        self.child.stderr.take()
    }

    /// Waits for the end, and reaps the child.
    ///
    /// # Errors
    ///
    /// None is expected.
    pub(crate) fn wait(&mut self) -> io::Result<ExitStatus> {
        self.child.wait()
    }

    /// The exit status if the child has ended, which reaps it. Does not wait.
    ///
    /// # Errors
    ///
    /// None is expected.
    pub(crate) fn try_wait(&mut self) -> io::Result<Option<ExitStatus>> {
        self.child.try_wait()
    }

    /// Whether the child has stopped or continued since this was asked last; the later of the two.
    pub(crate) fn take_job_change(&self) -> Option<JobChange> {
        match take_change(self.child.id())? {
            libc::CLD_CONTINUED => Some(JobChange::Continued),
            libc::CLD_STOPPED | libc::CLD_TRAPPED => Some(JobChange::Stopped),
            _ => None,
        }
    }

    /// Sends it a signal by its number, which may be that of a real-time signal. It is this child that gets it,
    /// because the pid is its own until it is reaped.
    ///
    /// # Errors
    ///
    /// `EPERM` when it has become another user's; `ESRCH` when it was reaped.
    pub(crate) fn send_signal(&self, number: libc::c_int) -> io::Result<()> {
        let pid = libc::pid_t::try_from(self.child.id()).map_err(|_| Errno::ESRCH)?;
        // SAFETY: takes two integers; memory is not involved.
        let result = unsafe { libc::kill(pid, number) };
        Ok(Errno::result(result).map(drop)?)
    }
}

/// What job control did to a child.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum JobChange {
    Stopped,
    Continued,
}

/// A child that was not waited for counts as an adopted one.
impl Drop for OwnChild {
    fn drop(&mut self) {
        if let Some(own) = own().as_mut() {
            own.remove(&self.child.id());
        }
        if ADOPTS.load(Ordering::Relaxed) {
            reap_adopted();
        }
    }
}

fn own() -> MutexGuard<'static, Option<HashSet<u32>>> {
    // Each change of the set is complete by itself.
    OWN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether orphans become children of this process.
fn adopts() -> bool {
    getpid().as_raw() == 1 || prctl::get_child_subreaper().unwrap_or(false)
}

/// Reaps adopted children when they end, on a task of the present runtime and as long as that runs. Does nothing
/// in a process that adopts none: one that is neither process 1 of its PID namespace nor a subreaper.
///
/// # Errors
///
/// SIGCHLD cannot be watched.
pub fn reap_adopted_children() -> io::Result<()> {
    if !adopts() {
        return Ok(());
    }
    let mut ended = signal(SignalKind::child())?;
    ADOPTS.store(true, Ordering::Relaxed);
    tokio::spawn(async move {
        reap_adopted();
        while ended.recv().await.is_some() {
            reap_adopted();
        }
    });
    Ok(())
}

/// Makes orphans among the descendants of this process its children, which it reaps with [`reap_adopted`] at each
/// SIGCHLD.
///
/// # Errors
///
/// None is expected.
pub(crate) fn adopt_orphans() -> io::Result<()> {
    prctl::set_child_subreaper(true)?;
    ADOPTS.store(true, Ordering::Relaxed);
    Ok(())
}

/// Whether this process has any child, dead ones that were not reaped among them.
pub(crate) fn has_children() -> bool {
    // SAFETY: the structure consists of integers, for which zero is valid.
    let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
    let flags = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
    // SAFETY: the call writes into the structure, which lives through it.
    let result = unsafe { libc::waitid(libc::P_ALL, 0, &raw mut info, flags) };
    Errno::result(result) != Err(Errno::ECHILD)
}

/// The code of SIGCHLD for the latest stop or continuation of a child that nobody has asked about.
fn take_change(pid: u32) -> Option<libc::c_int> {
    // SAFETY: the structure consists of integers, for which zero is valid.
    let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
    let flags = libc::WSTOPPED | libc::WCONTINUED | libc::WNOHANG;
    // SAFETY: the call writes into the structure, which lives through it.
    let result = unsafe { libc::waitid(libc::P_PID, pid, &raw mut info, flags) };
    Errno::result(result).ok()?;
    // SAFETY: after a wait the structure has the pid of a child, or the zero from above.
    let found = unsafe { info.si_pid() };
    (found != 0).then_some(info.si_code)
}

/// Reaps the dead children that are not this program's own, up to the first that is: behind that one no other
/// can be seen, and it calls this again when it is reaped.
pub(crate) fn reap_adopted() {
    let own = own();
    for _ in 0..MAX_AT_ONCE {
        match wait_for(libc::P_ALL, 0, libc::WNOWAIT) {
            Some(dead) if own.as_ref().is_none_or(|own| !own.contains(&dead)) => {
                wait_for(libc::P_PID, dead, 0);
            }
            Some(_) | None => return,
        }
    }
}

/// The pid of a dead child, which is reaped unless `flags` has `WNOWAIT`; `None` when there is none.
fn wait_for(kind: libc::idtype_t, pid: u32, flags: libc::c_int) -> Option<u32> {
    loop {
        // SAFETY: the structure consists of integers, for which zero is valid.
        let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
        let flags = flags | libc::WEXITED | libc::WNOHANG;
        // SAFETY: the call writes into the structure, which lives through it.
        let result = unsafe { libc::waitid(kind, pid, &raw mut info, flags) };
        match Errno::result(result) {
            Err(Errno::EINTR) => {}
            Err(_) => return None,
            // SAFETY: after a wait the structure has the pid of a child, or the zero from above.
            Ok(_) => return u32::try_from(unsafe { info.si_pid() }).ok().filter(|pid| *pid > 0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_that_stops_and_continues_is_told_of_once_each() {
        let mut own = spawn(Command::new("sleep").arg("1000")).unwrap();
        let next = |own: &OwnChild| loop {
            if let Some(change) = own.take_job_change() {
                break change;
            }
            std::thread::yield_now();
        };
        own.send_signal(libc::SIGSTOP).unwrap();
        assert_eq!(next(&own), JobChange::Stopped);
        assert_eq!(own.take_job_change(), None);
        own.send_signal(libc::SIGCONT).unwrap();
        assert_eq!(next(&own), JobChange::Continued);
        assert!(has_children());
        own.send_signal(libc::SIGRTMIN()).unwrap();
        let status = loop {
            if let Some(status) = own.try_wait().unwrap() {
                break status;
            }
            std::thread::yield_now();
        };
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(libc::SIGRTMIN()));
    }

    #[test]
    fn an_own_child_keeps_its_status_until_it_is_waited_for_and_others_are_reaped() {
        let mut own = spawn(Command::new("sh").args(["-c", "exit 7"])).unwrap();
        let status = loop {
            // Other tests of this program have children that they wait for themselves: only this one is asked.
            if wait_for(libc::P_PID, own.id(), libc::WNOWAIT) == Some(own.id()) {
                let is_listed = super::own().as_ref().unwrap().contains(&own.id());
                assert!(is_listed);
                break own.wait().unwrap();
            }
            std::thread::yield_now();
        };
        assert_eq!(status.code(), Some(7));
        let pid = own.id();
        drop(own);
        assert!(!super::own().as_ref().unwrap().contains(&pid));
        assert_eq!(wait_for(libc::P_PID, pid, 0), None);
    }
}
