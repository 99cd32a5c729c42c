//! A minimal HTTP client, so that what comes over the wire is seen as it is.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};

use crate::retry::LIMIT;

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// The status code.
    pub status: u16,
    /// Names, in lower case, and values, in the order in which they came.
    pub headers: Vec<(String, String)>,
    /// The body as text.
    pub body: String,
}

impl Response {
    /// The value of the header with this name, in lower case.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
    }
}

/// Asks for a path, with headers beyond those that a request must have.
///
/// # Errors
///
/// The error of the connection, and `InvalidData` for an answer that is not HTTP.
pub fn get(address: SocketAddr, path: &str, headers: &[(&str, &str)]) -> io::Result<Response> {
    let headers: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    ask(address, &format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n{headers}\r\n"))
}

/// Posts JSON to a path.
///
/// # Errors
///
/// As of [`get`].
pub fn post_json(address: SocketAddr, path: &str, body: &str) -> io::Result<Response> {
    let length = body.len();
    let headers =
        format!("Connection: close\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n");
    ask(address, &format!("POST {path} HTTP/1.1\r\nHost: {address}\r\n{headers}\r\n{body}"))
}

fn ask(address: SocketAddr, request: &str) -> io::Result<Response> {
    let mut stream = connect(address)?;
    stream.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    parse(&answer).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "this is not an answer"))
}

/// Connects, and sends nothing.
///
/// # Errors
///
/// The error of the kernel.
pub fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&address, LIMIT)?;
    stream.set_read_timeout(Some(LIMIT))?;
    stream.set_write_timeout(Some(LIMIT))?;
    Ok(stream)
}

fn parse(answer: &[u8]) -> Option<Response> {
    let answer = std::str::from_utf8(answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let mut lines = head.split("\r\n");
    let (version, status) = lines.next()?.split_once(' ')?;
    let status = status.get(..3).filter(|_| version.starts_with("HTTP/1."))?.parse().ok()?;
    let headers: Option<Vec<_>> = lines
        .map(|line| line.split_once(": ").map(|(name, value)| (name.to_lowercase(), value.to_owned())))
        .collect();
    let response = Response { status, headers: headers?, body: body.to_owned() };
    // A body that was cut short must not pass for a whole one.
    let promised = response.header("content-length").map(str::parse::<usize>);
    match promised {
        Some(Ok(length)) if length != response.body.len() => None,
        Some(Err(_)) => None,
        _ => Some(response),
    }
}
