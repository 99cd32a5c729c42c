//! A connection over which two processes of this host pass messages and file descriptors (`SCM_RIGHTS`).
//!
//! A message is a kind, some bytes, and descriptors, which go ahead of the bytes in groups: the kernel takes at
//! most 253 at once. Each call waits within a limit.
#![allow(unsafe_code, reason = "received descriptors come as numbers")]

use std::fs;
use std::io::{self, ErrorKind, IoSlice, IoSliceMut, Read, Write};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::sockopt::PeerCredentials;
use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, getsockopt, recvmsg, sendmsg};
use socket2::SockRef;

/// The most descriptors in one group.
const GROUP: usize = 128;
/// The most descriptors of a message.
const MAX_DESCRIPTORS: u32 = 1 << 24;
/// The most bytes of a message.
const MAX_LEN: u64 = 16 << 30;
/// Kind, number of descriptors, number of bytes.
const HEAD: usize = 16;

/// One end of the connection.
#[derive(Debug)]
pub(crate) struct DescriptorLink {
    stream: UnixStream,
}

/// A received message.
#[derive(Debug)]
pub(crate) struct Message {
    pub(crate) kind: u32,
    pub(crate) bytes: Vec<u8>,
    pub(crate) descriptors: Vec<OwnedFd>,
}

impl DescriptorLink {
    /// Takes a connected stream.
    ///
    /// # Errors
    ///
    /// The kernel refuses.
    pub(crate) fn new(stream: UnixStream, within: Duration) -> io::Result<Self> {
        stream.set_nonblocking(false)?;
        let link = DescriptorLink { stream };
        link.wait_at_most(within)?;
        Ok(link)
    }

    /// Sets the limit of each wait from now on.
    ///
    /// # Errors
    ///
    /// The kernel refuses.
    pub(crate) fn wait_at_most(&self, within: Duration) -> io::Result<()> {
        self.stream.set_read_timeout(Some(within))?;
        self.stream.set_write_timeout(Some(within))
    }

    /// The pid and uid of the process at the other end, by the kernel.
    ///
    /// # Errors
    ///
    /// The kernel does not say.
    pub(crate) fn peer(&self) -> io::Result<(u32, u32)> {
        let peer = getsockopt(&self.stream, PeerCredentials)?;
        Ok((u32::try_from(peer.pid()).unwrap_or(0), peer.uid()))
    }

    /// Sends a message.
    ///
    /// # Errors
    ///
    /// The other end has gone, or does not read in time.
    pub(crate) fn send(&self, kind: u32, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        let too_much = |_| io::Error::from(ErrorKind::InvalidInput);
        let mut head = [0; HEAD];
        head[..4].copy_from_slice(&kind.to_le_bytes());
        head[4..8].copy_from_slice(&u32::try_from(descriptors.len()).map_err(too_much)?.to_le_bytes());
        head[8..].copy_from_slice(&(bytes.len() as u64).to_le_bytes());
        (&self.stream).write_all(&head)?;
        for group in descriptors.chunks(GROUP) {
            let numbers: Vec<RawFd> = group.iter().map(AsRawFd::as_raw_fd).collect();
            let rights = [ControlMessage::ScmRights(&numbers)];
            let flags = MsgFlags::MSG_NOSIGNAL;
            // The one byte that carries them is the number of the group's descriptors.
            let count = [u8::try_from(group.len()).map_err(too_much)?];
            let sent = loop {
                match sendmsg::<()>(self.stream.as_raw_fd(), &[IoSlice::new(&count)], &rights, flags, None) {
                    Err(Errno::EINTR) => {}
                    sent => break sent?,
                }
            };
            if sent != 1 {
                return Err(ErrorKind::WriteZero.into());
            }
        }
        (&self.stream).write_all(bytes)
    }

    /// Waits for the next message.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::UnexpectedEof`] when the other end has gone; [`ErrorKind::WouldBlock`] when it says nothing in
    /// time; [`ErrorKind::InvalidData`] when it says what makes no sense.
    pub(crate) fn receive(&self) -> io::Result<Message> {
        let mut head = [0; HEAD];
        (&self.stream).read_exact(&mut head)?;
        let word = |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
        let (kind, count) = (word(0), word(4));
        let length = u64::from(word(8)) | u64::from(word(12)) << 32;
        if count > MAX_DESCRIPTORS || length > MAX_LEN {
            return Err(ErrorKind::InvalidData.into());
        }
        let mut descriptors = Vec::new();
        while descriptors.len() < count as usize {
            self.receive_group(&mut descriptors)?;
        }
        let mut bytes = Vec::new();
        (&self.stream).take(length).read_to_end(&mut bytes)?;
        if bytes.len() as u64 != length {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        Ok(Message { kind, bytes, descriptors })
    }

    fn receive_group(&self, descriptors: &mut Vec<OwnedFd>) -> io::Result<()> {
        let mut count = [0];
        let mut space = nix::cmsg_space!([RawFd; GROUP]);
        let before = descriptors.len();
        let received = loop {
            let mut parts = [IoSliceMut::new(&mut count)];
            let flags = MsgFlags::MSG_CMSG_CLOEXEC;
            match recvmsg::<()>(self.stream.as_raw_fd(), &mut parts, Some(&mut space), flags) {
                Err(Errno::EINTR) => {}
                Err(error) => return Err(error.into()),
                Ok(message) => {
                    for part in message.cmsgs()? {
                        let ControlMessageOwned::ScmRights(numbers) = part else { continue };
                        // SAFETY: the kernel has just made these descriptors for this process, and only this
                        // value knows them.
                        let owned = numbers.into_iter().map(|number| unsafe { OwnedFd::from_raw_fd(number) });
                        descriptors.extend(owned);
                    }
                    break message.bytes;
                }
            }
        };
        match received {
            0 => Err(ErrorKind::UnexpectedEof.into()),
            _ if descriptors.len() - before == usize::from(count[0]) && count[0] > 0 => Ok(()),
            // The kernel passes fewer when this process has no room for them.
            _ => {
                Err(io::Error::other("not all descriptors could be received; raise the limit of open files"))
            }
        }
    }
}

/// A further descriptor of each TCP socket of this process that listens.
///
/// # Errors
///
/// `/proc` is not there, or descriptors are short.
pub(crate) fn listening_sockets() -> io::Result<Vec<OwnedFd>> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc/self/fd")? {
        let Some(number) = entry?.file_name().to_str().and_then(|name| name.parse::<RawFd>().ok()) else {
            continue;
        };
        // SAFETY: the number is only looked at; one that was closed meanwhile gives an error, and one that was opened
        // in its place is as good.
        let copy = unsafe { libc::fcntl(number, libc::F_DUPFD_CLOEXEC, 0) };
        if copy < 0 {
            continue;
        }
        // SAFETY: the kernel has just made it, and only this value knows it.
        let descriptor = unsafe { OwnedFd::from_raw_fd(copy) };
        let socket = SockRef::from(&descriptor);
        let is_tcp = socket.local_addr().is_ok_and(|address| address.as_socket().is_some());
        if is_tcp && socket.is_listener().unwrap_or(false) {
            found.push(descriptor);
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Seek;
    use std::os::fd::AsFd;

    use super::*;

    fn pair() -> (DescriptorLink, DescriptorLink) {
        let (one, other) = UnixStream::pair().unwrap();
        let limit = Duration::from_secs(30);
        (DescriptorLink::new(one, limit).unwrap(), DescriptorLink::new(other, limit).unwrap())
    }

    #[test]
    fn more_descriptors_than_the_kernel_takes_at_once_arrive_in_order_with_their_message() {
        let (one, other) = pair();
        let files: Vec<File> = (0..300_u32)
            .map(|number| {
                let mut file = tempfile::tempfile().unwrap();
                file.write_all(&number.to_le_bytes()).unwrap();
                file
            })
            .collect();
        let sender = std::thread::spawn(move || {
            let descriptors: Vec<_> = files.iter().map(AsFd::as_fd).collect();
            one.send(7, &[5; 1 << 20], &descriptors).unwrap();
            one.send(8, b"", &[]).unwrap();
        });
        let Message { kind, bytes, descriptors } = other.receive().unwrap();
        assert_eq!((kind, bytes.len(), descriptors.len()), (7, 1 << 20, 300));
        for (number, descriptor) in (0_u32..).zip(descriptors) {
            let mut file = File::from(descriptor);
            let mut content = [0; 4];
            file.rewind().unwrap();
            file.read_exact(&mut content).unwrap();
            assert_eq!(u32::from_le_bytes(content), number);
        }
        assert_eq!(other.receive().unwrap().kind, 8);
        sender.join().unwrap();
        assert_eq!(other.receive().unwrap_err().kind(), ErrorKind::UnexpectedEof);
    }

    #[test]
    fn one_that_says_nothing_is_waited_for_within_the_limit_and_nonsense_is_refused() {
        let (one, other) = pair();
        other.wait_at_most(Duration::from_millis(1)).unwrap();
        assert_eq!(other.receive().unwrap_err().kind(), ErrorKind::WouldBlock);
        (&one.stream).write_all(&[0xff; HEAD]).unwrap();
        assert_eq!(other.receive().unwrap_err().kind(), ErrorKind::InvalidData);
    }
}
