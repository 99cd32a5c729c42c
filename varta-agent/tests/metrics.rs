//! The counters of the SDK, through a recorder of the program.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

mod common;

use common::Server;
use common::recorder::Counts;
use varta_agent::{Status, Varta};

/// The counts above 0, by names without their common prefix.
fn above_zero(counts: &Counts) -> Vec<(String, u64)> {
    let counted = counts.read().into_iter().filter(|(_, count)| *count > 0);
    counted.map(|(name, count)| (name.replace("varta_client_", ""), count)).collect()
}

#[test]
fn every_counter_is_there_at_zero_from_the_first_handle_on() {
    let counts = Counts::default();
    metrics::with_local_recorder(&counts, Varta::disabled);
    assert!(counts.read().is_empty(), "a disabled handle counts nothing");
    let server = Server::listening();
    metrics::with_local_recorder(&counts, || drop(Varta::connect(server.path()).unwrap()));
    let names = [
        "varta_client_beats_total{outcome=\"dropped\"}",
        "varta_client_beats_total{outcome=\"failed\"}",
        "varta_client_beats_total{outcome=\"sent\"}",
        "varta_client_clock_regression_total",
        "varta_client_fork_recoveries_total",
        "varta_client_reconnects_total",
    ];
    assert_eq!(counts.read(), names.map(|name| (name.to_owned(), 0)));
}

#[test]
fn beats_are_counted_by_what_became_of_them_and_by_all_handles_together() {
    let counts = Counts::default();
    let mut server = Server::listening();
    let connect = || Varta::connect(server.path()).unwrap();
    let mut agents = metrics::with_local_recorder(&counts, || [connect(), connect()]);
    for _ in 0..3 {
        assert!(agents.iter_mut().all(|agent| agent.beat(Status::Ok, 0).is_sent()));
    }
    assert!(agents[0].beat(Status::Stall, 0).is_failed());
    server.kill();
    assert!(agents.iter_mut().all(|agent| agent.beat(Status::Ok, 0).is_dropped()));
    let expected = [("beats_total{outcome=\"dropped\"}", 2), ("beats_total{outcome=\"sent\"}", 6)];
    assert_eq!(above_zero(&counts), expected.map(|(name, count)| (name.to_owned(), count)));
}

#[test]
fn reconnects_are_counted_with_any_cause() {
    let counts = Counts::default();
    let mut server = Server::listening();
    let mut agent = metrics::with_local_recorder(&counts, || {
        Varta::builder().socket(server.path()).eager().connect().unwrap()
    });
    server.kill();
    server.start();
    assert!(agent.beat(Status::Ok, 0).is_sent());
    agent.reconnect().unwrap();
    let expected = [("beats_total{outcome=\"sent\"}", 1), ("reconnects_total", 2)];
    assert_eq!(above_zero(&counts), expected.map(|(name, count)| (name.to_owned(), count)));
}

#[cfg(feature = "test-hooks")]
#[test]
fn forks_and_steps_back_of_the_clock_are_counted() {
    use std::time::{Duration, Instant};

    let counts = Counts::default();
    let server = Server::listening();
    let mut agent = metrics::with_local_recorder(&counts, || Varta::connect(server.path()).unwrap());
    let now = Instant::now() + Duration::from_secs(10);
    assert!(agent.beat_at_for_test(now, Status::Ok, 0).is_sent());
    assert!(agent.beat_at_for_test(now - Duration::from_secs(1), Status::Ok, 0).is_sent());
    agent.set_connect_pid_for_test(1);
    assert!(agent.beat(Status::Ok, 0).is_sent());
    let expected =
        [("beats_total{outcome=\"sent\"}", 3), ("clock_regression_total", 1), ("fork_recoveries_total", 1)];
    assert_eq!(above_zero(&counts), expected.map(|(name, count)| (name.to_owned(), count)));
}
