//! A small HTTP server that records what it is sent, and answers as a test wants it to.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use serde_json::Value;

use crate::retry::{LIMIT, or_fail, wait_for};

/// The longest request that is of interest.
const LONGEST: usize = 64 << 20;

/// A request that came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Such as `POST /hook HTTP/1.1`.
    pub line: String,
    /// Names, in lower case, and values.
    pub headers: Vec<(String, String)>,
    /// The body as text.
    pub body: String,
}

impl Request {
    /// The value of the header with this name, in lower case.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
    }

    /// The body as JSON.
    #[must_use]
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error} in {}", self.body))
    }
}

/// How a request is answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// With this, as it stands.
    Text(String),
    /// Not at all, as long as the receiver runs.
    Never,
}

impl Reply {
    /// With a status, further header lines, each with its end, and a body.
    #[must_use]
    pub fn status(status: u16, headers: &str, body: &str) -> Self {
        let length = body.len();
        Reply::Text(format!(
            "HTTP/1.1 {status} Answer\r\nContent-Length: {length}\r\nConnection: close\r\n{headers}\r\n{body}"
        ))
    }
}

#[derive(Debug, Default)]
struct Shared {
    requests: Vec<Request>,
    /// For the next requests, in order; then they are taken.
    replies: Vec<Reply>,
    connections: Vec<TcpStream>,
    is_over: bool,
}

/// It runs until it is dropped.
#[derive(Debug)]
pub struct Receiver {
    address: SocketAddr,
    shared: Arc<Mutex<Shared>>,
    accepts: Option<JoinHandle<()>>,
}

impl Receiver {
    /// Starts one on a port that the kernel picks, with the answers to the first requests. All others are
    /// taken.
    #[must_use]
    pub fn start(replies: impl IntoIterator<Item = Reply>) -> Self {
        Self::start_at(SocketAddr::from(([127, 0, 0, 1], 0)), replies)
    }

    /// Starts one where one was before.
    #[must_use]
    pub fn start_at(address: SocketAddr, replies: impl IntoIterator<Item = Reply>) -> Self {
        let listener = TcpListener::bind(address).unwrap_or_else(|error| panic!("{address}: {error}"));
        let address = listener.local_addr().expect("it is bound");
        let replies = replies.into_iter().collect();
        let shared = Arc::new(Mutex::new(Shared { replies, ..Shared::default() }));
        let accepted = Arc::clone(&shared);
        let accepts = thread::spawn(move || accept(&listener, &accepted));
        Receiver { address, shared, accepts: Some(accepts) }
    }

    /// An address at which no program listens now. Its host part is of this process alone, so that no other
    /// process gets the port meanwhile.
    #[must_use]
    pub fn nowhere() -> SocketAddr {
        let [_, high, middle, low] = std::process::id().to_be_bytes();
        Receiver::start_at(SocketAddr::from(([127, 64 | high, middle, low], 0)), []).address
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The URL of a path there.
    #[must_use]
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// All requests up to now.
    #[must_use]
    pub fn requests(&self) -> Vec<Request> {
        lock(&self.shared).requests.clone()
    }

    /// Waits until there are at least so many requests.
    #[track_caller]
    pub fn await_requests(&self, count: usize) -> Vec<Request> {
        self.await_that(&format!("{count} requests"), |requests| requests.len() >= count)
    }

    /// Waits until the requests are as expected; `what` is the condition in words.
    #[track_caller]
    pub fn await_that(&self, what: &str, expected: impl Fn(&[Request]) -> bool) -> Vec<Request> {
        let found = wait_for(|| Some(self.requests()).filter(|requests| expected(requests)));
        or_fail(
            found.ok_or_else(|| format!("not within {LIMIT:?}: {what}; there came {:#?}", self.requests())),
        )
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        let connections = {
            let mut shared = lock(&self.shared);
            shared.is_over = true;
            std::mem::take(&mut shared.connections)
        };
        for connection in connections {
            // It may be over already.
            let _ = connection.shutdown(Shutdown::Both);
        }
        // A word to the thread that waits for the next connection.
        let _ = TcpStream::connect(self.address);
        if let Some(accepts) = self.accepts.take() {
            let _ = accepts.join();
        }
    }
}

fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

fn accept(listener: &TcpListener, shared: &Arc<Mutex<Shared>>) {
    for stream in listener.incoming().map_while(Result::ok) {
        let shared = Arc::clone(shared);
        {
            let mut shared = lock(&shared);
            if shared.is_over {
                return;
            }
            shared.connections.extend(stream.try_clone());
        }
        thread::spawn(move || serve(stream, &shared));
    }
}

/// Serves one request of a connection.
fn serve(mut stream: TcpStream, shared: &Mutex<Shared>) {
    let Some(request) = read(&stream) else { return };
    let reply = {
        let mut shared = lock(shared);
        shared.requests.push(request);
        if shared.replies.is_empty() { Reply::status(200, "", "") } else { shared.replies.remove(0) }
    };
    match reply {
        // The client may have hung up.
        Reply::Text(answer) => _ = stream.write_all(answer.as_bytes()),
        // Until the other side, or the receiver's end, closes it.
        Reply::Never => _ = stream.read(&mut [0]),
    }
}

fn read(stream: &TcpStream) -> Option<Request> {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let mut headers = Vec::new();
    loop {
        let mut header = String::new();
        reader.read_line(&mut header).ok()?;
        let Some((name, value)) = header.trim_end().split_once(": ") else { break };
        headers.push((name.to_lowercase(), value.to_owned()));
    }
    let length = headers.iter().find(|(name, _)| name == "content-length")?.1.parse().ok()?;
    let mut body = vec![0; Some(length).filter(|length| *length <= LONGEST)?];
    reader.read_exact(&mut body).ok()?;
    Some(Request { line: line.trim_end().to_owned(), headers, body: String::from_utf8(body).ok()? })
}
