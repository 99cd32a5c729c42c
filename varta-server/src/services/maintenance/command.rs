//! The commands that ask a running server: those about pauses, and how all find its control socket.

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Subcommand};
use serde_json::json;
use varta_proto::address::candidate_socket_paths;

use crate::base::Glob;
use crate::base::clock::wall_now;
use crate::base::error::Error;
use crate::base::options::parse_duration;
use crate::base::stdout::print;
use crate::base::time::rfc3339;
use crate::base::visible::visible_lines;
use crate::services::maintenance::agent_commands::{AckArgs, ForgetArgs, UnackArgs};
use crate::services::maintenance::client::{send_request, send_request_within};
use crate::services::maintenance::names::NamesOf;
use crate::services::maintenance::options::{ControlSocket, NONE, Reason};
use crate::services::maintenance::pause::{Pause, parse_pattern, parse_reason};
use crate::services::maintenance::protocol::{Matches, Request, Response, check_length};
use crate::services::maintenance::server_commands::{ReloadArgs, UpgradeArgs};
use crate::services::maintenance::status_command::StatusArgs;

/// What a running server can be asked.
#[derive(Clone, Debug, Subcommand)]
#[non_exhaustive]
pub enum MaintenanceTask {
    /// Pause the alarms of agents of a running server for a time
    ///
    /// They are tracked and shown, but raise no alarms. Only the server's own user and root may do this. A
    /// pause with the same pattern replaces the earlier one.
    Pause(PauseArgs),

    /// Lift a pause of a running server before its end
    Resume(ResumeArgs),

    /// Show how a running server and its agents are
    ///
    /// The number of agents by state, and everyone in alarm, the worst first, each with when and why. Only the server's
    /// own user and root may ask. Exit status: 0 if all is well, 1 if an agent that is not paused is in alarm or a part
    /// of the server does not work, 2 if that cannot be told, because no server answers.
    Status(StatusArgs),

    /// List the pauses of a running server
    ///
    /// Those of its configuration file are among them.
    Pauses(PausesArgs),

    /// Have a running server forget agents that are down, gone or missing
    ///
    /// Their rows and their alerts end. Only the server's own user and root may do this. The audit log records
    /// who did it, and why. An agent that lives is not forgotten: its next beat would bring it back. Exit
    /// status: 0 if an agent was forgotten, 1 if none was.
    Forget(ForgetArgs),

    /// Acknowledge alarms of a running server
    ///
    /// Nothing more is sent about them until their state changes. Only the server's own user and root may do
    /// this. The alert goes on firing, with an annotation that says who acknowledged it, why and when, and
    /// recovery acts as before. The acknowledgement ends when the agent recovers, or comes to be in another
    /// state. Exit status: 1 if nobody who is meant is in alarm.
    Ack(AckArgs),

    /// Take back an acknowledgement
    Unack(UnackArgs),

    /// Have a running server read its keys and its configuration file again
    ///
    /// Only the server's own user and root may do this. Either all of it counts or nothing: a file that cannot be
    /// used leaves everything as it was. Options that count only after a restart are named. Exit status: 1 if
    /// nothing was taken over.
    Reload(ReloadArgs),

    /// Have a running server start its program anew, which takes over without a gap
    ///
    /// Only the server's own user and root may do this. The program that is at the server's path now is started with
    /// the same arguments and environment. Once it has read its configuration and keys, the old server hands its
    /// sockets and all that it knows over and ends; the new one goes on reading. If the new one cannot start, the
    /// old one serves on. Exit status: 1 if nothing was handed over.
    Upgrade(UpgradeArgs),
}

impl MaintenanceTask {
    /// Asks for it, and prints the answer. Gives the exit status of the program.
    ///
    /// # Errors
    ///
    /// When the server cannot be asked, or does not do it.
    pub fn run(&self) -> Result<ExitCode, Error> {
        match self {
            MaintenanceTask::Pause(args) => args.run()?,
            MaintenanceTask::Resume(args) => args.run()?,
            MaintenanceTask::Status(args) => return args.run(),
            MaintenanceTask::Pauses(args) => args.run()?,
            MaintenanceTask::Forget(args) => args.run()?,
            MaintenanceTask::Ack(args) => args.run()?,
            MaintenanceTask::Unack(args) => args.run()?,
            MaintenanceTask::Reload(args) => args.run()?,
            MaintenanceTask::Upgrade(args) => args.run()?,
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// Which server is spoken to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Args)]
pub struct ControlArgs {
    /// TOML file of the server, which says where its sockets are
    ///
    /// Its other options have no effect here. Relative paths in it are relative to the working directory.
    #[arg(long, env = "VARTA_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// Path of the server's control socket
    ///
    /// Default: the path of the server's socket with `.control` appended.
    #[arg(long, env = "VARTA_CONTROL_SOCKET", value_name = "PATH")]
    pub control_socket: Option<PathBuf>,

    /// Path of the server's socket, if it is not a usual one
    ///
    /// Its control socket is beside it. Of several paths the first counts.
    #[arg(long, env = "VARTA_SOCKET", value_name = "PATH")]
    pub socket: Vec<PathBuf>,
}

impl ControlArgs {
    /// The most likely path of the server's control socket.
    pub(crate) fn path(&self) -> Result<PathBuf, Error> {
        let is_none = |path: &Path| path.as_os_str() == NONE;
        if let Some(path) = &self.control_socket {
            if is_none(path) {
                let fault =
                    "is turned off, and there is no other way to ask a server for something; give its path";
                return Err(Error::Option { option: "--control-socket none", fault: fault.to_owned() });
            }
            return Ok(path.clone());
        }
        if let Some(socket) = self.socket.first() {
            if is_none(socket) {
                let fault = "a server without a socket has no control socket beside it; say with --control-socket where it is";
                return Err(Error::Option { option: "--socket none", fault: fault.to_owned() });
            }
            return Ok(ControlSocket::beside(socket.clone()).path);
        }
        // The server's environment may differ, so the first path that exists comes before the default one.
        let candidates = candidate_socket_paths(nix::unistd::geteuid().as_raw());
        let mut paths = candidates.into_iter().map(|socket| ControlSocket::beside(socket).path);
        let first = paths.next().unwrap_or_default();
        let is_there = |path: &PathBuf| path.symlink_metadata().is_ok();
        Ok(std::iter::once(first.clone()).chain(paths).find(is_there).unwrap_or(first))
    }

    pub(super) fn ask(&self, request: &Request) -> Result<Response, Error> {
        send_request(&self.path()?, request)
    }

    /// The same, and waits so long for the response.
    pub(super) fn ask_within(&self, request: &Request, patience: Duration) -> Result<Response, Error> {
        send_request_within(&self.path()?, request, patience)
    }

    /// The names that complete what a user has typed as the argument of a command. None where no server answers within
    /// a second.
    pub(crate) fn names(&self, of: NamesOf, start: &str) -> Vec<String> {
        let request = Request::Names { of, start: start.to_owned() };
        self.ask_within(&request, Duration::from_secs(1)).map(|answer| answer.names).unwrap_or_default()
    }

    /// The pauses of a response.
    fn pauses(&self, answer: &Response) -> Result<Vec<Pause>, Error> {
        answer.read_pauses().map_err(|fault| {
            let fault = format!("the answer makes no sense: {fault}; is this the server's version?");
            Error::file(self.path().unwrap_or_default(), fault)
        })
    }
}

/// Whom to pause, for how long, and why.
#[derive(Clone, Debug, Args)]
pub struct PauseArgs {
    /// Pattern of agent names, as batch-*
    ///
    /// `*` matches any characters or none, `?` matches one.
    #[arg(value_name = "PATTERN", value_parser = parse_pattern)]
    pub pattern: Glob,

    /// Duration of the pause, from 1s to 366days
    #[arg(long = "for", value_name = "DURATION", value_parser = parse_length)]
    pub length: Duration,

    /// Reason of the pause, for the log and the list of pauses
    #[arg(long, value_name = "TEXT", value_parser = parse_reason)]
    pub reason: Option<Reason>,

    /// Which server is asked.
    #[command(flatten)]
    pub control: ControlArgs,
}

impl PauseArgs {
    /// Requests the pause, and prints its end.
    ///
    /// # Errors
    ///
    /// The server cannot be reached, or refuses.
    pub fn run(&self) -> Result<(), Error> {
        let PauseArgs { pattern, length, reason, control } = self;
        let (pattern, reason) = (pattern.clone(), reason.clone());
        let answer = control.ask(&Request::Pause { pattern, length: *length, reason })?;
        for Pause { pattern, until, .. } in control.pauses(&answer)? {
            let until = until.map_or_else(|| "further notice".to_owned(), rfc3339);
            print(&format!("{} is paused until {until}\n", pattern.as_str()))?;
        }
        if let Some(matches) = &answer.matches {
            let Matches { agents, .. } = matches;
            let pattern = self.pattern.as_str();
            match agents {
                0 => warn(&format!(
                    "no agent has a name that {pattern} matches now; the pause counts for those that come. `varta_agent_up` \
                     in the metrics has the names of all agents"
                )),
                1 => print(&format!("it matches 1 agent now: {}\n", matches.shown()))?,
                _ => print(&format!("it matches {agents} agents now: {}\n", matches.shown()))?,
            }
        }
        warn_of(&answer);
        Ok(())
    }
}

/// Whose pause to lift.
#[derive(Clone, Debug, Args)]
pub struct ResumeArgs {
    /// Pattern of the pause, exactly as it was given
    #[arg(value_name = "PATTERN", value_parser = parse_pattern)]
    pub pattern: Glob,

    /// Which server is asked.
    #[command(flatten)]
    pub control: ControlArgs,
}

impl ResumeArgs {
    /// Requests the end of the pause.
    ///
    /// # Errors
    ///
    /// The server cannot be reached, or has no such pause.
    pub fn run(&self) -> Result<(), Error> {
        let answer = self.control.ask(&Request::Resume { pattern: self.pattern.clone() })?;
        print(&format!("the pause of {} is lifted\n", self.pattern.as_str()))?;
        warn_of(&answer);
        Ok(())
    }
}

/// How to list the pauses.
#[derive(Clone, Debug, Args)]
pub struct PausesArgs {
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,

    /// Which server is asked.
    #[command(flatten)]
    pub control: ControlArgs,
}

impl PausesArgs {
    /// Requests the pauses, and prints them.
    ///
    /// # Errors
    ///
    /// The server cannot be reached.
    pub fn run(&self) -> Result<(), Error> {
        let answer = self.control.ask(&Request::Pauses)?;
        let pauses = self.control.pauses(&answer)?;
        if self.json {
            return print(&format!("{}\n", json!({ "pauses": answer.pauses, "kept": answer.kept })));
        }
        print(&table(&pauses))
    }
}

/// Prints the warning of a response.
pub(super) fn warn_of(answer: &Response) {
    if let Some(warning) = &answer.word {
        warn(warning);
    }
}

/// Prints a warning. A closed stderr makes no difference.
pub(super) fn warn(warning: &str) {
    let _ = writeln!(io::stderr(), "varta-server: {}", visible_lines(warning));
}

fn parse_length(text: &str) -> Result<Duration, String> {
    check_length(parse_duration(text)?)
}

/// The pauses as a table with a heading; a cell longer than its column shifts the rest of its row.
fn table(pauses: &[Pause]) -> String {
    let now = wall_now();
    let mut rows = vec![["PATTERN", "FROM", "UNTIL", "BY", "REASON"].map(str::to_owned)];
    rows.extend(pauses.iter().map(|pause| {
        let is_to_come = if pause.is_in_force(now) { "" } else { " (to come)" };
        [
            pause.pattern.as_str().to_owned(),
            rfc3339(pause.from.unwrap_or(pause.since)) + is_to_come,
            pause.until.map_or_else(|| "further notice".to_owned(), rfc3339),
            pause.by.to_string(),
            pause.reason.as_ref().map_or_else(|| "-".to_owned(), |reason| reason.as_str().to_owned()),
        ]
    }));
    if rows.len() == 1 {
        return "nobody is paused\n".to_owned();
    }
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths = [0, 1, 2, 3, 4].map(width);
    let mut text = String::new();
    for row in &rows {
        let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}"));
        let line = cells.collect::<Vec<_>>().join("  ");
        // Writing to a `String` cannot fail.
        let _ = writeln!(text, "{}", line.trim_end());
    }
    text
}

#[cfg(test)]
mod tests {
    use crate::base::SocketOptions;
    use crate::services::maintenance::options::{MaintenanceArgs, PlannedPauses};
    use std::time::UNIX_EPOCH;

    use clap::Parser;

    use super::*;
    use crate::config::Task;
    use crate::config::args::Args;

    fn task(words: &[&str]) -> Result<Task, clap::Error> {
        let words = ["varta-server"].iter().chain(words);
        let args = Args::try_parse_from(words)?;
        Ok(args.task.unwrap())
    }

    fn control(control_socket: Option<&str>, socket: Option<&str>) -> ControlArgs {
        let socket = socket.into_iter().map(Into::into).collect();
        ControlArgs { config: None, control_socket: control_socket.map(Into::into), socket }
    }

    #[test]
    fn a_server_has_its_control_socket_beside_its_first_socket() {
        let sockets: Vec<_> = ["/a", "/b"]
            .map(|path| SocketOptions { path: path.into(), is_default: false, mode: 0o600, group: None })
            .into();
        let socket = |given: Option<&str>, sockets: &[SocketOptions]| {
            MaintenanceArgs { control_socket: given.map(Into::into) }
                .options(PlannedPauses::default(), sockets)
                .control
        };
        assert_eq!(socket(None, &sockets), Some(ControlSocket::beside("/a".into())));
        assert_eq!(socket(None, &[]), None);
        assert_eq!(socket(Some("none"), &sockets), None);
        let given = ControlSocket { path: "/c".into(), is_default: false };
        assert_eq!(socket(Some("/c"), &[]), Some(given));
    }

    #[test]
    fn it_is_looked_for_where_the_server_has_it() {
        assert_eq!(control(None, Some("/a")).path().unwrap(), Path::new("/a.control"));
        assert_eq!(control(Some("/c"), Some("/a")).path().unwrap(), Path::new("/c"));
        let said = |args: ControlArgs| args.path().unwrap_err().to_string();
        assert!(said(control(Some("none"), None)).starts_with("--control-socket none: is turned off"));
        assert!(said(control(None, Some("none"))).contains("--control-socket"));
        let usual = control(None, None).path().unwrap();
        assert!(usual.to_str().unwrap().ends_with("varta.sock.control"), "{}", usual.display());
    }

    #[test]
    fn what_cannot_be_asked_for_is_refused_as_wrong_usage() {
        assert!(task(&["pause", "batch-*", "--for", "1s", "--reason", "update"]).is_ok());
        assert!(task(&["pause", "batch-*", "--for", "366days"]).is_ok());
        for wrong in [
            &["pause", "batch-*"][..],
            &["pause", "--for", "1h"],
            &["pause", "", "--for", "1h"],
            &["pause", "a\nb", "--for", "1h"],
            &["pause", "a", "--for", "999ms"],
            &["pause", "a", "--for", "366days 1s"],
            &["pause", "a", "--for", "soon"],
            &["pause", "a", "--for", "1M"],
            &["pause", "a", "--for", "1h", "--reason", ""],
            &["pause", "a", "--for", "1h", "--stall-after", "1s"],
            &["resume"],
            &["resume", "a", "b"],
            &["pauses", "a"],
            &["forget"],
            &["forget", ""],
            &["forget", "a", "b"],
            &["forget", "a", "--reason", ""],
            &["ack"],
            &["ack", "a", "b"],
            &["unack", "a", "--reason", "b"],
        ] {
            assert!(task(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn of_many_names_the_first_few_are_shown() {
        let shown = |agents, found: &[&str]| {
            Matches { agents, names: found.iter().map(|name| (*name).to_owned()).collect() }.shown()
        };
        assert_eq!(shown(2, &["a", "b"]), "a, b");
        assert_eq!(shown(3, &["a", "b\u{7}"]), "a, b\\u{7}", "two of them have one name");
        assert_eq!(shown(6, &["a", "b", "c", "d", "e"]), "a, b, c, d, e, ...");
    }

    #[test]
    fn pauses_are_a_table() {
        assert_eq!(table(&[]), "nobody is paused\n");
        let pause = |value: serde_json::Value| Pause::from_json(value).unwrap();
        let text = table(&[
            pause(json!({
                "pattern": "größe-*", "by": "user", "uid": 7, "since": rfc3339(UNIX_EPOCH),
                "until": "9999-01-01T00:00:00.000Z", "reason": "update",
            })),
            pause(json!({
                "pattern": "a", "by": "configuration", "since": rfc3339(UNIX_EPOCH),
                "from": "9998-01-01T00:00:00.000Z",
            })),
        ]);
        let expected = "\
PATTERN  FROM                                UNTIL                     BY             REASON
größe-*  1970-01-01T00:00:00.000Z            9999-01-01T00:00:00.000Z  uid 7          update
a        9998-01-01T00:00:00.000Z (to come)  further notice            configuration  -
";
        assert_eq!(text, expected);
    }
}
