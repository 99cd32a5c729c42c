//! The control socket: reads one request on each connection, and responds. Only the server's user and root
//! are accepted, by the credentials that the kernel reports. A connection on which HTTP is spoken is served by the HTTP
//! service.

use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixListener as BoundListener;
use std::sync::Arc;
use std::time::Duration;

use nix::sys::socket::{MsgFlags, recv};
use socket2::Type;
use tokio::io::Interest;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::base::SocketFile;
use crate::base::accept::{NoRoom, accept};
use crate::base::error::Error;
use crate::base::given_sockets::GivenSockets;
use crate::ingest::socket_place::PlaceKeeper;
use crate::services::maintenance::options::ControlSocket;
use crate::services::maintenance::protocol::{MAX_REQUEST_LEN, Request, Response, ResponseStatus};
use crate::services::maintenance::requests::PauseService;

/// The most connections at once; further ones wait in the kernel's backlog.
const CONNECTIONS: usize = 16;
/// The backlog of the listening socket.
const BACKLOG: i32 = 16;
/// The timeout of a request.
const REQUEST_WITHIN: Duration = Duration::from_secs(1);
/// The timeout of writing a response.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);

/// The bound control socket before it is served.
#[derive(Debug)]
pub(super) struct ControlListener {
    options: ControlSocket,
    socket: BoundListener,
    file: SocketFile,
    /// The sockets of the server, for the one that takes the place of this.
    given: GivenSockets,
}

impl ControlListener {
    /// Binds the socket, or takes a given one that is bound to its path.
    pub(super) fn bind(options: &ControlSocket, given: &GivenSockets) -> Result<Self, Error> {
        const OPTION: &str = "--control-socket";
        let (socket, file) = match given.take_unix(&options.path, Type::STREAM, OPTION)? {
            Some(socket) => {
                let (socket, file) = SocketFile::adopt(socket, &options.path, given.files())?;
                // Who connects is told the credentials of whoever has called this last.
                let failed =
                    |source| Error::Socket { path: options.path.clone(), action: "listen on it", source };
                socket.listen(BACKLOG).map_err(failed)?;
                (OwnedFd::from(socket).into(), file)
            }
            None => SocketFile::listen(&options.path, BACKLOG, OPTION, given.files())?,
        };
        Ok(ControlListener { options: options.clone(), socket, file, given: given.clone() })
    }

    /// Serves requests until `stop` is cancelled, on another socket where others have removed this one. Connections on
    /// which HTTP is spoken go to `http`.
    ///
    /// # Errors
    ///
    /// The runtime cannot register the socket.
    pub(super) async fn serve(
        self,
        desk: &Arc<PauseService>,
        http: &mpsc::Sender<UnixStream>,
        keeper: &PlaceKeeper,
        stop: &CancellationToken,
    ) -> Result<(), Error> {
        let path = self.file.path().display().to_string();
        tracing::info!(
            target: "varta::maintenance",
            path,
            "requests (pause, forget, ack, reload) are taken on {path}"
        );
        let mut present = self;
        loop {
            let (place, options) = (present.file.place().clone(), present.options.clone());
            let given = present.given.clone();
            let replaced = stop.child_token();
            let replace = async {
                let bind = move || ControlListener::bind(&options, &given);
                let next = keeper.replacement(&place, bind, stop).await;
                replaced.cancel();
                Ok(next)
            };
            let (connections, next) = tokio::try_join!(present.accept(desk, http, stop, &replaced), replace)?;
            match next {
                Some(next) => present = next,
                None => {
                    // Connections end by their own timeouts.
                    connections.wait().await;
                    return Ok(());
                }
            }
        }
    }

    /// Accepts connections until `until` is cancelled. Gives those that are still served, until they end by
    /// themselves or `stop` is cancelled.
    async fn accept(
        self,
        desk: &Arc<PauseService>,
        http: &mpsc::Sender<UnixStream>,
        stop: &CancellationToken,
        until: &CancellationToken,
    ) -> Result<TaskTracker, Error> {
        let ControlListener { socket, file, .. } = self;
        let path = file.path().to_path_buf();
        let socket = UnixListener::from_std(socket).map_err(|source| Error::Socket {
            path: path.clone(),
            action: "watch the control socket",
            source,
        })?;
        // Declared after the socket and so dropped before it, as with every socket file.
        let _file = file;
        let warn = |error: &std::io::Error| {
            tracing::warn!(
                target: "varta::maintenance",
                "{}: cannot accept a connection: {error}; trying again",
                path.display()
            );
        };
        let serve = |stream| {
            let (desk, http, stop) = (Arc::clone(desk), http.clone(), stop.clone());
            async move { converse(stream, &desk, &http, &stop).await }
        };
        Ok(accept(&socket, CONNECTIONS, until, warn, &NoRoom, serve).await)
    }
}

/// Serves one connection.
async fn converse(
    stream: UnixStream,
    desk: &PauseService,
    http: &mpsc::Sender<UnixStream>,
    stop: &CancellationToken,
) {
    let answer = match asker(&stream) {
        Ok(uid) => {
            let read = async {
                match is_http(&stream).await? {
                    true => Ok(None),
                    false => read_line(&stream).await.map(Some),
                }
            };
            let read = tokio::select! {
                () = stop.cancelled() => return,
                read = timeout(REQUEST_WITHIN, read) => read,
            };
            let request = match read {
                Ok(Ok(None)) => {
                    tracing::debug!(target: "varta::maintenance", uid, "uid {uid} speaks HTTP on the control socket");
                    tokio::select! {
                        () = stop.cancelled() => {}
                        // The HTTP service ends after this one.
                        _ = http.send(stream) => {}
                    }
                    return;
                }
                Ok(Ok(Some(line))) => Request::parse(&line),
                Ok(Err(fault)) => Err(fault),
                Err(_) => Err(format!("did not come within {REQUEST_WITHIN:?}")),
            };
            tracing::debug!(target: "varta::maintenance", uid, "uid {uid} asks on the control socket: {request:?}");
            match request {
                // The connection goes with these, and the answer comes from elsewhere.
                Ok(request @ (Request::Upgrade | Request::TakeOver { .. })) => {
                    desk.count(ResponseStatus::Ok);
                    return desk.hand_over(request, stream, uid).await;
                }
                Ok(request) => desk.answer(request, uid).await,
                Err(fault) => Response::malformed(format!("the request makes no sense: {fault}")),
            }
        }
        Err(fault) => Response::refused(fault),
    };
    desk.count(answer.outcome);
    tracing::debug!(
        target: "varta::maintenance",
        outcome = answer.outcome.as_str(),
        "a request on the control socket is answered: {}",
        answer.to_line().trim_end()
    );
    // A client that does not read the response changes nothing about the result.
    let _ = timeout(ANSWER_WITHIN, write_line(&stream, answer.to_line().as_bytes())).await;
}

/// The uid of the peer, if it is allowed; else why it is not.
fn asker(stream: &UnixStream) -> Result<u32, String> {
    let us = nix::unistd::geteuid().as_raw();
    match stream.peer_cred() {
        Ok(peer) if peer.uid() == us || peer.uid() == 0 => Ok(peer.uid()),
        Ok(peer) => {
            let uid = peer.uid();
            Err(format!("uid {uid} may ask for nothing here; uid {us} and root may"))
        }
        Err(error) => Err(format!("the kernel does not say who asks: {error}")),
    }
}

/// Whether the first byte that comes, which stays in the stream, is that of a method of HTTP and not of a JSON object.
async fn is_http(stream: &UnixStream) -> Result<bool, String> {
    let mut first = [0];
    let peek = || Ok(recv(stream.as_raw_fd(), &mut first, MsgFlags::MSG_PEEK)?);
    let length = stream.async_io(Interest::READABLE, peek).await;
    length.map_err(|error| format!("cannot be read: {error}"))?;
    Ok(first[0].is_ascii_uppercase())
}

/// Reads one line, up to its newline or the end of the connection.
async fn read_line(stream: &UnixStream) -> Result<Vec<u8>, String> {
    let failed = |error| format!("cannot be read: {error}");
    // One byte more than allowed detects a longer request.
    let mut line = vec![0; MAX_REQUEST_LEN + 1];
    let mut length = 0;
    loop {
        stream.readable().await.map_err(failed)?;
        let read = match stream.try_read(&mut line[length..]) {
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => continue,
            read => read.map_err(failed)?,
        };
        let end = line[length..length + read].iter().position(|byte| *byte == b'\n');
        length += read;
        match end {
            Some(end) if length - read + end + 1 < length => {
                return Err("goes on behind its line; there is one for each connection".to_owned());
            }
            _ if length > MAX_REQUEST_LEN => {
                return Err(format!("is longer than {MAX_REQUEST_LEN} bytes"));
            }
            None if read > 0 => {}
            Some(_) | None => {
                line.truncate(length);
                return Ok(line);
            }
        }
    }
}

async fn write_line(stream: &UnixStream, mut line: &[u8]) -> std::io::Result<()> {
    while !line.is_empty() {
        stream.writable().await?;
        match stream.try_write(line) {
            Ok(written) => line = &line[written..],
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
