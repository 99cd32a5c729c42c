//! The engine's end of a recording: the queue of inputs to the writing thread.

use std::mem;
use std::sync::mpsc::{SyncSender, TrySendError};

use metrics::Counter;

use crate::base::time::MonoTime;
use crate::domain::beat::{ReceivedBeat, ReceivedControl, Transport};
use crate::domain::process::identity::{ProcessIdentity, Processes};
use crate::engine::record::InputRecord;
use crate::ingest::batch::Batch;

/// The capacity. With 64 beats in each entry that is tens of milliseconds at full load.
pub(crate) const QUEUE: usize = 1_024;

/// The result of an identity lookup.
pub(crate) type IdentityLookup = (u32, Option<ProcessIdentity>);

/// Inputs that are recorded together.
#[derive(Debug)]
pub(crate) enum TapEntry {
    /// One batch of a listener.
    Batch {
        /// The identity lookups that its beats caused.
        answers: Vec<IdentityLookup>,
        beats: Vec<ReceivedBeat>,
        /// Control messages, each with the number of beats before it.
        controls: Vec<(usize, ReceivedControl)>,
        turned_away: Option<(Transport, MonoTime)>,
    },
    Event(InputRecord),
}

/// Queues inputs for the recording without waiting. Without a recording it does nothing.
#[derive(Debug, Default)]
pub(crate) struct Recorder(Option<TapQueue>);

#[derive(Debug)]
struct TapQueue {
    queue: SyncSender<TapEntry>,
    dropped: Counter,
    /// The inputs dropped since the last one that fitted.
    gap: Option<RecordingGap>,
}

#[derive(Clone, Copy, Debug)]
struct RecordingGap {
    from: MonoTime,
    to: MonoTime,
    records: u64,
}

impl Recorder {
    pub(crate) fn new(queue: SyncSender<TapEntry>, dropped: Counter) -> Self {
        Recorder(Some(TapQueue { queue, dropped, gap: None }))
    }

    /// Whether a recording is being written.
    #[inline]
    pub(crate) fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// Records a batch of a listener.
    pub(crate) fn take(&mut self, batch: &Batch, answers: Vec<IdentityLookup>) {
        let Batch { transport, ref beats, ref controls, queue_full_at: turned_away_at, .. } = *batch;
        let first = beats.iter().map(|beat| beat.received_at);
        let at = first.chain(controls.iter().map(|(_, control)| control.received_at)).next();
        let records = answers.len() + beats.len() + controls.len() + usize::from(turned_away_at.is_some());
        let entry = TapEntry::Batch {
            answers,
            beats: beats.clone(),
            controls: controls.clone(),
            turned_away: turned_away_at.map(|at| (transport, at)),
        };
        let at = at.or(turned_away_at).unwrap_or_default();
        self.put(at, u64::try_from(records).unwrap_or(u64::MAX), entry);
    }

    /// Records any other input.
    pub(crate) fn record(&mut self, record: InputRecord) {
        if self.is_on() {
            self.put(record.at(), 1, TapEntry::Event(record));
        }
    }

    fn put(&mut self, at: MonoTime, records: u64, entry: TapEntry) {
        let Some(tape) = &mut self.0 else { return };
        if let Some(RecordingGap { from, to, records: missing }) = tape.gap {
            match tape.queue.try_send(TapEntry::Event(InputRecord::Gap { from, to, records: missing })) {
                Ok(()) => tape.gap = None,
                Err(TrySendError::Full(_)) => return tape.miss(at, records),
                Err(TrySendError::Disconnected(_)) => return self.0 = None,
            }
        }
        match tape.queue.try_send(entry) {
            Ok(()) => {}
            Err(TrySendError::Full(_)) => tape.miss(at, records),
            // The writer has ended, and has logged why.
            Err(TrySendError::Disconnected(_)) => self.0 = None,
        }
    }
}

impl TapQueue {
    /// Counts dropped inputs, and extends the gap.
    fn miss(&mut self, at: MonoTime, records: u64) {
        self.dropped.increment(records);
        let gap = self.gap.get_or_insert(RecordingGap { from: at, to: at, records: 0 });
        gap.to = at;
        gap.records += records;
    }
}

/// Queues a last record for an open gap, if it fits.
impl Drop for TapQueue {
    fn drop(&mut self) {
        if let Some(RecordingGap { from, to, records }) = self.gap {
            // A gap that does not fit was counted.
            let _ = self.queue.try_send(TapEntry::Event(InputRecord::Gap { from, to, records }));
        }
    }
}

/// Identifies processes, and collects the results while a recording is being written.
#[derive(Debug)]
pub(crate) struct RecordingProcesses<P> {
    inner: P,
    answers: Option<Vec<IdentityLookup>>,
}

impl<P> RecordingProcesses<P> {
    pub(crate) fn new(inner: P, recorder: &Recorder) -> Self {
        RecordingProcesses { inner, answers: recorder.is_on().then(Vec::new) }
    }

    /// What identifies them.
    pub(crate) fn inner_mut(&mut self) -> &mut P {
        &mut self.inner
    }

    /// Takes the results since the last call.
    pub(crate) fn take_answers(&mut self) -> Vec<IdentityLookup> {
        self.answers.as_mut().map(mem::take).unwrap_or_default()
    }

    /// Stops collecting results.
    pub(crate) fn forget(&mut self) {
        self.answers = None;
    }
}

impl<P: Processes> Processes for RecordingProcesses<P> {
    fn identify(&mut self, pid: u32) -> Option<ProcessIdentity> {
        let identity = self.inner.identify(pid);
        if let Some(answers) = &mut self.answers {
            answers.push((pid, identity.clone()));
        }
        identity
    }
}
