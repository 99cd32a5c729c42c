//! Asks the server whether it takes the beats: a beat that is refused is sent all the same.
//!
//! It asks once for each connection, and once a minute while no beat is sent, because a process that may not
//! open the server's socket sends none. It never waits: the answer is read when it is there.

use std::mem;
use std::path::PathBuf;
use std::time::Duration;

use tokio::time::Instant;

use crate::check::{self, Admission, Question};
use crate::outcome::{BeatOutcome, QUEUE_FULL};

/// The first pause before a look for the answer. Each further one is twice as long.
const FIRST_LOOK: Duration = Duration::from_millis(10);
/// The time within which a server answers that has the time for it.
const ANSWERS_WITHIN: Duration = Duration::from_secs(1);
/// The pause after a question without an answer, and the least between two questions. Each further one is
/// twice as long.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// The longest pause, and the one while no beat is sent.
const MAX_PAUSE: Duration = Duration::from_secs(60);

/// The state of the question.
#[derive(Debug)]
pub(super) struct AdmissionCheck {
    /// Which connection it is about, and whether beats are sent on it. `None` before the first beat.
    subject: Option<(u32, bool)>,
    step: Step,
    /// The pause after the next question without an answer.
    pause: Duration,
    asked_at: Option<Instant>,
    answer: Admission,
    /// Whether a refusal is the last that was logged.
    has_complained: bool,
}

#[derive(Debug)]
enum Step {
    /// The answer is known, or there is nobody to ask.
    None,
    /// To ask at this time.
    Ask(Instant),
    /// To look for the answer at this time, after this pause, and until this time at most.
    Read { question: Question, at: Instant, pause: Duration, until: Instant },
}

impl AdmissionCheck {
    pub(super) const fn new() -> Self {
        let (subject, step) = (None, Step::None);
        Self {
            subject,
            step,
            pause: FIRST_PAUSE,
            asked_at: None,
            answer: Admission::Unknown,
            has_complained: false,
        }
    }

    /// Notes the outcome of a beat. `connection` is another number for each connection.
    pub(super) fn handle_beat(&mut self, outcome: BeatOutcome, connection: u32, now: Instant) {
        // The server that has no room for a beat is the one that was asked.
        if outcome == QUEUE_FULL {
            return;
        }
        let subject = Some((connection, outcome.is_sent()));
        if self.subject != subject {
            self.subject = subject;
            self.pause = FIRST_PAUSE;
            self.step = Step::Ask(self.asked_at.map_or(now, |at| now.max(at + FIRST_PAUSE)));
        }
    }

    /// Returns when there is something to do.
    pub(super) const fn wake_at(&self) -> Option<Instant> {
        match self.step {
            Step::None => None,
            Step::Ask(at) | Step::Read { at, .. } => Some(at),
        }
    }

    /// Does what is due, without waiting, and returns an answer that differs from the one before.
    pub(super) fn advance(
        &mut self,
        server: impl FnOnce() -> Option<PathBuf>,
        now: Instant,
    ) -> Option<Admission> {
        if self.wake_at().is_none_or(|at| now < at) {
            return None;
        }
        let answer = match mem::replace(&mut self.step, Step::None) {
            Step::None => return None,
            Step::Ask(_) => self.ask(server(), now)?,
            Step::Read { question, pause, until, .. } => match question.read_answer() {
                Ok(answer) => answer,
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock && now < until => {
                    let pause = pause * 2;
                    self.step = Step::Read { question, at: now + pause, pause, until };
                    return None;
                }
                Err(error) if check::is_temporary(error.kind()) => return self.ask_later(now),
                // An answer that makes no sense is none.
                Err(_) => Admission::Unknown,
            },
        };
        if self.subject.is_some_and(|(_, is_sent)| !is_sent) {
            self.step = Step::Ask(now + MAX_PAUSE);
        }
        let is_another = self.answer != answer;
        self.answer.clone_from(&answer);
        is_another.then_some(answer)
    }

    /// Asks, and returns an answer that is there at once.
    fn ask(&mut self, server: Option<PathBuf>, now: Instant) -> Option<Admission> {
        self.asked_at = Some(now);
        let Some(server) = server else { return Some(Admission::Unknown) };
        match Question::ask(&server) {
            Ok(Ok(question)) => {
                let (at, until) = (now + FIRST_LOOK, now + ANSWERS_WITHIN);
                self.step = Step::Read { question, at, pause: FIRST_LOOK, until };
                None
            }
            Ok(Err(answer)) => Some(answer),
            Err(error) if check::is_temporary(error.kind()) => self.ask_later(now),
            Err(_) => Some(Admission::Unknown),
        }
    }

    /// Logs an answer that differs from the one before it. That beats are taken is told after a refusal, also where
    /// nobody answered in between, as while the server was started again.
    pub(super) fn log(&mut self, answer: &Admission) {
        match answer {
            Admission::Refused { reason, advice } => {
                self.has_complained = true;
                tracing::warn!(reason, "the server refuses the beats of this process ({reason}): {advice}");
            }
            Admission::Accepted if mem::take(&mut self.has_complained) => {
                tracing::info!("the server takes the beats of this process");
            }
            Admission::Accepted | Admission::Unknown => {}
        }
    }

    fn ask_later(&mut self, now: Instant) -> Option<Admission> {
        self.step = Step::Ask(now + self.pause);
        self.pause = (self.pause * 2).min(MAX_PAUSE);
        None
    }
}

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;
    use std::path::Path;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::thread;

    use varta_proto::address::check_socket_path;

    use super::*;
    use crate::outcome::DropReason;
    use crate::sys;

    const DROPPED: BeatOutcome = BeatOutcome::Dropped(DropReason::NoObserver);

    /// A check socket whose server does this with each question, and the number of questions.
    fn server(serve: fn(u32, UnixStream)) -> (tempfile::TempDir, PathBuf, Arc<AtomicU32>) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("varta.sock");
        let listener = sys::listen_for_packets_for_test(&check_socket_path(&path)).unwrap();
        let questions = Arc::new(AtomicU32::new(0));
        let asked = Arc::clone(&questions);
        thread::spawn(move || {
            for client in listener.incoming() {
                let mut client = client.unwrap();
                assert_eq!(client.read(&mut [0; 64]).unwrap(), 32);
                serve(asked.fetch_add(1, Ordering::SeqCst), client);
            }
        });
        (directory, path, questions)
    }

    fn refused() -> Admission {
        Admission::Refused { reason: "uid_refused".to_owned(), advice: "ask her".to_owned() }
    }

    /// Advances time from wake-up to wake-up until there is another answer. The server's thread gets to run
    /// in between, and its answer is waited for: time stands still until it is there.
    fn next_answer(check: &mut AdmissionCheck, path: &Path, now: &mut Instant) -> Admission {
        loop {
            let at = check.wake_at().expect("there is something to do until there is an answer");
            *now = (*now).max(at);
            if let Step::Read { question, .. } = &check.step {
                question.wait_for_test();
            }
            if let Some(answer) = check.advance(|| Some(path.to_owned()), *now) {
                return answer;
            }
        }
    }

    #[test]
    fn each_connection_is_asked_about_once_and_an_answer_that_changes_is_told() {
        let (_directory, path, questions) = server(|number, mut client| {
            let answer: &[u8] = if number == 0 { b"refused uid_refused ask her" } else { b"ok" };
            client.write_all(answer).unwrap();
        });
        let (mut check, mut now) = (AdmissionCheck::new(), Instant::now());
        assert_eq!(check.wake_at(), None);
        check.handle_beat(BeatOutcome::Sent, 0, now);
        assert_eq!(check.wake_at(), Some(now));
        assert_eq!(next_answer(&mut check, &path, &mut now), refused());
        for _ in 0..100 {
            now += Duration::from_secs(1);
            check.handle_beat(BeatOutcome::Sent, 0, now);
            check.handle_beat(QUEUE_FULL, 1, now);
            assert_eq!(check.wake_at(), None);
        }
        check.handle_beat(BeatOutcome::Sent, 1, now);
        assert_eq!(next_answer(&mut check, &path, &mut now), Admission::Accepted);
        assert_eq!((questions.load(Ordering::SeqCst), check.wake_at()), (2, None));
    }

    #[test]
    fn that_beats_are_taken_is_told_once_after_a_refusal_whatever_was_unknown_in_between() {
        let mut check = AdmissionCheck::new();
        check.log(&refused());
        check.log(&Admission::Unknown);
        assert!(check.has_complained);
        check.log(&Admission::Accepted);
        assert!(!check.has_complained);
    }

    #[test]
    fn connections_that_come_and_go_are_asked_about_once_a_second() {
        let (mut check, start) = (AdmissionCheck::new(), Instant::now());
        let mut questions = 0;
        for number in 0..1_000 {
            let now = start + Duration::from_millis(10) * number;
            check.handle_beat(BeatOutcome::Sent, number, now);
            check.advance(
                || {
                    questions += 1;
                    None
                },
                now,
            );
        }
        assert_eq!(questions, 10);
    }

    #[test]
    fn a_server_without_an_answer_is_asked_again_ever_less_often() {
        let (_directory, path, _) = server(|_, client| mem::forget(client));
        let (mut check, start) = (AdmissionCheck::new(), Instant::now());
        let mut asked = Vec::new();
        check.handle_beat(BeatOutcome::Sent, 0, start);
        while let Some(at) = check.wake_at().filter(|at| *at < start + Duration::from_secs(600)) {
            let mut ask = || {
                asked.push((at - start).as_secs());
                Some(path.clone())
            };
            assert_eq!(check.advance(&mut ask, at), None);
        }
        assert_eq!(asked, [0, 2, 5, 10, 20, 37, 70, 131, 193, 254, 315, 376, 438, 499, 560]);
        assert_eq!(check.answer, Admission::Unknown);
    }

    #[test]
    fn a_process_whose_beats_are_not_sent_asks_once_a_minute() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("varta.sock");
        let (mut check, mut now) = (AdmissionCheck::new(), Instant::now());
        check.handle_beat(DROPPED, 0, now);
        for _ in 0..3 {
            assert_eq!(check.advance(|| Some(path.clone()), now), None, "there is no server");
            check.handle_beat(DROPPED, 0, now);
            assert_eq!(check.wake_at(), Some(now + MAX_PAUSE));
            now += MAX_PAUSE;
        }
        check.handle_beat(BeatOutcome::Sent, 0, now);
        assert_eq!(check.wake_at(), Some(now));
        assert_eq!(check.advance(|| Some(path.clone()), now), None, "it has no check socket");
        assert_eq!(check.wake_at(), None);
    }
}
