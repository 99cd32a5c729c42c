//! The socket for notifications (`--notify-socket`): services that speak sd_notify(3) are agents.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

use std::path::PathBuf;

use varta_integration_tests::{
    AgentProcess, Options, Scratch, Server, Signal, agent, children, into_pid_namespace, line_with, metric,
    notifier_command, pid_namespaces_work, sys, wait_until,
};

/// A server with a socket for notifications, and services that speak to it.
struct Bridge {
    scratch: Scratch,
    server: Server,
    address: String,
}

impl Bridge {
    fn start() -> Self {
        Self::with(Options::new())
    }

    fn with(options: Options) -> Self {
        let scratch = Scratch::make();
        let address = scratch.path("notify").to_str().unwrap().to_owned();
        let server = Server::start(options.args(["--stall-after", "1h", "--notify-socket", &address]));
        Bridge { scratch, server, address }
    }

    fn service(&self) -> AgentProcess {
        AgentProcess::run(notifier_command(&self.address))
    }

    /// A service that is known, which takes a moment: it could be a tool.
    fn ready_service(&self) -> AgentProcess {
        let mut service = self.service();
        tell(&mut service, "say READY=1");
        self.server.expect(agent(&service).over("notify").up().because("first_beat"));
        service
    }

    fn count(&self, outcome: &str) -> f64 {
        self.server.scrape().sum("varta_frames_total", &[("transport", "notify"), ("outcome", outcome)])
    }
}

#[track_caller]
fn tell(service: &mut AgentProcess, command: &str) -> String {
    let answer = service.ask(command);
    let said = answer.strip_prefix("ok").unwrap_or_else(|| panic!("to {command} it says {answer}"));
    said.trim().to_owned()
}

/// As many milliseconds as services are given keep-alives for.
const WATCHDOG: &str = "WATCHDOG_USEC=1500000";

#[test]
fn a_service_that_is_ready_is_up_and_its_end_is_told_as_that_of_any_agent() {
    let bridge = Bridge::start();
    let server = &bridge.server;
    let (killed, mut failed, mut ended) =
        (bridge.ready_service(), bridge.ready_service(), bridge.ready_service());
    server.expect(metric("varta_notify_services").is(3.0));
    killed.signal(Signal::Kill);
    server.expect(agent(&killed).over("notify").down().because("killed"));
    failed.ask("exit 3");
    server.expect(agent(&failed).down().because("exited").exit_code(3));
    ended.ask("exit 0");
    server.expect(agent(&ended).gone().because("exited"));
    server.expect(metric("varta_notify_services").is(0.0));
}

#[test]
fn a_service_that_ends_badly_right_after_it_was_ready_is_told() {
    let bridge = Bridge::start();
    let mut service = bridge.service();
    tell(&mut service, "say READY=1\\nSTATUS=booted");
    service.ask("exit 3");
    bridge.server.expect(agent(&service).down().because("exited").exit_code(3));
}

#[test]
fn who_stops_in_order_is_gone_whatever_it_ends_with_and_what_it_says_after_that_is_no_sign_of_life() {
    let bridge = Bridge::start();
    let mut service = bridge.ready_service();
    tell(&mut service, "say STOPPING=1\\nSTATUS=closing");
    bridge.server.expect(agent(&service).gone().because("goodbye"));
    tell(&mut service, "say WATCHDOG=1");
    service.ask("exit 9");
    let mut other = bridge.ready_service();
    tell(&mut other, "say STATUS=all before has been read");
    bridge.server.expect_history(&service, &["up: first_beat", "gone: goodbye"]);
}

#[test]
fn a_keep_alive_that_does_not_come_within_its_time_is_a_stall_and_one_that_comes_ends_it() {
    let bridge = Bridge::start();
    let server = &bridge.server;
    let mut service = bridge.ready_service();
    tell(&mut service, &format!("say {WATCHDOG}\\nWATCHDOG=1"));
    server.expect(agent(&service).stalled());
    tell(&mut service, "say STATUS=a status is no keep-alive");
    tell(&mut service, "say WATCHDOG=1");
    server.expect(agent(&service).up().because("recovered"));
    // One that is stopped is told by what it does.
    tell(&mut service, "say WATCHDOG=1");
    service.signal(Signal::Stop);
    server.expect(agent(&service).stalled().seen_as("stopped"));
    service.signal(Signal::Continue);
}

#[test]
fn a_service_that_never_sends_a_keep_alive_is_not_missed_and_one_that_triggers_is_critical_at_once() {
    let bridge = Bridge::with(Options::from(["--longest-silence", "2s"]));
    let mut service = bridge.ready_service();
    let mut clock = bridge.ready_service();
    // The other is stalled twice: the silent one had time enough to be.
    for _ in 0..2 {
        tell(&mut clock, &format!("say {WATCHDOG}\\nWATCHDOG=1"));
        bridge.server.expect(agent(&clock).stalled());
    }
    bridge.server.expect_history(&service, &["up: first_beat"]);
    tell(&mut service, "say WATCHDOG=trigger\\nSTATUS=the disk is gone");
    bridge.server.expect(agent(&service).up().with_status("critical"));
    bridge.server.expect(line_with("it reports critical").with("(\"the disk is gone\")"));
}

#[test]
fn a_tool_speaks_for_the_process_that_started_it() {
    let bridge = Bridge::start();
    let mut service = bridge.service();
    tell(&mut service, "tool READY=1");
    bridge.server.expect(agent(&service).over("notify").up());
    tell(&mut service, &format!("tool {WATCHDOG}\\nWATCHDOG=1"));
    bridge.server.expect(agent(&service).stalled());
    tell(&mut service, "tool WATCHDOG=1");
    bridge.server.expect(agent(&service).up().because("recovered"));
    tell(&mut service, "tool STOPPING=1");
    bridge.server.expect(agent(&service).gone());
    assert_eq!(bridge.server.scrape().value("varta_notify_services", &[]), 1.0, "no tool is a service");
}

#[test]
fn what_a_part_of_a_service_says_of_itself_is_not_its_services_and_it_may_take_its_place() {
    let bridge = Bridge::start();
    let mut service = bridge.ready_service();
    let heir: u32 = tell(&mut service, "beneath READY=1").parse().unwrap();
    let failing: u32 = tell(&mut service, "beneath STOPPING=1\\nERRNO=5").parse().unwrap();
    // When a third one is known, the first two have been decided on.
    bridge.ready_service();
    bridge.server.expect_history(&service, &["up: first_beat"]);
    sys::send_signal(failing, Signal::Kill).unwrap();
    service.signal(Signal::Kill);
    bridge.server.expect(agent(&service).down());
    bridge.server.expect(agent(heir).over("notify").up());
    sys::send_signal(heir, Signal::Kill).unwrap();
}

#[test]
fn a_forged_main_process_is_refused_and_counted_and_kin_may_be_named() {
    let bridge = Bridge::start();
    let (mut service, victim) = (bridge.ready_service(), bridge.ready_service());
    for forged in [1, bridge.server.pid(), 4_194_303] {
        tell(&mut service, &format!("say MAINPID={forged}"));
    }
    bridge.server.expect(metric("varta_notify_main_pid_refused_total").is(3.0));
    bridge.server.expect_history(&victim, &["up: first_beat"]);
    let child: u32 = tell(&mut service, "beneath STATUS=hello").parse().unwrap();
    tell(&mut service, &format!("say MAINPID={child}"));
    bridge.server.expect(agent(&service).gone());
    bridge.server.expect(agent(child).over("notify").up());
    sys::send_signal(child, Signal::Kill).unwrap();
}

#[test]
fn descriptors_that_come_along_are_closed_at_once_and_a_barrier_is_answered() {
    let bridge = Bridge::start();
    let mut service = bridge.ready_service();
    let descriptors = |pid: u32| std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count();
    let before = descriptors(bridge.server.pid());
    for _ in 0..20 {
        tell(&mut service, "carry 253 FDSTORE=1\\nFDNAME=x");
    }
    tell(&mut service, "barrier");
    // The server may open one or the other of its own meanwhile.
    wait_until("all are closed", || descriptors(bridge.server.pid()) <= before + 16);
    bridge.server.expect_history(&service, &["up: first_beat"]);
}

#[test]
fn what_makes_no_sense_is_counted_and_changes_nothing() {
    let bridge = Bridge::start();
    let mut service = bridge.ready_service();
    let before = bridge.server.scrape();
    tell(&mut service, "big 1000000");
    for message in
        ["", "\\n\\n", "=", ")", "READY=0", "\u{1b}[2J", "X_OTHER=1", "MAINPID=-1", "WATCHDOG_USEC=x"]
    {
        tell(&mut service, &format!("say {message}"));
    }
    let stranger = notifier_command(&bridge.address).args(["--once", "STOPPING=1"]).status().unwrap();
    assert!(stranger.success());
    bridge.server.expect(
        metric("varta_frames_total").with("transport", "notify").with("outcome", "unattributed").is(1.0),
    );
    let changes = bridge.server.scrape().changes_since(&before);
    let told: Vec<_> = changes.iter().filter(|(row, _)| row.contains("varta_frames_total")).collect();
    assert_eq!(bridge.count("bad_length"), 1.0, "{told:?}");
    assert_eq!(bridge.count("accepted"), 11.0, "{told:?}");
    bridge.server.expect_history(&service, &["up: first_beat"]);
}

#[test]
fn the_books_balance_whatever_comes_and_whoever_stops() {
    let bridge = Bridge::start();
    let mut sent = 0.0;
    let mut service = bridge.ready_service();
    sent += 1.0;
    for message in ["WATCHDOG=1", "STATUS=x", "MAINPID=1", "", "STOPPING=1", "WATCHDOG=1"] {
        tell(&mut service, &format!("say {message}"));
        sent += 1.0;
    }
    for _ in 0..5 {
        tell(&mut service, "tool WATCHDOG=1");
        // The message, and a barrier.
        sent += 2.0;
    }
    bridge.server.await_scrape("each message is in one row", |scrape| {
        scrape.sum("varta_frames_total", &[("transport", "notify")]) == sent
    });
}

#[test]
fn a_service_of_another_user_is_refused_and_told_in_the_log_until_it_is_allowed() {
    if sys::user() != 0 {
        return;
    }
    let bridge = Bridge::start();
    let as_nobody = |address: &str| {
        let mut command = notifier_command(address);
        std::os::unix::process::CommandExt::uid(&mut command, 65_534);
        AgentProcess::run(command)
    };
    let mut service = as_nobody(&bridge.address);
    tell(&mut service, "say READY=1");
    bridge.server.expect(line_with("65534").with("--allow-uid"));
    assert_eq!(bridge.count("uid_refused"), 1.0);
    let bridge = Bridge::with(Options::from(["--allow-uid", "65534"]));
    let mut service = as_nobody(&bridge.address);
    tell(&mut service, "say READY=1");
    bridge.server.expect(agent(&service).over("notify").up());
}

#[test]
fn a_main_pid_of_a_container_is_the_process_that_has_it_there() {
    if !pid_namespaces_work() {
        return;
    }
    let bridge = Bridge::start();
    let mut service = AgentProcess::run(into_pid_namespace(&notifier_command(&bridge.address)));
    tell(&mut service, "say READY=1\\nMAINPID=1");
    // The process beneath `unshare` is number 1 there.
    let inner = children(service.pid())[0];
    bridge.server.expect(agent(inner).over("notify").up());
    assert_eq!(bridge.server.scrape().value("varta_notify_main_pid_refused_total", &[]), 0.0);
}

#[test]
fn an_abstract_name_serves_as_well_and_both_lead_to_one_service() {
    let scratch = Scratch::make();
    let path = scratch.path("notify").to_str().unwrap().to_owned();
    let name = format!("@varta-test-{}", std::process::id());
    let server = Server::start(["--stall-after", "1h", "--notify-socket", &path, "--notify-socket", &name]);
    let mut service = AgentProcess::run(notifier_command(&name));
    tell(&mut service, "say READY=1");
    server.expect(agent(&service).over("notify").up());
    let mut through_path = AgentProcess::run(notifier_command(&path));
    tell(&mut through_path, "say READY=1");
    server.expect(agent(&through_path).up());
    through_path.signal(Signal::Kill);
    server.expect(agent(&through_path).down());
    server.expect(metric("varta_notify_services").is(1.0));
}

#[test]
fn a_service_outlives_restarts_of_the_server_that_was_killed_and_nobody_is_accused() {
    let scratch = Scratch::make();
    let (address, state) = (scratch.path("notify"), scratch.path("state"));
    let options = || {
        Options::from(["--stall-after", "1h"])
            .path("--notify-socket", &address)
            .path("--state-dir", &state)
            .socket(&scratch.path("varta.sock"))
    };
    let mut server = Server::start(options());
    let mut service = AgentProcess::run(notifier_command(address.to_str().unwrap()));
    tell(&mut service, "say READY=1");
    server.expect(agent(&service).over("notify").up());
    server.stop();
    let server = Server::start(options());
    server.expect(metric("varta_agents").with("state", "up").is(1.0));
    server.expect(metric("varta_notify_services").is(1.0));
    service.signal(Signal::Kill);
    server.expect(agent(&service).over("notify").down());
}

#[test]
fn the_socket_comes_and_goes_with_a_reload_and_is_made_again_when_its_file_is_removed() {
    let bridge = Bridge::start();
    let mut before = bridge.ready_service();
    std::fs::remove_file(&bridge.address).unwrap();
    wait_until("it is there again", || PathBuf::from(&bridge.address).exists());
    bridge.ready_service();
    tell(&mut before, "say STOPPING=1");
    bridge.server.expect(agent(&before).gone());

    let scratch = Scratch::make();
    let address = scratch.path("notify");
    let with = format!("notify-socket = [{:?}]\n", address.display());
    let config = scratch.write("varta.toml", "");
    let server = Server::start(Options::new().path("--config", &config));
    scratch.write("varta.toml", &with);
    assert!(server.reload().status.success());
    let mut service = AgentProcess::run(notifier_command(address.to_str().unwrap()));
    tell(&mut service, "say READY=1");
    server.expect(agent(&service).over("notify").up());
    scratch.write("varta.toml", "");
    assert!(server.reload().status.success());
    assert!(!address.exists());
    service.signal(Signal::Kill);
    server.expect(agent(&service).down());
}

#[test]
fn a_flood_holds_up_nobody_and_takes_no_memory() {
    let bridge = Bridge::start();
    let mut service = bridge.ready_service();
    let _ = &bridge.scratch;
    for _ in 0..2_000 {
        tell(&mut service, "say STATUS=flood");
    }
    let other = bridge.ready_service();
    other.signal(Signal::Kill);
    bridge.server.expect(agent(&other).down());
    bridge.server.expect_history(&service, &["up: first_beat"]);
}
