//! Sends reports to the socket of a server, for a bounded time.

use std::io::{self, Read, Write};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use nix::unistd::geteuid;
use ring::rand::{SecureRandom, SystemRandom};
use socket2::{Domain, SockAddr, Socket, Type};
use varta_proto::address::{MAX_CHECK_ANSWER_LEN, candidate_socket_paths, check_socket_path};
use varta_proto::control::{AgentName, MAX_CONTROL_LEN, Report, ReportEvent};

use crate::base::clock::Clock;
use crate::base::error::Error;

/// The longest time in which a server that restarts, or whose queue is full, is waited for.
const WITHIN: Duration = Duration::from_secs(5);
/// The pause before it is tried again.
const PAUSE: Duration = Duration::from_millis(50);
/// How long the server may take to say whether it takes the report. It does at once, unless it hangs.
const ADMISSION_WITHIN: Duration = Duration::from_millis(500);
/// A process that is the first of its container may not say so; a number with this bit is no pid.
const NOT_A_PID: u32 = 1 << 31;

/// Sends reports to one server.
#[derive(Debug)]
pub(crate) struct ReportSender {
    path: PathBuf,
}

/// Why a server does not have a report.
#[derive(Debug, thiserror::Error)]
pub(super) enum SendFault {
    /// Nobody took it.
    #[error("no server takes the report: {0}; start one, or name its socket with --socket")]
    NotSent(io::Error),
    /// This process may not open the socket.
    #[error(
        "this user may not open the server's socket; start the server with a --socket-mode or a --socket-group that \
         lets it, and with --allow-uid or --allow-gid"
    )]
    NotPermitted,
    /// The server has refused it.
    #[error("the server refuses the report: {0}")]
    Refused(String),
}

impl ReportSender {
    /// For the server at the path that is given, else at the first usual one at which there is something, else at the
    /// first.
    pub(crate) fn new(given: Option<&PathBuf>) -> Self {
        let usual = || {
            let paths = candidate_socket_paths(geteuid().as_raw());
            let found = paths.iter().find(|path| path.symlink_metadata().is_ok());
            found.or(paths.first()).cloned().unwrap_or_default()
        };
        ReportSender { path: given.cloned().unwrap_or_else(usual) }
    }

    /// Where the server's socket is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// A report of this process.
    ///
    /// # Errors
    ///
    /// The system gives no random numbers.
    pub(crate) fn report<'a>(&self, name: &'a AgentName, event: ReportEvent) -> Result<Report<'a>, Error> {
        let mut session = [0; 16];
        SystemRandom::new().fill(&mut session).map_err(|_| Error::Runtime {
            action: "make up the number of a report",
            source: io::Error::other("the system has no random numbers"),
        })?;
        let [a, b, c, d, ..] = session;
        let pid = match std::process::id() {
            1 => NOT_A_PID | u32::from_le_bytes([a, b, c, d]),
            pid => pid,
        };
        Ok(Report::new(pid, session, name, event))
    }

    /// Sends a report. It waits a few seconds for a server that is not there, or whose queue is full.
    ///
    /// # Errors
    ///
    /// See [`SendFault`].
    pub(super) fn send(&self, report: &Report<'_>) -> Result<(), SendFault> {
        let mut out = [0; MAX_CONTROL_LEN];
        let datagram = report.encode(&mut out);
        let begun = Clock::monotonic_now();
        loop {
            let left = WITHIN.saturating_sub(Clock::monotonic_now().saturating_sub(begun));
            match send(&self.path, &datagram, left.max(PAUSE)) {
                Ok(()) => break,
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                    return Err(SendFault::NotPermitted);
                }
                Err(source) if left.is_zero() || !may_pass(&source) => {
                    return Err(SendFault::NotSent(source));
                }
                Err(_) => thread::sleep(PAUSE.min(left)),
            }
        }
        match ask(&self.path, &datagram) {
            Ok(Some(answer)) => Err(SendFault::Refused(answer)),
            // Nobody can say. A server that is older than the question does not answer.
            Ok(None) | Err(_) => Ok(()),
        }
    }
}

impl ReportSender {
    /// Sends a report without waiting. Whether a server has it.
    pub(crate) fn try_send(&self, report: &Report<'_>) -> bool {
        let mut out = [0; MAX_CONTROL_LEN];
        let datagram = report.encode(&mut out);
        let sent = UnixDatagram::unbound().and_then(|socket| {
            socket.set_nonblocking(true)?;
            socket.send_to(&datagram, &self.path)
        });
        sent.is_ok()
    }
}

/// Whether a server may come, or come again.
fn may_pass(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::WouldBlock
            | io::ErrorKind::TimedOut
            | io::ErrorKind::Interrupted
    )
}

fn send(path: &Path, datagram: &[u8], within: Duration) -> io::Result<()> {
    let socket = UnixDatagram::unbound()?;
    socket.set_write_timeout(Some(within))?;
    socket.send_to(datagram, path).map(drop)
}

/// Asks the server whether it takes such a datagram of this process. What it answers if not.
fn ask(path: &Path, datagram: &[u8]) -> io::Result<Option<String>> {
    let socket = Socket::new(Domain::UNIX, Type::SEQPACKET, None)?;
    socket.set_write_timeout(Some(ADMISSION_WITHIN))?;
    socket.set_read_timeout(Some(ADMISSION_WITHIN))?;
    socket.connect(&SockAddr::unix(check_socket_path(path))?)?;
    let mut stream = UnixStream::from(std::os::fd::OwnedFd::from(socket));
    stream.write_all(datagram)?;
    let mut answer = [0; MAX_CHECK_ANSWER_LEN];
    let length = stream.read(&mut answer)?;
    let answer = String::from_utf8_lossy(&answer[..length]);
    Ok(answer.strip_prefix("refused ").map(|why| why.escape_debug().to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_arrives_as_it_is_and_no_check_socket_is_needed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("varta.sock");
        let sender = ReportSender::new(Some(&path));
        let name = AgentName::parse("backup").unwrap();
        let server = UnixDatagram::bind(&path).unwrap();
        let report = sender.report(&name, ReportEvent::Started).unwrap();
        sender.send(&report).unwrap();
        let mut received = [0; MAX_CONTROL_LEN];
        let length = server.recv(&mut received).unwrap();
        assert_eq!(received[..length], *report.encode(&mut [0; MAX_CONTROL_LEN]));
    }

    #[test]
    fn what_cannot_become_a_socket_is_not_waited_for() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("file");
        std::fs::write(&file, "").unwrap();
        let sender = ReportSender::new(Some(&file.join("varta.sock")));
        let name = AgentName::parse("backup").unwrap();
        let report = sender.report(&name, ReportEvent::Beat).unwrap();
        let begun = Clock::monotonic_now();
        let fault = sender.send(&report).unwrap_err();
        assert!(matches!(fault, SendFault::NotSent(_) | SendFault::NotPermitted), "{fault}");
        assert!(Clock::monotonic_now() - begun < WITHIN, "{fault}");
    }
}
