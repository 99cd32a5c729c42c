//! The socket of the metrics endpoint, which a reload may replace or close, and connections of users of this host that
//! come by another way.

use std::future::pending;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::sync::{Mutex, mpsc, watch};

use crate::base::accept::Listener;
use crate::services::http::access::Access;
use crate::services::http::options::HttpOptions;

/// What the kernel keeps for a client that has not read it, in bytes; it takes as much again for its own needs.
const SEND_BUFFER_LEN: usize = 128 << 10;

/// A socket that listens, and what a request that comes by it must show. The two belong together: who came by an
/// address that needs a token needs it also when a reload puts one in its place that needs none.
#[derive(Debug)]
pub(super) struct Endpoint {
    pub(super) socket: TcpListener,
    pub(super) access: Access,
}

/// Where HTTP is served, if it is.
pub(super) type Listening = Option<Arc<Endpoint>>;

/// A connection, and what its request must show.
#[derive(Debug)]
pub(super) struct Connection {
    stream: Stream,
    access: Access,
}

#[derive(Debug)]
enum Stream {
    Tcp(TcpStream),
    /// Of a user of this host who may do everything.
    Local(UnixStream),
}

/// A stream that knows what a request on it must show.
pub(super) trait Guarded {
    fn access(&self) -> Access;

    /// Whether it is of a user of this host who need not show anything.
    fn is_local(&self) -> bool {
        false
    }
}

/// Accepts connections on the present socket, and those that were accepted elsewhere. A socket that is replaced is closed
/// when no connection waits there.
#[derive(Debug)]
pub(super) struct ReplaceableListener(Mutex<Sockets>);

#[derive(Debug)]
struct Sockets {
    present: Listening,
    changes: watch::Receiver<Listening>,
    local: mpsc::Receiver<UnixStream>,
    /// For connections of this host while there is no socket.
    without_socket: Access,
}

impl ReplaceableListener {
    /// Listens on the socket of the channel, and on each that takes its place there. `local` has the connections of
    /// users of this host.
    pub(super) fn new(mut changes: watch::Receiver<Listening>, local: mpsc::Receiver<UnixStream>) -> Self {
        let present = changes.borrow_and_update().clone();
        let without_socket = Access::new(HttpOptions::default().into());
        ReplaceableListener(Mutex::new(Sockets { present, changes, local, without_socket }))
    }
}

impl Listener for ReplaceableListener {
    type Stream = Connection;

    async fn accept(&self) -> io::Result<Connection> {
        let Sockets { present, changes, local, without_socket } = &mut *self.0.lock().await;
        loop {
            tokio::select! {
                biased;
                Some(stream) = local.recv() => {
                    let access = present.as_ref().map_or(&*without_socket, |endpoint| &endpoint.access).clone();
                    return Ok(Connection { stream: Stream::Local(stream), access });
                }
                accepted = accept(present.as_deref()) => return accepted,
                Ok(()) = changes.changed() => present.clone_from(&changes.borrow_and_update()),
            }
        }
    }

    fn peer(connection: &Connection) -> Option<SocketAddr> {
        match &connection.stream {
            Stream::Tcp(stream) => stream.peer_addr().ok(),
            Stream::Local(_) => None,
        }
    }
}

/// Accepts a connection; pends for ever without a socket.
async fn accept(endpoint: Option<&Endpoint>) -> io::Result<Connection> {
    match endpoint {
        Some(Endpoint { socket, access }) => {
            let stream = Listener::accept(socket).await?;
            // What a client does not read would grow to megabytes in the kernel else.
            SockRef::from(&stream).set_send_buffer_size(SEND_BUFFER_LEN)?;
            Ok(Connection { stream: Stream::Tcp(stream), access: access.clone() })
        }
        None => pending().await,
    }
}

impl Guarded for Connection {
    fn access(&self) -> Access {
        self.access.clone()
    }

    fn is_local(&self) -> bool {
        matches!(self.stream, Stream::Local(_))
    }
}

/// The same call of whichever stream it is.
macro_rules! each {
    ($connection:expr, $stream:ident => $call:expr) => {
        match &mut $connection.get_mut().stream {
            Stream::Tcp(tcp) => {
                let $stream = Pin::new(tcp);
                $call
            }
            Stream::Local(local) => {
                let $stream = Pin::new(local);
                $call
            }
        }
    };
}

impl AsyncRead for Connection {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        each!(self, stream => stream.poll_read(context, buffer))
    }
}

impl AsyncWrite for Connection {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        each!(self, stream => stream.poll_write(context, bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        each!(self, stream => stream.poll_write_vectored(context, pieces))
    }

    fn is_write_vectored(&self) -> bool {
        match &self.stream {
            Stream::Tcp(stream) => stream.is_write_vectored(),
            Stream::Local(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, stream => stream.poll_flush(context))
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, stream => stream.poll_shutdown(context))
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt;

    use tokio::task::yield_now;

    use axum::http::HeaderMap;

    use super::*;
    use crate::base::secret::Secret;
    use crate::services::http::credentials::Answer;

    fn secret() -> Secret {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("token");
        fs::write(&path, "0123456789abcdef").unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        Secret::from_file(&path).unwrap()
    }

    async fn bind(token: Option<Secret>) -> (Arc<Endpoint>, SocketAddr) {
        let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        let options = HttpOptions { token, ..HttpOptions::default() };
        let access = Access::new(options.into());
        (Arc::new(Endpoint { socket, access }), address)
    }

    #[tokio::test]
    async fn who_waits_at_the_former_address_is_served_before_it_is_closed_and_needs_its_token() {
        let ((first, former), (second, present)) = (bind(Some(secret())).await, bind(None).await);
        let (replace, changes) = watch::channel(Some(first));
        let listener = ReplaceableListener::new(changes, mpsc::channel(1).1);
        let waiting = [TcpStream::connect(former).await.unwrap(), TcpStream::connect(former).await.unwrap()];
        replace.send_replace(Some(second));
        let last = TcpStream::connect(present).await.unwrap();
        for (client, is_open) in waiting.iter().map(|client| (client, false)).chain([(&last, true)]) {
            let accepted = listener.accept().await.unwrap();
            assert_eq!(ReplaceableListener::peer(&accepted).unwrap(), client.local_addr().unwrap());
            let answer = accepted.access().check(&HeaderMap::new(), None).await;
            assert_eq!(answer == Answer::Allowed, is_open);
        }
        assert!(TcpStream::connect(former).await.is_err(), "it is closed");
    }

    #[tokio::test]
    async fn without_a_socket_nobody_is_accepted_until_there_is_one() {
        let (replace, changes) = watch::channel(None);
        let listener = ReplaceableListener::new(changes, mpsc::channel(1).1);
        let (socket, address) = bind(None).await;
        let accepted = tokio::spawn(async move { listener.accept().await });
        yield_now().await;
        assert!(!accepted.is_finished());
        replace.send_replace(Some(socket));
        let client = TcpStream::connect(address).await.unwrap();
        let accepted = accepted.await.unwrap().unwrap();
        assert_eq!(ReplaceableListener::peer(&accepted).unwrap(), client.local_addr().unwrap());
    }

    #[tokio::test]
    async fn a_connection_that_was_accepted_elsewhere_is_served_with_and_without_a_socket() {
        let (replace, changes) = watch::channel(None);
        let (give, local) = mpsc::channel(1);
        let listener = ReplaceableListener::new(changes, local);
        for socket in [None, Some(bind(Some(secret())).await.0)] {
            replace.send_replace(socket);
            let (_client, given) = UnixStream::pair().unwrap();
            give.send(given).await.unwrap();
            assert!(listener.accept().await.unwrap().is_local());
        }
    }
}
