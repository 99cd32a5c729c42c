//! The process monitor: carries out what the tracker requests about processes (watch, find, inspect), and
//! records what the tracker learns of them.

use std::collections::{HashMap, VecDeque};
use std::num::NonZeroU32;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use tokio::sync::mpsc;

use crate::base::time::MonoTime;
use crate::domain::process::identity::{ProcessIdentity, Processes};
use crate::domain::process::{
    Dossier, EndedProcess, ExitStatus, InspectionDepth, Lineage, PidfdTag, ProcessActivity, ProcessId,
};
use crate::domain::tracker::{Policy, Tracker, TrackerRequest};
use crate::engine::debugging::{debug_evidence, debug_look};
use crate::engine::record::InputRecord;
use crate::engine::tap::{Recorder, RecordingProcesses};
use crate::ingest::batch::Batch;
use crate::observe::exit_watcher::{ExitWatcher, ProcessExit, WatchError, WatchedProcess};
use crate::observe::identify::{self, Presence, ProcFs};
use crate::observe::oom::OomWatch;
use crate::observe::pidfd::Pidfd;
use crate::observe::sampler::{Inspection, REQUESTS, SampleResult, Sampler};

/// The most requests carried out in one turn. Watching a process takes as long as twenty beats.
const REQUESTS_PER_TURN: usize = 32;
/// The most quick samples kept for comparison with a later full snapshot. Beyond it, snapshots come without
/// comparison.
const MAX_QUICK_SAMPLES: usize = 4_096;

// The tracker grants a second's inspections at once, and a sampler that waits for nothing has room for all of
// them.
const _: () = assert!(Policy::LOOKS_PER_SECOND as usize <= REQUESTS);

/// The most pidfds of senders that are kept until the tracker has asked for the processes to be watched. The
/// processes of further ones are opened by their pids.
const MAX_ARRIVED: usize = 256;

/// Identification, exit watching and inspection of processes for the tracker.
#[derive(Debug)]
pub(crate) struct ProcessMonitor {
    pub(super) processes: RecordingProcesses<ProcFs>,
    pub(super) watcher: ExitWatcher,
    /// Tells kills for want of memory from others.
    oom: OomWatch,
    pub(super) sampler: Sampler,
    /// Results of the sampler.
    pub(super) answers: mpsc::Receiver<SampleResult>,
    /// Quick samples, taken when half of an agent's timeout had passed.
    quick_samples: HashMap<ProcessId, Arc<Dossier>>,
    /// Requests not yet carried out. Bounded: at most what one turn of the tracker produces, which beats and
    /// deadlines limit, and one watch or unwatch for each agent.
    pub(super) requests: VecDeque<TrackerRequest>,
    /// Processes that the server before this one watched, and are not watched yet. Bounded by what it watched.
    pub(super) inherited: VecDeque<(WatchedProcess, Option<Pidfd>)>,
    /// Pidfds that came with the datagrams of this turn, by pid.
    arrived: Vec<(u32, Pidfd)>,
    /// Records what the tracker is given.
    pub(super) recorder: Recorder,
}

/// Identifies processes, and knows which have just ended.
pub(super) struct ProcessLookup<'m> {
    processes: &'m mut RecordingProcesses<ProcFs>,
    watcher: &'m mut ExitWatcher,
}

impl Processes for ProcessLookup<'_> {
    #[inline]
    fn identify(&mut self, pid: u32) -> Option<ProcessIdentity> {
        self.processes.identify(pid)
    }

    fn ended(&mut self) -> Vec<EndedProcess> {
        let ended = |process: &WatchedProcess, death| {
            let WatchedProcess { pid, start_time, tag, lineage, .. } = *process;
            let process = start_time.map(|start_time| ProcessId { pid, start_time, tag });
            EndedProcess { pid, process, death, lineage }
        };
        let mut all: Vec<_> = self.watcher.peek().map(|exit| ended(&exit.process, exit.death)).collect();
        all.extend(self.watcher.unreaped().map(|process| ended(process, ExitStatus::Unknown)));
        all
    }
}

impl ProcessMonitor {
    pub(crate) fn new(
        watcher: ExitWatcher,
        oom: OomWatch,
        sampler: Sampler,
        answers: mpsc::Receiver<SampleResult>,
        recorder: Recorder,
    ) -> Self {
        ProcessMonitor {
            processes: RecordingProcesses::new(ProcFs::new(), &recorder),
            watcher,
            oom,
            sampler,
            answers,
            quick_samples: HashMap::new(),
            requests: VecDeque::new(),
            inherited: VecDeque::new(),
            arrived: Vec::new(),
            recorder,
        }
    }

    /// What the tracker may ask while it handles beats.
    pub(super) fn lookup(&mut self) -> ProcessLookup<'_> {
        ProcessLookup { processes: &mut self.processes, watcher: &mut self.watcher }
    }

    /// Keeps the pidfds that came with a batch while its senders may have to be watched.
    pub(super) fn keep(&mut self, pidfds: Vec<(u32, OwnedFd)>) {
        let free = MAX_ARRIVED.saturating_sub(self.arrived.len());
        let pidfds = pidfds.into_iter().take(free);
        self.arrived.extend(pidfds.map(|(pid, pidfd)| (pid, Pidfd::of_sender(pidfd))));
    }

    /// Records a batch that the tracker has processed, with the process lookups that it needed.
    #[inline]
    pub(super) fn record(&mut self, batch: &Batch) {
        if self.recorder.is_on() {
            self.recorder.take(batch, self.processes.take_answers());
            if !self.recorder.is_on() {
                self.processes.forget();
            }
        }
    }

    /// Reports a process exit to the tracker. All earlier beats of the process must have been processed.
    pub(super) fn record_exit(
        &mut self,
        exit: ProcessExit,
        noticed_at: MonoTime,
        tracker: &mut Tracker,
        now: MonoTime,
    ) {
        let ProcessExit {
            process: WatchedProcess { pid, start_time, was_alive, tag, lineage }, death, ..
        } = exit;
        let Some(start_time) = start_time else {
            if !was_alive {
                return self.record_absence(pid, None, death, tracker, now);
            }
            tracker.handle_hidden_exit(pid, death, noticed_at, now);
            let process = None;
            return self.recorder.record(InputRecord::Exit {
                pid,
                process,
                death,
                lineage,
                noticed_at,
                at: now,
            });
        };
        let process = ProcessId { pid, start_time, tag };
        self.quick_samples.remove(&process);
        match self.oom.end(process.pid, death) {
            Some(cgroup) => tracker.handle_oom_kill(process, cgroup, lineage, noticed_at, now),
            None => tracker.handle_exit(process, death, lineage, noticed_at, now),
        }
        let process = Some(process);
        self.recorder.record(InputRecord::Exit { pid, process, death, lineage, noticed_at, at: now });
    }

    /// Reports to the tracker the end of a process that could not be watched, or not be identified.
    fn record_absence(
        &mut self,
        pid: u32,
        process: Option<ProcessId>,
        death: ExitStatus,
        tracker: &mut Tracker,
        now: MonoTime,
    ) {
        tracker.handle_absence(pid, process, death, now);
        self.recorder.record(InputRecord::Absence { pid, process, death, at: now });
    }

    /// Has a process that is not watched looked for now, and reports to the tracker if it has ended. Returns whether
    /// it has.
    pub(super) fn check_absence(
        &mut self,
        pid: u32,
        process: Option<ProcessId>,
        tracker: &mut Tracker,
        now: MonoTime,
    ) -> bool {
        if self.watcher.watches(u64::from(pid)) || !identify::has_ended(pid, process) {
            return false;
        }
        self.record_absence(pid, process, ExitStatus::Unknown, tracker, now);
        true
    }

    /// Takes over processes that another server watches, with the pidfds that it has passed, and the exits that it
    /// has seen and not acted on.
    pub(crate) fn inherit(
        &mut self,
        processes: Vec<WatchedProcess>,
        pidfds: Vec<OwnedFd>,
        exits: Vec<ProcessExit>,
    ) {
        self.watcher.put_back(exits);
        let mut pidfds = pidfds.into_iter().map(Pidfd::of_sender);
        self.inherited = processes.into_iter().map(|process| (process, pidfds.next())).collect();
    }

    /// Whether there is something to do that no event announces.
    pub(super) fn has_requests(&self) -> bool {
        !self.requests.is_empty() || !self.inherited.is_empty()
    }

    fn watch_inherited(&mut self, tracker: &mut Tracker, now: MonoTime) {
        for _ in 0..REQUESTS_PER_TURN {
            let Some((process, pidfd)) = self.inherited.pop_front() else { return };
            self.watch_by(process, pidfd, tracker, now);
        }
    }

    /// Carries out some of the tracker's requests.
    pub(super) fn do_requests(&mut self, tracker: &mut Tracker, now: MonoTime) {
        if !self.inherited.is_empty() {
            self.watch_inherited(tracker, now);
        }
        self.requests.extend(std::iter::from_fn(|| tracker.poll_request()));
        for _ in 0..REQUESTS_PER_TURN {
            let Some(request) = self.requests.pop_front() else { return self.arrived.clear() };
            match request {
                TrackerRequest::Watch(process @ ProcessId { pid, start_time, tag }) => {
                    let lineage = self.processes.inner_mut().take_lineage(process);
                    let process =
                        WatchedProcess { pid, start_time: Some(start_time), was_alive: false, tag, lineage };
                    self.watch(process, tracker, now);
                }
                TrackerRequest::Unwatch(pid) => {
                    self.watcher.unwatch(u64::from(pid));
                    self.oom.unwatch(pid);
                }
                TrackerRequest::Find(pid) => {
                    let (tag, lineage) = (PidfdTag::UNKNOWN, Lineage::default());
                    let hidden = WatchedProcess { pid, start_time: None, was_alive: false, tag, lineage };
                    self.watch(hidden, tracker, now);
                }
                TrackerRequest::Look { process, child, depth } => {
                    self.look(process, child, depth, tracker, now);
                }
            }
        }
    }

    fn watch(&mut self, process: WatchedProcess, tracker: &mut Tracker, now: MonoTime) {
        let arrived = self.arrived.iter().position(|(sender, _)| *sender == process.pid);
        let arrived = arrived.map(|place| self.arrived.swap_remove(place).1);
        self.watch_by(process, arrived, tracker, now);
    }

    fn watch_by(
        &mut self,
        process: WatchedProcess,
        arrived: Option<Pidfd>,
        tracker: &mut Tracker,
        now: MonoTime,
    ) {
        let WatchedProcess { pid, start_time, tag, .. } = process;
        let identified = start_time.map(|start_time| ProcessId { pid, start_time, tag });
        match self.watcher.watch(u64::from(pid), process, arrived) {
            Err(WatchError::Gone) => self.record_absence(pid, identified, ExitStatus::Unknown, tracker, now),
            Ok(()) => self.oom.watch(pid),
            // Counted by the watcher. The exit will be noticed at the agent's deadline.
            Err(WatchError::Full { .. } | WatchError::Kernel(_)) => {}
        }
    }

    fn look(
        &mut self,
        process: ProcessId,
        child: Option<NonZeroU32>,
        depth: InspectionDepth,
        tracker: &mut Tracker,
        now: MonoTime,
    ) {
        debug_look(process, depth);
        let earlier = match depth {
            InspectionDepth::Quick => None,
            InspectionDepth::Full => self.quick_samples.remove(&process),
        };
        // Counted by the sampler. The pending verdict is issued without evidence.
        if self.sampler.request(Inspection { process, child, depth, earlier }).is_err() {
            tracker.handle_evidence(process, None, now);
        }
    }

    /// Passes a sampling result to the tracker.
    pub(super) fn apply_sample(&mut self, answer: SampleResult, tracker: &mut Tracker, now: MonoTime) {
        let SampleResult { process, dossier } = answer;
        debug_evidence(process, dossier.as_deref());
        let death = match dossier {
            Some(glance) if glance.look.details.is_none() => {
                if self.quick_samples.len() >= MAX_QUICK_SAMPLES {
                    self.quick_samples.clear();
                }
                self.quick_samples.insert(process, glance);
                return;
            }
            Some(dossier) if dossier.explanation.activity != ProcessActivity::Gone => {
                return tracker.handle_evidence(process, Some(dossier), now);
            }
            // The watcher is about to report the exit, with its status.
            Some(_) | None if self.watcher.watches(u64::from(process.pid)) => return,
            // A zombie that nobody watches, for want of descriptors.
            Some(dossier) => dossier.look.death.unwrap_or(ExitStatus::Unknown),
            None => match identify::presence(process.pid, process.start_time) {
                Presence::Gone => ExitStatus::Unknown,
                // It could not be read, which says nothing about it.
                Presence::There | Presence::Unknown => return tracker.handle_evidence(process, None, now),
            },
        };
        let ProcessId { pid, start_time, tag } = process;
        let lineage = Lineage::default();
        let process = WatchedProcess { pid, start_time: Some(start_time), was_alive: false, tag, lineage };
        self.record_exit(ProcessExit { key: u64::from(pid), process, death }, now, tracker, now);
    }
}
