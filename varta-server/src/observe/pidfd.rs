//! File descriptors that refer to processes: pidfd_open(2), `PIDFD_GET_INFO`, pidfd_send_signal(2).
//!
//! A pid refers to the process that has it at the moment; a pidfd keeps referring to the process for which it
//! was opened, and reports its exit even if that process is no child of this one. The only file with the
//! unsafe code for it, together with the epoll set that holds all pidfds.
#![allow(unsafe_code, reason = "the two calls, and registering with the runtime, have no safe interface")]

use std::collections::VecDeque;
use std::io;
use std::mem;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::signal::Signal;
use nix::sys::stat::fstat;
use nix::sys::statfs::{FsType, fstatfs};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::domain::process::{ExitStatus, PidfdTag};

/// `struct pidfd_info` of the kernel's `linux/pidfd.h`, in its first published size. Later versions only
/// append, and the kernel fills as much as fits; the exit code took the place of a spare field.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
struct PidfdInfo {
    /// The requested fields; in the reply the provided ones.
    mask: u64,
    cgroupid: u64,
    pid: u32,
    tgid: u32,
    ppid: u32,
    ruid: u32,
    rgid: u32,
    euid: u32,
    egid: u32,
    suid: u32,
    sgid: u32,
    fsuid: u32,
    fsgid: u32,
    exit_code: i32,
}

/// `PIDFD_INFO_SIZE_VER0`: the size is part of the request's number.
const _: () = assert!(mem::size_of::<PidfdInfo>() == 64);

/// `PIDFD_INFO_EXIT`: the exit status, which the kernel provides from Linux 6.15 on once the process is
/// reaped.
const INFO_EXIT: u64 = 1 << 3;
/// `PIDFD_SIGNAL_PROCESS_GROUP`, from Linux 6.9.
const SIGNAL_PROCESS_GROUP: libc::c_uint = 1 << 2;
/// `PID_FS_MAGIC`: the file system in which each process has an inode number of its own.
const PIDFS: FsType = FsType(0x5049_4446);
/// `PIDFD_GET_INFO`, from Linux 6.13.
const GET_INFO: libc::Ioctl = libc::_IOWR::<PidfdInfo>(0xff, 11);

/// A reference to a process, valid even after its exit.
#[derive(Debug)]
pub(crate) struct Pidfd(OwnedFd);

/// The state of a process as its pidfd shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ExitPoll {
    /// At least one thread has not ended.
    Alive,
    /// It has exited and is not reaped: the status becomes available when its parent reaps it.
    Unreaped,
    /// It has exited with this status; [`ExitStatus::Unknown`] when this kernel never provides it.
    Dead(ExitStatus),
}

impl Pidfd {
    /// Opens the process with this pid. The descriptor has close-on-exec set.
    ///
    /// # Errors
    ///
    /// `ESRCH` without such a process; `ENOSYS` before Linux 5.3; `EMFILE` and the like when descriptors or
    /// memory are exhausted.
    pub(crate) fn open(pid: u32) -> io::Result<Self> {
        let no_such_process = || io::Error::from_raw_os_error(libc::ESRCH);
        let pid = libc::pid_t::try_from(pid).map_err(|_| no_such_process())?;
        if pid == 0 {
            return Err(no_such_process());
        }
        // SAFETY: takes two integers and returns one; memory is not involved.
        let descriptor = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
        let descriptor = RawFd::try_from(descriptor).ok().filter(|descriptor| *descriptor >= 0);
        let descriptor = descriptor.ok_or_else(io::Error::last_os_error)?;
        // SAFETY: the kernel has just made this descriptor for this process, and only this value knows it.
        Ok(Pidfd(unsafe { OwnedFd::from_raw_fd(descriptor) }))
    }

    /// The pidfd that the kernel has opened with a datagram, of the process that sent it.
    pub(crate) fn of_sender(descriptor: OwnedFd) -> Self {
        Pidfd(descriptor)
    }

    pub(crate) fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    /// Polls the state of the process without blocking.
    pub(crate) fn ask(&self) -> ExitPoll {
        let info = match self.info() {
            Ok(info) if info.mask & INFO_EXIT != 0 => {
                return ExitPoll::Dead(ExitStatus::from_wait_status(info.exit_code));
            }
            other => other,
        };
        // On a kernel without the request, the readiness of the pidfd still tells live from dead.
        match (self.has_ended(), info) {
            (false, _) => ExitPoll::Alive,
            (true, Ok(_)) => ExitPoll::Unreaped,
            (true, Err(_)) => ExitPoll::Dead(ExitStatus::Unknown),
        }
    }

    /// Sends a signal to this very process, even if its pid was reused. See pidfd_send_signal(2).
    ///
    /// # Errors
    ///
    /// `ESRCH` when it was reaped; `EPERM` when this user may not signal it.
    pub(crate) fn send_signal(&self, signal: Signal) -> io::Result<()> {
        self.signal_with(signal, 0)
    }

    /// Sends a signal to the process group that this process leads, from Linux 6.9 on.
    ///
    /// # Errors
    ///
    /// `EINVAL` on an older kernel; `ESRCH` when the group is empty or another leads it; `EPERM` when this user
    /// may signal none of it.
    pub(crate) fn send_signal_to_group(&self, signal: Signal) -> io::Result<()> {
        self.signal_with(signal, SIGNAL_PROCESS_GROUP)
    }

    fn signal_with(&self, signal: Signal, flags: libc::c_uint) -> io::Result<()> {
        let no_information = ptr::null::<libc::siginfo_t>();
        let (descriptor, signal) = (self.0.as_raw_fd(), signal as libc::c_int);
        // SAFETY: three integers, and a null pointer, which the call allows: the kernel then fills in the
        // sender.
        let result =
            unsafe { libc::syscall(libc::SYS_pidfd_send_signal, descriptor, signal, no_information, flags) };
        if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    /// Whether every thread of the process has ended: the descriptor is readable from then on.
    pub(crate) fn has_ended(&self) -> bool {
        let mut asked = [PollFd::new(self.0.as_fd(), PollFlags::POLLIN)];
        loop {
            match poll(&mut asked, PollTimeout::ZERO) {
                // A pending signal interrupts even a poll that does not block.
                Err(Errno::EINTR) => {}
                // A failed call is no evidence of an exit.
                answer => return answer.is_ok_and(|ready| ready > 0),
            }
        }
    }

    /// The tag of the process, by the inode number of the descriptor, which is unique from Linux 6.9 on.
    pub(crate) fn tag(&self) -> PidfdTag {
        let is_unique = fstatfs(self.0.as_fd()).is_ok_and(|found| found.filesystem_type() == PIDFS);
        let number = is_unique.then(|| fstat(self.0.as_fd()).ok()).flatten();
        number.map_or(PidfdTag::UNKNOWN, |found| PidfdTag::of_inode(found.st_ino))
    }

    /// # Errors
    ///
    /// `ESRCH` when the process is reaped and the kernel keeps no status; `ENOTTY` when the kernel has no
    /// such request.
    fn info(&self) -> io::Result<PidfdInfo> {
        let mut info = PidfdInfo { mask: INFO_EXIT, ..PidfdInfo::default() };
        // SAFETY: the request's number says that it reads and writes a `PidfdInfo`, which lives through the
        // call and holds only integers, so that any bytes are valid.
        let result = unsafe { libc::ioctl(self.0.as_raw_fd(), GET_INFO, &raw mut info) };
        if result == 0 { Ok(info) } else { Err(io::Error::last_os_error()) }
    }
}

impl From<Pidfd> for OwnedFd {
    fn from(pidfd: Pidfd) -> Self {
        pidfd.0
    }
}

impl AsFd for Pidfd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// The most events taken from the kernel with one system call.
pub(crate) const EVENTS: usize = 64;

/// An epoll set of pidfds as one descriptor, which is readable when one of them is.
#[derive(Debug)]
pub(crate) struct PidfdSet(Epoll);

impl PidfdSet {
    /// # Errors
    ///
    /// Descriptors or memory are exhausted.
    pub(crate) fn new() -> io::Result<Self> {
        Ok(PidfdSet(Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?))
    }

    /// Registers the set with the runtime of the caller.
    ///
    /// # Errors
    ///
    /// As the runtime's own registration.
    pub(crate) fn register(self) -> io::Result<AsyncFd<Self>> {
        // SAFETY: `as_raw_fd` names the same open descriptor as long as this value lives, which the
        // registration owns and gives out only by reference; nothing here closes the descriptor or puts
        // another in its place.
        Ok(unsafe { AsyncFd::register_with_interest(self, Interest::READABLE)? })
    }

    /// Registers one more descriptor of the set with the runtime of the caller, for one of several that wait for it.
    ///
    /// # Errors
    ///
    /// Descriptors are short, or as the runtime's own registration.
    pub(crate) fn register_copy(&self) -> io::Result<AsyncFd<OwnedFd>> {
        let copy = self.0.0.try_clone()?;
        // SAFETY: as for `register`: the registration owns the descriptor, which nothing closes before.
        Ok(unsafe { AsyncFd::register_with_interest(copy, Interest::READABLE)? })
    }

    /// Adds a process under a key. The key is reported when the process exits, and again when it is reaped.
    ///
    /// # Errors
    ///
    /// `ENOSPC` at `fs.epoll.max_user_watches`; `ENOMEM`.
    pub(crate) fn add(&self, pidfd: &Pidfd, key: u64) -> io::Result<()> {
        let event = EpollEvent::new(EpollFlags::EPOLLIN | EpollFlags::EPOLLET, key);
        Ok(self.0.add(pidfd, event)?)
    }

    /// Removes a process from the set.
    pub(crate) fn remove(&self, pidfd: &Pidfd) {
        // Closing the descriptor would not do while a child that is being started still holds a copy.
        let _ = self.0.delete(pidfd);
    }

    /// Takes the reported keys, at most [`EVENTS`], without blocking, and returns their number.
    ///
    /// # Errors
    ///
    /// None is expected.
    pub(crate) fn take_ready(&self, keys: &mut VecDeque<u64>) -> io::Result<usize> {
        let mut events = [EpollEvent::empty(); EVENTS];
        let count = self.0.wait(&mut events, EpollTimeout::ZERO)?;
        keys.extend(events[..count].iter().map(EpollEvent::data));
        Ok(count)
    }
}

impl AsRawFd for PidfdSet {
    fn as_raw_fd(&self) -> RawFd {
        self.0.0.as_raw_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::testing::{Child, await_that, kernel_tells_exits};

    #[test]
    fn this_process_lives() {
        assert_eq!(Pidfd::open(std::process::id()).unwrap().ask(), ExitPoll::Alive);
    }

    #[test]
    fn a_signal_reaches_the_process_that_was_opened_and_nobody_once_that_is_reaped() {
        let mut child = Child::shell("read line");
        let pidfd = Pidfd::open(child.pid()).unwrap();
        pidfd.send_signal(Signal::SIGKILL).unwrap();
        await_that("it is dead", || pidfd.has_ended());
        child.reap();
        assert_eq!(pidfd.send_signal(Signal::SIGKILL).unwrap_err().raw_os_error(), Some(libc::ESRCH));
    }

    #[test]
    fn a_pid_that_nobody_has_cannot_be_opened() {
        for pid in [0, u32::MAX, 0x7fff_ffff] {
            assert_eq!(Pidfd::open(pid).unwrap_err().raw_os_error(), Some(libc::ESRCH), "{pid}");
        }
    }

    #[test]
    fn the_information_is_about_the_process_that_was_opened() {
        let info = Pidfd::open(std::process::id()).unwrap().info();
        // A kernel before 6.13 does not have the request.
        if let Ok(info) = info {
            assert_eq!((info.pid, info.mask & INFO_EXIT), (std::process::id(), 0));
        }
    }

    #[test]
    fn a_death_is_told_in_full_once_the_parent_has_asked() {
        let deaths = [
            ("exit 0", ExitStatus::Exited { code: 0 }),
            ("exit 3", ExitStatus::Exited { code: 3 }),
            ("kill -KILL $$", ExitStatus::Killed { signal: 9, core_dumped: false }),
            ("ulimit -c 0; kill -SEGV $$", ExitStatus::Killed { signal: 11, core_dumped: false }),
        ];
        for (script, death) in deaths {
            let mut child = Child::shell(&format!("read line; {script}"));
            let pidfd = Pidfd::open(child.pid()).unwrap();
            assert_eq!(pidfd.ask(), ExitPoll::Alive, "{script}");
            child.close_input();
            await_that("it is dead", || pidfd.ask() != ExitPoll::Alive);
            child.reap();
            let told = pidfd.ask();
            if kernel_tells_exits() {
                assert_eq!(told, ExitPoll::Dead(death), "{script}");
            } else {
                assert_eq!(told, ExitPoll::Dead(ExitStatus::Unknown), "{script}");
            }
        }
    }

    #[test]
    fn of_a_zombie_it_is_told_that_it_is_dead() {
        let mut child = Child::shell("read line; exit 3");
        let pidfd = Pidfd::open(child.pid()).unwrap();
        child.close_input();
        await_that("it is dead", || pidfd.ask() != ExitPoll::Alive);
        let wanted = if kernel_tells_exits() { ExitPoll::Unreaped } else { pidfd.ask() };
        assert_eq!(pidfd.ask(), wanted);
    }
}
