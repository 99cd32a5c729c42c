//! Refusals of a configuration file.

use std::fs;
use std::os::unix::fs::symlink;

use super::sandbox::Sandbox;

#[test]
fn files_that_cannot_be_read() {
    let mut sandbox = Sandbox::new();
    fs::create_dir(sandbox.path("directory")).unwrap();
    nix::unistd::mkfifo(&sandbox.path("pipe"), nix::sys::stat::Mode::from_bits_truncate(0o600)).unwrap();
    sandbox.write("long", "#".repeat((1 << 20) + 1));
    sandbox.write("binary", b"# one\n# two\n\xff");
    symlink("nowhere", sandbox.path("dangling")).unwrap();
    for name in
        ["no-such-file", "directory", "pipe", "long", "binary", "dangling", "no-such-directory/file", ""]
    {
        sandbox.run(&["--config", name]);
    }
    sandbox.assert_unchanged("configuration_file");
}

#[test]
fn options() {
    let mut sandbox = Sandbox::new();
    for text in [
        "udp = [",
        "stall-after",
        "stall-after = \"1s\"\nstall-after = \"2s\"",
        "a.b = 1",
        "config = \"other.toml\"",
        "udp = 1\nmax-agents = \"a\"\n\nstal-after = \"1s\"\n[[rule]]\nname = 1\ncolour = 1\n[[pause]]\nuntil = 1",
        "# first\n\nstal-after = \"2s\"",
        "tcp = 1",
        "rules = 1",
        "replay = \"FILE\"",
        "help = true",
        "\"a\\nb\" = 1",
        "stall-after = 2",
        "stall-after = [\"1s\"]",
        "stall-after = \"soon\"",
        "stall-after = 1979-05-27",
        "state-dir = { path = \"/\" }",
        "\nudp = [\"127.0.0.1:0\",\n  \"here\"]",
        "udp = []",
        "udp = [1]",
        "max-agents = \"7\"",
        "max-agents = 1.5",
        "max-agents = 99999999999999999999999999999999999999999999",
        "max-agents = 99999999999999999999",
        "max-agents = -1",
        "max-beat-rate = 4294967296",
        "allow-uid = [0, true]",
        "phi-threshold = \"8\"",
        "detector = \"guess\"",
        "detector = true",
        "log-format = \"xml\"",
        "socket-mode = 600",
        "socket-mode = \"rw\"",
        "allow-plaintext-remote = \"yes\"",
        "allow-plaintext-remote = 1",
        "metrics-addr = \"localhost\"",
        "record-limit = \"64MB\"",
        "audit-limit = true",
        "recovery-exec = \"{name}\"",
        "recovery-budget = \"5\"",
        "recovery-env = [\"A\"]",
        "# out of range or in conflict\nstall-after = \"1ms\"",
        "max-agents = 0",
        "log-level = \"loud\"",
        "socket = \"none\"",
        "socket-group = \"no-such-group\"",
        "control-socket = \"varta.sock\"",
        "udp = \"0.0.0.0:0\"",
        "udp = [\"127.0.0.1:7\", \"127.0.0.1:7\"]",
        "secure-udp = \"127.0.0.1:0\"",
        "key-file = \"key\"",
        "metrics-addr = \"0.0.0.0:0\"",
        "metrics-token-file = \"no-such-token\"",
        "detector = \"chen\"",
        "phi-threshold = 8",
        "record-limit = 4096",
        "events-keep = 1",
        "audit-keep = 1",
        "audit-log = \"..\"",
        "recovery-attempts = 0",
        "recovery-without-audit = true",
        "webhook = \"secret\"",
        "flap-limit = 3",
    ] {
        sandbox.run_with_file(text);
    }
    sandbox.assert_unchanged("configuration_options");
}

#[test]
fn tables() {
    let mut sandbox = Sandbox::new();
    for text in [
        "rule = 1",
        "[rule]\nname = \"a\"",
        "rule = [1]",
        "[[rule]]",
        "[[rule]]\nstall-after = \"1s\"",
        "[[rule]]\nname = 1",
        "[[rule]]\nname = \"\"",
        "[[rule]]\nname = \"a\\nb\"",
        "[[rule]]\nname = \"a\"\nstall = \"1s\"",
        "[[rule]]\nname = \"a\"\nstall-aftr = \"1s\"",
        "[[rule]]\nname = \"a\"\nstall-after = 1",
        "[[rule]]\nname = \"a\"\nstall-after = \"soon\"",
        "[[rule]]\nname = \"a\"\nstall-after = \"1ms\"",
        "[[rule]]\nname = \"a\"\nstall-after = \"367days\"",
        "[[rule]]\nname = \"a\"\n[[rule]]\nname = \"a\"",
        "[[rule]]\nname = \"a\"\nstall-after = \"2days\"",
        "[[expected]]",
        "[[expected]]\nname = \"two words\"",
        "[[expected]]\nname = \"\"",
        "[[expected]]\nname = \"a\"\nlabel = \"b\"",
        "[[expected]]\nname = \"a\"\ngrace = \"1ms\"",
        "[[expected]]\nname = \"a\"\n[[expected]]\nname = \"a\"",
        "max-agents = 1\n[[expected]]\nname = \"a\"\n[[expected]]\nname = \"b\"",
        "[[pause]]",
        "[[pause]]\nname = \"a\\tb\"",
        "[[pause]]\nname = \"a\"\nfor = \"1h\"",
        "[[pause]]\nname = \"a\"\nfrom = \"tomorrow\"",
        "[[pause]]\nname = \"a\"\nfrom = 2026-12-24",
        "[[pause]]\nname = \"a\"\nuntil = 1",
        "[[pause]]\nname = \"a\"\nuntil = \"2026-12-24T22:00:00\"",
        "[[pause]]\nname = \"a\"\nfrom = 2026-12-24T22:00:00Z\nuntil = 2026-12-24T22:00:00+01:00",
        "[[pause]]\nname = \"a\"\nreason = \"\"",
        "[[pause]]\nname = \"a\"\nreason = 1",
        "[[pause]]\nname = \"a\"\n[[pause]]\nname = \"a\"",
    ] {
        sandbox.run_with_file(text);
    }
    let many = |most: usize, kind: &str| {
        (0..=most).map(|number| format!("[[{kind}]]\nname = \"a{number}\"\n")).collect::<String>()
    };
    for (kind, most) in [("rule", 1_024), ("expected", 10_000), ("pause", 1_024)] {
        sandbox.comment(&format!("{} tables [[{kind}]]", most + 1));
        sandbox.write("varta.toml", many(most, kind));
        sandbox.run(&["--config", "varta.toml"]);
    }
    sandbox.assert_unchanged("configuration_tables");
}

#[test]
fn recovery_tables() {
    let mut sandbox = Sandbox::new();
    sandbox.run_with_file("[recovery]\nexec = \"true\"");
    for text in [
        "",
        "exec = 1",
        "exec = \"\"",
        "exec = \"{name}\"",
        "exec = \"true {host}\"",
        "exec = \"true\"\nsteps = [{ notify = true }]",
        "run = \"true\"",
        "name = \"\"\nexec = \"true\"",
        "label = \"tier\"\nexec = \"true\"",
        "label = [1]\nexec = \"true\"",
        "state = \"up\"\nexec = \"true\"",
        "cause = \"bored\"\nexec = \"true\"",
        "transport = \"tcp\"\nexec = \"true\"",
        "exec = \"true\"\ndebounce = \"soon\"",
        "exec = \"true\"\ndebounce = \"367days\"",
        "exec = \"true\"\nbackoff = 1",
        "exec = \"true\"\nattempts = 0",
        "exec = \"true\"\nattempts = \"1\"",
        "exec = \"true\"\nattempts = 4294967296",
        "exec = \"true\"\nkeep-up = -1",
        "exec = \"true\"\nbudget = \"5\"",
        "exec = \"true\"\nbudget = 5",
        "steps = 1",
        "steps = []",
        "steps = [1]",
        "steps = [{}]",
        "steps = [{ notify = false }]",
        "steps = [{ notify = true, signal = \"TERM\" }]",
        "steps = [{ signal = \"NONE\" }]",
        "steps = [{ signal = 15 }]",
        "steps = [{ kill = true }]",
        "steps = [{ wait = \"soon\", notify = true }]",
        "steps = [{ signal = \"TERM\", timeout = \"1s\" }]",
        "steps = [{ exec = \"true\", timeout = \"25h\" }]",
        "steps = [{ exec = \"true\", timeout = \"1ms\" }]",
    ] {
        sandbox.run_with_file(&format!("[[recovery]]\n{text}"));
    }
    sandbox.comment("17 steps");
    sandbox.write("varta.toml", format!("[[recovery]]\nsteps = [{}]", "{ notify = true }, ".repeat(17)));
    sandbox.run(&["--config", "varta.toml"]);
    sandbox.comment("257 tables [[recovery]]");
    sandbox.write("varta.toml", "[[recovery]]\nexec = \"true\"\n".repeat(257));
    sandbox.run(&["--config", "varta.toml"]);
    sandbox.assert_unchanged("configuration_recovery");
}
