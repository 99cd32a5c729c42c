//! The subcommand `beat`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};
use varta_proto::control::{AgentName, NameError, Report, ReportEvent};

use crate::base::error::Error;
use crate::base::limits::MIN_STALL_AFTER;
use crate::base::options::parse_duration;
use crate::services::beat::sender::ReportSender;

/// The longest silence that can be asked for: the protocol has milliseconds in 32 bits, some 49 days.
const MAX_STALL_AFTER: Duration = Duration::from_secs(49 * 86_400);

/// What can be said of a name.
#[derive(Clone, Debug, Subcommand)]
#[non_exhaustive]
pub enum BeatTask {
    /// Say that a job has begun, is well, has ended or has failed, and end
    ///
    /// For scripts and crontabs: the agent is known by its NAME and the user who says it, and has no process. Without
    /// --start, --ok, --fail or --status it is one beat, which another has to follow within --stall-after.
    /// Exit status: 0 if the server has it, 1 if no server does or it is refused, 2 for wrong usage.
    Beat(BeatArgs),
}

/// What to say of a name.
#[derive(Clone, Debug, Args)]
pub struct BeatArgs {
    /// Name of the agent
    #[arg(value_name = "NAME", value_parser = parse_name)]
    pub name: AgentName,

    /// It has begun; silence is no alarm from now on, unless --stall-after is given
    #[arg(long, group = "event")]
    pub start: bool,

    /// It has ended well
    #[arg(long, group = "event")]
    pub ok: bool,

    /// It has failed, with this exit status
    #[arg(long, group = "event", value_name = "STATUS", num_args = 0..=1, require_equals = true)]
    pub fail: Option<Option<u8>>,

    /// It has ended with this exit status: --ok for 0, --fail for any other
    #[arg(long, group = "event", value_name = "STATUS")]
    pub status: Option<u8>,

    /// Silence after which the agent is stalled [default: that of the server for a beat, none after --start]
    #[arg(long, value_name = "DURATION", value_parser = parse_duration, conflicts_with_all = ["ok", "fail", "status"])]
    pub stall_after: Option<Duration>,

    /// Path of the server's socket, if it is not a usual one
    #[arg(long, env = "VARTA_SOCKET", value_name = "PATH")]
    pub socket: Option<PathBuf>,
}

fn parse_name(text: &str) -> Result<AgentName, NameError> {
    AgentName::parse(text)
}

impl BeatTask {
    /// Sends the report.
    ///
    /// # Errors
    ///
    /// An option makes no sense, no server has taken the report, or it has refused it.
    pub fn run(&self) -> Result<(), Error> {
        let BeatTask::Beat(args) = self;
        args.run()
    }
}

impl BeatArgs {
    /// What has happened.
    const fn event(&self) -> ReportEvent {
        match (self.start, self.ok, self.fail, self.status) {
            (true, ..) => ReportEvent::Started,
            (_, true, ..) | (_, _, _, Some(0)) => ReportEvent::Ended,
            (_, _, Some(status), _) | (_, _, _, status @ Some(_)) => ReportEvent::Failed { status },
            (false, false, None, None) => ReportEvent::Beat,
        }
    }

    fn run(&self) -> Result<(), Error> {
        let refused = |option, fault: &str| Error::Option { option, fault: fault.to_owned() };
        if self.socket.as_deref().is_some_and(|path| path.as_os_str() == "none") {
            let fault = "a server without a socket cannot be told anything; give its path";
            return Err(refused("--socket none", fault));
        }
        if let Some(silence) = self.stall_after
            && (silence < MIN_STALL_AFTER || silence > MAX_STALL_AFTER)
        {
            let fault = format!("{silence:?} is not between {MIN_STALL_AFTER:?} and 49 days");
            return Err(refused("--stall-after", &fault));
        }
        let sender = ReportSender::new(self.socket.as_ref());
        let stall_after_ms = self.stall_after.and_then(|silence| u32::try_from(silence.as_millis()).ok());
        let report = Report { stall_after_ms, ..sender.report(&self.name, self.event())? };
        sender.send(&report).map_err(|fault| Error::file(sender.path(), fault.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::config::Task;
    use crate::config::args::Args as AllArgs;
    use crate::services;

    fn parsed(words: &[&str]) -> Result<BeatArgs, clap::Error> {
        let words = ["varta-server", "beat"].iter().chain(words);
        match AllArgs::try_parse_from(words)?.task {
            Some(Task::Service(services::Task::Beat(BeatTask::Beat(args)))) => Ok(args),
            other => unreachable!("{other:?}"),
        }
    }

    #[test]
    fn each_way_to_say_it_is_one_event() {
        for (words, event) in [
            (&["backup"][..], ReportEvent::Beat),
            (&["backup", "--start"], ReportEvent::Started),
            (&["--ok", "backup"], ReportEvent::Ended),
            (&["--fail", "backup"], ReportEvent::Failed { status: None }),
            (&["backup", "--fail=3"], ReportEvent::Failed { status: Some(3) }),
            (&["backup", "--status", "0"], ReportEvent::Ended),
            (&["backup", "--status=75"], ReportEvent::Failed { status: Some(75) }),
        ] {
            let args = parsed(words).unwrap();
            assert_eq!((args.name.as_str(), args.event()), ("backup", event), "{words:?}");
        }
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        for wrong in [
            &[][..],
            &["a b"],
            &["backup", "--start", "--ok"],
            &["backup", "--ok", "--status", "0"],
            &["backup", "--fail=256"],
            &["backup", "--fail=many"],
            &["backup", "--ok", "--stall-after", "1s"],
            &["backup", "--stall-after", "soon"],
        ] {
            assert!(parsed(wrong).is_err(), "{wrong:?}");
        }
        for (words, said) in [
            (&["backup", "--socket", "none"][..], "--socket none: "),
            (&["backup", "--stall-after", "1ms"], "--stall-after: 1ms is not between"),
            (&["backup", "--stall-after", "50d"], "--stall-after: "),
        ] {
            let fault = parsed(words).unwrap().run().unwrap_err().to_string();
            assert!(fault.starts_with(said), "{words:?}: {fault}");
        }
    }
}
