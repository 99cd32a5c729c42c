//! What the server serves over HTTP, to a well-behaved client and to others.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

use std::collections::BTreeSet;
use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{TcpStream, UdpSocket};
use std::os::unix::fs::symlink;
use std::process::{self, Command};

use flate2::read::GzDecoder;
use socket2::{Domain, Socket, Type};
use varta_agent::{BeatOutcome, Varta};
use varta_integration_tests::{
    AgentProcess, Datagrams, LIMIT, Options, Scrape, Server, agent, foreign, http, run_to_its_end, wait_for,
    wait_until, worker_command,
};
use varta_proto::{Frame, Status};

/// More than the server serves at once.
const CROWD: usize = 400;

/// Reads until the server hangs up, which it must do within a generous time.
#[track_caller]
fn read_to_the_end(stream: &mut TcpStream) -> String {
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    let mut said = Vec::new();
    match stream.read_to_end(&mut said) {
        Ok(_) => {}
        // What we sent and it did not read makes the end a hard one.
        Err(error) if matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe) => {}
        Err(error) => panic!("it does not hang up: {error}"),
    }
    String::from_utf8_lossy(&said).into_owned()
}

/// Connects and sends bytes that may be no proper request.
fn provoke(server: &Server, bytes: &[u8]) -> TcpStream {
    let mut stream = http::connect(server.address()).unwrap();
    // It may have read enough before all is sent.
    let _ = stream.write_all(bytes);
    stream
}

fn name_of_family<'a>(sample: &'a str, histograms: &BTreeSet<&'a str>) -> &'a str {
    let base = ["_bucket", "_sum", "_count"].into_iter().find_map(|suffix| sample.strip_suffix(suffix));
    base.filter(|base| histograms.contains(base)).unwrap_or(sample)
}

/// What every reader of the text format may count on.
#[track_caller]
fn assert_families_are_whole_and_explained(text: &str) {
    let mut finished = BTreeSet::new();
    let mut histograms = BTreeSet::new();
    let (mut helped, mut typed, mut current) = (BTreeSet::new(), BTreeSet::new(), "");
    for line in text.lines().filter(|line| !line.is_empty()) {
        let family = match line.strip_prefix("# ") {
            Some(comment) => {
                let mut words = comment.splitn(3, ' ');
                let (kind, name, rest) = (words.next(), words.next().unwrap(), words.next().unwrap());
                match kind {
                    Some("HELP") => assert!(helped.insert(name) && !rest.is_empty(), "{line}"),
                    Some("TYPE") => {
                        assert!(typed.insert(name), "{line}");
                        assert!(["counter", "gauge", "histogram"].contains(&rest), "{line}");
                        if rest == "histogram" {
                            histograms.insert(name);
                        }
                        assert_eq!(rest == "counter", name.ends_with("_total"), "{line}");
                    }
                    _ => panic!("{line}"),
                }
                name
            }
            None => {
                let end = line.find(['{', ' ']).unwrap();
                let family = name_of_family(&line[..end], &histograms);
                assert!(helped.contains(family) && typed.contains(family), "{line} has no HELP or no TYPE");
                family
            }
        };
        if family != current {
            assert!(finished.insert(family), "{family} is in two places");
            current = family;
        }
    }
    assert_eq!(helped, typed);
}

#[test]
fn the_content_type_is_that_of_the_text_format_with_its_version() {
    let response = Server::start(Options::new()).get("/metrics");
    assert_eq!(response.status, 200);
    assert_eq!(response.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
}

/// As Prometheus asks since its version 2.5.
const PROMETHEUS: (&str, &str) = (
    "Accept",
    "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,\
     text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
);

#[test]
fn who_asks_for_openmetrics_gets_it_and_all_others_the_text_format() {
    let server = Server::start(Options::new());
    let _agent = server.start_agent(&[]);
    let response = http::get(server.address(), "/metrics", &[PROMETHEUS]).unwrap();
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    assert_eq!((response.status, response.header("content-type")), (200, Some(kind)));
    assert_eq!(response.header("vary"), Some("Accept, Accept-Encoding"));
    let text = response.body;
    assert!(text.ends_with("\n# EOF\n") && text.matches("# EOF").count() == 1, "{text}");
    for lines in [
        "# TYPE varta_beats counter\n# HELP varta_beats Beats accepted from this agent.\nvarta_beats_total{",
        "# TYPE varta_watch_uptime_seconds gauge\n# UNIT varta_watch_uptime_seconds seconds\n",
        "varta_detection_latency_seconds_bucket{le=\"1.0\"} ",
    ] {
        assert!(text.contains(lines), "{lines:?} is missing in\n{text}");
    }
    for other in ["*/*", "text/plain", "application/json", "application/openmetrics-text;q=0"] {
        let response = http::get(server.address(), "/metrics", &[("Accept", other)]).unwrap();
        assert_eq!(
            response.header("content-type"),
            Some("text/plain; version=0.0.4; charset=utf-8"),
            "{other}"
        );
        assert_eq!(response.header("vary"), Some("Accept, Accept-Encoding"));
        assert!(!response.body.contains("# EOF"), "{other}");
    }
}

#[test]
fn who_asks_for_gzip_gets_the_same_text_compressed_and_only_who_asks_for_it() {
    let server = Server::start(Options::new());
    let gzip = ("Accept-Encoding", "gzip");
    for format in [("Accept", "*/*"), PROMETHEUS] {
        let plain = http::get(server.address(), "/metrics", &[format]).unwrap();
        let zipped = http::get(server.address(), "/metrics", &[format, gzip]).unwrap();
        assert_eq!(
            (plain.header("content-encoding"), zipped.header("content-encoding")),
            (None, Some("gzip"))
        );
        assert_eq!(plain.header("content-type"), zipped.header("content-type"));
        assert_eq!(zipped.header("vary"), Some("Accept, Accept-Encoding"));
        let mut text = String::new();
        GzDecoder::new(&zipped.bytes[..]).read_to_string(&mut text).unwrap();
        // The values are those of another moment.
        let series = |text: &str| -> Vec<String> {
            text.lines()
                .map(|line| line.rsplit_once(' ').map_or(line, |(series, _)| series).to_owned())
                .collect()
        };
        assert_eq!(series(&text), series(&plain.body));
        assert!(zipped.bytes.len() * 4 < text.len(), "{} of {}", zipped.bytes.len(), text.len());
    }
    for other in ["identity", "gzip;q=0", "br"] {
        let response = http::get(server.address(), "/metrics", &[("Accept-Encoding", other)]).unwrap();
        assert_eq!(response.header("content-encoding"), None, "{other}");
        assert!(response.body.contains("varta_frames_total"), "{other}");
    }
    let health = http::get(server.address(), "/healthz", &[gzip]).unwrap();
    assert_eq!((health.header("content-encoding"), &*health.body), (None, "ok\n"));
}

#[test]
fn head_has_the_headers_of_get_and_no_body() {
    let server = Server::start(Options::new());
    for headers in [&[][..], &[PROMETHEUS], &[("Accept-Encoding", "gzip")]] {
        let [get, head] =
            [http::get, http::head].map(|ask| ask(server.address(), "/metrics", headers).unwrap());
        for name in ["content-type", "content-encoding", "vary"] {
            assert_eq!(get.header(name), head.header(name), "{headers:?}");
        }
        assert_eq!((head.status, head.bytes.len()), (200, 0), "{headers:?}");
        let has_length = |header: Option<&str>| header.is_some();
        assert_eq!(has_length(get.header("content-length")), has_length(head.header("content-length")));
    }
}

#[test]
fn the_strict_parser_of_another_project_reads_all_of_openmetrics_and_finds_what_the_text_format_has() {
    let Some(mut client) = foreign::command("venv/bin/python") else { return };
    let server = Server::start(Options::new().udp("127.0.0.1:0"));
    let _named = server.start_agent(&["--name", "worker"]);
    // A process may have any name.
    let strange = server.directory().join("a\"b\\c {d=\"e\",}");
    symlink(worker_command().get_program(), &strange).unwrap();
    let mut command = Command::new(strange);
    command.arg("--socket").arg(server.socket());
    let strange = AgentProcess::run(command);
    server.expect(agent(&strange).up());
    client.args([
        "-c",
        include_str!("../src/metrics_client.py"),
        &format!("http://{}/metrics", server.address()),
    ]);
    let ended = run_to_its_end(client);
    assert!(ended.status.success(), "{}", ended.stderr);
    assert!(!ended.stdout.contains("only in one of them"), "{}", ended.stdout);
    for family in [
        "counter varta_beats ",
        "counter varta_frames ",
        "gauge varta_agents ",
        "gauge varta_agent_stall_after_seconds seconds",
        "histogram varta_detection_time_seconds seconds",
        "agent worker",
        "agent a\"b\\c {d=\"e\",}",
    ] {
        assert!(ended.stdout.lines().any(|line| line == family), "{family} is missing in\n{}", ended.stdout);
    }
}

#[test]
fn what_is_known_of_an_agent_is_in_a_row_that_joins_with_its_others() {
    let server = Server::start(Options::new());
    let agent = Varta::builder().socket(server.socket()).name("worker").label("version", "1.2");
    let mut agent = agent.label("team", "payments").connect().unwrap();
    assert_eq!(agent.beat(Status::Ok, 0), BeatOutcome::Sent);
    let pid = process::id();
    let scrape = server.await_scrape("its labels", |scrape| {
        scrape.get("varta_agent_info", &[("label_team", "payments")]) == Some(1.0)
    });
    let [up, info] = ["varta_agent_up", "varta_agent_info"]
        .map(|name| scrape.matching(name, &[("pid", &pid.to_string())]).next().unwrap());
    assert!(up.labels.iter().all(|(label, value)| info.labels.get(label) == Some(value)), "{info}");
    assert_eq!(info.labels["version"], "1.2");
    assert!(!info.labels.contains_key("label_version"), "{info}");
    // This process is in the root of the cgroups, or in one of them.
    let cgroups = fs::read_to_string("/proc/self/cgroup").unwrap();
    let paths = cgroups.lines().map(|line| line.splitn(3, ':').nth(2).unwrap());
    let paths: Vec<_> = paths.filter(|path| *path != "/").collect();
    let cgroup = info.labels.get("cgroup");
    assert_eq!(cgroup.is_some(), !paths.is_empty(), "{info} {cgroups}");
    assert!(
        cgroup.is_none_or(|cgroup| paths.iter().any(|path| path.starts_with(cgroup))),
        "{info} {cgroups}"
    );
}

#[test]
fn every_family_is_explained_and_in_one_place() {
    let server = Server::start(Options::new());
    let before = server.scrape();
    assert_families_are_whole_and_explained(&before.text);
    let workers = [(); 3].map(|()| AgentProcess::start(server.socket(), &[]));
    server.await_agents("up", workers.len());
    let after = server.scrape();
    assert_families_are_whole_and_explained(&after.text);
    let families = |scrape: &Scrape| -> BTreeSet<String> {
        scrape.samples.iter().map(|sample| sample.name.clone()).collect()
    };
    let per_agent: Vec<_> = families(&after).difference(&families(&before)).cloned().collect();
    assert_eq!(
        per_agent,
        [
            "varta_agent_beats_lost_total",
            "varta_agent_info",
            "varta_agent_last_beat_timestamp_seconds",
            "varta_agent_mistakes_total",
            "varta_agent_payload",
            "varta_agent_restarts_total",
            "varta_agent_stall_after_seconds",
            "varta_agent_up",
            "varta_beats_total",
            "varta_stalls_total",
            "varta_status",
        ]
    );
}

#[test]
fn families_without_agents_stand_at_zero_from_the_first_scrape() {
    let scrape = Server::start(Options::new()).scrape();
    for name in [
        "varta_frames_total",
        "varta_decode_errors_total",
        "varta_frame_auth_failures_total",
        "varta_truncated_datagrams_total",
        "varta_rate_limited_total",
        "varta_out_of_order_total",
        "varta_nonce_wrap_total",
        "varta_tracker_capacity_exceeded_total",
        "varta_tracker_evicted_total",
        "varta_watch_pids_tracked",
        "varta_agents",
        "varta_transitions_total",
        "varta_detection_latency_seconds_count",
        "varta_detection_time_seconds_count",
        "varta_mistakes_total",
        "varta_mistake_duration_seconds_count",
        "varta_recording_dropped_total",
        "varta_recording_bytes",
        "varta_recording_active",
        "varta_alerts_firing",
        "varta_notifications_total",
        "varta_looks_refused_total",
        "varta_unwatched_processes_total",
    ] {
        let values: Vec<_> = scrape.matching(name, &[]).map(|sample| sample.value).collect();
        assert!(!values.is_empty() && values.iter().all(|value| *value == 0.0), "{name}: {values:?}");
    }
    let info = scrape.matching("varta_build_info", &[]).next().unwrap();
    assert_eq!((info.value, info.labels["version"].as_str()), (1.0, env!("CARGO_PKG_VERSION")));
    assert!(info.labels.contains_key("commit"));
}

#[test]
fn other_paths_and_methods_are_answered_with_what_is_wrong() {
    let server = Server::start(Options::new());
    for path in [
        "/metric",
        "/assets/",
        "/assets/metrics",
        "/metrics/",
        "/metrics/all",
        "/healthz/x",
        "/%2e%2e/etc/passwd",
    ] {
        assert_eq!(server.get(path).status, 404, "{path}");
    }
    assert_eq!(server.get("/healthz").status, 200);
    server.await_ready();
    assert_eq!(server.get("/metrics?name[]=varta_beats_total").status, 200);
    let post = b"POST /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";
    let post = read_to_the_end(&mut provoke(&server, post));
    assert!(post.starts_with("HTTP/1.1 405"), "{post}");
}

#[test]
fn a_client_that_says_nothing_is_cut_off_and_hurts_nobody() {
    let server = Server::start(Options::new());
    let mut silent = http::connect(server.address()).unwrap();
    let mut half = http::connect(server.address()).unwrap();
    half.write_all(b"GET /metrics HTTP/1.1\r\nHost: ").unwrap();
    for _ in 0..5 {
        assert_eq!(server.get("/metrics").status, 200);
    }
    for stream in [&mut silent, &mut half] {
        let said = read_to_the_end(stream);
        assert!(said.is_empty() || said.starts_with("HTTP/1.1 408"), "{said}");
    }
    assert_eq!(server.get("/metrics").status, 200);
}

#[test]
fn a_crowd_of_silent_clients_keeps_nobody_else_out_and_holds_up_no_beat() {
    let server = Server::start(["--stall-after", "1h"]);
    let crowd: Vec<_> = (0..CROWD).map(|_| http::connect(server.address()).unwrap()).collect();
    let mut datagrams = Datagrams::to(server.socket());
    for nonce in 1..=500 {
        datagrams.send(&Frame::new(Status::Ok, process::id(), nonce, nonce, 0).to_bytes());
    }
    let scrape = server.await_datagrams(datagrams.sent());
    assert_eq!(scrape.outcome("accepted"), 500.0);
    // Those that came last are still connected, and make no others wait.
    for path in ["/healthz", "/readyz", "/metrics"] {
        assert_eq!(server.get(path).status, 200, "{path}");
    }
    let mut last = crowd.into_iter().next_back().unwrap();
    last.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    assert!(read_to_the_end(&mut last).starts_with("HTTP/1.1 200 "));
}

#[test]
fn a_client_that_does_not_take_its_answer_hurts_nobody() {
    let server = Server::start(Options::new());
    let workers = [(); 5].map(|()| AgentProcess::start(server.socket(), &[]));
    server.await_agents("up", workers.len());
    // Requests one after the other, whose answers are not read. Small buffers are full the sooner.
    let greedy = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    greedy.set_recv_buffer_size(4096).unwrap();
    greedy.set_send_buffer_size(4096).unwrap();
    greedy.connect(&server.address().into()).unwrap();
    greedy.set_nonblocking(true).unwrap();
    let request = b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n".repeat(1_000);
    // Either the buffers fill, or the server has answered the first and takes no more on this connection.
    let over = wait_for(|| match greedy.send(&request) {
        Err(error) if error.kind() == ErrorKind::WouldBlock => Some(()),
        Err(error) if matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe) => Some(()),
        Err(error) => panic!("{error}"),
        Ok(_) => None,
    });
    assert!(over.is_some(), "it takes requests for ever");
    let pids = workers.each_ref().map(AgentProcess::pid);
    server.await_beats(&pids, 3);
}

/// Has so many agents of a network that a scrape has megabytes.
fn introduce(server: &Server, agents: u32) {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.connect(server.udp_address(0)).unwrap();
    wait_until("all of them are known", || {
        let known = server.scrape().value("varta_watch_pids_tracked", &[]);
        if known >= f64::from(agents) {
            return true;
        }
        // What the queue has no room for is sent again.
        for pid in 100_000..100_000 + agents {
            socket.send(&Frame::new(Status::Ok, pid, 1, 1, 0).to_bytes()).unwrap();
        }
        false
    });
}

#[test]
fn a_scrape_is_answered_beside_sixty_clients_that_read_nothing_of_megabytes() {
    let server = Server::start(Options::new().udp("127.0.0.1:0").args(["--agent-metrics", "all"]));
    introduce(&server, 2_000);
    let length = server.get("/metrics").body.len();
    assert!(length > 1_500_000, "{length} bytes are none that a socket cannot hold");
    let request = b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n";
    // More and more come, until some of them had to go: together many more than are served at once.
    let mut crowd = Vec::new();
    wait_until("some are cut off", || {
        for _ in 0..60 {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
            socket.set_recv_buffer_size(4096).unwrap();
            socket.connect(&server.address().into()).unwrap();
            socket.send(request).unwrap();
            crowd.push(socket);
        }
        for path in ["/metrics", "/healthz", "/metrics", "/readyz"] {
            assert_eq!(server.get(path).status, 200, "{path}, beside {}", crowd.len());
        }
        crowd.len() >= 180
            && server.scrape().value("varta_http_connections_cut_total", &[("reason", "slow")]) > 0.0
    });
}

#[test]
fn hostile_requests_are_refused_and_the_server_goes_on() {
    let server = Server::start(Options::new());
    let worker = AgentProcess::start(server.socket(), &[]);
    let long_header = format!("GET /metrics HTTP/1.1\r\nHost: x\r\nX: {}\r\n\r\n", "x".repeat(1 << 20));
    let many_headers = format!("GET /metrics HTTP/1.1\r\nHost: x\r\n{}\r\n", "X: y\r\n".repeat(10_000));
    let long_path = format!("GET /{} HTTP/1.1\r\nHost: x\r\n\r\n", "x".repeat(1 << 20));
    let tls = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".repeat(50);
    let requests: [(&str, &[u8]); 13] = [
        ("nothing", b""),
        ("an empty line", b"\r\n"),
        ("a header of a megabyte", long_header.as_bytes()),
        ("ten thousand headers", many_headers.as_bytes()),
        ("a path of a megabyte", long_path.as_bytes()),
        ("zeroes", &[0; 4096]),
        ("ones", &[0xff; 4096]),
        ("TLS", &tls),
        ("HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
        ("another protocol", b"*1\r\n$4\r\nPING\r\n"),
        ("a frame", &Frame::new(Status::Ok, 42, 1, 1, 0).to_bytes()),
        ("a header without a name", b"GET /metrics HTTP/1.1\r\nHost: x\r\n: y\r\n\r\n"),
        ("half a request", b"GET /metrics HTTP/1.1\r\nHost: x\r\n"),
    ];
    // All at once: some of them are only cut off when they have taken too long.
    let connections = requests.map(|(what, request)| (what, provoke(&server, request)));
    assert_eq!(server.get("/metrics").status, 200);
    for (what, mut connection) in connections {
        let answer = read_to_the_end(&mut connection);
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{what}: {answer}");
    }
    server.await_beats(&[worker.pid()], 3);
    server.await_ready();
    let scrape = server.scrape();
    assert_eq!(scrape.outcome("accepted"), scrape.datagrams());
}
