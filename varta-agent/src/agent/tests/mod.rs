mod control;
mod progress;

use std::collections::VecDeque;
use std::io;
use std::process;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use varta_proto::control::EncodedControl;
use varta_proto::{Frame, NONCE_TERMINAL, Status};

use super::handle::Varta;
use crate::outcome::{BeatError, BeatOutcome, DropReason, classify_send_error};
use crate::time::nanoseconds;
use crate::transport::BeatTransport;

/// A transport with scripted results that records its calls.
#[derive(Clone, Default)]
struct Scripted(Arc<Mutex<Script>>);

#[derive(Default)]
struct Script {
    /// Results of `send`, in order; after them every send succeeds.
    sends: VecDeque<io::Result<usize>>,
    /// Results of `reconnect`; after them every one succeeds.
    reconnects: VecDeque<io::Result<()>>,
    /// Results of `send_control`; after them every datagram is taken whole.
    controls: VecDeque<io::Result<usize>>,
    frames: Vec<Frame>,
    /// Control datagrams, each with the number of frames before it.
    controls_sent: Vec<(usize, Vec<u8>)>,
    reconnected: usize,
}

impl BeatTransport for Scripted {
    fn send(&mut self, frame: &[u8; 32]) -> io::Result<usize> {
        let mut script = self.0.lock().unwrap();
        script.frames.push(Frame::decode(frame).unwrap());
        script.sends.pop_front().unwrap_or(Ok(32))
    }

    fn reconnect(&mut self) -> io::Result<()> {
        let mut script = self.0.lock().unwrap();
        script.reconnected += 1;
        script.reconnects.pop_front().unwrap_or(Ok(()))
    }

    fn send_control(&mut self, datagram: EncodedControl<'_>) -> io::Result<usize> {
        let mut script = self.0.lock().unwrap();
        let frames = script.frames.len();
        script.controls_sent.push((frames, datagram.to_vec()));
        script.controls.pop_front().unwrap_or(Ok(datagram.len()))
    }
}

impl Scripted {
    /// Makes the next sends fail with these kinds.
    fn drop_next(&self, kinds: &[io::ErrorKind]) {
        self.0.lock().unwrap().sends.extend(kinds.iter().map(|kind| Err((*kind).into())));
    }

    fn send_short_next(&self, length: usize) {
        self.0.lock().unwrap().sends.push_back(Ok(length));
    }

    fn fail_reconnect_next(&self, kind: io::ErrorKind) {
        self.0.lock().unwrap().reconnects.push_back(Err(kind.into()));
    }

    fn frames(&self) -> Vec<Frame> {
        self.0.lock().unwrap().frames.clone()
    }

    fn nonces(&self) -> Vec<u64> {
        self.frames().iter().map(|frame| frame.nonce).collect()
    }

    fn reconnected(&self) -> usize {
        self.0.lock().unwrap().reconnected
    }
}

const FULL: io::ErrorKind = io::ErrorKind::WouldBlock;
const GONE: io::ErrorKind = io::ErrorKind::ConnectionReset;

fn agent() -> (Varta<Scripted>, Scripted) {
    let transport = Scripted::default();
    (Varta::new(transport.clone(), 0), transport)
}

fn agent_reconnecting_after(n: u32) -> (Varta<Scripted>, Scripted) {
    let (mut agent, transport) = agent();
    agent.set_reconnect_after(n);
    (agent, transport)
}

fn beat(agent: &mut Varta<Scripted>) -> BeatOutcome {
    agent.beat(Status::Ok, 0)
}

fn dropped(kind: io::ErrorKind) -> BeatOutcome {
    classify_send_error(&kind.into())
}

fn failed(kind: io::ErrorKind) -> BeatOutcome {
    BeatOutcome::Failed(BeatError::of_kind(kind))
}

#[test]
fn a_beat_carries_what_it_was_given() {
    let (mut agent, transport) = agent();
    assert_eq!(agent.beat(Status::Critical, 0xfeed_beef), BeatOutcome::Sent);
    let [frame] = transport.frames()[..] else { panic!("one frame") };
    assert_eq!((frame.status, frame.payload), (Status::Critical, 0xfeed_beef));
    assert_eq!((frame.pid, frame.nonce), (process::id(), 1));
}

#[test]
fn the_first_beat_has_nonce_1_and_each_one_the_next_sent_or_not() {
    let (mut agent, transport) = agent();
    transport.drop_next(&[FULL, io::ErrorKind::Other]);
    for _ in 0..4 {
        let _ = beat(&mut agent);
    }
    assert_eq!(transport.nonces(), [1, 2, 3, 4]);
}

#[test]
fn after_the_last_nonce_comes_0() {
    let (mut agent, transport) = agent();
    agent.nonce = NONCE_TERMINAL - 2;
    for _ in 0..3 {
        assert!(beat(&mut agent).is_sent());
    }
    assert_eq!(transport.nonces(), [NONCE_TERMINAL - 1, 0, 1]);
}

#[test]
fn the_timestamp_is_the_time_since_the_handle_was_made() {
    let (mut agent, transport) = agent();
    for seconds in [1, 2] {
        let now = agent.start + Duration::from_secs(seconds);
        assert!(agent.beat_at(now, Status::Ok, 0).is_sent());
    }
    let timestamps: Vec<_> = transport.frames().iter().map(|frame| frame.timestamp).collect();
    assert_eq!(timestamps, [1_000_000_000, 2_000_000_000]);
}

#[test]
fn a_clock_that_steps_back_repeats_the_timestamp_and_is_counted() {
    let (mut agent, transport) = agent();
    let start = agent.start;
    for (milliseconds, regressions) in [(50, 0), (20, 1), (50, 1), (49, 2), (60, 2)] {
        let _ = agent.beat_at(start + Duration::from_millis(milliseconds), Status::Ok, 0);
        assert_eq!(agent.clock_regressions(), regressions, "at {milliseconds} ms");
    }
    let milliseconds: Vec<_> = transport.frames().iter().map(|frame| frame.timestamp / 1_000_000).collect();
    assert_eq!(milliseconds, [50, 50, 50, 50, 60]);
}

#[test]
fn the_timestamp_never_is_the_one_that_means_an_error() {
    let (mut agent, transport) = agent();
    let year = Duration::from_secs(365 * 24 * 3600);
    for years in [584, 585, 700] {
        let now = agent.start + year * years;
        let _ = agent.beat_at(now, Status::Ok, 0);
    }
    let timestamps: Vec<_> = transport.frames().iter().map(|frame| frame.timestamp).collect();
    assert_eq!(timestamps[1..], [u64::MAX - 1, u64::MAX - 1]);
    assert_eq!(nanoseconds(Duration::MAX), u64::MAX - 1);
}

#[test]
fn a_stall_is_refused_and_leaves_the_handle_as_it_was() {
    let (mut agent, transport) = agent_reconnecting_after(2);
    transport.drop_next(&[GONE]);
    assert!(beat(&mut agent).is_dropped());

    agent.process_life.invalidate();
    assert_eq!(agent.beat(Status::Stall, 0), failed(io::ErrorKind::InvalidInput));
    assert_eq!((agent.nonce, agent.dropped_in_a_row), (1, 1));
    assert_eq!((agent.fork_recoveries(), transport.reconnected()), (0, 0));
    assert_eq!(transport.nonces(), [1]);
}

#[test]
fn a_short_send_has_failed() {
    let (mut agent, transport) = agent();
    for length in [0, 31, 33] {
        transport.send_short_next(length);
        assert_eq!(beat(&mut agent), failed(io::ErrorKind::WriteZero));
    }
}

#[test]
fn a_handle_without_a_threshold_never_reconnects() {
    let (mut agent, transport) = agent();
    transport.drop_next(&[GONE; 50]);
    for _ in 0..50 {
        assert_eq!(beat(&mut agent), dropped(GONE));
    }
    assert_eq!(transport.reconnected(), 0);
}

#[test]
fn the_nth_drop_in_a_row_reconnects_and_sends_the_same_frame_once_more() {
    let (mut agent, transport) = agent_reconnecting_after(3);
    transport.drop_next(&[GONE, FULL, GONE]);
    assert_eq!(beat(&mut agent), dropped(GONE));
    assert_eq!(beat(&mut agent), dropped(FULL));
    assert_eq!(transport.reconnected(), 0);

    assert_eq!(agent.beat(Status::Degraded, 9), BeatOutcome::Sent);
    assert_eq!(transport.reconnected(), 1);
    let frames = transport.frames();
    assert_eq!(transport.nonces(), [1, 2, 3, 3]);
    assert_eq!(frames[3], frames[2]);
    assert_eq!(agent.dropped_in_a_row, 0);
}

#[test]
fn a_second_drop_leaves_the_count_at_the_threshold_so_that_the_next_beat_tries_again() {
    let (mut agent, transport) = agent_reconnecting_after(2);
    transport.drop_next(&[GONE, GONE, FULL, GONE]);
    assert_eq!(beat(&mut agent), dropped(GONE));
    assert_eq!(beat(&mut agent), dropped(FULL), "what became of the second attempt");
    assert_eq!(agent.dropped_in_a_row, 2);

    assert_eq!(beat(&mut agent), BeatOutcome::Sent);
    assert_eq!((transport.reconnected(), agent.dropped_in_a_row), (2, 0));
    assert_eq!(transport.nonces(), [1, 2, 2, 3, 3]);
}

#[test]
fn a_second_attempt_that_fails_sets_the_count_to_0() {
    let (mut agent, transport) = agent_reconnecting_after(1);
    transport.drop_next(&[GONE, io::ErrorKind::Other]);
    assert_eq!(beat(&mut agent), failed(io::ErrorKind::Other));
    assert_eq!(agent.dropped_in_a_row, 0);
}

#[test]
fn without_a_new_connection_the_beat_stays_dropped_and_the_next_one_tries_again() {
    let (mut agent, transport) = agent_reconnecting_after(1);
    transport.drop_next(&[FULL, GONE]);
    transport.fail_reconnect_next(io::ErrorKind::NotFound);
    assert_eq!(beat(&mut agent), dropped(FULL), "its own reason, not the reconnect's");
    assert_eq!((agent.dropped_in_a_row, transport.nonces().len()), (1, 1));

    assert_eq!(beat(&mut agent), BeatOutcome::Sent);
    assert_eq!((transport.reconnected(), transport.nonces()), (2, vec![1, 2, 2]));
}

#[test]
fn a_beat_that_was_sent_or_failed_ends_the_row_of_drops() {
    for between in [None, Some(io::ErrorKind::Other)] {
        let (mut agent, transport) = agent_reconnecting_after(2);
        transport.drop_next(&[GONE]);
        assert!(beat(&mut agent).is_dropped());
        transport.drop_next(between.as_slice());
        assert!(!beat(&mut agent).is_dropped());
        transport.drop_next(&[GONE]);
        assert!(beat(&mut agent).is_dropped());
        assert_eq!(transport.reconnected(), 0);
    }
}

#[test]
fn a_new_threshold_counts_from_0() {
    let (mut agent, transport) = agent_reconnecting_after(5);
    transport.drop_next(&[GONE; 4]);
    for _ in 0..3 {
        assert!(beat(&mut agent).is_dropped());
    }
    agent.set_reconnect_after(2);
    assert!(beat(&mut agent).is_dropped());
    assert_eq!(transport.reconnected(), 0);
}

#[test]
fn the_first_beat_after_a_fork_connects_first_and_begins_a_new_session() {
    let (mut agent, transport) = agent_reconnecting_after(2);
    transport.drop_next(&[GONE]);
    let start = agent.start;
    for seconds in 1..=3 {
        let _ = agent.beat_at(start + Duration::from_secs(seconds), Status::Ok, 0);
    }
    transport.drop_next(&[GONE]);
    assert!(agent.beat_at(start + Duration::from_secs(4), Status::Ok, 0).is_dropped());
    assert_eq!((agent.nonce, agent.dropped_in_a_row), (4, 1));

    agent.process_life.invalidate();
    let fork = start + Duration::from_secs(10);
    assert!(agent.beat_at(fork, Status::Ok, 0).is_sent());
    assert!(agent.beat_at(fork + Duration::from_secs(1), Status::Ok, 0).is_sent());
    assert_eq!((transport.reconnected(), agent.fork_recoveries()), (1, 1));
    assert_eq!((agent.clock_regressions(), agent.dropped_in_a_row), (0, 0));
    let child: Vec<_> = transport.frames()[4..].iter().map(|frame| (frame.nonce, frame.timestamp)).collect();
    assert_eq!(child, [(1, 0), (2, 1_000_000_000)]);
}

#[test]
fn a_fork_starts_the_count_of_drops_at_0() {
    let (mut agent, transport) = agent_reconnecting_after(2);
    transport.drop_next(&[GONE, GONE]);
    assert!(beat(&mut agent).is_dropped());
    agent.process_life.invalidate();
    assert!(beat(&mut agent).is_dropped());
    assert_eq!((agent.dropped_in_a_row, transport.reconnected()), (1, 1), "the fork's own reconnect");
}

#[test]
fn without_a_connection_after_a_fork_nothing_is_sent_or_counted_and_the_next_beat_tries_again() {
    let (mut agent, transport) = agent_reconnecting_after(3);
    transport.drop_next(&[GONE]);
    assert!(beat(&mut agent).is_dropped());
    agent.process_life.invalidate();
    for attempt in 1..=2 {
        transport.fail_reconnect_next(io::ErrorKind::NotFound);
        assert_eq!(beat(&mut agent), failed(io::ErrorKind::NotFound));
        assert_eq!((agent.nonce, agent.dropped_in_a_row, agent.fork_recoveries()), (1, 1, 0));
        assert_eq!((transport.reconnected(), transport.nonces()), (attempt, vec![1]));
    }
    assert!(beat(&mut agent).is_sent());
    assert_eq!((agent.fork_recoveries(), transport.nonces()), (1, vec![1, 1]));
}

#[test]
fn an_explicit_reconnect_replaces_the_connection_and_nothing_else() {
    let (mut agent, transport) = agent_reconnecting_after(3);
    transport.drop_next(&[GONE]);
    assert!(beat(&mut agent).is_dropped());
    agent.reconnect().unwrap();
    assert_eq!((agent.nonce, agent.dropped_in_a_row, agent.fork_recoveries()), (1, 1, 0));
    assert!(beat(&mut agent).is_sent());
    assert_eq!(transport.nonces(), [1, 2]);
}

#[test]
fn an_explicit_reconnect_answers_a_fork_if_it_succeeds() {
    let (mut agent, transport) = agent();
    assert!(beat(&mut agent).is_sent());
    agent.process_life.invalidate();
    transport.fail_reconnect_next(io::ErrorKind::NotFound);
    assert_eq!(agent.reconnect().unwrap_err().kind(), io::ErrorKind::NotFound);
    assert!(!agent.process_life.is_current());

    agent.reconnect().unwrap();
    assert!(beat(&mut agent).is_sent());
    assert_eq!((agent.fork_recoveries(), transport.nonces()), (0, vec![1, 2]));
}

#[test]
fn a_disabled_handle_does_nothing() {
    let mut agent = Varta::disabled();
    for _ in 0..3 {
        assert_eq!(agent.beat(Status::Ok, 0), BeatOutcome::Dropped(DropReason::NoObserver));
    }
    agent.set_reconnect_after(1);
    assert!(agent.reconnect().is_ok());
    assert_eq!((agent.nonce, agent.dropped_in_a_row, agent.is_enabled()), (0, 0, false));
    assert_eq!(agent.beat(Status::Stall, 0), failed(io::ErrorKind::InvalidInput));
}

#[test]
fn only_connect_leaves_reconnecting_to_the_program() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("varta.sock");
    let _server = std::os::unix::net::UnixDatagram::bind(&path).unwrap();
    assert_eq!(Varta::connect(&path).unwrap().reconnect_after, 0);
    assert_eq!(Varta::builder().socket(&path).connect().unwrap().reconnect_after, 1);
    assert_eq!(Varta::builder().socket(&path).reconnect_after(7).connect().unwrap().reconnect_after, 7);
    assert_eq!(Varta::builder().transport(Scripted::default()).connect().unwrap().reconnect_after, 1);
    let builder = Varta::builder().reconnect_after(7).transport(Scripted::default());
    assert_eq!(builder.connect().unwrap().reconnect_after, 7);
}

#[cfg(feature = "test-hooks")]
#[test]
fn the_test_hooks_do_what_they_say() {
    let (mut agent, transport) = agent();
    agent.set_nonce_for_test(41);
    let now = agent.start + Duration::from_secs(7);
    assert!(agent.beat_at_for_test(now, Status::Ok, 0).is_sent());
    assert!(agent.beat_at_for_test(now, Status::Stall, 0).is_failed());
    assert_eq!((transport.nonces(), transport.frames()[0].timestamp), (vec![42], 7_000_000_000));

    agent.set_connect_pid_for_test(process::id());
    assert!(beat(&mut agent).is_sent());
    assert_eq!(agent.fork_recoveries(), 0);
    agent.set_connect_pid_for_test(process::id() + 1);
    assert!(beat(&mut agent).is_sent());
    assert!(beat(&mut agent).is_sent());
    assert_eq!((agent.fork_recoveries(), transport.nonces()), (1, vec![42, 43, 1, 2]));
}

/// Both impls of `IfSync` apply to a type that is `Sync`, and the call would be ambiguous.
#[test]
fn a_handle_is_send_and_not_sync() {
    trait IfSync<Which> {
        fn compiles() {}
    }
    struct Sync_;
    impl<T: ?Sized> IfSync<()> for T {}
    impl<T: ?Sized + Sync> IfSync<Sync_> for T {}
    <Varta as IfSync<_>>::compiles();
    <Varta<Scripted> as IfSync<_>>::compiles();

    const fn is_send<T: Send>() {}
    const { is_send::<Varta>() };
}
