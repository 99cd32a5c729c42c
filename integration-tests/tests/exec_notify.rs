//! `varta-server exec --beat notify`: a command that speaks sd_notify(3) beats by its keep-alives.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use varta_integration_tests::foreign::skip;
use varta_integration_tests::{
    ExecProcess, Scratch, Server, Signal, agent, exec_command, run_to_its_end, sys, wait_until,
};

const NO_OPTIONS: [&str; 0] = [];
const SHORT: Duration = Duration::from_millis(600);
/// Sends each line of its input as a message, with `;` for the ends of lines.
const SENDER: &str = "\
import os, socket, sys
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
s.connect(os.environ['NOTIFY_SOCKET'])
print('deadline', os.environ.get('WATCHDOG_USEC'), os.environ.get('WATCHDOG_PID'), flush=True)
for line in sys.stdin:
    s.send(line.strip().replace(';', '\\n').encode())
    print('sent', line.strip(), flush=True)
";

fn has_python() -> bool {
    let has = Command::new("python3").arg("--version").output().is_ok_and(|output| output.status.success());
    if !has {
        skip("there is no python3 here");
    }
    has
}

/// A command that sends what it is told.
fn sender(server: &Server, options: &[&str]) -> ExecProcess {
    let mut exec = exec_command(server.socket(), options, &["python3", "-c", SENDER]);
    exec.env("WATCHDOG_PID", "1").env("PATH", "/usr/bin:/bin");
    ExecProcess::run(exec)
}

#[test]
fn a_keep_alive_is_a_beat_and_the_command_is_told_the_deadline() {
    if !has_python() {
        return;
    }
    let server = Server::start(NO_OPTIONS);
    let options = ["--beat=notify", "--every=10ms", "--stall-after=20s", "--name=speaker"];
    let mut exec = sender(&server, &options);
    exec.await_printed("deadline 20000000 None\n");
    server.expect(agent("speaker").up());
    for round in 2..6 {
        exec.tell("STATUS=well;WATCHDOG=1");
        server.await_scrape("each keep-alive is a beat", |scrape| {
            scrape.get("varta_beats_total", &[("pid", &exec.pid().to_string())]) >= Some(f64::from(round))
        });
    }
    exec.tell("WATCHDOG=trigger");
    server.expect(agent("speaker").up().with_status("critical"));
    exec.tell("WATCHDOG=1");
    server.expect(agent("speaker").up().from("up").with_status("ok"));
    exec.signal(Signal::Terminate);
    let _ = exec.wait();
    server.expect(agent("speaker").gone());
}

#[test]
fn a_command_that_stops_its_keep_alives_is_stalled() {
    if !has_python() {
        return;
    }
    let server = Server::start(NO_OPTIONS);
    let mut exec = sender(&server, &["--beat=notify", "--every=10ms", "--stall-after=600ms"]);
    exec.await_printed("deadline 600000 None\n");
    exec.tell("READY=1;WATCHDOG=1");
    server.expect(agent(exec.pid()).stalled().within(SHORT));
    exec.tell("WATCHDOG=1");
    server.expect(agent(exec.pid()).up().from("stalled"));
}

#[test]
fn a_command_that_says_that_it_takes_longer_is_given_the_time() {
    if !has_python() {
        return;
    }
    let server = Server::start(NO_OPTIONS);
    let mut exec = sender(&server, &["--beat=notify", "--every=10ms", "--stall-after=300ms"]);
    exec.await_printed("deadline 300000 None\n");
    exec.tell("WATCHDOG=1;EXTEND_TIMEOUT_USEC=3600000000");
    exec.await_printed("sent WATCHDOG=1;EXTEND");
    let mut other =
        sender(&server, &["--beat=notify", "--every=10ms", "--stall-after=900ms", "--name=other"]);
    other.tell("WATCHDOG=1");
    // It was told later to be silent for longer.
    server.expect(agent("other").stalled().within(2 * SHORT));
    assert!(!server.history(exec.pid()).iter().any(|change| change.starts_with("stalled")));
}

#[test]
fn the_deadline_that_the_command_says_counts_from_then_on() {
    if !has_python() {
        return;
    }
    let server = Server::start(NO_OPTIONS);
    let mut exec = sender(&server, &["--every=1m", "--stall-after=1h", "--ready-within=2h", "--name=own"]);
    exec.await_printed("deadline 3600000000 None\n");
    exec.tell("WATCHDOG_USEC=600000");
    let deadline = |seconds: f64| {
        let what = format!("the deadline is {seconds} s");
        server.await_scrape(&what, |scrape| {
            scrape.get("varta_agent_stall_after_seconds", &[("agent", "own")]) == Some(seconds)
        });
    };
    deadline(0.6);
    exec.tell("WATCHDOG=1");
    server.expect(agent("own").stalled().within(SHORT));
    exec.tell("WATCHDOG=1");
    server.expect(agent("own").up().from("stalled"));
    exec.tell("WATCHDOG_USEC=0;WATCHDOG=1");
    exec.tell("WATCHDOG_USEC=1800000000");
    deadline(1800.0);
}

#[test]
fn who_says_nothing_by_then_is_stalled_and_its_user_is_told_to_choose() {
    let server = Server::start(NO_OPTIONS);
    let options = ["--ready-within=300ms", "--every=10ms", "--stall-after=200ms"];
    let exec = ExecProcess::start(server.socket(), &options, "exec sleep 1000");
    exec.await_said(
        "sh has sent no keep-alive by sd_notify within 300ms, and is not known to be well; choose",
    );
    exec.await_said("--beat alive, output or check=CMD");
    server.expect(agent(exec.pid()).stalled().within(SHORT));
}

#[test]
fn a_short_command_need_not_say_anything() {
    let server = Server::start(NO_OPTIONS);
    let ended = ExecProcess::start(server.socket(), &["--name=short"], "echo done").wait();
    assert_eq!((ended.stdout.as_str(), ended.stderr.as_str()), ("done\n", ""));
    server.expect(agent("short").gone().because("goodbye"));
    let ended = ExecProcess::start(server.socket(), &["--name=short2"], "exit 3").wait();
    assert_eq!(ended.status.code(), Some(3));
    server.expect(agent("short2").down().exit_code(3));
}

#[test]
fn without_notify_the_command_has_the_socket_of_the_service_manager_and_with_it_the_manager_is_told() {
    if !has_python() {
        return;
    }
    let scratch = Scratch::make();
    let path = scratch.path("manager");
    let manager = UnixDatagram::bind(&path).unwrap();
    let run = |source: &str| {
        let mut exec = exec_command(&scratch.socket(), &[source], &["python3", "-c", SENDER]);
        exec.env("NOTIFY_SOCKET", &path).env("WATCHDOG_USEC", "7000000").env("PATH", "/usr/bin:/bin");
        let mut exec = ExecProcess::run(exec);
        exec.await_printed("deadline 7000000");
        exec.tell("READY=1;MAINPID=1");
        let mut room = [0; 100];
        let length = manager.recv(&mut room).unwrap();
        exec.signal(Signal::Terminate);
        let _ = exec.wait();
        String::from_utf8_lossy(&room[..length]).into_owned()
    };
    assert_eq!(run("--beat=alive"), "READY=1\nMAINPID=1");
    assert_eq!(run("--beat=notify"), "READY=1");
}

#[test]
fn helpers_and_other_users_speak_for_the_command_and_its_socket_goes_with_it() {
    if sys::user() != 0 || !has_python() {
        return skip("only root becomes another user");
    }
    let server = Server::start(NO_OPTIONS);
    // A helper of another user is believed for as long as it can be seen whose child it is: it waits for a line.
    let send = "import os,socket,sys; s=socket.socket(socket.AF_UNIX,socket.SOCK_DGRAM); \
                s.sendto(b\"WATCHDOG=1\", os.environ[\"NOTIFY_SOCKET\"]); sys.stdin.buffer.raw.read(1)";
    let script = format!(
        "echo socket $NOTIFY_SOCKET; while read who; do setpriv --reuid=$who --regid=$who --clear-groups \
         python3 -c '{send}'; done; exit 0"
    );
    let mut command = exec_command(
        server.socket(),
        &["--beat=notify", "--every=10ms", "--stall-after=30s"],
        &["sh", "-c", &script],
    );
    command.env("PATH", "/usr/bin:/bin");
    let mut exec = ExecProcess::run(command);
    exec.await_printed("socket /");
    for (round, who) in (2..).zip(["0", "65534"]) {
        exec.tell(who);
        server.await_scrape("the helper's keep-alive is a beat", |scrape| {
            scrape.get("varta_beats_total", &[("pid", &exec.pid().to_string())]) >= Some(f64::from(round))
        });
        exec.tell("");
    }
    let socket = exec.printed().trim().strip_prefix("socket ").unwrap().to_owned();
    assert!(Path::new(&socket).exists());
    // One that is no descendant is passed over, as a helper that has ended already, and that is said.
    let strange = format!(
        "import socket; s=socket.socket(socket.AF_UNIX,socket.SOCK_DGRAM); s.sendto(b\"WATCHDOG=1\",\"{socket}\")"
    );
    let ids = ["--reuid=65534", "--regid=65534", "--clear-groups"];
    let sent = Command::new("setpriv")
        .args(ids)
        .args(["python3", "-c", &strange])
        .env("PATH", "/usr/bin:/bin")
        .status();
    assert!(sent.unwrap().success());
    exec.await_said("is not believed: a message by sd_notify passed over, the last of process ");
    assert!(exec.said().contains(" of user 65534, which is no descendant"), "{}", exec.said());
    exec.signal(Signal::Terminate);
    let _ = exec.wait();
    wait_until("the socket is removed", || !Path::new(&socket).parent().unwrap().exists());
}

#[test]
fn a_time_for_the_first_word_is_refused_where_nobody_is_to_speak() {
    let scratch = Scratch::make();
    let options = ["--beat=alive", "--ready-within=1s"];
    let ended = run_to_its_end(exec_command(&scratch.socket(), &options, &["true"]));
    assert_eq!(ended.status.code(), Some(2));
    assert!(ended.stderr.contains("--ready-within"), "{}", ended.stderr);
}
