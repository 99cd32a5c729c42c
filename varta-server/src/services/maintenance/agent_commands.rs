//! The commands `forget`, `ack` and `unack`, each about agents by name or pid.

use clap::Args;

use crate::base::error::Error;
use crate::base::stdout::print;
use crate::domain::AgentPattern;
use crate::services::maintenance::command::{ControlArgs, warn, warn_of};
use crate::services::maintenance::options::Reason;
use crate::services::maintenance::pause::parse_reason;
use crate::services::maintenance::protocol::{Matches, Request, parse_who};

/// Whom to forget, and why.
#[derive(Clone, Debug, Args)]
pub struct ForgetArgs {
    /// Name of an agent, with `*` and `?` as in `pause`, or its pid
    #[arg(value_name = "NAME|PID", value_parser = parse_who)]
    who: AgentPattern,

    /// Reason, for the log and the audit log
    #[arg(long, value_name = "TEXT", value_parser = parse_reason)]
    pub reason: Option<Reason>,

    /// Which server is asked.
    #[command(flatten)]
    pub control: ControlArgs,
}

impl ForgetArgs {
    /// Requests it, and prints who was forgotten.
    ///
    /// # Errors
    ///
    /// The server cannot be reached, knows nobody who is meant, or all of them live.
    pub fn run(&self) -> Result<(), Error> {
        let ForgetArgs { who, reason, control } = self;
        let answer = control.ask(&Request::Forget { who: who.clone(), reason: reason.clone() })?;
        tell(answer.forgotten.as_ref(), "1 agent is forgotten", "agents are forgotten")?;
        match &answer.living {
            None => {}
            Some(living) if living.agents == 1 => {
                warn(&format!("1 agent lives and is kept: {}", living.shown()));
            }
            Some(living) => warn(&format!("{} agents live and are kept: {}", living.agents, living.shown())),
        }
        warn_of(&answer);
        Ok(())
    }
}

/// Whose alarm to acknowledge, and why.
#[derive(Clone, Debug, Args)]
pub struct AckArgs {
    /// Name of an agent in alarm, with `*` and `?` as in `pause`, or its pid
    #[arg(value_name = "NAME|PID", value_parser = parse_who)]
    who: AgentPattern,

    /// Reason, for the alert, the log and the audit log
    #[arg(long, value_name = "TEXT", value_parser = parse_reason)]
    pub reason: Option<Reason>,

    /// Which server is asked.
    #[command(flatten)]
    pub control: ControlArgs,
}

impl AckArgs {
    /// Requests it, and prints whose alarm is acknowledged.
    ///
    /// # Errors
    ///
    /// The server cannot be reached, sends no alerts, or has nobody who is meant in alarm.
    pub fn run(&self) -> Result<(), Error> {
        let AckArgs { who, reason, control } = self;
        let answer = control.ask(&Request::Acknowledge { who: who.clone(), reason: reason.clone() })?;
        tell(answer.acknowledged.as_ref(), "1 alarm is acknowledged", "alarms are acknowledged")?;
        warn_of(&answer);
        Ok(())
    }
}

/// Whose acknowledgement to take back.
#[derive(Clone, Debug, Args)]
pub struct UnackArgs {
    /// Name of an agent, with `*` and `?` as in `pause`, or its pid
    #[arg(value_name = "NAME|PID", value_parser = parse_who)]
    who: AgentPattern,

    /// Which server is asked.
    #[command(flatten)]
    pub control: ControlArgs,
}

impl UnackArgs {
    /// Requests it, and prints whose alarm is not acknowledged any more.
    ///
    /// # Errors
    ///
    /// The server cannot be reached, or has no such acknowledgement.
    pub fn run(&self) -> Result<(), Error> {
        let UnackArgs { who, control } = self;
        let answer = control.ask(&Request::TakeBack { who: who.clone() })?;
        let (one, many) = ("1 alarm is no longer acknowledged", "alarms are no longer acknowledged");
        tell(answer.acknowledged.as_ref(), one, many)?;
        warn_of(&answer);
        Ok(())
    }
}

/// Prints how many agents there are, and the first few of them.
fn tell(agents: Option<&Matches>, one: &str, many: &str) -> Result<(), Error> {
    let Some(agents) = agents else { return Ok(()) };
    match agents.agents {
        1 => print(&format!("{one}: {}\n", agents.shown())),
        count => print(&format!("{count} {many}: {}\n", agents.shown())),
    }
}
