//! `varta-server config check`.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::ffi::OsStr;
use std::fs::{self, Permissions};
use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process;

use varta_integration_tests::{
    Datagrams, Ended, Options, Scratch, Server, agent, run_server, run_to_its_end, server_command,
    write_secret,
};
use varta_proto::{Frame, Status};

fn check(words: &[&str], path: &Path) -> Ended {
    let words = ["config", "check"].iter().chain(words).map(OsStr::new);
    run_server(words.chain([path.as_os_str()]))
}

/// What is printed when a file is refused.
#[track_caller]
fn faults(words: &[&str], path: &Path) -> Vec<String> {
    let ended = check(words, path);
    assert_eq!((ended.status.code(), ended.stdout.as_str()), (Some(2), ""), "{}", ended.stderr);
    ended.stderr.lines().map(|line| line.strip_prefix("varta-server: ").unwrap().to_owned()).collect()
}

#[track_caller]
fn assert_good(words: &[&str], path: &Path) {
    let ended = check(words, path);
    assert_eq!((ended.status.code(), ended.stderr.as_str()), (Some(0), ""), "{}", path.display());
    assert_eq!(ended.stdout, format!("{}: ok\n", path.display()));
}

#[test]
fn a_good_file_is_ok_also_when_it_is_for_another_host_and_variables_of_the_environment_have_no_effect() {
    let scratch = Scratch::make();
    let elsewhere = "socket-group = \"no-such-group\"\nallow-uid = [\"no-such-user\"]\nudp = \"no-such-host.invalid:1\"\n\
                     allow-plaintext-remote = true\nsecure-udp = \"no-such-host.invalid:2\"\nkey-file = \"/no/key\"\n\
                     metrics-addr = \"0.0.0.0:9843\"\nmetrics-token-file = \"/no/token\"\naudit-log = \"/no/audit\"\n\
                     audit-key-file = \"/no/key\"\nwebhook = \"http://no-such-host.invalid\"\nwebhook-key-file = \"/no/key\"\n\
                     webhook-template = \"/no/template\"\nrecovery-exec = \"./no-such-script\"\nstate-dir = \"/no/state\"\n";
    let path = scratch.write("varta.toml", elsewhere);
    assert_good(&[], &path);
    let mut command = server_command();
    command
        .args(["config", "check"])
        .arg(&path)
        .env("VARTA_STALL_AFTER", "1ms")
        .env("VARTA_CONFIG", "/no/file");
    assert!(run_to_its_end(command).status.success());
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    for example in ["varta-server/varta.example.toml", "deploy/debian/varta.toml"] {
        assert_good(&[], &root.join(example));
    }
}

#[test]
fn all_faults_are_printed_a_line_for_each_with_the_file_and_the_line() {
    let scratch = Scratch::make();
    let refused = |text: &str, ends: &[&str]| {
        let path = scratch.write("varta.toml", text);
        let said = faults(&[], &path);
        assert_eq!(said.len(), ends.len(), "{said:#?}");
        for (line, end) in said.iter().zip(ends) {
            assert!(line.starts_with(&format!("{}:{end}", path.display())), "{line}");
        }
    };
    refused("stal-after = 1\nmax-agents = \"7\"\n", &["1: stal-after: ", "2: max-agents: "]);
    // Also values out of range, and not what may be without effect only because of the other faults.
    refused(
        "stall-after = \"1ms\"\nsecure-upd = \"127.0.0.1:1\"\nkey-file = \"k\"\nmetrics-addr = \"0.0.0.0:1\"\n\
         webhook = \"ftp://a\"\nmax-agents = \"7\"\n[[rule]]\nname = \"a\"\nstal-after = \"1s\"\n",
        &["1: stall-after: ", "2: secure-upd: ", "5: webhook: ", "6: max-agents: ", "9: rule: stal-after: "],
    );
    // Right by themselves, and out of range or without effect.
    refused(
        "stall-after = \"1ms\"\nmetrics-addr = \"0.0.0.0:1\"\nkey-file = \"k\"\nlog-level = \"loud\"\n",
        &["1: stall-after: ", "2: metrics-addr ", "3: key-file: ", "4: log-level: "],
    );
    refused("udp = [", &["1: is not TOML: "]);
}

#[test]
fn a_server_that_starts_or_reloads_reports_the_same_faults() {
    let scratch = Scratch::make();
    let text = "stall-after = \"1ms\"\nflap-limit = 1\nkey-file = \"k\"\nlog-level = \"loud\"\n";
    let path = scratch.write("varta.toml", text);
    let said = faults(&[], &path);
    assert_eq!(said.len(), 4);
    let mut start = server_command();
    start.args(["--metrics-addr=none", "--control-socket=none", "--socket"]).arg(scratch.path("s"));
    start.arg("--config").arg(&path);
    let ended = run_to_its_end(start);
    assert_eq!(ended.status.code(), Some(2));
    let by_start: Vec<_> = ended.stderr.lines().map(|line| line.replacen("varta-server: ", "", 1)).collect();
    assert_eq!(by_start, said);

    fs::write(&path, "").unwrap();
    let server = Server::start(Options::new().path("--config", &path).in_scratch(&scratch));
    fs::write(&path, text).unwrap();
    let reload = [OsStr::new("reload"), OsStr::new("--socket"), server.socket().as_os_str()];
    let by_reload = run_server(reload).stderr;
    for fault in said {
        assert!(by_reload.contains(&fault), "{fault}\n{by_reload}");
    }
}

#[test]
fn what_is_no_file_is_named_and_wrong_usage_is_told() {
    let scratch = Scratch::make();
    assert_eq!(faults(&[], &scratch.path("none")).len(), 1);
    assert!(faults(&[], &scratch.path("none"))[0].contains("none: cannot be read: No such file"));
    assert!(faults(&[], scratch.directory())[0].ends_with(": is not a regular file"));
    assert!(faults(&[], Path::new("/dev/null"))[0].ends_with(": is not a regular file"));
    for words in
        [&["config"][..], &["config", "check"], &["config", "check", "--no-such", "f"], &["config", "chek"]]
    {
        let ended = run_server(words);
        assert_eq!((ended.status.code(), ended.stdout.as_str()), (Some(2), ""), "{words:?}");
        assert!(!ended.stderr.is_empty(), "{words:?}");
    }
    // A disk that is full.
    let path = scratch.write("varta.toml", "");
    let mut command = server_command();
    command
        .args(["config", "check"])
        .arg(&path)
        .stdout(fs::OpenOptions::new().write(true).open("/dev/full").unwrap());
    let status = command.stderr(process::Stdio::piped()).output().unwrap();
    assert_eq!(status.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&status.stderr).contains("cannot print the result: No space left"));
}

#[test]
fn what_the_host_lacks_is_told_only_when_asked_for() {
    let scratch = Scratch::make();
    let directory = scratch.directory().display();
    // No resolver is asked for a label of more than 63 letters, and none knows it.
    let host = "x".repeat(70);
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    scratch.write("plain", "");
    scratch.write("key", &"01".repeat(32));
    fs::set_permissions(scratch.path("key"), Permissions::from_mode(0o644)).unwrap();
    let text = format!(
        "socket = \"{directory}/plain\"\ncontrol-socket = \"{directory}/{}\"\nmetrics-addr = \"{}\"\n\
         secure-udp = \"127.0.0.1:0\"\nkey-file = \"{directory}/key\"\nevents-file = \"{directory}/plain/events\"\n\
         state-dir = \"{directory}/plain\"\nalertmanager = \"http://{host}:9093\"\n\
         alert-ca-file = \"{directory}/plain\"\nwebhook = \"https://[::1]:1/\"\nwebhook-key-file = \"{directory}/key\"\n\
         allow-gid = \"no-such-group\"\nudp = \"192.0.2.1:9844\"\nallow-plaintext-remote = true\naudit-log = \"/dev/null/audit\"\n\
         record = \"{directory}/plain\"\nhw-watchdog = \"/dev/no-such-watchdog\"\nbeat-to = \"udp:{host}:1\"\n\
         recovery-exec = \"no-such-program\"\n",
        "x".repeat(108),
        taken.local_addr().unwrap(),
    );
    let path = scratch.write("varta.toml", &text);
    assert_good(&[], &path);
    let before = fs::read_dir(scratch.directory()).unwrap().count();
    let said = faults(&["--environment"], &path).join("\n");
    for part in [
        "/plain: is there and is not a socket",
        "varta.toml:3: 127.0.0.1:",
        "cannot listen for metrics: Address already in use",
        "the path of a Unix socket may have 107 bytes",
        "/key: ",
        "varta.toml:12: allow-gid: `no-such-group`: this host has no group of this name",
        "varta.toml:13: udp 192.0.2.1:9844: cannot listen",
        "/plain: is not a directory; see --events-file",
        "/plain: is not a directory; see --state-dir",
        &format!("alertmanager {host}:9093: the address of the host"),
        "/plain: has no certificate in PEM in it; see --alert-ca-file",
        "see --audit-log",
        "/plain: is there already; a recording needs a file of its own",
        "/dev/no-such-watchdog: ",
        &format!("beat-to {host}:1"),
        "recovery: ",
    ] {
        assert!(said.contains(part), "{part}:\n{said}");
    }
    assert_eq!(fs::read_dir(scratch.directory()).unwrap().count(), before);
}

#[test]
fn what_can_be_made_is_not_made() {
    let scratch = Scratch::make();
    let directory = scratch.directory().display();
    let key = write_secret(scratch.directory(), "key", &"01".repeat(32)).display().to_string();
    let good = format!(
        "socket = \"{directory}/deep/er/varta.sock\"\nmetrics-addr = \"127.0.0.1:0\"\nsecure-udp = \"127.0.0.1:0\"\n\
         key-file = \"{key}\"\nevents-file = \"{directory}/logs/events\"\nstate-dir = \"{directory}/state\"\n\
         audit-log = \"{directory}/audit/log\"\nrecord = \"{directory}/record\"\n",
    );
    let path = scratch.write("varta.toml", &good);
    assert_good(&["--environment"], &path);
    let mut names: Vec<_> =
        fs::read_dir(scratch.directory()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["key", "varta.toml"]);
}

#[test]
fn a_server_that_runs_with_the_file_is_not_disturbed_and_has_its_sockets_and_addresses_without_fault() {
    let scratch = Scratch::make();
    let directory = scratch.directory().display();
    let text = format!(
        "socket = \"{directory}/varta.sock\"\nudp = \"127.0.0.1:0\"\n\
         state-dir = \"{directory}/state\"\nevents-file = \"{directory}/events\"\n"
    );
    let path = scratch.write("varta.toml", &text);
    let server = Server::start(Options::new().path("--config", &path).finds_its_socket_at(&scratch.socket()));
    let mut datagrams = Datagrams::to(server.socket());
    datagrams.send(&Frame::new(Status::Ok, process::id(), 1, 1, 0).to_bytes());
    server.expect(agent(process::id()).up());
    let warnings = || server.log().lines().iter().filter(|line| line.contains("\"WARN\"")).count();
    let warned = warnings();
    // With the ports that the kernel chose.
    let (udp, metrics) = (server.udp_address(0), server.address());
    fs::write(
        &path,
        text.replace("127.0.0.1:0", &udp.to_string()) + &format!("metrics-addr = \"{metrics}\"\n"),
    )
    .unwrap();
    let inode = |path: &Path| path.symlink_metadata().unwrap().ino();
    let before = [server.socket().to_path_buf(), server.control_socket()].map(|path| inode(&path));

    let ended = check(&["--environment"], &path);
    assert_eq!(ended.status.code(), Some(0), "{}", ended.stderr);
    for part in [
        "varta.sock: a server listens there",
        &format!("--metrics-addr {metrics}: is in use, supposedly by the server"),
        &format!("--udp {udp}: is in use"),
    ] {
        assert!(ended.stderr.contains(part), "{part}: {}", ended.stderr);
    }
    let after = [server.socket().to_path_buf(), server.control_socket()].map(|path| inode(&path));
    assert_eq!(before, after);
    assert_eq!(warnings(), warned, "the server has heard of nothing");
    datagrams.send(&Frame::new(Status::Critical, process::id(), 2, 2, 0).to_bytes());
    server.expect(agent(process::id()).up().with_status("critical"));
}
