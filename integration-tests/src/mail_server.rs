//! A small SMTP server that records the mails that it takes, and answers as a test wants it to.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use crate::retry::{LIMIT, or_fail, wait_for};

/// The most lines of a mail that are of interest.
const MOST_LINES: usize = 10_000;

/// A mail that came.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReceivedMail {
    /// The commands before its text, in order, such as `MAIL FROM:<a@b.example>`.
    pub commands: Vec<String>,
    /// Its lines, headers first.
    pub lines: Vec<String>,
}

impl ReceivedMail {
    /// The value of the header with this name; empty where there is none.
    #[must_use]
    pub fn header(&self, name: &str) -> &str {
        let headers = self.lines.iter().take_while(|line| !line.is_empty());
        let mut values = headers.filter_map(|line| line.split_once(": ").filter(|(found, _)| *found == name));
        values.next().map_or("", |(_, value)| value)
    }

    /// Its text, behind the headers.
    #[must_use]
    pub fn text(&self) -> String {
        self.lines.iter().skip_while(|line| !line.is_empty()).skip(1).cloned().collect::<Vec<_>>().join("\n")
    }
}

#[derive(Debug, Default)]
struct Shared {
    mails: Vec<ReceivedMail>,
    /// Answers to the next mails, in order; then they are taken.
    replies: Vec<&'static str>,
    is_over: bool,
}

/// It runs until it is dropped.
#[derive(Debug)]
pub struct MailServer {
    address: SocketAddr,
    shared: Arc<Mutex<Shared>>,
    accepts: Option<JoinHandle<()>>,
}

impl MailServer {
    /// Starts one on a port that the kernel picks, with the answers to the first mails, such as `451 later`.
    #[must_use]
    pub fn start(replies: impl IntoIterator<Item = &'static str>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap_or_else(|error| panic!("{error}"));
        let address = listener.local_addr().expect("it is bound");
        let replies = replies.into_iter().collect();
        let shared = Arc::new(Mutex::new(Shared { replies, ..Shared::default() }));
        let accepted = Arc::clone(&shared);
        let accepts = thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                if lock(&accepted).is_over {
                    return;
                }
                let shared = Arc::clone(&accepted);
                // A client may hang up at any moment.
                thread::spawn(move || converse(&stream, &shared));
            }
        });
        MailServer { address, shared, accepts: Some(accepts) }
    }

    /// Its URL.
    #[must_use]
    pub fn url(&self) -> String {
        format!("smtp://{}", self.address)
    }

    /// Waits until at least so many mails came, with those that were not taken.
    #[track_caller]
    pub fn await_mails(&self, count: usize) -> Vec<ReceivedMail> {
        let mails = || lock(&self.shared).mails.clone();
        let found = wait_for(|| Some(mails()).filter(|mails| mails.len() >= count));
        or_fail(
            found.ok_or_else(|| format!("not within {LIMIT:?}: {count} mails; there came {:#?}", mails())),
        )
    }
}

impl Drop for MailServer {
    fn drop(&mut self) {
        lock(&self.shared).is_over = true;
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

/// Serves one connection. `None` when the client hangs up.
fn converse(mut stream: &TcpStream, shared: &Mutex<Shared>) -> Option<()> {
    let mut lines = BufReader::new(stream).lines();
    let mut say = |text: &str| stream.write_all(format!("{text}\r\n").as_bytes()).ok();
    say("220 test ESMTP")?;
    let mut mail = ReceivedMail::default();
    loop {
        let line = lines.next()?.ok()?;
        let word = line.split([' ', ':']).next().unwrap_or_default().to_uppercase();
        mail.commands.push(line);
        match word.as_str() {
            "EHLO" => say("250-test\r\n250 AUTH PLAIN")?,
            "AUTH" => say("235 welcome")?,
            "DATA" => {
                say("354 go on")?;
                while mail.lines.len() < MOST_LINES {
                    let line = lines.next()?.ok()?;
                    if line == "." {
                        break;
                    }
                    mail.lines.push(line);
                }
                let reply = {
                    let mut shared = lock(shared);
                    shared.mails.push(std::mem::take(&mut mail));
                    if shared.replies.is_empty() { "250 taken" } else { shared.replies.remove(0) }
                };
                say(reply)?;
            }
            "QUIT" => return say("221 bye"),
            _ => say("250 ok")?,
        }
    }
}
