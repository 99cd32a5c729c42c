//! Feeds a recording to a tracker with another policy, and counts the resulting verdicts.
//!
//! Between two records, time advances, and deadlines expire in between as they would have in the server. Only
//! during an observer gap the server checked no deadlines: so none expires that is due after the beginning of
//! a gap, until the record of that gap is reached.

use std::collections::{HashMap, VecDeque};
use std::path::PathBuf;
use std::time::Duration;

use crate::base::error::Error;
use crate::base::progress::Progress;
use crate::base::time::MonoTime;
use crate::domain::agent_key::AgentKey;
use crate::domain::beat::ReceivedBeat;
use crate::domain::outcome::FrameOutcome;
use crate::domain::process::identity::{ProcessIdentity, Processes};
use crate::domain::tracker::arrival::ArrivalPolicy;
use crate::domain::tracker::{Cause, Policy, Tracker, Transition, Verdict};
use crate::engine::InputRecord;
use crate::engine::options::check_policy;
use crate::services::recording::findings::{Findings, Mistaken};
use crate::services::recording::plot_data::PlotData;
use crate::services::recording::reader::RecordingReader;
use crate::services::recording::report::{Recorded, Report};

/// What to replay, and under which policy.
#[derive(Clone, Debug)]
pub struct Replay {
    /// The recording.
    pub path: PathBuf,
    /// The default timeout of agents that request none; `None` for the recorded one.
    pub stall_after: Option<Duration>,
    /// The policy for learned timeouts.
    pub arrival: ArrivalPolicy,
}

/// Replays a recording.
///
/// # Errors
///
/// The policy is invalid, or the file cannot be read or is no recording; the error names the place.
pub fn replay(replay: &Replay) -> Result<Report, Error> {
    replay_showing(replay, &Progress::hidden(), false).map(|(report, _)| report)
}

/// The same, and shows how far it has come. Also gives the picture as SVG, if that `is_drawn`.
///
/// # Errors
///
/// As for [`replay`].
pub(super) fn replay_showing(
    replay: &Replay,
    progress: &Progress,
    is_drawn: bool,
) -> Result<(Report, Option<String>), Error> {
    let recording = RecordingReader::open(&replay.path)?;
    // It is read twice.
    progress.expect(recording.length.saturating_mul(2));
    let policy = Policy {
        stall_after: replay.stall_after.unwrap_or(recording.header.stall_after),
        arrival: replay.arrival,
        looks_per_second: 0,
        ..Policy::default()
    };
    check_policy(&policy)?;
    let (recorded, blind_from) = survey(&recording, progress)?;
    let mut run = Run::new(policy.clone(), blind_from, is_drawn);
    let mut records = recording.records(progress)?;
    while let Some(record) = records.next()? {
        run.take(record);
    }
    let plot = run.plot.take();
    let report = run.into_report(replay.path.clone(), &policy, recorded);
    let picture = plot.map(|data| report.plot(&data)).transpose()?;
    Ok((report, picture))
}

/// Makes a first pass over a recording. Returns its contents in numbers, and the beginnings of its observer
/// gaps in the order of the records.
fn survey(recording: &RecordingReader, progress: &Progress) -> Result<(Recorded, VecDeque<MonoTime>), Error> {
    let mut recorded = Recorded::default();
    let mut blind_from = VecDeque::new();
    let (mut first, mut last) = (MonoTime::NEVER, MonoTime::START);
    let mut records = recording.records(progress)?;
    while let Some(record) = records.next()? {
        recorded.records += 1;
        if !matches!(record, InputRecord::Process { .. }) {
            (first, last) = (first.min(record.at()), last.max(record.at()));
        }
        match record {
            InputRecord::Beat(_) => recorded.beats += 1,
            InputRecord::Loss { .. } => recorded.losses += 1,
            InputRecord::Blind { from, to } => {
                recorded.blindnesses += 1;
                recorded.blind = recorded.blind.saturating_add(to.since(from));
                blind_from.push_back(from);
            }
            InputRecord::Gap { from, records, .. } => {
                recorded.dropped = recorded.dropped.saturating_add(records);
                blind_from.push_back(from);
            }
            InputRecord::Control(_)
            | InputRecord::Process { .. }
            | InputRecord::Exit { .. }
            | InputRecord::Absence { .. }
            | InputRecord::Forget { .. }
            | InputRecord::End { .. } => {}
        }
    }
    recorded.unix_first = recording.header.unix_start.saturating_add(first.min(last).as_nanos());
    recorded.span = last.since(first);
    recorded.torn = records.torn();
    Ok((recorded, blind_from))
}

/// The recorded process of each pid.
#[derive(Debug, Default)]
struct ProcessTable(HashMap<u32, ProcessIdentity>);

impl Processes for ProcessTable {
    fn identify(&mut self, pid: u32) -> Option<ProcessIdentity> {
        self.0.get(&pid).cloned()
    }
}

struct Run {
    tracker: Tracker,
    processes: ProcessTable,
    now: MonoTime,
    /// The beginnings of the observer gaps that are still ahead.
    blind_from: VecDeque<MonoTime>,
    found: Findings,
    mistaken: HashMap<AgentKey, Mistaken>,
    /// What a picture is drawn from, if one is.
    plot: Option<PlotData>,
}

impl Run {
    fn new(policy: Policy, blind_from: VecDeque<MonoTime>, is_drawn: bool) -> Self {
        Run {
            tracker: Tracker::new(policy),
            processes: ProcessTable::default(),
            now: MonoTime::START,
            blind_from,
            found: Findings::default(),
            mistaken: HashMap::new(),
            plot: is_drawn.then(PlotData::default),
        }
    }

    fn take(&mut self, record: InputRecord) {
        if let InputRecord::Process { pid, identity } = record {
            match identity {
                Some(identity) => drop(self.processes.0.insert(pid, identity)),
                None => drop(self.processes.0.remove(&pid)),
            }
            return;
        }
        self.advance(record.at());
        match record {
            InputRecord::Beat(beat) => self.take_beat(&beat),
            InputRecord::Control(control) => {
                self.tracker.handle_control(&control, &mut self.processes);
            }
            // A gap in the recording counts as an observer gap: its beats were dropped, and must not be
            // missed.
            InputRecord::Blind { from, to } | InputRecord::Gap { from, to, .. } => {
                self.tracker.handle_observer_gap(from, to);
                self.blind_from.pop_front();
            }
            InputRecord::Loss { transport, at } => self.tracker.handle_loss(transport, at),
            InputRecord::Exit { process: Some(process), death, lineage, noticed_at, at, .. } => {
                self.tracker.handle_exit(process, death, lineage, noticed_at, at);
            }
            InputRecord::Exit { pid, process: None, death, noticed_at, at, .. } => {
                self.tracker.handle_hidden_exit(pid, death, noticed_at, at);
            }
            InputRecord::Absence { pid, process, death, at } => {
                self.tracker.handle_absence(pid, process, death, at);
            }
            InputRecord::Forget { agent, .. } => _ = self.tracker.handle_forget(&agent),
            InputRecord::Process { .. } | InputRecord::End { .. } => {}
        }
        self.drain();
    }

    fn take_beat(&mut self, beat: &ReceivedBeat) {
        let tally = self.tracker.handle_batch(std::slice::from_ref(beat), &mut self.processes);
        if tally.of(FrameOutcome::Accepted) == 0 {
            return;
        }
        self.found.accepted += 1;
        if let Some(plot) = &mut self.plot {
            plot.beat(beat.sender, beat.received_at);
        }
        if let Some(deadline) = self.tracker.deadline_of(beat.sender) {
            self.found.detection.add(deadline.since(beat.received_at));
        }
    }

    /// Advances the time to `to`, and lets all earlier deadlines expire; inputs at exactly `to` come before
    /// its deadlines.
    fn advance(&mut self, to: MonoTime) {
        let to = to.max(self.now);
        while let Some(due) = self.tracker.poll_timeout().filter(|due| *due < to)
            && self.blind_from.front().is_none_or(|from| due <= *from)
        {
            self.pass(due.max(self.now));
            self.tracker.handle_timeout(self.now);
            // Beats in shared pages were recorded when they were read.
            while let Some(pid) = self.tracker.poll_unread() {
                self.tracker.handle_read(pid, self.now);
            }
            self.drain();
        }
        self.pass(to);
    }

    fn pass(&mut self, to: MonoTime) {
        let population = self.tracker.population();
        let up = population[Verdict::UP] + population[Verdict::UNKNOWN];
        self.found.up_nanos += up as u128 * to.since(self.now).as_nanos();
        self.now = to;
    }

    fn drain(&mut self) {
        while let Some(transition) = self.tracker.poll_transition() {
            self.count(&transition);
        }
        // The processes may be long gone, and are not inspected.
        while self.tracker.poll_request().is_some() {}
        while self.tracker.poll_registry_change().is_some() {}
    }

    fn count(&mut self, transition: &Transition) {
        let Transition { agent, from, to, cause, mistake, .. } = transition;
        self.found.agents += u64::from(matches!(cause, Cause::FirstBeat | Cause::Restarted));
        self.found.stalled += u64::from(*to == Verdict::Stalled);
        self.found.down += u64::from(*to == Verdict::Down);
        let is_taken_back = *from == Some(Verdict::Stalled) && *cause == Cause::Recovered;
        self.found.taken_back += u64::from(is_taken_back);
        if let Some(lasted) = *mistake {
            self.found.mistakes.add(lasted);
            if let Some(plot) = &mut self.plot {
                plot.mistake(transition.at, lasted);
            }
            let row = self.mistaken.entry(AgentKey::of(agent)).or_default();
            row.agent = match agent.origin.address() {
                Some(address) => format!("{agent} of {address}"),
                None => agent.to_string(),
            };
            row.mistakes += 1;
            row.longest = row.longest.max(lasted);
        }
    }

    fn into_report(mut self, path: PathBuf, policy: &Policy, recorded: Recorded) -> Report {
        self.found.lost = self.tracker.statistics().lost;
        self.found.mistaken = self.mistaken.into_values().collect();
        Report::new(path, policy, recorded, self.found)
    }
}
