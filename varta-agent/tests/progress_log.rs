//! The log lines about stuck work. In a program of its own: tracing caches for each callsite whether a
//! subscriber wants it, and another test that logs at the same moment without a subscriber could disable the
//! callsite.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

mod common;

use std::io;
use std::sync::{Arc, Mutex};

use common::tape::{SECOND, Tape, beats_in, between_beats, unwind};

/// A log in memory.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Log {
    /// Removes and returns the lines so far.
    fn take(&self) -> Vec<String> {
        let bytes = std::mem::take(&mut *self.0.lock().unwrap());
        String::from_utf8(bytes).unwrap().lines().map(|line| line.trim().to_owned()).collect()
    }
}

#[tokio::test(start_paused = true)]
async fn the_log_names_who_is_stuck_once_and_once_that_it_moves_again() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_writer(move || writer.clone())
        .with_ansi(false)
        .without_time()
        .with_target(false)
        .finish();
    let _logging = tracing::subscriber::set_default(subscriber);
    let tape = Tape::default();
    let heartbeat = tape.heartbeat(SECOND);
    let consumer = heartbeat.guard("consumer", SECOND * 3);
    let importer = heartbeat.guard("importer", SECOND * 10).critical_when_overdue();
    between_beats(&tape).await;

    beats_in(&tape, 60).await;
    let held_back = "WARN consumer has made no progress for 4.0s, and has to every 3.0s; \
                     beats are held back until it does guard=consumer";
    let critical = "WARN importer has made no progress for 11.0s, and has to every 10.0s; \
                    beats say critical until it does guard=importer";
    assert_eq!(log.take(), [held_back, critical]);
    for _ in 0..10 {
        consumer.tick();
        importer.tick();
        beats_in(&tape, 1).await;
    }
    let again = ["consumer", "importer"].map(|name| format!("INFO {name} makes progress again guard={name}"));
    assert_eq!(log.take(), again);
    beats_in(&tape, 9).await;
    assert_eq!(log.take(), [held_back]);

    unwind(importer);
    beats_in(&tape, 9).await;
    let dead = "WARN importer ended by a panic and makes no progress; beats say critical until it does guard=importer";
    assert_eq!(log.take(), [dead]);
}
