//! Refusals of options: values that cannot be parsed, are out of range or in conflict, sockets that cannot be
//! bound.

use std::fs;
use std::net::{TcpListener, UdpSocket};
use std::os::unix::fs::symlink;
use std::os::unix::net::{UnixDatagram, UnixListener};

use super::sandbox::Sandbox;

const UDP: &str = "127.0.0.1:0";

#[test]
fn values_that_cannot_be_parsed() {
    let mut sandbox = Sandbox::new();
    sandbox.run_each(&[
        &["--no-such-thing"],
        &["--stal-after", "5s"],
        &["stray"],
        &["--stall-after"],
        &["--stall-after="],
        &["--stall-after", "soon"],
        &["--stall-after", "5"],
        &["--stall-after", "-1s"],
        &["--longest-silence", "5"],
        &["--forget-after", "1x"],
        &["--socket="],
        &["--socket-mode", "0888"],
        &["--socket-mode", "7777"],
        &["--allow-uid", "somebody"],
        &["--allow-gid", "4294967296"],
        &["--udp", "127.1:9844"],
        &["--secure-udp", "127.0.0.1"],
        &["--udp-receive-buffer", "much"],
        &["--metrics-addr", "localhost"],
        &["--metrics-addr", "127.0.0.1:99999"],
        &["--max-agents", "many"],
        &["--max-shm-agents", "-1"],
        &["--max-agents-per-source", "1.5"],
        &["--max-beat-rate", "-1"],
        &["--max-total-rate", "4294967296"],
        &["--agent-metrics", "some"],
        &["--detector", "guess"],
        &["--phi-threshold", "high"],
        &["--chen-mistake-every", "never"],
        &["--chen-detect-within", "1"],
        &["--chen-corrected-within", "1"],
        &["--min-learned-stall-after", "1"],
        &["--max-learned-stall-after", "1"],
        &["--record-limit", "1GB"],
        &["--recovery-exec", ""],
        &["--recovery-exec", "'' x"],
        &["--recovery-exec", "restart 'x"],
        &["--recovery-exec", "{name} --restart"],
        &["--recovery-exec", "restart {host}"],
        &["--recovery-exec", "restart {name"],
        &["--recovery-exec", "restart\u{7}"],
        &["--recovery-exec", &"x".repeat(4_097)],
        &["--recovery-debounce", "1"],
        &["--recovery-timeout", "1"],
        &["--recovery-attempts", "often"],
        &["--recovery-backoff", "1"],
        &["--recovery-group-budget", "5"],
        &["--recovery-budget", "0/10m"],
        &["--recovery-budget", "5/1ms"],
        &["--recovery-env", "A"],
        &["--recovery-env", "=b"],
        &["--events-limit", "1.5M"],
        &["--events-keep", "-1"],
        &["--audit-limit", "16777216T"],
        &["--audit-keep", "-1"],
        &["--alert-resend-every", "1"],
        &["--alert-give-up-after", "1"],
        &["--flap-limit", "-1"],
        &["--flap-window", "1"],
        &["--log-format", "xml"],
        &["--recovery-dry-run=yes"],
        &["--stall-after", "1s", "pauses"],
    ]);
    sandbox.assert_unchanged("options_not_parsed");
}

#[test]
fn task_arguments_that_cannot_be_parsed() {
    let mut sandbox = Sandbox::new();
    sandbox.run_each(&[
        &["replay"],
        &["replay", "FILE", "OTHER"],
        &["replay", "FILE", "--max-agents", "1"],
        &["replay", "FILE", "--stall-after", "5"],
        &["replay", "FILE", "--detector", "guess"],
        &["pause"],
        &["pause", "batch-*"],
        &["pause", "--for", "1h"],
        &["pause", "", "--for", "1h"],
        &["pause", "a\nb", "--for", "1h"],
        &["pause", &"x".repeat(129), "--for", "1h"],
        &["pause", "a", "--for", "999ms"],
        &["pause", "a", "--for", "366days 1s"],
        &["pause", "a", "--for", "soon"],
        &["pause", "a", "--for", "1h", "--reason", ""],
        &["pause", "a", "--for", "1h", "--reason", "two\nlines"],
        &["resume"],
        &["resume", "a", "b"],
        &["resume", ""],
        &["pauses", "a"],
        &["pauses", "--control-socket", "none"],
        &["pauses", "--socket", "none"],
        &["forget"],
        &["forget", "a", "b"],
        &["forget", ""],
        &["forget", "a", "--reason", ""],
        &["ack"],
        &["ack", "a", "b"],
        &["unack", "a", "--reason", "b"],
        &["audit"],
        &["audit", "check"],
        &["audit", "verify"],
        &["audit", "verify", "FILE", "--expect-last", "7"],
        &["audit", "verify", "FILE", "--expect-last", "7:abc"],
        &["help", "paus"],
    ]);
    sandbox.assert_unchanged("options_of_tasks_not_parsed");
}

#[test]
fn values_out_of_range_or_in_conflict() {
    let mut sandbox = Sandbox::new();
    sandbox.run_each(&[
        &["--log-level", "loud"],
        &["--log-level", "info,,warn"],
        &["--log-level", "info,=,"],
        &["--log-level", "varta::agent=loud"],
        &["--stall-after", "9ms"],
        &["--stall-after", "367days"],
        &["--forget-after", "1s"],
        &["--forget-after", "367days"],
        &["--max-agents", "0"],
        &["--socket", "none"],
        &["--socket", "a.sock", "--socket", "a.sock"],
        &["--socket-group", "no-such-group"],
        &["--control-socket", "varta.sock"],
        &["--udp", "0.0.0.0:0"],
        &["--udp", "[::]:0"],
        &["--udp", "192.0.2.1:0"],
        &["--udp", "127.0.0.1:9844", "--udp", "127.0.0.1:9844"],
        &["--allow-plaintext-remote"],
        &["--secure-udp", UDP],
        &["--key-file", "key"],
        &["--accepted-key-file", "keys"],
        &["--master-key-file", "key"],
        &["--udp", UDP, "--udp-receive-buffer", "0"],
        &["--udp", UDP, "--udp-receive-buffer", "1073741825"],
        &["--metrics-addr", "0.0.0.0:0"],
        &["--metrics-addr", "[::]:0"],
        &["--phi-threshold", "8"],
        &["--detector", "chen", "--phi-threshold", "8"],
        &["--detector", "phi", "--phi-threshold", "0.5"],
        &["--detector", "phi", "--phi-threshold", "101"],
        &["--detector", "phi", "--phi-threshold", "NaN"],
        &["--chen-mistake-every", "1h"],
        &["--detector", "phi", "--chen-detect-within", "1s"],
        &["--chen-corrected-within", "1s"],
        &["--min-learned-stall-after", "1s"],
        &["--max-learned-stall-after", "1s"],
        &["--detector", "chen"],
        &["--detector", "chen", "--chen-mistake-every", "1ms"],
        &["--detector", "chen", "--chen-detect-within", "367days"],
        &["--detector", "chen", "--chen-corrected-within", "1ms"],
        &["--detector", "chen", "--chen-detect-within", "50ms"],
        &["--detector", "phi", "--min-learned-stall-after", "1ms"],
        &["--detector", "phi", "--max-learned-stall-after", "50ms"],
        &["--detector", "phi", "--max-learned-stall-after", "25h"],
        &["--record-limit", "4096"],
        &["--record", "recording", "--record-limit", "4095"],
        &["--events-limit", "4096"],
        &["--events-keep", "1"],
        &["--events-file", ".."],
        &["--events-file", "events", "--events-limit", "4095"],
        &["--audit-key-file", "key"],
        &["--audit-limit", "4096"],
        &["--audit-keep", "1"],
        &["--audit-log", "..", "--recovery-exec", "true"],
        &["--audit-log", "audit.log", "--recovery-exec", "true", "--audit-limit", "4095"],
        &["--audit-log", "audit.log", "--recovery-exec", "true", "--audit-limit", "1073741825"],
        &["--recovery-env", "A=b"],
        &["--recovery-dry-run"],
        &["--allow-recovery-for-remote"],
        &["--recovery-without-audit"],
        &["--recovery-without-audit", "--recovery-exec", "true"],
        &["--recovery-timeout", "0s"],
        &["--recovery-timeout", "25h"],
        &["--recovery-attempts", "0"],
        &["--recovery-debounce", "367days"],
        &["--recovery-backoff", "367days"],
    ]);
    let left: Vec<_> = fs::read_dir(sandbox.path("")).unwrap().collect();
    assert!(left.is_empty(), "{left:?} was left behind");
    sandbox.assert_unchanged("options_out_of_range");
}

#[test]
fn alert_options_out_of_range_or_in_conflict() {
    let mut sandbox = Sandbox::new();
    let am = "http://localhost:9093";
    sandbox.run_each(&[
        &["--alertmanager", "localhost:9093"],
        &["--alertmanager", "secret"],
        &["--alertmanager", "http://"],
        &["--alertmanager", "ftp://user:secret@localhost/"],
        &["--alertmanager", "http://localhost/?secret"],
        &["--webhook", "http://localhost/#secret"],
        &["--webhook", "unix:/secret"],
        &["--webhook", "http://localhost:99999/secret"],
        &["--alertmanager", am, "--alertmanager", am],
        &["--alertmanager", "http://user:secret@localhost,http://user:secret@localhost"],
        &[
            "--alertmanager",
            "http://a,http://b,http://c,http://d,http://e,http://f,http://g,http://h,http://i",
        ],
        &["--alert-resend-every", "1m"],
        &["--webhook", "http://localhost/", "--alert-resend-every", "1m"],
        &["--webhook-key-file", "key"],
        &["--alertmanager", am, "--webhook-key-file", "key"],
        &["--alert-give-up-after", "1m"],
        &["--flap-limit", "3"],
        &["--flap-window", "1m"],
        &["--alert-ca-file", "ca.pem"],
        &["--alertmanager", am, "--alert-ca-file", "ca.pem"],
        &["--alertmanager", am, "--alert-resend-every", "99ms"],
        &["--alertmanager", am, "--alert-resend-every", "2h"],
        &["--alertmanager", am, "--alert-give-up-after", "999ms"],
        &["--alertmanager", am, "--flap-limit", "1001"],
        &["--alertmanager", am, "--flap-window", "367days"],
    ]);
    let output: Vec<String> =
        sandbox.transcript().lines().filter(|line| !line.starts_with('$')).map(str::to_owned).collect();
    assert!(!output.concat().contains("secret"), "a URL is repeated");
    sandbox.assert_unchanged("options_of_alerts");
}

#[test]
fn variables_of_the_environment() {
    let mut sandbox = Sandbox::new();
    for (name, value) in [
        ("VARTA_STALL_AFTER", "soon"),
        ("VARTA_STALL_AFTER", "1ms"),
        ("VARTA_MAX_AGENTS", "many"),
        ("VARTA_UDP", "127.0.0.1:0,here"),
        ("VARTA_SOCKET_MODE", "rw"),
        ("VARTA_DETECTOR", "guess"),
        ("VARTA_LOG_FORMAT", "xml"),
        ("VARTA_LOG_LEVEL", "loud"),
        ("VARTA_WEBHOOK", "secret"),
        ("VARTA_CONFIG", "no-such-file"),
        ("VARTA_ALLOW_PLAINTEXT_REMOTE", "perhaps"),
    ] {
        sandbox.run_with(&[(name, value)], &[]);
    }
    sandbox.assert_unchanged("options_of_the_environment");
}

#[test]
fn sockets_and_addresses_that_cannot_be_bound() {
    let mut sandbox = Sandbox::new();
    sandbox.write("file", "");
    symlink("file", sandbox.path("link")).unwrap();
    fs::create_dir(sandbox.path("open")).unwrap();
    sandbox.chmod("open", 0o777);
    let _datagrams = UnixDatagram::bind(sandbox.path("used.sock")).unwrap();
    let _stream = UnixListener::bind(sandbox.path("stream.sock")).unwrap();
    let (metrics, udp) = (TcpListener::bind(UDP).unwrap(), UdpSocket::bind(UDP).unwrap());
    let [metrics, udp] = [metrics.local_addr().unwrap(), udp.local_addr().unwrap()].map(|at| at.to_string());
    sandbox.redact(&metrics, "USED_TCP");
    sandbox.redact(&udp, "USED_UDP");
    let long = "x".repeat(101);
    sandbox.run_each(&[
        &["--socket", "file"],
        &["--socket", "link"],
        &["--socket", "open"],
        &["--socket", "used.sock"],
        &["--socket", "stream.sock"],
        &["--socket", "file/varta.sock"],
        &["--socket", "link/there/varta.sock"],
        &["--socket", &"x".repeat(108)],
        &["--control-socket", "file"],
        &["--control-socket", "used.sock"],
        &["--control-socket", "link/there/control.sock"],
        &["--control-socket", &"x".repeat(108)],
        &["--metrics-addr", "192.0.2.1:0"],
        &["--udp", "192.0.2.1:0", "--allow-plaintext-remote"],
    ]);
    let open = sandbox.path("open").display().to_string();
    sandbox.redact(sandbox.path("").display(), "DIR/");
    sandbox.run_with(&[("VARTA_SOCKET", ""), ("RUNTIME_DIRECTORY", &open)], &[]);
    sandbox.run_each(&[&["--metrics-addr", &metrics], &["--udp", &udp]]);
    sandbox.comment(
        "the control socket beside a socket whose path is nearly too long, and then a wrong address",
    );
    sandbox.run(&["--log-format", "text", "--socket", &long, "--metrics-addr", &metrics]);
    let transcript = sandbox.transcript();
    super::sandbox::assert_unchanged("sockets_and_addresses", &super::running::without_times(&transcript));
}
