//! What the yardsticks ask of the kernel: the same calls as the product, with nothing around them.
#![allow(unsafe_code, reason = "yardsticks are bare system calls")]

use std::io;
use std::mem;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::ptr;

use crate::Fallible;

/// Has the kernel kill the program when this one ends, however it ends.
pub(crate) fn die_together(command: &mut Command) -> &mut Command {
    let ask = || {
        // SAFETY: no pointers, and a call that may be made between `fork` and `exec`.
        let asked = unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
        if asked == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    };
    // SAFETY: `ask` makes one system call and allocates nothing.
    unsafe { command.pre_exec(ask) }
}

/// Keeps a process, with all its threads, to one core.
pub(crate) fn keep_to_core(pid: u32, core: usize) -> Fallible<()> {
    // SAFETY: all zeroes is an empty set.
    let mut cores: libc::cpu_set_t = unsafe { mem::zeroed() };
    // SAFETY: a core that is not there would only be refused below.
    unsafe { libc::CPU_SET(core, &mut cores) };
    for thread in std::fs::read_dir(format!("/proc/{pid}/task"))? {
        let thread = thread?.file_name().to_string_lossy().parse()?;
        // SAFETY: the pointer and the length are those of `cores`.
        let kept = unsafe { libc::sched_setaffinity(thread, mem::size_of_val(&cores), &raw const cores) };
        if kept != 0 {
            return Err(io::Error::last_os_error().into());
        }
    }
    Ok(())
}

/// Bytes that this process has allocated and not given back, as the C library counts them.
pub(crate) fn allocated() -> usize {
    // SAFETY: no pointers.
    let heap = unsafe { libc::mallinfo2() };
    heap.uordblks + heap.hblkhd
}

/// A descriptor that becomes readable when a process ends, see `pidfd_open(2)`.
pub(crate) fn open_pidfd(pid: libc::pid_t) -> io::Result<OwnedFd> {
    // SAFETY: no pointers.
    let descriptor = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    if descriptor < 0 {
        return Err(io::Error::last_os_error());
    }
    let descriptor = libc::c_int::try_from(descriptor).map_err(io::Error::other)?;
    // SAFETY: it is new, and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

/// Reads the monotonic clock, and does nothing with it.
pub(crate) fn monotonic_clock() -> libc::timespec {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the time is a live structure for the kernel to fill. With this clock the call cannot fail.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut now) };
    now
}

/// A bare `send(2)` that does not wait.
pub(crate) fn send(socket: BorrowedFd<'_>, bytes: &[u8]) -> io::Result<()> {
    let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    // SAFETY: the pointer and the length are those of `bytes`.
    let sent = unsafe { libc::send(socket.as_raw_fd(), bytes.as_ptr().cast(), bytes.len(), flags) };
    if usize::try_from(sent) == Ok(bytes.len()) { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Asks for a queue of `bytes` as the kernel counts them, with the privilege for it or without.
pub(crate) fn enlarge_queue(socket: &socket2::Socket, bytes: libc::c_int) -> io::Result<()> {
    // The kernel takes twice of what it is told.
    let told = bytes / 2;
    let length = libc::socklen_t::try_from(mem::size_of_val(&told)).map_err(io::Error::other)?;
    let value = ptr::from_ref(&told).cast();
    // SAFETY: the pointer and the length are those of `told`.
    let forced = unsafe {
        libc::setsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, value, length)
    };
    if forced == 0 {
        Ok(())
    } else {
        socket.set_recv_buffer_size(usize::try_from(told).map_err(io::Error::other)?)
    }
}

/// By what the product knows the sender of a datagram, and so what a bare loop reads too.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sender {
    /// The pid among the credentials, on a Unix socket.
    Credentials,
    /// The port, on a UDP socket.
    Address,
}

/// How a bare loop waits.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Waits {
    /// In `recvmmsg` itself.
    InReceive,
    /// In `epoll_wait` for the edge, and then it reads until a batch is not full.
    InEpoll,
}

impl Waits {
    pub(crate) const ALL: [Waits; 2] = [Waits::InReceive, Waits::InEpoll];

    /// How it is called between processes.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Waits::InReceive => "recvmmsg",
            Waits::InEpoll => "epoll",
        }
    }

    /// How the loop is called in the table.
    pub(crate) const fn title(self) -> &'static str {
        match self {
            Waits::InReceive => "bare loop, waits in recvmmsg:",
            Waits::InEpoll => "bare loop, waits in epoll:",
        }
    }

    pub(crate) fn named(name: &str) -> Fallible<Self> {
        Ok(Self::ALL.into_iter().find(|waits| waits.name() == name).ok_or("no way to wait")?)
    }
}

/// When a bare loop has done its work.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Until {
    /// After so many datagrams.
    Received(u64),
    /// After a datagram of [`FAREWELL`], which comes last and is not counted.
    Farewell,
}

/// A datagram that is none of those that are counted.
pub(crate) const FAREWELL: [u8; 1] = [0];

const BATCH: usize = 64;

/// A bare loop of `recvmmsg(2)` that reads who sent each datagram, and does nothing else.
pub(crate) struct BareLoop {
    socket: OwnedFd,
    sender: Sender,
    watch: Option<Watch>,
    headers: Vec<libc::mmsghdr>,
    /// Into the following the headers point.
    _iovecs: Vec<libc::iovec>,
    _payloads: Vec<[u8; 64]>,
    controls: Vec<[u64; 4]>,
    names: Vec<libc::sockaddr_in>,
}

impl BareLoop {
    pub(crate) fn new(socket: OwnedFd, sender: Sender, waits: Waits) -> io::Result<Self> {
        let mut payloads = vec![[0_u8; 64]; BATCH];
        let mut controls = vec![[0_u64; 4]; BATCH];
        // SAFETY: all zeroes is a valid address of no family.
        let nobody: libc::sockaddr_in = unsafe { mem::zeroed() };
        let mut names = vec![nobody; BATCH];
        let mut iovecs: Vec<libc::iovec> = payloads
            .iter_mut()
            .map(|payload| libc::iovec { iov_base: payload.as_mut_ptr().cast(), iov_len: payload.len() })
            .collect();
        let senders = controls.iter_mut().zip(&mut names);
        let headers = iovecs
            .iter_mut()
            .zip(senders)
            .map(|(iovec, (control, name))| {
                // SAFETY: all zeroes is a valid `mmsghdr`.
                let mut header: libc::mmsghdr = unsafe { mem::zeroed() };
                header.msg_hdr.msg_iov = ptr::from_mut(iovec);
                header.msg_hdr.msg_iovlen = 1;
                match sender {
                    Sender::Credentials => header.msg_hdr.msg_control = control.as_mut_ptr().cast(),
                    Sender::Address => header.msg_hdr.msg_name = ptr::from_mut(name).cast(),
                }
                header
            })
            .collect();
        let watch = if waits == Waits::InEpoll { Some(Watch::new(socket.as_fd())?) } else { None };
        Ok(BareLoop { socket, sender, watch, headers, _iovecs: iovecs, _payloads: payloads, controls, names })
    }

    /// Receives. Gives how many datagrams came, and the sum of their senders' numbers, so that nothing is optimised away.
    pub(crate) fn run(&mut self, until: Until) -> io::Result<(u64, u64)> {
        let (mut received, mut senders) = (0, 0);
        loop {
            let batch = self.receive()?;
            senders += match self.sender {
                // The pid is the first word after the header of 16 bytes.
                Sender::Credentials => {
                    self.controls[..batch].iter().map(|control| control[2] & 0xffff_ffff).sum::<u64>()
                }
                Sender::Address => self.names[..batch].iter().map(|name| u64::from(name.sin_port)).sum(),
            };
            received += batch as u64;
            let done = match until {
                Until::Received(count) => received >= count,
                Until::Farewell => {
                    let last = batch.checked_sub(1).map(|last| self.headers[last].msg_len as usize);
                    received -= u64::from(last == Some(FAREWELL.len()));
                    last == Some(FAREWELL.len())
                }
            };
            if done {
                return Ok((received, senders));
            }
            if let Some(watch) = &self.watch
                && batch < BATCH
            {
                watch.wait()?;
            }
        }
    }

    /// Takes a batch; 0 when nothing is there.
    fn receive(&mut self) -> io::Result<usize> {
        for header in &mut self.headers {
            match self.sender {
                Sender::Credentials => header.msg_hdr.msg_controllen = mem::size_of::<[u64; 4]>(),
                #[allow(clippy::cast_possible_truncation, reason = "16 bytes")]
                Sender::Address => {
                    header.msg_hdr.msg_namelen = mem::size_of::<libc::sockaddr_in>() as libc::socklen_t;
                }
            }
        }
        let flags = if self.watch.is_some() { libc::MSG_DONTWAIT } else { libc::MSG_WAITFORONE };
        let (pointer, length) = (self.headers.as_mut_ptr(), libc::c_uint::try_from(BATCH).unwrap_or(1));
        // SAFETY: `length` valid headers, whose buffers live in the vectors beside them.
        let batch =
            unsafe { libc::recvmmsg(self.socket.as_raw_fd(), pointer, length, flags as _, ptr::null_mut()) };
        match usize::try_from(batch) {
            Ok(batch) => Ok(batch),
            Err(_) => nothing_or(io::Error::last_os_error()),
        }
    }
}

/// 0 when there was nothing yet or a signal came between.
fn nothing_or(error: io::Error) -> io::Result<usize> {
    match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted => Ok(0),
        _ => Err(error),
    }
}

/// An epoll instance that watches one socket for edges.
struct Watch(OwnedFd);

impl Watch {
    fn new(socket: BorrowedFd<'_>) -> io::Result<Self> {
        // SAFETY: no pointers.
        let raw = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
        if raw < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: just made, and nobody else's.
        let epoll = unsafe { OwnedFd::from_raw_fd(raw) };
        #[allow(clippy::cast_sign_loss, reason = "flags")]
        let mut event = libc::epoll_event { events: (libc::EPOLLIN | libc::EPOLLET) as u32, u64: 0 };
        // SAFETY: `event` lives through the call.
        let added = unsafe {
            libc::epoll_ctl(epoll.as_raw_fd(), libc::EPOLL_CTL_ADD, socket.as_raw_fd(), &raw mut event)
        };
        if added < 0 { Err(io::Error::last_os_error()) } else { Ok(Watch(epoll)) }
    }

    fn wait(&self) -> io::Result<()> {
        let mut event = libc::epoll_event { events: 0, u64: 0 };
        // SAFETY: room for one event, and one is asked for.
        let ready = unsafe { libc::epoll_wait(self.0.as_raw_fd(), &raw mut event, 1, -1) };
        if ready < 0 { nothing_or(io::Error::last_os_error()).map(drop) } else { Ok(()) }
    }
}
