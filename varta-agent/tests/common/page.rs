//! A server that accepts pages of memory.

#![allow(unsafe_code, reason = "descriptors are received and memory is mapped through libc")]

use std::mem;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::ptr;

use tempfile::TempDir;
use varta_agent::Frame;
use varta_proto::page::{BeatPage, Glance, LONGEST_PROMISE};

/// A socket that receives pages.
pub(crate) struct PageServer {
    dir: TempDir,
    socket: UnixDatagram,
}

/// A page in the server's mapping, which is never unmapped.
pub(crate) struct Page(&'static BeatPage);

impl PageServer {
    pub(crate) fn listening() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let socket = UnixDatagram::bind(dir.path().join("varta.sock")).unwrap();
        socket.set_read_timeout(Some(super::LIMIT)).unwrap();
        Self { dir, socket }
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.dir.path().join("varta.sock")
    }

    /// Receives datagrams up to the next page, and returns that page.
    pub(crate) fn page(&self) -> Page {
        loop {
            if let Some(descriptor) = self.receive() {
                let (protection, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED);
                // SAFETY: a new mapping at an address of the kernel's choice touches no memory that exists.
                let memory = unsafe {
                    libc::mmap(ptr::null_mut(), 4096, protection, flags, descriptor.as_raw_fd(), 0)
                };
                assert_ne!(memory, libc::MAP_FAILED);
                // SAFETY: it was mapped above, for ever, and is sealed against becoming shorter.
                return Page(unsafe { &*memory.cast() });
            }
        }
    }

    fn receive(&self) -> Option<OwnedFd> {
        let (mut bytes, mut control) = ([0_u8; 600], [0_u64; 3]);
        let mut part = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
        // SAFETY: all zeroes is a valid value of it.
        let mut message: libc::msghdr = unsafe { mem::zeroed() };
        message.msg_iov = &raw mut part;
        message.msg_iovlen = 1;
        message.msg_control = control.as_mut_ptr().cast();
        message.msg_controllen = mem::size_of_val(&control);
        // SAFETY: the message points to live buffers of these lengths.
        let received = unsafe { libc::recvmsg(self.socket.as_raw_fd(), &raw mut message, 0) };
        assert!(received > 0, "{}", std::io::Error::last_os_error());
        // SAFETY: the message was filled by the kernel.
        let header = unsafe { libc::CMSG_FIRSTHDR(&raw const message) };
        // SAFETY: it is null or points into the buffer that lives here.
        let header = unsafe { header.as_ref() }?;
        assert_eq!(header.cmsg_type, libc::SCM_RIGHTS);
        // SAFETY: the header is one of the message's.
        let data = unsafe { libc::CMSG_DATA(header) };
        // SAFETY: the header is followed by a descriptor.
        let descriptor = unsafe { data.cast::<libc::c_int>().read_unaligned() };
        // SAFETY: the kernel has just opened it, and nothing else owns it.
        Some(unsafe { OwnedFd::from_raw_fd(descriptor) })
    }
}

impl Page {
    /// Gives the page a lease.
    pub(crate) fn promise(&self) {
        let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: the time is a live structure for the kernel to fill.
        assert_eq!(unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut now) }, 0);
        let now = u64::try_from(now.tv_sec * 1_000_000_000 + now.tv_nsec).unwrap();
        self.0.promise(now + LONGEST_PROMISE / 2);
    }

    /// The nonce of the beat in the page.
    pub(crate) fn nonce(&self) -> Option<u64> {
        match self.0.glance(u64::MAX, u64::MAX) {
            Glance::Beat { frame, .. } => Some(Frame::decode(&frame).unwrap().nonce),
            Glance::Empty { .. } => None,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn was_left(&self) -> bool {
        self.0.was_left()
    }
}
