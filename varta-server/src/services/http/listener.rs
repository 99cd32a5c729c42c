//! The socket of the metrics endpoint, which a reload may replace or close.

use std::future::pending;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Mutex, watch};

use crate::base::accept::Listener;
use crate::services::http::access::Access;

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
    stream: TcpStream,
    access: Access,
}

/// A stream that knows what a request on it must show.
pub(super) trait Guarded {
    fn access(&self) -> Access;
}

/// Accepts connections on the present socket. One that is replaced is closed when no connection waits there.
#[derive(Debug)]
pub(super) struct ReplaceableListener(Mutex<Sockets>);

#[derive(Debug)]
struct Sockets {
    present: Listening,
    changes: watch::Receiver<Listening>,
}

impl ReplaceableListener {
    /// Listens on the socket of the channel, and on each that takes its place there.
    pub(super) fn new(mut changes: watch::Receiver<Listening>) -> Self {
        let present = changes.borrow_and_update().clone();
        ReplaceableListener(Mutex::new(Sockets { present, changes }))
    }
}

impl Listener for ReplaceableListener {
    type Stream = Connection;

    async fn accept(&self) -> io::Result<Connection> {
        let Sockets { present, changes } = &mut *self.0.lock().await;
        loop {
            tokio::select! {
                biased;
                accepted = accept(present.as_deref()) => return accepted,
                Ok(()) = changes.changed() => present.clone_from(&changes.borrow_and_update()),
            }
        }
    }

    fn peer(connection: &Connection) -> Option<SocketAddr> {
        connection.stream.peer_addr().ok()
    }
}

/// Accepts a connection; pends for ever without a socket.
async fn accept(endpoint: Option<&Endpoint>) -> io::Result<Connection> {
    match endpoint {
        Some(Endpoint { socket, access }) => {
            let stream = Listener::accept(socket).await?;
            // What a client does not read would grow to megabytes in the kernel else.
            SockRef::from(&stream).set_send_buffer_size(SEND_BUFFER_LEN)?;
            Ok(Connection { stream, access: access.clone() })
        }
        None => pending().await,
    }
}

impl Guarded for Connection {
    fn access(&self) -> Access {
        self.access.clone()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write_vectored(context, pieces)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(context)
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
    use crate::services::http::options::HttpOptions;

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
        let listener = ReplaceableListener::new(changes);
        let waiting = [TcpStream::connect(former).await.unwrap(), TcpStream::connect(former).await.unwrap()];
        replace.send_replace(Some(second));
        let last = TcpStream::connect(present).await.unwrap();
        for (client, is_open) in waiting.iter().map(|client| (client, false)).chain([(&last, true)]) {
            let accepted = listener.accept().await.unwrap();
            assert_eq!(accepted.stream.peer_addr().unwrap(), client.local_addr().unwrap());
            let answer = accepted.access().check(&HeaderMap::new(), None).await;
            assert_eq!(answer == Answer::Allowed, is_open);
        }
        assert!(TcpStream::connect(former).await.is_err(), "it is closed");
    }

    #[tokio::test]
    async fn without_a_socket_nobody_is_accepted_until_there_is_one() {
        let (replace, changes) = watch::channel(None);
        let listener = ReplaceableListener::new(changes);
        let (socket, address) = bind(None).await;
        let accepted = tokio::spawn(async move { listener.accept().await });
        yield_now().await;
        assert!(!accepted.is_finished());
        replace.send_replace(Some(socket));
        let client = TcpStream::connect(address).await.unwrap();
        let accepted = accepted.await.unwrap().unwrap();
        assert_eq!(accepted.stream.peer_addr().unwrap(), client.local_addr().unwrap());
    }
}
