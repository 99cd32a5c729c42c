//! The task that keeps the board of alarms.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until};

use crate::base::clock::{Clock, WallClock};
use crate::domain::tracker::{Forgotten, Transition};
use crate::engine::query::{self, Query};
use crate::services::alarms::board::{Alarms, Board};
use crate::services::context::Context;

/// The shortest time between two sweeps: who floods the queue of changes makes the tracker no more work.
const SWEEP_AFTER: Duration = Duration::from_secs(10);

/// Starts to follow all changes. The alarms of before are found by a sweep over the tracker.
pub(crate) fn start(context: &mut Context) -> Alarms {
    let alarms = Alarms::default();
    let (transitions, forgotten, lost) = context.subscribe_with_forgotten("alarms");
    lost.store(true, Ordering::Relaxed);
    let keeper =
        Keeper { alarms: alarms.clone(), clock: context.clock, queries: context.queries.clone(), lost };
    context.spawn("board of alarms", async {
        keeper.run(transitions, forgotten).await;
        Ok(())
    });
    alarms
}

struct Keeper {
    alarms: Alarms,
    clock: Clock,
    queries: mpsc::Sender<Query>,
    /// Whether a change was missed.
    lost: Arc<AtomicBool>,
}

impl Keeper {
    /// Follows the changes until the tracker has ended.
    async fn run(
        self,
        mut transitions: mpsc::Receiver<Transition>,
        mut forgotten: mpsc::Receiver<Forgotten>,
    ) {
        let mut sweep_at = Instant::now();
        loop {
            let wants_sweep =
                self.lost.load(Ordering::Relaxed) || self.alarms.with(|board| board.wants_sweep());
            tokio::select! {
                biased;
                () = sleep_until(sweep_at), if wants_sweep => {
                    self.lost.store(false, Ordering::Relaxed);
                    self.sweep().await;
                    sweep_at = Instant::now() + SWEEP_AFTER;
                }
                transition = transitions.recv() => match transition {
                    Some(transition) => {
                        let at = WallClock::read(self.clock).at(transition.at);
                        self.alarms.with(|board| board.apply(transition, at));
                    }
                    None => return,
                },
                Some(Forgotten { agent, .. }) = forgotten.recv() => {
                    self.alarms.with(|board| board.forget(&agent));
                }
            }
        }
    }

    /// Asks the tracker who is in alarm. The changes that come meanwhile wait in their queue, and are applied to what
    /// was found: whether that has them already makes no difference.
    async fn sweep(&self) {
        let mut alarms = Vec::new();
        let mut next = Some(0);
        while let Some(from) = next {
            let (answer, answered) = oneshot::channel();
            // Without an answer the tracker has ended, and so does the queue of changes.
            if self.queries.send(Query::Alarms { from, answer }).await.is_err() {
                return;
            }
            let Ok(query::Alarms { found, next: further, .. }) = answered.await else { return };
            // The board takes no more.
            alarms.extend(found.into_iter().take((2 * Board::MAX).saturating_sub(alarms.len())));
            next = further;
        }
        self.alarms.with(|board| board.reconcile(alarms));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::time::MonoTime;

    #[tokio::test]
    async fn who_was_in_alarm_before_is_found_and_what_changes_afterwards_is_followed() {
        let (mut context, mut queries) = Context::for_test();
        let alarms = start(&mut context);
        let missing = |name: &str| Transition::of_missing(&name.into(), MonoTime::START);
        let mut asked = Vec::new();
        while asked.len() < 2 {
            let Some(Query::Alarms { from, answer }) = queries.recv().await else { panic!("another query") };
            let next = (from == 0).then_some(7);
            let found = vec![missing(if from == 0 { "first" } else { "second" })];
            answer.send(query::Alarms { found, awaited: Vec::new(), next }).unwrap();
            asked.push(from);
        }
        assert_eq!(asked, [0, 7]);
        let [feed] = &context.take_subscribers()[..] else { panic!("another subscriber") };
        feed.put(&missing("third"), false);
        let now = MonoTime::from_millis(1);
        while alarms.worst(9, now).1 < 3 {
            tokio::task::yield_now().await;
        }
        let (found, _) = alarms.worst(9, now);
        let known: Vec<_> =
            found.iter().map(|alarm| (&*alarm.change.agent.name, alarm.since.is_some())).collect();
        assert_eq!(known, [("first", false), ("second", false), ("third", true)]);
    }
}
