//! Hosts with a network of their own, each on a cable to the one that the test is on: network namespaces, and
//! a pair of virtual devices to each of them.
//!
//! Nothing of it has a name that other processes could see, and nothing needs to be cleaned up: the test's
//! own thread goes into a network of its own first, and all of this exists as long as a process is in it.
#![allow(unsafe_code, reason = "unshare has no safe interface in the standard library")]

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::panic;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;

use crate::foreign::skip;
use crate::programs::{into_pid_namespace, server_command};
use crate::retry::wait_for;

/// A host's name for its end of the cable.
const DEVICE: &str = "cable";

/// Runs a test in a network in which there is nothing but itself. Where that cannot be had the test has
/// nothing to show, and prints so.
pub fn in_a_network_of_its_own(test: fn()) {
    // What may have to be built may need the network that is left behind.
    let _ = server_command();
    // A thread that has left the network is no good for another test.
    let thread = thread::spawn(move || {
        // SAFETY: `unshare` touches no memory. This thread, and what it starts from here on, has another
        // network.
        if unsafe { libc::unshare(libc::CLONE_NEWNET) } != 0 {
            skip(&format!("no network namespace can be made here: {}", io::Error::last_os_error()));
        } else if let Err(error) = run("ip", &["link", "set", "lo", "up"]) {
            skip(&error);
        } else {
            test();
        }
    });
    if let Err(panic) = thread.join() {
        panic::resume_unwind(panic);
    }
}

/// The addresses at the two ends of a cable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cable {
    /// That of the test's host.
    pub here: IpAddr,
    /// That of the other one.
    pub there: IpAddr,
}

/// A host. What runs on it has to be ended before this is dropped.
#[derive(Debug)]
pub struct NetworkHost {
    /// A process whose presence keeps the host in existence.
    caretaker: Child,
    number: u8,
    has_ipv6: bool,
}

impl NetworkHost {
    /// Makes a host, on a cable that is plugged in. There is one of each number.
    #[must_use]
    #[track_caller]
    pub fn new(number: u8) -> Self {
        // It ends with its input, which does when the test ends, however that is.
        let mut command = Command::new("unshare");
        command.args(["--net", "cat"]).stdin(Stdio::piped()).stdout(Stdio::null());
        let caretaker = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let mut host = NetworkHost { caretaker, number, has_ipv6: true };
        let network = |process: &str| fs::read_link(PathBuf::from("/proc").join(process).join("ns/net")).ok();
        let ours = network("thread-self");
        let is_made = wait_for(|| (network(&host.pid())? != ours.clone()?).then_some(()));
        assert!(is_made.is_some(), "unshare has made no network");
        let our_end = host.our_end();
        let link = ["link", "add", &our_end, "type", "veth", "peer", "name", DEVICE, "netns", &host.pid()];
        must(run("ip", &link));
        host.plug_in();
        host
    }

    /// The addresses by which this host and the test's reach each other: of IPv4 and, where there is such a
    /// thing, of IPv6.
    #[must_use]
    pub fn cables(&self) -> Vec<Cable> {
        let number = self.number;
        let ipv4 = |end| Ipv4Addr::new(198, 18, number, end).into();
        let ipv6 = |end| Ipv6Addr::new(0xfd76, 0x6172, 0x7461, number.into(), 0, 0, 0, end).into();
        let mut cables = vec![Cable { here: ipv4(1), there: ipv4(2) }];
        if self.has_ipv6 {
            cables.push(Cable { here: ipv6(1), there: ipv6(2) });
        }
        cables
    }

    /// Turns off the device at its end of the cable. A program that sends there gets an error.
    #[track_caller]
    pub fn turn_off(&self) {
        must(self.run_there(&["link", "set", DEVICE, "down"]));
    }

    /// Turns off the device at the test's end of the cable. A program over there gets no error, but what it
    /// sends is lost.
    #[track_caller]
    pub fn unplug(&self) {
        must(run("ip", &["link", "set", &self.our_end(), "down"]));
    }

    /// Turns on what is off, and gives both ends their addresses again, of which some are lost with that.
    #[track_caller]
    pub fn plug_in(&mut self) {
        let our_end = self.our_end();
        must(run("ip", &["link", "set", &our_end, "up"]));
        must(self.run_there(&["link", "set", DEVICE, "up"]));
        for Cable { here, there } in self.cables() {
            // No other host has these, so that an IPv6 address need not be tried first.
            let (length, flags): (u8, &[&str]) = if here.is_ipv6() { (64, &["nodad"]) } else { (24, &[]) };
            let [here, there] = [here, there].map(|address| format!("{address}/{length}"));
            let ours = [&["addr", "replace", &here, "dev", &our_end], flags].concat();
            let theirs = [&["addr", "replace", &there, "dev", DEVICE], flags].concat();
            match run("ip", &ours).and_then(|()| self.run_there(&theirs)) {
                Err(error) if length == 64 => {
                    skip(&format!("without IPv6: {error}"));
                    self.has_ipv6 = false;
                }
                given => must(given),
            }
        }
    }

    /// Has a program run on it, in a PID namespace of its own and as process 2 there: what one host has,
    /// another may have as well.
    #[must_use]
    pub fn as_process_2(&self, command: &Command) -> Command {
        // Process 1 is the shell, which stays because it has something to do after the program.
        let mut shell = Command::new("sh");
        shell.env_clear().args(["-c", "\"$@\"; exit $?", "sh"]);
        shell.arg(command.get_program()).args(command.get_args());
        let inside = into_pid_namespace(&shell);
        let mut outside = Command::new("nsenter");
        outside.env_clear().arg(self.network());
        outside.arg(inside.get_program()).args(inside.get_args());
        outside
    }

    fn run_there(&self, ip: &[&str]) -> Result<(), String> {
        run("nsenter", &[&[&*self.network(), "ip"], ip].concat())
    }

    fn network(&self) -> String {
        format!("--net=/proc/{}/ns/net", self.pid())
    }

    fn our_end(&self) -> String {
        format!("{DEVICE}{}", self.number)
    }

    fn pid(&self) -> String {
        self.caretaker.id().to_string()
    }
}

impl Drop for NetworkHost {
    fn drop(&mut self) {
        // It may have ended already; a failure here has no consequence.
        let _ = self.caretaker.kill();
        let _ = self.caretaker.wait();
    }
}

/// Runs a program to its end; what it writes to standard error is the error.
fn run(program: &str, arguments: &[&str]) -> Result<(), String> {
    let mut command = Command::new(program);
    command.args(arguments);
    let line = format!("{program} {}", arguments.join(" "));
    match command.output() {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(format!("{line}: {}", String::from_utf8_lossy(&output.stderr).trim())),
        Err(error) => Err(format!("{line}: {error}")),
    }
}

#[track_caller]
fn must(done: Result<(), String>) {
    done.unwrap_or_else(|error| panic!("{error}"));
}
