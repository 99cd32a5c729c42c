//! The system calls of the beat path that the standard library does not offer.
//!
//! They are separate so that all other code is safe; each function has a safe interface and does one thing.

#![allow(unsafe_code, reason = "the kernel is spoken to through libc")]

use std::io;
use std::mem;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::path::Path;

/// Each call is non-blocking, and the socket is not: setting the socket would take a system call on every
/// reconnect.
#[cfg(not(target_vendor = "apple"))]
const SEND_FLAGS: libc::c_int = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
/// The standard library has already disabled SIGPIPE for these sockets.
#[cfg(target_vendor = "apple")]
const SEND_FLAGS: libc::c_int = libc::MSG_DONTWAIT;

/// Sends one datagram on a connected socket, without blocking.
///
/// `send` and not `write`, which `UnixDatagram::send` uses: the path through the file layer costs some 7 %
/// more.
#[inline]
pub(crate) fn send_now(socket: &impl AsFd, datagram: &[u8]) -> io::Result<usize> {
    let socket = socket.as_fd().as_raw_fd();
    // SAFETY: pointer and length are those of one live slice, which the kernel only reads.
    let sent = unsafe { libc::send(socket, datagram.as_ptr().cast(), datagram.len(), SEND_FLAGS) };
    usize::try_from(sent).map_err(|_| io::Error::last_os_error())
}

/// Sends one datagram on a connected Unix socket together with a copy of a descriptor, without blocking.
#[cfg(all(feature = "shm", target_os = "linux"))]
pub(crate) fn send_with_descriptor(
    socket: &impl AsFd,
    datagram: &[u8],
    passed: &impl AsFd,
) -> io::Result<usize> {
    /// A control message in the kernel's layout.
    #[repr(C)]
    struct FdRights {
        header: libc::cmsghdr,
        descriptor: libc::c_int,
    }

    // SAFETY: all zeroes is a valid value of it.
    let mut rights: FdRights = unsafe { mem::zeroed() };
    // The length of the header, which is padded to its own alignment, and of the descriptor.
    rights.header.cmsg_len = mem::offset_of!(FdRights, descriptor) + size_of::<libc::c_int>();
    rights.header.cmsg_level = libc::SOL_SOCKET;
    rights.header.cmsg_type = libc::SCM_RIGHTS;
    rights.descriptor = passed.as_fd().as_raw_fd();
    let mut bytes = libc::iovec { iov_base: datagram.as_ptr().cast_mut().cast(), iov_len: datagram.len() };
    // SAFETY: all zeroes is a valid value of it.
    let mut message: libc::msghdr = unsafe { mem::zeroed() };
    message.msg_iov = &raw mut bytes;
    message.msg_iovlen = 1;
    message.msg_control = (&raw mut rights).cast();
    message.msg_controllen = size_of::<FdRights>();
    let socket = socket.as_fd().as_raw_fd();
    // SAFETY: the message points to one live slice and one live control message, which the kernel only reads.
    let sent = unsafe { libc::sendmsg(socket, &raw const message, SEND_FLAGS) };
    usize::try_from(sent).map_err(|_| io::Error::last_os_error())
}

/// Connects to a socket for packets, without blocking: `WouldBlock` if its queue of connections is full.
#[cfg(any(target_os = "linux", target_os = "android"))]
pub(crate) fn connect_packets(path: &Path) -> io::Result<UnixStream> {
    let (address, length) = unix_address(path)?;
    let kind = libc::SOCK_SEQPACKET | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
    // SAFETY: the call takes no pointer.
    let socket = unsafe { libc::socket(libc::AF_UNIX, kind, 0) };
    if socket < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just opened the descriptor, and nobody else knows it.
    let socket = unsafe { OwnedFd::from_raw_fd(socket) };
    // SAFETY: the address is live, has this length, and is only read.
    let connected = unsafe { libc::connect(socket.as_raw_fd(), (&raw const address).cast(), length) };
    if connected == 0 { Ok(socket.into()) } else { Err(io::Error::last_os_error()) }
}

/// Waits until a socket has something to read, and leaves it there.
#[cfg(all(test, feature = "tokio", target_os = "linux"))]
pub(crate) fn peek_for_test(socket: &impl AsFd) -> io::Result<()> {
    let mut byte = 0_u8;
    let socket = socket.as_fd().as_raw_fd();
    // SAFETY: pointer and length are those of one live byte, which nobody else refers to.
    let peeked = unsafe { libc::recv(socket, (&raw mut byte).cast(), 1, libc::MSG_PEEK) };
    if peeked < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Listens on a socket for packets, as a server does.
#[cfg(all(test, target_os = "linux"))]
pub(crate) fn listen_for_packets_for_test(path: &Path) -> io::Result<std::os::unix::net::UnixListener> {
    let (address, length) = unix_address(path)?;
    // SAFETY: the call takes no pointer.
    let socket = unsafe { libc::socket(libc::AF_UNIX, libc::SOCK_SEQPACKET | libc::SOCK_CLOEXEC, 0) };
    if socket < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just opened the descriptor, and nobody else knows it.
    let socket = unsafe { OwnedFd::from_raw_fd(socket) };
    // SAFETY: the address is live, has this length, and is only read.
    let bound = unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), length) };
    // SAFETY: the call takes no pointer.
    if bound != 0 || unsafe { libc::listen(socket.as_raw_fd(), 16) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(socket.into())
}

/// The address of a path.
#[cfg(any(target_os = "linux", target_os = "android"))]
fn unix_address(path: &Path) -> io::Result<(libc::sockaddr_un, libc::socklen_t)> {
    // SAFETY: all zeroes is a valid value of it.
    let mut address: libc::sockaddr_un = unsafe { mem::zeroed() };
    let path = path.as_os_str().as_bytes();
    // The last byte of the address stays zero.
    if path.len() >= address.sun_path.len() {
        return Err(io::ErrorKind::Unsupported.into());
    }
    address.sun_family = libc::sa_family_t::try_from(libc::AF_UNIX).map_err(io::Error::other)?;
    for (to, from) in address.sun_path.iter_mut().zip(path) {
        *to = libc::c_char::from_ne_bytes([*from]);
    }
    let length = libc::socklen_t::try_from(size_of::<libc::sockaddr_un>()).map_err(io::Error::other)?;
    Ok((address, length))
}

/// Stands in for it on systems on which no server runs.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub(crate) fn connect_packets(_: &Path) -> io::Result<UnixStream> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Reads the host's monotonic clock, in nanoseconds.
#[cfg(all(feature = "shm", target_os = "linux"))]
pub(crate) fn monotonic_nanos() -> u64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the time is a live structure for the kernel to fill. With this clock the call cannot fail.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut now) };
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    seconds.wrapping_mul(1_000_000_000).wrapping_add(u64::try_from(now.tv_nsec).unwrap_or(0))
}

/// Writes a line to standard error without the lock of `std::io::Stderr`, which after a fork may belong to a
/// thread that does not exist in the child.
///
/// A failed write is ignored.
pub(crate) fn write_to_stderr(line: &'static str) {
    // SAFETY: pointer and length are those of one static string, which the kernel only reads.
    let _ = unsafe { libc::write(libc::STDERR_FILENO, line.as_ptr().cast(), line.len()) };
}

/// Returns the effective user of this process.
pub(crate) fn effective_uid() -> u32 {
    // SAFETY: the call takes nothing, changes nothing and cannot fail.
    unsafe { libc::geteuid() }
}

/// Fills `bytes` from the kernel's random number generator, without blocking: before the generator is seeded
/// at boot, the call fails.
#[cfg(any(target_os = "linux", target_os = "android"))]
pub(crate) fn get_random(bytes: &mut [u8]) -> io::Result<usize> {
    // SAFETY: pointer and length are those of one live slice, which the kernel only writes.
    let filled = unsafe { libc::getrandom(bytes.as_mut_ptr().cast(), bytes.len(), libc::GRND_NONBLOCK) };
    usize::try_from(filled).map_err(|_| io::Error::last_os_error())
}
