//! What a frame costs, ours beside the published implementation's.
//!
//! ```text
//! cargo bench -p varta-proto
//! cargo bench -p varta-proto -- decode
//! ```
//!
//! Each iteration works on the next of several different frames, so that neither side is timed on one that
//! the branch predictor and the caches know by heart. Both sides spend the same on choosing it, and leave
//! their result where they made it: moving it costs more than making it.

use std::hint::black_box;

use criterion::{Bencher, Criterion, criterion_group, criterion_main};
use varta_proto::{FRAME_LEN, Frame, NONCE_TERMINAL, Status};

/// A power of two, so that choosing the next frame is one instruction.
const FRAMES: usize = 64;

fn frames() -> [Frame; FRAMES] {
    // Steps of this size leave no bit of a field alone.
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
            // Ours is given the datagram as it arrived, with a length that it has to check.
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

criterion_group!(codec, encode, decode);
criterion_main!(codec);
