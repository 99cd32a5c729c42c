//! The tracker's claims, each in its own words: a world is a tracker, a table of processes and a list of
//! times.

mod alarms;
mod beats;
mod crowds;
mod forgetting;
mod handover;
mod jobs;
mod learned;
mod losses;
mod mistakes;
mod model;
mod named;
mod notifications;
mod pages;
mod policy;
mod progress;
mod promises;
mod remembered;
mod remote;
pub(crate) mod sample;
mod sessions;
mod simulation;
mod standing;
mod succession;
mod verdicts;

use std::collections::HashMap;
use std::num::NonZeroU64;
use std::time::Duration;

use varta_proto::Status;
use varta_proto::{Frame, NONCE_TERMINAL};

use super::*;
use crate::domain::beat::{Origin, ReceivedControl, Sender};
use crate::domain::outcome::FrameOutcome;
use crate::domain::process::identity::ProcessIdentity;
use crate::domain::process::{ExitStatus, InspectionDepth, Lineage};
use crate::domain::tracker::verdicts::verdict::Verdict;

const STALL_AFTER: Duration = Duration::from_secs(5);
const PID: u32 = 4242;
const UP: Verdict = Verdict::Up(Status::Ok);

#[derive(Default)]
struct ProcessTable {
    processes: HashMap<u32, ProcessIdentity>,
    /// Those that have ended.
    ended: Vec<EndedProcess>,
    questions: usize,
}

impl Processes for ProcessTable {
    fn identify(&mut self, pid: u32) -> Option<ProcessIdentity> {
        self.questions += 1;
        self.processes.get(&pid).cloned()
    }

    fn ended(&mut self) -> Vec<EndedProcess> {
        self.ended.clone()
    }
}

struct World {
    tracker: Tracker,
    processes: ProcessTable,
    /// The requests other than inspections: those are refused at once, so that no verdict waits.
    requests: Vec<TrackerRequest>,
}

/// A session of one process, which beats are sent from.
#[derive(Clone, Copy)]
struct Handle {
    pid: u32,
    connected_at: MonoTime,
    nonce: u64,
}

impl Handle {
    fn connect(pid: u32, at: MonoTime) -> Self {
        Handle { pid, connected_at: at, nonce: 0 }
    }

    fn next(&mut self, at: MonoTime, status: Status) -> ReceivedBeat {
        self.nonce += 1;
        self.frame(at, status)
    }

    fn frame(&self, at: MonoTime, status: Status) -> ReceivedBeat {
        let timestamp = u64::try_from(at.since(self.connected_at).as_nanos()).unwrap() + 1_000;
        let frame = Frame::new(status, self.pid, timestamp, self.nonce, 7);
        ReceivedBeat { received_at: at, sender: Sender::local(self.pid), frame }
    }
}

impl World {
    fn new() -> Self {
        Self::with(Policy { stall_after: STALL_AFTER, max_beat_rate: 0, ..Policy::default() })
    }

    fn with(policy: Policy) -> Self {
        let mut world =
            World { tracker: Tracker::new(policy), processes: ProcessTable::default(), requests: Vec::new() };
        world.spawn(PID, "worker", 100);
        world
    }

    fn spawn(&mut self, pid: u32, name: &str, start_time: u64) {
        let start_time = NonZeroU64::new(start_time).unwrap();
        let name = name.to_owned();
        self.processes.processes.insert(pid, ProcessIdentity::of_command(start_time, name));
    }

    /// A process of a unit.
    fn spawn_in(&mut self, unit: &str, pid: u32, start_time: u64) {
        self.spawn(pid, unit, start_time);
        self.processes.processes.entry(pid).and_modify(|process| process.is_group = true);
    }

    /// Handles one beat and returns its outcome.
    fn hear(&mut self, beat: ReceivedBeat) -> FrameOutcome {
        let tally = self.tracker.handle_batch(&[beat], &mut self.processes);
        let row = tally.rows().next().expect("one beat has one outcome").0;
        for (_, count) in tally.rows() {
            assert_eq!(count, 1);
        }
        let outcome = outcome(row);
        self.check();
        outcome
    }

    /// Handles one control datagram and returns its outcome.
    fn handle_control(&mut self, control: &ReceivedControl) -> FrameOutcome {
        self.tracker.handle_control(control, &mut self.processes)
    }

    /// Handles a beat without the recount of [`World::hear`].
    fn hear_quietly(&mut self, beat: ReceivedBeat) {
        self.tracker.handle_batch(&[beat], &mut self.processes);
    }

    /// Advances the time to `to`, and calls the tracker exactly when it asks to be woken.
    fn pass(&mut self, to: MonoTime) {
        for _ in 0..1_000_000 {
            match self.tracker.poll_timeout() {
                Some(at) if at <= to => {
                    self.tracker.handle_timeout(at);
                    // No page is read here.
                    while self.tracker.poll_unread().is_some() {}
                    self.refuse_looks(at);
                }
                _ => {
                    self.check();
                    return;
                }
            }
        }
        panic!("the tracker asks to be woken without end");
    }

    fn refuse_looks(&mut self, at: MonoTime) {
        while let Some(request) = self.tracker.poll_request() {
            match request {
                TrackerRequest::Look { process, depth: InspectionDepth::Full, .. } => {
                    self.tracker.handle_evidence(process, None, at);
                }
                TrackerRequest::Look { depth: InspectionDepth::Quick, .. } => {}
                TrackerRequest::Watch(_) | TrackerRequest::Unwatch(_) | TrackerRequest::Find(_) => {
                    self.requests.push(request);
                }
            }
        }
    }

    fn transitions(&mut self) -> Vec<(u32, Verdict, Cause)> {
        std::iter::from_fn(|| self.tracker.poll_transition())
            .map(|transition| (transition.agent.pid, transition.to, transition.cause))
            .collect()
    }

    /// The invariants at any time.
    fn check(&self) {
        let mut recount = [0; Verdict::NAMES.len()];
        for agent in self.tracker.agents(0..usize::MAX) {
            recount[agent.verdict.index()] += 1;
        }
        assert_eq!(recount, self.tracker.population, "the gauges equal a recount");
        assert_eq!(recount.iter().sum::<usize>(), self.tracker.len());
    }

    fn verdict(&self, pid: u32) -> Option<Verdict> {
        self.tracker.agents(0..usize::MAX).find(|agent| agent.pid == pid).map(|agent| agent.verdict)
    }
}

fn at(seconds: u64) -> MonoTime {
    MonoTime::from_secs(seconds)
}

/// The tracker's outcome with this row in a count of outcomes.
fn outcome(row: usize) -> FrameOutcome {
    let outcomes = [
        FrameOutcome::Accepted,
        FrameOutcome::Duplicate,
        FrameOutcome::OutOfOrder,
        FrameOutcome::RateLimitedAgent,
        FrameOutcome::RateLimitedGlobal,
        FrameOutcome::Capacity,
        FrameOutcome::SourceLimit,
    ];
    outcomes.into_iter().find(|outcome| outcome.index() == row).expect("an outcome of the tracker")
}
