//! Clients that take their time, over streams in memory and on a clock that the test moves.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::sync::{Mutex, Semaphore, mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

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
use crate::services::http::readers::{GRACE, Readers};
use crate::services::http::routes::HttpContext;
use crate::services::http::service::{Ends, serve};
use crate::services::http::sites::Sites;
use crate::services::http::tls::HandshakeFailures;

/// What the stream holds of a response that is not read: less than a scrape.
const ROOM: usize = 256;
const LIMITS: Limits = Limits { connections: 8, scrapes: 2, ..Limits::DEFAULT };

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
struct Server {
    connect: mpsc::UnboundedSender<DuplexStream>,
    /// Changes with each body of a scrape that is begun: their number.
    begun: watch::Receiver<usize>,
    ends: Ends,
    ended: JoinHandle<()>,
}

impl Server {
    fn start() -> Self {
        Server::with_engine(Arc::new(Semaphore::new(Semaphore::MAX_PERMITS)))
    }

    /// The engine answers so many requests for rows as there are permits.
    fn with_engine(permits: Arc<Semaphore>) -> Self {
        let (connect, streams) = mpsc::unbounded_channel();
        let (queries, mut asked) = mpsc::channel(16);
        let registry = Registry::for_test();
        let site = HttpContext {
            queries,
            metrics: ServerMetrics::new(&registry, KernelDrops::new(&registry, Probes::default())),
            handshake_failures: HandshakeFailures::new(&registry),
            unauthorized: Unauthorized::new(&registry),
            readers: Readers::new(&registry),
            clock: Clock::start(),
            faults: Faults::new(&registry),
            host: "host".into(),
            log_lines_dropped: || 0,
        };
        let (begin, begun) = watch::channel(0);
        tokio::spawn(async move {
            while let Some(query) = asked.recv().await {
                match query {
                    Query::Ping(answer) => _ = answer.send(()),
                    Query::StartRows { which, answer } => {
                        begin.send_modify(|count| *count += 1);
                        permits.acquire().await.unwrap().forget();
                        _ = answer.send(Box::new(AgentRows::new(which, "host", 0.0)));
                    }
                    Query::AddRows { rows, answer, .. } => _ = answer.send(Slice { rows, next: None }),
                    other => unreachable!("{other:?}"),
                }
            }
        });
        let ends = Ends {
            stop: CancellationToken::new(),
            is_handed_over: CancellationToken::new(),
            last_answers: TaskTracker::new(),
        };
        let ended =
            tokio::spawn(serve(Streams(Mutex::new(streams)), site, LIMITS, Sites::default(), ends.clone()));
        Server { connect, begun, ends, ended }
    }

    fn connect(&self) -> DuplexStream {
        let (client, server) = duplex(ROOM);
        self.connect.send(server).unwrap();
        client
    }

    /// A client that has asked for a path, and reads nothing.
    async fn ask(&self, path: &str) -> DuplexStream {
        let mut client = self.connect();
        client.write_all(format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes()).await.unwrap();
        client
    }

    /// The same, whose answer has begun.
    async fn ask_and_stall(&self, path: &str) -> DuplexStream {
        let mut client = self.ask(path).await;
        let mut begin = [0; 12];
        client.read_exact(&mut begin).await.unwrap();
        assert_eq!(&begin, b"HTTP/1.1 200");
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
    let Some((head, body)) = answer.split_once("\r\n\r\n") else { return false };
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
    head.starts_with("HTTP/1.1 200 ") && length.parse() == Ok(body.len())
}

/// What comes of an answer that nobody has read until now.
async fn rest(client: &mut DuplexStream) -> String {
    let mut rest = Vec::new();
    client.read_to_end(&mut rest).await.unwrap();
    String::from_utf8_lossy(&rest).into_owned()
}

#[tokio::test(start_paused = true)]
async fn who_does_not_read_is_cut_off_when_another_wants_its_place_and_after_a_while_in_any_case() {
    let server = Server::start();
    let begin = Instant::now();
    let mut unread = server.ask_and_stall("/metrics").await;
    let mut unread_too = server.ask_and_stall("/metrics").await;
    let (answer, waited) = server.get("/metrics").await;
    assert!(is_whole(&answer), "{answer}");
    assert!(waited >= GRACE && waited <= 2 * GRACE, "{waited:?}");
    // The longest stalled, and nobody else.
    assert!(rest(&mut unread).await.len() <= ROOM);
    assert!(begin.elapsed() <= 2 * GRACE);
    sleep(LIMITS.stalled_within * 2).await;
    assert!(rest(&mut unread_too).await.len() <= ROOM);
}

#[tokio::test(start_paused = true)]
async fn a_scrape_is_answered_while_clients_that_read_nothing_hold_all_connections() {
    let server = Server::start();
    let mut unread = Vec::new();
    for _ in 0..8 * LIMITS.connections {
        unread.push(server.ask("/metrics").await);
    }
    for path in ["/metrics", "/healthz", "/readyz", "/metrics"] {
        let (answer, waited) = server.get(path).await;
        assert!(is_whole(&answer), "{path}: {answer}");
        // The first comes last of a crowd that takes all places again and again.
        let turns = if path == "/metrics" { 10 } else { 1 };
        assert!(waited <= GRACE * turns, "{path}: {waited:?}");
        for _ in 0..LIMITS.connections {
            unread.push(server.ask("/metrics").await);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn who_takes_a_little_now_and_then_makes_room_like_who_takes_nothing() {
    let server = Server::start();
    for _ in 0..LIMITS.connections {
        let mut trickle = server.ask_and_stall("/metrics").await;
        tokio::spawn(async move {
            // Until it is cut off, or has all.
            while trickle.read_u8().await.is_ok() {
                sleep(GRACE / 10).await;
            }
        });
    }
    for path in ["/metrics", "/healthz", "/readyz"] {
        let (answer, waited) = server.get(path).await;
        assert!(is_whole(&answer) && waited <= 2 * GRACE, "{path} after {waited:?}: {answer}");
    }
}

#[tokio::test(start_paused = true)]
async fn who_asks_while_a_body_is_made_shares_the_next_with_all_others() {
    let permits = Arc::new(Semaphore::new(0));
    let mut server = Server::with_engine(Arc::clone(&permits));
    let first = server.ask("/metrics").await;
    server.begun.wait_for(|count| *count == 1).await.unwrap();
    // The rows of the first may lack what these have seen already.
    let mut clients = vec![first];
    for _ in 1..LIMITS.connections {
        clients.push(server.ask("/metrics").await);
    }
    sleep(GRACE).await;
    permits.add_permits(2);
    for client in &mut clients {
        assert!(is_whole(&rest(client).await));
    }
    assert_eq!(*server.begun.borrow(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_compressed_scrape_that_nobody_reads_keeps_its_place_as_long_as_any_other() {
    let server = Server::start();
    let mut unread = Vec::new();
    for _ in 0..LIMITS.scrapes {
        let mut client = server.connect();
        let request = b"GET /metrics HTTP/1.1\r\nHost: x\r\nAccept-Encoding: gzip\r\n\r\n";
        client.write_all(request).await.unwrap();
        assert_eq!(client.read_u8().await.unwrap(), b'H');
        unread.push(client);
    }
    let (answer, waited) = server.get("/metrics").await;
    assert!(is_whole(&answer));
    assert!(waited >= GRACE && waited <= 2 * GRACE, "{waited:?}");
    let mut rest = Vec::new();
    unread[0].read_to_end(&mut rest).await.unwrap();
    assert!(rest.len() <= ROOM, "it was not cut off");
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
async fn who_was_accepted_before_a_hand_over_is_answered_after_it_and_who_comes_then_waits() {
    let permits = Arc::new(Semaphore::new(0));
    let server = Server::with_engine(Arc::clone(&permits));
    let mut waits_for_its_body = server.ask("/metrics").await;
    let mut has_not_asked = server.connect();
    has_not_asked.write_all(b"GET /readyz HTTP/1.1\r\n").await.unwrap();
    let mut begun = server.begun.clone();
    begun.wait_for(|count| *count == 1).await.unwrap();

    server.ends.is_handed_over.cancel();
    // Services that end do not wait for it.
    server.ended.await.unwrap();
    server.ends.stop.cancel();
    permits.add_permits(1);
    has_not_asked.write_all(b"Host: x\r\n\r\n").await.unwrap();
    assert!(is_whole(&rest(&mut waits_for_its_body).await));
    assert!(is_whole(&rest(&mut has_not_asked).await));
    server.ends.last_answers.close();
    server.ends.last_answers.wait().await;

    let (mut client, stream) = duplex(ROOM);
    server.connect.send(stream).unwrap_err();
    client.write_all(b"GET ").await.unwrap_err();
}

#[tokio::test(start_paused = true)]
async fn at_a_stop_who_has_asked_is_answered_and_who_has_not_holds_nothing_up() {
    let permits = Arc::new(Semaphore::new(0));
    let server = Server::with_engine(Arc::clone(&permits));
    let mut asked = server.ask("/metrics").await;
    let mut has_not_asked = server.connect();
    let mut begun = server.begun.clone();
    begun.wait_for(|count| *count == 1).await.unwrap();
    let begin = Instant::now();
    server.ends.stop.cancel();
    assert_eq!(rest(&mut has_not_asked).await, "");
    permits.add_permits(1);
    assert!(is_whole(&rest(&mut asked).await));
    server.ended.await.unwrap();
    assert_eq!(begin.elapsed(), Duration::ZERO);
}
