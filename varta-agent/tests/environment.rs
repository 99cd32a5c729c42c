//! What a handle takes from the environment of the process: environment variables, and a standard error that
//! may be closed.
//!
//! Each test runs this program again as a child with an environment of its own. They are separate from the
//! tests of servers that go away, because a child on its way to `exec` still holds every socket of its
//! parent.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

mod common;

use std::env;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::process::{Command, Output};

use common::Server;
use varta_agent::{BeatOutcome, DropReason, Frame, Status, Varta};

/// The child's environment variable with the test that it runs.
const CHILD: &str = "VARTA_TEST_CHILD";

fn nonces(frames: &[Frame]) -> Vec<u64> {
    frames.iter().map(|frame| frame.nonce).collect()
}

/// A child that runs one test of this program, in an environment without paths.
fn run_again(test: &str) -> Command {
    let mut command = Command::new(env::current_exe().unwrap());
    command.args([test, "--exact", "--nocapture", "--test-threads=1"]).env(CHILD, test);
    command.env_remove("VARTA_SOCKET").env_remove("XDG_RUNTIME_DIR").env_remove("RUNTIME_DIRECTORY");
    command
}

fn is_child(test: &str) -> bool {
    env::var_os(CHILD).is_some_and(|name| name == test)
}

fn succeeded(output: &Output) -> String {
    let text = String::from_utf8_lossy(&[&output.stdout[..], &output.stderr[..]].concat()).into_owned();
    assert!(output.status.success(), "{text}");
    text
}

#[test]
fn connect_default_goes_where_the_environment_says() {
    const NAME: &str = "connect_default_goes_where_the_environment_says";
    if is_child(NAME) {
        assert!(Varta::connect_default().unwrap().beat(Status::Ok, 0).is_sent());
        return;
    }
    let named = Server::listening();
    let desktop = tempfile::tempdir().unwrap();
    std::fs::create_dir(desktop.path().join("varta")).unwrap();
    let found = UnixDatagram::bind(desktop.path().join("varta/varta.sock")).unwrap();
    found.set_nonblocking(true).unwrap();

    succeeded(&run_again(NAME).env("XDG_RUNTIME_DIR", desktop.path()).output().unwrap());
    assert_eq!(found.recv(&mut [0; 64]).unwrap(), 32);

    let mut child = run_again(NAME);
    child.env("XDG_RUNTIME_DIR", desktop.path()).env("VARTA_SOCKET", named.path());
    succeeded(&child.output().unwrap());
    assert_eq!(nonces(&named.arrived()), [1]);
    assert!(found.recv(&mut [0; 64]).is_err());
}

#[test]
fn connect_default_needs_no_server() {
    const NAME: &str = "connect_default_needs_no_server";
    if is_child(NAME) {
        let mut agent = Varta::connect_default().unwrap();
        let nobody = BeatOutcome::Dropped(DropReason::NoObserver);
        assert_eq!(agent.beat(Status::Ok, 0), nobody);
        let path = PathBuf::from(env::var_os("VARTA_SOCKET").unwrap());
        let server = UnixDatagram::bind(path).unwrap();
        assert!(agent.beat(Status::Ok, 0).is_sent());
        assert_eq!(server.recv(&mut [0; 64]).unwrap(), 32);
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    succeeded(&run_again(NAME).env("VARTA_SOCKET", directory.path().join("varta.sock")).output().unwrap());
}

#[test]
fn an_eager_handle_says_where_it_looked() {
    const NAME: &str = "an_eager_handle_says_where_it_looked";
    if is_child(NAME) {
        println!("{}", Varta::builder().eager().connect().unwrap_err());
        return;
    }
    let text = succeeded(&run_again(NAME).env("VARTA_SOCKET", "/nowhere/varta.sock").output().unwrap());
    assert!(text.contains("cannot connect to /nowhere/varta.sock: "), "{text}");
    assert!(text.contains("VARTA_SOCKET"), "{text}");
}

#[cfg(feature = "test-hooks")]
#[test]
fn the_end_of_the_nonces_is_one_line_on_stderr_if_there_is_one() {
    const NAME: &str = "the_end_of_the_nonces_is_one_line_on_stderr_if_there_is_one";
    if is_child(NAME) {
        let server = Server::listening();
        let mut agent = Varta::connect(server.path()).unwrap();
        agent.set_nonce_for_test(varta_agent::NONCE_TERMINAL - 2);
        assert!((0..3).all(|_| agent.beat(Status::Ok, 0).is_sent()));
        assert_eq!(nonces(&server.arrived()), [varta_agent::NONCE_TERMINAL - 1, 0, 1]);
        return;
    }
    let heard = run_again(NAME).output().unwrap();
    succeeded(&heard);
    let text = String::from_utf8(heard.stderr).unwrap();
    assert_eq!(text, "varta: a session has used up its nonces and begins again at 0\n");

    // A standard error without a reader: writing to it fails.
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    succeeded(&run_again(NAME).stderr(writer).output().unwrap());
}
