//! Receives many datagrams with one system call, `recvmmsg(2)`, with each sender's credentials or address.
//!
//! The only file with the unsafe code for it. All memory that the kernel writes to belongs to a
//! [`ReceiveBuffer`], made once for each socket; received datagrams are read through [`Datagram`], which
//! borrows from it.
#![allow(
    unsafe_code,
    reason = "recvmmsg and control messages have no safe interface that keeps credentials intact"
)]

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
const CONTROL_ROOM: usize = CREDENTIALS_ROOM + DESCRIPTOR_ROOM;

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
        }
    }

    /// Receives what waits on `socket`, at most [`BATCH`] datagrams, without blocking, and returns their
    /// number. With `takes_descriptors`, one descriptor is received with each datagram on a Unix socket.
    ///
    /// # Errors
    ///
    /// `WouldBlock` when nothing waits; otherwise what `recvmmsg(2)` returns. After an error the buffer is
    /// empty.
    pub(crate) fn receive(&mut self, socket: BorrowedFd<'_>, takes_descriptors: bool) -> io::Result<usize> {
        let room = if takes_descriptors { CONTROL_ROOM } else { CREDENTIALS_ROOM };
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
                && let Some(descriptor) = take_descriptor(control, header.msg_hdr.msg_controllen)
            {
                self.descriptors.push((index, descriptor));
            }
        }
        Ok(self.filled)
    }

    /// Takes the descriptors of the last [`ReceiveBuffer::receive`], each with the index of its datagram, in
    /// their order. Must be called after each receive.
    pub(crate) fn take_descriptors(&mut self) -> Vec<(usize, OwnedFd)> {
        mem::take(&mut self.descriptors)
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
            Datagram {
                payload: &self.payloads[index][..length],
                truncated: flags & libc::MSG_TRUNC != 0,
                extra_ancillary: flags & libc::MSG_CTRUNC != 0,
                has_descriptor: control_length > CREDENTIALS_ROOM,
                credentials: self
                    .controls
                    .get(index)
                    .and_then(|control| read_credentials(control, control_length)),
                source: self.names.get(index).and_then(read_source),
            }
        })
    }
}

/// Takes the descriptor of the second control message, if that is `SCM_RIGHTS`. Must be called only once for
/// each received message.
fn take_descriptor(control: &Control, length: usize) -> Option<OwnedFd> {
    let message = control.0.get(CREDENTIALS_ROOM..length.min(CONTROL_ROOM))?;
    if message.len() < DESCRIPTOR_ROOM {
        return None;
    }
    // SAFETY: the slice is longer than a `cmsghdr`, for which any bytes are valid; read unaligned.
    let header = unsafe { ptr::read_unaligned(message.as_ptr().cast::<libc::cmsghdr>()) };
    if header.cmsg_level != libc::SOL_SOCKET || header.cmsg_type != libc::SCM_RIGHTS {
        return None;
    }
    let descriptor = libc::c_int::from_ne_bytes(*message.last_chunk()?);
    // SAFETY: the kernel has just opened the descriptor for this process, and its number has been read only
    // here.
    (descriptor >= 0).then(|| unsafe { OwnedFd::from_raw_fd(descriptor) })
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

#[cfg(test)]
mod tests {
    use std::io::{IoSlice, Write};
    use std::net::UdpSocket;
    use std::os::fd::{AsFd, RawFd};
    use std::os::unix::net::UnixDatagram;

    use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
    use socket2::{Domain, SockAddr, Socket, Type};

    use super::*;

    fn pair() -> (Socket, UnixDatagram, tempfile::TempDir) {
        let dir = tempfile::tempdir().unwrap();
        let receiver = Socket::new(Domain::UNIX, Type::DGRAM, None).unwrap();
        receiver.set_passcred(true).unwrap();
        receiver.bind(&SockAddr::unix(dir.path().join("socket")).unwrap()).unwrap();
        let sender = UnixDatagram::unbound().unwrap();
        sender.connect(dir.path().join("socket")).unwrap();
        (receiver, sender, dir)
    }

    #[test]
    fn nothing_waiting_would_block() {
        let (receiver, _sender, _dir) = pair();
        let mut buffer = ReceiveBuffer::for_unix();
        assert_eq!(buffer.receive(receiver.as_fd(), true).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        assert_eq!(buffer.datagrams().count(), 0);
    }

    #[test]
    fn every_datagram_of_every_batch_comes_with_its_sender() {
        let (receiver, sender, _dir) = pair();
        let mut buffer = ReceiveBuffer::for_unix();
        for round in 0..100_u8 {
            let batch = 1 + usize::from(round) % 5;
            for number in 0..batch {
                sender.send(&[round, u8::try_from(number).unwrap()]).unwrap();
            }
            assert_eq!(buffer.receive(receiver.as_fd(), true).unwrap(), batch);
            for (number, datagram) in buffer.datagrams().enumerate() {
                assert_eq!(datagram.payload, [round, u8::try_from(number).unwrap()]);
                assert!(!datagram.truncated && !datagram.extra_ancillary);
                assert_eq!(datagram.credentials.map(|credentials| credentials.pid), Some(std::process::id()));
            }
        }
    }

    fn pass(sender: &UnixDatagram, descriptors: &[RawFd]) {
        let rights = [ControlMessage::ScmRights(descriptors)];
        let bytes = [IoSlice::new(&[7])];
        sendmsg::<()>(sender.as_raw_fd(), &bytes, &rights, MsgFlags::empty(), None).unwrap();
    }

    #[test]
    fn one_descriptor_is_taken_with_a_datagram_and_owned() {
        let (receiver, sender, _dir) = pair();
        let mut buffer = ReceiveBuffer::for_unix();
        let (reader, writer) = std::io::pipe().unwrap();
        sender.send(&[1]).unwrap();
        pass(&sender, &[reader.as_raw_fd()]);
        pass(&sender, &[reader.as_raw_fd(), reader.as_raw_fd()]);
        drop(reader);
        assert_eq!(buffer.receive(receiver.as_fd(), true).unwrap(), 3);
        let seen: Vec<_> = buffer
            .datagrams()
            .map(|one| (one.has_descriptor, one.extra_ancillary, one.credentials.is_some()))
            .collect();
        assert_eq!(seen, [(false, false, true), (true, false, true), (true, true, true)]);
        let descriptors = buffer.take_descriptors();
        assert_eq!(descriptors.iter().map(|(index, _)| *index).collect::<Vec<_>>(), [1, 2]);
        assert!(buffer.take_descriptors().is_empty());
        (&writer).write_all(&[1]).unwrap();
        drop(descriptors);
        assert_eq!(
            (&writer).write_all(&[1]).unwrap_err().kind(),
            io::ErrorKind::BrokenPipe,
            "all are closed"
        );
    }

    #[test]
    fn no_descriptor_is_taken_where_none_is_wanted() {
        let (receiver, sender, _dir) = pair();
        let mut buffer = ReceiveBuffer::for_unix();
        pass(&sender, &[receiver.as_raw_fd()]);
        buffer.receive(receiver.as_fd(), false).unwrap();
        let seen: Vec<_> = buffer
            .datagrams()
            .map(|one| (one.has_descriptor, one.extra_ancillary, one.credentials.is_some()))
            .collect();
        assert_eq!(seen, [(false, true, true)]);
        assert!(buffer.take_descriptors().is_empty());
    }

    #[test]
    fn a_longer_datagram_is_seen_to_be_longer() {
        let (receiver, sender, _dir) = pair();
        let mut buffer = ReceiveBuffer::for_unix();
        sender.send(&[1; ROOM + 1]).unwrap();
        sender.send(&[2; ROOM]).unwrap();
        sender.send(&[]).unwrap();
        buffer.receive(receiver.as_fd(), true).unwrap();
        let seen: Vec<_> =
            buffer.datagrams().map(|datagram| (datagram.payload.len(), datagram.truncated)).collect();
        assert_eq!(seen, [(ROOM, true), (ROOM, false), (0, false)]);
    }

    #[test]
    fn without_credentials_there_are_none() {
        let (receiver, sender, _dir) = pair();
        receiver.set_passcred(false).unwrap();
        let mut buffer = ReceiveBuffer::for_unix();
        sender.send(&[1]).unwrap();
        buffer.receive(receiver.as_fd(), true).unwrap();
        assert!(buffer.datagrams().all(|datagram| datagram.credentials.is_none()));
    }

    #[test]
    fn a_udp_sender_is_known_by_its_address_in_both_families() {
        for loopback in ["127.0.0.1:0", "[::1]:0"] {
            let Ok(receiver) = UdpSocket::bind(loopback) else { continue };
            let sender = UdpSocket::bind(loopback).unwrap();
            sender.send_to(b"one", receiver.local_addr().unwrap()).unwrap();
            sender.send_to(b"two", receiver.local_addr().unwrap()).unwrap();
            let mut buffer = ReceiveBuffer::for_udp();
            assert_eq!(buffer.receive(receiver.as_fd(), true).unwrap(), 2);
            let received: Vec<_> = buffer.datagrams().map(|one| (one.payload, one.source)).collect();
            let source = Some(sender.local_addr().unwrap());
            assert_eq!(received, [(&b"one"[..], source), (&b"two"[..], source)]);
        }
    }
}
