//! A client of the server's HTTP API, by the control socket: one request a connection, as HTTP/1.0, so that a response
//! ends with its connection.

use std::fmt::{self, Write as _};
use std::io::{self, BufRead, BufReader, Read, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;
use socket2::Socket;

use crate::base::error::Error;
use crate::base::visible::visible_text;
use crate::services::follow::stream::EventStream;
use crate::services::maintenance::connect_to_server;

/// How long a response is waited for.
const PATIENCE: Duration = Duration::from_secs(10);
/// The longest body of a response in bytes.
const MAX_BODY_LEN: u64 = 64 << 20;
/// The longest head of a response in bytes.
const MAX_HEAD_LEN: u64 = 16 << 10;

/// Where requests are made.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    path: PathBuf,
}

/// Why there is no answer that says what was asked for.
#[derive(Debug)]
pub(crate) enum ApiError {
    /// The server cannot be reached, or has gone meanwhile.
    Unreachable(Error),
    /// It answered with an error.
    Refused {
        /// The status of HTTP.
        status: u16,
        /// What it says of it.
        detail: String,
    },
    /// The answer makes no sense.
    Senseless(String),
}

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ApiError::Unreachable(error) => error.fmt(f),
            ApiError::Refused { status: 404, detail } if detail.is_empty() => {
                f.write_str("the server does not know what is asked for; is this its version?")
            }
            ApiError::Refused { status, detail } => write!(f, "the server refuses ({status}): {detail}"),
            ApiError::Senseless(fault) => {
                write!(f, "the server's answer makes no sense: {fault}; is this its version?")
            }
        }
    }
}

impl Client {
    /// A client of the server with this control socket.
    pub(crate) fn new(path: PathBuf) -> Self {
        Client { path }
    }

    /// The path of the control socket.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The JSON document behind a path with its query.
    pub(crate) fn get(&self, target: &str) -> Result<Value, ApiError> {
        self.request("GET", target, None)
    }

    /// The answer to a request that may change something, with a JSON document in it.
    pub(crate) fn request(
        &self,
        method: &str,
        target: &str,
        document: Option<&Value>,
    ) -> Result<Value, ApiError> {
        let body = self.exchange(method, target, document)?;
        serde_json::from_slice(&body).map_err(|error| ApiError::Senseless(error.to_string()))
    }

    /// Opens the stream of changes, behind `since` if that is given.
    pub(crate) fn stream(&self, target: &str, since: Option<&str>) -> Result<EventStream, ApiError> {
        let more = since.map(|since| format!("Last-Event-ID: {since}\r\n")).unwrap_or_default();
        let reader = self.open("GET", target, &more, None)?;
        Ok(EventStream::new(reader))
    }

    fn exchange(&self, method: &str, target: &str, document: Option<&Value>) -> Result<Vec<u8>, ApiError> {
        let mut body = Vec::new();
        let reader = self.open(method, target, "", document)?;
        let read = reader.take(MAX_BODY_LEN + 1).read_to_end(&mut body);
        read.map_err(|error| self.gone(&error))?;
        if body.len() as u64 > MAX_BODY_LEN {
            return Err(ApiError::Senseless(format!("it is longer than {MAX_BODY_LEN} bytes")));
        }
        Ok(body)
    }

    /// Sends a request, and reads the head of the response.
    fn open(
        &self,
        method: &str,
        target: &str,
        more: &str,
        document: Option<&Value>,
    ) -> Result<BufReader<Socket>, ApiError> {
        let mut socket = connect_to_server(&self.path, PATIENCE).map_err(ApiError::Unreachable)?;
        let mut text = format!("{method} {target} HTTP/1.0\r\nHost: localhost\r\n{more}");
        let body = document.map(Value::to_string).unwrap_or_default();
        if document.is_some() {
            // Writing to a `String` cannot fail.
            let _ = write!(text, "Content-Type: application/json\r\nContent-Length: {}\r\n", body.len());
        }
        text += "\r\n";
        text += &body;
        socket.write_all(text.as_bytes()).map_err(|error| self.gone(&error))?;
        let mut reader = BufReader::new(socket);
        let status = read_head(&mut reader).map_err(|error| match error {
            HeadError::Io(error) => self.gone(&error),
            HeadError::Senseless(fault) => ApiError::Senseless(fault),
        })?;
        if (200..300).contains(&status) {
            return Ok(reader);
        }
        let mut body = Vec::new();
        // Without its words the status says enough.
        let _ = reader.take(MAX_HEAD_LEN).read_to_end(&mut body);
        let document = serde_json::from_slice::<Value>(&body).unwrap_or_default();
        let detail = visible_text(document["detail"].as_str().unwrap_or_default());
        Err(ApiError::Refused { status, detail })
    }

    fn gone(&self, error: &io::Error) -> ApiError {
        ApiError::Unreachable(Error::file(&self.path, format!("the server does not answer: {error}")))
    }
}

enum HeadError {
    Io(io::Error),
    Senseless(String),
}

/// Reads up to the empty line, and gives the status.
fn read_head(reader: &mut impl BufRead) -> Result<u16, HeadError> {
    let mut head = reader.take(MAX_HEAD_LEN);
    let mut status = None;
    loop {
        let mut line = Vec::new();
        head.read_until(b'\n', &mut line).map_err(HeadError::Io)?;
        if !line.ends_with(b"\n") {
            let error = io::Error::from(io::ErrorKind::UnexpectedEof);
            return Err(match status {
                None if line.is_empty() => HeadError::Io(error),
                _ => HeadError::Senseless("its head does not end".to_owned()),
            });
        }
        match status {
            None => status = Some(parse_status(&line).ok_or_else(no_http)?),
            Some(status) if matches!(&line[..], b"\r\n" | b"\n") => return Ok(status),
            Some(_) => {}
        }
    }
}

fn no_http() -> HeadError {
    HeadError::Senseless("it is not HTTP".to_owned())
}

fn parse_status(line: &[u8]) -> Option<u16> {
    let text = std::str::from_utf8(line).ok()?.strip_prefix("HTTP/1.")?;
    text.split(' ').nth(1)?.trim_end().parse().ok()
}

/// The text as a value in a query.
pub(crate) fn encode(text: &str) -> String {
    let mut encoded = String::new();
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => encoded.push(byte.into()),
            // Writing to a `String` cannot fail.
            _ => _ = write!(encoded, "%{byte:02X}"),
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::services::follow::testing::FakeServer;

    #[test]
    fn an_answer_is_read_to_its_end_and_a_refusal_is_told_in_the_servers_words() {
        let server = FakeServer::start([
            "HTTP/1.0 200 OK\r\ncontent-type: application/json\r\n\r\n{\"a\":1}",
            "HTTP/1.1 400 Bad Request\r\n\r\n{\"detail\":\"limit: \\u001b is no number\"}",
            "HTTP/1.1 404 Not Found\r\n\r\n",
            "nonsense\r\n\r\n",
            "HTTP/1.1 200 OK\r\nwithout: end\r\n",
            "",
        ]);
        let client = Client::new(server.path());
        assert_eq!(client.get("/a?b=c").unwrap()["a"], 1);
        let said = || client.get("/").unwrap_err().to_string();
        assert_eq!(said(), "the server refuses (400): limit: ? is no number");
        assert!(said().contains("is this its version?"));
        assert!(said().contains("it is not HTTP"));
        assert!(said().contains("its head does not end"));
        assert!(said().contains("the server does not answer"));
        assert!(server.requests()[0].starts_with("GET /a?b=c HTTP/1.0\r\nHost: localhost\r\n"));
    }

    #[test]
    fn a_document_is_sent_with_its_length() {
        let server = FakeServer::start(["HTTP/1.0 201 Created\r\n\r\n{}"]);
        let client = Client::new(server.path());
        client.request("POST", "/p", Some(&serde_json::json!({ "for": "1s" }))).unwrap();
        let request = server.requests().remove(0);
        assert!(request.ends_with("Content-Length: 12\r\n\r\n{\"for\":\"1s\"}"), "{request}");
    }

    #[test]
    fn nobody_at_the_socket_is_told_as_such() {
        let client = Client::new("/nowhere/varta.sock.control".into());
        assert!(matches!(client.get("/"), Err(ApiError::Unreachable(_))));
    }

    #[test]
    fn a_value_keeps_its_meaning_in_a_query() {
        assert_eq!(encode("web-*&a=b \u{e9}"), "web-%2A%26a%3Db%20%C3%A9");
    }
}
