//! What expectations find in a log, and what they say when they find nothing.

use std::time::Duration;

use super::*;
use crate::log::{Log, Transition};
use crate::retry::LIMIT;

const NO_TIME: Duration = Duration::ZERO;

/// A line as the server writes it.
fn event(agent: &str, pid: u32, from: &str, to: &str, cause: &str, silence_ms: u64) -> String {
    format!(
        "{{\"timestamp\":\"2026-01-02T03:04:05.678Z\",\"target\":\"varta::agent\",\"agent\":\"{agent}\",\
         \"pid\":{pid},\"transport\":\"unix\",\"from\":\"{from}\",\"to\":\"{to}\",\"cause\":\"{cause}\",\
         \"silence_ms\":{silence_ms},\"status\":\"ok\",\"payload\":7,\"message\":\"{agent} is {to}\"}}\n"
    )
}

fn two_agents() -> Log {
    let lines = [
        "not JSON at all\n".to_owned(),
        event("billing", 7, "none", "up", "first_beat", 0),
        event("mail", 8, "none", "up", "first_beat", 0),
        "{\"target\":\"varta::incident\",\"message\":\"incident 1 is over\",\"agents\":2}\n".to_owned(),
        event("mail", 8, "up", "down", "killed", 12),
        event("billing", 7, "up", "stalled", "idle", 2_003),
    ];
    Log::of(&lines.concat(), false)
}

fn found(verdict: &Verdict) -> Result<Transition, String> {
    verdict.wait_in(&two_agents(), NO_TIME)
}

#[test]
fn an_agent_is_found_by_its_name_and_by_its_pid() {
    for billing in [agent("billing"), agent(7), any_agent()] {
        let change = found(&billing.stalled()).unwrap();
        assert_eq!((change.pid, change.cause.as_str()), (7, "idle"));
    }
    assert!(found(&agent("mail").stalled()).is_err());
    assert!(found(&agent(9).up()).is_err());
}

#[test]
fn a_change_has_all_that_is_asked_of_it() {
    let stalled = || agent("billing").stalled();
    let two_seconds = Duration::from_secs(2);
    for fits in [
        stalled().because("idle"),
        stalled().from("up").with_status("ok").after_silence(two_seconds),
        agent("mail").down().because("killed").from("up"),
        agent("mail").over("unix").up(),
    ] {
        assert!(found(&fits).is_ok(), "{fits}");
    }
    for differs in [
        stalled().seen_as("stopped"),
        stalled().because("stopped"),
        stalled().from("unknown"),
        stalled().with_status("critical"),
        stalled().after_silence(two_seconds * 2),
        agent("mail").down().signal(9),
        agent("mail").down().exit_code(3),
        agent("mail").over("udp").up(),
        agent("billing").gone(),
        agent("billing").unknown(),
    ] {
        assert!(found(&differs).is_err(), "{differs}");
    }
}

#[test]
fn a_look_that_came_too_late_counts_only_where_the_test_is_not_about_it() {
    let log = Log::of(&event("billing", 7, "up", "stalled", "silent", 2_003), true);
    let stalled = || agent("billing").stalled();
    assert!(stalled().seen_as("stopped").wait_in(&log, NO_TIME).is_ok());
    assert!(stalled().because("stopped").wait_in(&log, NO_TIME).is_err());
    let dossier = ",\"dossier\":\"unknown: 1 thread\",\"message\"";
    let seen = event("billing", 7, "up", "stalled", "silent", 2_003).replace(",\"message\"", dossier);
    assert!(stalled().seen_as("stopped").wait_in(&Log::of(&seen, true), NO_TIME).is_err());
}

#[test]
fn a_failure_names_what_was_expected_and_shows_all_events_in_their_order() {
    let failure = found(&agent("billing").stalled().because("stopped").from("up")).unwrap_err();
    let expected = "\
not within 0ns: billing becomes stalled from up because stopped
4 changes of verdict were seen, in this order:
> 03:04:05.678Z billing[7] by unix: none to up: first_beat; silent for 0 ms, ok, payload 7
  03:04:05.678Z mail[8] by unix: none to up: first_beat; silent for 0 ms, ok, payload 7
  03:04:05.678Z mail[8] by unix: up to down: killed; silent for 12 ms, ok, payload 7
> 03:04:05.678Z billing[7] by unix: up to stalled: idle; silent for 2003 ms, ok, payload 7";
    assert_eq!(failure, expected);
}

#[test]
fn a_failure_of_a_log_without_events_says_so() {
    let failure = agent(7).down().signal(9).wait_in(&Log::of("", false), NO_TIME).unwrap_err();
    assert_eq!(failure, "not within 0ns: [7] becomes down, signal 9\nno change of verdict was seen");
}

#[test]
fn a_log_that_is_complete_is_not_waited_for() {
    let log = Log::of(&event("billing", 7, "none", "up", "first_beat", 0), true);
    // The test would not end in time if it waited for these.
    let century = Duration::from_secs(100 * 365 * 24 * 3_600);
    assert!(agent("billing").down().wait_in(&log, century).is_err());
    assert!(line("stopping").wait_in(&log, century).is_err());
    assert!(agent("billing").up().wait_in(&log, century).is_ok());
}

#[test]
fn what_a_change_takes_by_design_comes_on_top_of_the_limit() {
    let verdict = agent("billing").stalled();
    assert_eq!(verdict.takes, NO_TIME);
    assert_eq!(verdict.within(Duration::from_secs(2)).takes + LIMIT, LIMIT + Duration::from_secs(2));
}

#[test]
fn a_line_is_found_by_how_it_begins_by_what_is_in_it_and_by_its_number() {
    let log = two_agents();
    let found = |line: LogLine| line.wait_in(&log, NO_TIME);
    assert_eq!(found(line("incident 1")).unwrap()["agents"], 2);
    assert_eq!(found(line_with("is over")).unwrap()["agents"], 2);
    assert_eq!(found(line("mail is ").nth(2)).unwrap()["to"], "down");
    assert_eq!(found(line("billing").with("stalled")).unwrap()["to"], "stalled");
    for absent in [line("is over"), line("mail is ").nth(3), line("billing").with("down")] {
        let failure = found(absent.clone()).unwrap_err();
        assert!(failure.starts_with(&format!("not within 0ns: {absent}\n")), "{failure}");
        assert!(failure.ends_with("billing is stalled\"}"), "{failure}");
    }
}

#[test]
fn an_expectation_reads_as_a_sentence() {
    let sentences = [
        (
            agent("billing").over("udp").stalled().after_silence(Duration::from_secs(1)).to_string(),
            "billing by udp becomes stalled after a silence of 1s at least",
        ),
        (any_agent().up().with_status("critical").to_string(), "any agent becomes up with status critical"),
        (
            line("a").with("b").nth(2).to_string(),
            "a line of the log that begins with \"a\" that has \"b\" in it, number 2",
        ),
        (metric("m").is(1.0).to_string(), "m{} is 1"),
        (metric("m").with("pid", 7).at_least(2.0).to_string(), "m{pid=\"7\"} is at least 2"),
    ];
    for (sentence, expected) in sentences {
        assert_eq!(sentence, expected);
    }
}
