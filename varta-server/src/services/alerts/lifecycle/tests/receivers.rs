//! Receivers that come and go while alerts fire.

use super::*;

fn receivers(alertmanagers: impl IntoIterator<Item = usize>, notices: bool) -> Receivers {
    Receivers { alertmanagers: alertmanagers.into_iter().collect(), notices }
}

impl World {
    fn tell(&mut self, receivers: Receivers) -> usize {
        let now = self.now();
        let untold = self.book.handle_receivers(receivers, FlapDetection { limit: 3, window: WINDOW }, now);
        self.pass(Duration::ZERO);
        untold
    }
}

#[test]
fn no_alert_begins_or_ends_because_receivers_are_others() {
    let mut world = World::new();
    world.becomes(7, Verdict::Down);
    let (before, said) = (world.only(), world.said.clone());
    for others in [receivers([], false), receivers([1, 2], true), receivers([0], true)] {
        assert_eq!(world.tell(others), 0);
        assert_eq!((world.only(), &world.said), (Arc::clone(&before), &said));
    }
    world.becomes(7, UP);
    assert_eq!((world.firing().len(), world.said.last()), (0, Some(&(Kind::Resolved, 7))));
}

#[test]
fn who_is_gone_is_waited_for_no_more_and_what_it_is_not_told_is_counted() {
    let mut world = World::new();
    world.tell(receivers([0, 1], true));
    world.becomes(7, Verdict::Down);
    world.becomes(7, UP);
    let id = Id::of(&world.book.ended.values().next().unwrap().alert);
    world.book.handle_ended(id, 0);
    world.book.handle_said_ended(id);
    assert_eq!(world.tell(receivers([0], true)), 1, "number 1 did not have the end");
    assert_eq!(world.book.take_untold(), 1);
    world.pass(REPEAT_FOR);
    assert!(world.book.ended.is_empty(), "all that are left have it");
    // One that comes with an end still there owes it nothing.
    world.becomes(8, Verdict::Down);
    world.becomes(8, UP);
    assert_eq!(world.tell(receivers([], false)), 1);
    world.pass(REPEAT_FOR);
    assert!(world.book.ended.is_empty());
}

#[test]
fn what_fires_is_told_to_the_first_receivers_of_notices_and_noted_and_to_others_only_told() {
    let mut world = World::new();
    world.tell(receivers([0], false));
    world.becomes(7, Verdict::Down);
    world.becomes(8, Verdict::Stalled);
    assert_eq!(world.said, []);
    world.tell(receivers([0], true));
    let now = world.now();
    let told = world.book.notices_of_firing(true, now);
    assert!(told.iter().all(|notice| notice.kind == Kind::Firing && !notice.is_end));
    for notice in &told {
        world.book.handle_said(notice.about.unwrap());
    }
    assert!(told.len() == 2 && world.firing().iter().all(|alert| alert.is_said));
    let again = world.book.notices_of_firing(false, now);
    assert_eq!(again.iter().filter(|notice| notice.about.is_none()).count(), 2);
    assert_eq!(again[0].id, told[0].id, "a receiver that has it already knows it again");
}
