//! The system calls for which the standard library has no safe face.
#![allow(
    unsafe_code,
    reason = "signals, forks, poll, setuid and faults have no safe interface in the standard library"
)]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::atomic::AtomicU64;
use std::time::Duration;

/// What a test does to a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// SIGSTOP: it is there and does not run.
    Stop,
    /// SIGCONT: it runs again.
    Continue,
    /// SIGKILL: the process ends and cannot handle it.
    Kill,
    /// SIGTERM.
    Terminate,
    /// SIGINT.
    Interrupt,
    /// SIGHUP.
    HangUp,
    /// SIGUSR1.
    User1,
    /// SIGUSR2.
    User2,
}

impl Signal {
    const fn number(self) -> libc::c_int {
        match self {
            Signal::Stop => libc::SIGSTOP,
            Signal::Continue => libc::SIGCONT,
            Signal::Kill => libc::SIGKILL,
            Signal::Terminate => libc::SIGTERM,
            Signal::Interrupt => libc::SIGINT,
            Signal::HangUp => libc::SIGHUP,
            Signal::User1 => libc::SIGUSR1,
            Signal::User2 => libc::SIGUSR2,
        }
    }
}

/// Sends a signal to one process.
///
/// # Errors
///
/// The error of `kill(2)`; `InvalidInput` for what is not the pid of a single process.
pub fn send_signal(pid: u32, signal: Signal) -> io::Result<()> {
    let pid = libc::pid_t::try_from(pid).ok().filter(|pid| *pid > 0).ok_or(io::ErrorKind::InvalidInput)?;
    // SAFETY: `kill` touches no memory of this process.
    succeeded(unsafe { libc::kill(pid, signal.number()) })
}

/// Ends the calling thread and no other: of the main thread, the process goes on without it.
pub fn end_this_thread() -> ! {
    loop {
        // SAFETY: the call does not come back. What the thread had on its stack stays there, and no other thread
        // waits for this one.
        unsafe { libc::syscall(libc::SYS_exit, 0) };
    }
}

/// Which of the two processes after a fork this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forked {
    /// The one that called, and the child's pid.
    Parent(u32),
    /// The new one.
    Child,
}

/// Forks this process, which must have only one thread.
///
/// # Errors
///
/// The error of `fork(2)`; `Unsupported` when there are other threads.
pub fn fork() -> io::Result<Forked> {
    expect_one_thread()?;
    // SAFETY: there is only this thread, so the child finds no lock held and no structure half changed.
    match unsafe { libc::fork() } {
        0 => Ok(Forked::Child),
        pid => u32::try_from(pid).map(Forked::Parent).map_err(|_| io::Error::last_os_error()),
    }
}

/// Forks this process, which must have only one thread, and gives the child the pid `pid`, which must be
/// free.
///
/// # Errors
///
/// The error of `clone3(2)`: only root may, and `AlreadyExists` when the pid is taken. `Unsupported` when
/// there are other threads.
pub fn fork_as(pid: u32) -> io::Result<Forked> {
    expect_one_thread()?;
    let wanted = libc::pid_t::try_from(pid).map_err(|_| io::ErrorKind::InvalidInput)?;
    let arguments = libc::clone_args {
        flags: 0,
        pidfd: 0,
        child_tid: 0,
        parent_tid: 0,
        exit_signal: u64::from(libc::SIGCHLD.unsigned_abs()),
        stack: 0,
        stack_size: 0,
        tls: 0,
        set_tid: (&raw const wanted).expose_provenance() as u64,
        set_tid_size: 1,
        cgroup: 0,
    };
    // SAFETY: as with `fork`; without a stack the child goes on with a copy of this one. What `arguments`
    // point to lives through the call.
    match unsafe { libc::syscall(libc::SYS_clone3, &raw const arguments, size_of_val(&arguments)) } {
        0 => Ok(Forked::Child),
        pid => u32::try_from(pid).map(Forked::Parent).map_err(|_| io::Error::last_os_error()),
    }
}

/// Ends this process by a fault of memory: it reads a page that may not be read.
///
/// # Errors
///
/// The error of `mmap(2)`.
pub fn crash() -> io::Result<()> {
    let (length, flags) = (4096, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
    // SAFETY: the kernel picks the place, so no other memory is there.
    let page = unsafe { libc::mmap(std::ptr::null_mut(), length, libc::PROT_NONE, flags, -1, 0) };
    if page == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the page is there and has no other user, and the kernel ends this process when it is read.
    let byte = unsafe { page.cast::<u8>().read_volatile() };
    Err(io::Error::other(format!("what nobody may read is {byte}")))
}

/// Makes words of memory, all 0, that this process shares with all that it forks from then on. They stay for as
/// long as the process does.
///
/// # Errors
///
/// The error of `mmap(2)`; `InvalidInput` for more words than there is memory.
pub fn shared_words(count: usize) -> io::Result<&'static [AtomicU64]> {
    let length = count.checked_mul(size_of::<AtomicU64>()).ok_or(io::ErrorKind::InvalidInput)?;
    let (access, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED | libc::MAP_ANONYMOUS);
    // SAFETY: the kernel picks the place, so no other memory is there.
    let memory = unsafe { libc::mmap(std::ptr::null_mut(), length, access, flags, -1, 0) };
    if memory == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the memory is that long, begins at a page, is 0, which is a word, and is never given back. Other
    // processes change it by atomic operations only.
    Ok(unsafe { std::slice::from_raw_parts(memory.cast::<AtomicU64>(), count) })
}

/// What a file descriptor was found to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Readiness {
    /// There is something to read, or the end of it.
    Readable,
    /// All writers have closed it.
    HungUp,
    /// Nothing happened in the time given.
    Nothing,
}

/// Waits until there is something to read on `descriptor` or its other end has gone. With `only_hang_up` what
/// could be read is left to somebody else.
///
/// # Errors
///
/// The error of `poll(2)`.
pub fn wait_readable(
    descriptor: BorrowedFd<'_>,
    only_hang_up: bool,
    timeout: Duration,
) -> io::Result<Readiness> {
    let events = if only_hang_up { 0 } else { libc::POLLIN };
    let mut poll = libc::pollfd { fd: descriptor.as_raw_fd(), events, revents: 0 };
    // Rounded up: to wake up too early would be to turn round and round until it is time.
    let millis = libc::c_int::try_from(timeout.as_nanos().div_ceil(1_000_000)).unwrap_or(libc::c_int::MAX);
    // SAFETY: the pointer is to one `pollfd` that lives through the call, and its descriptor is borrowed.
    match succeeded(unsafe { libc::poll(&raw mut poll, 1, millis) }) {
        Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(Readiness::Nothing),
        result => result?,
    }
    Ok(match poll.revents {
        0 => Readiness::Nothing,
        events if events & libc::POLLIN != 0 => Readiness::Readable,
        _ => Readiness::HungUp,
    })
}

/// Makes this process one of user `uid`. There is no way back.
///
/// # Errors
///
/// The error of `setuid(2)`: only root may.
pub fn become_user(uid: u32) -> io::Result<()> {
    // SAFETY: `setuid` touches no memory of this process.
    succeeded(unsafe { libc::setuid(uid) })
}

/// The user and the group that own nothing.
pub const NOBODY: u32 = 65_534;

/// Puts this process into one supplementary group and into no other, with the primary group of nobody.
///
/// # Errors
///
/// The error of `setgroups(2)` or `setgid(2)`: only root may.
pub fn become_member(gid: u32) -> io::Result<()> {
    // SAFETY: the pointer and the length are those of one group, which lives through the call.
    succeeded(unsafe { libc::setgroups(1, &raw const gid) })?;
    // SAFETY: `setgid` touches no memory of this process.
    succeeded(unsafe { libc::setgid(NOBODY) })
}

/// Does something in a thread that is one of user `uid`, while the rest of the process stays what it is.
///
/// # Errors
///
/// The error of `setresuid(2)`: only root may.
pub fn as_user<T: Send>(uid: u32, act: impl FnOnce() -> T + Send) -> io::Result<T> {
    let change = move || {
        let (stays, uid) = (-1_i64, i64::from(uid));
        // SAFETY: `setresuid` touches no memory of this process. The system call itself, unlike the C
        // library's function of that name, changes only the thread that makes it, and this one ends soon.
        match unsafe { libc::syscall(libc::SYS_setresuid, stays, uid, stays) } {
            0 => Ok(act()),
            _ => Err(io::Error::last_os_error()),
        }
    };
    std::thread::scope(|scope| scope.spawn(change).join().expect("the action does not panic"))
}

/// The effective user of this process.
#[must_use]
pub fn user() -> u32 {
    // SAFETY: `geteuid` touches no memory and cannot fail.
    unsafe { libc::geteuid() }
}

fn expect_one_thread() -> io::Result<()> {
    if std::fs::read_dir("/proc/self/task")?.count() == 1 {
        return Ok(());
    }
    Err(io::Error::new(io::ErrorKind::Unsupported, "a child of fork would miss the other threads"))
}

fn succeeded(result: libc::c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
