//! Beats through a page of memory: what a `beat()` costs beside a bare read of the clock, and what a look at very many pages
//! costs beside reading as many cache lines.

use std::hint::black_box;
use std::time::Instant;

use varta_agent::{BeatOutcome, Frame, Status, Varta};
use varta_proto::page::{BeatPage, Glance, Writer};

use crate::programs::{Server, wait_for};
use crate::statistics::{Comparison, show_nanos};
use crate::table::{Reach, Row};
use crate::{Fallible, sys};

const ROUNDS: usize = 501;
/// So few that a round ends before anything else is likely to get in between.
const BEATS: u32 = 1_000;

const AGENTS: usize = 100_000;
const LOOKS: usize = 31;
/// Frames that the server hands on together.
const BATCH: usize = 64;

/// A page as the kernel gives it, of which two cache lines are used.
#[derive(Default)]
#[repr(align(4096))]
struct Page(BeatPage);

pub(crate) fn measure() -> Fallible<Vec<Row>> {
    Ok(vec![measure_beat()?, measure_look()?])
}

fn measure_beat() -> Fallible<Row> {
    let directory = tempfile::tempdir()?;
    let path = directory.path().join("varta.sock");
    let server = Server::start(["--socket".as_ref(), path.as_os_str()])?;
    let mut agent = Varta::connect_shm(&path)?;
    wait_for("the server looks at the page", || {
        let sent = agent.beat(Status::Ok, 0) == BeatOutcome::Sent;
        Ok((sent && server.counts("shm")?.accepted > 0).then_some(()))
    })?;
    let before = server.counts("unix")?;
    let (mut ours, mut clock) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        ours.push(nanos_each(|payload| _ = black_box(agent.beat(Status::Ok, payload))));
        clock.push(nanos_each(|_| _ = black_box(sys::monotonic_clock())));
    }
    let by_datagram = server.counts("unix")?.since(before).sum();
    if by_datagram > 0 {
        println!("(shm: {by_datagram} of the beats went by datagram)");
    }
    let reach = Reach { text: "≤ 2", holds: |compared| compared.ratio <= 2.0 };
    let compared = Comparison::of(&ours, &clock)?;
    Ok(Row::new("`beat()` through a page, median", &compared, "bare clock read", show_nanos, reach))
}

fn nanos_each(mut work: impl FnMut(u32)) -> f64 {
    let start = Instant::now();
    for number in 0..BEATS {
        work(number);
    }
    start.elapsed().as_nanos() as f64 / f64::from(BEATS)
}

/// Each agent has beaten since the look before.
fn measure_look() -> Fallible<Row> {
    let memory: Vec<Page> = (0..AGENTS).map(|_| Page::default()).collect();
    // Somewhere in memory, and not one behind the other.
    let pages: Vec<&BeatPage> = (0..AGENTS).map(|number| &memory[number * 48_271 % AGENTS].0).collect();
    let mut writers: Vec<Writer> = (0..AGENTS).map(|_| Writer::new()).collect();
    let mut seen = vec![0; AGENTS];
    let (mut ours, mut lines) = (Vec::new(), Vec::new());
    for round in 1..=LOOKS {
        for is_ours in [round % 2 == 0, round % 2 != 0] {
            let frame = Frame::new(Status::Ok, 4_242, round as u64, round as u64, 0).to_bytes();
            writers.iter_mut().zip(&pages).for_each(|(writer, page)| writer.write(page, &frame));
            let start = Instant::now();
            if is_ours {
                let taken = look(&pages, &mut seen);
                ours.push(start.elapsed().as_secs_f64());
                if taken != AGENTS {
                    return Err(format!("{taken} beats were found of {AGENTS}").into());
                }
            } else {
                // One word of a line is the line.
                black_box(pages.iter().filter(|page| page.was_left()).count());
                lines.push(start.elapsed().as_secs_f64());
            }
        }
    }
    let reach = Reach { text: "≤ 3", holds: |compared| compared.ratio <= 3.0 };
    let compared = Comparison::of(&ours, &lines)?;
    let show = |seconds: f64| format!("{:.2} ms", seconds * 1e3);
    Ok(Row::new("look at 100,000 pages", &compared, "as many scattered cache lines", show, reach))
}

/// Does what a server does with pages, up to where it hands on a batch.
fn look(pages: &[&BeatPage], seen: &mut [u64]) -> usize {
    let (mut taken, mut batch) = (0, Vec::with_capacity(BATCH));
    for (pages, seen) in pages.chunks(BATCH).zip(seen.chunks_mut(BATCH)) {
        let mut changed = [false; BATCH];
        for ((changed, page), seen) in changed.iter_mut().zip(pages).zip(&*seen) {
            *changed = !page.is_at(*seen);
        }
        for ((_, page), seen) in changed.iter().zip(pages).zip(seen).filter(|((changed, _), _)| **changed) {
            if let Glance::Beat { sequence, frame } = page.glance(*seen, u64::MAX)
                && let Ok(frame) = Frame::decode(&frame)
            {
                *seen = sequence;
                batch.push(frame);
            }
        }
        taken += black_box(&batch).len();
        batch.clear();
    }
    taken
}
