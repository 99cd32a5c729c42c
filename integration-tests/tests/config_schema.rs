//! `varta-server config schema`: what editors and validators make of it.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::path::{Path, PathBuf};

use varta_integration_tests::foreign::command;
use varta_integration_tests::{Ended, Scratch, run_server, run_to_its_end};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

fn in_the_tree() -> PathBuf {
    root().join("varta-server/varta.schema.json")
}

#[test]
fn the_schema_in_the_tree_is_the_one_that_is_printed() {
    let ended = run_server(["config", "schema"]);
    assert_eq!((ended.status.code(), ended.stderr.as_str()), (Some(0), ""));
    assert_eq!(ended.stdout, std::fs::read_to_string(in_the_tree()).unwrap());
}

/// The example with all options and tables, also those behind a `#`.
fn whole_example() -> String {
    let example = std::fs::read_to_string(root().join("varta-server/varta.example.toml")).unwrap();
    let bare = |line: &str| {
        let bare = line.strip_prefix('#');
        let bare = bare.filter(|bare| bare.starts_with(|c: char| c.is_alphabetic() || c == '['));
        bare.unwrap_or(line).to_owned()
    };
    example.lines().map(|line| bare(line) + "\n").collect()
}

/// Files that the server takes.
fn good(scratch: &Scratch) -> Vec<PathBuf> {
    let durations = ["0", "0s", "500ms", "1h 30m", "1h30m", " 2 days ", "3us", "7months"]
        .iter()
        .enumerate()
        .map(|(index, duration)| {
            format!("[[recovery]]\nexec = \"a\"\nname = \"a{index}\"\nbackoff = \"{duration}\"\n")
        });
    let more = "udp = \"127.0.0.1:1\"\nallow-uid = [0, \"root\"]\nallow-gid = 7\nudp-receive-buffer = \"64mib\"\naudit-log = \"a\"\n\
                audit-limit = 4096\nsocket-queue = 65536\nrecovery-attempts = 1\nsocket-mode = \"0660\"\ndetector = \"phi\"\nphi-threshold = 100.0\n\
                [[rule]]\nname = \"a\"\nforget-after = \"1h\"\nsuccess-exit = []\n[[recovery]]\nsteps = [{ notify = true }]\n\
                state = \"critical\"\ncause = [\"killed\"]\ntransport = []\n[[recovery]]\nexec = \"a\"\nlabel = \"a=b\"\n\
                [[pause]]\nname = \"*\"\nfrom = \"2026-12-24T22:00:00Z\"\nuntil = 2026-12-25T22:00:00Z\n[[expected]]\nname = \"a\"\n";
    let durations: String = durations.collect();
    vec![
        root().join("varta-server/varta.example.toml"),
        root().join("deploy/debian/varta.toml"),
        scratch.write("whole.toml", &whole_example()),
        scratch.write("more.toml", more),
        scratch.write("durations.toml", &durations),
        scratch.write("empty.toml", ""),
    ]
}

/// Texts that the server refuses.
const BAD: [&str; 24] = [
    "stal-after = \"5s\"",
    "stall-after = \"5\"",
    "stall-after = 5",
    "max-agents = -1",
    "max-beat-rate = 4294967296",
    "max-agents = \"7\"",
    "detector = \"guess\"",
    "allow-plaintext-remote = \"yes\"",
    "udp = []",
    "audit-limit = \"64MB\"",
    "config = \"x\"",
    "socket-queue = 65537",
    "recovery-attempts = 0",
    "udp-receive-buffer = 0",
    "audit-log = \"a\"\naudit-limit = 4095",
    "detector = \"phi\"\nphi-threshold = 0.99",
    "webhook = \"http://a\"\nwebhook-key-file = \"a\"\nflap-limit = 1001",
    "[rule]\nname = \"a\"",
    "[[rule]]\nstall-after = \"5s\"",
    "[[rule]]\nname = \"a\"\nforget-after = { up = \"1s\" }",
    "[[recovery]]\nname = \"a\"",
    "[[recovery]]\nsteps = [{ signal = \"TERM\", notify = true }]",
    "[[recovery]]\nexec = \"a\"\nstate = \"fine\"",
    "[[pause]]\nname = \"a\"\nuntill = 2026-12-25T22:00:00Z",
];

/// Has a program compare files with the schema: it is to take all good ones and none of the bad ones.
fn compare(scratch: &Scratch, validate: impl Fn(&Path) -> Option<Ended>) {
    for path in good(scratch) {
        let Some(ended) = validate(&path) else { return };
        assert!(ended.status.success(), "{}: {ended:?}", path.display());
        let by_server = run_server([Path::new("config"), Path::new("check"), &path]);
        let is_example = path.ends_with("whole.toml");
        assert!(by_server.status.success() || is_example, "{}: {by_server:?}", path.display());
    }
    for text in BAD {
        let path = scratch.write("bad.toml", &format!("{text}\n"));
        let Some(ended) = validate(&path) else { return };
        assert!(!ended.status.success(), "{text}: {ended:?}");
        assert_eq!(
            run_server([Path::new("config"), Path::new("check"), &path]).status.code(),
            Some(2),
            "{text}"
        );
    }
}

#[test]
fn a_validator_takes_the_schema_and_what_the_server_takes_and_refuses_what_it_refuses() {
    let scratch = Scratch::make();
    let script = "import json, sys, tomllib, jsonschema\n\
                  schema = json.load(open(sys.argv[1]))\n\
                  jsonschema.Draft7Validator.check_schema(schema)\n\
                  jsonschema.Draft4Validator.check_schema(schema)\n\
                  file = tomllib.load(open(sys.argv[2], 'rb'))\n\
                  file = json.loads(json.dumps(file, default=str))\n\
                  jsonschema.Draft7Validator(schema).validate(file)\n";
    compare(&scratch, |path| {
        let mut python = command("venv/bin/python")?;
        python.args(["-c", script]).arg(in_the_tree()).arg(path);
        Some(run_to_its_end(python))
    });
}

#[test]
fn the_engine_of_editors_finds_the_schema_by_the_line_of_the_file_and_agrees_with_the_server() {
    let scratch = Scratch::make();
    std::fs::copy(in_the_tree(), scratch.path("varta.schema.json")).unwrap();
    compare(&scratch, |path| {
        let mut taplo = command("venv/bin/taplo")?;
        let text = std::fs::read_to_string(path).unwrap();
        let with_line = scratch.write("line.toml", &format!("#:schema ./varta.schema.json\n{text}"));
        taplo.arg("check").arg(with_line).current_dir(scratch.directory());
        Some(run_to_its_end(taplo))
    });
}
