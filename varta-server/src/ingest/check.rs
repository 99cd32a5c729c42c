//! The check socket, beside a Unix socket: says whether a datagram would be taken there, and if not why.
//!
//! The sender of a datagram sees it sent, whether it is taken or not. Here it sends the same bytes over a
//! connection, on which the kernel attests the same credentials, and the function that judges datagrams judges
//! them. Nothing else comes of them.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixListener as BoundListener;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use socket2::Type;
use tokio::io::Interest;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use varta_proto::address::{MAX_CHECK_ANSWER_LEN, check_socket_path};

use crate::base::accept::accept;
use crate::base::clock::Clock;
use crate::base::error::Error;
use crate::base::given_sockets::GivenSockets;
use crate::base::silent_clients::SilentClients;
use crate::base::time::MonoTime;
use crate::base::{SocketFile, SocketOptions};
use crate::domain::outcome::FrameOutcome;
use crate::ingest::held_socket::HeldSocket;
use crate::ingest::namespaces::PidNamespaces;
use crate::ingest::recvmmsg::{Passed, ReceiveBuffer};
use crate::ingest::refusals::explain;
use crate::ingest::senders::{AllowedSenders, OverflowIds, Senders};
use crate::ingest::socket_place::PlaceKeeper;
use crate::ingest::unix;
use crate::observe::{namespace_pids, user_and_groups};

/// The most connections at once; further ones wait in the kernel's queue.
const CONNECTIONS: usize = 32;
/// The length of that queue.
const BACKLOG: i32 = 128;
/// The time for a client to send its packet, and to make room for the answer.
const WITHIN: Duration = Duration::from_secs(1);

/// The bound check socket of one Unix socket, before it is served.
#[derive(Debug)]
pub(crate) struct CheckSocket {
    held: HeldSocket,
    allowed: watch::Receiver<AllowedSenders>,
    socket: BoundListener,
    file: SocketFile,
    /// The sockets of the server, for the one that takes the place of this.
    given: GivenSockets,
}

/// The rules by which datagrams are judged, with caches of their own.
struct Rules {
    senders: Senders,
    namespaces: PidNamespaces,
    buffer: ReceiveBuffer,
}

impl CheckSocket {
    /// Binds the check socket beside a socket, with the same owner and mode. `None`, with a warning, where that
    /// cannot be done: the server works without.
    pub(crate) fn beside(
        socket: &SocketOptions,
        allowed: watch::Receiver<AllowedSenders>,
        given: &GivenSockets,
    ) -> Option<Self> {
        let options = SocketOptions { path: check_socket_path(&socket.path), ..socket.clone() };
        Self::bind(&options, allowed, given)
            .inspect_err(|error| {
                tracing::warn!(
                    target: "varta::ingest",
                    "agents cannot ask this server whether it takes their beats: {error}"
                );
            })
            .ok()
    }

    fn bind(
        options: &SocketOptions,
        allowed: watch::Receiver<AllowedSenders>,
        given: &GivenSockets,
    ) -> Result<Self, Error> {
        let (socket, file) = match given.take_unix(&options.path, Type::SEQPACKET, "--socket")? {
            Some(socket) => {
                let (socket, file) = SocketFile::adopt(socket, &options.path, given.files())?;
                (OwnedFd::from(socket).into(), file)
            }
            None => SocketFile::listen_for_packets(options, BACKLOG, given.files())?,
        };
        let held = HeldSocket::new(options.clone(), file.place().clone(), file.is_removed());
        Ok(CheckSocket { held, allowed, socket, file, given: given.clone() })
    }

    /// Where its file is.
    pub(super) fn file(&self) -> &HeldSocket {
        &self.held
    }

    /// Answers until `stop` is cancelled, on another socket where others have removed this one.
    ///
    /// # Errors
    ///
    /// The runtime cannot register the socket.
    pub(crate) async fn run(
        self,
        keeper: PlaceKeeper,
        clock: Clock,
        stop: CancellationToken,
    ) -> Result<(), Error> {
        let (senders, _) = Senders::new(self.allowed.clone(), OverflowIds::of_server(), user_and_groups);
        let namespaces = PidNamespaces::new(namespace_pids);
        let buffer = ReceiveBuffer::for_unix();
        let rules = Arc::new(Mutex::new(Rules { senders, namespaces, buffer }));
        let path = self.file.path().to_path_buf();
        let mut present = Some(self);
        while let Some(socket) = present {
            let (held, allowed) = (socket.held.clone(), socket.allowed.clone());
            let (place, given) = (held.place(), socket.given.clone());
            let replaced = stop.child_token();
            let replace = async {
                let by = held.clone();
                let bind = move || CheckSocket::bind(&by.options(), allowed.clone(), &given);
                let mut next = keeper.replacement(&place, bind, &stop).await;
                if let Some(next) = &mut next {
                    held.is_replaced(next.file.place().clone());
                    next.held = held.clone();
                }
                replaced.cancel();
                Ok(next)
            };
            ((), present) = tokio::try_join!(socket.serve(&rules, clock, &stop, &replaced), replace)?;
        }
        keeper.forget(&path);
        Ok(())
    }

    async fn serve(
        self,
        rules: &Arc<Mutex<Rules>>,
        clock: Clock,
        stop: &CancellationToken,
        until: &CancellationToken,
    ) -> Result<(), Error> {
        let path = self.file.path().to_path_buf();
        let socket = UnixListener::from_std(self.socket).map_err(|source| Error::Socket {
            path: path.clone(),
            action: "watch the check socket",
            source,
        })?;
        // Declared after the socket and so dropped before it, as with every socket file.
        let _file = self.file;
        let warn = |error: &io::Error| {
            tracing::warn!(
                target: "varta::ingest",
                "{}: cannot accept a connection: {error}; trying again",
                path.display()
            );
        };
        let silent = SilentClients::default();
        let serve = |stream: UnixStream| {
            let (rules, stop, client) = (Arc::clone(rules), stop.clone(), silent.enter());
            async move {
                tokio::select! {
                    () = stop.cancelled() => {}
                    () = client.evicted() => {}
                    // A client that says nothing, or has gone, gets no answer and needs none.
                    _ = timeout(WITHIN, answer(&stream, &rules, clock)) => {}
                }
            }
        };
        // The connections end by their own timeouts.
        drop(accept(&socket, CONNECTIONS, until, warn, &silent, serve).await);
        Ok(())
    }
}

/// Answers one client.
async fn answer(stream: &UnixStream, rules: &Mutex<Rules>, clock: Clock) -> io::Result<()> {
    let answer = loop {
        stream.readable().await?;
        let judged = stream.try_io(Interest::READABLE, || {
            let mut rules = rules.lock().unwrap_or_else(PoisonError::into_inner);
            rules.judge(stream, clock.now())
        });
        match judged {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            judged => break judged?,
        }
    };
    let Some(answer) = answer else { return Ok(()) };
    tracing::debug!(target: "varta::ingest", answer, "a process asked whether its beats are taken: {answer}");
    stream.writable().await?;
    stream.try_write(answer.as_bytes()).map(drop)
}

impl Rules {
    /// Receives what a client has sent, and returns the answer to its first packet; `None` if it sent none.
    fn judge(&mut self, stream: &UnixStream, now: MonoTime) -> io::Result<Option<String>> {
        let Rules { senders, namespaces, buffer } = self;
        senders.refresh();
        buffer.receive(stream.as_fd(), Passed::Nothing)?;
        // None is received; one that came along has been discarded.
        drop(buffer.take_descriptors());
        let Some(packet) = buffer.datagrams().next().filter(|packet| !packet.payload.is_empty()) else {
            return Ok(None);
        };
        let Err(outcome) = unix::judge(&packet, senders, namespaces, now) else {
            return Ok(Some("ok".to_owned()));
        };
        Ok(Some(refusal(outcome, &explain(&packet, outcome))))
    }
}

fn refusal(outcome: FrameOutcome, advice: &str) -> String {
    let mut answer = format!("refused {} {advice}", FrameOutcome::labels()[outcome.index()]);
    let end = (0..=MAX_CHECK_ANSWER_LEN.min(answer.len())).rev().find(|end| answer.is_char_boundary(*end));
    answer.truncate(end.unwrap_or(0));
    answer
}

#[cfg(test)]
mod tests {
    use socket2::{Domain, SockAddr, Socket};
    use varta_proto::{Frame, Status};

    use super::*;
    use crate::base::files::watch::FileWatcher;
    use crate::metrics::Registry;
    use crate::metrics::faults::{Faults, Part};

    /// Serves a check socket whose server takes the beats of one user, until the token is cancelled.
    fn serve(directory: &tempfile::TempDir, uid: u32) -> CancellationToken {
        let path = directory.path().join("varta.sock");
        let options = SocketOptions { path, is_default: false, mode: 0o600, group: None };
        let allowed = AllowedSenders { uids: vec![uid], gids: Vec::new() };
        let check =
            CheckSocket::beside(&options, watch::channel(allowed).1, &GivenSockets::default()).unwrap();
        let faults = Faults::new(&Registry::for_test());
        let keeper = PlaceKeeper { part: Part::CheckSocket, watcher: FileWatcher::new(), faults };
        let stop = CancellationToken::new();
        tokio::spawn(check.run(keeper, Clock::start(), stop.clone()));
        stop
    }

    fn connect(directory: &tempfile::TempDir) -> Socket {
        let socket = Socket::new(Domain::UNIX, Type::SEQPACKET, None).unwrap();
        socket.connect(&SockAddr::unix(directory.path().join("varta.sock.check")).unwrap()).unwrap();
        socket
    }

    /// The answer to a packet; none if the connection is closed without one.
    async fn ask(client: Socket, packet: Vec<u8>) -> String {
        let read = move || {
            client.send(&packet).unwrap();
            let mut answer = [0; 1_024];
            let length = io::Read::read(&mut &client, &mut answer).unwrap();
            String::from_utf8(answer[..length].to_vec()).unwrap()
        };
        tokio::task::spawn_blocking(read).await.unwrap()
    }

    fn beat(pid: u32) -> Vec<u8> {
        Frame::new(Status::Ok, pid, 0, 1, 0).to_bytes().to_vec()
    }

    #[tokio::test]
    async fn who_asks_is_told_what_would_become_of_its_datagram_and_what_to_do() {
        let (us, pid) = (nix::unistd::geteuid().as_raw(), std::process::id());
        let directory = tempfile::tempdir().unwrap();
        let stop = serve(&directory, us);
        assert_eq!(ask(connect(&directory), beat(pid)).await, "ok");
        let told = ask(connect(&directory), beat(1 << 20)).await;
        assert!(told.starts_with("refused pid_mismatch its frames carry pid 1048576"), "{told}");
        let told = ask(connect(&directory), vec![7; 2_000]).await;
        assert!(told.starts_with("refused ") && told.len() <= MAX_CHECK_ANSWER_LEN, "{told}");
        stop.cancel();

        let directory = tempfile::tempdir().unwrap();
        let stop = serve(&directory, us + 1);
        let told = ask(connect(&directory), beat(pid)).await;
        assert!(told.starts_with("refused uid_refused ") && told.contains("--allow-uid"), "{told}");
        stop.cancel();
    }

    #[tokio::test]
    async fn clients_that_say_nothing_make_room_for_those_that_ask() {
        let directory = tempfile::tempdir().unwrap();
        let stop = serve(&directory, nix::unistd::geteuid().as_raw());
        let mut silent = Vec::new();
        for _ in 0..10 * CONNECTIONS {
            silent.push(connect(&directory));
            tokio::task::yield_now().await;
        }
        assert_eq!(ask(connect(&directory), beat(std::process::id())).await, "ok");
        stop.cancel();
    }

    #[test]
    fn a_path_that_is_too_long_or_taken_is_no_reason_not_to_start() {
        let directory = tempfile::tempdir().unwrap();
        let beside = |path: std::path::PathBuf| {
            let options = SocketOptions { path, is_default: false, mode: 0o600, group: None };
            let allowed = watch::channel(AllowedSenders::of_server()).1;
            CheckSocket::beside(&options, allowed, &GivenSockets::default())
        };
        assert!(beside(directory.path().join("x".repeat(100))).is_none());
        let path = directory.path().join("varta.sock");
        let first = beside(path.clone());
        assert!(first.is_some() && beside(path.clone()).is_none());
        drop(first);
        assert!(!check_socket_path(&path).exists());
    }
}
