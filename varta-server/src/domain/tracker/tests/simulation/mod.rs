//! Whole worlds on a virtual clock: agents that drift, stop, crash and say goodbye, links that lose, delay,
//! duplicate and reorder, a server that is paused for a while, and next to the tracker a reference that
//! checks all agents all the time.
//!
//! One seed decides everything in a world. A test that fails here prints the command that runs its world
//! alone again and logs all that happens in it:
//!
//! ```console
//! $ VARTA_WORLD=12345:3:40 cargo test -p varta-server --lib simulation::replay -- --nocapture
//! ```
//!
//! The numbers are the seed, the number of agents and the number of seconds. `VARTA_WORLDS=100000` runs that
//! many worlds instead of a few thousand.

mod chance;
mod choices;
mod delivery;
mod detectors;
mod fates;
mod faults;
mod link;
mod measure;
mod reference;
mod worker;
mod world;

use std::fmt;
use std::str::FromStr;

use proptest::prelude::*;

use self::world::{Log, Simulation};

/// The number of worlds that a test runs by default.
const WORLDS: u32 = 2_000;

/// The parameters of a world.
#[derive(Clone, Copy)]
struct Scenario {
    seed: u64,
    agents: u16,
    seconds: u64,
}

/// The command that runs the world again, which proptest prints when something fails in it.
impl fmt::Debug for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Scenario { seed, agents, seconds } = self;
        write!(
            f,
            "VARTA_WORLD={seed}:{agents}:{seconds} cargo test -p varta-server --lib simulation::replay -- --nocapture"
        )
    }
}

impl FromStr for Scenario {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut numbers = text.split(':').map(str::parse::<u64>);
        let mut next = || numbers.next().and_then(Result::ok).ok_or("a world is seed:agents:seconds");
        let (seed, agents, seconds) = (next()?, next()?, next()?);
        Ok(Scenario { seed, agents: u16::try_from(agents).map_err(|_| "too many agents")?, seconds })
    }
}

fn scenario() -> impl Strategy<Value = Scenario> {
    (any::<u64>(), 1_u16..5, 5_u64..60).prop_map(|(seed, agents, seconds)| Scenario { seed, agents, seconds })
}

fn worlds(usual: u32) -> ProptestConfig {
    let asked = std::env::var("VARTA_WORLDS").ok().and_then(|text| text.parse().ok());
    ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(asked.unwrap_or(usual)) }
}

/// Runs one world.
fn run(scenario: Scenario) -> Simulation {
    Simulation::new(scenario, Log::None).run()
}

proptest! {
    #![proptest_config(worlds(WORLDS))]

    #[test]
    fn the_tracker_agrees_with_the_reference_in_every_world(scenario in scenario()) {
        run(scenario);
    }
}

proptest! {
    #![proptest_config(worlds(100))]

    #[test]
    fn the_same_seed_gives_the_same_log_byte_for_byte(scenario in scenario()) {
        let log = || match Simulation::new(scenario, Log::Kept(String::new())).run().log {
            Log::Kept(log) => log,
            Log::None | Log::Shown => String::new(),
        };
        let first = log();
        prop_assert!(first == log());
    }
}

#[test]
fn much_happens_in_these_worlds() {
    let worlds = (0..100).map(|seed| run(Scenario { seed, agents: 3, seconds: 40 }));
    let (stalled, learned) = worlds.fold((0, 0), |(stalled, learned), simulation| {
        (stalled + simulation.stalled, learned + simulation.learned)
    });
    assert!(stalled > 200, "{stalled} verdicts are too few to learn anything from");
    assert!(learned > 1_000, "in half of the worlds agents are to be learned, and that was {learned} times");
}

#[test]
fn replay() {
    if let Ok(scenario) = std::env::var("VARTA_WORLD") {
        Simulation::new(scenario.parse().unwrap(), Log::Shown).run();
    }
}
