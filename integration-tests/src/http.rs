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
    /// The body as text; empty where it is none.
    pub body: String,
    /// The body as it came.
    pub bytes: Vec<u8>,
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
    get_over(&mut connect(address)?, address, path, headers)
}

/// As [`get`], over a connection that is there.
///
/// # Errors
///
/// As of [`get`].
pub fn get_over(
    stream: &mut (impl Read + Write),
    address: SocketAddr,
    path: &str,
    headers: &[(&str, &str)],
) -> io::Result<Response> {
    let headers: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let head = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n{headers}\r\n");
    ask_over(stream, &head)
}

/// Asks for the headers that [`get`] would have, which come without a body.
///
/// # Errors
///
/// As of [`get`].
pub fn head(address: SocketAddr, path: &str, headers: &[(&str, &str)]) -> io::Result<Response> {
    let headers: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    ask(address, &format!("HEAD {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n{headers}\r\n"))
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
    ask_over(&mut connect(address)?, request)
}

fn ask_over(stream: &mut (impl Read + Write), request: &str) -> io::Result<Response> {
    stream.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let response = parse(&answer, request.starts_with("HEAD "));
    response.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "this is not an answer"))
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

fn parse(answer: &[u8], is_head: bool) -> Option<Response> {
    let end = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n")?;
    let (head, body) = (std::str::from_utf8(&answer[..end]).ok()?, &answer[end + 4..]);
    let mut lines = head.split("\r\n");
    let (version, status) = lines.next()?.split_once(' ')?;
    let status = status.get(..3).filter(|_| version.starts_with("HTTP/1."))?.parse().ok()?;
    let headers: Option<Vec<_>> = lines
        .map(|line| line.split_once(": ").map(|(name, value)| (name.to_lowercase(), value.to_owned())))
        .collect();
    let mut response = Response { status, headers: headers?, body: String::new(), bytes: Vec::new() };
    if is_head {
        return body.is_empty().then_some(response);
    }
    response.bytes = match response.header("transfer-encoding") {
        Some("chunked") => join_chunks(body)?,
        Some(_) => return None,
        None => body.to_vec(),
    };
    // A body that was cut short must not pass for a whole one.
    if let Some(promised) = response.header("content-length")
        && promised.parse() != Ok(response.bytes.len())
    {
        return None;
    }
    response.body = String::from_utf8(response.bytes.clone()).unwrap_or_default();
    Some(response)
}

/// A body that came in chunks; `None` when the last of them is missing.
fn join_chunks(mut rest: &[u8]) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let end = rest.windows(2).position(|bytes| bytes == b"\r\n")?;
        let length = usize::from_str_radix(std::str::from_utf8(&rest[..end]).ok()?, 16).ok()?;
        let chunk = rest.get(end + 2..)?;
        body.extend_from_slice(chunk.get(..length)?);
        rest = chunk.get(length..)?.strip_prefix(b"\r\n")?;
        if length == 0 {
            return rest.is_empty().then_some(body);
        }
    }
}
