//! A recording transport, for heartbeats on virtual time.

use std::collections::VecDeque;
use std::io;
use std::panic::{self, AssertUnwindSafe};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::task;
use tokio::time::{self, Instant};
use varta_agent::{BeatTransport, Control, EncodedControl, Frame, GoodbyeReason, Guard, Heartbeat, Varta};

pub(crate) const SECOND: Duration = Duration::from_secs(1);
pub(crate) const MILLISECOND: Duration = Duration::from_millis(1);
pub(crate) const FULL: io::ErrorKind = io::ErrorKind::WouldBlock;

/// A transport that records what it sent and when.
#[derive(Clone, Default)]
pub(crate) struct Tape(pub(crate) Arc<Mutex<Recording>>);

#[derive(Default)]
pub(crate) struct Recording {
    beats: Vec<(Instant, Frame)>,
    /// The errors of the next sends; after them every send succeeds.
    errors: VecDeque<io::ErrorKind>,
    pub(crate) reconnects: usize,
    /// Control datagrams, each with the number of beats before it.
    controls: Vec<(usize, Vec<u8>)>,
    /// The errors of the next control datagrams.
    control_errors: VecDeque<io::ErrorKind>,
}

impl BeatTransport for Tape {
    fn send(&mut self, frame: &[u8; 32]) -> io::Result<usize> {
        let mut recording = self.0.lock().unwrap();
        recording.beats.push((Instant::now(), Frame::decode(frame).unwrap()));
        recording.errors.pop_front().map_or(Ok(32), |kind| Err(kind.into()))
    }

    /// Never succeeds, so that a beat is one send.
    fn reconnect(&mut self) -> io::Result<()> {
        self.0.lock().unwrap().reconnects += 1;
        Err(io::ErrorKind::NotFound.into())
    }

    fn send_control(&mut self, datagram: EncodedControl<'_>) -> io::Result<usize> {
        let mut recording = self.0.lock().unwrap();
        let beats = recording.beats.len();
        recording.controls.push((beats, datagram.to_vec()));
        recording.control_errors.pop_front().map_or(Ok(datagram.len()), |kind| Err(kind.into()))
    }
}

impl Tape {
    pub(crate) fn agent(&self) -> Varta<Self> {
        Varta::builder().transport(self.clone()).reconnect_after(0).connect().unwrap()
    }

    pub(crate) fn heartbeat(&self, interval: Duration) -> Heartbeat {
        self.agent().spawn_heartbeat(interval).unwrap()
    }

    pub(crate) fn fail_next_controls(&self, errors: &[io::ErrorKind]) {
        self.0.lock().unwrap().control_errors.extend(errors);
    }

    /// The control datagrams, each with the number of beats before it.
    pub(crate) fn controls(&self) -> Vec<(usize, Vec<u8>)> {
        self.0.lock().unwrap().controls.clone()
    }

    /// The reasons of the goodbyes, each with the number of beats before it.
    pub(crate) fn goodbyes(&self) -> Vec<(usize, GoodbyeReason)> {
        let controls = self.controls().into_iter();
        controls
            .filter_map(|(beats, bytes)| Some((beats, Control::decode(&bytes).unwrap().reason()?)))
            .collect()
    }

    pub(crate) fn fail_next(&self, errors: &[io::ErrorKind]) {
        self.0.lock().unwrap().errors.extend(errors);
    }

    pub(crate) fn times(&self) -> Vec<Instant> {
        self.0.lock().unwrap().beats.iter().map(|(at, _)| *at).collect()
    }

    pub(crate) fn frames(&self) -> Vec<Frame> {
        self.0.lock().unwrap().beats.iter().map(|(_, frame)| *frame).collect()
    }

    /// The times between beats.
    pub(crate) fn gaps(&self) -> Vec<Duration> {
        self.times().windows(2).map(|pair| pair[1] - pair[0]).collect()
    }

    pub(crate) fn len(&self) -> usize {
        self.0.lock().unwrap().beats.len()
    }

    /// Advances the time until there are this many beats.
    pub(crate) async fn until(&self, beats: usize) {
        while self.len() < beats {
            time::sleep(MILLISECOND).await;
        }
    }

    /// Whether the task and its handle still exist.
    pub(crate) fn is_held(&self) -> bool {
        Arc::strong_count(&self.0) > 1
    }
}

/// Lets every task run as far as it can without time passing.
pub(crate) async fn settle() {
    for _ in 0..10 {
        task::yield_now().await;
    }
}

/// Advances the time in steps of the interval, and counts the beats.
pub(crate) async fn beats_in(tape: &Tape, seconds: u32) -> usize {
    let before = tape.len();
    for _ in 0..seconds {
        time::sleep(SECOND).await;
    }
    tape.len() - before
}

/// Waits for the first beat and half an interval more, so that beats and test never coincide.
pub(crate) async fn between_beats(tape: &Tape) {
    tape.until(1).await;
    time::sleep(SECOND / 2).await;
}

/// Drops a guard during unwinding, as a panic does.
pub(crate) fn unwind(guard: Guard) {
    let unwound = panic::catch_unwind(AssertUnwindSafe(move || {
        let _held = guard;
        panic::resume_unwind(Box::new("out of cheese"));
    }));
    assert!(unwound.is_err());
}
