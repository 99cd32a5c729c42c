//! Tests of recordings: the format, the file, and replays.

mod file;
mod form;
mod replaying;

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use tempfile::TempDir;
use varta_proto::{Frame, Status};

use crate::base::time::MonoTime;
use crate::domain::beat::{ReceivedBeat, Sender};
use crate::engine::InputRecord;
use crate::services::recording::encode::encode;
use crate::services::recording::format::{Header, LENGTH};

const STALL_AFTER: Duration = Duration::from_secs(5);
const PID: u32 = 4242;

fn at(millis: u64) -> MonoTime {
    MonoTime::from_millis(millis)
}

/// A beat of a local process that arrives when it is sent, on a clock that started at 0.
fn beat(pid: u32, nonce: u64, millis: u64) -> InputRecord {
    delayed(pid, nonce, millis, millis)
}

/// A beat that is sent at one time and arrives at another.
fn delayed(pid: u32, nonce: u64, sent: u64, arrives: u64) -> InputRecord {
    let frame = Frame::new(Status::Ok, pid, at(sent).as_nanos() + 1, nonce, 7);
    InputRecord::Beat(ReceivedBeat { received_at: at(arrives), sender: Sender::local(pid), frame })
}

fn bytes(records: &[InputRecord]) -> Vec<u8> {
    let mut bytes =
        Header { unix_start: 1_700_000_000_000_000_000, stall_after: STALL_AFTER }.encode().to_vec();
    records.iter().for_each(|record| encode(record, &mut bytes));
    assert_eq!(bytes.len() % LENGTH, 0);
    bytes
}

/// A temporary file with these bytes.
fn file_of(bytes: &[u8]) -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("recording");
    fs::write(&path, bytes).unwrap();
    (directory, path)
}
