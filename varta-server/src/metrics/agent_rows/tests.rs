//! Which agents have which rows, and what is in them.

use std::sync::Arc;
use std::time::Duration;

use varta_proto::Status;

use super::*;
use crate::base::time::MonoTime;
use crate::domain::beat::Origin;
use crate::domain::process::ProcessPlace;
use crate::domain::tracker::LastReport;

fn view(name: &Arc<str>, verdict: Verdict) -> AgentView<'_> {
    AgentView {
        name,
        origin: Origin::Local,
        pid: 4242,
        twin: Twin::FIRST,
        verdict,
        last: LastReport { status: Status::Degraded, payload: 7, terminal: false, beats: 12 },
        last_beat: MonoTime::from_millis(1_500),
        silent_before: Duration::ZERO,
        lost: 3,
        stalls: 2,
        false_positives: 1,
        stall_after: Duration::from_millis(2_500),
        unit: None,
        labels: None,
        place: None,
    }
}

fn text_of<'a>(mode: AgentMetrics, agents: impl IntoIterator<Item = AgentView<'a>>) -> String {
    let mut rows = AgentRows::new(mode, "db-\"1\"", 1_000_000.25);
    agents.into_iter().for_each(|agent| rows.add(&agent));
    rows.into_pieces().map(|piece| String::from_utf8(piece.to_vec()).unwrap()).collect()
}

fn text(mode: AgentMetrics, agents: usize, verdict: Verdict) -> String {
    let name: Arc<str> = Arc::from("wor\\ker\n");
    text_of(AutoRows::default().choose(mode, agents), [view(&name, verdict)])
}

#[test]
fn an_agent_has_a_row_in_each_family() {
    let text = text(AgentMetrics::All, 1, Verdict::Up(Status::Degraded));
    let labels = r#"{pid="4242",agent="wor\\ker\n",host="db-\"1\"",transport="unix"}"#;
    for row in [
        "varta_beats_total 12",
        "varta_stalls_total 2",
        "varta_agent_mistakes_total 1",
        "varta_status 1",
        "varta_agent_up 1",
        "varta_agent_last_beat_timestamp_seconds 1000001.750",
        "varta_agent_stall_after_seconds 2.500",
        "varta_agent_payload 7",
        "varta_agent_beats_lost_total 3",
    ] {
        let (name, value) = row.split_once(' ').unwrap();
        assert!(text.contains(&format!("\n{name}{labels} {value}\n")), "{row} in\n{text}");
        assert!(
            text.contains(&format!("# HELP {name} ")) && text.contains(&format!("# TYPE {name} ")),
            "{name}"
        );
    }
}

#[test]
fn a_stalled_agent_is_not_up_and_its_status_is_3() {
    let text = text(AgentMetrics::All, 1, Verdict::Stalled);
    assert!(text.lines().any(|line| line.starts_with("varta_status{") && line.ends_with(" 3")));
    assert!(text.lines().any(|line| line.starts_with("varta_agent_up{") && line.ends_with(" 0")));
}

#[test]
fn an_agent_in_alarm_has_a_row_that_says_what_is_wrong_and_no_other_has() {
    let alarm = |verdict| -> Vec<String> {
        let text = text(AgentMetrics::All, 1, verdict);
        text.lines().filter_map(|line| line.strip_prefix("varta_agent_alarm{")).map(str::to_owned).collect()
    };
    let row = |problem: &str| {
        format!(r#"pid="4242",agent="wor\\ker\n",host="db-\"1\"",transport="unix",problem="{problem}"}} 1"#)
    };
    assert_eq!(alarm(Verdict::Stalled), [row("stalled")]);
    assert_eq!(alarm(Verdict::Down), [row("down")]);
    assert_eq!(alarm(Verdict::Up(Status::Critical)), [row("critical")]);
    // The one that is expected was known before a restart of the server.
    for verdict in [Verdict::Up(Status::Degraded), Verdict::Unknown, Verdict::Gone, Verdict::Expected] {
        assert!(alarm(verdict).is_empty(), "{verdict}");
    }
    let mut rows = AgentRows::new(AgentMetrics::Off, "host", 0.0);
    rows.add_missing(std::iter::once(&Arc::from("billing")));
    let text: String = rows.into_pieces().map(|piece| String::from_utf8(piece.to_vec()).unwrap()).collect();
    let labels = r#"pid="",agent="billing",host="host",transport="""#;
    assert!(text.contains(&format!("varta_agent_up{{{labels}}} 0\n")), "{text}");
    assert!(text.contains(&format!("varta_agent_alarm{{{labels},problem=\"missing\"}} 1\n")), "{text}");
}

#[test]
fn with_very_many_agents_only_those_that_are_not_well_have_rows() {
    assert!(text(AgentMetrics::Auto, AUTO_LIMIT, Verdict::Up(Status::Ok)).contains("4242"));
    assert!(text(AgentMetrics::Auto, AUTO_LIMIT + 1, Verdict::Stalled).contains("4242"));
    assert_eq!(text(AgentMetrics::Off, 1, Verdict::Stalled), "");
}

#[test]
fn what_is_known_of_an_agent_are_labels_of_one_row_and_what_is_not_is_left_out() {
    let name: Arc<str> = Arc::from("worker");
    let row = |agent: AgentView<'_>| {
        let text = text_of(AgentMetrics::All, [agent]);
        let row = text.lines().find_map(|line| line.strip_prefix("varta_agent_info{")).unwrap();
        row.strip_prefix(r#"pid="4242",agent="worker",host="db-\"1\"",transport="unix""#).unwrap().to_owned()
    };
    let agent = view(&name, Verdict::Up(Status::Ok));
    assert_eq!(row(agent), "} 1");
    let labels: Labels =
        [("version", "1.2"), ("team", "pay\"ments"), ("unit", "mine"), ("zone", "")].into_iter().collect();
    let place = ProcessPlace { cgroup: "/a\\b\n".into(), container: Some("4f0c3b1d2e5a".into()) };
    let known =
        AgentView { unit: Some(&"a.service".into()), labels: Some(&labels), place: Some(&place), ..agent };
    let expected = r#",unit="a.service",cgroup="/a\\b\n",container="4f0c3b1d2e5a",version="1.2",label_team="pay\"ments",label_unit="mine"} 1"#;
    assert_eq!(row(known), expected);
    assert_eq!(
        row(AgentView { twin: Twin::from_number(2).unwrap(), ..known }),
        format!(r#",twin="2"{expected}"#)
    );
}

#[test]
fn an_agent_that_is_well_has_its_row_of_stalls_at_0_so_that_its_first_stall_is_seen() {
    let name: Arc<str> = Arc::from("worker");
    let well = AgentView { stalls: 0, false_positives: 0, ..view(&name, Verdict::Up(Status::Ok)) };
    let samples = |mode, agent| -> Vec<(String, String)> {
        let text = text_of(mode, [agent]);
        let samples = text.lines().filter(|line| !line.starts_with('#'));
        samples
            .map(|line| (line[..line.find('{').unwrap()].into(), line.rsplit(' ').next().unwrap().into()))
            .collect()
    };
    let row = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    for mode in [AgentMetrics::Unhealthy, AgentMetrics::Auto] {
        assert_eq!(samples(mode, well), [row("varta_stalls_total", "0")]);
        let stalled = samples(mode, AgentView { stalls: 1, verdict: Verdict::Stalled, ..well });
        assert_eq!(stalled.len(), PER_AGENT.len() + 2);
        assert!(stalled.contains(&row("varta_stalls_total", "1")));
        assert!(stalled.contains(&row("varta_agent_mistakes_total", "0")));
        let well_again = samples(mode, AgentView { stalls: 1, false_positives: 1, ..well });
        assert_eq!(well_again, [row("varta_stalls_total", "1"), row("varta_agent_mistakes_total", "1")]);
    }
    assert!(samples(AgentMetrics::Off, well).is_empty());
    assert!(samples(AgentMetrics::Unhealthy, AgentView { verdict: Verdict::Gone, ..well }).is_empty());
}

#[test]
fn rows_of_stalls_of_agents_that_are_well_are_limited_and_those_that_stalled_have_room_of_their_own() {
    let name: Arc<str> = Arc::from("worker");
    let well = AgentView { stalls: 0, ..view(&name, Verdict::Up(Status::Ok)) };
    let crowd = std::iter::repeat_n(well, AUTO_LIMIT + 5);
    let stalled = [AgentView { pid: 77, stalls: 3, ..well }];
    let mut rows = AgentRows::new(AgentMetrics::Unhealthy, "host", 0.0);
    crowd.clone().chain(stalled).for_each(|agent| rows.add(&agent));
    assert_eq!(rows.omitted(), AUTO_LIMIT + 6);
    let text = text_of(AgentMetrics::Unhealthy, crowd.chain(stalled));
    let mut rows = text.lines().filter(|line| line.starts_with("varta_stalls_total{"));
    assert_eq!(rows.clone().count(), AUTO_LIMIT + 1);
    assert!(rows.next_back().is_some_and(|row| row.contains("pid=\"77\"") && row.ends_with(" 3")), "{text}");
}

#[test]
fn the_places_of_families_are_theirs() {
    let names = [STALLS_ROW, MISTAKES_ROW, AGENT_UP_ROW].map(|row| PER_AGENT[row].0.name);
    assert_eq!(names, [STALLS.name, AGENT_MISTAKES.name, AGENT_UP.name]);
}

#[test]
fn a_number_of_agents_that_varies_about_the_limit_does_not_make_rows_come_and_go() {
    let mut auto = AutoRows::default();
    let mut has_all = |agents| auto.choose(AgentMetrics::Auto, agents) == AgentMetrics::All;
    assert!(has_all(AUTO_AGAIN) && has_all(AUTO_LIMIT));
    assert!(!has_all(AUTO_LIMIT + 1) && !has_all(AUTO_LIMIT) && !has_all(AUTO_AGAIN));
    assert!(has_all(AUTO_AGAIN - 1) && has_all(AUTO_LIMIT));
}

#[test]
fn a_name_has_its_row_at_0_before_a_restart_and_a_restart_is_told_however_many_names_there_are() {
    let names: Vec<Arc<str>> = (0..=AUTO_LIMIT).map(|number| format!("worker-{number}").into()).collect();
    let last = names.len() - 1;
    let rows = |restarts_of_last| {
        let mut rows = AgentRows::new(AgentMetrics::All, "host", 0.0);
        let restarts = |(number, name)| (name, if number == last { restarts_of_last } else { 0 });
        rows.add_restarts(names.iter().enumerate().map(restarts));
        rows.into_pieces().map(|piece| String::from_utf8(piece.to_vec()).unwrap()).collect::<String>()
    };
    let row = |number: usize, restarts: u64| {
        format!("varta_agent_restarts_total{{agent=\"worker-{number}\"}} {restarts}\n")
    };
    assert!(rows(0).contains(&row(0, 0)) && !rows(0).contains(&row(last, 0)));
    assert!(rows(1).contains(&row(0, 0)) && rows(1).contains(&row(last, 1)));
}
