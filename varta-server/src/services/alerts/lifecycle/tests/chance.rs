//! Any sequence of steps: no notification is sent twice, and each alert that fires ends.

use std::collections::{HashMap, HashSet};

use proptest::prelude::*;

use crate::domain::agent_key::AgentKey;
use crate::domain::tracker::{ForgetReason, Forgotten, Verdict};
use crate::services::alerts::alert::Id;
use crate::services::alerts::lifecycle::tests::*;
use crate::services::maintenance::acks::AckedBy;

/// One step of a sequence.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// The tracker gives an agent a verdict; the transition arrives or is lost.
    Becomes {
        pid: u32,
        verdict: usize,
        is_missed: bool,
        in_incident: bool,
    },
    /// An agent is the successor of another.
    Succeeds {
        pid: u32,
        of: u32,
    },
    /// The tracker forgets an agent without a transition; nothing is said of it if there is no reason.
    IsForgotten {
        pid: u32,
        reason: Option<ForgetReason>,
    },
    /// A user acknowledges the alarm of an agent.
    IsAcknowledged {
        pid: u32,
    },
    Passes {
        seconds: u64,
    },
    Sweep,
    Restart,
}

const PIDS: std::ops::Range<u32> = 1..6;
const REASONS: [Option<ForgetReason>; 3] = [None, Some(ForgetReason::Expired), Some(ForgetReason::Requested)];
const VERDICTS: [Verdict; 6] =
    [UP, Verdict::Up(Status::Critical), Verdict::Stalled, Verdict::Down, Verdict::Gone, Verdict::Unknown];

fn step() -> impl Strategy<Value = Step> {
    let becomes = (PIDS, 0..VERDICTS.len(), prop::bool::weighted(0.1), prop::bool::weighted(0.2));
    prop_oneof![
        10 => becomes.prop_map(|(pid, verdict, is_missed, in_incident)| Step::Becomes { pid, verdict, is_missed, in_incident }),
        1 => (PIDS, PIDS).prop_map(|(pid, of)| Step::Succeeds { pid, of }),
        1 => (PIDS, 0..REASONS.len()).prop_map(|(pid, reason)| Step::IsForgotten { pid, reason: REASONS[reason] }),
        1 => PIDS.prop_map(|pid| Step::IsAcknowledged { pid }),
        2 => (1_u64..700).prop_map(|seconds| Step::Passes { seconds }),
        1 => Just(Step::Sweep),
        1 => Just(Step::Restart),
    ]
}

/// The alert state, and what the tracker would report.
struct Chance {
    world: World,
    verdicts: HashMap<u32, Verdict>,
    /// The alerts that the receivers of notices have as firing.
    open: HashSet<String>,
}

impl Chance {
    fn take(&mut self, step: Step) {
        self.world.seconds += 1;
        match step {
            Step::Becomes { pid, verdict, is_missed, in_incident } => {
                let verdict = VERDICTS[verdict];
                self.verdicts.insert(pid, verdict);
                let number = u64::from(in_incident && verdict.is_alarm()) * (self.world.seconds / 100 + 1);
                let change = member(&self.world, pid, verdict, number);
                if !is_missed {
                    self.world.book.handle_transition(&change, false, self.world.now());
                }
            }
            Step::Succeeds { pid, of } => {
                if pid != of {
                    self.verdicts.remove(&of);
                }
                self.verdicts.insert(pid, UP);
                let mut change = self.world.transition(pid, UP);
                change.predecessor = (pid != of).then(|| self.world.transition(of, UP).agent);
                self.world.book.handle_transition(&change, false, self.world.now());
            }
            Step::IsForgotten { pid, reason } => {
                self.verdicts.remove(&pid);
                if let Some(reason) = reason {
                    let forgotten = Forgotten { agent: self.world.transition(pid, UP).agent, reason };
                    self.world.book.handle_forgotten(&forgotten, self.world.now());
                }
            }
            Step::IsAcknowledged { pid } => {
                if let Some(verdict) = self.verdicts.get(&pid) {
                    let found = self.world.transition(pid, *verdict);
                    let by = AckedBy { uid: 7, reason: None, at: self.world.now().wall };
                    self.world.book.acknowledge(&found, &by);
                }
            }
            Step::Passes { seconds } => {
                self.world.seconds += seconds;
                self.world.book.handle_timeout(self.world.now());
            }
            Step::Sweep => self.sweep(),
            Step::Restart => {
                self.hear();
                for alert in self.world.firing() {
                    self.world.book.handle_said(Id::of(&alert));
                }
                let ended: Vec<_> =
                    self.world.book.ended.values().map(|ended| Id::of(&ended.alert)).collect();
                ended.into_iter().for_each(|id| self.world.book.handle_said_ended(id));
                let (kept, acks) = (self.world.book.kept(self.world.now()), self.world.book.kept_acks());
                let mut next = World::new();
                next.seconds = self.world.seconds;
                assert_eq!(next.book.restore_acks(acks), 0);
                assert_eq!(next.book.restore(kept, next.now()), 0);
                self.world = next;
                self.sweep();
            }
        }
        self.hear();
    }

    fn sweep(&mut self) {
        self.world.book.begin_sweep();
        for (pid, verdict) in &self.verdicts {
            let found = self.world.transition(*pid, *verdict);
            self.world.book.handle_found(&found, false, self.world.now());
        }
        assert!(self.world.book.end_sweep(self.world.now()));
    }

    /// Drains the notifications: for each alert its start and its end take turns.
    fn hear(&mut self) {
        let mut escalated = 0;
        while let Some(delivery) = self.world.book.poll_delivery() {
            escalated += usize::from(delivery.kind == Kind::Escalated && !delivery.is_end);
            let alert = text(delivery.about.unwrap());
            if delivery.is_end {
                assert!(self.open.remove(&alert), "ended, and did not fire: {delivery:?}");
            } else if !self.open.insert(alert) {
                // The only news about a firing alert is that it flaps.
                assert_eq!(delivery.kind, Kind::Flapping, "told twice: {delivery:?}");
            }
        }
        let firing = self.world.firing();
        // What was acknowledged before it fired is not told.
        let acknowledged = firing.iter().filter(|alert| alert.annotations.contains_key("acknowledged"));
        self.open.extend(acknowledged.map(|alert| text(Id::of(alert))));
        // One that got worse is told in one notification: the alert before it has ended by it.
        let ids: HashSet<_> = firing.iter().map(|alert| text(Id::of(alert))).collect();
        let before = self.open.len();
        self.open.retain(|alert| ids.contains(alert));
        assert!(before - self.open.len() <= escalated, "more have ended than have got worse");
        assert_eq!(firing.len(), self.open.len(), "{firing:?}, and {:?}", self.open);
    }
}

fn text(Id { fingerprint, starts_at }: Id) -> String {
    format!("{fingerprint:?} {starts_at}")
}

proptest! {
    #[test]
    fn nobody_is_told_twice_and_all_that_fires_ends(steps in prop::collection::vec(step(), 0..120)) {
        let mut chance =
            Chance { world: World::new(), verdicts: HashMap::new(), open: HashSet::new() };
        for step in steps {
            chance.take(step);
        }
        // After a complete sweep the alerts cover the agents that are in alarm or flap, and no others.
        chance.take(Step::Sweep);
        for (pid, verdict) in chance.verdicts.clone() {
            let key = AgentKey::of(&chance.world.transition(pid, verdict).agent);
            let record = chance.world.book.records.get(&key);
            let is_told = record.is_some_and(|record| record.told_by.is_some());
            let is_flapping = record.is_some_and(|record| record.is_flapping);
            if verdict != Verdict::Unknown {
                prop_assert!(is_told == verdict.is_alarm() || is_flapping, "{pid} {verdict} {record:?}");
            }
        }
        for pid in PIDS {
            chance.take(Step::Becomes { pid, verdict: 0, is_missed: false, in_incident: false });
        }
        chance.take(Step::Sweep);
        chance.take(Step::Passes { seconds: 601 });
        chance.take(Step::Passes { seconds: 601 });
        prop_assert!(chance.open.is_empty(), "{:?}", chance.open);
        prop_assert!(chance.world.book.records.is_empty());
        prop_assert_eq!(chance.world.book.kept_acks(), []);
        prop_assert_eq!(chance.world.book.singles, 0);
    }
}
