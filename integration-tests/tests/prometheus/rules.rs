//! The files of rules by themselves: what promtool says of them, and what they, the runbooks and the reference of
//! metrics say of each other.

use std::collections::BTreeSet;
use std::fs::{self, File};

use varta_integration_tests::{Options, Scratch, Server, foreign, run_to_its_end};

use crate::{RULES, directory, read};

/// The alerts of all files.
fn alerts() -> BTreeSet<String> {
    let names = RULES.map(|name| {
        let text = read(name);
        text.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).map(str::to_owned).collect()
    });
    names.into_iter().flat_map(|names: Vec<String>| names).collect()
}

/// Words of a text that begin like this.
fn words<'a>(text: &'a str, start: &str) -> BTreeSet<&'a str> {
    let words = text.split(|character: char| !character.is_ascii_alphanumeric() && !"_:".contains(character));
    words.filter(|word| word.starts_with(start)).collect()
}

#[test]
fn promtool_finds_no_fault_and_each_alert_fires_for_its_cause_and_not_beside_it() {
    for arguments in [&["check", "rules", "--lint=all", "--lint-fatal"][..], &["test", "rules"]] {
        let Some(mut promtool) = foreign::installed("promtool") else { return };
        let is_check = arguments[0] == "check";
        let names: &[&str] =
            if is_check { &RULES } else { &["tests/agents.test.yml", "tests/server.test.yml"] };
        promtool.current_dir(directory()).args(arguments).args(names);
        let ended = run_to_its_end(promtool);
        assert!(ended.status.success(), "{}{}", ended.stdout, ended.stderr);
    }
}

#[test]
fn promtool_finds_no_fault_in_the_metrics() {
    let Some(mut promtool) = foreign::installed("promtool") else { return };
    let server = Server::start(Options::new().udp("127.0.0.1:0"));
    let _worker = server.start_agent(&["--name", "billing"]);
    let scratch = Scratch::make();
    let metrics = scratch.write("metrics", &server.scrape().text);
    promtool.args(["check", "metrics"]).stdin(File::open(metrics).unwrap());
    let ended = run_to_its_end(promtool);
    assert!(ended.status.success() && ended.stdout.is_empty() && ended.stderr.is_empty(), "{ended:?}");
}

#[test]
fn each_alert_has_a_test_that_sees_it_fire_and_end_and_no_test_is_of_another() {
    let tests = ["tests/agents.test.yml", "tests/server.test.yml"].map(read).concat();
    let tested: BTreeSet<_> = tests
        .split("alertname=\"")
        .skip(1)
        .filter_map(|rest| rest.split('"').next())
        .map(str::to_owned)
        .collect();
    assert_eq!(tested, alerts());
    for alert in alerts() {
        let query = format!("(ALERTS{{alertname=\"{alert}\", alertstate=\"firing\"}})\n");
        let expected: Vec<_> =
            tests.split(&query).skip(1).map(|rest| rest.lines().nth(1).unwrap().trim()).collect();
        let has = |line: &str| expected.contains(&line);
        assert!(has("exp_samples:") && (has("exp_samples: []") || alert == "VartaDeadMansSwitch"), "{alert}");
    }
}

#[test]
fn each_alert_has_a_runbook_and_each_runbook_an_alert() {
    let directory = directory().join("../../docs/runbooks");
    let names =
        fs::read_dir(&directory).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let runbooks: BTreeSet<_> = names.filter_map(|name| Some(name.strip_suffix(".md")?.to_owned())).collect();
    let mut expected = alerts();
    expected.insert("README".to_owned());
    assert_eq!(runbooks, expected);
    let contents = fs::read_to_string(directory.join("README.md")).unwrap();
    let rules = RULES.map(read).concat();
    for alert in alerts() {
        assert!(contents.contains(&format!("| [{alert}]({alert}.md) |")), "{alert}");
        let rule = rules.split(&format!("- alert: {alert}\n")).nth(1).unwrap();
        let rule = rule.split("- alert: ").next().unwrap();
        assert!(rule.contains(&format!("runbook: docs/runbooks/{alert}.md\n")), "{alert}");
        for part in ["severity: ", "summary: ", "description: "] {
            assert!(rule.contains(part), "{alert} has no {part}");
        }
    }
}

#[test]
fn every_metric_and_every_value_of_a_label_in_a_rule_is_in_the_reference_of_metrics() {
    let reference = fs::read_to_string(directory().join("../../docs/METRICS.md")).unwrap();
    let rules = RULES.map(read).concat();
    for metric in words(&rules, "varta_") {
        let family = metric.strip_suffix("_bucket").unwrap_or(metric);
        assert!(reference.contains(&format!("| `{family}` |")), "{metric}");
    }
    for label in ["reason", "result", "outcome", "sink", "part", "to", "problem"] {
        for matched in rules.split(&format!("{{{label}")).skip(1) {
            let values = matched.split('"').nth(1).unwrap();
            for value in values.split('|') {
                assert!(reference.contains(&format!("`{value}`")), "{label}={value}");
            }
        }
    }
}
