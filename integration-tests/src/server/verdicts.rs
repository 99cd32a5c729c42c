//! What a test expects of a server, and the verdicts that it has on agents.

use crate::expect::{Agent, Expectation, story};
use crate::log::{Transition, transitions};
use crate::retry::{LIMIT, or_fail};
use crate::server::Server;

impl Server {
    /// Waits until an expectation holds, and gives what was found.
    ///
    /// # Panics
    ///
    /// It does not hold in time. What was seen instead is in the message: see [`expect`](crate::expect).
    #[track_caller]
    pub fn expect<E: Expectation>(&self, expectation: E) -> E::Found {
        or_fail(expectation.wait(self))
    }

    /// Waits until so many verdicts on an agent are there, and checks that they are these: as
    /// [`history`](Server::history) gives them, with any cause where a look at the process [came too
    /// late](Transition::has_no_look).
    #[track_caller]
    pub fn expect_history(&self, agent: impl Into<Agent>, expected: &[&str]) {
        let agent = agent.into();
        let is_own = |change: &&Transition| agent.is(change) && !change.is_observer_gap();
        let are_there = self.log.wait_for(
            LIMIT,
            |lines| (transitions(lines).filter(is_own).count() >= expected.len()).then_some(()),
            |lines| {
                format!(
                    "not within {LIMIT:?}: {agent} has the history {expected:?}\n{}",
                    story(lines, &agent)
                )
            },
        );
        or_fail(are_there);
        let own = self.changes_of(&agent);
        let fits = |(change, wanted): (&Transition, &&str)| {
            summary(change) == **wanted || (change.has_no_look() && wanted.starts_with("stalled: "))
        };
        let history: Vec<_> = own.iter().map(summary).collect();
        let is_expected = own.len() == expected.len() && own.iter().zip(expected).all(fits);
        assert!(is_expected, "{agent} has the history {history:?}, and not {expected:?}");
    }

    /// All verdicts on an agent up to now with their causes, such as `down: killed`, each of which begins
    /// where the one before ended. [Gaps of the observer](Transition::is_observer_gap) are left out.
    #[must_use]
    #[track_caller]
    pub fn history(&self, agent: impl Into<Agent>) -> Vec<String> {
        self.changes_of(&agent.into()).iter().map(summary).collect()
    }

    /// All changes of verdict of an agent up to now but [gaps of the observer](Transition::is_observer_gap).
    /// Each change begins where the one before ended.
    #[track_caller]
    fn changes_of(&self, agent: &Agent) -> Vec<Transition> {
        let mut own = self.all_transitions();
        own.retain(|change| agent.is(change));
        for pair in own.windows(2) {
            assert_eq!(
                pair[1].from, pair[0].to,
                "a change that does not begin where the one before ended: {own:#?}"
            );
        }
        own.retain(|change| !change.is_observer_gap());
        own
    }

    /// All changes of verdict up to now without [gaps of the observer](Transition::is_observer_gap): as many
    /// as the metrics count, so that no line is still on its way.
    #[must_use]
    #[track_caller]
    pub fn transitions(&self) -> Vec<Transition> {
        let mut changes = self.all_transitions();
        changes.retain(|change| !change.is_observer_gap());
        changes
    }

    /// All changes of verdict up to now, gaps of the observer among them, but those that the log leaves out.
    #[must_use]
    #[track_caller]
    pub fn all_transitions(&self) -> Vec<Transition> {
        let scrape = self.scrape();
        let left_out = |kind| scrape.value("varta_log_lines_suppressed_total", &[("kind", kind)]);
        let left_out: f64 = ["alarm", "change", "report", "plaintext"].map(left_out).iter().sum();
        let counted = scrape.sum("varta_transitions_total", &[]) - left_out;
        let changes = self.log.wait_for(
            LIMIT,
            |lines| {
                let changes: Vec<_> = transitions(lines).cloned().collect();
                (changes.len() as f64 >= counted).then_some(changes)
            },
            |lines| {
                let story = story(lines, &Agent::default());
                format!("{counted} changes are counted, and not so many are in the log: {story}")
            },
        );
        or_fail(changes)
    }
}

/// A change of verdict in short, such as `down: killed`.
fn summary(change: &Transition) -> String {
    format!("{}: {}", change.to, change.cause)
}
