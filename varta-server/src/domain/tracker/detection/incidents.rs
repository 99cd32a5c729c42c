//! Incidents: that many agents of one place fall together is one thing that happened, and not as many as there are agents.
//!
//! An incident begins when enough agents from one origin have come to the same verdict within a moment, and goes on as
//! long as more of them follow one another closely. Whoever acts or tells can then do so once.

use std::num::NonZeroU64;
use std::time::Duration;

use crate::base::time::MonoTime;
use crate::domain::tracker::agents::origins::SourceId;
use crate::domain::tracker::verdicts::incident::Incident;
use crate::domain::tracker::verdicts::verdict::Verdict;

/// So many agents of one origin, each within [`CLOSE`] of the one before and all within it, make an incident.
pub(in crate::domain::tracker) const LEAST: u32 = 10;
/// What comes within this time belongs together.
const CLOSE: Duration = Duration::from_secs(1);
/// When one that does not end begins to be another one.
const LONGEST: Duration = Duration::from_secs(60);
/// Places where something may be going on at once. Beyond it the one where nothing happened for longest is forgotten.
const MOST_PLACES: usize = 64;

/// Something that may become an incident, or is one.
#[derive(Debug)]
struct Place {
    source: SourceId,
    verdict: usize,
    began_at: MonoTime,
    last_at: MonoTime,
    agents: u32,
    number: Option<NonZeroU64>,
    /// When those will have used it up that fell silent with the others and were given a second chance.
    open_until: MonoTime,
}

/// What is going on at present.
#[derive(Debug, Default)]
pub(in crate::domain::tracker) struct Incidents {
    places: Vec<Place>,
    /// How many there were.
    count: u64,
}

impl Incidents {
    /// Takes note that an agent from `source` has come to a verdict at `at`, and says of which incident that is a part.
    pub(in crate::domain::tracker) fn note(
        &mut self,
        source: SourceId,
        verdict: Verdict,
        at: MonoTime,
    ) -> Option<Incident> {
        let verdict = verdict.index();
        let known = self.places.iter().position(|place| place.source == source && place.verdict == verdict);
        let fresh =
            Place { source, verdict, began_at: at, last_at: at, agents: 0, number: None, open_until: at };
        let place = match known {
            Some(known) => {
                let place = &mut self.places[known];
                let limit = if place.number.is_some() { LONGEST } else { CLOSE };
                let is_close = at.since(place.last_at.max(place.open_until)) <= CLOSE;
                let is_held_open = place.number.is_some() && at <= place.open_until + CLOSE;
                if !is_close || at.since(place.began_at) > limit && !is_held_open {
                    *place = fresh;
                }
                place
            }
            None => {
                if self.places.len() >= MOST_PLACES
                    && let Some(oldest) =
                        (0..self.places.len()).min_by_key(|place| self.places[*place].last_at)
                {
                    self.places.swap_remove(oldest);
                }
                self.places.push(fresh);
                self.places.last_mut()?
            }
        };
        place.agents = place.agents.saturating_add(1);
        place.last_at = at;
        if place.agents == LEAST {
            self.count += 1;
            place.number = NonZeroU64::new(self.count);
        }
        let Place { agents, open_until, .. } = *place;
        place.number.map(|number| Incident { number, agents, open_until })
    }

    /// Takes note that an agent fell silent at `at` that is given a second chance until then. If it does not use it, it is
    /// a part of what goes on now.
    pub(in crate::domain::tracker) fn hold_open(
        &mut self,
        source: SourceId,
        verdict: Verdict,
        at: MonoTime,
        until: MonoTime,
    ) {
        let verdict = verdict.index();
        let is_it = |place: &&mut Place| place.source == source && place.verdict == verdict;
        if let Some(place) = self.places.iter_mut().find(is_it)
            && at.since(place.last_at) <= CLOSE
            && at.since(place.began_at) <= LONGEST
        {
            // What is given longer than an incident may last is not waited for.
            place.open_until = place.open_until.max(until.min(place.began_at + LONGEST));
        }
    }

    /// How many there were.
    pub(in crate::domain::tracker) fn count(&self) -> u64 {
        self.count
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(incidents: &mut Incidents, moments: impl IntoIterator<Item = u64>) -> Vec<Option<u64>> {
        let note = |millis| {
            let at = MonoTime::from_millis(millis);
            incidents.note(SourceId::LOCAL, Verdict::Stalled, at).map(|incident| incident.number.get())
        };
        moments.into_iter().map(note).collect()
    }

    #[test]
    fn from_the_tenth_in_a_moment_on_they_are_one_incident_until_a_second_passes_without_one() {
        let mut incidents = Incidents::default();
        let told = ids(&mut incidents, 0..500);
        assert!(told[..9].iter().all(Option::is_none));
        assert!(told[9..].iter().all(|incident| *incident == Some(1)));
        assert_eq!(ids(&mut incidents, [1_400, 2_300]), [Some(1), Some(1)]);
        assert_eq!(ids(&mut incidents, [3_400]), [None]);
        assert_eq!(ids(&mut incidents, 3_401..3_410).last(), Some(&Some(2)));
        assert_eq!(incidents.count(), 2);
    }

    #[test]
    fn those_who_get_a_second_chance_and_do_not_use_it_are_a_part_of_what_they_fell_silent_with() {
        let mut incidents = Incidents::default();
        assert_eq!(ids(&mut incidents, 0..200).last(), Some(&Some(1)));
        let at = MonoTime::from_millis(500);
        incidents.hold_open(SourceId::LOCAL, Verdict::Stalled, at, MonoTime::from_millis(5_500));
        assert_eq!(ids(&mut incidents, [5_000, 6_500]), [Some(1), Some(1)]);
        assert_eq!(ids(&mut incidents, [7_600]), [None]);
        // Where nothing goes on there is nothing to hold open.
        let at = MonoTime::from_secs(20);
        incidents.hold_open(SourceId::LOCAL, Verdict::Stalled, at, MonoTime::from_secs(25));
        assert_eq!(ids(&mut incidents, 24_990..25_000).last(), Some(&Some(2)));
    }

    #[test]
    fn those_who_fall_one_by_one_are_none() {
        let mut incidents = Incidents::default();
        assert!(ids(&mut incidents, (0..1_000).map(|number| number * 200)).iter().all(Option::is_none));
    }

    #[test]
    fn one_that_does_not_end_is_another_one_after_a_minute() {
        let mut incidents = Incidents::default();
        let told = ids(&mut incidents, (0..1_300).map(|number| number * 50));
        assert_eq!((told[1_199], told[1_299]), (Some(1), Some(2)));
    }

    #[test]
    fn other_places_and_other_verdicts_are_apart_and_bounded() {
        let mut incidents = Incidents::default();
        for _ in 1..LEAST {
            assert_eq!(incidents.note(SourceId::LOCAL, Verdict::Down, MonoTime::START), None);
            assert_eq!(incidents.note(SourceId::LOCAL, Verdict::Stalled, MonoTime::START), None);
        }
        assert!(incidents.note(SourceId::LOCAL, Verdict::Down, MonoTime::START).is_some());
        for other in 1..1_000 {
            incidents.note(SourceId::numbered(other), Verdict::Down, MonoTime::from_millis(1));
        }
        assert_eq!(incidents.places.len(), MOST_PLACES);
    }
}
