//! A keep-alive of a service that speaks sd_notify(3), at the tracker, beside a beat of an agent: what the bridge hands on
//! for a keep-alive that says nothing new is a beat, and now and then what is awaited is said again.

use std::num::NonZeroU64;
use std::time::{Duration, Instant};

use varta_agent::{Frame, Status};
use varta_server::beat::{ControlMessage, KeepAlives, Notification, ReceivedBeat, ReceivedControl, Sender};
use varta_server::time::MonoTime;
use varta_server::tracker::{Policy, ProcessIdentity, Processes, Tracker};

use crate::Fallible;
use crate::statistics::Comparison;
use crate::table::{Reach, Row};

/// As many as a host has that speak sd_notify(3), and more.
const SERVICES: u32 = 1_000;
const ROUNDS: usize = 51;
const TURNS: u64 = 64;
/// Of so many keep-alives one says again what is awaited.
const TOLD_EVERY: u64 = 16;
const WITHIN: KeepAlives = KeepAlives::Within(Duration::from_secs(1_000_000));

struct Nobody;

impl Processes for Nobody {
    fn identify(&mut self, _: u32) -> Option<ProcessIdentity> {
        Some(ProcessIdentity::of_command(NonZeroU64::MIN, "service".to_owned()))
    }
}

/// A tracker of which all agents beat in turn.
struct Agents {
    tracker: Tracker,
    sender: fn(u32) -> Sender,
    nonce: u64,
}

impl Agents {
    fn new(sender: fn(u32) -> Sender) -> Self {
        let stall_after = Duration::from_secs(1_000_000);
        let policy = Policy { max_beat_rate: 0, stall_after, ..Policy::default() };
        let mut agents = Agents { tracker: Tracker::new(policy), sender, nonce: 0 };
        agents.turn(true);
        agents
    }

    /// Has each beat once, or say what is awaited of it.
    fn turn(&mut self, says: bool) -> Duration {
        self.nonce += 1;
        let at = MonoTime::from_millis(self.nonce);
        let beats: Vec<_> = (0..SERVICES)
            .map(|number| {
                let frame = Frame::new(Status::Ok, number + 2, at.as_nanos(), self.nonce, 0);
                ReceivedBeat { received_at: at, sender: (self.sender)(number + 2), frame }
            })
            .collect();
        let start = Instant::now();
        if says {
            for beat in &beats {
                let notification = Notification {
                    frame: beat.frame,
                    is_beat: true,
                    keep_alives: Some(WITHIN),
                    busy_for: None,
                    status: None,
                    is_goodbye: false,
                    is_derived: false,
                };
                let said = ControlMessage::Notification(notification);
                let control = ReceivedControl { received_at: at, sender: beat.sender, said };
                self.tracker.handle_control(&control, &mut Nobody);
            }
        } else {
            for batch in beats.chunks(64) {
                self.tracker.handle_batch(batch, &mut Nobody);
            }
        }
        start.elapsed()
    }
}

pub(crate) fn measure() -> Fallible<Vec<Row>> {
    let (mut services, mut agents) = (Agents::new(Sender::notify), Agents::new(Sender::local));
    agents.turn(false);
    let (mut ours, mut yardstick) = (Vec::new(), Vec::new());
    let each = |time: Duration| time.as_nanos() as f64 / (f64::from(SERVICES) * TURNS as f64);
    for _ in 0..ROUNDS {
        ours.push(each((0..TURNS).map(|turn| services.turn(turn % TOLD_EVERY == 0)).sum()));
        yardstick.push(each((0..TURNS).map(|_| agents.turn(false)).sum()));
    }
    let compared = Comparison::of(&ours, &yardstick)?;
    let reach = Reach { text: "≤ 1.5", holds: |compared| compared.ratio <= 1.5 };
    let form = |nanos| format!("{nanos:.1} ns");
    Ok(vec![Row::new(
        "tracker, keep-alive of one of 1,000 services",
        &compared,
        "beat of an agent",
        form,
        reach,
    )])
}
