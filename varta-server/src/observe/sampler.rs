//! The looker: a thread that looks at processes for others, so that nobody who keeps deadlines waits for a file.
//!
//! It is asked no more often than a set number of times a second, and by a queue with a bound: when ten thousand agents
//! fall silent together, the first few tell why, and the verdicts about the others do not wait.

use std::io;
use std::num::NonZeroU64;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread;

use tokio::sync::mpsc;

use crate::base::clock::Clock;
use crate::base::time::MonoTime;
use crate::domain::process::Dossier;
use crate::observe::procfs::Host;

/// Requests that may wait; one more is refused.
pub(crate) const REQUESTS: usize = 256;
/// Answers that may wait to be taken. When there are more the looker pauses, and its requests pile up.
pub(crate) const ANSWERS: usize = 256;
/// A second's worth of looks may come at once.
const BURST_NANOS: u64 = 1_000_000_000;

/// The way to the looker's thread, which ends when this is dropped and what was asked is answered.
#[derive(Debug)]
pub(crate) struct Looker {
    requests: SyncSender<Request>,
    /// What one look uses up of [`BURST_NANOS`].
    cost: u64,
    /// The moment at which all that has been used will be free again: the generic cell rate algorithm.
    free_at: u64,
    counts: LooksRefused,
}

/// What is asked of the looker.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    /// The process.
    pub pid: u32,
    /// When it started: no other process is looked at.
    pub start_time: NonZeroU64,
    /// How much is to be seen.
    pub depth: Depth,
    /// What was found earlier, to tell what has changed since.
    pub earlier: Option<Arc<Dossier>>,
}

/// How much is to be seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Depth {
    /// One file: state and CPU time.
    Glance,
    /// Everything.
    Full,
}

/// What the looker has to say.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    /// The process.
    pub pid: u32,
    /// When it started.
    pub start_time: NonZeroU64,
    /// What was found; `None` when the process is not there any more.
    pub dossier: Option<Arc<Dossier>>,
}

/// Why nobody looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum NotLooked {
    /// As many looks as a second may have.
    #[error("too many looks in this second")]
    Rate,
    /// The queue is full: the looker is slower than it is asked, or its answers are not taken.
    #[error("too many looks are waiting")]
    Full,
    /// The looker's thread has ended, which it only does when its answers have nobody to go to.
    #[error("nobody looks any more")]
    Ended,
}

/// How many requests were refused, and why.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct LooksRefused {
    /// For their rate.
    pub rate: u64,
    /// Because the queue was full, or the thread had ended.
    pub queue: u64,
}

impl Looker {
    /// Starts the thread. At most `per_second` looks are taken a second over time, and as many at once; 0 means none.
    ///
    /// # Errors
    ///
    /// When the thread cannot be started.
    pub(crate) fn start(
        clock: Clock,
        host: Host,
        per_second: u32,
    ) -> io::Result<(Self, mpsc::Receiver<Answer>)> {
        let (requests, asked) = sync_channel(REQUESTS);
        let (answers, answered) = mpsc::channel(ANSWERS);
        // Nobody joins it: a file of `/proc` that hangs must not keep the server from ending.
        thread::Builder::new()
            .name("varta-looker".to_owned())
            .spawn(move || run(clock, &host, &asked, &answers))?;
        let cost = BURST_NANOS.checked_div(u64::from(per_second)).unwrap_or(u64::MAX);
        Ok((Looker { requests, cost, free_at: 0, counts: LooksRefused::default() }, answered))
    }

    /// Asks for a look, and does not wait. `now` is the present time.
    ///
    /// # Errors
    ///
    /// See [`NotLooked`]; each is counted, and there will be no answer.
    pub(crate) fn request(&mut self, now: MonoTime, request: Request) -> Result<(), NotLooked> {
        let result = self.try_request(now, request);
        match result {
            Ok(()) => {}
            Err(NotLooked::Rate) => self.counts.rate += 1,
            Err(NotLooked::Full | NotLooked::Ended) => self.counts.queue += 1,
        }
        result
    }

    fn try_request(&mut self, now: MonoTime, request: Request) -> Result<(), NotLooked> {
        let now = now.as_nanos();
        let free_at = self.free_at.max(now).saturating_add(self.cost);
        if free_at - now > BURST_NANOS {
            return Err(NotLooked::Rate);
        }
        self.requests.try_send(request).map_err(|error| match error {
            TrySendError::Full(_) => NotLooked::Full,
            TrySendError::Disconnected(_) => NotLooked::Ended,
        })?;
        // Only what is looked at counts against the rate.
        self.free_at = free_at;
        Ok(())
    }

    /// How many requests were refused since the start.
    #[must_use]
    pub(crate) fn refused(&self) -> LooksRefused {
        self.counts
    }
}

fn run(clock: Clock, host: &Host, asked: &Receiver<Request>, answers: &mpsc::Sender<Answer>) {
    while let Ok(request) = asked.recv() {
        let Request { pid, start_time, depth, earlier } = request;
        let look = match depth {
            Depth::Glance => host.glance(pid, start_time, clock.now()),
            Depth::Full => host.look(pid, start_time, clock.now()),
        };
        let earlier = earlier.as_ref().map(|dossier| &dossier.look);
        let dossier = look.map(|look| Arc::new(Dossier::new(look, earlier)));
        if answers.blocking_send(Answer { pid, start_time, dossier }).is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::process::Doing;
    use crate::observe::testing::{Child, LIMIT, await_that};

    fn looker(per_second: u32) -> (Looker, mpsc::Receiver<Answer>) {
        Looker::start(Clock::start(), Host::find(), per_second).unwrap()
    }

    fn request(child: &Child) -> Request {
        let (pid, start_time) = (child.pid(), child.start_time());
        Request { pid, start_time, depth: Depth::Full, earlier: None }
    }

    async fn next(answers: &mut mpsc::Receiver<Answer>) -> Answer {
        tokio::time::timeout(LIMIT, answers.recv()).await.expect("an answer comes").unwrap()
    }

    #[tokio::test]
    async fn who_asks_is_answered_with_what_he_asked_for() {
        let child = Child::asleep();
        let (mut looker, mut answers) = looker(10);
        let mut glance = request(&child);
        glance.depth = Depth::Glance;
        looker.request(MonoTime::START, glance).unwrap();
        looker.request(MonoTime::START, request(&child)).unwrap();
        let (first, second) = (next(&mut answers).await, next(&mut answers).await);
        assert_eq!((first.pid, second.pid), (child.pid(), child.pid()));
        let (first, second) = (first.dossier.unwrap(), second.dossier.unwrap());
        assert_eq!((first.look.details.is_some(), second.look.details.is_some()), (false, true));
        assert_eq!(first.explanation.doing, Doing::Idle);
    }

    #[tokio::test]
    async fn no_other_process_is_taken_for_the_one_that_is_meant() {
        let child = Child::asleep();
        let (mut looker, mut answers) = looker(10);
        let mut other = request(&child);
        other.start_time = other.start_time.checked_add(1).unwrap();
        looker.request(MonoTime::START, other).unwrap();
        assert!(next(&mut answers).await.dossier.is_none());
    }

    #[tokio::test]
    async fn an_earlier_look_tells_what_has_changed() {
        let child = Child::asleep();
        let (mut looker, mut answers) = looker(10);
        looker.request(MonoTime::START, request(&child)).unwrap();
        let earlier = next(&mut answers).await.dossier;
        looker.request(MonoTime::START, Request { earlier, ..request(&child) }).unwrap();
        assert!(next(&mut answers).await.dossier.unwrap().change.is_some());
    }

    #[test]
    fn no_more_is_asked_than_the_rate_allows_and_that_is_counted() {
        let child = Child::asleep();
        let (mut looker, _answers) = looker(2);
        let mut ask = |millis| looker.request(MonoTime::from_millis(millis), request(&child));
        assert_eq!(ask(5_000), Ok(()));
        assert_eq!(ask(5_000), Ok(()));
        assert_eq!(ask(5_000), Err(NotLooked::Rate));
        assert_eq!(ask(5_499), Err(NotLooked::Rate));
        assert_eq!(ask(5_500), Ok(()));
        assert_eq!(ask(5_500), Err(NotLooked::Rate));
        assert_eq!(looker.refused(), LooksRefused { rate: 3, queue: 0 });
    }

    #[test]
    fn a_rate_of_zero_is_none_at_all() {
        let child = Child::asleep();
        let (mut looker, _answers) = looker(0);
        assert_eq!(looker.request(MonoTime::from_secs(9), request(&child)), Err(NotLooked::Rate));
    }

    #[test]
    fn what_finds_no_place_is_refused_and_counted() {
        let child = Child::asleep();
        // Nobody takes the answers, so that both queues fill.
        let (mut looker, _answers) = looker(1_000_000);
        let request = Request { depth: Depth::Glance, ..request(&child) };
        // One more may be in the looker's hands.
        let most = REQUESTS + ANSWERS + 1;
        let mut taken = 0;
        await_that("the queues are full", || {
            match looker.request(MonoTime::from_secs(1), request.clone()) {
                Ok(()) => taken += 1,
                Err(error) => assert_eq!(error, NotLooked::Full),
            }
            taken == most
        });
        assert_eq!(looker.request(MonoTime::from_secs(1), request), Err(NotLooked::Full));
        assert!(looker.refused().queue > 0);
    }

    #[test]
    fn when_nobody_wants_the_answers_it_ends() {
        let child = Child::asleep();
        let (mut looker, answers) = looker(1_000_000);
        drop(answers);
        await_that("the thread has ended", || {
            looker.request(MonoTime::from_secs(1), request(&child)) == Err(NotLooked::Ended)
        });
    }

    #[tokio::test]
    async fn when_nobody_asks_any_more_the_answers_end_too() {
        let (looker, mut answers) = looker(10);
        drop(looker);
        assert!(tokio::time::timeout(LIMIT, answers.recv()).await.unwrap().is_none());
    }
}
