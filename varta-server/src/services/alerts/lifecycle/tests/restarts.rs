//! Alerts across a restart of the server.

use crate::domain::tracker::Verdict;
use crate::services::alerts::alert::Id;
use crate::services::alerts::lifecycle::tests::*;

impl World {
    /// The next run of the server, with what this one persisted.
    fn restart(&mut self) -> World {
        let kept = self.book.kept(self.now());
        // Through the format of the file.
        let kept = serde_json::from_str(&serde_json::to_string(&kept).unwrap()).unwrap();
        let mut next = World::new();
        // The monotonic clock restarts, and the wall clock goes on.
        next.seconds = self.seconds;
        assert_eq!(next.book.restore(kept, next.now()), 0);
        next.settle();
        next
    }

    fn sweep_of(&mut self, found: &[(u32, Verdict)]) {
        self.book.begin_sweep();
        for (pid, verdict) in found {
            let found = self.transition(*pid, *verdict);
            self.book.handle_found(&found, false, self.now());
        }
        assert!(self.book.end_sweep(self.now()));
        self.settle();
    }

    /// Confirms all notifications to the receivers of notices.
    fn all_told(&mut self) {
        for alert in self.firing() {
            self.book.handle_said(Id::of(&alert));
        }
    }
}

#[test]
fn what_is_still_broken_goes_on_as_it_was_and_is_not_said_again() {
    let mut world = World::new();
    world.becomes(1, Verdict::Stalled);
    world.becomes(2, Verdict::Down);
    world.all_told();
    let before = world.firing();
    let mut next = world.restart();
    assert_eq!(next.firing(), before);
    next.sweep_of(&[(1, Verdict::Stalled), (2, Verdict::Down)]);
    assert_eq!(next.firing(), before);
    assert_eq!(next.said, []);
    next.becomes(2, UP);
    assert_eq!(next.said, [(Kind::Resolved, 2)]);
}

#[test]
fn what_was_mended_meanwhile_ends_and_what_is_not_judged_yet_waits() {
    let mut world = World::new();
    for pid in 1..=3 {
        world.becomes(pid, Verdict::Up(Status::Critical));
    }
    world.all_told();
    let mut next = world.restart();
    next.sweep_of(&[(1, Verdict::Expected), (2, Verdict::Expected)]);
    assert_eq!(next.said, [(Kind::Resolved, 3)]);
    next.becomes(1, UP);
    next.becomes(2, Verdict::Stalled);
    assert_eq!(next.said[1..], [(Kind::Resolved, 1)]);
    next.only();
}

#[test]
fn what_was_not_told_is_told_by_the_next_server_under_the_same_id() {
    let mut world = World::new();
    world.becomes(1, Verdict::Stalled);
    let first = Id::of(&world.only()).delivery("firing on");
    let kept = world.book.kept(world.now());
    let mut next = World::new();
    next.book.restore(kept, world.now());
    let delivery = next.book.poll_delivery().unwrap();
    assert_eq!((delivery.id, delivery.kind), (first, Kind::Firing));

    world.becomes(1, UP);
    let next = world.restart();
    assert_eq!(next.said, [(Kind::Resolved, 1)], "nobody reported that it was told");
    assert_eq!(next.book.ended.len(), 1, "nor that the Alertmanager was");
}

#[test]
fn an_end_is_repeated_by_the_next_server_for_what_is_left_of_its_time() {
    let mut world = World::new();
    world.becomes(1, Verdict::Down);
    let id = Id::of(&world.only());
    world.becomes(1, UP);
    world.book.handle_ended(id, 0);
    world.book.handle_said_ended(id);
    world.seconds += 600;
    let before = world.book.poll_board().unwrap().ended;
    let mut next = world.restart();
    assert_eq!(next.book.poll_board().unwrap().ended, before);
    assert_eq!(next.said, [], "the webhook has it");
    next.book.handle_ended(id, 0);
    let ended_at = before[0].ends_at.unwrap();
    let left = REPEAT_FOR - next.now().wall.since(ended_at);
    next.pass(left - Duration::from_secs(1));
    assert_eq!(next.book.ended.len(), 1);
    next.pass(Duration::from_secs(1));
    assert!(next.book.ended.is_empty());
}

#[test]
fn one_that_got_worse_is_told_by_the_next_server_under_the_same_id() {
    let mut world = World::new();
    world.becomes(1, Verdict::Stalled);
    world.all_told();
    world.becomes(1, Verdict::Down);
    let id = Id::of(&world.only()).delivery("escalated on");
    let kept = world.book.kept(world.now());
    let mut next = World::new();
    assert_eq!(next.book.restore(kept, world.now()), 0);
    let delivery = next.book.poll_delivery().unwrap();
    assert_eq!((delivery.id, delivery.kind), (id, Kind::Escalated));
    assert_eq!(next.book.poll_delivery(), None, "the former one has ended by it");
}

#[test]
fn members_of_an_incident_are_found_again() {
    let mut world = World::new();
    for pid in 1..=50 {
        let fallen = member(&world, pid, Verdict::Stalled, u64::from(pid >= 10));
        world.hand_in(&fallen);
    }
    world.all_told();
    let mut next = world.restart();
    next.pass(Duration::from_secs(60));
    assert_eq!(next.firing().len(), 10);
    let found: Vec<_> = (1..=50).map(|pid| (pid, Verdict::Stalled)).collect();
    next.sweep_of(&found);
    assert_eq!((next.firing().len(), next.said.len()), (10, 0));
    next.sweep_of(&found[..9]);
    next.pass(Duration::from_secs(3));
    assert_eq!(next.firing().len(), 9);
    assert_eq!(next.said, [(Kind::Incident, 0)]);
}

#[test]
fn an_incident_of_which_nobody_is_found_is_over() {
    let mut world = World::new();
    let fallen = member(&world, 10, Verdict::Down, 1);
    world.hand_in(&fallen);
    let mut next = world.restart();
    next.sweep_of(&[]);
    next.pass(Duration::from_secs(3));
    assert_eq!(next.firing(), []);
}

#[test]
fn one_that_flaps_still_does() {
    let mut world = World::new();
    for _ in 0..3 {
        world.becomes(7, Verdict::Stalled);
        world.becomes(7, UP);
    }
    world.all_told();
    let mut next = world.restart();
    next.sweep_of(&[(7, Verdict::Expected)]);
    next.becomes(7, UP);
    assert!(next.only().is_flapping);
    next.pass(WINDOW);
    assert_eq!(next.firing(), []);
    assert_eq!(next.said, [(Kind::Resolved, 7)]);
}

#[test]
fn what_makes_no_sense_is_passed_over() {
    let mut world = World::new();
    world.becomes(1, Verdict::Stalled);
    let kept = world.book.kept(world.now());
    let json = serde_json::to_value(&kept[0]).unwrap();
    let with = |change: &dyn Fn(&mut serde_json::Value)| {
        let mut json = json.clone();
        change(&mut json);
        serde_json::from_value::<PersistedAlert>(json).unwrap()
    };
    let senseless = vec![
        with(&|json| json["alert"]["labels"] = serde_json::json!({})),
        with(&|json| json["alert"]["starts_at"] = "9999-01-01T00:00:00.000Z".into()),
        with(&|json| json["alert"]["ends_at"] = "1999-01-01T00:00:00.000Z".into()),
        with(&|json| json["falls"] = vec!["2027-01-15T08:00:00Z"; 1_001].into()),
    ];
    let mut next = World::new();
    assert_eq!(next.book.restore(senseless, next.now()), 4);
    let twice = vec![with(&|_| {}), with(&|_| {}), with(&|json| json["alert"]["labels"]["x"] = "y".into())];
    assert_eq!(next.book.restore(twice, next.now()), 2, "one agent has one alert");
    next.only();
    let many: Vec<_> = (0..2_000)
        .map(|number| {
            with(&|json| {
                json["alert"]["labels"]["pid"] = number.to_string().into();
                json["alert"]["subject"]["agent"]["pid"] = (number + 10).into();
            })
        })
        .collect();
    assert!(World::new().book.restore(many, world.now()) >= 1_000, "there is a bound");
}
