//! `varta-server watch` and `events --follow`: clients of a running server that wait for what comes.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::fs::{self, File};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::Value;
use varta_integration_tests::{
    Ended, Options, Scratch, Server, Signal, agent, run_to_its_end, server_command, wait_until,
};

fn command(socket: &Path, words: &[&str]) -> Command {
    let mut command = server_command();
    command.env("VARTA_SOCKET", socket).args(words);
    command
}

fn watch(socket: &Path, words: &[&str]) -> Ended {
    run_to_its_end(command(socket, &[&["watch"], words].concat()))
}

/// A command that goes on, with what it prints in a file.
struct Going {
    child: Child,
    out: std::path::PathBuf,
    err: std::path::PathBuf,
}

impl Going {
    fn start(scratch: &Scratch, socket: &Path, words: &[&str]) -> Self {
        let [out, err] = ["out", "err"].map(|name| scratch.path(name));
        let mut command = command(socket, words);
        command.stdin(Stdio::null()).stdout(File::create(&out).unwrap()).stderr(File::create(&err).unwrap());
        Going { child: command.spawn().unwrap(), out, err }
    }

    fn lines(&self) -> Vec<Value> {
        let text = fs::read_to_string(&self.out).unwrap();
        let (complete, _) = text.rsplit_once('\n').unwrap_or_default();
        complete.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    fn said(&self) -> String {
        fs::read_to_string(&self.err).unwrap()
    }
}

impl Drop for Going {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_state_that_is_so_already_ends_the_wait_at_once_and_one_that_comes_ends_it_then() {
    let scratch = Scratch::make();
    let server = Server::start(Options::from(["--stall-after", "1s"]).in_scratch(&scratch));
    let [first, second] = ["batch-1", "batch-2"].map(|name| server.start_agent(&["--name", name]));
    server.await_agents("up", 2);
    let socket = server.socket();
    let ended = watch(socket, &["batch-?", "--until", "up", "--all"]);
    assert_eq!((ended.status.code(), ended.stdout.lines().count()), (Some(0), 2), "{}", ended.stderr);
    assert!(ended.stdout.starts_with(&format!("batch-1[{}]@", first.pid())), "{}", ended.stdout);

    let mut going = Going::start(&scratch, socket, &["watch", "batch-*", "--until", "stalled,down"]);
    second.signal(Signal::Stop);
    assert_eq!(going.child.wait().unwrap().code(), Some(0));
    let said = fs::read_to_string(&going.out).unwrap();
    assert!(
        said.starts_with(&format!("batch-2[{}]@", second.pid())) && said.ends_with(" is stalled\n"),
        "{said}"
    );

    let ended = watch(socket, &["batch-*", "--until", "stalled", "--all", "--timeout", "100ms"]);
    assert_eq!(ended.status.code(), Some(1), "{}", ended.stdout);
    assert!(ended.stderr.contains("in no such state in time"), "{}", ended.stderr);
    let ended = watch(socket, &["nobody", "--until", "up", "--timeout", "100ms"]);
    assert_eq!(ended.status.code(), Some(1));
}

#[test]
fn without_a_server_nothing_can_be_told() {
    let scratch = Scratch::make();
    let ended = watch(&scratch.path("nobody.sock"), &["a", "--until", "up"]);
    assert_eq!((ended.status.code(), ended.stdout.as_str()), (Some(2), ""));
    assert!(ended.stderr.contains("no server answers here"), "{}", ended.stderr);
    assert_eq!(watch(&scratch.path("x"), &["a"]).status.code(), Some(2), "no state is given");
}

#[test]
fn a_wait_outlasts_the_server_and_ends_with_the_next() {
    let scratch = Scratch::make();
    let level = ["--log-level", "info,varta::maintenance=debug"];
    let options = || Options::from(["--stall-after", "1h"]).args(level).in_scratch(&scratch);
    let mut server = Server::start(options());
    let mut going =
        Going::start(&scratch, server.socket(), &["watch", "late", "--until", "up", "--timeout", "10m"]);
    // For the list, and for the stream of changes.
    let asked = || server.log().lines().iter().filter(|line| line.contains("speaks HTTP")).count();
    wait_until("it waits", || asked() >= 2);
    server.kill();
    let server = Server::start(options());
    let _late = server.start_agent(&["--name", "late"]);
    assert_eq!(going.child.wait().unwrap().code(), Some(0), "{}", going.said());
}

#[test]
fn changes_are_printed_as_they_come_through_a_restart_of_the_server() {
    let scratch = Scratch::make();
    let options = || Options::from(["--stall-after", "1h"]).socket(&scratch.socket());
    let mut server = Server::start(options());
    let _other = server.start_agent(&["--name", "other"]);
    let mut first = server.start_agent(&["--name", "job-1"]);
    server.await_agents("up", 2);
    let going = Going::start(&scratch, server.socket(), &["events", "job-*", "--follow", "--last", "10"]);
    wait_until("what was before is printed", || going.lines().len() == 1);
    first.signal(Signal::Kill);
    first.wait();
    server.expect(agent(&first).down());
    wait_until("what comes is printed", || going.lines().len() == 2);
    assert_eq!(going.lines()[1]["to"], "down");
    assert_eq!(going.lines()[1]["cause"], "killed");
    server.kill();
    wait_until("it is said that the server has gone", || going.said().contains("the server has gone"));
    let server = Server::start(options());
    wait_until("it is said that another answers", || going.said().contains("changes may be missing here"));
    let second = server.start_agent(&["--name", "job-2"]);
    wait_until("the changes of the next are printed", || {
        going.lines().iter().any(|line| line["pid"] == second.pid() && line["to"] == "up")
    });
    assert!(going.lines().iter().all(|line| line["agent"] != "other"));
}

#[test]
fn the_last_changes_are_printed_oldest_first_and_then_it_ends() {
    let server = Server::start(["--stall-after", "1h"]);
    let _agents = ["a", "b"].map(|name| {
        let agent = server.start_agent(&["--name", name]);
        server.expect(varta_integration_tests::agent(&agent).up());
        agent
    });
    let ended = run_to_its_end(command(server.socket(), &["events"]));
    assert!(ended.status.success(), "{}", ended.stderr);
    let lines: Vec<Value> = ended.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let names: Vec<_> = lines.iter().map(|line| line["agent"].as_str().unwrap()).collect();
    assert_eq!(names, ["a", "b"], "{}", ended.stdout);
}
