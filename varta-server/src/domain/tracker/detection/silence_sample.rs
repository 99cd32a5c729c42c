use crate::base::time::MonoTime;

/// Agents that are looked at for one answer, when there are more.
pub(in crate::domain::tracker) const SAMPLE: usize = 64;

/// What was answered last, and where the next sample is taken.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::domain::tracker) struct Crowd {
    pub(in crate::domain::tracker) answered_at: Option<MonoTime>,
    pub(in crate::domain::tracker) is_silent: bool,
    /// A number that has no pattern together with the agents' order, and is the same each time all is done again.
    seed: u64,
}

impl Crowd {
    /// Numbers below `slots`: all of them if they are few, else a sample. Multiplier and increment are those of Knuth's
    /// MMIX, "The Art of Computer Programming", volume 2, 3.3.4.
    pub(in crate::domain::tracker) fn sample(&mut self, slots: usize) -> impl Iterator<Item = usize> {
        let mut seed = self.seed;
        self.seed = self.seed.wrapping_add(1).rotate_left(17);
        (0..slots.min(SAMPLE)).map(move |place| {
            if slots <= SAMPLE {
                return place;
            }
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            // The high half, multiplied down: its bits are the good ones.
            let scaled = (u128::from(seed >> 32) * slots as u128) >> 32;
            usize::try_from(scaled).unwrap_or(0)
        })
    }
}
