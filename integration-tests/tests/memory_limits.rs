//! A server that may have little memory: it serves, or ends and says why.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::fs;
use std::process::{Command, Stdio};
use std::sync::Arc;

use varta_integration_tests::foreign::skip;
use varta_integration_tests::{
    Ended, LittleMemory, Network, Options, RemoteAgent, Scrape, Scratch, Server, Signal, agent, http,
    loopback_socket, server_command, sys, wait_until,
};

/// A command that may have so much memory for data, in KiB.
fn within(kib: u64) -> Command {
    let mut command = Command::new("/bin/sh");
    command.args(["-c", "ulimit -c 0; ulimit -d \"$0\"; exec \"$@\"", &kib.to_string()]);
    // With it the program would need more memory to say that there is none.
    command.arg(server_command().get_program()).env_remove("RUST_BACKTRACE");
    command
}

/// The least memory with which the program comes to its first line, in KiB. With less the kernel ends it by SIGSEGV while it
/// carries out execve(2), or the dynamic loader of glibc fails, which of the two and how depends on a few KiB.
fn least() -> u64 {
    let begins = |kib: &u64| within(*kib).arg("--version").output().unwrap().status.success();
    (1_000..100_000).step_by(100).find(begins).unwrap()
}

/// A server that may have so much memory for data, in KiB. How it ended, with what it wrote; `None` if it served until it
/// was told to stop.
fn end_within(kib: u64) -> Option<Ended> {
    let scratch = Scratch::make();
    let mut command = within(kib);
    command.args(["--metrics-addr", "127.0.0.1:0", "--socket"]).arg(scratch.path("socket"));
    let log = scratch.path("log");
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(fs::File::create(&log).unwrap());
    let mut server = command.spawn().unwrap();
    let said = || fs::read_to_string(&log).unwrap();
    let mut status = None;
    wait_until("it serves or ends", || {
        status = server.try_wait().unwrap();
        status.is_some() || said().contains("metrics on ")
    });
    if let Some(status) = status {
        return Some(Ended { status, stdout: String::new(), stderr: said() });
    }
    sys::send_signal(server.id(), Signal::Terminate).unwrap();
    let status = server.wait().unwrap();
    (!status.success()).then(|| Ended { status, stdout: String::new(), stderr: said() })
}

/// Whether an error is about memory.
fn tells_of_memory(log: &str) -> bool {
    let says = [
        "memory allocation of ",
        "Cannot allocate memory",
        "Resource temporarily unavailable",
        "out of memory",
        // The words of the dynamic loader of glibc.
        "failed to map segment from shared object",
    ];
    says.iter().any(|says| log.contains(says))
}

#[test]
fn under_any_limit_of_memory_it_serves_or_ends_and_says_that_there_is_no_memory() {
    let (mut served, mut ended) = (0, 0);
    let least = least();
    for more in [0, 1_000, 2_000, 3_000, 4_000, 6_000, 8_000, 10_000, 22_000, 510_000] {
        let kib = least + more;
        let Some(Ended { status, stderr, .. }) = end_within(kib) else {
            served += 1;
            continue;
        };
        ended += 1;
        assert!(!status.success(), "{kib} KiB: {stderr}");
        assert!(tells_of_memory(&stderr), "{kib} KiB: {status}: {stderr}");
        assert!(!stderr.contains("Cannot drop a runtime"), "{kib} KiB: {stderr}");
    }
    assert!(served > 0 && ended > 0, "{served} served, {ended} ended");
}

/// Has agents of the network beat for the first time, a few at a time, until the server knows `count` of them or has
/// ended. Whether it has ended.
fn fill(server: &Server, count: u32) -> bool {
    let socket = Arc::new(loopback_socket());
    let pids: Vec<_> = (1_001..=1_000 + count).collect();
    for some in pids.chunks(100) {
        for pid in some {
            RemoteAgent::on(Arc::clone(&socket), Network::Plain, server.udp_address(0), *pid).beat();
        }
        let last = f64::from(some.last().unwrap() - 1_000);
        let mut has_ended = false;
        wait_until("they are counted, or the server ends", || {
            has_ended = has_ended_or_is_zombie(server.pid());
            let read = || http::get(server.address(), "/metrics", &[]).ok();
            has_ended
                || read().and_then(|read| Scrape::parse(&read.body).ok()).is_some_and(|scrape| {
                    scrape.get("varta_frames_total", &[("transport", "udp"), ("outcome", "accepted")])
                        >= Some(last)
                })
        });
        if has_ended {
            return true;
        }
    }
    false
}

fn has_ended_or_is_zombie(pid: u32) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    !status.lines().any(|line| line.starts_with("State:") && !line.contains('Z'))
}

fn options(scratch: &Scratch) -> Options {
    let options = Options::from(["--max-agents-per-source", "0", "--agent-metrics", "off"]);
    options.udp("127.0.0.1:0").path("--state-dir", &scratch.state())
}

/// How much memory for data a process has, in bytes.
fn data_of(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmData:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

#[test]
fn with_a_limit_of_memory_while_it_serves_it_goes_on_or_ends_and_says_why() {
    let (mut served, mut ended) = (0, 0);
    for more in [0, 1 << 18, 1 << 20, 5 << 20, 1 << 28] {
        let scratch = Scratch::make();
        let mut server = Server::start(options(&scratch).env("RUST_BACKTRACE", "0"));
        server.await_ready();
        let limit = data_of(server.pid()) + more;
        let mut prlimit = Command::new("prlimit");
        prlimit.args(["--pid", &server.pid().to_string(), &format!("--data={limit}")]);
        assert!(prlimit.status().unwrap().success());
        if !fill(&server, 10_000) {
            server.await_ready();
            server.signal(Signal::Terminate);
        }
        let status = server.wait();
        if status.success() {
            served += 1;
        } else {
            ended += 1;
            let log = server.log().lines().join("\n");
            assert!(tells_of_memory(&log), "{more} bytes more: {status}: {log}");
        }
        // What it has left behind is of use to the next one.
        let mut next = Server::start(options(&scratch));
        assert!(!fill(&next, 100));
        next.stop();
    }
    assert!(served > 0 && ended > 0, "{served} served, {ended} ended");
}

#[test]
fn a_server_whose_cgroup_runs_out_of_memory_is_reported_by_the_one_that_watches_it_and_can_be_started_again()
{
    let mut cgroup = match LittleMemory::make(1 << 30) {
        Ok(cgroup) => cgroup,
        Err(error) => return skip(&format!("no cgroup with a limit of memory can be made here: {error}")),
    };
    let watcher = Server::start(["--stall-after", "1h"]);
    let scratch = Scratch::make();
    let to = format!("unix:{}", watcher.socket().display());
    let watched = options(&scratch).args(["--beat-to", &to, "--beat-every", "200ms"]);
    let mut watched = Server::start(watched.started_by(cgroup.starter()));
    watcher.expect(agent(watched.pid()).up());
    cgroup.leave(1 << 20).unwrap();
    assert!(fill(&watched, 50_000));
    watcher.expect(agent(watched.pid()).down().because("oom_killed").signal(9));
    watched.wait();
    let mut next = Server::start(options(&scratch));
    assert!(!fill(&next, 100));
    next.stop();
}
