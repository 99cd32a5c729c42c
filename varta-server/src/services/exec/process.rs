//! The process of the command.

use std::io;
use std::process::Command;

use nix::sys::signal::SigSet;

use crate::base::children::{self, OwnChild};
use crate::services::exec::agent::socket_path;
use crate::services::exec::notify::NotifySocket;
use crate::services::exec::options::ExecOptions;
use crate::services::exec::output::Output;
use crate::services::exec::sys;

/// Why a command does not run.
#[derive(Debug)]
pub(super) enum StartError {
    /// The program cannot be run.
    Program(io::Error),
    /// Something that exec needs beside it is not to be had.
    Own(io::Error),
}

/// Starts the command, in the process group of exec and with its controlling terminal, and begins to move its output.
///
/// # Errors
///
/// [`StartError`]; nothing runs then.
pub(super) fn start(
    options: &ExecOptions,
    output: &mut Output,
    notify: Option<&NotifySocket>,
    mask: SigSet,
) -> Result<OwnChild, StartError> {
    let mut command = Command::new(&options.program);
    // It names exec, and silences a command that compares it with its own pid.
    command.args(&options.arguments).env_remove("WATCHDOG_PID");
    if let Some(notify) = notify {
        let deadline = notify.deadline(options.stall_after).as_micros();
        command.env("NOTIFY_SOCKET", notify.path()).env("WATCHDOG_USEC", deadline.to_string());
    }
    if options.pass_socket {
        command.env("VARTA_SOCKET", socket_path(options.socket.as_ref()));
    }
    sys::prepare(&mut command, mask);
    let pipes = output.attach(&mut command).map_err(StartError::Own)?;
    let mut child = children::spawn(&mut command).map_err(StartError::Program)?;
    // With it the writing ends of the pipes.
    drop(command);
    if let Err(error) = output.start(pipes) {
        // It ends at once, and then there is a status.
        let _ = child.send_signal(libc::SIGKILL);
        let _ = child.wait();
        return Err(StartError::Own(error));
    }
    Ok(child)
}
