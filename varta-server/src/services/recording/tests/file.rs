//! Tests of the file of a recording: what is written, gaps, limits, and full disks.

use std::io::{self, Write};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::sync::mpsc::sync_channel;

use crate::base::progress::Progress;
use crate::domain::beat::{ControlMessage, Hello, ReceivedControl, Transport};
use crate::engine::Recorder;
use crate::engine::tap::TapEntry;
use crate::ingest::batch::Batch;
use crate::metrics::Registry;
use crate::services::recording::metrics::{RECORDING_DROPPED, RecordingMetrics};
use crate::services::recording::options::RecordOptions;
use crate::services::recording::reader::RecordingReader;
use crate::services::recording::service::RecordingFile;
use crate::services::recording::tests::*;
use crate::services::recording::writer::Writer;

fn batch(nonces: std::ops::Range<u64>) -> Batch {
    let beats = nonces.map(|nonce| match beat(PID, nonce, nonce) {
        InputRecord::Beat(beat) => beat,
        _ => unreachable!("it is a beat"),
    });
    Batch {
        transport: Transport::Unix,
        beats: beats.collect(),
        controls: Vec::new(),
        queue_full_at: None,
        pidfds: Vec::new(),
    }
}

fn value(registry: &Registry, name: &str) -> Option<f64> {
    let text = registry.handle().render();
    let row = text.lines().find(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(' ')));
    row?.rsplit_once(' ')?.1.parse().ok()
}

fn read(path: &std::path::Path) -> Vec<InputRecord> {
    let recording = RecordingReader::open(path).unwrap();
    let mut records = recording.records(&Progress::hidden()).unwrap();
    std::iter::from_fn(|| records.next().unwrap()).collect()
}

#[test]
fn what_the_recorder_took_is_in_the_file_when_the_thread_ends() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("recording");
    let options = RecordOptions { path: path.clone(), limit: RecordOptions::DEFAULT_LIMIT };
    let registry = Registry::for_test();
    let file = RecordingFile::create(options.clone()).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let header = Header { unix_start: 1, stall_after: STALL_AFTER };
    let (mut recorder, done) = file.start(&header, RecordingMetrics::new(&registry)).unwrap();
    recorder.take(&Batch { queue_full_at: Some(at(3)), ..batch(1..3) }, vec![(PID, None)]);
    recorder.record(InputRecord::Blind { from: at(3), to: at(4) });
    drop(recorder);
    done.blocking_recv().unwrap();
    let expected = [
        InputRecord::Process { pid: PID, identity: None },
        beat(PID, 1, 1),
        beat(PID, 2, 2),
        InputRecord::Loss { transport: Transport::Unix, at: at(3) },
        InputRecord::Blind { from: at(3), to: at(4) },
    ];
    assert_eq!(read(&path), expected);
    assert_eq!(RecordingReader::open(&path).unwrap().header, header);
    assert_eq!(value(&registry, "varta_recording_bytes"), Some(6.0 * LENGTH as f64));
    assert_eq!(value(&registry, "varta_recording_active"), Some(0.0));
    assert_eq!(value(&registry, "varta_recording_dropped_total"), Some(0.0));
}

#[test]
fn a_file_that_is_there_and_a_link_are_left_alone() {
    let (directory, path) = file_of(b"somebody's");
    let link = directory.path().join("link");
    symlink(directory.path().join("elsewhere"), &link).unwrap();
    for path in [&path, &link] {
        let options = RecordOptions { path: path.clone(), limit: 4_096 };
        let said = RecordingFile::create(options.clone()).unwrap_err().to_string();
        assert!(said.starts_with(path.to_str().unwrap()) && said.contains("another name"), "{said}");
    }
    assert_eq!(fs::read(&path).unwrap(), b"somebody's");
    assert!(!directory.path().join("elsewhere").exists());
    let below = RecordOptions { path: path.join("recording"), limit: 4_096 };
    assert!(RecordingFile::create(below).unwrap_err().to_string().contains("see --record"));
}

#[test]
fn what_finds_no_place_is_counted_and_the_recording_says_where_it_is_missing() {
    let registry = Registry::for_test();
    let dropped = registry.counter(RECORDING_DROPPED, &[]);
    let (to_queue, queue) = sync_channel(2);
    let mut recorder = Recorder::new(to_queue, dropped);
    for first in [1, 11, 21, 31] {
        recorder.take(&batch(first..first + 2), Vec::new());
    }
    assert_eq!(value(&registry, "varta_recording_dropped_total"), Some(4.0));
    assert_eq!(queue.try_iter().count(), 2);
    recorder.take(&batch(41..43), Vec::new());
    let gap = queue.recv().unwrap();
    assert!(
        matches!(gap, TapEntry::Event(InputRecord::Gap { from, to, records: 4 }) if (from, to) == (at(21), at(31))),
        "{gap:?}"
    );
    assert!(matches!(queue.recv().unwrap(), TapEntry::Batch { .. }));
    drop(queue);
    recorder.record(InputRecord::End { at: at(50) });
    assert!(!recorder.is_on(), "the recording has ended, and nothing is missing in it");
    assert_eq!(value(&registry, "varta_recording_dropped_total"), Some(4.0));
}

#[test]
fn a_gap_at_the_very_end_is_told_too() {
    let registry = Registry::for_test();
    let (to_queue, queue) = sync_channel(1);
    let mut recorder = Recorder::new(to_queue, registry.counter(RECORDING_DROPPED, &[]));
    recorder.take(&batch(1..2), Vec::new());
    recorder.take(&batch(2..3), Vec::new());
    queue.recv().unwrap();
    drop(recorder);
    assert!(matches!(queue.recv().unwrap(), TapEntry::Event(InputRecord::Gap { records: 1, .. })));
}

/// Runs a writer over some batches, and returns its metrics.
fn run(out: impl Write, limit: u64, batches: u64) -> Registry {
    let registry = Registry::for_test();
    let (to_queue, queue) = sync_channel(100);
    let mut recorder = Recorder::new(to_queue, registry.counter(RECORDING_DROPPED, &[]));
    for number in 0..batches {
        recorder.take(&batch(number * 10 + 1..number * 10 + 11), Vec::new());
    }
    drop(recorder);
    let header = Header { unix_start: 1, stall_after: STALL_AFTER };
    let writer = Writer {
        path: "recording".into(),
        file: out,
        limit,
        room: limit,
        buffer: header.encode().to_vec(),
        queue,
        metrics: RecordingMetrics::new(&registry),
    };
    writer.run();
    registry
}

#[test]
fn a_recording_ends_with_a_whole_record_when_it_is_full() {
    let mut out = Vec::new();
    let registry = run(&mut out, 4_096 + 40, 20);
    assert_eq!(out.len(), 4_096);
    assert_eq!(value(&registry, "varta_recording_bytes"), Some(4_096.0));
    let (_directory, path) = file_of(&out);
    assert_eq!(read(&path).len(), 4_096 / LENGTH - 1);
}

/// A disk with room for this many bytes.
struct Disk(usize);

impl Write for Disk {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = bytes.len().min(self.0);
        self.0 -= taken;
        if taken == 0 { Err(io::ErrorKind::StorageFull.into()) } else { Ok(taken) }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_full_disk_ends_the_recording_and_nothing_else() {
    let registry = run(Disk(100), 1 << 20, 3);
    assert_eq!(value(&registry, "varta_recording_active"), Some(0.0));
    assert_eq!(value(&registry, "varta_recording_bytes"), Some(LENGTH as f64));
}

#[test]
fn what_is_no_recording_is_refused_with_what_is_wrong() {
    let refused = |bytes: &[u8]| {
        let (_directory, path) = file_of(bytes);
        let error = RecordingReader::open(&path).unwrap_err();
        assert_eq!(error.exit_status(), 1);
        error.to_string().replace(path.to_str().unwrap(), "FILE")
    };
    assert!(refused(b"").starts_with("FILE: is not a recording of varta-server: it has 0 bytes"));
    assert_eq!(refused(&[b'x'; 200]), "FILE: is not a recording of varta-server");
    let directory = tempfile::tempdir().unwrap();
    let said = |path: &std::path::Path| RecordingReader::open(path).unwrap_err().to_string();
    assert!(said(directory.path()).ends_with(": is not a regular file"));
    let pipe = directory.path().join("pipe");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::from_bits_truncate(0o600)).unwrap();
    assert!(said(&pipe).ends_with(": is not a regular file"));
    assert!(said(&directory.path().join("none")).contains(": cannot be read: No such file"));
}

#[test]
fn a_last_record_that_was_cut_off_is_passed_over_and_told_and_a_broken_one_is_an_error_with_its_place() {
    let hello = |name: &str| {
        let name = Some(varta_proto::control::AgentName::parse(name).unwrap());
        let said = ControlMessage::Hello(Hello { name, ..Default::default() });
        let sender = Sender::local(PID);
        InputRecord::Control(ReceivedControl { received_at: at(2), sender, said })
    };
    let whole = bytes(&[beat(PID, 1, 1), hello("worker")]);
    for (length, torn, count) in [(4 * LENGTH, 0, 2), (4 * LENGTH - 1, 127, 1), (2 * LENGTH + 5, 5, 1)] {
        let (_directory, path) = file_of(&whole[..length]);
        let recording = RecordingReader::open(&path).unwrap();
        let mut records = recording.records(&Progress::hidden()).unwrap();
        let read = std::iter::from_fn(|| records.next().unwrap()).count();
        assert_eq!((records.torn(), read), (torn, count), "{length} bytes");
    }
    let mut broken = whole;
    broken[LENGTH + 20] ^= 1;
    let (_directory, path) = file_of(&broken);
    let recording = RecordingReader::open(&path).unwrap();
    let said = recording.records(&Progress::hidden()).unwrap().next().unwrap_err().to_string();
    assert!(said.starts_with(path.to_str().unwrap()), "{said}");
    assert!(said.contains("the record at byte 64: its checksum does not fit"), "{said}");
}
