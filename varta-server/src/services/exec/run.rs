//! The way of `exec` from its options to its end.

use std::io;
use std::process::ExitCode;

use crate::base::backoff::Backoff;
use crate::base::children::adopt_orphans;
use crate::base::error::Error;
use crate::services::exec::agent::{Agent, say};
use crate::services::exec::leftovers::strangers;
use crate::services::exec::notify::NotifySocket;
use crate::services::exec::options::ExecOptions;
use crate::services::exec::outcome::{Ending, OWN_FAILURE};
use crate::services::exec::output::{Output, Plan};
use crate::services::exec::signals::{EndSignals, Signals};
use crate::services::exec::supervisor::Supervisor;
use crate::services::exec::sys;

/// Runs the command to its end, and gives its exit status; or ends this process by the signal that ended the command.
///
/// # Errors
///
/// An option makes no sense. Nothing was started then.
pub(super) fn run(options: ExecOptions) -> Result<ExitCode, Error> {
    let plan = Plan::of_this_process(options.keeps_output, options.has_output);
    let agent = Agent::connect(&options)?;
    let mut supervisor = match open(options, agent, plan) {
        Ok(supervisor) => supervisor,
        Err(error) => {
            say(&format!("the command is not started: {error}"));
            return Ok(ExitCode::from(OWN_FAILURE));
        }
    };
    let end = supervisor.run();
    // Removed here, because a signal may end this process.
    drop(supervisor.notify.take());
    if end.is_success {
        supervisor.agent.say_goodbye();
    }
    Ok(match end.ending {
        Ending::Exited(status) => ExitCode::from(status),
        Ending::Signalled(number) => {
            sys::die_by(number);
            // Process 1 of a namespace is not ended by it.
            ExitCode::from(u8::try_from(128 + number).unwrap_or(OWN_FAILURE))
        }
    })
}

/// Opens what exec needs beside the command.
fn open(options: ExecOptions, agent: Agent, plan: Plan) -> io::Result<Supervisor> {
    let signals = Signals::take_over()?;
    let strangers = strangers();
    adopt_orphans()?;
    let output = Output::new(plan, options.keeps_output)?;
    let notify = options.ready_within.map(|_| NotifySocket::bind()).transpose().map_err(|error| {
        let text = format!(
            "there is no place for a socket for sd_notify: {error}; choose another source with --beat"
        );
        io::Error::new(error.kind(), text)
    })?;
    Ok(Supervisor {
        options,
        agent,
        signals,
        output,
        notify,
        told_of_strangers: None,
        strangers,
        ending_signals: EndSignals::default(),
        is_ending: false,
        backoff: Backoff::default(),
    })
}
