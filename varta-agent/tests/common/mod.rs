//! What the test programs share: a server that only listens.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]
#![allow(dead_code, reason = "each test program takes what it needs")]

use std::env;
use std::io;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tempfile::TempDir;
use varta_agent::Frame;

/// After it a test has failed; no test that succeeds waits for it.
const GIVE_UP: Duration = Duration::from_secs(20);

/// A socket that somebody listens on, in a directory of its own.
pub(crate) struct Server {
    dir: TempDir,
    socket: Option<UnixDatagram>,
}

impl Server {
    /// A path at which there is no socket yet.
    pub(crate) fn absent() -> Self {
        Self { dir: tempfile::tempdir().unwrap(), socket: None }
    }

    pub(crate) fn listening() -> Self {
        let mut server = Self::absent();
        server.start();
        server
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.dir.path().join("varta.sock")
    }

    pub(crate) fn start(&mut self) {
        let _ = std::fs::remove_file(self.path());
        let socket = UnixDatagram::bind(self.path()).unwrap();
        socket.set_read_timeout(Some(GIVE_UP)).unwrap();
        self.socket = Some(socket);
    }

    /// Closes the socket, and leaves its file as a server that is killed does.
    pub(crate) fn kill(&mut self) {
        self.socket = None;
    }

    /// Waits for the next frame.
    pub(crate) fn frame(&self) -> Frame {
        let mut datagram = [0; 64];
        let length = self.socket().recv(&mut datagram).expect("a frame in time");
        Frame::decode(&datagram[..length]).unwrap()
    }

    /// Takes what has arrived, without waiting.
    pub(crate) fn arrived(&self) -> Vec<Frame> {
        self.socket().set_nonblocking(true).unwrap();
        let mut frames = Vec::new();
        let mut datagram = [0; 64];
        loop {
            match self.socket().recv(&mut datagram) {
                Ok(length) => frames.push(Frame::decode(&datagram[..length]).unwrap()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => panic!("{error}"),
            }
        }
        self.socket().set_nonblocking(false).unwrap();
        frames
    }

    fn socket(&self) -> &UnixDatagram {
        self.socket.as_ref().expect("the server listens")
    }
}

/// Fills the queue of a server's socket, by as many datagrams as it takes.
pub(crate) fn fill(path: &Path) {
    let socket = UnixDatagram::unbound().unwrap();
    socket.connect(path).unwrap();
    socket.set_nonblocking(true).unwrap();
    while socket.send(&[0; 32]).is_ok() {}
}

/// Runs the cases whose names contain one of the arguments, or all, one after the other on this thread. For test
/// programs that cannot have the threads of the standard harness.
#[allow(clippy::print_stdout, reason = "this is what a test program does")]
pub(crate) fn run(cases: &[(&str, fn())]) {
    let filters: Vec<String> = env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    for (name, case) in cases {
        if filters.is_empty() || filters.iter().any(|filter| name.contains(filter.as_str())) {
            case();
            println!("test {name} ... ok");
        }
    }
}
