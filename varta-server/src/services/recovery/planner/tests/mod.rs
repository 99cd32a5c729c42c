//! The decisions of the planner, on virtual time.

mod given_up;
mod held;
mod order;
mod restart;

use nix::sys::signal::Signal;
use proptest::prelude::*;
use varta_proto::Status;

use super::*;
use crate::base::Glob;
use crate::domain::beat::Transport;
use crate::domain::labels::Labels;
use crate::domain::tracker::Cause;
use crate::services::recovery::planner::testing::transition;
use crate::services::recovery::rule::{SignalScope, Step};

const UP: Verdict = Verdict::Up(Status::Ok);
const NOTIFY: Action = Action::Notify;
const TERM: Action = Action::Signal(Signal::SIGTERM, SignalScope::Process);
const KILL: Action = Action::Signal(Signal::SIGKILL, SignalScope::Process);

fn command() -> Action {
    Action::Command("restart {name}".parse().unwrap(), Duration::from_secs(1))
}

fn rule(steps: impl IntoIterator<Item = (u64, Action)>) -> RecoveryRule {
    RecoveryRule {
        name: Glob::any(),
        labels: Vec::new(),
        states: vec![UnhealthyState::Stalled, UnhealthyState::Down],
        causes: Vec::new(),
        transports: Vec::new(),
        steps: steps
            .into_iter()
            .map(|(wait, action)| Step { wait: Duration::from_secs(wait), action })
            .collect(),
        debounce: Duration::from_secs(60),
        backoff: Duration::from_secs(30),
        attempts: 3,
        budget: "1000/1s".parse().unwrap(),
        min_healthy: None,
        give_up_retry: None,
        final_exit_statuses: Vec::new(),
    }
}

/// A planner and the time.
struct World {
    planner: Planner,
    /// In seconds.
    now: u64,
}

impl World {
    fn new(rules: impl IntoIterator<Item = RecoveryRule>) -> Self {
        World::with_budget(rules, "1000/1s")
    }

    fn with_budget(rules: impl IntoIterator<Item = RecoveryRule>, budget: &str) -> Self {
        let rules = rules.into_iter().map(Arc::new).collect();
        World { planner: Planner::new(rules, budget.parse().unwrap(), false), now: 100 }
    }

    fn tell(&mut self, pid: u32, to: Verdict, cause: Cause) {
        self.take(&transition(pid, to, cause));
    }

    fn take(&mut self, transition: &Transition) {
        self.planner.handle_transition(transition, MonoTime::from_secs(self.now));
    }

    fn stalls(&mut self, pid: u32) {
        self.tell(pid, Verdict::Stalled, Cause::Stopped);
    }

    fn recovers(&mut self, pid: u32) {
        self.tell(pid, UP, Cause::Recovered);
    }

    fn job(&mut self) -> Option<Job> {
        self.planner.poll_job(MonoTime::from_secs(self.now))
    }

    /// The next job, at the time at which it is due.
    fn next(&mut self) -> Job {
        for _ in 0..100_000 {
            if let Some(job) = self.job() {
                return job;
            }
            let due = self.planner.poll_timeout().expect("something is to come");
            self.now = self.now.max(due.as_nanos().div_ceil(1_000_000_000));
        }
        panic!("nothing comes of it");
    }

    fn comes(&mut self, job: &Job, outcome: ActionOutcome) {
        self.planner.handle_outcome(job.number, outcome, MonoTime::from_secs(self.now));
    }

    /// Completes the next job, and returns its time and action.
    fn does(&mut self) -> (u64, Action) {
        let job = self.next();
        self.comes(&job, ActionOutcome::Done);
        (self.now - 100, job.action().clone())
    }

    fn told(&mut self) -> Vec<Refusal> {
        std::iter::from_fn(|| self.planner.poll_told()).map(|told| told.refusal).collect()
    }

    #[track_caller]
    fn is_idle(&mut self) {
        assert!(self.job().is_none());
        assert_eq!((self.planner.poll_timeout(), self.planner.cases()), (None, 0));
    }
}

#[test]
fn steps_are_taken_in_order_each_after_its_wait() {
    let mut world = World::new([rule([(2, NOTIFY), (0, TERM), (5, KILL), (3, command())])]);
    world.stalls(1);
    assert!(world.job().is_none(), "the first step has a wait too");
    assert_eq!(world.does(), (2, NOTIFY));
    assert_eq!(world.does(), (2, TERM));
    assert_eq!(world.does(), (7, KILL));
    assert_eq!(world.does(), (10, command()));
}

#[test]
fn who_comes_back_between_two_steps_is_left_alone() {
    let mut world = World::new([rule([(0, TERM), (5, KILL)])]);
    world.stalls(1);
    assert_eq!(world.does(), (0, TERM));
    world.recovers(1);
    world.is_idle();
}

#[test]
fn who_comes_back_while_something_is_being_done_is_left_alone_afterwards() {
    let mut world = World::new([rule([(0, TERM), (5, KILL)])]);
    world.stalls(1);
    let job = world.next();
    world.recovers(1);
    world.comes(&job, ActionOutcome::Done);
    world.is_idle();
    // The late outcome is not taken for that of the next job.
    world.now += 1_000;
    world.stalls(1);
    let next = world.next();
    world.comes(&job, ActionOutcome::Withdrawn);
    world.comes(&next, ActionOutcome::Done);
    assert_eq!(world.does().1, KILL);
}

#[test]
fn a_process_that_ends_gets_no_more_signals_and_the_command_comes_at_once() {
    let mut world = World::new([rule([(0, TERM), (60, KILL), (2, command())])]);
    world.stalls(1);
    world.does();
    world.now += 1;
    world.tell(1, Verdict::Down, Cause::Killed { signal: 15 });
    assert_eq!(world.does(), (3, command()));
}

#[test]
fn one_that_ends_well_because_it_was_told_to_is_still_restarted() {
    let mut world = World::new([rule([(0, TERM), (60, KILL), (0, command())])]);
    world.stalls(1);
    world.does();
    world.tell(1, Verdict::Gone, Cause::Exited { code: Some(0) });
    assert_eq!(world.does(), (0, command()));
    // The process ended as requested, so there is no second attempt.
    world.is_idle();
}

#[test]
fn one_that_leaves_by_itself_is_let_go() {
    let mut world = World::new([rule([(10, command())])]);
    world.stalls(1);
    world.tell(1, Verdict::Gone, Cause::Goodbye { reason: None });
    world.is_idle();
}

#[test]
fn where_there_are_only_signals_a_process_that_has_ended_is_no_failure() {
    let mut world = World::new([rule([(0, TERM), (5, KILL)])]);
    world.stalls(1);
    world.does();
    world.tell(1, Verdict::Down, Cause::Killed { signal: 15 });
    world.is_idle();
    assert_eq!(world.told(), []);
}

#[test]
fn attempts_come_further_and_further_apart_and_then_it_is_given_up_once() {
    let mut world = World::new([RecoveryRule { debounce: Duration::ZERO, ..rule([(0, command())]) }]);
    world.stalls(1);
    let mut moments = Vec::new();
    for _ in 0..3 {
        moments.push(world.does().0);
    }
    assert_eq!(moments, [0, 30, 90]);
    assert!(world.planner.poll_job(MonoTime::from_secs(10_000)).is_none());
    assert_eq!(world.told(), [Refusal::GivenUp]);
    world.is_idle();
    // A worse state changes nothing; only a healthy period does.
    world.tell(1, Verdict::Down, Cause::Killed { signal: 9 });
    assert_eq!(world.told(), [Refusal::GivenUp]);
    world.now = 20_000;
    world.recovers(1);
    world.now += 599;
    world.stalls(1);
    assert_eq!(world.told(), [Refusal::GivenUp]);
    world.recovers(1);
    world.now += 601;
    world.stalls(1);
    world.does();
}

#[test]
fn who_falls_again_and_again_is_dealt_with_once_in_a_debounce() {
    let mut world = World::new([rule([(0, command())])]);
    let mut moments = Vec::new();
    for _ in 0..3 {
        world.stalls(1);
        moments.push(world.does().0);
        world.recovers(1);
    }
    assert_eq!(moments, [0, 60, 120]);
}

#[test]
fn who_takes_the_place_of_another_has_its_attempts() {
    let mut world = World::new([RecoveryRule { debounce: Duration::ZERO, ..rule([(0, command())]) }]);
    let mut moments = Vec::new();
    for pid in 1..=4 {
        world.tell(pid, Verdict::Down, Cause::Exited { code: Some(1) });
        if pid < 4 {
            moments.push(world.does().0);
        }
        let predecessor = Some(transition(pid, UP, Cause::Restarted).agent);
        world.take(&Transition { predecessor, ..transition(pid + 1, UP, Cause::Restarted) });
        world.is_idle();
    }
    assert_eq!(moments, [0, 30, 90], "a service that dies each time it is started");
    assert_eq!(world.told(), [Refusal::GivenUp]);
}

#[test]
fn no_more_is_done_than_the_budgets_allow_and_each_refusal_is_told_once() {
    let of_group = RecoveryRule { budget: "3/1h".parse().unwrap(), ..rule([(0, TERM)]) };
    let mut world = World::with_budget([of_group], "5/1h");
    for pid in 1..=500 {
        world.stalls(pid);
    }
    let mut done = 0;
    while let Some(job) = world.job() {
        world.comes(&job, ActionOutcome::Done);
        done += 1;
    }
    assert_eq!(done, 3);
    assert_eq!(world.told(), [Refusal::GroupBudget; 497]);
    world.now += 600;
    assert!(world.job().is_none());
    assert_eq!(world.told(), [Refusal::GroupBudget; 3], "of the three that it did not help");
    world.now += 100;
    assert!(world.job().is_none());
    assert_eq!(world.told(), []);
    let other = |pid| {
        let mut other = transition(pid, Verdict::Stalled, Cause::Stopped);
        other.agent.name = format!("other-{pid}").into();
        other
    };
    let mut done = 0;
    for pid in 1_001..=1_010 {
        world.take(&other(pid));
        while let Some(job) = world.job() {
            world.comes(&job, ActionOutcome::Done);
            done += 1;
        }
    }
    assert_eq!(done, 2, "of all agents together");
    assert_eq!(world.told(), [Refusal::Budget; 8]);
}

#[test]
fn what_was_not_done_costs_nothing() {
    let mut world = World::with_budget([rule([(0, TERM)])], "1/1h");
    for outcome in [ActionOutcome::Withdrawn, ActionOutcome::Skipped, ActionOutcome::Refused(Refusal::Remote)]
    {
        world.stalls(1);
        let job = world.next();
        world.comes(&job, outcome);
        world.recovers(1);
        world.now += 1_000;
    }
    world.stalls(2);
    world.does();
}

#[test]
fn what_may_pass_is_tried_again_and_what_may_not_is_over() {
    let mut world = World::new([rule([(0, TERM), (0, KILL)])]);
    world.stalls(1);
    for _ in 0..3 {
        let job = world.next();
        world.comes(&job, ActionOutcome::Refused(Refusal::Blind));
    }
    assert_eq!(world.told(), [Refusal::Blind]);
    assert_eq!(world.does(), (3, TERM));
    let job = world.next();
    world.comes(&job, ActionOutcome::Refused(Refusal::NotAttested));
    assert_eq!(world.told(), [Refusal::NotAttested]);
    world.is_idle();
}

#[test]
fn the_first_rule_that_fits_in_all_its_parts_counts() {
    let named = |name: &str, action| RecoveryRule { name: Glob::parse(name).unwrap(), ..rule([(0, action)]) };
    let mut world = World::new([
        named("other", KILL),
        RecoveryRule { labels: vec![("team".to_owned(), "search".to_owned())], ..named("*", KILL) },
        RecoveryRule { causes: vec!["busy"], ..named("*", KILL) },
        RecoveryRule { states: vec![UnhealthyState::Down], ..named("*", KILL) },
        RecoveryRule { transports: vec![Transport::Udp], ..named("*", KILL) },
        RecoveryRule {
            labels: vec![("team".to_owned(), "payments".to_owned())],
            causes: vec!["stopped"],
            ..named("work*", TERM)
        },
        named("*", KILL),
    ]);
    world.stalls(1);
    assert_eq!(world.does().1, TERM);
    world.tell(2, Verdict::Up(Status::Critical), Cause::Reported);
    assert!(world.planner.cases() == 1, "no rule is for that");
}

#[test]
fn other_rules_count_for_who_falls_from_then_on() {
    let mut world = World::new([rule([(0, TERM), (5, KILL)])]);
    world.stalls(1);
    world.does();
    let Planner { budget, allows_remote, .. } = world.planner;
    world.planner.handle_options(vec![Arc::new(rule([(0, command())]))], budget, allows_remote);
    assert_eq!(world.does().1, KILL);
    world.stalls(2);
    assert_eq!(world.does().1, command());
}

#[test]
fn without_labels_nobody_has_one() {
    let wants = RecoveryRule { labels: vec![("team".to_owned(), String::new())], ..rule([(0, TERM)]) };
    let mut world = World::new([wants]);
    let plain = Transition { labels: Labels::default(), ..transition(1, Verdict::Stalled, Cause::Stopped) };
    world.take(&plain);
    world.is_idle();
}

proptest! {
    /// After any sequence of events: an agent has at most one job at a time, healthy agents get none, no
    /// budget is overdrawn, and once all agents are healthy no state is left.
    #[test]
    fn nothing_is_done_that_should_not_be(happens in prop::collection::vec((0..6_u8, 1..6_u32, 0..40_u64), 1..200)) {
        let budget = "4/20s";
        let with_budget = RecoveryRule { budget: "3/30s".parse().unwrap(), ..rule([(0, TERM), (5, KILL), (0, command())]) };
        let mut world = World::with_budget([with_budget], budget);
        let mut bad = [false; 6];
        let mut jobs: Vec<Job> = Vec::new();
        let mut done: Vec<u64> = Vec::new();
        for (what, pid, passes) in happens {
            world.now += passes;
            match what {
                0 | 1 => {
                    world.stalls(pid);
                    bad[pid as usize] = true;
                }
                2 => {
                    world.recovers(pid);
                    bad[pid as usize] = false;
                }
                3 => {
                    world.tell(pid, Verdict::Down, Cause::Killed { signal: 9 });
                    bad[pid as usize] = true;
                }
                _ => {
                    if let Some(job) = jobs.pop() {
                        let outcome = match (what, pid) {
                            (4, _) => ActionOutcome::Done,
                            (_, 1) => ActionOutcome::Skipped,
                            (_, 2) => ActionOutcome::Withdrawn,
                            (_, 3) => ActionOutcome::Refused(Refusal::Paused),
                            _ => ActionOutcome::Refused(Refusal::Argument),
                        };
                        if outcome == ActionOutcome::Done {
                            done.push(world.now);
                        }
                        world.comes(&job, outcome);
                    }
                }
            }
            while let Some(job) = world.job() {
                let pid = job.transition.agent.pid;
                prop_assert!(bad[pid as usize], "{pid} is well");
                prop_assert!(job.attempt <= 3);
                jobs.push(job);
            }
            let mut acting: Vec<u64> = jobs.iter().map(|job| job.number).collect();
            acting.dedup();
            prop_assert_eq!(acting.len(), jobs.len());
            world.told();
        }
        for start in &done {
            let within = done.iter().filter(|at| (*start..start + 30).contains(*at)).count();
            prop_assert!(within <= 3 * 2 + jobs.len(), "{} within a budget's time", within);
        }
        for pid in 1..6 {
            world.recovers(pid);
        }
        for job in jobs {
            world.comes(&job, ActionOutcome::Done);
        }
        world.is_idle();
    }
}
