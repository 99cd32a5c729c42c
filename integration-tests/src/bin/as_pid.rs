//! Runs a program under a pid that is free, which happens by chance when pids are used again.
//!
//! `it-as-pid PID PROGRAM ARGUMENT…` forks a child with that pid, which becomes the program. The parent waits
//! until its standard input has ended, and does not ask before whether the program has: a parent that does
//! not care is one of the things that a server has to live with.

use std::env;
use std::error::Error;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};
use std::time::Duration;

use nix::sys::wait::wait;
use varta_integration_tests::sys::{self, Forked};
use varta_integration_tests::{Commands, ReceivedCommand, exit_code};

fn main() -> ExitCode {
    exit_code(run())
}

fn run() -> Result<(), Box<dyn Error>> {
    let mut arguments = env::args_os().skip(1);
    let pid = arguments.next().ok_or("which pid?")?.to_str().unwrap_or_default().parse()?;
    let program = arguments.next().ok_or("which program?")?;
    if sys::fork_as(pid)? == Forked::Child {
        return Err(Command::new(program).args(arguments).exec().into());
    }
    let mut input = Commands::from_stdin()?;
    input.stop_reading();
    while input.next(Duration::from_secs(3600))? != ReceivedCommand::End {}
    wait()?;
    Ok(())
}
