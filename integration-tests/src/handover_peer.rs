//! The other end of a hand-over between servers, played by a test: messages with file descriptors.
#![allow(unsafe_code, reason = "received descriptors come as numbers")]

use std::io::{self, ErrorKind, IoSlice, IoSliceMut, Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::path::Path;

use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg};

use crate::retry::LIMIT;

/// What the messages are called.
pub const WELCOME: u32 = 1;
/// The new server has read its configuration.
pub const PREPARED: u32 = 2;
/// All that the old server knows.
pub const STATE: u32 = 3;
/// The new server has it.
pub const TAKEN: u32 = 4;
/// The old server reads no more.
pub const YOURS: u32 = 5;
/// The services of the old server have ended.
pub const RELEASED: u32 = 6;
/// The new server runs.
pub const RUNNING: u32 = 7;
/// One of them gives up.
pub const FAILED: u32 = 8;

/// The most descriptors in a group.
const GROUP: usize = 128;

/// A connection to the other server.
#[derive(Debug)]
pub struct HandoverPeer {
    stream: UnixStream,
}

/// A message.
#[derive(Debug)]
pub struct HandoverMessage {
    /// Its kind.
    pub kind: u32,
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// What came with it.
    pub descriptors: Vec<OwnedFd>,
}

impl HandoverPeer {
    /// Asks a running server to hand over in this form.
    ///
    /// # Errors
    ///
    /// Nobody is there.
    pub fn ask(control: &Path, form: u32) -> io::Result<Self> {
        let mut stream = UnixStream::connect(control)?;
        stream.write_all(format!("{{\"v\":1,\"do\":\"take_over\",\"form\":{form}}}\n").as_bytes())?;
        Self::new(stream)
    }

    /// Takes the connection of a server that asks, behind its request.
    ///
    /// # Errors
    ///
    /// It asks for nothing.
    pub fn answer(stream: UnixStream) -> io::Result<Self> {
        let peer = Self::new(stream)?;
        let mut byte = [0];
        while byte != *b"\n" {
            (&peer.stream).read_exact(&mut byte)?;
        }
        Ok(peer)
    }

    fn new(stream: UnixStream) -> io::Result<Self> {
        stream.set_read_timeout(Some(LIMIT))?;
        Ok(HandoverPeer { stream })
    }

    /// Sends a message.
    ///
    /// # Errors
    ///
    /// The other end has gone.
    pub fn send(&self, kind: u32, bytes: &[u8], descriptors: &[OwnedFd]) -> io::Result<()> {
        let count = u32::try_from(descriptors.len()).map_err(io::Error::other)?;
        let mut head = Vec::from(kind.to_le_bytes());
        head.extend(count.to_le_bytes());
        head.extend((bytes.len() as u64).to_le_bytes());
        (&self.stream).write_all(&head)?;
        for group in descriptors.chunks(GROUP) {
            let numbers: Vec<RawFd> = group.iter().map(AsRawFd::as_raw_fd).collect();
            let count = [u8::try_from(group.len()).map_err(io::Error::other)?];
            let rights = [ControlMessage::ScmRights(&numbers)];
            let parts = [IoSlice::new(&count)];
            sendmsg::<()>(self.stream.as_raw_fd(), &parts, &rights, MsgFlags::empty(), None)?;
        }
        (&self.stream).write_all(bytes)
    }

    /// Waits for the next message; `None` when the other end has gone.
    ///
    /// # Errors
    ///
    /// It does not come.
    pub fn receive(&self) -> io::Result<Option<HandoverMessage>> {
        let mut head = [0; 16];
        match (&self.stream).read_exact(&mut head) {
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(None),
            read => read?,
        }
        let word = |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
        let (kind, count, length) = (word(0), word(4) as usize, u64::from(word(8)));
        let mut descriptors = Vec::new();
        while descriptors.len() < count {
            let mut byte = [0];
            let mut space = nix::cmsg_space!([RawFd; GROUP]);
            let mut parts = [IoSliceMut::new(&mut byte)];
            let flags = MsgFlags::MSG_CMSG_CLOEXEC;
            let message = recvmsg::<()>(self.stream.as_raw_fd(), &mut parts, Some(&mut space), flags)?;
            for part in message.cmsgs()? {
                if let ControlMessageOwned::ScmRights(numbers) = part {
                    // SAFETY: the kernel has just made them for this process.
                    descriptors
                        .extend(numbers.into_iter().map(|number| unsafe { OwnedFd::from_raw_fd(number) }));
                }
            }
        }
        let mut bytes = Vec::new();
        (&self.stream).take(length).read_to_end(&mut bytes)?;
        Ok(Some(HandoverMessage { kind, bytes, descriptors }))
    }
}
