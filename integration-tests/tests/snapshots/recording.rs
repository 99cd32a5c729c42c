//! Refusals of `--record` and of `replay`.

use std::fs;

use varta_proto::crc32c;

use super::sandbox::Sandbox;

/// The length of the header and of each record.
const LENGTH: usize = 64;

/// A block of a recording, with its checksum.
fn block(start: &[u8]) -> Vec<u8> {
    let mut block = start.to_vec();
    block.resize(LENGTH - 4, 0);
    let checksum = crc32c::checksum(&block);
    block.extend(checksum.to_le_bytes());
    block
}

fn header(version: u32) -> Vec<u8> {
    let length = u32::try_from(LENGTH).unwrap().to_le_bytes();
    let second = 1_000_000_000_u64.to_le_bytes();
    block(&[&b"VARTAREC"[..], &version.to_le_bytes(), &length, &second, &second].concat())
}

/// A record that consists of its first four fields.
fn record(kind: u8, way: u8, family: u8, detail: u8) -> Vec<u8> {
    block(&[kind, way, family, detail])
}

/// A beat or a goodbye, which have these fields besides.
fn message(kind: u8, detail: u8, nonce: u64, timestamp: u64, flags: u32) -> Vec<u8> {
    let between = [0; 36];
    let end = [&nonce.to_le_bytes()[..], &timestamp.to_le_bytes(), &flags.to_le_bytes()].concat();
    block(&[&[kind, 0, 0, detail][..], &between, &end].concat())
}

#[test]
fn files_that_cannot_be_created() {
    let mut sandbox = Sandbox::new();
    sandbox.write("file", "");
    std::os::unix::fs::symlink("nowhere", sandbox.path("link")).unwrap();
    for name in ["file", "link", ".", "link/there", "file/below"] {
        sandbox.run(&["--record", name]);
    }
    assert_eq!(fs::read(sandbox.path("file")).unwrap(), b"");
    sandbox.assert_unchanged("recording_not_created");
}

#[test]
fn recordings_that_cannot_be_replayed() {
    let mut sandbox = Sandbox::new();
    fs::create_dir(sandbox.path("directory")).unwrap();
    let damaged = |mut block: Vec<u8>| {
        block[20] ^= 1;
        block
    };
    for (name, content) in [
        ("empty", vec![]),
        ("short", vec![0; 63]),
        ("other", vec![b'x'; 64]),
        ("newer", header(3)),
        ("damaged-header", damaged(header(1))),
        ("nothing", header(1)),
        ("damaged", [header(1), record(11, 0, 0, 0), damaged(record(11, 0, 0, 0))].concat()),
        ("kind", [header(1), record(99, 0, 0, 0)].concat()),
        ("family", [header(1), record(1, 0, 5, 0)].concat()),
        ("way", [header(1), record(1, 7, 0, 0)].concat()),
        ("status", [header(1), record(1, 0, 0, 3)].concat()),
        ("transport", [header(1), record(7, 9, 0, 0)].concat()),
        ("timestamp", [header(1), message(1, 0, 7, u64::MAX, 0)].concat()),
        ("nonce", [header(1), message(1, 0, u64::MAX, 7, 0)].concat()),
        ("reason", [header(1), message(3, 99, 7, 7, 16)].concat()),
        ("name", [header(1), record(5, 0, 0, 0)].concat()),
    ] {
        sandbox.write(name, content);
        sandbox.run(&["replay", name]);
    }
    sandbox.run_each(&[
        &["replay", "absent"],
        &["replay", "directory"],
        &["replay", "nothing", "--stall-after", "1ms"],
        &["replay", "nothing", "--phi-threshold", "8"],
        &["replay", "nothing", "--detector", "phi", "--phi-threshold", "0"],
        &["replay", "nothing", "--detector", "chen"],
        &["replay", "nothing", "--json"],
    ]);
    sandbox.assert_unchanged("recording_not_replayed");
}
