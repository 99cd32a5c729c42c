//! Encoding and decoding a frame, beside the peer's.

use std::hint::black_box;
use std::time::Instant;

use varta_agent::{Frame, Status};

use crate::statistics::median;
use crate::{Fallible, Row};

const ROUNDS: usize = 51;
const FRAMES: u32 = 100_000;

pub(crate) fn measure() -> Fallible<Vec<Row>> {
    let (mut ours, mut peers) = ([const { Vec::new() }; 2], [const { Vec::new() }; 2]);
    for _ in 0..ROUNDS {
        let mut wire = [0; 32];
        ours[0].push(nanos_each(|number| {
            black_box(Frame::new(Status::Ok, number | 2, 5, 7, number)).encode(black_box(&mut wire));
        }));
        peers[0].push(nanos_each(|number| {
            black_box(varta_vlp::Frame::new(varta_vlp::Status::Ok, number | 2, 5, 7, number))
                .encode(black_box(&mut wire));
        }));
        ours[1].push(nanos_each(|_| {
            let _ = black_box(&Frame::decode(black_box(&wire)));
        }));
        peers[1].push(nanos_each(|_| {
            let _ = black_box(&varta_vlp::Frame::decode(black_box(&wire)));
        }));
    }
    let row = |work: &str, index: usize, ours: &mut [Vec<f64>; 2], peers: &mut [Vec<f64>; 2]| {
        let (ours, peer) = (median(&mut ours[index])?, median(&mut peers[index])?);
        let ratio = ours / peer;
        let (ours, yardstick) = (format!("{ours:.1} ns"), format!("the peer's {peer:.1} ns"));
        Some(Row {
            work: work.to_owned(),
            ours,
            yardstick,
            ratio,
            reach: "≤ 0.33",
            reached: ratio <= 1.0 / 3.0,
        })
    };
    let encode = row("encode", 0, &mut ours, &mut peers).ok_or("no samples")?;
    let decode = row("decode", 1, &mut ours, &mut peers).ok_or("no samples")?;
    Ok(vec![encode, decode])
}

fn nanos_each(mut work: impl FnMut(u32)) -> f64 {
    let start = Instant::now();
    for number in 0..FRAMES {
        work(number);
    }
    start.elapsed().as_nanos() as f64 / f64::from(FRAMES)
}
