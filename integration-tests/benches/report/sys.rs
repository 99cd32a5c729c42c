//! What the yardsticks ask of the kernel: the same calls as the product, with nothing around them.
#![allow(unsafe_code, reason = "yardsticks are bare system calls")]

use std::io;
use std::mem;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr;

/// A bare `send(2)` that does not wait.
pub(crate) fn send(socket: BorrowedFd<'_>, bytes: &[u8; 32]) -> io::Result<()> {
    let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    // SAFETY: the pointer and the length are those of `bytes`.
    let sent = unsafe { libc::send(socket.as_raw_fd(), bytes.as_ptr().cast(), bytes.len(), flags) };
    if sent == 32 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Receives `count` datagrams of 32 bytes with bare `recvmmsg(2)` and reads the credentials of each. Returns the sum of
/// the pids, so that nothing is optimised away. Waits in `recvmmsg` itself or, with `epoll`, in `epoll_wait` for the edge,
/// and then reads until a batch is not full.
pub(crate) fn receive_all(socket: BorrowedFd<'_>, count: u64, epoll: bool) -> io::Result<u64> {
    const BATCH: usize = 64;
    let mut payloads = vec![[0_u8; 64]; BATCH];
    let mut controls = vec![[0_u64; 4]; BATCH];
    let mut iovecs: Vec<libc::iovec> = payloads
        .iter_mut()
        .map(|payload| libc::iovec { iov_base: payload.as_mut_ptr().cast(), iov_len: payload.len() })
        .collect();
    let mut headers: Vec<libc::mmsghdr> = iovecs
        .iter_mut()
        .zip(&mut controls)
        .map(|(iovec, control)| {
            // SAFETY: all zeroes is a valid `mmsghdr`.
            let mut header: libc::mmsghdr = unsafe { mem::zeroed() };
            header.msg_hdr.msg_iov = ptr::from_mut(iovec);
            header.msg_hdr.msg_iovlen = 1;
            header.msg_hdr.msg_control = control.as_mut_ptr().cast();
            header
        })
        .collect();
    let watch = if epoll { Some(Watch::new(socket)?) } else { None };
    let flags = if epoll { libc::MSG_DONTWAIT } else { libc::MSG_WAITFORONE };
    let (mut received, mut pids) = (0, 0);
    while received < count {
        for header in &mut headers {
            header.msg_hdr.msg_controllen = mem::size_of::<[u64; 4]>();
        }
        let (pointer, length) = (headers.as_mut_ptr(), libc::c_uint::try_from(BATCH).unwrap_or(1));
        // SAFETY: `length` valid headers, whose buffers live in the vectors above.
        let batch =
            unsafe { libc::recvmmsg(socket.as_raw_fd(), pointer, length, flags as _, ptr::null_mut()) };
        let batch = match u64::try_from(batch) {
            Ok(batch) => batch,
            Err(_) if io::Error::last_os_error().kind() == io::ErrorKind::WouldBlock => 0,
            Err(_) => return Err(io::Error::last_os_error()),
        };
        for control in &controls[..usize::try_from(batch).unwrap_or(0)] {
            // The pid is the first word after the header of 16 bytes.
            pids += control[2] & 0xffff_ffff;
        }
        received += batch;
        if let Some(watch) = &watch
            && batch < BATCH as u64
            && received < count
        {
            watch.wait()?;
        }
    }
    Ok(pids)
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
        if ready < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }
}
