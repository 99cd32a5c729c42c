//! Clients that take their time, over streams in memory and on a clock that the test moves.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::sync::{Mutex, mpsc};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use crate::base::accept::Listener;
use crate::base::clock::Clock;
use crate::engine::query::{Query, Slice};
use crate::ingest::Probes;
use crate::ingest::kernel_drops::KernelDrops;
use crate::metrics::Registry;
use crate::metrics::agent_rows::{AgentMetrics, AgentRows};
use crate::metrics::faults::Faults;
use crate::services::http::access::Access;
use crate::services::http::connections::Limits;
use crate::services::http::credentials::Unauthorized;
use crate::services::http::listener::Guarded;
use crate::services::http::metrics::ServerMetrics;
use crate::services::http::options::HttpOptions;
use crate::services::http::service::{HttpContext, serve};
use crate::services::http::tls::HandshakeFailures;

/// What the stream holds of a response that is not read: less than a scrape.
const ROOM: usize = 256;
const LIMITS: Limits = Limits { connections: 8, scraping: 6, scrapes: 2, ..Limits::DEFAULT };

/// Accepts the streams that a test connects.
struct Streams(Mutex<mpsc::UnboundedReceiver<DuplexStream>>);

impl Listener for Streams {
    type Stream = DuplexStream;

    async fn accept(&self) -> io::Result<DuplexStream> {
        match self.0.lock().await.recv().await {
            Some(stream) => Ok(stream),
            None => std::future::pending().await,
        }
    }
}

impl Guarded for DuplexStream {
    fn access(&self) -> Access {
        Access::new(HttpOptions { agent_metrics: AgentMetrics::All, ..HttpOptions::default() }.into())
    }
}

/// A server on the paused clock.
struct Server(mpsc::UnboundedSender<DuplexStream>);

impl Server {
    fn start() -> Self {
        let (connect, streams) = mpsc::unbounded_channel();
        let (queries, mut asked) = mpsc::channel(16);
        let registry = Registry::for_test();
        let site = HttpContext {
            queries,
            metrics: ServerMetrics::new(&registry, KernelDrops::new(&registry, Probes::default())),
            handshake_failures: HandshakeFailures::new(&registry),
            unauthorized: Unauthorized::new(&registry),
            clock: Clock::start(),
            faults: Faults::new(&registry),
            log_lines_dropped: || 0,
        };
        tokio::spawn(async move {
            while let Some(query) = asked.recv().await {
                match query {
                    Query::Ping(answer) => _ = answer.send(()),
                    Query::StartRows { which, answer } => {
                        _ = answer.send(Box::new(AgentRows::new(which, "host", 0.0)));
                    }
                    Query::AddRows { rows, answer, .. } => _ = answer.send(Slice { rows, next: None }),
                    other => unreachable!("{other:?}"),
                }
            }
        });
        tokio::spawn(serve(Streams(Mutex::new(streams)), site, LIMITS, CancellationToken::new()));
        Server(connect)
    }

    fn connect(&self) -> DuplexStream {
        let (client, server) = duplex(ROOM);
        self.0.send(server).unwrap();
        client
    }

    /// A client that has asked for a path, and reads nothing.
    async fn ask(&self, path: &str) -> DuplexStream {
        let mut client = self.connect();
        client.write_all(format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes()).await.unwrap();
        client
    }

    /// The answer to a client that reads at once, and how long it has taken.
    async fn get(&self, path: &str) -> (String, Duration) {
        let begin = Instant::now();
        let mut answer = String::new();
        self.ask(path).await.read_to_string(&mut answer).await.unwrap();
        (answer, begin.elapsed())
    }
}

fn is_whole(answer: &str) -> bool {
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
    head.starts_with("HTTP/1.1 200 ") && length.parse() == Ok(body.len())
}

#[tokio::test(start_paused = true)]
async fn who_does_not_read_is_cut_off_when_another_wants_its_place_and_after_a_while_in_any_case() {
    let server = Server::start();
    let begin = Instant::now();
    let mut unread = server.ask("/metrics").await;
    let mut unread_too = server.ask("/metrics").await;
    let (answer, waited) = server.get("/metrics").await;
    assert!(is_whole(&answer));
    assert!(waited <= 2 * LIMITS.stalled_within_if_wanted, "{waited:?}");
    // The next that reads nothing has its place for as long as nobody wants it.
    let mut alone = server.ask("/metrics").await;
    sleep(LIMITS.stalled_within * 2).await;
    for stream in [&mut unread, &mut unread_too, &mut alone] {
        let mut rest = String::new();
        stream.read_to_string(&mut rest).await.unwrap();
        assert!(!is_whole(&rest), "{rest}");
    }
    assert!(begin.elapsed() >= LIMITS.stalled_within);
}

#[tokio::test(start_paused = true)]
async fn a_compressed_scrape_that_nobody_reads_keeps_its_place_as_long_as_any_other() {
    let server = Server::start();
    let mut unread = Vec::new();
    for _ in 0..LIMITS.scrapes {
        let mut client = server.connect();
        let request = b"GET /metrics HTTP/1.1\r\nHost: x\r\nAccept-Encoding: gzip\r\n\r\n";
        client.write_all(request).await.unwrap();
        unread.push(client);
    }
    let (answer, waited) = server.get("/metrics").await;
    assert!(is_whole(&answer));
    assert!(waited >= LIMITS.stalled_within_if_wanted, "{waited:?}");
    assert!(waited <= 2 * LIMITS.stalled_within_if_wanted, "{waited:?}");
    let mut rest = Vec::new();
    unread[0].read_to_end(&mut rest).await.unwrap();
    assert!(!rest.ends_with(b"0\r\n\r\n"), "it was cut off");
}

#[tokio::test(start_paused = true)]
async fn who_reads_slowly_gets_all_of_it_however_long_that_takes() {
    let server = Server::start();
    let begin = Instant::now();
    let mut slow = server.ask("/metrics").await;
    let mut answer = Vec::new();
    let mut piece = [0; ROOM];
    loop {
        sleep(LIMITS.stalled_within - Duration::from_secs(1)).await;
        let length = slow.read(&mut piece).await.unwrap();
        if length == 0 {
            break;
        }
        answer.extend_from_slice(&piece[..length]);
    }
    assert!(is_whole(&String::from_utf8(answer).unwrap()));
    assert!(begin.elapsed() > LIMITS.stalled_within * 5);
}

#[tokio::test(start_paused = true)]
async fn clients_that_say_nothing_make_room_for_those_that_do_without_any_wait() {
    let server = Server::start();
    let mut silent: Vec<_> = (0..10 * LIMITS.connections).map(|_| server.connect()).collect();
    for path in ["/healthz", "/readyz", "/metrics"] {
        let (answer, waited) = server.get(path).await;
        assert!(is_whole(&answer), "{path}: {answer}");
        assert_eq!(waited, Duration::ZERO, "{path}");
    }
    // The oldest have gone, and those that came last are still there.
    let mut nothing = String::new();
    silent[0].read_to_string(&mut nothing).await.unwrap();
    assert_eq!(nothing, "");
    let last = silent.last_mut().unwrap();
    last.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    last.read_to_string(&mut answer).await.unwrap();
    assert!(is_whole(&answer), "{answer}");
}

#[tokio::test(start_paused = true)]
async fn scrapes_leave_connections_for_the_health_of_the_server() {
    let server = Server::start();
    let mut unread = Vec::new();
    for _ in 0..LIMITS.scraping {
        unread.push(server.ask("/metrics").await);
        tokio::task::yield_now().await;
    }
    let (healthy, waited) = server.get("/healthz").await;
    assert!(is_whole(&healthy) && waited == Duration::ZERO, "{healthy} after {waited:?}");
    let (one_more, waited) = server.get("/metrics").await;
    assert!(one_more.starts_with("HTTP/1.1 503 ") && waited == Duration::ZERO, "{waited:?} {one_more}");
    assert!(one_more.ends_with("too many scrapes at once\n"), "{one_more}");
}
