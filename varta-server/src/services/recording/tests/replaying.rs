//! Tests of replays: verdicts under another policy, observer gaps, and the report.

use std::num::NonZeroU64;
use std::str::FromStr;

use crate::domain::process::identity::ProcessIdentity;
use crate::domain::process::{ExitStatus, Lineage, ProcessId};
use crate::domain::tracker::arrival::{ArrivalPolicy, Kind, Phi};
use crate::domain::tracker::{AgentId, Twin};
use crate::services::recording::replay;
use crate::services::recording::replay::Replay;
use crate::services::recording::report::Report;
use crate::services::recording::tests::*;

fn replayed(records: &[InputRecord], stall_after: Option<Duration>, arrival: ArrivalPolicy) -> Report {
    let (_directory, path) = file_of(&bytes(records));
    replay(&Replay { path, stall_after, arrival }).unwrap()
}

/// The results under a fixed timeout: stalled, taken back, false positives, down.
fn verdicts(records: &[InputRecord], stall_after: u64) -> [u64; 4] {
    let report = replayed(records, Some(Duration::from_millis(stall_after)), ArrivalPolicy::default());
    let json = report.to_json();
    ["stalled", "taken_back", "mistakes", "down"].map(|name| number(&json, &format!("\"{name}\":")))
}

/// The first number that directly follows `before`.
fn number<T: FromStr>(json: &str, before: &str) -> T {
    let mut numbers = json.split(before).skip(1).filter_map(|rest| {
        let end = rest.find([',', '}'])?;
        rest[..end].parse().ok()
    });
    numbers.next().unwrap_or_else(|| panic!("{before} in {json}"))
}

/// Beats of one agent, one in each of these seconds.
fn beats(pid: u32, seconds: std::ops::RangeInclusive<u64>) -> impl Iterator<Item = InputRecord> {
    seconds.map(move |second| beat(pid, second + 1, second * 1_000))
}

fn end(millis: u64) -> InputRecord {
    InputRecord::End { at: at(millis) }
}

#[test]
fn silence_is_judged_by_the_policy_of_the_replay() {
    let mut records: Vec<_> = beats(PID, 0..=9).collect();
    // A pause of four seconds, a beat that is three seconds late, and two that are lost.
    records.extend([
        beat(PID, 11, 13_000),
        delayed(PID, 12, 14_000, 17_000),
        beat(PID, 15, 20_000),
        end(21_000),
    ]);
    assert_eq!(verdicts(&records, 5_000), [0, 0, 0, 0]);
    assert_eq!(verdicts(&records, 3_500), [2, 2, 1, 0]);
    assert_eq!(verdicts(&records, 2_500), [3, 3, 2, 0]);
}

#[test]
fn who_stays_silent_to_the_end_is_stalled_if_there_is_time_for_it() {
    let mut records: Vec<_> = beats(PID, 0..=9).collect();
    assert_eq!(verdicts(&records, 2_000), [0, 0, 0, 0], "nothing is known of the time after the last record");
    records.push(end(11_000));
    assert_eq!(verdicts(&records, 2_000), [0, 0, 0, 0], "what comes in the same moment would be taken first");
    records.push(end(11_001));
    assert_eq!(verdicts(&records, 2_000), [1, 0, 0, 0]);
}

#[test]
fn what_piled_up_while_the_server_was_blind_is_held_against_nobody() {
    let mut records: Vec<_> = beats(PID, 0..=2).collect();
    records.extend((3..=20).map(|second| delayed(PID, second + 1, second * 1_000, 20_400)));
    records.extend([InputRecord::Blind { from: at(3_000), to: at(20_500) }, end(24_000)]);
    assert_eq!(verdicts(&records, 5_000), [0, 0, 0, 0]);
    // Without the observer gap it is a false positive.
    records.remove(records.len() - 2);
    assert_eq!(verdicts(&records, 5_000), [1, 1, 1, 0]);
}

#[test]
fn beats_that_were_not_recorded_are_held_against_nobody() {
    let mut records: Vec<_> = beats(PID, 0..=2).collect();
    records.push(InputRecord::Gap { from: at(3_000), to: at(30_000), records: 28 });
    records.extend(beats(PID, 31..=40));
    assert_eq!(verdicts(&records, 5_000), [0, 0, 0, 0]);
}

#[test]
fn a_death_is_no_silence_and_the_next_process_is_another() {
    let identity = |start| {
        let start_time = NonZeroU64::new(start).unwrap();
        let identity = ProcessIdentity::of_command(start_time, "worker".to_owned());
        InputRecord::Process { pid: PID, identity: Some(identity) }
    };
    let process = ProcessId::new(PID, NonZeroU64::new(7).unwrap());
    let death = ExitStatus::Killed { signal: 9, core_dumped: false };
    let mut records = vec![identity(7)];
    records.extend(beats(PID, 0..=5));
    records.push(InputRecord::Exit {
        pid: PID,
        process: Some(process),
        death,
        lineage: Lineage::default(),
        noticed_at: at(5_100),
        at: at(5_100),
    });
    records.push(identity(8));
    records.extend((60..=63).map(|second| beat(PID, second - 59, second * 1_000)));
    assert_eq!(verdicts(&records, 5_000), [0, 0, 0, 1]);
    let report = replayed(&records, None, ArrivalPolicy::default()).to_json();
    assert_eq!(number::<u64>(&report, "\"agents\":"), 2);
    assert_eq!(number::<u64>(&report, "\"beats_accepted\":"), 10);
}

#[test]
fn how_long_finding_out_takes_is_the_deadline_after_each_beat() {
    let records: Vec<_> = beats(PID, 0..=1_000).collect();
    let fixed = replayed(&records, None, ArrivalPolicy::default()).to_json();
    for name in ["mean", "median", "p99", "most"] {
        assert_eq!(number::<u64>(&fixed, &format!("\"{name}\":")), 5, "{fixed}");
    }
    let phi = ArrivalPolicy { kind: Kind::Phi(Phi::PUBLISHED), ..ArrivalPolicy::default() };
    let phi = replayed(&records, None, phi).to_json();
    assert!(number::<f64>(&phi, "\"median\":") < 2.0 && number::<u64>(&phi, "\"most\":") == 5, "{phi}");
}

#[test]
fn a_report_in_json_has_these_fields_in_this_order() {
    let mut records: Vec<_> = beats(PID, 0..=9).collect();
    records.extend([beat(PID, 16, 15_500), InputRecord::Blind { from: at(16_000), to: at(16_250) }]);
    records.extend([beat(PID, 17, 17_000), end(43_200_000)]);
    let (_directory, path) = file_of(&[bytes(&records), vec![1; 9]].concat());
    let report = |arrival| {
        let report = replay(&Replay { path: path.clone(), stall_after: None, arrival }).unwrap().to_json();
        report.replace(path.to_str().unwrap(), "FILE")
    };
    let fixed = report(ArrivalPolicy::default());
    let (before, after) = fixed.split_once("per_agent_and_day\":").unwrap();
    let (rate, after) = after.split_once(',').unwrap();
    assert!(rate.parse::<f64>().unwrap().fract() > 0.0, "{rate}");
    let expected = concat!(
        r#"{"file":"FILE","policy":"fixed, 5s for all that ask for nothing else","recorded":{"agents":1,"records":14,"#,
        r#""beats":12,"beats_accepted":12,"beats_lost":5,"losses":0,"unix_start":1700000000,"seconds":43200,"#,
        r#""blind_periods":1,"blind_seconds":0.25,"records_missing":0,"torn_bytes":9},"#,
        r#""detection_seconds":{"mean":5,"median":5,"p99":5,"most":5},"#,
        r#""verdicts":{"stalled":2,"taken_back":1,"mistakes":1,"down":0},"mistakes":{"#,
        r#""per_agent_and_day":RATE,"mean_seconds":1.5,"most_seconds":1.5,"#,
        r#""agents":[{"agent":"unknown[4242]","mistakes":1,"longest_seconds":1.5}]}}"#,
        "\n"
    );
    assert_eq!(format!("{before}per_agent_and_day\":RATE,{after}"), expected);
    assert!(replayed(&[], None, ArrivalPolicy::default()).to_json().contains(concat!(
        r#""detection_seconds":{"mean":null,"median":null,"p99":null,"most":null},"#,
        r#""verdicts":{"stalled":0,"taken_back":0,"mistakes":0,"down":0},"#,
        r#""mistakes":{"per_agent_and_day":null,"mean_seconds":null,"most_seconds":null,"agents":[]}}"#
    )));
}

#[test]
fn the_name_of_a_file_is_closed_where_it_ends() {
    let (_directory, plain) = file_of(&bytes(&[]));
    let path = plain.with_file_name("a\"b\\c\n");
    fs::rename(&plain, &path).unwrap();
    let report = replay(&Replay { path, stall_after: None, arrival: ArrivalPolicy::default() }).unwrap();
    let json = report.to_json();
    assert!(json.contains(r#"/a\"b\\c\n","policy""#), "{json}");
}

#[test]
fn a_report_says_all_of_it_in_a_few_lines() {
    let mut records: Vec<_> = beats(PID, 0..=9).collect();
    records.extend([beat(PID, 16, 15_500), InputRecord::Blind { from: at(16_000), to: at(16_250) }]);
    records.extend([beat(PID, 17, 17_000), end(43_200_000)]);
    let (_directory, path) = file_of(&[bytes(&records), vec![1; 9]].concat());
    let report = replay(&Replay { path: path.clone(), stall_after: None, arrival: ArrivalPolicy::default() });
    let said = report.unwrap().to_string().replace(path.to_str().unwrap(), "FILE");
    // Up from 0 to 14 s and from 15.5 to 22 s; the timer adds a moment.
    let (before, after) = said.split_once("mistakes    ").unwrap();
    let (rate, after) = after.split_once(' ').unwrap();
    assert!((rate.parse::<f64>().unwrap() * 20.5 / 86_400.0 - 1.0).abs() < 0.001, "{rate}");
    let expected = "\
recording   FILE
            1 agent, 12 beats in 12h from 2023-11-14T22:13:20Z on; 14 records
            12 beats accepted, 5 lost on the way; losses were noted 0 times
            blind 1 time, for 250.000ms in all
            the last record was cut off; its 9 bytes are passed over
policy      fixed, 5s for all that ask for nothing else
found out   after a last beat: mean 5.000s, median 5.000s, 99 % 5.000s, most 5.000s
verdicts    2 stalled; of these 1 taken back, of these 1 mistakes; 0 down
mistakes    RATE per agent and day; they last 1.500s on average, 1.500s at the most
                  1  unknown[4242], the longest 1.500s
";
    assert_eq!(format!("{before}mistakes    RATE {after}"), expected);
}

#[test]
fn a_policy_that_makes_no_sense_is_refused_by_its_option() {
    let (_directory, path) = file_of(&bytes(&[]));
    let refused = |stall_after, kind| {
        let arrival = ArrivalPolicy { kind, ..ArrivalPolicy::default() };
        replay(&Replay { path: path.clone(), stall_after, arrival }).unwrap_err().to_string()
    };
    assert!(refused(Some(Duration::ZERO), Kind::Fixed).starts_with("--stall-after: "));
    assert!(
        refused(None, Kind::Phi(Phi { threshold: 0.0, ..Phi::default() })).starts_with("--phi-threshold: ")
    );
    let empty = replayed(&[], None, ArrivalPolicy::default());
    let said = empty.to_string();
    assert!(said.contains("0 agents, 0 beats in 0s from 2023-11-14T22:13:20Z on; 0 records\n"), "{said}");
    assert!(said.contains("mistakes    none\n"), "{said}");
    assert!(empty.to_json().contains("\"mean\":null"));
}

#[test]
fn who_was_forgotten_on_request_is_another_agent_when_it_comes_again_and_who_lives_in_the_replay_is_kept() {
    let sender = Sender::udp("10.0.0.7:4000".parse().unwrap(), PID);
    let beat = |second: u64| match beat(PID, second, second * 1_000) {
        InputRecord::Beat(beat) => InputRecord::Beat(ReceivedBeat { sender, ..beat }),
        other => other,
    };
    let agent = AgentId { name: PID.to_string().into(), origin: sender.origin, pid: PID, twin: Twin::FIRST };
    let mut records: Vec<_> = (1..=9).map(beat).collect();
    records.push(InputRecord::Forget { agent, at: at(20_000) });
    records.extend((21..=30).map(beat));
    let agents = |stall_after| {
        let report = replayed(&records, Some(Duration::from_secs(stall_after)), ArrivalPolicy::default());
        number::<u64>(&report.to_json(), "\"agents\":")
    };
    assert_eq!([5, 60].map(agents), [2, 1]);
}
