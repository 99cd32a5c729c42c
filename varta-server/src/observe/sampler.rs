//! The sampler: a thread that takes snapshots of processes, so that no deadline waits for a file of `/proc`.
//!
//! How many inspections there are in a second is the tracker's decision (`inspection_budget`); here is a
//! queue with a bound, so that a `/proc` that is slow holds up neither the tracker nor memory.

use std::io;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread;

use tokio::sync::mpsc;

use crate::base::clock::Clock;
use crate::domain::process::{Dossier, InspectionDepth, ProcessId};
use crate::observe::procfs::ProcReader;

/// The capacity of the request queue; further requests are refused.
pub(crate) const REQUESTS: usize = 256;
/// The capacity of the result queue. While it is full the sampler pauses, and requests queue up.
pub(crate) const ANSWERS: usize = 256;

/// The handle of the sampler's thread, which ends once this is dropped and the queued requests are answered.
#[derive(Debug)]
pub(crate) struct Sampler {
    requests: SyncSender<Inspection>,
    refused: u64,
}

/// A look at a process that is asked for.
#[derive(Debug)]
pub(crate) struct Inspection {
    pub(crate) process: ProcessId,
    /// The child to look at in its place, by the pid that the child has for its parent.
    pub(crate) child: Option<NonZeroU32>,
    pub(crate) depth: InspectionDepth,
    /// What was seen before, and is compared with what is seen now.
    pub(crate) earlier: Option<Arc<Dossier>>,
}

/// The result of one request.
#[derive(Clone, Debug)]
pub(crate) struct SampleResult {
    /// The process.
    pub process: ProcessId,
    /// The snapshot and its difference to the earlier one; `None` when the process does not exist any more.
    pub dossier: Option<Arc<Dossier>>,
}

/// Why no snapshot is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum NotSampled {
    /// The queue is full: requests come faster than snapshots, or results are not received.
    #[error("too many looks are waiting")]
    Full,
    /// The thread has ended, which it does only when its results have no receiver.
    #[error("nobody looks any more")]
    Ended,
}

impl Sampler {
    /// Starts the thread.
    ///
    /// # Errors
    ///
    /// When the thread cannot be started.
    pub(crate) fn start(clock: Clock, host: ProcReader) -> io::Result<(Self, mpsc::Receiver<SampleResult>)> {
        let (requests, asked) = sync_channel(REQUESTS);
        let (answers, answered) = mpsc::channel(ANSWERS);
        // The thread is never joined: a hanging file of `/proc` must not keep the server from ending.
        thread::Builder::new()
            .name("varta-sampler".to_owned())
            .spawn(move || run(clock, &host, &asked, &answers))?;
        Ok((Sampler { requests, refused: 0 }, answered))
    }

    /// Asks for a look at a process, and does not wait.
    ///
    /// # Errors
    ///
    /// See [`NotSampled`]; each error is counted, and no result follows.
    pub(crate) fn request(&mut self, inspection: Inspection) -> Result<(), NotSampled> {
        self.requests.try_send(inspection).map_err(|error| {
            self.refused += 1;
            match error {
                TrySendError::Full(_) => NotSampled::Full,
                TrySendError::Disconnected(_) => NotSampled::Ended,
            }
        })
    }

    /// The number of refused requests since the start.
    #[must_use]
    pub(crate) fn refused(&self) -> u64 {
        self.refused
    }
}

fn run(clock: Clock, host: &ProcReader, asked: &Receiver<Inspection>, answers: &mpsc::Sender<SampleResult>) {
    while let Ok(Inspection { process, child, depth, earlier }) = asked.recv() {
        let look = |pid, start_time| match depth {
            InspectionDepth::Quick => host.quick_sample(pid, start_time, clock.now()),
            InspectionDepth::Full => host.look(pid, start_time, clock.now()),
        };
        let earlier = earlier.as_ref().map(|dossier| &dossier.look);
        let ProcessId { pid, start_time, .. } = process;
        // Of a child that has ended its parent has not taken notice: the parent is who hangs.
        let of_child = child.and_then(|child| host.child(pid, start_time, child.get()));
        let of_child = of_child.and_then(|(pid, start_time)| look(pid, start_time));
        let dossier = match of_child.filter(|look| !look.is_dead()) {
            Some(look) => Some(Dossier { is_of_child: true, ..Dossier::new(look, earlier) }),
            None => look(pid, start_time).map(|look| Dossier::new(look, earlier)),
        };
        let dossier = dossier.map(Arc::new);
        if answers.blocking_send(SampleResult { process, dossier }).is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::process::ProcessActivity;
    use crate::observe::testing::{Child, LIMIT, await_that};

    fn sampler() -> (Sampler, mpsc::Receiver<SampleResult>) {
        Sampler::start(Clock::start(), ProcReader::find()).unwrap()
    }

    fn process(child: &Child) -> ProcessId {
        ProcessId::new(child.pid(), child.start_time())
    }

    fn of(process: ProcessId, depth: InspectionDepth, earlier: Option<Arc<Dossier>>) -> Inspection {
        Inspection { process, child: None, depth, earlier }
    }

    async fn next(answers: &mut mpsc::Receiver<SampleResult>) -> SampleResult {
        tokio::time::timeout(LIMIT, answers.recv()).await.expect("an answer comes").unwrap()
    }

    #[tokio::test]
    async fn who_asks_is_answered_with_what_he_asked_for() {
        let child = Child::asleep();
        let (mut sampler, mut answers) = sampler();
        sampler.request(of(process(&child), InspectionDepth::Quick, None)).unwrap();
        sampler.request(of(process(&child), InspectionDepth::Full, None)).unwrap();
        let (first, second) = (next(&mut answers).await, next(&mut answers).await);
        assert_eq!((first.process, second.process), (process(&child), process(&child)));
        let (first, second) = (first.dossier.unwrap(), second.dossier.unwrap());
        assert_eq!((first.look.details.is_some(), second.look.details.is_some()), (false, true));
        assert_eq!(first.explanation.activity, ProcessActivity::Idle);
    }

    #[tokio::test]
    async fn no_other_process_is_taken_for_the_one_that_is_meant() {
        let child = Child::asleep();
        let (mut sampler, mut answers) = sampler();
        let mut other = process(&child);
        other.start_time = other.start_time.checked_add(1).unwrap();
        sampler.request(of(other, InspectionDepth::Full, None)).unwrap();
        assert!(next(&mut answers).await.dossier.is_none());
    }

    #[tokio::test]
    async fn an_earlier_look_tells_what_has_changed() {
        let child = Child::asleep();
        let (mut sampler, mut answers) = sampler();
        sampler.request(of(process(&child), InspectionDepth::Full, None)).unwrap();
        let earlier = next(&mut answers).await.dossier;
        sampler.request(of(process(&child), InspectionDepth::Full, earlier)).unwrap();
        assert!(next(&mut answers).await.dossier.unwrap().change.is_some());
    }

    #[test]
    fn what_finds_no_place_is_refused_and_counted() {
        let child = Child::asleep();
        // No results are received, so both queues fill.
        let (mut sampler, _answers) = sampler();
        // One more may be in progress in the thread.
        let most = REQUESTS + ANSWERS + 1;
        let mut taken = 0;
        await_that("the queues are full", || {
            match sampler.request(of(process(&child), InspectionDepth::Quick, None)) {
                Ok(()) => taken += 1,
                Err(error) => assert_eq!(error, NotSampled::Full),
            }
            taken == most
        });
        let refused = sampler.refused();
        let last = sampler.request(of(process(&child), InspectionDepth::Quick, None));
        assert_eq!((last, sampler.refused()), (Err(NotSampled::Full), refused + 1));
    }

    #[test]
    fn when_nobody_wants_the_answers_it_ends() {
        let child = Child::asleep();
        let (mut sampler, answers) = sampler();
        drop(answers);
        await_that("the thread has ended", || {
            sampler.request(of(process(&child), InspectionDepth::Quick, None)) == Err(NotSampled::Ended)
        });
    }

    #[tokio::test]
    async fn when_nobody_asks_any_more_the_answers_end_too() {
        let (sampler, mut answers) = sampler();
        drop(sampler);
        assert!(tokio::time::timeout(LIMIT, answers.recv()).await.unwrap().is_none());
    }
}
