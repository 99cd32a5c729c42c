//! A server that forks its workers, as web servers did before there were threads.
//!
//! It shows that a handle survives a fork: parent and children use the handle that the parent connected, and
//! each of them is an agent of its own to the server, without any extra code.
//!
//! ```text
//! cargo run -p varta-examples --bin prefork                      # until Ctrl-C
//! cargo run -p varta-examples --bin prefork -- 5                 # 5 beats of each child
//! cargo run -p varta-examples --bin prefork -- 5 SOCKET          # for the server that listens at SOCKET
//! ```

#![allow(unsafe_code, reason = "fork is unsafe: the child has only the thread that called it")]
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "it shows what it does")]

use std::env;
use std::error::Error;
use std::process::{self, ExitCode};
use std::thread;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{self, ForkResult};
use varta_agent::{Status, Varta};

const CHILDREN: u32 = 3;
const BEAT_EVERY: Duration = Duration::from_millis(200);

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("prefork: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Box<dyn Error>> {
    let mut arguments = env::args().skip(1);
    let beats = match arguments.next() {
        Some(beats) => beats.parse().map_err(|_| format!("{beats} is no number of beats"))?,
        None => u32::MAX,
    };
    let builder = Varta::builder().name("prefork");
    let mut agent = match arguments.next() {
        Some(socket) => builder.socket(socket).connect()?,
        None => builder.connect()?,
    };
    println!("parent [{}]: beat {}", process::id(), agent.beat(Status::Ok, 0));
    for child in 1..=CHILDREN {
        if let ForkResult::Child = fork().map_err(|error| format!("cannot fork: {error}"))? {
            serve(child, &mut agent, beats);
            process::exit(0);
        }
    }
    let mut running = CHILDREN;
    while running > 0 {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::StillAlive) => {
                let _ = agent.beat(Status::Ok, running);
                thread::sleep(BEAT_EVERY);
            }
            Ok(_) => running -= 1,
            Err(Errno::EINTR) => {}
            Err(error) => return Err(format!("cannot wait for a child: {error}").into()),
        }
    }
    println!(
        "parent [{}]: all children have ended, {} forks noticed",
        process::id(),
        agent.fork_recoveries()
    );
    Ok(())
}

/// The work of a child.
fn serve(child: u32, agent: &mut Varta, beats: u32) {
    let mut sent = 0;
    for _ in 0..beats {
        sent += u32::from(agent.beat(Status::Ok, child).is_sent());
        thread::sleep(BEAT_EVERY);
    }
    println!(
        "child {child} [{}]: {sent} beats sent, {} fork noticed",
        process::id(),
        agent.fork_recoveries()
    );
}

/// Forks; the child continues from here.
fn fork() -> nix::Result<ForkResult> {
    // SAFETY: this program has one thread, so the child lacks none and no lock is held by another thread.
    unsafe { unistd::fork() }
}
