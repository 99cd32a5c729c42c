//! Claims about what the arrival estimator learns, and what it does not.

use std::time::Duration;

use proptest::prelude::*;

use super::chen;
use crate::base::time::MonoTime;
use crate::domain::tracker::detection::arrival::estimator::MIN_SAMPLES;
use crate::domain::tracker::detection::arrival::estimator::*;
use crate::domain::tracker::detection::arrival::policy::{ArrivalPolicy, Bounds, Kind, NoEstimate, Phi};

mod recorded;

const SECOND: u64 = 1_000_000_000;
const MILLI: u64 = 1_000_000;

/// One agent and the way of its beats: each test gives when it sends and how long that takes.
struct Beating {
    arrivals: Arrivals,
    nonce: u64,
    /// On the server's clock. The agent's own clock started at second 100.
    sent_at: u64,
}

impl Beating {
    fn new() -> Self {
        let sent_at = 100 * SECOND;
        Beating { arrivals: Arrivals::new(MonoTime::from_nanos(sent_at + MILLI), 1, 0), nonce: 1, sent_at }
    }

    /// Sends the next beat `after` the last one; it travels for `delay`.
    fn beat(&mut self, after: u64, delay: u64) {
        self.nonce += 1;
        self.sent_at += after;
        let received_at = MonoTime::from_nanos(self.sent_at + delay);
        self.arrivals.observe(received_at, self.nonce, self.sent_at - 100 * SECOND);
    }

    /// A thousand beats, one a second, that travel for one to three milliseconds.
    fn after_a_thousand() -> Self {
        let mut beating = Beating::new();
        for beat in 0..1_000 {
            beating.beat(SECOND, MILLI + beat * 7 % 3 * MILLI);
        }
        beating
    }

    fn seconds(&self, kind: Kind) -> f64 {
        self.arrivals.stall_after(&policy(kind)).unwrap().as_secs_f64()
    }
}

fn policy(kind: Kind) -> ArrivalPolicy {
    ArrivalPolicy { kind, ..ArrivalPolicy::default() }
}

const PHI: Kind = Kind::Phi(Phi::PUBLISHED);
const HOURLY: Kind = Kind::Chen(Bounds {
    detect_within: None,
    mistake_every: Some(Duration::from_secs(3_600)),
    corrected_within: None,
});

#[test]
fn an_even_agent_is_missed_soon() {
    let beating = Beating::after_a_thousand();
    assert!(beating.seconds(PHI) < 1.02, "{}", beating.seconds(PHI));
    assert!(
        beating.seconds(HOURLY) < 2.2,
        "that none of a thousand was lost does not prove that none will be"
    );
}

#[test]
fn nothing_is_concluded_from_a_few_beats() {
    let mut beating = Beating::new();
    for _ in 1..MIN_SAMPLES {
        beating.beat(SECOND, MILLI);
        assert_eq!(beating.arrivals.stall_after(&policy(HOURLY)), Err(NoEstimate::Learning));
    }
    let fixed = Duration::from_secs(5);
    assert_eq!(policy(HOURLY).stall_after(Some(&beating.arrivals), fixed), fixed);
    beating.beat(SECOND, MILLI);
    assert!(beating.arrivals.stall_after(&policy(HOURLY)).is_ok());
    assert_eq!(beating.arrivals.stall_after(&policy(Kind::Fixed)), Err(NoEstimate::Fixed));
}

#[test]
fn beats_that_arrive_in_a_bunch_poison_nothing() {
    let mut beating = Beating::after_a_thousand();
    let (phi, ours) = (beating.seconds(PHI), beating.seconds(HOURLY));
    // The server, or the network, pauses for twenty seconds.
    for waiting in (0..20).rev() {
        beating.beat(SECOND, MILLI + waiting * SECOND);
    }
    beating.beat(SECOND, MILLI);
    assert!(beating.seconds(HOURLY) < ours + 0.1, "{} after {ours}", beating.seconds(HOURLY));
    assert!(beating.seconds(PHI) > phi + 1.0, "as published it goes by gaps, whatever made them");
}

#[test]
fn an_agent_that_changes_its_pace_is_followed() {
    let mut beating = Beating::after_a_thousand();
    for _ in 0..1_000 {
        beating.beat(3 * SECOND, MILLI);
    }
    let seconds = beating.seconds(HOURLY);
    assert!(seconds > 3.0 && seconds < 7.0, "{seconds}");
}

#[test]
fn a_way_that_becomes_longer_is_followed_after_three_beats() {
    let mut beating = Beating::after_a_thousand();
    for _ in 0..4 {
        beating.beat(SECOND, 300 * MILLI);
    }
    assert!(beating.arrivals.lateness().abs() < MILLI as f64, "{}", beating.arrivals.lateness());
    for _ in 0..4 {
        beating.beat(SECOND, MILLI);
    }
    assert!(beating.arrivals.lateness().abs() < MILLI as f64, "{}", beating.arrivals.lateness());
}

#[test]
fn a_clock_that_drifts_is_followed() {
    let mut beating = Beating::new();
    for beat in 0..10_000 {
        // It loses 200 microseconds a second: "received minus timestamp" grows without end.
        beating.beat(SECOND, MILLI + beat * 200_000);
    }
    assert!(beating.seconds(HOURLY) < 4.0, "{}", beating.seconds(HOURLY));
    assert!(beating.arrivals.lateness().abs() < 50.0 * MILLI as f64, "{}", beating.arrivals.lateness());
}

#[test]
fn losses_are_learned_and_make_for_patience() {
    let mut beating = Beating::new();
    for beat in 0..3_000_u64 {
        if beat.wrapping_mul(0x9e37_79b9) >> 3 & 3 == 0 {
            beating.nonce += 1;
            beating.sent_at += SECOND;
        } else {
            beating.beat(SECOND, MILLI);
        }
    }
    let chen::Link { loss, .. } = beating.arrivals.link();
    assert!((0.2..0.3).contains(&loss), "{loss}");
    assert!(beating.seconds(HOURLY) > 5.0, "{}", beating.seconds(HOURLY));
}

#[test]
fn losses_in_a_row_are_told_from_as_many_by_themselves() {
    let (mut in_a_row, mut alone) = (Beating::new(), Beating::new());
    for beat in 1..=2_000_u64 {
        for (beating, every, lost) in [(&mut in_a_row, 40, 4), (&mut alone, 10, 1)] {
            let lost = if beat.is_multiple_of(every) { lost } else { 0 };
            beating.nonce += lost;
            beating.sent_at += lost * SECOND;
            beating.beat(SECOND, MILLI);
        }
    }
    let (in_a_row, alone) = (in_a_row.arrivals.link(), alone.arrivals.link());
    assert!((in_a_row.loss - alone.loss).abs() < 0.02, "{in_a_row:?} {alone:?}");
    assert!(in_a_row.loss_again > 0.7 && alone.loss_again < 0.01, "{in_a_row:?} {alone:?}");
}

#[test]
fn bounds_that_cannot_be_met_fall_back_to_the_fixed_deadline() {
    let beating = Beating::after_a_thousand();
    let bounds = Bounds {
        detect_within: Some(Duration::from_millis(1_100)),
        mistake_every: Some(Duration::from_secs(86_400 * 365)),
        corrected_within: None,
    };
    let policy = policy(Kind::Chen(bounds));
    let Err(NoEstimate::Impossible { least: Some(least) }) = beating.arrivals.stall_after(&policy) else {
        panic!("a year without a mistake takes more than a tenth of a second");
    };
    assert!(least > Duration::from_millis(1_100) && least < Duration::from_secs(10), "{least:?}");
    let fixed = Duration::from_secs(5);
    assert_eq!(policy.stall_after(Some(&beating.arrivals), fixed), fixed);
}

#[test]
fn a_session_that_begins_anew_is_learned_anew() {
    let mut beating = Beating::after_a_thousand();
    beating.arrivals.observe(MonoTime::from_secs(2_000), 1, 5);
    assert_eq!(beating.arrivals.stall_after(&policy(HOURLY)), Err(NoEstimate::Learning));
}

#[test]
fn a_clock_that_says_zero_teaches_nothing() {
    let mut arrivals = Arrivals::new(MonoTime::START, 1, 0);
    for beat in 1..1_000 {
        arrivals.observe(MonoTime::from_secs(beat), 1 + beat, 0);
    }
    assert_eq!(arrivals.stall_after(&policy(HOURLY)), Err(NoEstimate::Learning));
}

fn hostile() -> impl Strategy<Value = u64> {
    prop_oneof![
        0_u64..5,
        Just(SECOND),
        0..10 * SECOND,
        0..(86_400 * 365 * 100 * SECOND),
        any::<u64>(),
        Just(u64::MAX)
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever an agent sends and whenever it arrives: the timeout is within the bounds, or there is none.
    #[test]
    fn nothing_leads_out_of_the_bounds(
        steps in prop::collection::vec((hostile(), hostile(), 0..3 * SECOND, any::<bool>()), 1..80),
        threshold in prop_oneof![Just(8.0), any::<f64>()],
        bounds in prop::collection::vec(prop::option::of(hostile()), 5),
    ) {
        let duration = |index: usize| bounds[index].map(Duration::from_nanos);
        let [acceptable_pause, min_deviation] = [3, 4].map(|index| duration(index).unwrap_or_default());
        let phi = Phi { threshold, acceptable_pause, min_deviation };
        let bounds = Bounds { detect_within: duration(0), mistake_every: duration(1), corrected_within: duration(2) };
        let mut arrivals = Arrivals::new(MonoTime::START, 1, 0);
        let (mut now, mut nonce, mut timestamp) = (0_u64, 1_u64, 0_u64);
        for (by, clock, pass, honest) in steps {
            now = now.saturating_add(if honest { SECOND } else { pass });
            nonce = nonce.wrapping_add(if honest { 1 } else { by });
            timestamp = timestamp.wrapping_add(if honest { SECOND } else { clock });
            for _ in 0..20 {
                arrivals.observe(MonoTime::from_nanos(now), nonce, timestamp);
                now = now.saturating_add(pass);
                nonce = nonce.wrapping_add(1);
                timestamp = timestamp.wrapping_add(pass);
            }
            for kind in [Kind::Phi(phi), Kind::Chen(bounds)] {
                let policy = policy(kind);
                if let Ok(silence) = arrivals.stall_after(&policy) {
                    prop_assert!(silence >= policy.shortest && silence <= policy.longest, "{:?}", silence);
                }
                let _ = arrivals.deadline(&policy);
            }
        }
    }
}
