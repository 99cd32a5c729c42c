//! The API: lists of agents, one agent and its past, a stream without gaps, and who may do what.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

use std::fs::{self, Permissions};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use serde_json::{Value, json};
use varta_integration_tests::http::{connect, get, get_over};
use varta_integration_tests::{
    ExecProcess, Options, Scratch, Server, Signal, agent, foreign, run_to_its_end, wait_until,
};

const TOKEN: &str = "0123456789abcdef0123456789abcdef";
const ACTING: &str = "fedcba9876543210fedcba9876543210";

fn api(server: &Server, path: &str) -> Value {
    let response = server.get(&format!("/api/v1/{path}"));
    assert_eq!(response.status, 200, "{path}: {}", response.body);
    assert_eq!(response.header("content-type"), Some("application/json"));
    serde_json::from_str(&response.body).unwrap()
}

fn names(list: &Value) -> Vec<&str> {
    list["agents"].as_array().unwrap().iter().map(|agent| agent["name"].as_str().unwrap()).collect()
}

/// Sends a request by whichever stream, and gives its status and body.
fn request(stream: &mut (impl Read + Write), head: &str, body: &str) -> (u16, Value) {
    let length = body.len();
    write!(stream, "{head}\r\nHost: 127.0.0.1\r\nContent-Length: {length}\r\n\r\n{body}").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), serde_json::from_str(body).unwrap())
}

/// A file with a token that only its owner may read.
fn token_file(scratch: &Scratch, name: &str, token: &str) -> PathBuf {
    let path = scratch.path(name);
    fs::write(&path, token).unwrap();
    fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
    path
}

/// A stream of changes.
struct Stream {
    lines: BufReader<std::net::TcpStream>,
}

#[derive(Debug)]
struct Event {
    id: String,
    name: String,
    data: Value,
}

impl Stream {
    fn open(address: SocketAddr, path: &str, last: Option<&str>) -> Self {
        let mut stream = connect(address).unwrap();
        let last = last.map(|id| format!("Last-Event-ID: {id}\r\n")).unwrap_or_default();
        write!(stream, "GET /api/v1/{path} HTTP/1.1\r\nHost: {address}\r\n{last}\r\n").unwrap();
        let mut lines = BufReader::new(stream);
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            assert_ne!(lines.read_line(&mut head).unwrap(), 0, "{head}");
        }
        assert!(head.contains("200 OK") && head.contains("content-type: text/event-stream"), "{head}");
        Stream { lines }
    }

    /// The next event; the test fails when there is none within the limit.
    fn next(&mut self) -> Event {
        let mut event = Event { id: String::new(), name: String::new(), data: Value::Null };
        loop {
            let mut line = String::new();
            assert_ne!(self.lines.read_line(&mut line).unwrap(), 0, "the stream has ended");
            // Lengths of chunks have no colon.
            match line.trim_end().split_once(": ") {
                Some(("id", id)) => id.clone_into(&mut event.id),
                Some(("event", name)) => name.clone_into(&mut event.name),
                Some(("data", data)) => event.data = serde_json::from_str(data).unwrap(),
                _ if line == "\n" && !event.name.is_empty() => return event,
                _ => {}
            }
        }
    }

    /// The next change to this state.
    fn change_to(&mut self, state: &str) -> Event {
        loop {
            let event = self.next();
            assert_ne!(event.name, "resync", "{event:?}");
            if event.data["to"] == state {
                return event;
            }
        }
    }
}

#[test]
fn a_list_shows_each_agent_and_is_selected_sorted_and_paged() {
    let server = Server::start(["--stall-after", "1s", "--replaced-within", "0s"]);
    let options = ["--name", "web-1", "--label", "team=shop", "--beat", "alive"];
    let _labelled = ExecProcess::start(server.socket(), &options, "exec sleep 1000");
    let mut agents = ["web-2", "killed", "db"].map(|name| server.start_agent(&["--name", name]));
    server.await_agents("up", 4);
    agents[1].signal(Signal::Kill);
    agents[1].wait();
    agents[0].signal(Signal::Stop);
    server.expect(agent(&agents[1]).down());
    server.expect(agent(&agents[0]).stalled());
    wait_until("the list is not older", || api(&server, "agents")["counts"]["stalled"] == 1);

    let all = api(&server, "agents");
    assert_eq!(names(&all), ["killed", "web-2", "db", "web-1"], "the worst come first");
    assert_eq!((&all["total"], &all["matched"], &all["next"]), (&json!(4), &json!(4), &Value::Null));
    assert_eq!(
        all["counts"],
        json!({"up": 2, "down": 1, "stalled": 1, "gone": 0, "unknown": 0, "expected": 0})
    );
    let killed = &all["agents"][0];
    assert_eq!(
        (&killed["cause"], &killed["problem"], &killed["state"]),
        (&json!("killed"), &json!("down"), &json!("down"))
    );
    assert!(killed["summary"].as_str().unwrap().contains("was killed by SIGKILL"), "{killed}");
    let web = &all["agents"][3];
    assert_eq!((&web["labels"], &web["transport"]), (&json!({"team": "shop"}), &json!("unix")));
    assert!(web["silence_ms"].as_u64().is_some(), "{web}");
    assert_eq!(all["agents"][2]["stall_after_ms"], 1_000);

    for (query, expected) in [
        ("name=web-*", vec!["web-2", "web-1"]),
        ("state=down,stalled", vec!["killed", "web-2"]),
        ("problem=none", vec!["db", "web-1"]),
        ("problem=stalled", vec!["web-2"]),
        ("search=SHOP", vec!["web-1"]),
        ("search=web%202", vec!["web-2"]),
        ("label=team=shop", vec!["web-1"]),
        ("transport=udp", vec![]),
        ("cause=stopped,killed", vec![]),
        ("cause=stopped", vec!["web-2"]),
        ("sort=name", vec!["db", "killed", "web-1", "web-2"]),
        ("sort=-name&limit=2", vec!["web-2", "web-1"]),
        ("sort=name&offset=3", vec!["web-2"]),
        ("offset=99", vec![]),
    ] {
        if query.starts_with("search=web%202") {
            // A pid may have a 2, too.
            assert!(names(&api(&server, &format!("agents?{query}"))).contains(&"web-2"));
            continue;
        }
        assert_eq!(names(&api(&server, &format!("agents?{query}"))), expected, "{query}");
    }
    let mut paged = Vec::new();
    let mut cursor = String::new();
    loop {
        let page = api(&server, &format!("agents?sort=name&limit=1{cursor}"));
        paged.extend(names(&page).into_iter().map(str::to_owned));
        match page["next"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    assert_eq!(paged, ["db", "killed", "web-1", "web-2"]);

    for (path, fault) in [
        ("agents?limit=501", "limit: 501 is not a number from 1 to 500"),
        ("agents?state=well", "state: `well` is none of up, stalled, down, gone, unknown, expected"),
        ("agents?cursor=x", "cursor: is none that this server has given"),
        ("agents?stat=up", "stat: is no parameter of this"),
        ("status?x=1", "x: is no parameter of this"),
    ] {
        let refused = server.get(&format!("/api/v1/{path}"));
        assert_eq!(refused.status, 400, "{path}");
        assert_eq!(refused.header("content-type"), Some("application/problem+json"));
        assert_eq!(serde_json::from_str::<Value>(&refused.body).unwrap()["detail"], fault);
    }
    for path in ["agents/nobody[1]@nowhere", "nothing"] {
        assert_eq!(server.get(&format!("/api/v1/{path}")).status, 404, "{path}");
    }
    agents[0].signal(Signal::Continue);
}

#[test]
fn whoever_reads_a_list_and_then_the_stream_has_every_change() {
    let server = Server::start(["--stall-after", "1s"]);
    let worker = server.start_agent(&["--name", "worker"]);
    let other = server.start_agent(&["--name", "other"]);
    server.await_agents("up", 2);
    let list = api(&server, "agents");
    let revision = list["revision"].as_str().unwrap().to_owned();
    worker.signal(Signal::Stop);
    server.expect(agent(&worker).stalled());

    // It was stalled before the stream is opened.
    let mut stream = Stream::open(server.address(), &format!("stream?since={revision}"), None);
    let hello = stream.next();
    assert_eq!((hello.name.as_str(), hello.id), ("hello", revision));
    let stalled = stream.change_to("stalled");
    assert_eq!((&stalled.data["agent"], &stalled.data["problem"]), (&json!("worker"), &json!("stalled")));
    assert_eq!(
        stalled.data["id"],
        list["agents"].as_array().unwrap().iter().find(|row| row["name"] == "worker").unwrap()["id"]
    );
    drop(stream);

    // What it misses between two connections comes with the next.
    worker.signal(Signal::Continue);
    server.expect(agent(&worker).up());
    let mut stream = Stream::open(server.address(), "stream", Some(&stalled.id));
    assert_eq!(stream.next().id, stalled.id);
    assert_eq!(stream.change_to("up").data["cause"], "recovered");
    // Who selects an agent has the changes of no other.
    let mut of_other = Stream::open(server.address(), "stream?name=oth*", None);
    assert_eq!(of_other.next().name, "hello");
    worker.signal(Signal::Kill);
    assert_eq!(stream.change_to("down").data["agent"], "worker");
    other.signal(Signal::Kill);
    assert_eq!(of_other.next().data["agent"], "other");
}

#[test]
fn a_reader_that_comes_back_to_another_server_is_told_to_read_all_again() {
    let scratch = Scratch::make();
    let options = || Options::new().in_scratch(&scratch);
    let mut server = Server::start(options());
    let mut stream = Stream::open(server.address(), "stream", None);
    let hello = stream.next();
    server.stop();
    let mut rest = Vec::new();
    stream.lines.read_to_end(&mut rest).unwrap();
    let server = Server::start(options());
    let mut stream = Stream::open(server.address(), "stream", Some(&hello.id));
    assert_ne!(stream.next().id, hello.id);
    let resync = stream.next();
    assert_eq!((resync.name.as_str(), &resync.data["reason"]), ("resync", &json!("another server")));
}

#[test]
fn an_agent_has_its_past_and_its_uptime_also_after_a_restart() {
    let scratch = Scratch::make();
    let options = || {
        Options::from(["--stall-after", "1s"])
            .in_scratch(&scratch)
            .path("--state-dir", &scratch.path("state"))
    };
    let mut server = Server::start(options());
    let worker = server.start_agent(&["--name", "worker"]);
    worker.signal(Signal::Stop);
    server.expect(agent(&worker).stalled());
    let path = |server: &Server| {
        let id = api(server, "agents?name=worker")["agents"][0]["id"].as_str().unwrap().to_owned();
        format!("agents/{}", id.replace('[', "%5B").replace(']', "%5D"))
    };
    let one = api(&server, &path(&server));
    assert!(one["change"]["dossier"].as_str().unwrap().contains("a signal has stopped it"), "{one}");
    // It is there at once, and once only when it is written.
    let told = |server: &Server| {
        let past = api(server, "transitions?state=stalled");
        assert_eq!(past["source"], "history");
        let changes = past["transitions"].as_array().unwrap().clone();
        assert!(changes.len() == 1 && changes[0]["agent"] == "worker", "{past}");
        changes[0]["labels"].is_null() && changes[0]["summary"].is_null()
    };
    wait_until("it is written", || told(&server));
    server.stop();
    let server = Server::start(options());
    worker.signal(Signal::Continue);
    wait_until("it beats again", || api(&server, "agents?name=worker")["agents"][0]["state"] == "up");
    let has = |state: &str| {
        let one = api(&server, &path(&server));
        one["transitions"].as_array().unwrap().iter().any(|change| change["to"] == state)
    };
    wait_until("its past is there", || has("stalled") && has("up"));
    let one = api(&server, &path(&server));
    let uptime = &one["uptime"]["30d"];
    let (up, known) = (uptime["up"].as_f64().unwrap(), uptime["known"].as_f64().unwrap());
    assert!(up > 0.0 && up < 1.0 && known > 0.0 && known < 0.5, "{uptime}");
    let id = one["agent"]["id"].as_str().unwrap();
    let days = api(&server, &format!("days?id={}&id=nobody", id.replace('[', "%5B").replace(']', "%5D")));
    let parts = days["days"][0]["parts"].as_array().unwrap();
    assert_eq!((days["days"].as_array().unwrap().len(), &parts[0]["state"]), (1, &json!("unseen")), "{days}");
    assert!(parts.iter().any(|part| part["state"] == "stalled"), "{days}");
    let badge = server.get("/badge/worker/uptime-7d.svg");
    assert_eq!(badge.header("content-type"), Some("image/svg+xml"));
    assert_eq!(badge.header("cache-control"), Some("no-cache"));
    assert!(badge.body.contains("worker 7d: "), "{}", badge.body);
    assert!(server.get("/badge/worker/health.svg").body.contains("worker: up"));
    assert!(server.get("/badge/nobody/health.json").body.contains("\"message\":\"unknown\""));
}

#[test]
fn acts_need_the_token_for_them_or_the_control_socket() {
    let scratch = Scratch::make();
    let server = Server::start(
        Options::new()
            .path("--metrics-token-file", &token_file(&scratch, "reading", TOKEN))
            .path("--api-token-file", &token_file(&scratch, "acting", ACTING)),
    );
    let pause = r#"{"pattern": "web-*", "for": "10m", "reason": "deploy"}"#;
    let bearer = |token: &str| format!("Authorization: Bearer {token}");
    for (token, status) in [(TOKEN, 403), ("wrong-token-wrong-token", 401), (ACTING, 201)] {
        let head = format!("POST /api/v1/pauses HTTP/1.1\r\n{}", bearer(token));
        assert_eq!(request(&mut connect(server.address()).unwrap(), &head, pause).0, status, "{token}");
    }
    for (header, status) in [(None, 401), (Some(TOKEN), 200), (Some(ACTING), 200)] {
        let value = header.map(|token| format!("Bearer {token}"));
        let headers: Vec<_> = value.iter().map(|value| ("Authorization", value.as_str())).collect();
        let answer = get(server.address(), "/api/v1/pauses", &headers).unwrap();
        assert_eq!(answer.status, status, "{}", answer.body);
        assert_eq!(answer.body.contains("web-*"), status == 200);
        assert!(answer.header("content-security-policy").unwrap().starts_with("default-src 'none'"));
    }
    let local = || UnixStream::connect(server.control_socket()).unwrap();
    let head = "DELETE /api/v1/pauses?pattern=web-* HTTP/1.1";
    let (status, ended) = request(&mut local(), head, "");
    assert_eq!((status, &ended["pause"]["pattern"]), (200, &json!("web-*")), "{ended}");
    let (status, refused) = request(&mut local(), head, "");
    assert_eq!(status, 409, "{refused}");
    for senseless in [
        "",
        "{}",
        r#"{"pattern": "", "for": "1m"}"#,
        r#"{"pattern": "a", "for": "0s"}"#,
        r#"{"pattern":"a","for":"1m","x":1}"#,
    ] {
        let (status, answer) = request(&mut local(), "POST /api/v1/pauses HTTP/1.1", senseless);
        assert_eq!(status, 400, "{senseless}: {answer}");
    }
    let (status, metrics) =
        (get_over(&mut local(), server.address(), "/metrics", &[]).unwrap().status, local());
    assert_eq!(status, 200, "{metrics:?}");
}

#[test]
fn requests_for_another_host_and_acts_from_another_origin_are_refused() {
    let scratch = Scratch::make();
    let server =
        Server::start(Options::new().path("--api-token-file", &token_file(&scratch, "acting", ACTING)));
    let address = server.address();
    let ask = |host: &str, more: &str| {
        let mut stream = connect(address).unwrap();
        write!(stream, "GET /api/v1/status HTTP/1.1\r\nHost: {host}\r\n{more}\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer.split(' ').nth(1).unwrap().to_owned()
    };
    for (host, status) in [
        ("127.0.0.1", "200"),
        ("localhost:80", "200"),
        ("elsewhere.example", "403"),
        ("127.0.0.1.elsewhere.example", "403"),
    ] {
        assert_eq!(ask(host, ""), status, "{host}");
    }
    assert_eq!(ask("elsewhere.example", &format!("Authorization: Bearer {ACTING}\r\n")), "403");
    for (origin, status) in [("http://127.0.0.1", 201), ("http://elsewhere.example", 403), ("null", 403)] {
        let head =
            format!("POST /api/v1/pauses HTTP/1.1\r\nAuthorization: Bearer {ACTING}\r\nOrigin: {origin}");
        let body = r#"{"pattern": "a", "for": "1m"}"#;
        assert_eq!(request(&mut connect(address).unwrap(), &head, body).0, status, "{origin}");
    }
}

#[test]
fn every_answer_is_as_its_description_says() {
    let Some(mut python) = foreign::command("venv/bin/python") else { return };
    let scratch = Scratch::make();
    let server = Server::start(
        Options::from(["--stall-after", "1s", "--replaced-within", "0s"])
            .path("--state-dir", &scratch.path("state"))
            .path("--api-token-file", &token_file(&scratch, "acting", ACTING)),
    );
    let mut workers = ["web-1", "killed"].map(|name| server.start_agent(&["--name", name]));
    server.await_agents("up", 2);
    workers[1].signal(Signal::Kill);
    workers[1].wait();
    workers[0].signal(Signal::Stop);
    server.expect(agent(&workers[0]).stalled());
    let url = format!("http://{}", server.address());
    python.current_dir(scratch.path(".")).args(["-m", "schemathesis.cli", "run"]);
    python.args([&format!("{url}/api/v1/openapi.json"), "--url", &url, "--no-color"]);
    python.args(["--header", &format!("Authorization: Bearer {ACTING}")]);
    // A stream has no end; it has tests of its own.
    python.args(["--exclude-path", "/api/v1/stream", "--seed", "1", "--max-examples", "10"]);
    python.args(["--phases", "examples,coverage,fuzzing", "--checks", "all"]);
    // Who reads needs nothing here; and a cursor does not go with an offset, which a description cannot say.
    python.args(["--exclude-checks", "ignored_auth,positive_data_acceptance"]);
    let ended = run_to_its_end(python);
    assert!(ended.status.success(), "{}\n{}", ended.stdout, ended.stderr);
    workers[0].signal(Signal::Continue);
    assert_eq!(server.get("/healthz").status, 200);
}
