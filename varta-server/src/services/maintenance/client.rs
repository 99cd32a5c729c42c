//! The client of the control socket, for the commands that ask a running server.

use std::io::{self, Read, Write};
use std::path::Path;
use std::time::Duration;

use nix::sys::socket::getsockopt;
use nix::sys::socket::sockopt::PeerCredentials;
use socket2::{Domain, SockAddr, Socket, Type};

use crate::base::error::Error;
use crate::base::visible::visible_lines;
use crate::services::maintenance::protocol::{MAX_RESPONSE_LEN, Request, Response, ResponseStatus};

/// The timeout of the connection and of the response: longer than the server's own limits together, slow disk
/// included.
const PATIENCE: Duration = Duration::from_secs(10);
/// The same for a reload, for which names of hosts may be looked up: the server gives that up earlier.
const PATIENCE_WITH_RELOAD: Duration = Duration::from_secs(60);

/// Sends a request to the server behind this socket, and returns its response.
///
/// # Errors
///
/// [`Error::File`], of the socket, when there is no answer, or one from a process of another user; and when
/// the server refused the request, with its reason.
pub(crate) fn send_request(path: &Path, request: &Request) -> Result<Response, Error> {
    send_request_within(path, request, patience(request))
}

/// The same, and waits so long for the response.
///
/// # Errors
///
/// As for [`send_request`].
pub(crate) fn send_request_within(
    path: &Path,
    request: &Request,
    patience: Duration,
) -> Result<Response, Error> {
    let failed = |fault: String| Error::file(path, fault);
    let socket = connect_to_server(path, patience)?;
    let answer = exchange(&socket, request).map_err(|error| {
        failed(match error.kind() {
            io::ErrorKind::WouldBlock => unanswered(request, patience),
            _ => format!("the server does not answer: {error}"),
        })
    })?;
    let answer = Response::parse(&answer).map_err(|fault| {
        failed(format!("the answer makes no sense: {fault}; is this the server's version?"))
    })?;
    match answer.outcome {
        ResponseStatus::Ok => Ok(answer),
        ResponseStatus::Refused | ResponseStatus::Malformed => {
            let word =
                answer.word.unwrap_or_else(|| "it was not done, and the server does not say why".to_owned());
            Err(failed(visible_lines(&word)))
        }
    }
}

/// Connects to the server behind this socket. What is written and read times out after `patience`.
///
/// # Errors
///
/// [`Error::File`], of the socket, when nobody is there, or a process of another user.
pub(crate) fn connect_to_server(path: &Path, patience: Duration) -> Result<Socket, Error> {
    let failed = |fault: String| Error::file(path, fault);
    let socket = connect(path, patience.min(PATIENCE)).map_err(|error| failed(no_connection(&error)))?;
    let peer = getsockopt(&socket, PeerCredentials)
        .map_err(|error| failed(format!("the kernel does not say who answers here: {error}")))?;
    let us = nix::unistd::geteuid().as_raw();
    if us != 0 && peer.uid() != us {
        let fault =
            format!("uid {} answers here, who is not to be believed; see --control-socket", peer.uid());
        return Err(failed(fault));
    }
    let timed_out = |error| failed(no_connection(&error));
    socket.set_read_timeout(Some(patience)).map_err(timed_out)?;
    Ok(socket)
}

fn connect(path: &Path, patience: Duration) -> io::Result<Socket> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    // The write timeout covers `connect` as well, which blocks on the full queue of a server that hangs.
    socket.set_write_timeout(Some(patience))?;
    socket.connect(&SockAddr::unix(path)?)?;
    Ok(socket)
}

fn no_connection(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => format!(
            "no server answers here: {error}; start it, or say where it is with --control-socket, or with --socket where \
             its own socket is"
        ),
        io::ErrorKind::PermissionDenied => {
            format!("cannot be opened: {error}; only the server's user and root may ask it for something")
        }
        io::ErrorKind::WouldBlock => format!("the server has not taken a connection for {PATIENCE:?}"),
        _ => format!("cannot connect: {error}; see --control-socket"),
    }
}

/// How long an answer is waited for.
const fn patience(request: &Request) -> Duration {
    match request {
        Request::Reload => PATIENCE_WITH_RELOAD,
        _ => PATIENCE,
    }
}

/// What is said when none has come.
fn unanswered(request: &Request, patience: Duration) -> String {
    match request {
        Request::Reload => format!(
            "the server has not answered for {patience:?}: whether the files count is not known, and its log will say"
        ),
        _ => format!("the server has not answered for {patience:?}: whether it has done this is not known"),
    }
}

fn exchange(mut socket: &Socket, request: &Request) -> io::Result<Vec<u8>> {
    // A server that refuses does not read the request, and its response can still be read after the write has
    // failed.
    let sent = socket.write_all(request.to_line().as_bytes());
    let mut answer = Vec::new();
    let most = MAX_RESPONSE_LEN as u64;
    let read = socket.take(most + 1).read_to_end(&mut answer);
    if answer.len() as u64 > most {
        return Err(io::Error::other(format!("what it says is longer than {most} bytes")));
    }
    if answer.ends_with(b"\n") {
        return Ok(answer);
    }
    read?;
    sent?;
    Err(io::ErrorKind::UnexpectedEof.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_waits_in_vain_is_told_what_is_not_known() {
        let said = unanswered(&Request::Reload, patience(&Request::Reload));
        assert_eq!(
            said,
            "the server has not answered for 60s: whether the files count is not known, and its log will say"
        );
        assert!(patience(&Request::Pauses) < patience(&Request::Reload));
    }
}
