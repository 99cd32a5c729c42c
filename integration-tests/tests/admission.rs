//! Whose beats are taken on the Unix socket: users and groups that are allowed, and what the log says of the
//! others.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use varta_agent::{Admission, Varta};
use varta_integration_tests::foreign::skip;
use varta_integration_tests::sys::{self, NOBODY};
use varta_integration_tests::{
    AgentProcess, Options, Scratch, Server, agent, line_with, service_command, wait_until,
};

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

/// A service of nobody with a heartbeat.
fn service_of_nobody(socket: &Path) -> AgentProcess {
    let mut command = service_command();
    command.arg("--socket").arg(socket).args(["--user", &NOBODY.to_string()]);
    AgentProcess::run(command)
}

/// Waits until the heartbeat of a service knows this of its beats, and gives all that it knows.
fn await_admission(service: &mut AgentProcess, expected: &str) -> String {
    let mut known = String::new();
    wait_until(&format!("the heartbeat knows that its beats are {expected}"), || {
        known = service.ask("admission");
        known.starts_with(&format!("ok {expected}"))
    });
    known
}

/// Waits until the log of a service has this, and gives all of it. What the heartbeat knows it logs afterwards.
fn await_log(service: &mut AgentProcess, text: &str) -> String {
    let mut log = String::new();
    wait_until(&format!("the log of the service has: {text}"), || {
        log = service.ask("log");
        log.contains(text)
    });
    log
}

#[test]
fn an_agent_of_another_user_is_told_by_its_check_and_by_its_heartbeat_why_it_is_refused() {
    if !is_root() {
        return;
    }
    let scratch = Scratch::make();
    fs::set_permissions(scratch.directory(), Permissions::from_mode(0o711)).unwrap();
    let open = |options: &[&str]| {
        let options = Options::from(STALL_AFTER).args(options.iter().copied());
        Server::start(options.socket(&scratch.socket()).open_to_all())
    };
    let mut server = open(&[]);
    let mut service = service_of_nobody(&scratch.socket());
    let advice = format!("--allow-uid {NOBODY}");
    let told = await_admission(&mut service, "refused uid_refused ");
    assert!(told.contains(&advice), "{told}");
    assert_eq!(service.ask("check"), told);
    let who = format!("datagrams of process {} of uid {NOBODY}", service.pid());
    server.expect(line_with(&who).with(&advice));
    server.await_scrape("more beats are refused", |scrape| scrape.outcome("uid_refused") >= 5.0);
    assert_eq!(server.log().find_all(&who).len(), 1, "the server says it once");
    let log = await_log(&mut service, "the server refuses the beats of this process (uid_refused): ");
    assert_eq!(log.matches("WARN").count(), 1, "the agent says it once: {log}");
    assert!(log.contains(&advice), "{log}");

    // A server that lets it in is asked again.
    server.stop();
    let server = open(&["--allow-uid", "nobody"]);
    server.expect(agent(&service).up());
    await_admission(&mut service, "accepted");
    assert_eq!(service.ask("check"), "ok accepted");
    let log = await_log(&mut service, "the server takes the beats of this process");
    assert_eq!((log.matches("WARN").count(), log.matches("INFO").count()), (1, 1), "{log}");
}

#[test]
fn an_agent_that_may_not_open_the_socket_is_told_so_and_what_to_do() {
    if !is_root() {
        return;
    }
    let scratch = Scratch::make();
    fs::set_permissions(scratch.directory(), Permissions::from_mode(0o711)).unwrap();
    let server = Server::start(Options::from(STALL_AFTER).socket(&scratch.socket()));
    let mut service = service_of_nobody(server.socket());
    let told = await_admission(&mut service, "refused no_permission ");
    assert!(told.contains(server.socket().to_str().unwrap()) && told.contains("--socket-mode"), "{told}");
    assert_eq!(service.ask("check"), told);
    let log = service.ask("log");
    assert!(log.contains("WARN") && log.contains("(no_permission): this process may not open"), "{log}");
}

#[test]
fn an_agent_that_asks_is_told_that_its_beats_are_taken() {
    let server = Server::start(STALL_AFTER);
    let agent = Varta::connect(server.socket()).unwrap();
    assert_eq!(agent.check(Duration::from_secs(60)).unwrap(), Admission::Accepted);
}
