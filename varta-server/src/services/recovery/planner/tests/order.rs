//! Events in an unexpected order, and jobs that run concurrently.

use crate::services::recovery::planner::tests::*;

#[test]
fn one_that_ends_well_before_it_is_known_that_the_signal_was_sent_is_restarted_too() {
    let mut world = World::new([rule([(0, TERM), (60, KILL), (0, command())])]);
    world.stalls(1);
    let job = world.next();
    world.tell(1, Verdict::Gone, Cause::Exited { code: Some(0) });
    world.comes(&job, ActionOutcome::Done);
    assert_eq!(world.does(), (0, command()));
    world.is_idle();
    // Unless it turns out that it left by itself.
    world.now += 1_000;
    world.stalls(2);
    let job = world.next();
    world.tell(2, Verdict::Gone, Cause::Goodbye { reason: None });
    world.comes(&job, ActionOutcome::Skipped);
    world.is_idle();
}

#[test]
fn a_state_for_which_a_rule_is_not_ends_what_goes_on_by_it_and_another_rule_may_begin() {
    let of = |states: &[UnhealthyState], steps: [(u64, Action); 2]| RecoveryRule {
        states: states.into(),
        ..rule(steps)
    };
    let mut world = World::new([
        of(&[UnhealthyState::Stalled], [(0, NOTIFY), (600, TERM)]),
        of(&[UnhealthyState::Down], [(0, command()), (0, NOTIFY)]),
    ]);
    world.stalls(1);
    assert_eq!(world.does(), (0, NOTIFY));
    world.tell(1, Verdict::Up(Status::Critical), Cause::Recovered);
    world.is_idle();
    world.stalls(1);
    assert_eq!(world.does(), (0, NOTIFY));
    world.tell(1, Verdict::Down, Cause::Killed { signal: 9 });
    assert_eq!(world.does(), (0, command()));
}

#[test]
fn an_attempt_counts_also_when_its_end_comes_after_the_agent_is_back() {
    let mut world = World::new([RecoveryRule { debounce: Duration::ZERO, ..rule([(0, command())]) }]);
    for pid in 1..=3 {
        world.tell(pid, Verdict::Down, Cause::Exited { code: Some(1) });
        let job = world.next();
        let predecessor = Some(transition(pid, UP, Cause::Restarted).agent);
        world.take(&Transition { predecessor, ..transition(pid + 1, UP, Cause::Restarted) });
        world.comes(&job, ActionOutcome::Done);
    }
    world.tell(4, Verdict::Down, Cause::Exited { code: Some(1) });
    assert!(world.job().is_none());
    assert_eq!(world.told(), [Refusal::GivenUp]);
}

#[test]
fn what_comes_to_nothing_is_no_attempt() {
    let mut world = World::new([rule([(0, TERM)])]);
    for _ in 0..10 {
        world.stalls(1);
        let job = world.next();
        assert_eq!((job.attempt, world.now), (1, 100));
        world.comes(&job, ActionOutcome::Withdrawn);
        world.recovers(1);
    }
}

#[test]
fn commands_for_agents_of_one_name_are_run_one_after_the_other() {
    let mut world = World::new([rule([(0, command())])]);
    (1..=8).for_each(|pid| world.stalls(pid));
    let first = world.next();
    assert!(world.job().is_none());
    for pid in 2..=8 {
        world.recovers(pid);
    }
    world.comes(&first, ActionOutcome::Done);
    assert!(world.job().is_none());
    assert_eq!((world.planner.cases(), world.told().len()), (1, 0));
}

#[test]
fn who_was_missed_and_comes_is_missed_no_more() {
    let mut world =
        World::new([RecoveryRule { states: vec![UnhealthyState::Expected], ..rule([(60, command())]) }]);
    let mut missing = transition(0, Verdict::Expected, Cause::NeverSeen);
    missing.process = None;
    world.take(&missing);
    assert_eq!(world.planner.cases(), 1);
    world.take(&Transition { from: Some(Verdict::Expected), ..transition(7, UP, Cause::FirstBeat) });
    world.is_idle();
}

#[test]
fn agents_of_other_hosts_cost_nothing_while_they_are_left_alone() {
    let mut world = World::with_budget([rule([(0, NOTIFY), (0, TERM), (0, command())])], "1/1h");
    let mut remote = transition(1, Verdict::Stalled, Cause::Unreachable);
    remote.agent.origin = Origin::Udp([10, 0, 0, 1].into());
    world.take(&remote);
    assert_eq!(world.does().1, NOTIFY);
    assert!(world.job().is_none());
    assert_eq!(world.told(), [Refusal::Remote]);
    world.stalls(2);
    world.does();
    assert_eq!(world.does().1, TERM);
    // With remote recovery on, there are no signals and the command runs.
    let rules = vec![Arc::new(rule([(0, TERM), (0, command())]))];
    world.planner = Planner::new(rules, "9/1h".parse().unwrap(), true);
    world.take(&remote);
    let job = world.next();
    world.comes(&job, ActionOutcome::Skipped);
    assert_eq!(world.does().1, command());
}
