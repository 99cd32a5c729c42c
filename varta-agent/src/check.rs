//! Asks the server whether it takes the beats of this process: a beat that is refused is sent all the same.

use std::io::{self, Read};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::str;
use std::thread;
use std::time::{Duration, Instant};

use varta_proto::address::{MAX_CHECK_ANSWER_LEN, check_socket_path};
use varta_proto::{Frame, Status};

use crate::fork::ProcessLife;
use crate::sys;
use crate::time::MAX_DURATION;

/// The pause before the server is asked again that had no time for an answer.
const PAUSE: Duration = Duration::from_millis(5);

/// Whether a server takes the beats of this process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Admission {
    /// It does.
    Accepted,
    /// It does not.
    Refused {
        /// The reason, as in the server's metric `varta_frames_total`: `uid_refused` for a user who is not
        /// allowed. It is `no_permission` where this process may not open the server's socket.
        reason: String,
        /// What is wrong and what its operator can do, in English.
        advice: String,
    },
    /// Nobody can say: there is no server, it is older than the question, or the handle does not send to a
    /// Unix socket.
    #[default]
    Unknown,
}

/// A question that has been sent.
#[derive(Debug)]
pub(crate) struct Question(UnixStream);

impl Question {
    /// Asks the server whose socket is at `server`, without waiting; gives the answer if it is known at once,
    /// because there is no check socket or this process may not open it.
    pub(crate) fn ask(server: &Path) -> io::Result<Result<Self, Admission>> {
        let stream = match sys::connect_packets(&check_socket_path(server)) {
            Ok(stream) => stream,
            Err(error) if is_missing(&error) => return Ok(Err(Admission::Unknown)),
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                return Ok(Err(no_permission(server)));
            }
            Err(error) => return Err(error),
        };
        let frame = Frame::new(Status::Ok, ProcessLife::current().pid(), 0, 1, 0);
        sys::send_now(&stream, &frame.to_bytes())?;
        Ok(Ok(Self(stream)))
    }

    /// Reads the answer: `WouldBlock` while there is none.
    pub(crate) fn read_answer(&self) -> io::Result<Admission> {
        // One byte more than allowed detects a longer answer.
        let mut answer = [0; MAX_CHECK_ANSWER_LEN + 1];
        let length = (&self.0).read(&mut answer)?;
        if length == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        parse(&answer[..length]).ok_or_else(|| {
            io::Error::new(io::ErrorKind::InvalidData, "the answer on the check socket makes no sense")
        })
    }
}

#[cfg(test)]
#[cfg(all(feature = "tokio", target_os = "linux"))]
impl Question {
    /// Waits until there is something to read.
    pub(crate) fn wait_for_test(&self) {
        self.0.set_nonblocking(false).unwrap();
        sys::peek_for_test(&self.0).unwrap();
        self.0.set_nonblocking(true).unwrap();
    }
}

/// Asks, and waits for the answer.
pub(crate) fn check(server: &Path, timeout: Duration) -> io::Result<Admission> {
    let deadline = Instant::now() + timeout.min(MAX_DURATION);
    loop {
        let answer = ask_until(server, deadline);
        match answer {
            Err(error) if is_temporary(error.kind()) => {}
            answer => return answer,
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            let text = format!("the server did not answer on its check socket within {timeout:?}");
            return Err(io::Error::new(io::ErrorKind::TimedOut, text));
        }
        thread::sleep(PAUSE.min(left));
    }
}

fn ask_until(server: &Path, deadline: Instant) -> io::Result<Admission> {
    let question = match Question::ask(server)? {
        Ok(question) => question,
        Err(answer) => return Ok(answer),
    };
    let left = deadline.saturating_duration_since(Instant::now());
    question.0.set_nonblocking(false)?;
    question.0.set_read_timeout(Some(left.max(Duration::from_millis(1))))?;
    question.read_answer()
}

fn no_permission(server: &Path) -> Admission {
    let advice = format!(
        "this process may not open {}; start the server with a --socket-mode or a --socket-group that lets it, and \
         with --allow-uid or --allow-gid",
        server.display()
    );
    Admission::Refused { reason: "no_permission".to_owned(), advice: advice.escape_debug().to_string() }
}

fn parse(answer: &[u8]) -> Option<Admission> {
    let answer = str::from_utf8(answer).ok().filter(|text| text.len() <= MAX_CHECK_ANSWER_LEN)?;
    if answer == "ok" {
        return Some(Admission::Accepted);
    }
    let (reason, advice) = answer.strip_prefix("refused ")?.split_once(' ')?;
    let is_reason =
        !reason.is_empty() && reason.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
    // Both may end up in a log or on a terminal.
    (is_reason && !advice.chars().any(char::is_control))
        .then(|| Admission::Refused { reason: reason.to_owned(), advice: advice.to_owned() })
}

/// Whether there is no server, or one without a check socket.
fn is_missing(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused | io::ErrorKind::Unsupported
    ) || error.raw_os_error() == Some(libc::EPROTOTYPE)
}

/// Whether the server may have an answer a moment later.
pub(crate) const fn is_temporary(kind: io::ErrorKind) -> bool {
    matches!(
        kind,
        io::ErrorKind::WouldBlock
            | io::ErrorKind::TimedOut
            | io::ErrorKind::Interrupted
            | io::ErrorKind::UnexpectedEof
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::BrokenPipe
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_understood_or_refused_and_never_longer_than_it_may_be() {
        assert_eq!(parse(b"ok"), Some(Admission::Accepted));
        let refused = Admission::Refused { reason: "uid_refused".to_owned(), advice: "ask her".to_owned() };
        assert_eq!(parse(b"refused uid_refused ask her"), Some(refused));
        for garbage in
            ["", "ok\n", "okay", "refused", "refused x", "refused X y", "refused  y", "refused x \x1b[2J"]
        {
            assert_eq!(parse(garbage.as_bytes()), None, "{garbage:?}");
        }
        assert_eq!(parse(b"refused x \xff"), None);
        let long = format!("refused x {}", "y".repeat(MAX_CHECK_ANSWER_LEN));
        assert_eq!(parse(long.as_bytes()), None);
    }

    /// A check socket whose server does this with each connection.
    #[cfg(target_os = "linux")]
    fn hostile(serve: fn(UnixStream)) -> (tempfile::TempDir, std::path::PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("varta.sock");
        let listener = sys::listen_for_packets_for_test(&check_socket_path(&path)).unwrap();
        thread::spawn(move || listener.incoming().for_each(|client| serve(client.unwrap())));
        (directory, path)
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_server_that_answers_garbage_too_much_or_nothing_is_an_error_in_time() {
        use std::io::Write;

        let short = Duration::from_millis(50);
        let (_directory, path) = hostile(|mut client| _ = client.write(&[b'x'; 100_000]));
        assert_eq!(check(&path, Duration::from_secs(60)).unwrap_err().kind(), io::ErrorKind::InvalidData);
        let (_directory, path) = hostile(|mut client| _ = client.write(b"\xff\n"));
        assert_eq!(check(&path, Duration::from_secs(60)).unwrap_err().kind(), io::ErrorKind::InvalidData);
        let (_directory, path) = hostile(drop);
        assert_eq!(check(&path, short).unwrap_err().kind(), io::ErrorKind::TimedOut);
        let (_directory, path) = hostile(std::mem::forget);
        assert_eq!(check(&path, short).unwrap_err().kind(), io::ErrorKind::TimedOut);
    }

    #[test]
    fn without_a_check_socket_nobody_can_say() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("varta.sock");
        assert_eq!(check(&path, Duration::from_secs(60)).unwrap(), Admission::Unknown);
        let _other = std::os::unix::net::UnixDatagram::bind(check_socket_path(&path)).unwrap();
        assert_eq!(check(&path, Duration::from_secs(60)).unwrap(), Admission::Unknown);
    }
}
