//! Encoding and decoding a frame, beside the peer's.

use std::hint::black_box;
use std::time::Instant;

use varta_agent::{Frame, Status};

use crate::Fallible;
use crate::statistics::Comparison;
use crate::table::{Reach, Row};

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
    let row = |work, index: usize| {
        let compared = Comparison::of(&ours[index], &peers[index])?;
        let reach = Reach { text: "≤ 0.2", holds: |compared| compared.ratio <= 0.2 };
        Fallible::Ok(Row::new(work, &compared, "the peer's", |nanos| format!("{nanos:.1} ns"), reach))
    };
    Ok(vec![row("encode", 0)?, row("decode", 1)?])
}

fn nanos_each(mut work: impl FnMut(u32)) -> f64 {
    let start = Instant::now();
    for number in 0..FRAMES {
        work(number);
    }
    start.elapsed().as_nanos() as f64 / f64::from(FRAMES)
}
