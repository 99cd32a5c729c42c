//! Agents that no attempt has helped, and those that say that none will.

use super::*;

const HOUR: u64 = 3_600;

fn patient() -> RecoveryRule {
    RecoveryRule { give_up_retry: Some(Duration::from_secs(6 * HOUR)), ..rule([(0, command())]) }
}

#[test]
fn who_was_given_up_gets_one_more_attempt_each_time_that_the_rule_says() {
    let mut world = World::new([patient()]);
    world.stalls(1);
    let mut at: Vec<u64> = (0..5).map(|_| world.does().0).collect();
    assert_eq!(at.split_off(3), [at[2] + 6 * HOUR, at[2] + 12 * HOUR]);
    // After the third attempt, and after the fourth: after the fifth only when the backoff is over.
    assert_eq!(world.told(), [Refusal::GivenUp, Refusal::GivenUp]);
    world.recovers(1);
    world.is_idle();
    world.now += 700;
    world.stalls(1);
    assert_eq!(world.does().0 + 100, world.now, "it has been well for long");
}

#[test]
fn who_was_given_up_and_falls_anew_waits_for_the_same_moment() {
    let mut world = World::new([patient()]);
    world.stalls(1);
    let [_, _, last] = [(); 3].map(|()| world.does().0);
    world.recovers(1);
    world.now += 10;
    world.tell(1, Verdict::Down, Cause::Panicked);
    assert_eq!(world.told(), [Refusal::GivenUp]);
    world.recovers(1);
    world.now += 10;
    world.stalls(1);
    assert_eq!(world.does().0, last + 6 * HOUR);
}

#[test]
fn who_says_by_its_exit_status_that_it_is_not_to_be_started_is_left_alone_by_all_rules() {
    let first = RecoveryRule { final_exit_statuses: vec![78], ..rule([(0, command())]) };
    let mut world = World::new([first, rule([(0, command())])]);
    world.tell(1, Verdict::Down, Cause::Exited { code: Some(78) });
    assert_eq!(world.told(), [Refusal::FinalExitStatus]);
    world.is_idle();
    for (pid, code) in [(2, Some(1)), (3, None)] {
        world.tell(pid, Verdict::Down, Cause::Exited { code });
        world.does();
    }
    assert_eq!(world.told(), []);
}
