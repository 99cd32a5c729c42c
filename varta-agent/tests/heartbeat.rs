//! The heartbeat task, on virtual time: no test here waits for a clock.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

mod common;

use std::io;
use std::time::Duration;

use common::tape::{FULL, MILLISECOND, SECOND, Tape, settle};
use tokio::runtime;
use tokio::time::{self, Instant};
use varta_agent::{BeatOutcome, DropReason, Heartbeat, Status};

#[tokio::test(start_paused = true)]
async fn a_heartbeat_beats_once_per_interval() {
    let tape = Tape::default();
    let heartbeat = tape.heartbeat(SECOND);
    let start = Instant::now();
    tape.until(10).await;
    assert!(tape.times()[0] - start <= SECOND + MILLISECOND, "Tokio rounds up to milliseconds");
    assert_eq!(tape.gaps(), [SECOND; 9]);
    let nonces: Vec<u64> = tape.frames().iter().map(|frame| frame.nonce).collect();
    assert!(nonces.iter().copied().eq(1..=10));
    settle().await;
    assert_eq!((heartbeat.beats_sent(), heartbeat.last_outcome()), (10, Some(BeatOutcome::Sent)));
}

#[tokio::test(start_paused = true)]
async fn a_thousand_heartbeats_started_together_do_not_beat_together() {
    let tapes: Vec<Tape> = (0..1000).map(|_| Tape::default()).collect();
    let start = Instant::now();
    let heartbeats: Vec<Heartbeat> = tapes.iter().map(|tape| tape.heartbeat(SECOND)).collect();
    time::sleep(SECOND * 3 / 2).await;

    let mut tenths = [0; 10];
    for tape in &tapes {
        let first = (tape.times()[0] - start).as_millis();
        tenths[usize::try_from(first / 100).unwrap().min(9)] += 1;
    }
    // 100 are expected in each, with a deviation of less than 10.
    assert!(tenths.iter().all(|count| (40..=160).contains(count)), "{tenths:?}");
    drop(heartbeats);
}

#[tokio::test(start_paused = true)]
async fn a_changed_status_is_beaten_at_once_and_the_rhythm_goes_on() {
    let tape = Tape::default();
    let heartbeat = tape.heartbeat(SECOND);
    tape.until(1).await;
    let first = tape.times()[0];
    time::sleep(MILLISECOND * 300).await;

    let changed = Instant::now();
    heartbeat.set_status(Status::Critical).unwrap();
    settle().await;
    assert_eq!(tape.times()[1..], [changed]);
    assert_eq!(tape.frames()[1].status, Status::Critical);
    tape.until(4).await;
    assert_eq!(tape.times()[2..], [first + SECOND, first + SECOND * 2]);
    assert!(tape.frames()[1..].iter().all(|frame| frame.status == Status::Critical));
}

#[tokio::test(start_paused = true)]
async fn a_status_set_before_the_first_beat_is_beaten_at_once() {
    let tape = Tape::default();
    let heartbeat = tape.heartbeat(SECOND * 3600);
    let now = Instant::now();
    heartbeat.set_status(Status::Degraded).unwrap();
    settle().await;
    assert_eq!((tape.times(), tape.frames()[0].status), (vec![now], Status::Degraded));
}

#[tokio::test(start_paused = true)]
async fn the_same_status_again_is_no_news() {
    let tape = Tape::default();
    let heartbeat = tape.heartbeat(SECOND);
    tape.until(1).await;
    heartbeat.set_status(Status::Ok).unwrap();
    settle().await;
    assert_eq!(tape.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_payload_is_carried_by_the_next_beat_and_makes_none() {
    let tape = Tape::default();
    let heartbeat = tape.heartbeat(SECOND);
    tape.until(1).await;
    heartbeat.set_payload(41);
    heartbeat.set_payload(42);
    settle().await;
    assert_eq!(tape.len(), 1);
    tape.until(3).await;
    let payloads: Vec<u32> = tape.frames().iter().map(|frame| frame.payload).collect();
    assert_eq!((payloads, tape.gaps()), (vec![0, 42, 42], vec![SECOND; 2]));
}

#[tokio::test(start_paused = true)]
async fn a_stall_cannot_be_set() {
    let tape = Tape::default();
    let heartbeat = tape.heartbeat(SECOND);
    heartbeat.set_status(Status::Degraded).unwrap();
    let error = heartbeat.set_status(Status::Stall).unwrap_err();
    assert_eq!((error.kind, heartbeat.status()), (io::ErrorKind::InvalidInput, Status::Degraded));
}

#[tokio::test(start_paused = true)]
async fn missed_beats_are_not_made_up_for() {
    let tape = Tape::default();
    let _heartbeat = tape.heartbeat(SECOND);
    tape.until(1).await;
    // The task does not run in between, as if its thread had been busy.
    time::advance(SECOND * 54 / 10).await;
    settle().await;
    assert_eq!(tape.len(), 2);
    tape.until(4).await;
    assert_eq!(tape.gaps()[1..], [SECOND; 2]);
}

#[tokio::test(start_paused = true)]
async fn a_full_queue_is_tried_once_more_within_8_ms() {
    for _ in 0..50 {
        let tape = Tape::default();
        let heartbeat = tape.heartbeat(SECOND);
        tape.fail_next(&[FULL]);
        tape.until(3).await;
        let times = tape.times();
        let retry = times[1] - times[0];
        assert!((MILLISECOND * 2..=MILLISECOND * 9).contains(&retry), "{retry:?}");
        assert_eq!(times[2] - times[0], SECOND, "the rhythm goes on");
        settle().await;
        assert_eq!(heartbeat.beats_sent(), 2);
    }
}

#[tokio::test(start_paused = true)]
async fn a_queue_that_stays_full_is_tried_twice_per_interval() {
    let tape = Tape::default();
    let heartbeat = tape.heartbeat(SECOND);
    tape.fail_next(&[FULL; 20]);
    tape.until(20).await;
    let times = tape.times();
    for pair in times.chunks(2) {
        assert!(pair[1] - pair[0] < MILLISECOND * 10);
    }
    assert_eq!(times[18] - times[0], SECOND * 9);
    settle().await;
    let full = BeatOutcome::Dropped(DropReason::KernelQueueFull);
    assert_eq!((heartbeat.beats_sent(), heartbeat.last_outcome()), (0, Some(full)));
}

#[tokio::test(start_paused = true)]
async fn a_second_attempt_does_not_wait_longer_than_the_interval() {
    let tape = Tape::default();
    let _heartbeat = tape.heartbeat(MILLISECOND * 2);
    tape.fail_next(&[FULL; 50]);
    tape.until(50).await;
    assert!(tape.gaps().iter().all(|gap| *gap <= MILLISECOND * 2), "{:?}", tape.gaps());
}

#[tokio::test(start_paused = true)]
async fn no_other_loss_is_tried_again_before_its_time() {
    let tape = Tape::default();
    let _heartbeat = tape.heartbeat(SECOND);
    tape.fail_next(&[io::ErrorKind::ConnectionRefused, io::ErrorKind::BrokenPipe, io::ErrorKind::Other]);
    tape.until(4).await;
    assert_eq!(tape.gaps(), [SECOND; 3]);
}

#[tokio::test(start_paused = true)]
async fn a_handle_without_a_threshold_reconnects_at_the_first_loss() {
    let tape = Tape::default();
    let _heartbeat = tape.heartbeat(SECOND);
    tape.fail_next(&[io::ErrorKind::ConnectionRefused]);
    tape.until(2).await;
    assert_eq!(tape.0.lock().unwrap().reconnects, 1);
}

#[tokio::test(start_paused = true)]
async fn a_threshold_that_was_set_is_kept() {
    let tape = Tape::default();
    let mut agent = tape.agent();
    agent.set_reconnect_after(3);
    let _heartbeat = agent.spawn_heartbeat(SECOND).unwrap();
    tape.fail_next(&[io::ErrorKind::ConnectionRefused; 3]);
    tape.until(2).await;
    assert_eq!(tape.0.lock().unwrap().reconnects, 0);
    tape.until(3).await;
    assert_eq!(tape.0.lock().unwrap().reconnects, 1);
}

#[tokio::test(start_paused = true)]
async fn stop_ends_the_task_and_closes_the_handle() {
    let tape = Tape::default();
    let heartbeat = tape.heartbeat(SECOND);
    tape.until(1).await;
    let now = Instant::now();
    heartbeat.stop().await;
    assert!(!tape.is_held());
    assert_eq!((Instant::now(), tape.len()), (now, 1), "without waiting for the next beat");
}

#[tokio::test(start_paused = true)]
async fn a_status_set_just_before_the_stop_is_still_beaten() {
    let tape = Tape::default();
    let heartbeat = tape.heartbeat(SECOND);
    heartbeat.set_status(Status::Critical).unwrap();
    heartbeat.stop().await;
    assert_eq!(tape.frames()[0].status, Status::Critical);
}

#[tokio::test(start_paused = true)]
async fn dropping_the_heartbeat_ends_the_task() {
    let tape = Tape::default();
    drop(tape.heartbeat(SECOND));
    settle().await;
    assert!(!tape.is_held());
    assert_eq!(tape.len(), 0);
}

#[test]
fn stop_returns_when_the_runtime_is_gone() {
    let runtime = runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let tape = Tape::default();
    let heartbeat = {
        let _context = runtime.enter();
        tape.heartbeat(SECOND)
    };
    drop(runtime);
    assert!(!tape.is_held());
    let other = runtime::Builder::new_current_thread().build().unwrap();
    other.block_on(heartbeat.stop());
}

#[tokio::test(start_paused = true)]
async fn an_interval_of_nothing_or_of_months_is_refused() {
    let tape = Tape::default();
    for interval in [Duration::ZERO, SECOND * 3600 * 24 * 50, Duration::MAX] {
        let error = tape.agent().spawn_heartbeat(interval).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    }
    assert!(!tape.is_held());
}

#[test]
fn without_a_runtime_there_is_an_error() {
    let error = Tape::default().agent().spawn_heartbeat(SECOND).unwrap_err();
    assert!(error.to_string().contains("no reactor running"), "{error}");
}

#[test]
fn a_runtime_without_a_timer_is_an_error() {
    let runtime = runtime::Builder::new_current_thread().build().unwrap();
    let _context = runtime.enter();
    let error = Tape::default().agent().spawn_heartbeat(SECOND).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::Unsupported);
}
