//! The latest actions and refusals of recovery, for whoever asks what it did and does. It forgets the oldest; the audit
//! log has all of them.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

use crate::base::clock::wall_now;
use crate::base::time::WallTime;
use crate::domain::tracker::{AgentId, Transition};
use crate::services::recovery::audit_fields::{ActionReport, state};
use crate::services::recovery::job::{Job, Refusal};
use crate::services::recovery::metrics::ActionResult;

/// The most entries that are kept.
const MAX_KEPT: usize = 512;
/// The longest description of an action, in bytes. The rest is cut off.
const MAX_ACTION_LEN: usize = 1_024;

/// The outcomes of an entry, besides those of an action.
const RUNNING: &str = "running";
const REFUSED: &str = "refused";
const GIVEN_UP: &str = "given_up";
/// Of an action whose end the server before this one has not seen.
const UNKNOWN: &str = "unknown";

/// What recovery did or does about an agent, or why it does nothing.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Entry {
    /// From 1 on, without gaps.
    pub(crate) number: u64,
    pub(crate) agent: AgentId,
    /// The state of the agent that was the reason, and its cause.
    pub(crate) state: String,
    pub(crate) cause: String,
    /// `None` where nothing was done.
    pub(crate) action: Option<ActionTaken>,
    pub(crate) outcome: String,
    /// Why nothing was done.
    pub(crate) reason: Option<String>,
    pub(crate) began: WallTime,
    /// `None` while it lasts, and where the end was not seen.
    pub(crate) ended: Option<WallTime>,
    pub(crate) exit_code: Option<i64>,
    /// The number of the signal that ended the command.
    pub(crate) exit_signal: Option<i64>,
}

/// An action, and its place in the rule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ActionTaken {
    /// `notify`, `signal` or `command`.
    pub(crate) kind: String,
    /// The command as it was run, or the signal and whom it reaches.
    pub(crate) text: String,
    /// The pattern of names of the rule.
    pub(crate) rule: String,
    /// From 1 on.
    pub(crate) step: usize,
    pub(crate) steps: usize,
    /// From 1 on.
    pub(crate) attempt: u32,
}

/// The entries. Clones share them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Journal(Arc<Mutex<Kept>>);

#[derive(Debug, Default, Serialize, Deserialize)]
struct Kept {
    /// The newest last.
    entries: VecDeque<Arc<Entry>>,
    newest: u64,
    /// How often something has changed.
    changes: u64,
}

impl Journal {
    /// All outcomes.
    pub(crate) const OUTCOMES: [&str; 10] = [
        RUNNING,
        ActionResult::Done.as_str(),
        ActionResult::Failed.as_str(),
        ActionResult::TimedOut.as_str(),
        ActionResult::Skipped.as_str(),
        ActionResult::Withdrawn.as_str(),
        ActionResult::DryRun.as_str(),
        REFUSED,
        GIVEN_UP,
        UNKNOWN,
    ];

    /// The newest entries that are wanted, at most so many, of those with a number below `before`.
    pub(crate) fn newest(
        &self,
        before: u64,
        most: usize,
        is_wanted: impl Fn(&Entry) -> bool,
    ) -> Vec<Arc<Entry>> {
        let kept = self.lock();
        let older = kept.entries.iter().rev().filter(|entry| entry.number < before);
        older.filter(|entry| is_wanted(entry)).take(most).map(Arc::clone).collect()
    }

    /// How often something has changed.
    pub(crate) fn changes(&self) -> u64 {
        self.lock().changes
    }

    /// Notes that an action begins, and returns the number of its entry.
    pub(super) fn begin(&self, job: &Job, text: String) -> u64 {
        self.add(Entry { action: Some(ActionTaken::of(job, text)), ..Entry::new(&job.transition, RUNNING) })
    }

    /// Notes the end of an action.
    pub(super) fn end(&self, number: u64, report: &ActionReport) {
        let fact = |name: &str| report.facts.get(name).and_then(serde_json::Value::as_i64);
        let mut kept = self.lock();
        let Some(entry) = kept.entries.iter_mut().rev().find(|entry| entry.number == number) else { return };
        let entry = Arc::make_mut(entry);
        report.came.as_str().clone_into(&mut entry.outcome);
        entry.ended = Some(WallTime::from(wall_now()));
        (entry.exit_code, entry.exit_signal) = (fact("exit_code"), fact("exit_signal"));
        kept.changes += 1;
    }

    /// Notes an action that is over at once, or was not carried out.
    pub(super) fn note(&self, job: &Job, text: String, outcome: ActionResult) {
        let entry = Entry::new(&job.transition, outcome.as_str());
        self.add(Entry { action: Some(ActionTaken::of(job, text)), ended: Some(entry.began), ..entry });
    }

    /// Notes that nothing is done, and why.
    pub(super) fn refuse(&self, transition: &Transition, refusal: Refusal) {
        let outcome = if refusal == Refusal::GivenUp { GIVEN_UP } else { REFUSED };
        let entry = Entry::new(transition, outcome);
        self.add(Entry { reason: Some(refusal.as_str().to_owned()), ended: Some(entry.began), ..entry });
    }

    /// What the next server is to show.
    pub(super) fn leave(&self) -> Option<Vec<u8>> {
        postcard::to_allocvec(&*self.lock()).ok()
    }

    /// Shows what another server has left, before anything has happened.
    pub(super) fn inherit(&self, left: &[u8]) {
        let Ok(mut left) = postcard::from_bytes::<Kept>(left) else { return };
        left.entries.drain(..left.entries.len().saturating_sub(MAX_KEPT));
        for entry in left.entries.iter_mut().filter(|entry| entry.outcome == RUNNING) {
            UNKNOWN.clone_into(&mut Arc::make_mut(entry).outcome);
        }
        *self.lock() = left;
    }

    fn add(&self, entry: Entry) -> u64 {
        let mut kept = self.lock();
        kept.newest += 1;
        kept.changes += 1;
        let number = kept.newest;
        if kept.entries.len() >= MAX_KEPT {
            kept.entries.pop_front();
        }
        kept.entries.push_back(Arc::new(Entry { number, ..entry }));
        number
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entry {
    fn new(transition: &Transition, outcome: &str) -> Self {
        Entry {
            number: 0,
            agent: transition.agent.clone(),
            state: state(transition.to).to_owned(),
            cause: transition.cause.as_str().to_owned(),
            action: None,
            outcome: outcome.to_owned(),
            reason: None,
            began: WallTime::from(wall_now()),
            ended: None,
            exit_code: None,
            exit_signal: None,
        }
    }
}

impl ActionTaken {
    fn of(job: &Job, mut text: String) -> Self {
        if text.len() > MAX_ACTION_LEN {
            let end = (0..=MAX_ACTION_LEN).rev().find(|end| text.is_char_boundary(*end));
            text.truncate(end.unwrap_or(0));
            text.push('…');
        }
        ActionTaken {
            kind: job.action().kind().to_owned(),
            text,
            rule: job.rule.name.as_str().to_owned(),
            step: job.step + 1,
            steps: job.rule.steps.len(),
            attempt: job.attempt,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::domain::tracker::{Cause, Verdict};
    use crate::services::recovery::planner::testing::{job, transition};
    use crate::services::recovery::rule::Action;

    fn sample() -> Job {
        job(transition(7, Verdict::Down, Cause::Panicked), Action::Notify, &[])
    }

    fn outcomes(journal: &Journal) -> Vec<(u64, String)> {
        let all = journal.newest(u64::MAX, usize::MAX, |_| true);
        all.iter().map(|entry| (entry.number, entry.outcome.clone())).collect()
    }

    #[test]
    fn an_action_is_told_while_it_runs_and_when_it_has_ended_and_a_refusal_at_once() {
        let journal = Journal::default();
        let job = sample();
        let number = journal.begin(&job, "run /bin/false".to_owned());
        assert_eq!(outcomes(&journal), [(1, RUNNING.to_owned())]);
        let before = journal.changes();
        journal.end(number, &ActionReport::new(ActionResult::Failed, [("exit_code", json!(3))]));
        assert!(journal.changes() > before);
        journal.refuse(&job.transition, Refusal::Budget);
        journal.refuse(&job.transition, Refusal::GivenUp);
        assert_eq!(
            outcomes(&journal),
            [
                (3, GIVEN_UP.to_owned()),
                (2, REFUSED.to_owned()),
                (1, ActionResult::Failed.as_str().to_owned())
            ]
        );
        let refused = &journal.newest(3, 1, |_| true)[0];
        assert_eq!((refused.reason.as_deref(), refused.ended), (Some("budget"), Some(refused.began)));
        let failed = &journal.newest(2, 1, |_| true)[0];
        assert_eq!((failed.exit_code, failed.exit_signal), (Some(3), None));
        // Of an entry that has made room nothing is known any more.
        journal.end(77, &ActionReport::new(ActionResult::Done, []));
        assert_eq!(outcomes(&journal).len(), 3);
    }

    #[test]
    fn the_newest_are_kept_and_go_over_to_another_server_which_sees_no_end_of_what_runs() {
        let journal = Journal::default();
        let job = sample();
        for _ in 0..MAX_KEPT + 5 {
            journal.refuse(&job.transition, Refusal::Paused);
        }
        journal.begin(&job, "é".repeat(MAX_ACTION_LEN));
        let kept = outcomes(&journal);
        assert_eq!((kept.len(), kept[0].0), (MAX_KEPT, MAX_KEPT as u64 + 6));
        let next = Journal::default();
        next.inherit(&journal.leave().unwrap());
        assert_eq!(outcomes(&next)[0].1, UNKNOWN);
        assert_eq!(outcomes(&next)[1..], kept[1..]);
        let cut = &next.newest(u64::MAX, 1, |_| true)[0].action.as_ref().unwrap().text.clone();
        assert!(cut.len() <= MAX_ACTION_LEN + '…'.len_utf8() && cut.ends_with("é…"));
        next.inherit(b"senseless");
        assert_eq!(outcomes(&next).len(), MAX_KEPT);
        next.refuse(&job.transition, Refusal::Paused);
        assert_eq!(outcomes(&next)[0].0, kept[0].0 + 1);
    }

    #[test]
    fn of_more_than_are_kept_the_newest_are_inherited() {
        let job = sample();
        let numbered = |number| Arc::new(Entry { number, ..Entry::new(&job.transition, REFUSED) });
        let most = MAX_KEPT as u64 + 3;
        let left = Kept { entries: (1..=most).map(numbered).collect(), newest: most, changes: most };
        let journal = Journal::default();
        journal.inherit(&postcard::to_allocvec(&left).unwrap());
        let kept = outcomes(&journal);
        assert_eq!((kept.len(), kept[0].0), (MAX_KEPT, most));
    }
}
