//! Tests of the table.

use std::num::NonZeroU64;

use super::*;
use crate::base::time::MonoTime;
use crate::domain::process::cgroup::Cgroup;
use crate::domain::process::snapshot::{BlockedThread, Details};
use crate::domain::process::state::StateCounts;

/// A snapshot of a process whose threads have the states of these letters, the main thread first.
fn look(letters: &str) -> ProcessSnapshot {
    let mut states = StateCounts::default();
    for letter in letters.bytes() {
        states.add(State::from_letter(letter));
    }
    ProcessSnapshot {
        at: MonoTime::from_secs(10),
        pid: 7,
        start_time: NonZeroU64::MIN,
        command: "worker".into(),
        state: State::from_letter(letters.as_bytes()[0]),
        death: None,
        threads: states.total(),
        cpu: Duration::from_secs(5),
        details: Some(Box::new(Details {
            states,
            run_delay: Some(Duration::from_secs(3)),
            ..Details::default()
        })),
    }
}

/// The same process a second before, with so much less CPU time and so much less run delay.
fn before(now: &ProcessSnapshot, cpu_ms: u64, delay_ms: u64) -> ProcessSnapshot {
    let mut earlier = now.clone();
    earlier.at = MonoTime::from_secs(9);
    earlier.cpu -= Duration::from_millis(cpu_ms);
    let details = earlier.details.as_mut().unwrap();
    details.run_delay = details.run_delay.map(|delay| delay - Duration::from_millis(delay_ms));
    earlier
}

#[test]
fn the_table_is_this() {
    use ProcessActivity::{Blocked, Busy, Gone, Idle, Stopped, Traced, Unknown};
    // The threads; CPU time and run delay in the second before, in milliseconds, or nothing to compare
    // with.
    let table = [
        ("Z", None, Gone),
        ("X", Some((0, 0)), Gone),
        ("T", None, Stopped),
        ("TT", Some((900, 0)), Stopped),
        ("t", None, Traced),
        ("St", None, Traced),
        ("ST", Some((0, 0)), Stopped),
        ("D", None, Blocked),
        ("D", Some((0, 0)), Blocked),
        ("DR", Some((900, 0)), Blocked),
        ("SD", Some((0, 0)), Blocked),
        ("SD", None, Blocked),
        ("SD", Some((900, 0)), Busy),
        ("R", None, Busy),
        ("R", Some((1000, 0)), Busy),
        ("R", Some((0, 990)), Busy),
        ("R", Some((0, 0)), Busy),
        ("S", Some((250, 0)), Busy),
        ("S", Some((0, 500)), Busy),
        ("SR", None, Busy),
        ("SR", Some((900, 0)), Busy),
        ("ZR", Some((900, 0)), Busy),
        ("S", None, Idle),
        ("SSSS", Some((0, 0)), Idle),
        ("S", Some((240, 490)), Idle),
        // It runs now, as it did a second before.
        ("SR", Some((0, 0)), Busy),
        ("I", None, Idle),
        // The main thread has ended, another goes on.
        ("ZS", None, Idle),
        ("P", None, Unknown),
        ("P", Some((0, 0)), Unknown),
    ];
    for (letters, change, doing) in table {
        let now = look(letters);
        let earlier = change.map(|(cpu, delay)| before(&now, cpu, delay));
        let explained = classify(&now, earlier.as_ref());
        assert_eq!(explained.activity, doing, "{letters} {change:?}: {}", explained.sentence);
    }
}

#[test]
fn who_is_ready_to_run_and_does_not_is_told_from_who_runs() {
    let now = look("R");
    let starved = classify(&now, Some(&before(&now, 0, 0))).sentence;
    assert_ne!(starved, classify(&now, Some(&before(&now, 900, 0))).sentence);
    assert_eq!(starved, classify(&look("S"), Some(&before(&look("S"), 0, 900))).sentence);
}

#[test]
fn a_thread_that_happens_to_run_at_one_moment_does_not_make_a_process_busy() {
    let rested = before(&look("SS"), 0, 0);
    assert_eq!(classify(&look("SR"), Some(&rested)).activity, ProcessActivity::Idle);
}

#[test]
fn a_frozen_cgroup_explains_whatever_its_threads_seem_to_do() {
    for letters in ["S", "D", "T", "R"] {
        let mut now = look(letters);
        now.details.as_mut().unwrap().cgroup = Some(Cgroup { frozen: Some(true), ..Cgroup::default() });
        assert_eq!(classify(&now, None).activity, ProcessActivity::Frozen);
    }
    let mut old = look("D");
    old.details.as_mut().unwrap().channel = Some("__refrigerator".into());
    assert_eq!(classify(&old, None).activity, ProcessActivity::Frozen);
}

fn in_channel(letters: &str, channel: &str) -> ProcessSnapshot {
    let mut now = look(letters);
    now.details.as_mut().unwrap().channel = Some(channel.into());
    now
}

#[test]
fn the_function_in_which_the_main_thread_waits_tells_what_for() {
    use ProcessActivity::{Blocked, Frozen, Idle, Stopped, Traced};
    let table = [
        ("S", "get_signal", Frozen, "cgroup"),
        ("S", "do_freezer_trap", Frozen, "cgroup"),
        ("T", "get_signal", Stopped, "SIGCONT"),
        ("t", "get_signal", Traced, "tracer"),
        ("D", "kernel_clone", Blocked, "vfork"),
        ("D", "wait_for_vfork_done", Blocked, "vfork"),
        ("S", "request_wait_answer", Blocked, "FUSE"),
        ("SSS", "request_wait_answer", Blocked, "FUSE"),
        ("D", "request_wait_answer", Blocked, "FUSE"),
        ("S", "futex_do_wait", Idle, "sleeps"),
    ];
    for (letters, channel, doing, word) in table {
        let now = in_channel(letters, channel);
        for earlier in [None, Some(before(&now, 0, 0))] {
            let Explanation { activity, sentence } = classify(&now, earlier.as_ref());
            assert_eq!(activity, doing, "{letters} {channel}: {sentence}");
            assert!(sentence.contains(word), "{letters} {channel}: {sentence}");
        }
    }
    // Another thread works; the one that beats waits all the same.
    let now = in_channel("SR", "request_wait_answer");
    assert_eq!(classify(&now, Some(&before(&now, 900, 0))).activity, Blocked);
    let mut thread = look("SD");
    thread.details.as_mut().unwrap().stuck =
        Some(BlockedThread { thread: 8, channel: Some("kernel_clone".into()) });
    assert!(classify(&thread, None).sentence.contains("vfork"));
}

#[test]
fn a_core_dump_explains_whatever_the_threads_seem_to_do() {
    for letters in ["S", "D", "R", "I", "SDD"] {
        let mut now = look(letters);
        now.details.as_mut().unwrap().dumping_core = true;
        for earlier in [None, Some(before(&now, 900, 0))] {
            let activity = classify(&now, earlier.as_ref()).activity;
            assert_eq!(activity, ProcessActivity::DumpingCore);
            assert!(activity.is_blocked());
        }
    }
}

#[test]
fn a_glance_is_enough_for_the_plain_cases() {
    for (letters, doing) in [
        ("S", ProcessActivity::Idle),
        ("D", ProcessActivity::Blocked),
        ("T", ProcessActivity::Stopped),
        ("Z", ProcessActivity::Gone),
    ] {
        let glance = ProcessSnapshot { details: None, ..look(letters) };
        assert_eq!(classify(&glance, None).activity, doing);
    }
}

#[test]
fn looks_that_are_too_close_or_at_another_process_say_nothing_of_its_work() {
    let now = look("S");
    let close = ProcessSnapshot { at: MonoTime::from_millis(9_960), cpu: Duration::ZERO, ..now.clone() };
    let other = ProcessSnapshot { pid: 8, cpu: Duration::ZERO, ..before(&now, 0, 0) };
    for earlier in [close, other] {
        assert_eq!(classify(&now, Some(&earlier)).sentence, "it sleeps");
    }
}
