//! The sample of agents by which mass silence is recognised.

use crate::base::time::MonoTime;

/// The number of agents that are checked for one answer, when there are more.
pub(in crate::domain::tracker) const SAMPLE: usize = 64;

/// The last answer, and the seed of the next sample.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::domain::tracker) struct SilenceSample {
    pub(in crate::domain::tracker) answered_at: Option<MonoTime>,
    pub(in crate::domain::tracker) is_silent: bool,
    /// A number without a pattern in common with the agents' order, and deterministic, so that a run can be
    /// repeated.
    seed: u64,
}

impl SilenceSample {
    /// Numbers below `slots`: all of them if they are few, else a sample by a linear congruential generator.
    /// Multiplier and increment are those of Knuth's MMIX, "The Art of Computer Programming", volume 2,
    /// 3.3.4.
    pub(in crate::domain::tracker) fn sample(&mut self, slots: usize) -> impl Iterator<Item = usize> {
        let mut seed = self.seed;
        self.seed = self.seed.wrapping_add(1).rotate_left(17);
        (0..slots.min(SAMPLE)).map(move |place| {
            if slots <= SAMPLE {
                return place;
            }
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            // The high half, scaled down: it has the good bits of such a generator.
            let scaled = (u128::from(seed >> 32) * slots as u128) >> 32;
            usize::try_from(scaled).unwrap_or(0)
        })
    }
}
