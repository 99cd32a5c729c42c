//! Receives one message of sd_notify(3) with what the kernel says of its sender, by `recvmsg(2)`.
//!
//! The only file with the unsafe code for it.
#![allow(unsafe_code, reason = "recvmsg and control messages have no safe interface that keeps a pidfd")]

use std::io;
use std::mem;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr;

use crate::ingest::recvmmsg::Credentials;

/// The most bytes of a message, as for systemd; a longer one is cut.
pub(super) const MAX_MESSAGE_LEN: usize = 64 * 1024;
/// The most descriptors that the kernel lets a message carry (`SCM_MAX_FD`).
pub(super) const MAX_DESCRIPTORS: usize = 253;
/// The type of the message with the pidfd of the sender, from Linux 6.5 on.
const SCM_PIDFD: libc::c_int = 4;
/// Room for credentials, the pidfd of the sender, and as many descriptors as there can be, with their headers.
const CONTROL_ROOM: usize = 64 + 64 + 32 + MAX_DESCRIPTORS * mem::size_of::<libc::c_int>();
/// The same without descriptors of the sender, which the kernel then closes: credentials alone.
// SAFETY: `CMSG_SPACE` only calculates; it is declared unsafe for being a C macro.
#[allow(clippy::cast_possible_truncation, reason = "twelve bytes")]
const CREDENTIALS_ROOM: usize = unsafe { libc::CMSG_SPACE(mem::size_of::<libc::ucred>() as u32) } as usize;

/// The memory that the kernel writes to: one for each socket.
pub(super) struct MessageBuffer {
    text: Box<[u8; MAX_MESSAGE_LEN]>,
    control: Box<Control>,
}

#[repr(C, align(8))]
struct Control([u8; CONTROL_ROOM]);

const _: () = assert!(mem::align_of::<Control>() >= mem::align_of::<libc::cmsghdr>());

/// One received message.
pub(super) struct ReceivedMessage<'b> {
    pub(super) text: &'b [u8],
    /// Whether it was longer, and is cut.
    pub(super) is_cut: bool,
    /// Who sent it; `None` where the kernel does not say.
    pub(super) sender: Option<Credentials>,
    /// The process of the sender, where this kernel says that.
    pub(super) pidfd: Option<OwnedFd>,
    /// What came along.
    pub(super) descriptors: Vec<OwnedFd>,
}

impl MessageBuffer {
    pub(super) fn new() -> Self {
        MessageBuffer { text: Box::new([0; MAX_MESSAGE_LEN]), control: Box::new(Control([0; CONTROL_ROOM])) }
    }

    /// Receives a message without waiting. With `takes_descriptors` unset the kernel closes what came along.
    ///
    /// # Errors
    ///
    /// `WouldBlock` when there is none, else what `recvmsg(2)` returns.
    pub(super) fn receive(
        &mut self,
        socket: BorrowedFd<'_>,
        takes_descriptors: bool,
    ) -> io::Result<ReceivedMessage<'_>> {
        let mut place = libc::iovec { iov_base: self.text.as_mut_ptr().cast(), iov_len: MAX_MESSAGE_LEN };
        // SAFETY: a `msghdr` of zeros is valid: it has no name, no buffers and no room for control messages.
        let mut header: libc::msghdr = unsafe { mem::zeroed() };
        header.msg_iov = &raw mut place;
        header.msg_iovlen = 1;
        header.msg_control = self.control.0.as_mut_ptr().cast();
        let room = if takes_descriptors { CONTROL_ROOM } else { CREDENTIALS_ROOM };
        header.msg_controllen = room as _;
        let flags = libc::MSG_DONTWAIT | libc::MSG_CMSG_CLOEXEC;
        // SAFETY: the header names two pieces of memory of the lengths that it says, which live through the call and
        // are referred to by nothing else.
        let length = unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut header, flags) };
        let length = usize::try_from(length).map_err(|_| io::Error::last_os_error())?;
        let mut received = ReceivedMessage {
            text: &[],
            is_cut: header.msg_flags & libc::MSG_TRUNC != 0,
            sender: None,
            pidfd: None,
            descriptors: Vec::new(),
        };
        self.control.each(header.msg_controllen as usize, |kind, data| received.take(kind, data));
        received.text = &self.text[..length.min(MAX_MESSAGE_LEN)];
        Ok(received)
    }
}

impl ReceivedMessage<'_> {
    fn take(&mut self, kind: libc::c_int, data: &[u8]) {
        let descriptors = || {
            let (numbers, _) = data.as_chunks::<{ mem::size_of::<libc::c_int>() }>();
            numbers.iter().map(|bytes| libc::c_int::from_ne_bytes(*bytes)).filter(|number| *number >= 0).map(
                // SAFETY: the kernel has just opened the descriptor for this process, and its number is read only
                // here, once.
                |number| unsafe { OwnedFd::from_raw_fd(number) },
            )
        };
        match kind {
            libc::SCM_CREDENTIALS if data.len() >= mem::size_of::<libc::ucred>() => {
                // SAFETY: the slice is as long as a `ucred`, three integers for which any bytes are valid; read
                // unaligned.
                let sender = unsafe { ptr::read_unaligned(data.as_ptr().cast::<libc::ucred>()) };
                let pid = u32::try_from(sender.pid).unwrap_or(0);
                self.sender = Some(Credentials { pid, uid: sender.uid, gid: sender.gid });
            }
            libc::SCM_RIGHTS => self.descriptors.extend(descriptors()),
            SCM_PIDFD => self.pidfd = descriptors().next(),
            _ => {}
        }
    }
}

impl Control {
    /// Calls `take` with type and data of each control message of the socket layer in the first `length` bytes.
    fn each(&self, length: usize, mut take: impl FnMut(libc::c_int, &[u8])) {
        const HEADER: usize = mem::size_of::<libc::cmsghdr>();
        let mut rest = &self.0[..length.min(CONTROL_ROOM)];
        while rest.len() >= HEADER {
            // SAFETY: the slice is at least as long as a `cmsghdr`, for which any bytes are valid; read unaligned.
            let header = unsafe { ptr::read_unaligned(rest.as_ptr().cast::<libc::cmsghdr>()) };
            let own = (header.cmsg_len as usize).clamp(HEADER, rest.len());
            if header.cmsg_level == libc::SOL_SOCKET {
                take(header.cmsg_type, &rest[HEADER..own]);
            }
            let next = own.next_multiple_of(mem::align_of::<libc::cmsghdr>());
            rest = rest.get(next..).unwrap_or_default();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::IoSlice;
    use std::os::fd::{AsFd, RawFd};
    use std::os::unix::net::UnixDatagram;

    use nix::sys::socket::sockopt::PassCred;
    use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg, setsockopt};

    use super::*;

    fn pair() -> (UnixDatagram, UnixDatagram) {
        let (receiver, sender) = UnixDatagram::pair().unwrap();
        setsockopt(&receiver, PassCred, &true).unwrap();
        socket2::SockRef::from(&sender).set_send_buffer_size(4 << 20).unwrap();
        (receiver, sender)
    }

    fn open_descriptors() -> usize {
        std::fs::read_dir("/proc/self/fd").unwrap().count()
    }

    #[test]
    fn a_message_comes_with_its_sender_and_an_empty_one_does_too() {
        let (receiver, sender) = pair();
        let mut buffer = MessageBuffer::new();
        assert!(
            buffer
                .receive(receiver.as_fd(), true)
                .is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
        );
        for text in [b"READY=1".as_slice(), b""] {
            sender.send(text).unwrap();
            let received = buffer.receive(receiver.as_fd(), true).unwrap();
            assert_eq!((received.text, received.is_cut), (text, false));
            assert_eq!(received.sender.unwrap().pid, std::process::id());
            assert!(received.descriptors.is_empty());
        }
    }

    #[test]
    fn a_message_that_is_too_long_is_cut_and_that_is_known() {
        let (receiver, sender) = pair();
        let mut buffer = MessageBuffer::new();
        for (length, is_cut) in [(MAX_MESSAGE_LEN, false), (MAX_MESSAGE_LEN + 1, true)] {
            sender.send(&vec![b'x'; length]).unwrap();
            let received = buffer.receive(receiver.as_fd(), true).unwrap();
            assert_eq!((received.text.len(), received.is_cut), (MAX_MESSAGE_LEN, is_cut));
        }
    }

    #[test]
    fn as_many_descriptors_as_a_message_can_carry_are_taken_and_none_is_left_open() {
        let (receiver, sender) = pair();
        let mut buffer = MessageBuffer::new();
        let null = File::open("/dev/null").unwrap();
        let numbers: Vec<RawFd> = vec![null.as_raw_fd(); MAX_DESCRIPTORS];
        let send = || {
            let rights = [ControlMessage::ScmRights(&numbers)];
            sendmsg::<()>(
                sender.as_raw_fd(),
                &[IoSlice::new(b"FDSTORE=1")],
                &rights,
                MsgFlags::empty(),
                None,
            )
            .unwrap();
        };
        send();
        let received = buffer.receive(receiver.as_fd(), true).unwrap();
        assert_eq!(received.descriptors.len(), MAX_DESCRIPTORS);
        assert_eq!(received.sender.unwrap().pid, std::process::id());
        let with_all = open_descriptors();
        drop(received);
        assert!(open_descriptors() + MAX_DESCRIPTORS <= with_all + 16, "other tests open some meanwhile");
        send();
        let received = buffer.receive(receiver.as_fd(), false).unwrap();
        assert_eq!((received.text, received.descriptors.len()), (b"FDSTORE=1".as_slice(), 0));
        assert_eq!(received.sender.unwrap().pid, std::process::id());
    }
}
