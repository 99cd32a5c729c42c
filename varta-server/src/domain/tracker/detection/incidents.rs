//! Incidents: many agents of one origin that fall at once are one event, and not as many as there are agents.
//!
//! An incident starts when enough agents of one origin have come to the same verdict within a moment, and
//! continues as long as more of them follow closely. Alerts and recovery can then act once for all of them.

use std::num::NonZeroU64;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::base::time::MonoTime;
use crate::domain::tracker::agents::origins::SourceId;
use crate::domain::tracker::verdicts::incident::Incident;
use crate::domain::tracker::verdicts::verdict::Verdict;

/// The number of agents of one origin, each within [`CLOSE`] of the one before and all within it, that make
/// an incident.
const MIN_AGENTS: u32 = 10;
/// The time within which agents belong together.
const CLOSE: Duration = Duration::from_secs(1);
/// The maximum duration of an incident. One that does not end is then another incident.
const MAX_LENGTH: Duration = Duration::from_secs(60);
/// The maximum number of open incidents. Beyond it the one in which nothing happened for longest is
/// forgotten.
const MAX_OPEN: usize = 64;

/// An open incident, or agents that may become one.
#[derive(Debug, Serialize, Deserialize)]
struct OpenIncident {
    source: SourceId,
    verdict: usize,
    began_at: MonoTime,
    last_at: MonoTime,
    agents: u32,
    number: Option<NonZeroU64>,
    /// The end of the grace of agents that fell silent with the others.
    open_until: MonoTime,
}

/// The open incidents.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(in crate::domain::tracker) struct Incidents {
    places: Vec<OpenIncident>,
    /// The number of incidents so far.
    count: u64,
}

impl Incidents {
    /// Records that an agent from `source` has come to a verdict at `at`. Returns the incident that this is
    /// part of.
    pub(in crate::domain::tracker) fn note(
        &mut self,
        source: SourceId,
        verdict: Verdict,
        at: MonoTime,
    ) -> Option<Incident> {
        let verdict = verdict.index();
        let known = self.places.iter().position(|place| place.source == source && place.verdict == verdict);
        let fresh = OpenIncident {
            source,
            verdict,
            began_at: at,
            last_at: at,
            agents: 0,
            number: None,
            open_until: at,
        };
        let place = match known {
            Some(known) => {
                let place = &mut self.places[known];
                let limit = if place.number.is_some() { MAX_LENGTH } else { CLOSE };
                let is_close = at.since(place.last_at.max(place.open_until)) <= CLOSE;
                let is_held_open = place.number.is_some() && at <= place.open_until + CLOSE;
                if !is_close || at.since(place.began_at) > limit && !is_held_open {
                    *place = fresh;
                }
                place
            }
            None => {
                if self.places.len() >= MAX_OPEN
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
        if place.agents == MIN_AGENTS {
            self.count += 1;
            place.number = NonZeroU64::new(self.count);
        }
        let OpenIncident { agents, open_until, .. } = *place;
        place.number.map(|number| Incident { number, agents, open_until })
    }

    /// Records that an agent fell silent at `at` and has a grace until `until`. If it does not beat by then,
    /// it is part of the incident that is open now.
    pub(in crate::domain::tracker) fn hold_open(
        &mut self,
        source: SourceId,
        verdict: Verdict,
        at: MonoTime,
        until: MonoTime,
    ) {
        let verdict = verdict.index();
        let is_it = |place: &&mut OpenIncident| place.source == source && place.verdict == verdict;
        if let Some(place) = self.places.iter_mut().find(is_it)
            && at.since(place.last_at) <= CLOSE
            && at.since(place.began_at) <= MAX_LENGTH
        {
            // A grace beyond the maximum duration of an incident is not waited for.
            place.open_until = place.open_until.max(until.min(place.began_at + MAX_LENGTH));
        }
    }

    /// The number of incidents so far.
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
        // Without an open incident there is nothing to hold open.
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
        for _ in 1..MIN_AGENTS {
            assert_eq!(incidents.note(SourceId::LOCAL, Verdict::Down, MonoTime::START), None);
            assert_eq!(incidents.note(SourceId::LOCAL, Verdict::Stalled, MonoTime::START), None);
        }
        assert!(incidents.note(SourceId::LOCAL, Verdict::Down, MonoTime::START).is_some());
        for other in 1..1_000 {
            incidents.note(SourceId::numbered(other), Verdict::Down, MonoTime::from_millis(1));
        }
        assert_eq!(incidents.places.len(), MAX_OPEN);
    }
}
