//! What reaches the tracker and what it emits: the reference gets both.

use std::fmt::{self, Write as _};
use std::num::NonZeroU64;

use crate::domain::beat::{ControlMessage, Origin};
use crate::domain::process::{Lineage, ProcessId};
use crate::domain::tracker::tests::simulation::world::{Event, Log, Simulation};
use crate::domain::tracker::tests::*;

impl Simulation {
    /// Hands an event to the tracker, or queues it while the server is paused.
    pub(super) fn arrive(&mut self, event: Event) {
        if let Some((_, _, waiting)) = &mut self.away {
            waiting.push(event);
            return;
        }
        let now = self.now;
        match event {
            Event::Beat { mut beat, handle } => {
                beat.received_at = now;
                let tally = self.tracker.handle_batch(&[beat], &mut self.processes);
                let (row, _) = tally.rows().next().expect("one beat has one outcome");
                let outcome = outcome(row);
                let Frame { nonce, timestamp, status, .. } = beat.frame;
                let pid = beat.sender.pid;
                self.note(format_args!("{pid}/{handle} beat {nonce} of {timestamp}: {status}, {outcome:?}"));
                self.drain();
                let identity = self.processes.processes.get(&beat.sender.pid);
                let start_time = identity
                    .filter(|_| beat.sender.origin == Origin::Local)
                    .map(|identity| identity.start_time.get());
                self.reference.beat(&beat, handle, outcome, start_time, &self.changes);
            }
            Event::Control { mut control, handle } => {
                control.received_at = now;
                let outcome = self.tracker.handle_control(&control, &mut self.processes);
                let pid = control.sender.pid;
                self.note(format_args!("{pid}/{handle} {:?}: {outcome:?}", control.said));
                self.drain();
                match &control.said {
                    ControlMessage::Hello(introduction) => {
                        assert!(self.changes.is_empty(), "{:?}", self.changes);
                        self.reference.hello(control.sender, introduction, now);
                    }
                    ControlMessage::Attach
                    | ControlMessage::Notification(_)
                    | ControlMessage::Report(_)
                    | ControlMessage::Said { .. } => {}
                    ControlMessage::Goodbye { nonce, .. } => {
                        self.reference.goodbye(control.sender, (handle, *nonce), &self.changes);
                    }
                }
            }
            Event::Death { pid, start_time, death } => {
                let process = ProcessId::new(pid, NonZeroU64::new(start_time).unwrap());
                let is_awaited = self.reference.waits_for_death(pid, start_time);
                assert!(
                    !is_awaited || self.watched.contains(&process),
                    "nobody asked to be told of {process:?}"
                );
                self.tracker.handle_exit(process, death, Lineage::default(), now, now);
                self.note(format_args!("{process:?}: {death:?}"));
                self.drain();
                self.reference.death(pid, start_time, death, &self.changes);
            }
            Event::QueueFull => {
                self.tracker.handle_loss(Transport::Unix, now);
                self.note(format_args!("the queue is full"));
                self.reference.queue_full(now);
            }
            Event::Wake { .. }
            | Event::Fate { .. }
            | Event::ServerPause(_)
            | Event::Flood { .. }
            | Event::Call => {}
        }
        self.settle();
    }

    /// Answers the tracker's requests, and checks what it emits then.
    pub(super) fn settle(&mut self) {
        loop {
            self.drain();
            self.accuse_nobody_undisturbed();
            self.reference.passed(self.now, &self.changes);
            let Some(request) = self.tracker.poll_request() else { break };
            match request {
                TrackerRequest::Watch(process) => {
                    self.watched.insert(process);
                }
                TrackerRequest::Unwatch(process) => {
                    self.watched.retain(|watched| watched.pid != process);
                }
                TrackerRequest::Look { process, depth: InspectionDepth::Full, .. } if self.answers_looks => {
                    self.tracker.handle_evidence(process, None, self.now);
                }
                TrackerRequest::Look { .. } | TrackerRequest::Find(_) => {}
            }
        }
        self.learned +=
            self.reference.compare(self.now, self.tracker.agents(0..usize::MAX), self.tracker.population());
        let most = 40;
        assert!(self.tracker.len() <= most && self.tracker.slots() <= most);
        assert!(self.tracker.departed.len() <= 2 * most + 1);
        assert!(self.tracker.names.len() <= most);
    }

    fn drain(&mut self) {
        self.changes.clear();
        while let Some(change) = self.tracker.poll_transition() {
            self.stalled += usize::from(change.to == Verdict::Stalled);
            self.note(format_args!("    {change:?}"));
            self.changes.push(change);
        }
    }

    /// By the agents' own account: an agent that beat in time all along is not called stalled, whatever the
    /// tracker made of its beats.
    fn accuse_nobody_undisturbed(&self) {
        for change in self.changes.iter().filter(|change| change.to == Verdict::Stalled) {
            let accused = self.workers.iter().find(|worker| worker.sender.pid == change.agent.pid);
            let Some(worker) = accused else { continue };
            let Policy { stall_after, arrival, .. } = self.tracker.policy;
            // An adaptive timeout may be too short for an uneven agent; but it is not shorter than this.
            let least = if arrival.learns() { stall_after.min(arrival.shortest) } else { stall_after };
            let in_time = worker.longest_gap() < least;
            assert!(!(worker.undisturbed && in_time), "it beat all the time: {change:?}");
        }
    }

    fn note(&mut self, what: fmt::Arguments<'_>) {
        match &mut self.log {
            Log::None => {}
            Log::Kept(log) => writeln!(log, "{} {what}", self.now).unwrap(),
            Log::Shown => println!("{} {what}", self.now),
        }
    }
}
