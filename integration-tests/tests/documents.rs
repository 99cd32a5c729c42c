//! Numbers, options and metrics in the documents are those of the programs.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use varta_integration_tests::{
    AgentProcess, Options, Scrape, Scratch, Server, run_to_its_end, server_command,
};

/// The documents at the top of the repository that describe the present; the others are in `docs`,
/// `docs/adr` and `docs/runbooks`.
const DOCUMENTS: [&str; 4] = ["README.md", "ARCHITECTURE.md", "SECURITY.md", "CONTRIBUTING.md"];

fn top() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn read(name: &str) -> String {
    fs::read_to_string(top().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// The names of all documents, from the top of the repository.
fn documents() -> Vec<String> {
    let mut found: Vec<_> = DOCUMENTS.iter().map(|name| (*name).to_owned()).collect();
    for directory in ["docs", "docs/adr", "docs/runbooks"] {
        for entry in fs::read_dir(top().join(directory)).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            if name.ends_with(".md") {
                found.push(format!("{directory}/{name}"));
            }
        }
    }
    assert!(found.len() > 25, "{found:#?}");
    found
}

/// A text without its blocks of code, which have names of their own.
fn prose(text: &str) -> String {
    let mut in_block = false;
    let mut prose = String::new();
    for line in text.lines() {
        if line.starts_with("```") {
            in_block = !in_block;
        } else if !in_block {
            prose.push_str(line);
            prose.push('\n');
        }
    }
    prose
}

/// Programs of others, whose options are theirs.
const OTHER_PROGRAMS: [&str; 2] = ["cargo ", "systemctl "];

/// Every word that a text quotes as code, other than a call of another program, and that begins with `start`.
fn words<'a>(prose: &'a str, start: &str) -> BTreeSet<&'a str> {
    let is_part = |character: char| character.is_ascii_alphanumeric() || "_-:".contains(character);
    let is_call = |code: &&str| OTHER_PROGRAMS.iter().any(|program| code.starts_with(program));
    let quoted = prose.split('`').skip(1).step_by(2).filter(|code| !is_call(code));
    let pieces = quoted.flat_map(|code| code.split(move |character| !is_part(character)));
    pieces.filter(|word| word.starts_with(start)).collect()
}

#[test]
fn the_oldest_rust_stands_in_one_place_and_the_readme_agrees() {
    let manifest = read("Cargo.toml");
    let version =
        manifest.lines().find_map(|line| line.strip_prefix("rust-version = ")).unwrap().trim_matches('"');
    assert!(
        read("README.md").contains(&format!("Rust {version} or later")),
        "README.md does not say {version}"
    );
    for member in ["varta-proto", "varta-agent", "varta-server", "examples", "integration-tests", "packaging"]
    {
        let manifest = read(&format!("{member}/Cargo.toml"));
        assert!(manifest.contains("rust-version.workspace = true"), "{member} has a version of its own");
    }
}

#[test]
fn every_option_that_a_document_names_exists() {
    let help = |arguments: &[&str]| {
        let mut command = server_command();
        command.args(arguments);
        run_to_its_end(command).stdout
    };
    let tasks = [
        "replay", "status", "pause", "resume", "pauses", "forget", "ack", "unack", "upgrade", "exec", "beat",
        "schedule", "doctor", "events", "watch", "top",
    ]
    .map(|task| help(&[task, "--help"]));
    let of_groups =
        [["audit", "verify"], ["config", "check"]].map(|[group, task]| help(&[group, task, "--help"]));
    let help = help(&["--help"]) + &tasks.concat() + &of_groups.concat();
    for name in documents() {
        for option in words(&prose(&read(&name)), "--") {
            let is_there = [" ", "\n"].iter().any(|end| help.contains(&format!("{option}{end}")));
            assert!(is_there || option == "--help", "{name} names {option}");
        }
    }
}

#[test]
fn every_metric_that_a_document_names_is_there() {
    let text = scrape_of_everything().text;
    for name in documents() {
        for metric in words(&prose(&read(&name)), "varta_") {
            assert!(text.contains(&format!("\n# TYPE {metric} ")), "{name} names {metric}");
        }
    }
}

/// The rows of all tables of a document that have this header, each a list of cells.
fn table_rows<'a>(text: &'a str, header: &str) -> Vec<Vec<&'a str>> {
    let mut rows = Vec::new();
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        if line == header && lines.next().is_some_and(|line| line.starts_with("|---|")) {
            while let Some(row) = lines.next_if(|line| line.starts_with('|')) {
                rows.push(row.trim_matches('|').split('|').map(str::trim).collect());
            }
        }
    }
    rows
}

/// Every word that a cell quotes as code.
fn quoted(cell: &str) -> impl Iterator<Item = &str> {
    cell.split('`').skip(1).step_by(2)
}

/// A server on which each family has all of its rows, and what it exports with one agent in alarm.
fn scrape_of_everything() -> Scrape {
    let recovery = ["--recovery-exec", "/bin/true"];
    let scratch = Scratch::make();
    let job = "[[job]]\nname = \"nightly\"\nschedule = \"daily\"\n";
    let server = Server::start(Options::new().udp("127.0.0.1:0").args(recovery).config(&scratch, job));
    for event in ["--start", "--ok"] {
        let mut beat = server_command();
        beat.args(["beat", "nightly", event, "--socket"]).arg(server.socket());
        assert!(run_to_its_end(beat).status.success());
    }
    let mut agent = AgentProcess::start(server.socket(), &[]);
    agent.ask("status critical");
    server.await_scrape("it is in alarm, and the job has run", |scrape| {
        scrape.sum("varta_agent_alarm", &[]) == 1.0
            && scrape.sum("varta_job_last_success_timestamp_seconds", &[]) > 0.0
    })
}

/// The family of a sample, by the families that there are.
fn family_of<'a>(sample: &'a str, families: &BTreeMap<&str, (&str, &str)>) -> &'a str {
    let base = ["_bucket", "_sum", "_count"].into_iter().find_map(|suffix| sample.strip_suffix(suffix));
    base.filter(|base| families.contains_key(base)).unwrap_or(sample)
}

/// Labels of the row of information that are there where something is known of the agent.
const IF_KNOWN: [&str; 4] = ["cgroup", "container", "unit", "version"];

#[test]
fn the_reference_of_metrics_has_every_family_with_its_type_unit_labels_and_help_and_no_other() {
    let scrape = scrape_of_everything();
    let comments = |kind: &'static str| {
        let comments = scrape.text.lines().filter_map(move |line| line.strip_prefix(kind));
        comments.map(|comment| comment.split_once(' ').unwrap())
    };
    let help: BTreeMap<_, _> = comments("# HELP ").collect();
    let families: BTreeMap<_, _> =
        comments("# TYPE ").map(|(name, kind)| (name, (kind, help[name]))).collect();
    let mut labels: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for sample in &scrape.samples {
        let is_open = |name: &&str| sample.name == "varta_agent_info" && IF_KNOWN.contains(name);
        let names = sample.labels.keys().map(String::as_str).filter(|name| *name != "le" && !is_open(name));
        labels.entry(family_of(&sample.name, &families)).or_default().extend(names);
    }
    let unit = |name: &str| {
        let name = name.strip_suffix("_total").unwrap_or(name);
        ["seconds", "bytes"].into_iter().find(|unit| name.ends_with(unit)).unwrap_or_default()
    };
    let exported: BTreeSet<_> = families
        .iter()
        .map(|(name, (kind, help))| (*name, *kind, unit(name), labels[name].clone(), *help))
        .collect();

    let text = read("docs/METRICS.md");
    let rows = table_rows(&text, "| family | type | unit | labels | meaning |");
    let documented: BTreeSet<_> = rows
        .iter()
        .map(|row| {
            let [name, kind, unit, labels, help] = row[..] else { panic!("{row:?}") };
            (name.trim_matches('`'), kind, unit, quoted(labels).collect(), help)
        })
        .collect();
    assert_eq!(rows.len(), documented.len(), "a family stands there twice");
    let [missing, wrong] =
        [exported.difference(&documented), documented.difference(&exported)].map(Vec::from_iter);
    assert!(missing.is_empty() && wrong.is_empty(), "missing: {missing:#?}\nnot exported: {wrong:#?}");
}

#[test]
fn the_reference_of_metrics_has_every_value_of_a_label_and_every_cause_and_no_other() {
    /// Labels whose values are not the server's to choose.
    const OPEN: [&str; 8] = ["pid", "agent", "host", "address", "version", "commit", "le", "cause"];
    let scrape = scrape_of_everything();
    let mut exported = BTreeSet::new();
    let mut exported_causes = BTreeSet::new();
    for sample in scrape.samples.iter().filter(|sample| !sample.labels.contains_key("pid")) {
        let labels = sample.labels.iter().filter(|(label, _)| !OPEN.contains(&label.as_str()));
        let of = |label: &str| format!("{}{{{label}}}", sample.name);
        exported.extend(labels.map(|(label, value)| (of(label), value.clone())));
        if let (Some(cause), Some(to)) = (sample.labels.get("cause"), sample.labels.get("to")) {
            exported_causes.insert((cause.as_str(), to.as_str()));
        }
    }

    let text = read("docs/METRICS.md");
    let mut documented = BTreeSet::new();
    for row in table_rows(&text, "| value | of | meaning |") {
        let [value, of, meaning] = row[..] else { panic!("{row:?}") };
        assert!(!meaning.is_empty(), "{row:?}");
        for of in quoted(of) {
            let value = value.trim_matches('`').to_owned();
            assert!(documented.insert((of.to_owned(), value)), "{row:?} stands there twice");
        }
    }
    assert_eq!(documented, exported);

    let causes = table_rows(&text, "| cause | changes to | meaning |");
    let pairs = causes.iter().flat_map(|row| row[1].split(", ").map(|to| (row[0].trim_matches('`'), to)));
    assert_eq!(pairs.collect::<BTreeSet<_>>(), exported_causes);
    let names = causes.iter().map(|row| row[0].trim_matches('`'));
    let all = varta_server::tracker::Cause::NAMES;
    assert_eq!(names.collect::<BTreeSet<_>>(), BTreeSet::from(all));
}

/// Collects the names of all functions below a directory.
fn functions(directory: &Path, found: &mut BTreeSet<String>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() && !path.ends_with("target") {
            functions(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).unwrap();
            let names = text.split("fn ").skip(1).filter_map(|rest| rest.split(['(', '<']).next());
            found.extend(names.map(str::to_owned));
        }
    }
}

#[test]
fn every_test_that_the_security_model_names_exists() {
    let mut there = BTreeSet::new();
    for member in ["varta-proto", "varta-agent", "varta-server", "integration-tests"] {
        functions(&top().join(member), &mut there);
    }
    let text = read("docs/SECURITY-MODEL.md");
    // Names of tests are sentences; nothing else that is quoted there has as many underscores.
    let named: BTreeSet<_> =
        words(&text, "").into_iter().filter(|word| word.matches('_').count() >= 4).collect();
    assert!(named.len() > 30, "{named:#?}");
    for name in named {
        assert!(there.contains(name), "{name} is no test");
    }
}

/// Collects the paths of all files and directories below `directory`, which has the path `path` itself.
fn paths(directory: &Path, path: &str, found: &mut BTreeSet<String>) {
    for entry in fs::read_dir(directory).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        if name.starts_with('.') || name == "target" {
            continue;
        }
        let path = format!("{path}/{name}");
        if entry.file_type().unwrap().is_dir() {
            paths(&entry.path(), &path, found);
        }
        found.insert(path);
    }
}

/// Every word of a text that could be a path, perhaps with the name of a test: `tests/wakeups.rs::a_name`.
/// Absolute paths are those of the host.
fn path_words(text: &str) -> BTreeSet<&str> {
    let is_part = |character: char| character.is_ascii_alphanumeric() || "_-.:/".contains(character);
    let words = text.split(move |character| !is_part(character));
    let words = words.map(|word| word.trim_end_matches(['.', ':', '/']));
    words
        .filter(|word| word.contains('/') || word.ends_with(".rs") || word.contains(".rs::"))
        .filter(|word| !word.starts_with('/'))
        .collect()
}

#[test]
fn every_path_and_every_test_that_the_architecture_and_the_promises_name_exists() {
    let mut there = BTreeSet::new();
    paths(&top(), "", &mut there);
    let mut tests = 0;
    let texts = ["ARCHITECTURE.md", "docs/PROMISES.md"].map(read);
    for word in texts.iter().flat_map(|text| path_words(text)) {
        let (path, test) = word.split_once("::").map_or((word, None), |(path, test)| (path, Some(test)));
        // A path may be named from its end.
        let mut found = there.iter().filter(|there| there.ends_with(&format!("/{path}"))).peekable();
        assert!(found.peek().is_some(), "there is no {path}");
        if let Some(test) = test {
            tests += 1;
            let is_in = |file: &String| {
                let text = read(file.trim_start_matches('/'));
                ["(", "<"].iter().any(|end| text.contains(&format!("fn {test}{end}")))
            };
            assert!(found.any(is_in), "there is no {test} in {path}");
        }
    }
    assert!(tests > 80, "{tests}");
}

#[test]
fn the_table_of_contents_has_every_document() {
    let text = read("docs/README.md");
    for name in documents() {
        let link = name.strip_prefix("docs/").map_or_else(|| format!("../{name}"), str::to_owned);
        let is_listed = text.contains(&format!("]({link}"))
            || link == "README.md"
            || link.starts_with("adr/")
            || link.starts_with("runbooks/");
        assert!(is_listed, "{name} is not in docs/README.md");
    }
}

#[test]
fn the_architecture_has_every_folder_of_the_server() {
    let text = read("ARCHITECTURE.md");
    for parent in ["", "services/"] {
        let directory = top().join("varta-server/src").join(parent);
        let entries = fs::read_dir(directory).unwrap().map(Result::unwrap);
        for folder in entries.filter(|entry| entry.file_type().unwrap().is_dir()) {
            let name = format!("`{parent}{}/`", folder.file_name().into_string().unwrap());
            assert!(text.contains(&name), "{name} is missing");
        }
    }
}

/// Whether the lines of `block`, with their indentation, stand in `text`.
fn has_lines(text: &str, block: &str) -> bool {
    format!("\n{text}").contains(&format!("\n{block}\n"))
}

#[test]
fn every_block_of_code_in_the_contributing_guide_stands_in_the_file_that_it_names() {
    let text = read("CONTRIBUTING.md");
    let mut parts = text.split("\n```rust\n");
    let mut before = parts.next().unwrap();
    let mut compared = 0;
    for part in parts {
        let (block, behind) = part.split_once("\n```\n").unwrap();
        // The paragraph before the block names the file.
        let paragraph = before.trim_end().rsplit("\n\n").next().unwrap();
        let file = path_words(paragraph).into_iter().find(|word| word.ends_with(".rs"));
        let file = file.unwrap_or_else(|| panic!("no file is named before:\n{block}"));
        assert!(has_lines(&read(file), block), "{file} does not have:\n{block}");
        compared += 1;
        before = behind;
    }
    assert!(compared >= 7, "{compared}");
}

#[test]
fn every_line_of_the_registration_in_the_contributing_guide_stands_there() {
    let text = read("CONTRIBUTING.md");
    let registration = read("varta-server/src/services/mod.rs");
    let (_, behind) = text.split_once("\n| where | line |\n|---|---|\n").unwrap();
    let rows: Vec<_> = behind.lines().take_while(|line| line.starts_with('|')).collect();
    assert!(rows.len() >= 9, "{rows:#?}");
    for row in rows {
        let line = row.rsplit('`').nth(1).unwrap();
        assert!(
            registration.lines().any(|there| there.trim() == line),
            "services/mod.rs does not have: {line}"
        );
    }
}
