//! What a planner goes on with after a restart of the server.

use super::*;
use crate::services::recovery::planner::estate::{LeftEpisodes, PlannerEstate};

/// The planner of the next server, whose clock has started so many seconds after that of `before`, and what it was about
/// to do.
fn next(before: &World, rules: impl IntoIterator<Item = RecoveryRule>, later: u64) -> (World, LeftEpisodes) {
    // As it is written down.
    let left = serde_json::to_vec(&before.planner.leave()).unwrap();
    let mut left: PlannerEstate = serde_json::from_slice(&left).unwrap();
    left.shift(7, 7 + later * 1_000_000_000);
    let mut next = World::new(rules);
    next.now = before.now.saturating_sub(later);
    let episodes = next.planner.inherit(left);
    (next, episodes)
}

fn found(pid: u32) -> Transition {
    Transition { stall_after: Duration::from_secs(20), ..transition(pid, Verdict::Stalled, Cause::Silent) }
}

impl World {
    fn meets(&mut self, found: &Transition) {
        self.planner.meet(found, MonoTime::from_secs(self.now));
    }
}

#[test]
fn an_episode_goes_on_at_its_time_and_with_its_attempts() {
    let rule = || RecoveryRule { causes: vec!["stopped"], ..rule([(0, TERM), (50, command())]) };
    let mut world = World::new([rule()]);
    world.stalls(1);
    assert_eq!(world.does(), (0, TERM));
    world.now += 30;
    let (mut next, mut episodes) = next(&world, [rule()], 90);
    assert_eq!(next.now, 40);
    // The cause is not known any more.
    let left = episodes.remove(&AgentKey::of(&found(1).agent)).unwrap();
    next.planner.take_up(&found(1), &left);
    let job = next.next();
    assert_eq!((next.now, job.action(), job.attempt), (60, &command(), 1));
    assert!(job.was_signalled);
}

#[test]
fn who_was_given_up_or_is_not_to_be_started_stays_so_and_nobody_is_told_again() {
    let rule = || RecoveryRule { final_exit_statuses: vec![78], ..rule([(0, command())]) };
    let mut world = World::new([rule()]);
    world.stalls(1);
    world.tell(2, Verdict::Down, Cause::Exited { code: Some(78) });
    for _ in 0..3 {
        world.does();
    }
    while world.planner.cases() > 0 {
        world.now += 60;
        assert!(world.job().is_none());
    }
    assert_eq!(world.told(), [Refusal::FinalExitStatus, Refusal::GivenUp]);
    let (mut next, episodes) = next(&world, [rule()], 60);
    assert!(episodes.is_empty());
    next.meets(&found(1));
    next.meets(&transition(2, Verdict::Down, Cause::Exited { code: None }));
    next.is_idle();
    assert_eq!(next.told(), []);
    // Once it was well, it is acted on as any other.
    next.recovers(2);
    next.tell(2, Verdict::Down, Cause::Panicked);
    next.does();
}

#[test]
fn who_was_in_a_bad_state_before_is_acted_on_if_it_has_not_beaten_within_its_deadline() {
    let mut world = World::new([rule([(0, command())])]);
    world.meets(&found(1));
    world.meets(&found(2));
    assert_eq!(world.planner.poll_timeout(), Some(MonoTime::from_secs(120)));
    world.now += 10;
    world.recovers(2);
    assert_eq!(world.does(), (20, command()));
    world.recovers(1);
    world.is_idle();
}

#[test]
fn what_was_spent_of_budgets_is_spent_after_a_restart() {
    let rules = || [rule([(0, command())])];
    let mut world = World::with_budget(rules(), "1/1h");
    world.stalls(1);
    world.does();
    let (mut next, _) = next(&world, rules(), 100);
    next.planner.handle_options(rules().map(Arc::new).into(), "1/1h".parse().unwrap(), false);
    next.stalls(2);
    assert!(next.job().is_none());
    assert_eq!(next.told(), [Refusal::Budget]);
    assert_eq!(next.does().0 + 100, 3_600, "an hour after it was spent");
}
