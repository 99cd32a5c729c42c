//! Server-sent events, as the section of that name of the HTML Living Standard has them.

use std::io::{self, BufRead, BufReader, Read};
use std::time::Duration;

use serde_json::Value;
use socket2::Socket;

/// The longest line in bytes.
const MAX_LINE_LEN: u64 = 1 << 20;
/// The longest time without a line: three of the server's signs of life.
const QUIET: Duration = Duration::from_secs(45);

/// An event of the stream.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct StreamEvent {
    /// What it is: `hello`, `change`, `forgotten`, `resync`.
    pub(crate) kind: String,
    /// Its document.
    pub(crate) data: Value,
}

/// The stream of changes on one connection.
#[derive(Debug)]
pub(crate) struct EventStream<R: Read = Socket> {
    reader: BufReader<R>,
    /// The revision up to which everything has come.
    last: Option<String>,
    /// What has come of the present line, which a wait that is over leaves as it is.
    line: Vec<u8>,
    /// What has come of the present event.
    kind: String,
    data: String,
    id: Option<String>,
}

impl EventStream {
    /// The next event, waited for until this time has passed: `None` then. A stream that ends, or has no sign of life
    /// for too long, is an error.
    ///
    /// # Errors
    ///
    /// The stream is over.
    pub(crate) fn next_within(&mut self, most: Option<Duration>) -> io::Result<Option<StreamEvent>> {
        let patience = most.map_or(QUIET, |most| most.min(QUIET)).max(Duration::from_millis(1));
        self.reader.get_ref().set_read_timeout(Some(patience))?;
        match self.next() {
            Err(error)
                if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
                    && patience < QUIET =>
            {
                Ok(None)
            }
            next => next.map(Some),
        }
    }
}

impl<R: Read> EventStream<R> {
    pub(super) fn new(reader: BufReader<R>) -> Self {
        let (line, kind, data) = (Vec::new(), String::new(), String::new());
        EventStream { reader, last: None, line, kind, data, id: None }
    }

    /// The revision up to which everything has come; `None` before the first.
    pub(crate) fn last(&self) -> Option<&str> {
        self.last.as_deref()
    }

    /// The next event.
    fn next(&mut self) -> io::Result<StreamEvent> {
        loop {
            let room = MAX_LINE_LEN.saturating_sub(self.line.len() as u64);
            self.reader.by_ref().take(room).read_until(b'\n', &mut self.line)?;
            if !self.line.ends_with(b"\n") {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let line = std::mem::take(&mut self.line);
            let line = String::from_utf8_lossy(&line);
            let line = line.trim_end_matches(['\n', '\r']);
            let (field, value) = line.split_once(':').unwrap_or((line, ""));
            let value = value.strip_prefix(' ').unwrap_or(value);
            match field {
                "" if line.is_empty() => {
                    self.last = self.id.take().or(self.last.take());
                    let (kind, data) = (std::mem::take(&mut self.kind), std::mem::take(&mut self.data));
                    if !data.is_empty() {
                        let data = serde_json::from_str(&data).map_err(io::Error::other)?;
                        return Ok(StreamEvent { kind, data });
                    }
                }
                "event" => value.clone_into(&mut self.kind),
                "data" if self.data.len() as u64 + value.len() as u64 > MAX_LINE_LEN => {
                    return Err(io::Error::other("an event is too long"));
                }
                "data" => self.data.push_str(value),
                "id" => self.id = Some(value.to_owned()),
                // Comments, and what is not known here.
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream(text: &str) -> EventStream<&[u8]> {
        EventStream::new(BufReader::new(text.as_bytes()))
    }

    #[test]
    fn events_come_one_after_the_other_with_the_revision_that_each_reaches() {
        let mut stream = stream(
            "id: a-1\nevent: hello\ndata: {\"host\":\"h\"}\n\nid: a-2\n:\n\nevent: resync\ndata: {}\n\nid: a-3\nevent: ch",
        );
        let hello = stream.next().unwrap();
        assert_eq!((hello.kind.as_str(), &hello.data["host"]), ("hello", &"h".into()));
        assert_eq!(stream.last(), Some("a-1"));
        assert_eq!(stream.next().unwrap().kind, "resync");
        assert_eq!(stream.last(), Some("a-2"), "a sign of life moves it");
        assert_eq!(stream.next().unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        assert_eq!(stream.last(), Some("a-2"), "what did not come whole has not come");
    }

    #[test]
    fn what_has_come_of_an_event_is_kept_while_the_rest_is_waited_for() {
        let (mut server, client) = std::os::unix::net::UnixStream::pair().unwrap();
        let mut stream = EventStream::new(BufReader::new(Socket::from(client)));
        let mut next = |text: &str| {
            io::Write::write_all(&mut server, text.as_bytes()).unwrap();
            stream.next_within(Some(Duration::from_millis(1))).unwrap().map(|event| event.data)
        };
        assert_eq!(next("id: a-1\nevent: ch"), None);
        assert_eq!(next("ange\ndata: {\"a\""), None);
        assert_eq!(next(":1}\n"), None);
        assert_eq!(next("\n"), Some(serde_json::json!({ "a": 1 })));
    }

    #[test]
    fn an_event_that_is_no_document_and_a_line_without_end_end_the_stream() {
        assert!(stream("data: {\n\n").next().is_err());
        let endless = format!("data: {}", "x".repeat(2 << 20));
        assert!(stream(&endless).next().is_err());
    }
}
