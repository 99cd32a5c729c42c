//! The reference's checks on passing time, and on all agents together after each step.

use crate::domain::tracker::tests::simulation::reference::*;

impl Reference {
    /// Checks the transitions by time that passed until `now`, or by the answer to an inspection.
    pub(crate) fn passed(&mut self, now: MonoTime, changes: &[Transition]) {
        for change in changes {
            let index = self.find(change.agent.origin, change.agent.pid).expect("somebody who is known");
            self.check(index, change);
            let known = &self.agents[index];
            let deadline = self.deadline(known);
            let mut is_doubted = known.doubted;
            match change.to {
                Verdict::Stalled => {
                    let has_room_at = self.has_room_at(known);
                    assert!(
                        has_room_at.is_none_or(|at| now >= at),
                        "refused, room since {has_room_at:?}: {change:?}"
                    );
                    assert!(now >= deadline, "accused before its deadline {deadline}: {change:?}");
                    assert!(now <= self.latest_verdict(known), "late, it was due at {deadline}: {change:?}");
                    assert_eq!(change.detection_latency, Some(now.since(deadline)));
                }
                Verdict::Unknown => {
                    let was_blind = self.blind.iter().any(|(_, to)| *to > known.last_beat);
                    let silence = now.since(known.last_beat);
                    let unseen = was_blind && now < deadline && silence >= self.stall_after(known);
                    let doubted = now >= deadline && !known.doubted && self.may_be_in_a_crowd(known, now);
                    let refused = now >= deadline && self.has_room_at(known).is_some_and(|at| now < at);
                    let cause = if refused { Cause::QueueFull } else { Cause::ObserverBlind };
                    assert!((unseen || doubted || refused) && change.cause == cause, "{change:?}");
                    is_doubted |= doubted && !refused;
                }
                Verdict::Up(_) | Verdict::Down | Verdict::Gone | Verdict::Expected => {
                    panic!("time alone does not make {change:?}")
                }
            }
            assert_eq!((change.at, change.silence), (now, now.since(known.last_beat)));
            self.agents[index].doubted = is_doubted;
            self.agents[index].verdict = change.to;
        }
    }

    /// Checks the invariants after every step. Returns how many adaptive timeouts have changed.
    pub(crate) fn compare<'a>(
        &mut self,
        now: MonoTime,
        views: impl Iterator<Item = AgentView<'a>>,
        population: [usize; Verdict::NAMES.len()],
    ) -> usize {
        let mut learned = 0;
        let mut recount = [0; Verdict::NAMES.len()];
        let mut is_there = vec![false; self.agents.len()];
        for view in views {
            let index = self.find(view.origin, view.pid).expect("the tracker made somebody up");
            assert!(!std::mem::replace(&mut is_there[index], true), "two agents for one: {view:?}");
            let known = &self.agents[index];
            assert_eq!(view.verdict, known.verdict, "{known:?}");
            assert_eq!(view.last_beat, known.last_beat, "{known:?}");
            learned += usize::from(self.take_over_learned(index, view.stall_after));
            let known = &self.agents[index];
            assert_eq!(view.stall_after, self.stall_after(known), "{known:?}");
            recount[view.verdict.index()] += 1;
            if known.verdict.is_awaited() {
                assert!(now <= self.latest_verdict(known), "silent, and nothing is said of it: {known:?}");
            }
        }
        assert_eq!(recount, population, "the gauges equal a recount");
        let is_full = self.agents.len() >= self.policy.max_agents;
        let mut is_there = is_there.into_iter();
        let forget_after = self.policy.forget_after;
        self.agents.retain(|known| {
            let stays = is_there.next() == Some(true);
            let kept =
                if known.verdict == Verdict::Gone { GONE_KEPT.min(forget_after) } else { forget_after };
            let may_go = !known.verdict.is_awaited() && now.since(known.last_beat) >= kept;
            let may_be_pushed_out = is_full && matches!(known.verdict, Verdict::Down | Verdict::Gone);
            assert!(stays || may_go || may_be_pushed_out, "forgotten too early: {known:?}");
            stays
        });
        learned
    }

    /// Takes over the adaptive timeout of an agent, if that may be it. Returns whether it has changed.
    fn take_over_learned(&mut self, index: usize, given: Duration) -> bool {
        let (ArrivalPolicy { shortest, longest, .. }, fixed) = (self.policy.arrival, self.policy.stall_after);
        let known = &mut self.agents[index];
        let before = known.learned;
        let unlearned = known.three.unwrap_or(fixed);
        known.learned =
            (self.policy.arrival.learns() && known.asked.is_none() && given != unlearned).then_some(given);
        if let Some(learned) = known.learned {
            assert!(learned >= shortest && learned <= longest, "{known:?}");
            assert!(known.three.is_none_or(|three| learned > three / 3), "{known:?}");
        }
        known.learned.is_some() && known.learned != before
    }
}
