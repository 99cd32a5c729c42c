//! What the command says of itself by sd_notify(3): a socket of exec's own, in a directory whose name nobody else is
//! told.
//!
//! What is said to exec is handed on to the service manager that started exec, if there is one, in exec's name.

use std::env;
use std::ffi::OsStr;
use std::fs::{DirBuilder, Permissions, remove_dir, remove_file, set_permissions};
use std::io::{self, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::cmsg_space;
use nix::sys::socket::sockopt::PassCred;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, UnixAddr, UnixCredentials, recvmsg, setsockopt};
use nix::unistd::{close, geteuid};
use ring::rand::{SecureRandom, SystemRandom};

use crate::domain::service_message::ServiceMessage;
use crate::observe::is_descendant;

/// The most bytes of a message that are read, as by systemd.
const MAX_MESSAGE_LEN: usize = 64 * 1024;
/// The most descriptors that can come with one.
const MAX_DESCRIPTORS: usize = 253;

/// The socket, and the service manager behind exec.
#[derive(Debug)]
pub(super) struct NotifySocket {
    socket: UnixDatagram,
    directory: PathBuf,
    path: PathBuf,
    manager: Option<Manager>,
    room: Vec<u8>,
    /// Those that were passed over since that was asked last.
    strangers: Option<Strangers>,
}

/// Messages of processes that do not speak for the command, as far as can be seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Strangers {
    pub(super) count: u64,
    /// Who sent the last one; zero where the kernel does not say.
    pub(super) pid: i32,
    pub(super) uid: u32,
}

/// The service manager that started exec.
#[derive(Debug)]
struct Manager {
    address: SocketAddr,
    socket: UnixDatagram,
}

impl NotifySocket {
    /// Makes the socket, in the first directory for such things that takes it.
    ///
    /// # Errors
    ///
    /// None of them does.
    pub(super) fn bind() -> io::Result<Self> {
        let manager = env::var_os("NOTIFY_SOCKET").and_then(|address| Manager::at(&address));
        let runtime = env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
        let system_wide = geteuid().is_root().then(|| PathBuf::from("/run"));
        let places = [runtime, system_wide, Some(env::temp_dir())];
        let mut last = io::Error::from(io::ErrorKind::NotFound);
        for place in places.into_iter().flatten() {
            match Self::bind_in(&place) {
                Ok((socket, directory, path)) => {
                    let room = vec![0; MAX_MESSAGE_LEN];
                    return Ok(NotifySocket { socket, directory, path, manager, room, strangers: None });
                }
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    fn bind_in(place: &Path) -> io::Result<(UnixDatagram, PathBuf, PathBuf)> {
        let mut random = [0; 8];
        SystemRandom::new().fill(&mut random).map_err(|_| io::Error::other("there are no random numbers"))?;
        let directory = place.join(format!("varta-exec-{:016x}", u64::from_ne_bytes(random)));
        DirBuilder::new().mode(0o700).create(&directory)?;
        let path = directory.join("notify");
        let made = UnixDatagram::bind(&path).and_then(|socket| {
            socket.set_nonblocking(true)?;
            setsockopt(&socket, PassCred, &true)?;
            // A command that has become another user may send, too.
            set_permissions(&path, Permissions::from_mode(0o666))?;
            set_permissions(&directory, Permissions::from_mode(0o711))?;
            Ok(socket)
        });
        match made {
            Ok(socket) => Ok((socket, directory, path)),
            Err(error) => {
                remove(&path, &directory);
                Err(error)
            }
        }
    }

    /// The value of `NOTIFY_SOCKET` for the command.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The deadline for keep-alives that the command is told: this one, or that of the service manager if it is
    /// shorter.
    pub(super) fn deadline(&self, own: Duration) -> Duration {
        let given = || env::var("WATCHDOG_USEC").ok()?.parse().ok().map(Duration::from_micros);
        let of_manager = self.manager.as_ref().and_then(|_| given()).filter(|given| !given.is_zero());
        of_manager.map_or(own, |given| own.min(given))
    }

    /// The next message of the command or one of its descendants, if there is one. What comes from others is passed
    /// over and counted.
    pub(super) fn next(&mut self) -> Option<ServiceMessage> {
        while let Ok((length, sender)) = self.receive() {
            let text = &self.room[..length];
            if sender.is_some_and(is_believed) {
                if let Some(manager) = &self.manager {
                    manager.hand_on(text);
                }
                return Some(ServiceMessage::parse(text));
            }
            let count = self.strangers.map_or(0, |strangers| strangers.count).saturating_add(1);
            let (pid, uid) = sender.map_or((0, 0), |sender| (sender.pid(), sender.uid()));
            self.strangers = Some(Strangers { count, pid, uid });
        }
        None
    }

    /// The messages that were passed over since this was asked last, if there were any.
    pub(super) fn take_strangers(&mut self) -> Option<Strangers> {
        self.strangers.take()
    }

    /// Receives a message, and closes what came with it: who waits for a barrier goes on then.
    fn receive(&mut self) -> nix::Result<(usize, Option<UnixCredentials>)> {
        let mut control = cmsg_space!(UnixCredentials, [libc::c_int; MAX_DESCRIPTORS]);
        let mut place = [IoSliceMut::new(&mut self.room)];
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_CMSG_CLOEXEC;
        let received = recvmsg::<UnixAddr>(self.socket.as_raw_fd(), &mut place, Some(&mut control), flags)?;
        let mut sender = None;
        // Where the table of descriptors is full, the kernel has closed the rest, and says no more of the message.
        for message in received.cmsgs().into_iter().flatten() {
            match message {
                ControlMessageOwned::ScmCredentials(credentials) => sender = Some(credentials),
                ControlMessageOwned::ScmRights(descriptors) => {
                    for descriptor in descriptors {
                        // Nothing is to be saved of it.
                        let _ = close(descriptor);
                    }
                }
                _ => {}
            }
        }
        Ok((received.bytes, sender))
    }
}

impl AsFd for NotifySocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Drop for NotifySocket {
    fn drop(&mut self) {
        remove(&self.path, &self.directory);
    }
}

fn remove(path: &Path, directory: &Path) {
    // What cannot be removed stays: nobody is left to be told.
    let _ = remove_file(path);
    let _ = remove_dir(directory);
}

/// Whether a sender speaks for the command. A helper such as systemd-notify may have ended by then, and has the user of
/// exec, as who could do anything with the command anyway.
fn is_believed(sender: UnixCredentials) -> bool {
    let is_of_own_user = sender.uid() == 0 || sender.uid() == geteuid().as_raw();
    is_of_own_user
        || u32::try_from(sender.pid()).is_ok_and(|pid| pid > 0 && is_descendant(pid, std::process::id()))
}

impl Manager {
    /// `None` for an address of another kind, and without a descriptor.
    fn at(address: &OsStr) -> Option<Self> {
        let address = match address.as_bytes() {
            [b'@', name @ ..] if !name.is_empty() => SocketAddr::from_abstract_name(name),
            [b'/', ..] => SocketAddr::from_pathname(address),
            _ => return None,
        };
        let socket = UnixDatagram::unbound().ok()?;
        socket.set_nonblocking(true).ok()?;
        Some(Manager { address: address.ok()?, socket })
    }

    /// Hands a message on, but for the pid that it names: the process of the service is exec.
    fn hand_on(&self, text: &[u8]) {
        let lines = text.split(|byte| *byte == b'\n').filter(|line| !line.starts_with(b"MAINPID"));
        let lines: Vec<&[u8]> = lines.filter(|line| !line.is_empty() && *line != b"BARRIER=1").collect();
        if !lines.is_empty() {
            // A manager that does not take it is not waited for: the command would wait, too.
            let _ = self.socket.send_to_addr(&lines.join(&b'\n'), &self.address);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::IoSlice;

    use nix::sys::socket::{ControlMessage, sendmsg};

    use super::*;

    #[test]
    fn a_message_is_read_with_what_comes_along_closed_and_the_socket_goes_with_its_directory() {
        let mut socket = NotifySocket::bind().unwrap();
        let path = socket.path().to_owned();
        assert!(socket.next().is_none());
        let sender = UnixDatagram::unbound().unwrap();
        sender.connect(&path).unwrap();
        let files = [(); 20].map(|()| File::open("/dev/null").unwrap());
        let numbers = files.each_ref().map(AsRawFd::as_raw_fd);
        let open = || std::fs::read_dir("/proc/self/fd").unwrap().count();
        sender.send(b"").unwrap();
        let before = open();
        sendmsg::<()>(
            sender.as_raw_fd(),
            &[IoSlice::new(b"BARRIER=1\nWATCHDOG=1")],
            &[ControlMessage::ScmRights(&numbers)],
            MsgFlags::empty(),
            None,
        )
        .unwrap();
        assert_eq!(socket.next(), Some(ServiceMessage::default()));
        assert!(socket.next().unwrap().is_alive);
        assert!(socket.next().is_none());
        // Other tests open some, but not so many.
        assert!(open() < before + numbers.len());
        drop(socket);
        assert!(!path.parent().unwrap().exists());
    }

    #[test]
    fn the_service_manager_gets_what_was_said_without_the_pid() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("manager");
        let receiver = UnixDatagram::bind(&path).unwrap();
        let manager = Manager::at(path.as_os_str()).unwrap();
        manager.hand_on(b"MAINPID=1\nBARRIER=1\n");
        manager.hand_on(b"READY=1\nMAINPID=77\nSTATUS=up\n");
        let mut room = [0; 100];
        let length = receiver.recv(&mut room).unwrap();
        assert_eq!(&room[..length], b"READY=1\nSTATUS=up");
        assert!(Manager::at(OsStr::new("vsock:2:1")).is_none() && Manager::at(OsStr::new("@")).is_none());
    }
}
