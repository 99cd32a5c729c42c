//! The list of all agents, copied from the tracker a slice at a time when somebody reads it, and shared by all who read
//! within a short time. However many read, the tracker spends a small share of its time on it.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::base::clock::{Clock, WallClock};
use crate::base::time::MonoTime;
use crate::domain::tracker::{AgentRecord, Problem, Verdict};
use crate::engine::query::{Query, RecordSlice};
use crate::services::api::changes::{Changes, Revision};

/// The least age at which a list is made anew.
const LEAST_AGE: Duration = Duration::from_millis(200);
/// The most: an answer is never older.
const MOST_AGE: Duration = Duration::from_secs(10);
/// How many times longer than the tracker worked for a list that is used.
const REST: u32 = 20;
/// For how long a list is kept that nobody reads.
const KEPT_UNUSED: Duration = Duration::from_secs(60);
/// The most orders of a list that are kept.
const MAX_ORDERS: usize = 16;

/// All agents at one moment.
#[derive(Debug)]
pub(super) struct Directory {
    /// Every change up to this one is in it.
    pub(super) revision: Revision,
    /// Distinguishes lists of one revision.
    pub(super) number: u64,
    pub(super) at: MonoTime,
    pub(super) clock: WallClock,
    pub(super) agents: Vec<Listed>,
    /// The number of agents by [`Verdict::index`].
    pub(super) counts: [usize; Verdict::NAMES.len()],
    orders: Mutex<Vec<(String, Arc<[u32]>)>>,
}

/// An agent in the list.
#[derive(Debug)]
pub(super) struct Listed {
    pub(super) record: AgentRecord,
    pub(super) problem: Option<Problem>,
}

impl Directory {
    /// How long an agent had been silent; `None` for one that has not come.
    pub(super) fn silence(&self, record: &AgentRecord) -> Option<Duration> {
        record.last_beat.map(|last| self.at.since(last) + record.silent_before)
    }

    /// The order of this name, if it is kept.
    pub(super) fn order(&self, name: &str) -> Option<Arc<[u32]>> {
        let orders = self.orders.lock().unwrap_or_else(PoisonError::into_inner);
        orders.iter().find(|(known, _)| known == name).map(|(_, order)| Arc::clone(order))
    }

    /// Keeps an order under a name.
    pub(super) fn keep_order(&self, name: String, order: Arc<[u32]>) {
        let mut orders = self.orders.lock().unwrap_or_else(PoisonError::into_inner);
        if orders.len() >= MAX_ORDERS {
            orders.remove(0);
        }
        orders.push((name, order));
    }
}

/// The way to the present list. Clones share it.
#[derive(Clone, Debug)]
pub(super) struct Directories(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    queries: mpsc::Sender<Query>,
    changes: Changes,
    clock: Clock,
    present: tokio::sync::Mutex<Present>,
    used: Notify,
}

#[derive(Debug, Default)]
struct Present {
    directory: Option<Arc<Directory>>,
    /// How long the tracker worked for it.
    took: Duration,
    /// How many there were.
    count: u64,
    used_at: Option<Instant>,
}

impl Directories {
    pub(super) fn new(queries: mpsc::Sender<Query>, changes: Changes, clock: Clock) -> Self {
        let present = tokio::sync::Mutex::default();
        Directories(Arc::new(Shared { queries, changes, clock, present, used: Notify::new() }))
    }

    /// The present list, made anew if it is too old. `None` when the tracker has ended.
    pub(super) async fn get(&self) -> Option<Arc<Directory>> {
        let Shared { clock, present, used, .. } = &*self.0;
        let mut present = present.lock().await;
        present.used_at = Some(Instant::now());
        used.notify_one();
        let most = (present.took * REST).clamp(LEAST_AGE, MOST_AGE);
        if let Some(directory) = &present.directory
            && clock.now().since(directory.at) < most
        {
            return Some(Arc::clone(directory));
        }
        let room = present.directory.as_ref().map_or(0, |directory| directory.agents.len());
        present.count += 1;
        let (directory, took) = self.read(room, present.count).await?;
        present.took = took;
        Some(Arc::clone(present.directory.insert(Arc::new(directory))))
    }

    /// Drops the list when nobody has read it for a while, until `stop` is cancelled.
    pub(super) async fn drop_unused(&self, stop: &CancellationToken) {
        let Shared { present, used, .. } = &*self.0;
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = used.notified() => {}
            }
            loop {
                let Some(used_at) = present.lock().await.used_at else { break };
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = sleep_until(used_at + KEPT_UNUSED) => {}
                }
                let mut present = present.lock().await;
                if present.used_at == Some(used_at) {
                    (present.directory, present.used_at) = (None, None);
                }
            }
        }
    }

    /// Reads all agents, about `room` of them, and how long the tracker worked for it.
    async fn read(&self, room: usize, number: u64) -> Option<(Directory, Duration)> {
        let Shared { queries, changes, clock, .. } = &*self.0;
        // Before the first slice: whatever is told until here is in it.
        let revision = changes.revision();
        let mut list = Vec::with_capacity(room + room / 8);
        let (mut expected, mut took, mut from) = (Vec::new(), Duration::ZERO, Some(0));
        while let Some(start) = from {
            let (answer, answered) = oneshot::channel();
            queries.send(Query::Records { list, from: start, answer }).await.ok()?;
            let slice: RecordSlice = answered.await.ok()?;
            expected.extend(slice.missing.into_iter().map(|name| (name, Some(Problem::Missing))));
            expected.extend(slice.awaited.into_iter().map(|name| (name, None)));
            (list, from, took) = (slice.list, slice.next, took + slice.took);
        }
        let mut counts = [0; Verdict::NAMES.len()];
        let known = list.into_iter().map(|record| {
            let problem = Problem::of(record.verdict);
            Listed { record, problem }
        });
        let expected = expected
            .into_iter()
            .map(|(name, problem)| Listed { record: AgentRecord::of_expected(&name), problem });
        let agents: Vec<_> =
            known.chain(expected).inspect(|listed| counts[listed.record.verdict.index()] += 1).collect();
        let (at, wall) = (clock.now(), WallClock::read(*clock));
        let orders = Mutex::default();
        Some((Directory { revision, number, at, clock: wall, agents, counts, orders }, took))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::time::WallTime;
    use crate::domain::tracker::Transition;
    use crate::services::api::changes::What;

    /// Answers so many queries, with one awaited and one missing agent.
    async fn answer(queries: &mut mpsc::Receiver<Query>, took: Duration) {
        let Some(Query::Records { list, from: 0, answer }) = queries.recv().await else {
            panic!("another query")
        };
        let (missing, awaited) = (vec!["late".into()], vec!["soon".into()]);
        answer.send(RecordSlice { list, missing, awaited, took, next: None }).unwrap();
    }

    #[tokio::test]
    async fn one_list_serves_all_who_read_within_a_time_that_grows_with_the_work_for_it() {
        let (ask, mut queries) = mpsc::channel(1);
        let changes = Changes::new(7);
        let directories = Directories::new(ask, changes.clone(), Clock::start());
        let transition = Transition::of_missing(&"late".into(), MonoTime::START);
        changes.add(What::Verdict(transition.into(), WallTime::default()));
        let (first, ()) = tokio::join!(directories.get(), answer(&mut queries, Duration::from_secs(60)));
        let first = first.unwrap();
        assert_eq!(first.revision, changes.revision());
        assert_eq!(first.counts[Verdict::EXPECTED], 2);
        let problems: Vec<_> = first.agents.iter().map(|listed| listed.problem).collect();
        assert_eq!(problems, [Some(Problem::Missing), None]);
        // The work for it was so much that it is used for long.
        for _ in 0..3 {
            assert!(Arc::ptr_eq(&first, &directories.get().await.unwrap()));
        }
        assert!(queries.try_recv().is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn a_list_that_nobody_reads_is_dropped() {
        let (ask, mut queries) = mpsc::channel(1);
        let directories = Directories::new(ask, Changes::new(7), Clock::start());
        let (stop, dropping) = (CancellationToken::new(), directories.clone());
        let dropper = tokio::spawn({
            let stop = stop.clone();
            async move { dropping.drop_unused(&stop).await }
        });
        let (read, ()) = tokio::join!(directories.get(), answer(&mut queries, Duration::from_secs(60)));
        let read = Arc::downgrade(&read.unwrap());
        while read.upgrade().is_some() {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        stop.cancel();
        dropper.await.unwrap();
    }
}
