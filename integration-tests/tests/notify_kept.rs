//! The socket for notifications in the store of descriptors of a service manager, which gives it back at the next start.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

use std::fs;
use std::io::IoSliceMut;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};

use nix::cmsg_space;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};
use varta_integration_tests::{
    AgentProcess, LIMIT, Options, Scratch, Server, agent, line_with, notifier_command,
};

/// What a service manager does with `NOTIFY_SOCKET`, and with its store.
struct Manager {
    socket: UnixDatagram,
    path: PathBuf,
    /// Names and descriptors, which programs that are started inherit.
    store: Vec<(String, OwnedFd)>,
}

impl Manager {
    fn listen(scratch: &Scratch) -> Self {
        let path = scratch.path("manager");
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_read_timeout(Some(LIMIT)).unwrap();
        Manager { socket, path, store: Vec::new() }
    }

    /// Does what the server asks for until it says that it is ready; returns that in one word each.
    #[track_caller]
    fn await_ready(&mut self) -> Vec<&'static str> {
        let mut done = Vec::new();
        loop {
            let mut room = [0; 4096];
            let mut rights = cmsg_space!([RawFd; 1]);
            let mut place = [IoSliceMut::new(&mut room)];
            let flags = MsgFlags::empty();
            let got = recvmsg::<()>(self.socket.as_raw_fd(), &mut place, Some(&mut rights), flags).unwrap();
            let descriptor = got.cmsgs().unwrap().find_map(|message| match message {
                ControlMessageOwned::ScmRights(numbers) => numbers.first().copied(),
                _ => None,
            });
            let length = got.bytes;
            let text = String::from_utf8_lossy(&room[..length]).into_owned();
            let name = || text.rsplit_once("FDNAME=").unwrap().1.to_owned();
            if text.starts_with("FDSTORE=1\n") {
                // SAFETY: the kernel has just made it for this process, and nothing else has its number.
                #[allow(unsafe_code, reason = "received descriptors come as numbers")]
                let descriptor = unsafe { OwnedFd::from_raw_fd(descriptor.unwrap()) };
                self.store.push((name(), descriptor));
                done.push("stored");
            } else if text.starts_with("FDSTOREREMOVE=1\n") {
                let before = self.store.len();
                self.store.retain(|(its, _)| *its != name());
                assert_eq!(self.store.len() + 1, before, "{text}");
                done.push("removed");
            } else if text.starts_with("READY=1") {
                return done;
            }
        }
    }

    /// Starts a server with all that is in the store.
    #[track_caller]
    fn start(&self, arguments: &[&str]) -> Server {
        let options = Options::new().args(arguments.iter().copied()).env("NOTIFY_SOCKET", &self.path);
        if self.store.is_empty() {
            return Server::start(options);
        }
        let names: Vec<_> = self.store.iter().map(|(name, _)| name.as_str()).collect();
        let numbers = (3..).zip(&self.store);
        let given: Vec<_> =
            numbers.map(|(number, (_, own))| format!("{number}<&{}", own.as_raw_fd() + 100)).collect();
        // First away from the low numbers, which they are given to.
        let moved: Vec<_> = self.store.iter().map(|(_, own)| own.as_raw_fd()).collect();
        let moved: Vec<_> = moved.into_iter().map(|own| format!("{}<&{own}", own + 100)).collect();
        let script = format!(
            "exec {} && exec {} && exec env LISTEN_PID=$$ LISTEN_FDS={} LISTEN_FDNAMES={} \"$@\"",
            moved.join(" "),
            given.join(" "),
            names.len(),
            names.join(":")
        );
        Server::start(options.started_by(["bash", "-c", &script, "bash"]))
    }
}

fn service(address: &str) -> AgentProcess {
    AgentProcess::run(notifier_command(address))
}

#[track_caller]
fn tell(service: &mut AgentProcess, command: &str) {
    let answer = service.ask(command);
    assert!(answer.starts_with("ok"), "to {command} it says {answer}");
}

fn as_text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn who_is_connected_reaches_the_next_server_and_loses_nothing_between_the_two() {
    let scratch = Scratch::make();
    let mut manager = Manager::listen(&scratch);
    let (path, name) = (scratch.path("notify"), format!("@varta-it-kept-{}", std::process::id()));
    let options = ["--stall-after=1h", "--notify-socket", as_text(&path), "--notify-socket", &name];
    let mut server = manager.start(&options);
    assert_eq!(manager.await_ready(), ["stored", "stored"]);
    let mut services = [service(as_text(&path)), service(&name)];
    for service in &mut services {
        tell(service, "say READY=1");
        server.expect(agent(&*service).over("notify").up());
    }
    for _ in 0..2 {
        server.stop();
        drop(server);
        assert!(path.exists());
        // Nobody reads, and nobody is told so.
        for service in &mut services {
            tell(service, "say READY=1");
        }
        server = manager.start(&options);
        for service in &services {
            server.expect(agent(service).over("notify").up());
        }
        assert!(manager.await_ready().is_empty(), "the service manager has all");
    }
    server.stop();
    drop(server);
    // A configuration without them.
    let mut server = manager.start(&["--stall-after=1h"]);
    assert_eq!(manager.await_ready(), ["removed", "removed"]);
    server.expect(line_with("that the service manager has kept is closed: no option names it"));
    assert!(manager.store.is_empty() && !path.exists());
    server.stop();
}

#[test]
fn a_socket_that_is_not_behind_its_path_any_more_is_closed_and_another_is_bound() {
    let scratch = Scratch::make();
    let mut manager = Manager::listen(&scratch);
    let path = scratch.path("notify");
    let options = ["--stall-after=1h", "--notify-socket", as_text(&path)];
    let mut server = manager.start(&options);
    assert_eq!(manager.await_ready(), ["stored"]);
    server.stop();
    drop(server);
    fs::remove_file(&path).unwrap();
    let mut server = manager.start(&options);
    assert_eq!(manager.await_ready(), ["removed", "stored"]);
    server.expect(line_with("is closed, and another is bound"));
    let mut service = service(as_text(&path));
    tell(&mut service, "say READY=1");
    server.expect(agent(&service).over("notify").up());
    server.stop();
}

#[test]
fn without_a_service_manager_the_file_goes_with_the_server() {
    let scratch = Scratch::make();
    let path = scratch.path("notify");
    let mut server = Server::start(Options::new().args(["--notify-socket", as_text(&path)]));
    assert!(path.exists());
    server.stop();
    assert!(!path.exists());
}
