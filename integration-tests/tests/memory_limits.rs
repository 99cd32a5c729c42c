//! A server that may have little memory: it serves, or ends and says why.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::fs;
use std::process::{Command, Stdio};

use varta_integration_tests::{Ended, Scratch, Signal, server_command, sys, wait_until};

/// A server that may have so much memory for data, in KiB. How it ended, with what it wrote; `None` if it served until it
/// was told to stop.
fn end_within(kib: u32) -> Option<Ended> {
    let scratch = Scratch::make();
    let mut command = Command::new("/bin/sh");
    command.args(["-c", "ulimit -c 0; ulimit -d \"$0\"; exec \"$@\"", &kib.to_string()]);
    // With it the program would need more memory to say that there is none.
    command.arg(server_command().get_program()).env_remove("RUST_BACKTRACE");
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

#[test]
fn under_any_limit_of_memory_it_serves_or_ends_and_says_that_there_is_no_memory() {
    let (mut served, mut ended) = (0, 0);
    for kib in [2_000, 3_000, 4_000, 5_000, 6_000, 8_000, 10_000, 12_000, 24_000, 512_000] {
        let Some(Ended { status, stderr, .. }) = end_within(kib) else {
            served += 1;
            continue;
        };
        ended += 1;
        assert!(!status.success(), "{kib} KiB: {stderr}");
        let says = [
            "memory allocation of ",
            "Cannot allocate memory",
            "Resource temporarily unavailable",
            "out of memory",
        ];
        assert!(says.iter().any(|says| stderr.contains(says)), "{kib} KiB: {status}: {stderr}");
        assert!(!stderr.contains("Cannot drop a runtime"), "{kib} KiB: {stderr}");
    }
    assert!(served > 0 && ended > 0, "{served} served, {ended} ended");
}
