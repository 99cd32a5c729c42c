//! The system calls of the beat path that the standard library has no name for.
//!
//! They stand here so that everything else is safe code; each has a safe face and does one thing.

#![allow(unsafe_code, reason = "the kernel is spoken to through libc")]

use std::io;
use std::os::fd::{AsFd, AsRawFd};

/// Not blocking is asked for on each call and not on the socket, which saves a system call on every reconnect.
#[cfg(not(target_vendor = "apple"))]
const SEND_FLAGS: libc::c_int = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
/// The standard library has already asked these sockets for no SIGPIPE.
#[cfg(target_vendor = "apple")]
const SEND_FLAGS: libc::c_int = libc::MSG_DONTWAIT;

/// Hands one datagram to a connected socket, or says at once why not.
///
/// `send` and not the `write` that `UnixDatagram::send` makes: the way through the file layer costs some 7 % more.
#[inline]
pub(crate) fn send_now(socket: &impl AsFd, datagram: &[u8]) -> io::Result<usize> {
    let socket = socket.as_fd().as_raw_fd();
    // SAFETY: pointer and length are those of one live slice, which the kernel only reads.
    let sent = unsafe { libc::send(socket, datagram.as_ptr().cast(), datagram.len(), SEND_FLAGS) };
    usize::try_from(sent).map_err(|_| io::Error::last_os_error())
}

/// Writes a line to standard error past the lock of `std::io::Stderr`, which a thread that is no more may hold after a
/// fork.
///
/// Whether anybody can read it is not known, and makes no difference.
pub(crate) fn write_to_stderr(line: &'static str) {
    // SAFETY: pointer and length are those of one static string, which the kernel only reads.
    let _ = unsafe { libc::write(libc::STDERR_FILENO, line.as_ptr().cast(), line.len()) };
}

/// Gives the user on whose behalf this process opens files and sockets.
pub(crate) fn effective_uid() -> u32 {
    // SAFETY: the call takes nothing, changes nothing and cannot fail.
    unsafe { libc::geteuid() }
}

/// Fills `bytes` with what the kernel's generator gives, or says at once why not: before it has been seeded at boot it
/// gives nothing.
#[cfg(all(feature = "secure-udp", any(target_os = "linux", target_os = "android")))]
pub(crate) fn get_random(bytes: &mut [u8]) -> io::Result<usize> {
    // SAFETY: pointer and length are those of one live slice, which the kernel only writes.
    let got = unsafe { libc::getrandom(bytes.as_mut_ptr().cast(), bytes.len(), libc::GRND_NONBLOCK) };
    usize::try_from(got).map_err(|_| io::Error::last_os_error())
}
