//! Who watches the watcher: what the server says to others about itself.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::fs;
use std::path::PathBuf;

use nix::sys::{ptrace, wait};
use nix::unistd::Pid;
use varta_integration_tests::foreign::skip;
use varta_integration_tests::{
    Options, Receiver, Reply, Request, Server, agent, line, metric, refused_start, wait_until,
};

/// The thread of the server that runs the listeners and the tracker.
fn tracker_thread(server: &Server) -> Pid {
    let threads = fs::read_dir(format!("/proc/{}/task", server.pid())).unwrap();
    let is_it = |thread: &PathBuf| fs::read_to_string(thread.join("comm")).unwrap().trim() == "varta-ingest";
    let thread =
        threads.map(|thread| thread.unwrap().path()).find(is_it).expect("the server has such a thread");
    Pid::from_raw(thread.file_name().unwrap().to_str().unwrap().parse().unwrap())
}

/// Stops the tracker, as one that hangs, and nothing else of the server. Whether that is possible here.
fn hang(tracker: Pid) -> bool {
    if let Err(error) = ptrace::seize(tracker, ptrace::Options::empty()) {
        skip(&format!("no thread can be stopped here: {error}"));
        return false;
    }
    ptrace::interrupt(tracker).unwrap();
    wait::waitpid(tracker, Some(wait::WaitPidFlag::__WALL)).unwrap();
    true
}

fn paths(requests: &[Request]) -> Vec<&str> {
    requests.iter().map(|request| request.line.split(' ').nth(1).unwrap()).collect()
}

#[test]
fn a_url_gets_the_start_and_then_how_the_agents_are_while_the_tracker_turns() {
    let watcher = Receiver::start([]);
    let every = ["--heartbeat-every", "1s", "--heartbeat-url", &watcher.url("/secret")];
    let mut server = Server::start(Options::new().args(every));
    let requests = watcher.await_requests(2);
    assert_eq!(paths(&requests[..2]), ["/secret/start", "/secret"]);
    assert_eq!(requests[1].line, "POST /secret HTTP/1.1");
    assert_eq!((requests[0].body.as_str(), requests[1].body.as_str()), ("starting", "no agents"));
    let _agent = server.start_agent(&[]);
    watcher.await_that("the agent is in a heartbeat", |requests| {
        requests.last().is_some_and(|request| request.body == "1 agent: 1 up")
    });

    if hang(tracker_thread(&server)) {
        // One may have been on its way.
        assert_eq!(server.get("/healthz").status, 200, "the rest of the server runs");
        let before = watcher.requests().len();
        for _ in 0..3 {
            // A second each.
            assert_eq!(server.get("/readyz").status, 503, "the tracker hangs");
        }
        assert!(watcher.requests().len() <= before + 1, "the tracker hangs");
        ptrace::detach(tracker_thread(&server), None).unwrap();
        watcher.await_requests(before + 2);
    }
    server.stop();
    assert!(!paths(&watcher.requests()).contains(&"/secret/fail"), "that was no error");
    assert!(server.log().lines().iter().all(|line| !line.contains("/secret")));
}

#[test]
fn a_url_that_does_not_take_heartbeats_is_told_of_once_and_tried_again() {
    let watcher = Receiver::start([503, 503, 503].map(|status| Reply::status(status, "", "not today")));
    let every = ["--heartbeat-every", "1s", "--heartbeat-url", &watcher.url("/secret")];
    let server = Server::start(Options::new().args(every));
    server.expect(line("a heartbeat to http://").with("/… is not taken: 503").with("not today"));
    server.expect(line("heartbeats to http://").with("are taken again"));
    let failed =
        |outcome| metric("varta_heartbeats_total").with("destination", "url").with("outcome", outcome);
    server.expect(failed("failed").is(3.0));
    server.expect(failed("sent").at_least(1.0));
    wait_until("the fourth is taken", || watcher.requests().len() >= 4);
    let told = server.log().lines().iter().filter(|line| line.contains("a heartbeat to")).count();
    assert_eq!(told, 1);
}

/// A server that watches, and one that beats to it.
fn two_servers(over_udp: bool) -> (Server, Server) {
    let other = Server::start(if over_udp { Options::new().udp("127.0.0.1:0") } else { Options::new() });
    let to = if over_udp {
        format!("udp:{}", other.udp_address(0))
    } else {
        format!("unix:{}", other.socket().display())
    };
    let server = Server::start(Options::new().args(["--beat-to", &to, "--beat-every", "200ms"]));
    other.expect(agent(server.pid()).up());
    (other, server)
}

#[test]
fn another_server_says_that_one_is_stalled_that_is_stopped_and_gone_after_an_orderly_stop() {
    for over_udp in [false, true] {
        let (other, mut server) = two_servers(over_udp);
        server.pause();
        other.expect(agent(server.pid()).stalled());
        server.resume();
        other.expect(agent(server.pid()).up().from("stalled"));
        server.stop();
        other.expect(agent(server.pid()).gone());
        let names = other.log().lines();
        assert!(names.iter().any(|line| line.contains("varta-server@")), "{names:#?}");
    }
}

#[test]
fn another_server_says_that_one_is_stalled_whose_tracker_hangs_though_the_rest_of_it_runs() {
    let (other, server) = two_servers(false);
    let tracker = tracker_thread(&server);
    if !hang(tracker) {
        return;
    }
    other.expect(agent(server.pid()).stalled());
    assert_eq!(server.get("/healthz").status, 200, "the rest of the server runs");
    ptrace::detach(tracker, None).unwrap();
    other.expect(agent(server.pid()).up().from("stalled"));
}

#[test]
fn a_server_that_failed_is_down_for_another_and_one_that_does_not_run_yet_is_found_later() {
    let (other, server) = two_servers(false);
    server.signal(varta_integration_tests::Signal::Kill);
    other.expect(agent(server.pid()).down());

    let scratch = varta_integration_tests::Scratch::make();
    let to = format!("unix:{}", scratch.socket().display());
    let server = Server::start(Options::new().args(["--beat-to", &to, "--beat-every", "200ms"]));
    server.expect(line(&format!("a beat to {to} cannot be sent: ")));
    let other = Server::start(Options::new().socket(&scratch.socket()));
    other.expect(agent(server.pid()).up());
    server.expect(line(&format!("beats to {to} are sent again")));
}

#[test]
fn what_is_no_hardware_watchdog_is_refused() {
    let scratch = varta_integration_tests::Scratch::make();
    let file = scratch.write("watchdog", "text");
    let pipe = scratch.directory().join("pipe");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::from_bits_truncate(0o600)).unwrap();
    let null = PathBuf::from("/dev/null");
    let no_device = "is no character device; a watchdog is one, such as /dev/watchdog0";
    for (path, fault) in [(&file, no_device), (&pipe, no_device), (&null, "is a device, but no watchdog")] {
        let path = path.to_str().unwrap();
        let said = refused_start(2, &scratch.socket(), ["--hw-watchdog", path]);
        assert!(said.contains(&format!("--hw-watchdog: {path}: {fault}")), "{said}");
    }
    assert_eq!(fs::read_to_string(&file).unwrap(), "text");
}
