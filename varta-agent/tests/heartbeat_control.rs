//! The control datagrams of a heartbeat, on virtual time.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

mod common;

use std::panic::{self, AssertUnwindSafe};
use std::time::Duration;

use common::tape::{FULL, MILLISECOND, SECOND, Tape, settle};
use tokio::runtime;
use tokio::time::{self, Instant};
use varta_agent::{BeatOutcome, Control, DropReason, GoodbyeReason, Status, Varta};

const MINUTE: Duration = Duration::from_secs(60);

#[tokio::test(start_paused = true)]
async fn a_heartbeat_that_is_stopped_says_goodbye_behind_its_last_beat() {
    let tape = Tape::default();
    let heartbeat = tape.heartbeat(SECOND);
    tape.until(3).await;
    heartbeat.set_status(Status::Degraded).unwrap();
    heartbeat.stop().await;
    assert_eq!(tape.goodbyes(), [(4, GoodbyeReason::Shutdown)]);
    assert_eq!(Control::decode(&tape.controls()[0].1).unwrap().nonce(), 4);
}

#[tokio::test(start_paused = true)]
async fn a_heartbeat_can_be_stopped_for_another_reason() {
    for reason in [GoodbyeReason::Restart, GoodbyeReason::Replaced] {
        let tape = Tape::default();
        tape.heartbeat(SECOND).stop_with(reason).await;
        assert_eq!(tape.goodbyes(), [(0, reason)]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_heartbeat_that_is_dropped_says_goodbye() {
    let tape = Tape::default();
    let heartbeat = tape.heartbeat(SECOND);
    tape.until(1).await;
    drop(heartbeat);
    settle().await;
    assert!(!tape.is_held());
    assert_eq!(tape.goodbyes(), [(1, GoodbyeReason::Shutdown)]);
}

#[test]
fn a_heartbeat_that_is_dropped_at_the_end_of_main_says_goodbye() {
    for workers in [0, 1] {
        let tape = Tape::default();
        let mut builder = match workers {
            0 => runtime::Builder::new_current_thread(),
            _ => runtime::Builder::new_multi_thread(),
        };
        let runtime = builder.enable_time().build().unwrap();
        runtime.block_on(async { drop(tape.heartbeat(MINUTE)) });
        drop(runtime);
        assert_eq!(tape.goodbyes(), [(0, GoodbyeReason::Shutdown)]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_heartbeat_that_is_dropped_by_a_panic_says_no_goodbye() {
    let tape = Tape::default();
    let heartbeat = tape.heartbeat(SECOND);
    tape.until(1).await;
    let unwound = panic::catch_unwind(AssertUnwindSafe(move || {
        let _held = heartbeat;
        panic::resume_unwind(Box::new("out of cheese"));
    }));
    assert!(unwound.is_err());
    settle().await;
    assert!(!tape.is_held(), "the task has ended");
    assert!(tape.goodbyes().is_empty());
}

#[test]
fn a_runtime_that_goes_down_under_a_heartbeat_says_no_goodbye() {
    let tape = Tape::default();
    let runtime = runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let heartbeat = runtime.block_on(async { tape.heartbeat(SECOND) });
    drop(runtime);
    assert!(!tape.is_held());
    drop(heartbeat);
    assert!(tape.goodbyes().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_goodbye_is_patient_with_a_full_queue_but_not_for_ever() {
    let tape = Tape::default();
    tape.fail_next_controls(&[FULL; 2]);
    let stopped = Instant::now();
    tape.heartbeat(SECOND).stop().await;
    assert_eq!((tape.goodbyes().len(), stopped.elapsed()), (3, MILLISECOND * 3));

    let tape = Tape::default();
    tape.fail_next_controls(&[FULL; 10]);
    let stopped = Instant::now();
    tape.heartbeat(SECOND).stop().await;
    assert_eq!((tape.goodbyes().len(), stopped.elapsed()), (5, MILLISECOND * 15));
}

#[tokio::test(start_paused = true)]
async fn a_heartbeat_without_a_name_only_beats_until_it_says_goodbye() {
    let tape = Tape::default();
    let heartbeat = tape.heartbeat(MINUTE);
    time::sleep(MINUTE * 5).await;
    assert!(tape.len() >= 4 && tape.controls().is_empty());
    drop(heartbeat);
}

#[tokio::test(start_paused = true)]
async fn the_hellos_of_a_heartbeat_say_its_interval() {
    let tape = Tape::default();
    let builder = Varta::builder().name("worker").interval(SECOND * 5).stall_after(SECOND * 9);
    let heartbeat = builder.transport(tape.clone()).connect().unwrap().spawn_heartbeat(SECOND * 3).unwrap();
    tape.until(2).await;
    let controls: Vec<_> = tape
        .controls()
        .iter()
        .map(|(beats, bytes)| (*beats, Control::decode(bytes).unwrap().interval_ms().unwrap()))
        .collect();
    assert_eq!(controls, [(0, 5000), (1, 3000)], "at connect, and as soon as there was another");
    drop(heartbeat);
}

#[tokio::test(start_paused = true)]
async fn a_heartbeat_asks_for_no_shorter_timeout_and_a_slow_one_for_a_longer() {
    for (interval, announced) in
        [(MILLISECOND * 10, None), (MILLISECOND * 1_666, None), (SECOND * 2, Some(2_000))]
    {
        let tape = Tape::default();
        let agent = Varta::builder().name("worker").transport(tape.clone()).connect().unwrap();
        let heartbeat = agent.spawn_heartbeat(interval).unwrap();
        time::sleep(MINUTE).await;
        let hello = tape.controls().pop().unwrap().1;
        assert_eq!(Control::decode(&hello).unwrap().interval_ms(), announced, "{interval:?}");
        drop(heartbeat);
    }
}

#[tokio::test(start_paused = true)]
async fn an_interval_that_leaves_no_time_to_beat_is_refused() {
    let tape = Tape::default();
    let agent = Varta::builder().stall_after(SECOND).transport(tape.clone()).connect().unwrap();
    let error = agent.spawn_heartbeat(SECOND).unwrap_err();
    assert!(error.to_string().contains("never well if it is stalled after 1000 ms"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_busy_heartbeat_says_so_at_once_and_the_rhythm_goes_on() {
    let tape = Tape::default();
    let heartbeat = tape.heartbeat(SECOND);
    tape.until(1).await;
    let asked = Instant::now();
    assert_eq!(heartbeat.busy_for(MINUTE).await, BeatOutcome::Sent);
    assert_eq!(heartbeat.busy_for(Duration::ZERO).await, BeatOutcome::Sent);
    assert_eq!(asked, Instant::now());
    let busy: Vec<_> =
        tape.controls().iter().map(|(_, bytes)| Control::decode(bytes).unwrap().busy_for_ms()).collect();
    assert_eq!(busy, [Some(60_000), Some(0)]);
    tape.until(5).await;
    let times = tape.times();
    assert_eq!((times[4] - times[0], tape.controls().len()), (SECOND * 2, 2));
}

#[tokio::test(start_paused = true)]
async fn a_busy_heartbeat_hears_what_became_of_it() {
    let tape = Tape::default();
    let heartbeat = tape.heartbeat(MINUTE);
    tape.fail_next_controls(&[FULL]);
    assert_eq!(heartbeat.busy_for(MINUTE).await, BeatOutcome::Dropped(DropReason::KernelQueueFull));
    assert_eq!(tape.controls().len(), 2, "and once more behind the beat");
    time::sleep(MILLISECOND).await;
    heartbeat.stop().await;
}

#[test]
fn a_heartbeat_that_is_over_is_not_waited_for() {
    let runtime = runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let heartbeat = runtime.block_on(async { Tape::default().heartbeat(SECOND) });
    drop(runtime);
    let other = runtime::Builder::new_current_thread().build().unwrap();
    let outcome = other.block_on(heartbeat.busy_for(MINUTE));
    assert_eq!(outcome, BeatOutcome::Dropped(DropReason::NoObserver));
}
