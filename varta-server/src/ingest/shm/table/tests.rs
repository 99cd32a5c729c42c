//! Tests of the page table: what is read from pages whatever is written to them, and when pages are replaced
//! or removed.

use std::process::Command;

use varta_proto::page::{BeatPage, Writer};
use varta_proto::{DecodeError, Status};

use super::*;
use crate::ingest::shm::page::tests::sealed;
use crate::observe::identify;

const PID: u32 = 4242;
const SETTLED: u64 = u64::MAX;

fn at(millis: u64) -> MonoTime {
    MonoTime::from_millis(millis)
}

/// The agent's end of a page.
struct Agent {
    descriptor: OwnedFd,
    page: Page,
    writer: Writer,
}

impl Agent {
    fn new() -> Self {
        let descriptor = sealed();
        let page = Page::map(&descriptor).unwrap();
        Agent { descriptor, page, writer: Writer::new() }
    }

    fn attached(table: &mut Table, pid: u32) -> Self {
        let agent = Agent::new();
        agent.attach(table, pid, at(0)).unwrap();
        agent
    }

    fn attach(&self, table: &mut Table, pid: u32, at: MonoTime) -> Result<(), Refused> {
        table.attach(pid, pid, &self.descriptor, at, at.as_nanos())
    }

    fn words(&self) -> &BeatPage {
        self.page.words()
    }

    fn beat(&mut self, pid: u32, nonce: u64) {
        self.write(&Frame::new(Status::Ok, pid, nonce, nonce, 0).to_bytes());
    }

    fn write(&mut self, bytes: &[u8; 32]) {
        self.writer.write(self.page.words(), bytes);
    }
}

/// Polls all pages. Returns the nonces read, and the refused frames.
fn poll(table: &mut Table, settled: u64) -> (Vec<u64>, OutcomeCounts) {
    let (mut nonces, mut tally) = (Vec::new(), OutcomeCounts::default());
    let mut from = Some(0);
    while let Some(start) = from {
        let mut found = PageReading::default();
        from = table.poll(start, settled, at(1), &mut found);
        assert!(found.beats.len() <= BATCH);
        nonces.extend(found.beats.iter().map(|beat| beat.frame.nonce));
        found.refused.rows().for_each(|(row, count)| tally.add(row, count));
    }
    (nonces, tally)
}

#[test]
fn each_beat_is_taken_once_and_only_the_newest_is_seen() {
    let mut table = Table::new(8, None);
    let mut agent = Agent::attached(&mut table, PID);
    assert_eq!(poll(&mut table, SETTLED), (vec![], OutcomeCounts::default()));
    agent.beat(PID, 1);
    agent.beat(PID, 2);
    assert_eq!(poll(&mut table, SETTLED), (vec![2], OutcomeCounts::default()));
    assert_eq!(poll(&mut table, SETTLED), (vec![], OutcomeCounts::default()));
    agent.beat(PID, 3);
    agent.writer.empty(agent.page.words());
    assert_eq!(poll(&mut table, SETTLED), (vec![], OutcomeCounts::default()));
}

#[test]
fn a_poll_of_very_many_pages_comes_in_batches() {
    let mut table = Table::new(300, None);
    let mut agents: Vec<Agent> = (0..300).map(|number| Agent::attached(&mut table, PID + number)).collect();
    for (number, agent) in (0..).zip(&mut agents) {
        agent.beat(PID + number, u64::from(number) + 1);
    }
    assert_eq!(poll(&mut table, SETTLED).0, (1..=300).collect::<Vec<u64>>());
}

#[test]
fn what_follows_a_datagram_waits_until_that_was_taken() {
    let mut table = Table::new(8, None);
    let mut agent = Agent::attached(&mut table, PID);
    agent.words().hold();
    agent.beat(PID, 1);
    assert_eq!(poll(&mut table, SETTLED).0, [0; 0]);
    agent.words().release(100);
    assert_eq!(poll(&mut table, 100).0, [0; 0]);
    assert_eq!(poll(&mut table, 101).0, [1]);
}

#[test]
fn whatever_is_scribbled_into_a_page_costs_one_count_a_poll_and_concerns_nobody_else() {
    let mut table = Table::new(8, None);
    let mut scribbler = Agent::attached(&mut table, PID);
    let mut agent = Agent::attached(&mut table, PID + 1);
    for round in 1..=50_u8 {
        for _ in 0..100 {
            scribbler.write(&[round; 32]);
        }
        agent.beat(PID + 1, round.into());
        let (nonces, refused) = poll(&mut table, SETTLED);
        assert_eq!(nonces, [u64::from(round)]);
        assert_eq!(refused.of(FrameOutcome::Malformed(DecodeError::BadMagic)), 1);
    }
    scribbler.beat(PID + 1, 7);
    assert_eq!(poll(&mut table, SETTLED).1.of(FrameOutcome::PidMismatch), 1, "nobody speaks for another");
}

#[test]
fn a_sequence_that_is_odd_for_ever_is_passed_over() {
    let mut table = Table::new(8, None);
    let mut agent = Agent::attached(&mut table, PID);
    for (nonce, sequence) in (1..).zip([1, 3, u64::MAX]) {
        agent.beat(PID, nonce);
        agent.page.scribble_sequence(sequence);
        assert_eq!(poll(&mut table, SETTLED), (vec![], OutcomeCounts::default()));
    }
}

#[test]
fn what_a_process_wrote_before_its_last_word_is_passed_over() {
    let mut table = Table::new(8, None);
    let mut agent = Agent::attached(&mut table, PID);
    agent.beat(PID, 1);
    table.skip(PID);
    assert_eq!(poll(&mut table, SETTLED).0, [0; 0]);
    agent.beat(PID, 2);
    assert_eq!(poll(&mut table, SETTLED).0, [2]);
}

#[test]
fn one_process_is_read_without_looking_at_the_others() {
    let mut table = Table::new(8, None);
    let (mut one, mut other) = (Agent::attached(&mut table, PID), Agent::attached(&mut table, PID + 1));
    one.beat(PID, 1);
    other.beat(PID + 1, 2);
    let mut found = PageReading::default();
    table.read(PID + 1, SETTLED, at(5), &mut found);
    let beats: Vec<_> = found.beats.iter().map(|beat| (beat.sender.pid, beat.received_at)).collect();
    assert_eq!(beats, [(PID + 1, at(5))]);
    assert_eq!(poll(&mut table, SETTLED).0, [1]);
}

#[test]
fn a_page_that_was_left_is_given_up_behind_its_last_beat() {
    let mut table = Table::new(8, None);
    let mut agent = Agent::attached(&mut table, PID);
    agent.beat(PID, 1);
    agent.words().leave();
    assert_eq!(poll(&mut table, SETTLED).0, [1]);
    assert!(table.len() == 0 && !table.has(PID));
    assert!(!agent.words().is_read_at(1));
}

#[test]
fn a_page_is_promised_polls_from_the_start_and_again_as_long_as_there_are_some() {
    let mut table = Table::new(8, None);
    let agent = Agent::attached(&mut table, PID);
    let is_read = |millis: u64| agent.words().is_read_at(at(millis).as_nanos());
    assert!(is_read(1) && !is_read(10_000));
    for millis in (0..=10_000).step_by(100) {
        table.begin_poll(at(millis), Some(at(millis).as_nanos()));
        poll(&mut table, SETTLED);
        assert!(is_read(millis + 900), "{millis}");
    }
    table.promise(0);
    table.begin_poll(at(11_000), None);
    poll(&mut table, SETTLED);
    assert!(!is_read(10_000));
}

#[test]
fn there_are_no_polls_without_pages_and_never_for_more_than_half_of_the_time() {
    let mut table = Table::new(8, None);
    assert_eq!(table.next_poll(), MonoTime::NEVER);
    let _agent = Agent::attached(&mut table, PID);
    table.pace.shorten_for(Duration::from_millis(80));
    table.begin_poll(at(100), None);
    assert_eq!(table.next_poll(), at(110));
    table.end_poll(at(107));
    assert_eq!(table.next_poll(), at(114));
}

#[test]
fn there_are_no_more_pages_than_there_may_be() {
    let mut table = Table::new(2, None);
    let _kept = [0, 1].map(|number| Agent::attached(&mut table, PID + number));
    assert_eq!(Agent::new().attach(&mut table, PID + 2, at(0)), Err(Refused::NoRoom));
    assert_eq!(Agent::new().attach(&mut Table::new(0, None), PID, at(0)), Err(Refused::NoRoom));
}

#[test]
fn a_process_has_four_pages_and_another_replaces_the_oldest_now_and_then() {
    let mut table = Table::new(100, None);
    let agents: Vec<Agent> = (0..4).map(|_| Agent::attached(&mut table, PID)).collect();
    assert_eq!(Agent::new().attach(&mut table, PID, at(999)), Err(Refused::NoRoom));
    let another = Agent::new();
    assert_eq!(another.attach(&mut table, PID, at(1_000)), Ok(()));
    assert_eq!(table.len(), 4);
    let is_read = |agent: &Agent| agent.words().is_read_at(1);
    assert!(!is_read(&agents[0]) && agents[1..].iter().all(is_read));
}

#[test]
fn no_more_pages_are_taken_in_a_second_than_may_be() {
    let mut table = Table::new(usize::MAX, None);
    let agent = Agent::new();
    for number in 0..TAKEN_IN_A_SECOND {
        assert_eq!(agent.attach(&mut table, PID + number, at(5)), Ok(()));
    }
    assert_eq!(agent.attach(&mut table, 1, at(999)), Err(Refused::TooFast));
    assert_eq!(agent.attach(&mut table, 1, at(1_000)), Ok(()));
}

#[test]
fn a_process_that_died_takes_its_pages_with_it_and_no_others() {
    let mut table = Table::new(8, None);
    let us = std::process::id();
    let _agents = [us, PID].map(|pid| Agent::attached(&mut table, pid));
    let start_time = identify::start_time(us).unwrap();
    table.forget(us, start_time.checked_add(1));
    assert!(table.has(us), "another process had its pid");
    table.forget(us, Some(start_time));
    assert!(!table.has(us) && table.has(PID));
}

#[test]
fn a_process_whose_end_nobody_told_of_is_looked_for() {
    let mut table = Table::new(8, None);
    let mut child = Command::new("cat").stdin(std::process::Stdio::piped()).spawn().unwrap();
    let us = std::process::id();
    let _agents = [us, child.id()].map(|pid| Agent::attached(&mut table, pid));
    child.kill().unwrap();
    child.wait().unwrap();
    table.check_processes(at(9_999));
    assert_eq!(table.len(), 2, "it may just be quiet");
    table.check_processes(at(10_200));
    assert!(table.len() == 1 && table.has(us));
}
