//! Two agents one after the other, with the same pid and the same start time: `it-same-pid SOCKET`.
//!
//! For each line `next` on its standard input it starts a child that beats once and ends, and another one in its
//! place that beats until the next line. The kernel has start times in hundredths of a second: where the second
//! child has another one it is killed before it beats, and all begins again with another pid.

#![allow(clippy::print_stdout, reason = "this is how it answers")]

use std::env;
use std::error::Error;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::thread;
use std::time::Duration;

use nix::sys::wait::{Id, WaitPidFlag, waitid, waitpid};
use nix::unistd::Pid;
use varta_agent::{Status, Varta};
use varta_integration_tests::sys::{self, Forked};
use varta_integration_tests::{Commands, ReceivedCommand, Signal, exit_code};

/// The pids that are tried for one pair: the two start in one tick more often than not.
const TRIES: usize = 1_000;

fn main() -> ExitCode {
    exit_code(run())
}

fn run() -> Result<(), Box<dyn Error>> {
    let socket = env::args_os().nth(1).ok_or("which socket?")?;
    let mut commands = Commands::from_stdin()?;
    println!("ready");
    let mut second = None;
    loop {
        let command = commands.next(Duration::from_secs(3600))?;
        if let Some(pid) = second.take() {
            end(pid)?;
        }
        match command {
            ReceivedCommand::Line(_) => {
                let pid = pair(Path::new(&socket))?;
                println!("ok {pid}");
                second = Some(pid);
            }
            ReceivedCommand::Nothing => {}
            ReceivedCommand::End => return Ok(()),
        }
    }
}

/// Starts two agents, and returns their pid. The second one beats on.
fn pair(socket: &Path) -> Result<u32, Box<dyn Error>> {
    for _ in 0..TRIES {
        let mut free = Command::new("true").spawn()?;
        free.wait()?;
        let pid = free.id();
        if sys::fork_as(pid)? == Forked::Child {
            let beat = Varta::connect(socket).map(|mut agent| agent.beat(Status::Ok, 1));
            std::process::exit(i32::from(beat.is_err()) + 3);
        }
        let child = Pid::from_raw(i32::try_from(pid)?);
        // It keeps its pid until it is waited for again.
        waitid(Id::Pid(child), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT)?;
        let first = start_time(pid)?;
        let (mut gate, mut closed) = UnixStream::pair()?;
        waitpid(child, None)?;
        if sys::fork_as(pid)? == Forked::Child {
            closed.read_exact(&mut [0])?;
            beat_on(socket)?;
        }
        if start_time(pid)? == first {
            gate.write_all(&[1])?;
            return Ok(pid);
        }
        end(pid)?;
    }
    Err("no two processes were started in one tick".into())
}

/// Beats until it is killed.
fn beat_on(socket: &Path) -> Result<(), Box<dyn Error>> {
    let mut agent = Varta::connect(socket)?;
    loop {
        let _ = agent.beat(Status::Ok, 2);
        thread::sleep(Duration::from_millis(50));
    }
}

fn end(pid: u32) -> Result<(), Box<dyn Error>> {
    sys::send_signal(pid, Signal::Kill)?;
    waitpid(Pid::from_raw(i32::try_from(pid)?), None)?;
    Ok(())
}

/// The start time of a process in ticks, as the kernel has it in the 22nd field.
fn start_time(pid: u32) -> Result<String, Box<dyn Error>> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let (_, behind_name) = stat.rsplit_once(')').ok_or("it has no name")?;
    Ok(behind_name.split_whitespace().nth(19).ok_or("it has no start time")?.to_owned())
}
