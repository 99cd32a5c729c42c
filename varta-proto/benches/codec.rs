//! The cost of a frame, compared with the published implementation.
//!
//! ```text
//! cargo bench -p varta-proto
//! cargo bench -p varta-proto -- decode
//! cargo bench -p varta-proto --features secure -- seal
//! ```
//!
//! Each iteration works on the next of several different frames, so that neither side is timed on a frame
//! that branch predictor and caches have learnt. Both sides spend the same on choosing it, and leave their
//! result in place: moving it costs more than computing it.

#![allow(clippy::unwrap_used, reason = "what cannot be measured need not go on")]

use std::hint::black_box;

use criterion::{Bencher, Criterion, criterion_group, criterion_main};
use varta_proto::{FRAME_LEN, Frame, NONCE_TERMINAL, Status};

/// A power of two, so that choosing the next frame is one instruction.
const FRAMES: usize = 64;

fn frames() -> [Frame; FRAMES] {
    // Steps of this size change every bit of a field.
    let mut spread = 0_u64;
    let mut nonce = 0;
    [(); FRAMES].map(|()| {
        spread = spread.wrapping_add(0x9e37_79b9_7f4a_7c15);
        nonce += 1;
        let [a, b, c, d, e, f, g, _] = spread.to_le_bytes();
        let pid = u32::from_le_bytes([a, b, c, 1]);
        let payload = u32::from_le_bytes([d, e, f, g]);
        match nonce % 8 {
            1 => Frame::new(Status::Degraded, pid, spread >> 1, nonce, payload),
            2 => Frame::new(Status::Critical, pid, spread >> 1, NONCE_TERMINAL, payload),
            _ => Frame::new(Status::Ok, pid, spread >> 1, nonce, payload),
        }
    })
}

/// Times `work` on one input after the other.
fn each<T>(bencher: &mut Bencher<'_>, inputs: &[T; FRAMES], mut work: impl FnMut(&T)) {
    let mut next = 0;
    bencher.iter(|| {
        next = (next + 1) % FRAMES;
        work(black_box(&inputs[next]));
    });
}

fn encode(criterion: &mut Criterion) {
    let ours = frames();
    let theirs = ours.map(|Frame { status, pid, timestamp, nonce, payload }| {
        let status = match status {
            Status::Ok => varta_vlp::Status::Ok,
            Status::Degraded => varta_vlp::Status::Degraded,
            Status::Critical => varta_vlp::Status::Critical,
            Status::Stall => varta_vlp::Status::Stall,
        };
        varta_vlp::Frame::new(status, pid, timestamp, nonce, payload)
    });
    let mut out = [0; FRAME_LEN];

    let mut group = criterion.benchmark_group("encode");
    group.bench_function("varta-proto", |bencher| {
        each(bencher, &ours, |frame| frame.encode(black_box(&mut out)));
    });
    group.bench_function("varta-vlp", |bencher| {
        each(bencher, &theirs, |frame| frame.encode(black_box(&mut out)));
    });
    group.finish();
}

fn decode(criterion: &mut Criterion) {
    let wire = frames().map(|frame| frame.to_bytes());
    for bytes in &wire {
        assert!(Frame::decode(bytes).is_ok() && varta_vlp::Frame::decode(bytes).is_ok());
    }

    let mut group = criterion.benchmark_group("decode");
    group.bench_function("varta-proto", |bencher| {
        each(bencher, &wire, |bytes| {
            // Our decoder gets the datagram as received, with a length to check.
            black_box(&Frame::decode(black_box(bytes.as_slice())));
        });
    });
    group.bench_function("varta-vlp", |bencher| {
        each(bencher, &wire, |bytes| {
            black_box(&varta_vlp::Frame::decode(bytes));
        });
    });
    group.finish();
}

#[cfg(feature = "secure")]
mod sealed {
    use super::*;
    use varta_proto::secure::{
        AgentKeys, Key, Opener, Session, open_agent, open_any, open_master, open_shared, seal_master,
        seal_shared,
    };
    use varta_vlp::crypto::{Key as TheirKey, aead, kdf};

    const KEY: [u8; 32] = [0x5a; 32];

    /// A nonce that is different each time, as ours is.
    fn nonce(counter: u32) -> [u8; 12] {
        let mut nonce = [0x77; 12];
        nonce[8..].copy_from_slice(&counter.to_le_bytes());
        nonce
    }

    /// Ours takes a nonce from the session and returns the whole datagram; theirs is given a nonce, and
    /// returns text and tag.
    pub(super) fn seal(criterion: &mut Criterion) {
        let wire = frames().map(|frame| frame.to_bytes());
        let key = Key::from_bytes(KEY);
        let mut session = Session::new([1; 16]);
        let mut counter = 0;

        let mut group = criterion.benchmark_group("seal");
        group.bench_function("varta-proto, shared", |bencher| {
            each(bencher, &wire, |frame| {
                black_box(&seal_shared(black_box(&key), &mut session, frame));
            });
        });
        group.bench_function("varta-vlp, shared", |bencher| {
            each(bencher, &wire, |frame| {
                counter += 1;
                black_box(&aead::seal(black_box(&KEY), &nonce(counter), &[], frame));
            });
        });
        group.bench_function("varta-proto, master", |bencher| {
            each(bencher, &wire, |frame| {
                black_box(&seal_master(black_box(&key), 4242, &mut session, frame));
            });
        });
        group.finish();
    }

    /// Ours decodes the frame too; theirs returns bytes, which are decoded here.
    pub(super) fn open(criterion: &mut Criterion) {
        let master = Key::from_bytes(KEY);
        let mut session = Session::new([1; 16]);
        let shared = frames().map(|frame| seal_shared(&master, &mut session, &frame.to_bytes()).unwrap());
        let mastered = frames().map(|frame| {
            let frame = Frame { pid: 4242, ..frame }.to_bytes();
            seal_master(&master.agent_key(4242), 4242, &mut session, &frame).unwrap()
        });
        let agent_key = master.agent_key(4242);
        assert!(shared.iter().all(|datagram| open_shared(&master, datagram).is_ok()));
        assert!(mastered.iter().all(|datagram| open_master(&master, datagram).is_ok()));

        let mut group = criterion.benchmark_group("open");
        group.bench_function("varta-proto, shared", |bencher| {
            each(bencher, &shared, |datagram| {
                black_box(&open_shared(black_box(&master), datagram));
            });
        });
        group.bench_function("varta-vlp, shared", |bencher| {
            each(bencher, &shared, |datagram| {
                let (nonce, rest) = datagram.split_first_chunk().unwrap();
                let (text, tag) = rest.split_first_chunk().unwrap();
                let plain = aead::open(black_box(&KEY), nonce, &[], text, tag.first_chunk().unwrap());
                black_box(&plain.map(|plain| varta_vlp::Frame::decode(&plain)));
            });
        });
        group.bench_function("varta-proto, agent's key kept", |bencher| {
            each(bencher, &mastered, |datagram| {
                black_box(&open_agent(black_box(&agent_key), datagram));
            });
        });
        group.bench_function("varta-proto, agent's key derived", |bencher| {
            each(bencher, &mastered, |datagram| {
                black_box(&open_master(black_box(&master), datagram));
            });
        });
        let prepared = AgentKeys::new(&master);
        group.bench_function("varta-proto, agent's key derived from a prepared master key", |bencher| {
            each(bencher, &mastered, |datagram| {
                black_box(&open_any([Opener::Agents(black_box(&prepared))], datagram));
            });
        });
        group.finish();
    }

    pub(super) fn agent_key(criterion: &mut Criterion) {
        let pids = frames().map(|frame| frame.pid);
        let ours = Key::from_bytes(KEY);
        let theirs = TheirKey::from_bytes(KEY);

        let mut group = criterion.benchmark_group("agent-key");
        group.bench_function("varta-proto", |bencher| {
            each(bencher, &pids, |pid| {
                black_box(&ours.agent_key(*pid));
            });
        });
        group.bench_function("varta-vlp", |bencher| {
            each(bencher, &pids, |pid| {
                black_box(&kdf::derive_agent_key(&theirs, *pid).ok());
            });
        });
        group.finish();
    }
}

#[cfg(feature = "secure")]
criterion_group!(secure, sealed::seal, sealed::open, sealed::agent_key);
criterion_group!(codec, encode, decode);
#[cfg(feature = "secure")]
criterion_main!(codec, secure);
#[cfg(not(feature = "secure"))]
criterion_main!(codec);
