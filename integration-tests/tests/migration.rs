//! `docs/MIGRATION.md` names every option of the observer from which people come, and none that it does not have; and
//! the metrics that have the same names in both.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::Duration;

use varta_integration_tests::{Watch, foreign};

fn document(name: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs").join(name)).unwrap()
}

/// The options that a help text explains: those that begin its lines, but for the lines that go on.
fn options(help: &str) -> BTreeSet<String> {
    let explained = help.lines().filter_map(|line| line.strip_prefix("    --"));
    explained.filter_map(|line| line.split_whitespace().next()).map(|name| format!("--{name}")).collect()
}

#[test]
fn every_option_of_varta_watch_is_in_the_table_and_no_other() {
    let Some(mut watch) = foreign::command("bin/varta-watch") else { return };
    let output = watch.arg("--help").output().unwrap();
    let help = String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap();
    let table = document("MIGRATION.md");
    let cells = table.lines().filter_map(|line| line.strip_prefix("| --"));
    let named: BTreeSet<_> = cells
        .flat_map(|row| {
            format!("--{}", row.split(" | ").next().unwrap())
                .split(", ")
                .map(str::to_owned)
                .collect::<Vec<_>>()
        })
        .collect();
    let mut offered = options(&help);
    offered.remove("--help");
    offered.remove("--version");
    assert_eq!(named, offered);
}

#[test]
fn the_metrics_that_keep_their_names_are_those_that_both_have() {
    let Some(watch) = Watch::on_unix_socket(Duration::from_secs(1)) else { return };
    let theirs = watch.await_scrape("it serves", |_| true).text;
    let theirs = theirs.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next());
    let reference = document("METRICS.md");
    let both: BTreeSet<_> = theirs.filter(|name| reference.contains(&format!("| `{name}` |"))).collect();
    let page = document("MIGRATION.md");
    let (_, kept) = page.split_once("These keep name and meaning:").unwrap();
    let (kept, _) = kept.split_once("\n\n").unwrap();
    let kept: BTreeSet<_> = kept.split('`').skip(1).step_by(2).collect();
    assert_eq!(kept, both);
}
