//! The beginning of a connection to an address that answers over TLS.
//!
//! The first byte tells whether a client speaks TLS at all: one that does not gets an answer that it can read, as
//! from other servers, in place of an alert.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{self, Poll};

use metrics::Counter;
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::metrics::Registry;
use crate::metrics::family::families;

families! {
    CERTIFICATE_EXPIRY = "varta_tls_certificate_expiry_timestamp_seconds", "When the first certificate of --metrics-tls-cert expires; 0 without one.";
    HANDSHAKE_FAILURES = "varta_tls_handshake_failures_total", "Connections to the metrics address that did not come to speak TLS.";
}

/// The first byte of what a client of TLS sends: a record of the handshake (RFC 8446, section 5.1).
const HANDSHAKE: u8 = 22;

/// A connection whose client has begun to speak.
pub(super) enum Opened<S> {
    Tls(Box<TlsStream<Rewound<S>>>),
    /// The client does not speak TLS.
    Plain(Rewound<S>),
}

/// Why a connection was not opened.
#[derive(Debug)]
pub(super) enum Fault {
    /// The client went away before it said anything: as one that only looks whether the port is open.
    Silent,
    TooSlow,
    /// The client has ended the handshake, as one that does not trust the certificate.
    Refused(io::Error),
    /// What it sent is not TLS, is of versions or ciphers that this server has not, or ends too early.
    Broken(io::Error),
}

impl Fault {
    /// What an error of the handshake means.
    fn of(error: io::Error) -> Self {
        let inner = error.get_ref().and_then(|inner| inner.downcast_ref());
        match inner {
            Some(rustls::Error::AlertReceived(_)) => Fault::Refused(error),
            Some(_) | None => Fault::Broken(error),
        }
    }
}

/// Reads the first byte, and then the handshake, until `deadline`.
///
/// # Errors
///
/// Why no connection came of it, which is to be closed.
pub(super) async fn open<S>(
    mut stream: S,
    config: Arc<ServerConfig>,
    deadline: Instant,
) -> Result<Opened<S>, Fault>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut first = [0];
    match timeout_at(deadline, stream.read(&mut first)).await {
        Err(_) | Ok(Ok(0) | Err(_)) => return Err(Fault::Silent),
        Ok(Ok(_)) => {}
    }
    let [first] = first;
    let stream = Rewound { first: Some(first), stream };
    if first != HANDSHAKE {
        return Ok(Opened::Plain(stream));
    }
    match timeout_at(deadline, TlsAcceptor::from(config).accept(stream)).await {
        Ok(Ok(stream)) => Ok(Opened::Tls(Box::new(stream))),
        Ok(Err(error)) => Err(Fault::of(error)),
        Err(_) => Err(Fault::TooSlow),
    }
}

/// A stream whose first byte was read, and is read again.
#[derive(Debug)]
pub(super) struct Rewound<S> {
    first: Option<u8>,
    stream: S,
}

impl<S: AsyncRead + Unpin> AsyncRead for Rewound<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut task::Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if buffer.remaining() > 0
            && let Some(first) = this.first.take()
        {
            buffer.put_slice(&[first]);
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut this.stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Rewound<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut task::Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut task::Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write_vectored(context, pieces)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut task::Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut task::Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(context)
    }
}

/// Counts the connections that were not opened, and says why.
#[derive(Clone)]
pub(super) struct HandshakeFailures {
    plaintext: Counter,
    too_slow: Counter,
    refused: Counter,
    broken: Counter,
}

impl HandshakeFailures {
    pub(super) fn new(registry: &Registry) -> Self {
        let counter = |reason| registry.counter(HANDSHAKE_FAILURES, &[("reason", reason)]);
        HandshakeFailures {
            plaintext: counter("plaintext"),
            too_slow: counter("timeout"),
            refused: counter("refused"),
            broken: counter("protocol"),
        }
    }

    /// The client does not speak TLS. It is told so itself.
    pub(super) fn plaintext(&self) {
        self.plaintext.increment(1);
    }

    /// `peer` is the address of the client, where it is known.
    pub(super) fn failed(&self, fault: &Fault, peer: Option<SocketAddr>) {
        let client = peer.map_or_else(|| "a client".to_owned(), |peer| peer.to_string());
        match fault {
            Fault::Silent => {}
            Fault::TooSlow => self.too_slow.increment(1),
            Fault::Refused(error) => {
                self.refused.increment(1);
                tracing::warn!(
                    target: "varta::http",
                    "{client} has ended the TLS handshake, as one does that does not trust the certificate: {error}"
                );
            }
            Fault::Broken(error) => {
                self.broken.increment(1);
                tracing::debug!(target: "varta::http", "the TLS handshake of {client} has failed: {error}");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rcgen::{CertificateParams, KeyPair};
    use rustls::crypto::ring;
    use rustls::pki_types::PrivateKeyDer;
    use tokio::io::{AsyncWriteExt, duplex};

    use super::*;

    const WITHIN: Duration = Duration::from_secs(5);

    fn config() -> Arc<ServerConfig> {
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new([]).unwrap().self_signed(&key).unwrap();
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(
                vec![certificate.der().clone()],
                PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
            );
        Arc::new(config.unwrap())
    }

    /// What comes of a client that sends this and then waits, and how long that takes.
    async fn opened(sent: &[u8]) -> (Result<Opened<tokio::io::DuplexStream>, Fault>, Duration) {
        let (mut client, server) = duplex(1024);
        client.write_all(sent).await.unwrap();
        let begin = Instant::now();
        let opened = open(server, config(), begin + WITHIN).await;
        drop(client);
        (opened, begin.elapsed())
    }

    #[tokio::test(start_paused = true)]
    async fn a_handshake_has_a_time_limit_also_before_its_first_byte() {
        let (silent, took) = opened(b"").await;
        assert!(matches!(silent, Err(Fault::Silent)) && took >= WITHIN, "{took:?}");
        let (begun, took) = opened(b"\x16\x03\x01\x02\x00\x01").await;
        assert!(matches!(begun, Err(Fault::TooSlow)) && took >= WITHIN, "{took:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_no_handshake_is_read_from_its_first_byte() {
        let (opened, took) = opened(b"GET / HTTP/1.1\r\n").await;
        let Ok(Opened::Plain(mut stream)) = opened else { panic!("it is plaintext") };
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        assert_eq!((text.as_str(), took), ("GET / HTTP/1.1\r\n", Duration::ZERO));
    }

    #[tokio::test(start_paused = true)]
    async fn a_handshake_that_makes_no_sense_ends_at_once() {
        let (opened, took) = opened(b"\x16\x03\x01\x00\x04\xff\x00\x00\x00").await;
        assert!(matches!(opened, Err(Fault::Broken(_))) && took == Duration::ZERO, "{took:?}");
    }
}
