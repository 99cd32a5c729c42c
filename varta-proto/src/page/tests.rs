use std::thread;

use super::*;
use crate::{Frame, Status};

fn frame(nonce: u64) -> [u8; FRAME_LEN] {
    Frame::new(Status::Ok, 4242, nonce * 3, nonce, 7).to_bytes()
}

#[test]
fn what_is_written_while_it_is_looked_at_is_never_half_of_two() {
    const BEATS: u64 = 200_000;
    let page = BeatPage::new();
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut writer = Writer::new();
            for nonce in 1..=BEATS {
                writer.write(&page, &frame(nonce));
            }
        });
        let (mut seen, mut last) = (0, 0);
        while last < BEATS {
            if let Glance::Beat { sequence, frame } = page.glance(seen, u64::MAX) {
                let beat = Frame::decode(&frame).expect("a whole frame");
                assert_eq!((beat.timestamp, sequence), (beat.nonce * 3, beat.nonce * 2));
                assert!(beat.nonce > last);
                (seen, last) = (sequence, beat.nonce);
            }
        }
    });
}

#[test]
fn a_frame_is_never_seen_without_the_time_of_the_datagram_before_it() {
    const ROUNDS: u64 = 100_000;
    let page = BeatPage::new();
    // The number of datagrams received, which are also their times here.
    let taken = AtomicU64::new(0);
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut writer = Writer::new();
            for round in 1..=ROUNDS {
                page.hold();
                taken.store(round, Ordering::Release);
                writer.empty(&page);
                page.release(round);
                writer.write(&page, &frame(round));
            }
        });
        let (mut seen, mut last) = (0, 0);
        while last < ROUNDS {
            let settled = taken.load(Ordering::Acquire) + 1;
            match page.glance(seen, settled) {
                Glance::Beat { sequence, frame } => {
                    last = Frame::decode(&frame).expect("a whole frame").nonce;
                    assert!(last < settled, "{last} came before its datagram");
                    seen = sequence;
                }
                Glance::Empty { sequence } => seen = sequence,
                Glance::Same | Glance::Held | Glance::Torn => {}
            }
        }
    });
}

#[test]
fn an_odd_sequence_and_one_that_never_rests_are_left_alone() {
    let page = BeatPage::new();
    page.agent.sequence.store(7, Ordering::Relaxed);
    assert_eq!(page.glance(0, u64::MAX), Glance::Torn);
    assert_eq!(page.glance(7, u64::MAX), Glance::Same);
}

#[test]
fn a_page_that_is_held_keeps_what_is_in_it() {
    let (page, mut writer) = (BeatPage::new(), Writer::new());
    writer.write(&page, &frame(1));
    page.hold();
    assert_eq!(page.glance(0, u64::MAX), Glance::Held);
    page.release(10);
    assert_eq!(page.glance(0, 11), Glance::Beat { sequence: 2, frame: frame(1) });
}

#[test]
fn a_promise_is_believed_only_for_the_near_future() {
    let page = BeatPage::new();
    for (until, now, is_read) in [
        (0, 0, true),
        (0, 1, false),
        (5, 4, true),
        (5, 6, false),
        (LONGEST_PROMISE, 0, true),
        (LONGEST_PROMISE + 1, 0, false),
        (u64::MAX, 1 << 60, false),
    ] {
        page.promise(until);
        assert_eq!(page.is_read_at(now), is_read, "until {until} at {now}");
    }
}

#[test]
fn the_words_have_the_documented_offsets() {
    use core::mem::offset_of;
    assert_eq!(offset_of!(BeatPage, agent), 0);
    assert_eq!(offset_of!(AgentLine, frame), 8);
    assert_eq!(offset_of!(AgentLine, sent_at), 40);
    assert_eq!(offset_of!(AgentLine, detached), 48);
    assert_eq!(offset_of!(BeatPage, server), 64);
}
