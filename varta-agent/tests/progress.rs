//! A heartbeat with guards: on virtual time, except for a runtime that is blocked.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

mod common;

use std::thread;
use std::time::Duration;

use common::Server;
use common::tape::{MILLISECOND, SECOND, Tape, beats_in, between_beats, settle, unwind};
use tokio::time;
use varta_agent::{BeatOutcome, Status, Varta};

fn statuses(tape: &Tape) -> Vec<Status> {
    tape.frames().iter().map(|frame| frame.status).collect()
}

#[tokio::test(start_paused = true)]
async fn beats_go_on_as_long_as_there_is_progress() {
    let tape = Tape::default();
    let heartbeat = tape.heartbeat(SECOND);
    let guard = heartbeat.guard("consumer", SECOND * 3);
    between_beats(&tape).await;
    for _ in 0..10 {
        assert_eq!(beats_in(&tape, 2).await, 2);
        guard.tick();
    }
}

#[tokio::test(start_paused = true)]
async fn work_that_is_stuck_holds_the_beats_back_until_it_moves() {
    let tape = Tape::default();
    let heartbeat = tape.heartbeat(SECOND);
    let guard = heartbeat.guard("consumer", SECOND * 3);
    between_beats(&tape).await;
    assert_eq!(beats_in(&tape, 3).await, 3);
    assert_eq!(beats_in(&tape, 60).await, 0);
    assert_eq!(heartbeat.last_outcome(), Some(BeatOutcome::Sent), "what was held back is no beat");
    guard.tick();
    assert_eq!(beats_in(&tape, 3).await, 3);
    let nonces: Vec<u64> = tape.frames().iter().map(|frame| frame.nonce).collect();
    assert!(nonces.iter().copied().eq(1..=7), "{nonces:?}");
}

#[tokio::test(start_paused = true)]
async fn a_status_that_changes_is_no_sign_of_life_of_work_that_is_stuck() {
    let tape = Tape::default();
    let heartbeat = tape.heartbeat(SECOND);
    let _guard = heartbeat.guard("consumer", SECOND);
    beats_in(&tape, 5).await;
    let before = tape.len();
    heartbeat.set_status(Status::Degraded).unwrap();
    settle().await;
    assert_eq!(tape.len(), before);
}

#[tokio::test(start_paused = true)]
async fn work_may_have_the_beats_say_critical_instead() {
    let tape = Tape::default();
    let heartbeat = tape.heartbeat(SECOND);
    let guard = heartbeat.guard("importer", SECOND * 2).critical_when_overdue();
    heartbeat.set_payload(17);
    tape.until(5).await;
    guard.tick();
    tape.until(6).await;
    use Status::{Critical, Ok};
    assert_eq!(statuses(&tape), [Ok, Ok, Ok, Critical, Critical, Ok]);
    assert!(tape.frames().iter().all(|frame| frame.payload == 17));
    assert_eq!(heartbeat.status(), Ok, "what the program itself says");
}

#[tokio::test(start_paused = true)]
async fn one_that_is_stuck_outweighs_those_that_move_and_those_that_say_critical() {
    let tape = Tape::default();
    let heartbeat = tape.heartbeat(SECOND);
    let _critical = heartbeat.guard("importer", SECOND).critical_when_overdue();
    let stuck = heartbeat.guard("consumer", SECOND * 3);
    let moving = heartbeat.guard("producer", SECOND * 3);
    between_beats(&tape).await;
    for _ in 0..6 {
        beats_in(&tape, 1).await;
        moving.tick();
    }
    assert_eq!(statuses(&tape), [Status::Ok, Status::Ok, Status::Critical, Status::Critical]);
    drop(stuck);
    assert_eq!(beats_in(&tape, 2).await, 2);
    assert_eq!(statuses(&tape)[4..], [Status::Critical; 2]);
}

#[tokio::test(start_paused = true)]
async fn a_guard_that_is_dropped_ties_the_heartbeat_to_nothing() {
    let tape = Tape::default();
    let heartbeat = tape.heartbeat(SECOND);
    let guards = [(); 50].map(|()| heartbeat.guard("request", SECOND * 2));
    between_beats(&tape).await;
    assert_eq!(beats_in(&tape, 10).await, 2);
    drop(guards);
    assert_eq!(beats_in(&tape, 10).await, 10);
}

#[tokio::test(start_paused = true)]
async fn work_that_died_of_a_panic_is_stuck_until_a_guard_takes_its_name() {
    let tape = Tape::default();
    let heartbeat = tape.heartbeat(SECOND);
    let guard = heartbeat.guard("consumer", SECOND * 3600);
    between_beats(&tape).await;
    unwind(guard);
    assert_eq!(beats_in(&tape, 10).await, 0);

    let _other = heartbeat.guard("producer", SECOND * 3600);
    assert_eq!(beats_in(&tape, 10).await, 0);
    let _restarted = heartbeat.guard("consumer", SECOND * 3600);
    assert_eq!(beats_in(&tape, 10).await, 10);
}

#[tokio::test(start_paused = true)]
async fn a_busy_program_is_excused_and_its_guards_have_the_whole_limit_afterwards() {
    let tape = Tape::default();
    let heartbeat = tape.heartbeat(SECOND);
    let _guard = heartbeat.guard("consumer", SECOND * 3);
    between_beats(&tape).await;
    assert!(heartbeat.busy_for(SECOND * 30).await.is_sent());
    assert_eq!(beats_in(&tape, 30).await, 30);
    assert_eq!(beats_in(&tape, 60).await, 3);
}

#[tokio::test(start_paused = true)]
async fn a_heartbeat_that_was_itself_held_up_does_not_blame_the_guards() {
    let tape = Tape::default();
    let heartbeat = tape.heartbeat(SECOND);
    let guard = heartbeat.guard("consumer", SECOND * 3);
    between_beats(&tape).await;
    // No task runs in between, as if the process had been stopped.
    time::advance(SECOND * 60).await;
    settle().await;
    assert_eq!(tape.len(), 2);
    time::sleep(SECOND / 2).await;
    guard.tick();
    assert_eq!(beats_in(&tape, 3).await, 3);
    assert_eq!(beats_in(&tape, 60).await, 1, "and is no easier on them afterwards");
}

#[tokio::test(start_paused = true)]
async fn any_thread_may_tick_and_several_may_share_a_guard() {
    let tape = Tape::default();
    let heartbeat = tape.heartbeat(SECOND);
    let guard = heartbeat.guard("pool", SECOND * 2);
    between_beats(&tape).await;
    for _ in 0..5 {
        thread::scope(|scope| {
            let ticks = [(); 2].map(|()| scope.spawn(|| guard.tick()));
            assert!(ticks.into_iter().all(|tick| tick.join().is_ok()));
        });
        assert_eq!(beats_in(&tape, 1).await, 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_guard_may_outlive_its_heartbeat() {
    let heartbeat = Tape::default().heartbeat(SECOND);
    let guard = heartbeat.guard("consumer", SECOND);
    heartbeat.stop().await;
    guard.tick();
    assert_eq!(guard.name(), "consumer");
}

/// Blocks the thread of a runtime for fifty intervals.
#[test]
fn a_runtime_that_is_blocked_falls_silent() {
    let server = Server::listening();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(async {
        let agent = Varta::builder().socket(server.path()).connect().unwrap();
        let heartbeat = agent.spawn_heartbeat(MILLISECOND).unwrap();
        common::await_beats(&heartbeat, 1).await;
        server.datagrams();

        let blocked = std::time::Instant::now();
        while blocked.elapsed() < Duration::from_millis(50) {
            thread::yield_now();
        }
        assert!(server.datagrams().is_empty());
        let beaten = heartbeat.beats_sent();
        common::await_beats(&heartbeat, beaten + 1).await;
    });
}

#[tokio::test(start_paused = true)]
async fn beats_have_the_count_of_the_heartbeat_or_the_sum_of_those_of_its_guards() {
    let tape = Tape::default();
    let heartbeat = tape.heartbeat(SECOND);
    between_beats(&tape).await;
    heartbeat.progress(7);
    beats_in(&tape, 1).await;
    let [one, other] = ["one", "other"].map(|name| heartbeat.guard(name, SECOND * 30));
    one.progress(u64::from(u32::MAX));
    beats_in(&tape, 1).await;
    other.progress(3);
    beats_in(&tape, 2).await;
    drop((one, other));
    beats_in(&tape, 1).await;
    let payloads: Vec<_> = tape.frames().iter().map(|frame| frame.payload).collect();
    assert_eq!(payloads, [0, 7, u32::MAX, 2, 2, 7]);
}
