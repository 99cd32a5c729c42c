//! Whose beats are taken on the Unix socket: users and groups that are allowed, and what the log says of the
//! others.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::time::Duration;

use varta_agent::{Admission, Varta};
use varta_integration_tests::foreign::skip;
use varta_integration_tests::sys::{self, NOBODY};
use varta_integration_tests::{AgentProcess, Options, Server, line_with};

/// A group that no user of the host is in.
const GROUP: u32 = 3_999_999_999;
const STALL_AFTER: [&str; 2] = ["--stall-after", "1h"];

/// Whether agents of other users can be started here.
fn is_root() -> bool {
    let is_root = sys::user() == 0;
    if !is_root {
        skip("only root can start an agent of another user");
    }
    is_root
}

fn open_server<const N: usize>(options: [&str; N]) -> Server {
    Server::start(Options::from(STALL_AFTER).args(options).open_to_all())
}

/// Whether a line of the log so far has this in its message.
fn mentions(server: &Server, part: &str) -> bool {
    server
        .log()
        .find_all("")
        .iter()
        .any(|line| line["message"].as_str().is_some_and(|text| text.contains(part)))
}

/// Starts an agent of nobody in one supplementary group.
fn agent_in(server: &Server, group: u32, arguments: &[&str]) -> AgentProcess {
    let (user, group) = (NOBODY.to_string(), group.to_string());
    let all = [&["--user", &user, "--group", &group], arguments].concat();
    AgentProcess::start(server.socket(), &all)
}

#[test]
fn a_user_who_is_refused_is_named_once_with_the_option_that_lets_it_in() {
    if !is_root() {
        return;
    }
    let server = open_server([]);
    let workers = [(); 2].map(|()| agent_in(&server, GROUP, &["--beats", "20", "--interval-ms", "5"]));
    server.await_scrape("all beats are refused", |scrape| scrape.outcome("uid_refused") == 40.0);
    for worker in &workers {
        let who = format!("process {} of uid {NOBODY}", worker.pid());
        let line = server.expect(line_with(&who).with(&format!("--allow-uid {NOBODY}")).with("--allow-gid"));
        assert_eq!((&line["uid"], &line["pid"]), (&NOBODY.into(), &worker.pid().into()), "{line}");
        assert_eq!(line["reason"], "uid_refused");
        assert_eq!(line["level"], "WARN");
        assert_eq!(
            server.log().find_all(&format!("datagrams of {who}")).len(),
            1,
            "one line for twenty beats"
        );
    }
}

#[test]
fn the_option_that_the_log_names_lets_the_user_in_by_number_or_name() {
    if !is_root() {
        return;
    }
    for user in ["65534", "nobody"] {
        let server = open_server(["--allow-uid", user]);
        let worker = agent_in(&server, GROUP, &[]);
        server.await_beats(&[worker.pid()], 3);
        assert_eq!(server.scrape().outcome("uid_refused"), 0.0);
    }
}

#[test]
fn a_user_that_is_allowed_is_one_more_and_takes_nobodys_place() {
    let server =
        Server::start(Options::from(STALL_AFTER).args(["--allow-uid", "4711", "--allow-gid", "4711"]));
    let worker = AgentProcess::start(server.socket(), &[]);
    server.await_beats(&[worker.pid()], 3);
    assert_eq!(server.scrape().outcome("uid_refused"), 0.0);
}

#[test]
fn a_member_of_an_allowed_group_is_heard_whether_the_group_is_primary_or_supplementary() {
    if !is_root() {
        return;
    }
    let server = open_server(["--allow-gid", &GROUP.to_string()]);
    let member = agent_in(&server, GROUP, &[]);
    let stranger = agent_in(&server, GROUP - 1, &["--beats", "5"]);
    server.await_beats(&[member.pid()], 5);
    let scrape = server.await_scrape("the other is refused", |scrape| scrape.outcome("uid_refused") == 5.0);
    assert_eq!(scrape.value("varta_watch_pids_tracked", &[]), 1.0);
    drop(stranger);
    let server = open_server(["--allow-gid", &NOBODY.to_string()]);
    let primary = agent_in(&server, GROUP, &[]);
    server.await_beats(&[primary.pid()], 3);
}

#[test]
fn a_user_who_is_allowed_and_cannot_open_the_socket_is_a_warning_at_the_start() {
    let server =
        Server::start(Options::from(STALL_AFTER).args(["--allow-uid", "3999999998", "--allow-gid", "4711"]));
    server.expect(line_with("uid 3999999998 is allowed to beat and cannot open").with("--socket-mode"));
    server.expect(line_with("gid 4711 is allowed to beat and cannot open"));
    let server = open_server(["--allow-uid", "3999999998"]);
    server.expect(line_with("every user of this host can open").with("--socket-mode 0660"));
    assert!(!mentions(&server, "cannot open"));
    let server = Server::start(STALL_AFTER);
    assert!(
        !mentions(&server, "can open") && !mentions(&server, "cannot open"),
        "the default keeps others out and allows none"
    );
}

#[test]
fn an_agent_that_asks_is_told_that_its_beats_are_taken() {
    let server = Server::start(STALL_AFTER);
    let agent = Varta::connect(server.socket()).unwrap();
    assert_eq!(agent.check(Duration::from_secs(60)).unwrap(), Admission::Accepted);
}
