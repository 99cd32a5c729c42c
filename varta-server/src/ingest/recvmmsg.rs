//! Receives many datagrams with one system call, `recvmmsg(2)`, with each sender's credentials or address.
//!
//! The only file with the unsafe code for it. All memory that the kernel writes to belongs to a
//! [`ReceiveBuffer`], made once for each socket; received datagrams are read through [`Datagram`], which
//! borrows from it.
#![allow(
    unsafe_code,
    reason = "recvmmsg and control messages have no safe interface that keeps credentials intact"
)]

#[cfg(test)]
mod tests;

use std::io;
use std::mem;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr;

/// The most datagrams received with one system call.
pub(crate) const BATCH: usize = VLEN as usize;
const VLEN: libc::c_uint = 64;
/// Bytes for one payload: more than a frame, so that a longer datagram is recognised as too long.
const ROOM: usize = 576;
/// Bytes for one `SCM_CREDENTIALS` message.
#[allow(clippy::cast_possible_truncation, reason = "twelve bytes")]
// SAFETY: `CMSG_SPACE` only calculates; it is declared unsafe for being a C macro.
const CREDENTIALS_ROOM: usize = unsafe { libc::CMSG_SPACE(mem::size_of::<libc::ucred>() as u32) } as usize;
/// Bytes for an `SCM_RIGHTS` message with one descriptor and nothing more: the kernel closes descriptors that
/// do not fit, and sets `MSG_CTRUNC`.
#[allow(clippy::cast_possible_truncation, reason = "four bytes")]
// SAFETY: `CMSG_LEN` only calculates; it is declared unsafe for being a C macro.
const DESCRIPTOR_ROOM: usize = unsafe { libc::CMSG_LEN(mem::size_of::<libc::c_int>() as u32) } as usize;
/// The same, padded for another message behind it.
#[allow(clippy::cast_possible_truncation, reason = "four bytes")]
// SAFETY: `CMSG_SPACE` only calculates; it is declared unsafe for being a C macro.
const PADDED_DESCRIPTOR_ROOM: usize =
    unsafe { libc::CMSG_SPACE(mem::size_of::<libc::c_int>() as u32) } as usize;
/// Bytes for credentials, one descriptor and the pidfd of the sender, in the order in which the kernel puts
/// them.
const CONTROL_ROOM: usize = CREDENTIALS_ROOM + PADDED_DESCRIPTOR_ROOM + DESCRIPTOR_ROOM;
/// The type of the message with the pidfd of the sender, from Linux 6.5 on.
const SCM_PIDFD: libc::c_int = 4;

/// What is received with each datagram on a Unix socket, besides the credentials.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Passed {
    /// Nothing: the kernel discards what senders pass.
    Nothing,
    /// One descriptor.
    Descriptor,
    /// One descriptor, and the pidfd of the sender, which the socket is set to pass.
    DescriptorAndPidfd,
}

impl Passed {
    const fn room(self) -> usize {
        match self {
            Passed::Nothing => CREDENTIALS_ROOM,
            Passed::Descriptor => CREDENTIALS_ROOM + DESCRIPTOR_ROOM,
            Passed::DescriptorAndPidfd => CONTROL_ROOM,
        }
    }
}

/// Sets whether the kernel opens a pidfd of the sender with each datagram that is received.
///
/// # Errors
///
/// `ENOPROTOOPT` before Linux 6.5.
#[allow(clippy::cast_possible_truncation, reason = "four bytes")]
pub(crate) fn pass_pidfds(socket: BorrowedFd<'_>, passes: bool) -> io::Result<()> {
    let value = libc::c_int::from(passes);
    let (level, option) = (libc::SOL_SOCKET, libc::SO_PASSPIDFD);
    let (pointer, length) = (ptr::from_ref(&value).cast(), mem::size_of::<libc::c_int>() as libc::socklen_t);
    // SAFETY: the option takes an integer, which lives through the call.
    let result = unsafe { libc::setsockopt(socket.as_raw_fd(), level, option, pointer, length) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Whether the kernel opens a pidfd of the sender with each datagram that is received.
#[cfg(test)]
#[allow(clippy::cast_possible_truncation, reason = "four bytes")]
pub(crate) fn passes_pidfds(socket: BorrowedFd<'_>) -> bool {
    let mut value: libc::c_int = 0;
    let mut length = mem::size_of::<libc::c_int>() as libc::socklen_t;
    let (level, option, pointer) = (libc::SOL_SOCKET, libc::SO_PASSPIDFD, ptr::from_mut(&mut value).cast());
    // SAFETY: the option gives an integer, which lives through the call, as does its length.
    let result = unsafe { libc::getsockopt(socket.as_raw_fd(), level, option, pointer, &mut length) };
    result == 0 && value != 0
}

/// The flags of the call. The kernel sets `MSG_TRUNC` and `MSG_CTRUNC` in each message unasked.
const FLAGS: libc::c_int = libc::MSG_DONTWAIT | libc::MSG_CMSG_CLOEXEC;

/// Ancillary data of one message, aligned as `cmsghdr` requires.
#[repr(C, align(8))]
#[derive(Clone, Copy)]
struct Control([u8; CONTROL_ROOM]);

const _: () = assert!(mem::align_of::<Control>() >= mem::align_of::<libc::cmsghdr>());

/// Bytes for the address of an IPv6 sender, which is longer than that of an IPv4 sender.
#[repr(C, align(8))]
#[derive(Clone, Copy)]
struct Name([u8; NAME_ROOM]);
const NAME_ROOM: usize = mem::size_of::<libc::sockaddr_in6>();
#[allow(clippy::cast_possible_truncation, reason = "28 bytes")]
const NAME_LENGTH: libc::socklen_t = NAME_ROOM as libc::socklen_t;
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the kernel's type for a family")]
const INET: u16 = libc::AF_INET as u16;
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the kernel's type for a family")]
const INET6: u16 = libc::AF_INET6 as u16;

/// The buffers of one batch of datagrams.
pub(crate) struct ReceiveBuffer {
    /// Written before each call: no pointer lives from one call to the next.
    headers: Box<[libc::mmsghdr]>,
    iovecs: Box<[libc::iovec]>,
    payloads: Box<[[u8; ROOM]]>,
    /// Ancillary data, for Unix sockets only.
    controls: Box<[Control]>,
    /// Source addresses, for UDP sockets only.
    names: Box<[Name]>,
    /// The number of messages that the last call filled.
    filled: usize,
    /// Received descriptors, each with the index of its datagram. Owned from the moment of the call.
    descriptors: Vec<(usize, OwnedFd)>,
    /// Pidfds of senders, each with the index of its datagram.
    pidfds: Vec<(usize, OwnedFd)>,
}

// SAFETY: the raw pointers in it are written before each use, and point into boxes that it owns.
unsafe impl Send for ReceiveBuffer {}

/// One received datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Datagram<'a> {
    /// The payload, cut to the size of the buffer.
    pub(crate) payload: &'a [u8],
    /// Whether the payload was cut.
    pub(crate) truncated: bool,
    /// Whether it carried ancillary data beyond the credentials and one descriptor, which the kernel has
    /// discarded.
    pub(crate) extra_ancillary: bool,
    /// Whether a descriptor came along.
    pub(crate) has_descriptor: bool,
    /// The credentials that the kernel attests, on a Unix socket.
    pub(crate) credentials: Option<Credentials>,
    /// The source address, on a UDP socket.
    pub(crate) source: Option<SocketAddr>,
}

/// The sender's credentials, attested by the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Credentials {
    /// In the receiver's PID namespace; 0 when the sender has no pid there.
    pub(crate) pid: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

impl ReceiveBuffer {
    /// Makes a buffer for a Unix socket, with room for credentials and one descriptor.
    pub(crate) fn for_unix() -> Self {
        let controls = vec![Control([0; CONTROL_ROOM]); BATCH].into_boxed_slice();
        ReceiveBuffer { controls, ..Self::bare() }
    }

    /// Makes a buffer for a UDP socket, with room for source addresses.
    pub(crate) fn for_udp() -> Self {
        ReceiveBuffer { names: vec![Name([0; NAME_ROOM]); BATCH].into_boxed_slice(), ..Self::bare() }
    }

    fn bare() -> Self {
        // SAFETY: all zeroes is a valid `mmsghdr`: null pointers and zero lengths.
        let header: libc::mmsghdr = unsafe { mem::zeroed() };
        let iovec = libc::iovec { iov_base: ptr::null_mut(), iov_len: 0 };
        ReceiveBuffer {
            headers: vec![header; BATCH].into_boxed_slice(),
            iovecs: vec![iovec; BATCH].into_boxed_slice(),
            payloads: vec![[0; ROOM]; BATCH].into_boxed_slice(),
            controls: Box::default(),
            names: Box::default(),
            filled: 0,
            descriptors: Vec::new(),
            pidfds: Vec::new(),
        }
    }

    /// Receives what waits on `socket`, at most [`BATCH`] datagrams, without blocking, and returns their
    /// number. On a Unix socket `passed` is received with each.
    ///
    /// # Errors
    ///
    /// `WouldBlock` when nothing waits; otherwise what `recvmmsg(2)` returns. After an error the buffer is
    /// empty.
    pub(crate) fn receive(&mut self, socket: BorrowedFd<'_>, passed: Passed) -> io::Result<usize> {
        let room = passed.room();
        let buffers = self.iovecs.iter_mut().zip(&mut self.payloads);
        for (header, (iovec, payload)) in self.headers.iter_mut().zip(buffers) {
            *iovec = libc::iovec { iov_base: payload.as_mut_ptr().cast(), iov_len: ROOM };
            header.msg_hdr.msg_iov = ptr::from_mut(iovec);
            header.msg_hdr.msg_iovlen = 1;
        }
        for (header, control) in self.headers.iter_mut().zip(&mut self.controls) {
            header.msg_hdr.msg_control = control.0.as_mut_ptr().cast();
            header.msg_hdr.msg_controllen = room;
        }
        for (header, name) in self.headers.iter_mut().zip(&mut self.names) {
            header.msg_hdr.msg_name = name.0.as_mut_ptr().cast();
            header.msg_hdr.msg_namelen = NAME_LENGTH;
        }
        self.filled = 0;
        let headers = self.headers.as_mut_ptr();
        // SAFETY: `headers` are `BATCH` valid headers, whose buffers live in `self`, which is borrowed for
        // the call.
        let received =
            unsafe { libc::recvmmsg(socket.as_raw_fd(), headers, VLEN, FLAGS as _, ptr::null_mut()) };
        self.filled = usize::try_from(received).map_err(|_| io::Error::last_os_error())?.min(BATCH);
        for (index, header) in self.headers[..self.filled].iter().enumerate() {
            // Most datagrams carry no descriptor.
            if header.msg_hdr.msg_controllen > CREDENTIALS_ROOM
                && let Some(control) = self.controls.get(index)
            {
                let Opened { descriptor, pidfd } = take_opened(control, header.msg_hdr.msg_controllen);
                self.descriptors.extend(descriptor.map(|descriptor| (index, descriptor)));
                self.pidfds.extend(pidfd.map(|pidfd| (index, pidfd)));
            }
        }
        Ok(self.filled)
    }

    /// Takes the descriptors of the last [`ReceiveBuffer::receive`], each with the index of its datagram, in
    /// their order. Must be called after each receive.
    pub(crate) fn take_descriptors(&mut self) -> Vec<(usize, OwnedFd)> {
        mem::take(&mut self.descriptors)
    }

    /// Takes the pidfds of senders of the last [`ReceiveBuffer::receive`], each with the index of its datagram,
    /// in their order. Must be called after each receive. There is none of a sender that was reaped before
    /// Linux 6.16, nor while descriptors have run out.
    pub(crate) fn take_pidfds(&mut self) -> Vec<(usize, OwnedFd)> {
        mem::take(&mut self.pidfds)
    }

    /// The number of datagrams in the last batch.
    pub(super) fn len(&self) -> usize {
        self.filled
    }

    /// The datagrams of the last batch.
    pub(crate) fn datagrams(&self) -> impl ExactSizeIterator<Item = Datagram<'_>> {
        (0..self.filled).map(|index| {
            let header = &self.headers[index];
            let flags = header.msg_hdr.msg_flags;
            let length = (header.msg_len as usize).min(ROOM);
            let control_length = header.msg_hdr.msg_controllen.min(CONTROL_ROOM);
            let descriptors = self.controls.get(index).map_or(0, |control| passed(control, control_length));
            Datagram {
                payload: &self.payloads[index][..length],
                truncated: flags & libc::MSG_TRUNC != 0,
                extra_ancillary: flags & libc::MSG_CTRUNC != 0 || descriptors > 1,
                has_descriptor: descriptors > 0,
                credentials: self
                    .controls
                    .get(index)
                    .and_then(|control| read_credentials(control, control_length)),
                source: self.names.get(index).and_then(read_source),
            }
        })
    }
}

/// The descriptors that the kernel has opened for this process with one message.
#[derive(Default)]
struct Opened {
    descriptor: Option<OwnedFd>,
    pidfd: Option<OwnedFd>,
}

/// The control message at `offset`: its type, its data, and where the next one is. `None` at the end.
fn control_message(control: &Control, length: usize, offset: usize) -> Option<(libc::c_int, &[u8], usize)> {
    const HEADER: usize = mem::size_of::<libc::cmsghdr>();
    let rest = control.0.get(offset..length.min(CONTROL_ROOM)).filter(|rest| rest.len() >= HEADER)?;
    // SAFETY: the slice is at least as long as a `cmsghdr`, for which any bytes are valid; read unaligned.
    let header = unsafe { ptr::read_unaligned(rest.as_ptr().cast::<libc::cmsghdr>()) };
    let own = header.cmsg_len.clamp(HEADER, rest.len());
    let next = offset + own.next_multiple_of(mem::align_of::<libc::cmsghdr>());
    (header.cmsg_level == libc::SOL_SOCKET).then(|| (header.cmsg_type, &rest[HEADER..own], next))
}

/// The number of descriptors that the sender has passed and that were received.
fn passed(control: &Control, length: usize) -> usize {
    match control_message(control, length, CREDENTIALS_ROOM) {
        Some((libc::SCM_RIGHTS, data, _)) => data.len() / mem::size_of::<libc::c_int>(),
        _ => 0,
    }
}

/// Takes what was opened with a message, and closes all but the first descriptor that the sender has passed.
/// Must be called only once for each received message.
fn take_opened(control: &Control, length: usize) -> Opened {
    let mut opened = Opened::default();
    let mut offset = CREDENTIALS_ROOM;
    while let Some((kind, data, next)) = control_message(control, length, offset) {
        offset = next;
        if kind != libc::SCM_RIGHTS && kind != SCM_PIDFD {
            continue;
        }
        let (numbers, _) = data.as_chunks::<{ mem::size_of::<libc::c_int>() }>();
        for number in numbers.iter().map(|bytes| libc::c_int::from_ne_bytes(*bytes)) {
            // A pidfd that could not be opened has an error's number, which is negative.
            if number < 0 {
                continue;
            }
            // SAFETY: the kernel has just opened the descriptor for this process, and its number is read only
            // here.
            let descriptor = unsafe { OwnedFd::from_raw_fd(number) };
            let place = if kind == SCM_PIDFD { &mut opened.pidfd } else { &mut opened.descriptor };
            place.get_or_insert(descriptor);
        }
    }
    opened
}

/// Reads the first control message if it is `SCM_CREDENTIALS`, which the kernel always puts first.
fn read_credentials(control: &Control, length: usize) -> Option<Credentials> {
    if length < CREDENTIALS_ROOM {
        return None;
    }
    // SAFETY: `Control` is aligned as a `cmsghdr` and larger than one, and any bytes are a valid `cmsghdr`.
    let header = unsafe { ptr::read(control.0.as_ptr().cast::<libc::cmsghdr>()) };
    if header.cmsg_level != libc::SOL_SOCKET || header.cmsg_type != libc::SCM_CREDENTIALS {
        return None;
    }
    // The data follows the header, which is padded to its own alignment.
    let data = control
        .0
        .get(mem::size_of::<libc::cmsghdr>()..)?
        .first_chunk::<{ mem::size_of::<libc::ucred>() }>()?;
    // SAFETY: the array has the size of a `ucred`, three integers for which any bytes are valid; read
    // unaligned.
    let credentials = unsafe { ptr::read_unaligned(data.as_ptr().cast::<libc::ucred>()) };
    Some(Credentials {
        pid: u32::try_from(credentials.pid).unwrap_or(0),
        uid: credentials.uid,
        gid: credentials.gid,
    })
}

/// Reads the address of an IPv4 or IPv6 sender from the layout of `sockaddr_in` or `sockaddr_in6`.
fn read_source(name: &Name) -> Option<SocketAddr> {
    let (family, rest) = name.0.split_first_chunk()?;
    let (port, rest) = rest.split_first_chunk()?;
    let address = match u16::from_ne_bytes(*family) {
        INET => IpAddr::from(*rest.first_chunk::<4>()?),
        // Skips four bytes of flow information.
        INET6 => IpAddr::from(*rest.get(4..)?.first_chunk::<16>()?),
        _ => return None,
    };
    Some(SocketAddr::new(address, u16::from_be_bytes(*port)))
}
