//! Acknowledged alarms: nothing more is sent about them until the state of their agents changes.

use crate::base::Glob;
use crate::domain::AgentPattern;
use crate::domain::agent_key::AgentKey;
use crate::domain::tracker::{ForgetReason, Forgotten};
use crate::services::alerts::lifecycle::Acknowledged;
use crate::services::alerts::lifecycle::tests::*;
use crate::services::maintenance::Reason;
use crate::services::maintenance::acks::{AckedBy, MAX_ACKS};

impl World {
    /// User 7 acknowledges the alarm of an agent, as a query finds it.
    fn acknowledge(&mut self, pid: u32, verdict: Verdict) -> Acknowledged {
        let found = self.transition(pid, verdict);
        let reason = Some(Reason::parse("on it").unwrap());
        self.book.acknowledge(&found, &AckedBy { uid: 7, reason, at: self.now().wall })
    }

    /// The annotation of the only alert.
    fn annotation(&mut self) -> Option<String> {
        self.only().annotations.get("acknowledged").cloned()
    }

    fn acks(&self) -> usize {
        self.book.kept_acks().len()
    }
}

#[test]
fn an_acknowledged_alert_fires_on_and_says_who_why_and_when_until_the_state_changes() {
    for (next, said) in [
        (UP, vec![Kind::Firing, Kind::Resolved]),
        (Verdict::Down, vec![Kind::Firing, Kind::Escalated]),
        (Verdict::Up(Status::Critical), vec![Kind::Firing, Kind::Escalated]),
    ] {
        let mut world = World::new();
        world.becomes(7, Verdict::Stalled);
        let when = world.now().wall;
        assert_eq!(world.acknowledge(7, Verdict::Stalled), Acknowledged::Done);
        assert_eq!(world.annotation(), Some(format!("by uid 7 at {when}: on it")));
        assert_eq!(world.book.poll_acks().map(|agents| agents.len()), Some(1));
        // Whether it is still so is not known for a while.
        world.becomes(7, Verdict::Unknown);
        world.becomes(7, Verdict::Stalled);
        assert!(world.annotation().is_some());
        world.becomes(7, next);
        assert_eq!((world.acks(), world.book.poll_acks().map(|agents| agents.len())), (0, Some(0)));
        assert!(
            world.firing().iter().all(|alert| !alert.annotations.contains_key("acknowledged")),
            "{next:?}"
        );
        assert_eq!(world.said.iter().map(|(kind, _)| *kind).collect::<Vec<_>>(), said);
        // The same state once more is another.
        world.becomes(7, UP);
        world.said.clear();
        world.becomes(7, Verdict::Stalled);
        assert_eq!(world.said[0], (Kind::Firing, 7));
    }
}

#[test]
fn only_an_alarm_that_is_one_is_acknowledged_and_a_second_time_replaces_the_first() {
    let mut world = World::new();
    assert_eq!(world.acknowledge(7, UP), Acknowledged::NotInAlarm);
    assert_eq!(world.acknowledge(7, Verdict::Unknown), Acknowledged::NotInAlarm);
    world.becomes(7, Verdict::Up(Status::Critical));
    world.becomes(7, Verdict::Stalled);
    // What the tracker said before it changed.
    assert_eq!(world.acknowledge(7, Verdict::Up(Status::Critical)), Acknowledged::NotInAlarm);
    assert_eq!(world.acknowledge(7, Verdict::Stalled), Acknowledged::Done);
    world.seconds += 5;
    assert_eq!(world.acknowledge(7, Verdict::Stalled), Acknowledged::Done);
    let when = world.now().wall;
    assert_eq!((world.acks(), world.annotation()), (1, Some(format!("by uid 7 at {when}: on it"))));
}

#[test]
fn what_is_taken_back_is_as_if_it_had_not_been() {
    let mut world = World::new();
    world.becomes(7, Verdict::Stalled);
    let before = world.only();
    world.acknowledge(7, Verdict::Stalled);
    assert_eq!(world.book.take_back(&AgentPattern::parse("other").unwrap()), []);
    let taken = world.book.take_back(&AgentPattern::parse("7").unwrap());
    assert_eq!(taken.iter().map(|agent| agent.pid).collect::<Vec<_>>(), [7]);
    assert_eq!((world.only(), world.acks()), (before, 0));
}

#[test]
fn after_a_pause_the_alert_fires_again_without_a_word() {
    let mut world = World::new();
    world.becomes(7, Verdict::Stalled);
    world.acknowledge(7, Verdict::Stalled);
    let pattern = Glob::parse("worker").unwrap();
    world.book.handle_pauses(|name| pattern.matches(name), world.now());
    world.settle();
    world.book.begin_sweep();
    let found = world.transition(7, Verdict::Stalled);
    world.book.handle_found(&found, false, world.now());
    assert!(world.book.end_sweep(world.now()));
    world.settle();
    assert!(world.annotation().is_some());
    assert_eq!(world.said, [(Kind::Firing, 7), (Kind::Paused, 7)]);
    assert_eq!(world.book.take_unsent(), 1);
}

#[test]
fn who_is_forgotten_replaced_or_not_found_any_more_is_not_acknowledged_any_more() {
    let mut world = World::new();
    for pid in 7..10 {
        world.becomes(pid, Verdict::Stalled);
        world.acknowledge(pid, Verdict::Stalled);
    }
    let forgotten = Forgotten { agent: world.transition(7, UP).agent, reason: ForgetReason::Expired };
    world.book.handle_forgotten(&forgotten, world.now());
    let successor =
        Transition { predecessor: Some(world.transition(8, UP).agent), ..world.transition(80, UP) };
    world.hand_in(&successor);
    assert_eq!(world.acks(), 1);
    world.book.begin_sweep();
    assert!(world.book.end_sweep(world.now()));
    assert_eq!(world.acks(), 0);
}

#[test]
fn acknowledgements_outlive_the_server_and_there_is_a_bound() {
    let mut world = World::new();
    world.becomes(7, Verdict::Stalled);
    world.acknowledge(7, Verdict::Stalled);
    let text = serde_json::to_string(&(world.book.kept_acks(), world.book.kept(world.now()))).unwrap();
    let (acks, alerts) = serde_json::from_str(&text).unwrap();
    let mut next = World::new();
    assert_eq!((next.book.restore_acks(acks), next.book.restore(alerts, world.now())), (0, 0));
    assert_eq!(next.annotation(), world.annotation());
    assert!(next.book.poll_acks().unwrap().contains(&AgentKey::of(&world.transition(7, UP).agent)));
    // Its deadline runs anew, and it is silent as before.
    next.becomes(7, Verdict::Expected);
    next.becomes(7, Verdict::Stalled);
    assert_eq!(next.acks(), 1);

    for pid in 8..8 + u32::try_from(MAX_ACKS).unwrap() {
        world.becomes(pid, Verdict::Stalled);
        let full = world.acks() == MAX_ACKS;
        let expected = if full { Acknowledged::Full } else { Acknowledged::Done };
        assert_eq!(world.acknowledge(pid, Verdict::Stalled), expected);
    }
    let mut acks = world.book.kept_acks();
    acks.extend(acks.clone());
    assert_eq!(World::new().book.restore_acks(acks), MAX_ACKS);
}
