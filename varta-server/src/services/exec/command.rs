//! The subcommand `exec`.

use std::process::ExitCode;

use clap::Subcommand;

use crate::base::error::Error;
use crate::services::exec::options::{ExecArgs, ExecOptions};
use crate::services::exec::run::run;

/// What can be done with a command.
#[derive(Clone, Debug, Subcommand)]
#[non_exhaustive]
pub enum ExecTask {
    /// Run a command under watch, and beat for it
    ///
    /// The command is a child of this process, which is the agent: it beats as long as what --beat names says that the
    /// command is well, and the server says why when it is not. Standard input, output and error, the terminal, and
    /// signals are the command's. When it ends, what it has left behind is ended too. If no server is there, the
    /// command runs all the same. Exit status: that of the command, or its signal; 127 if it is not found, 126 if it
    /// cannot be run, 125 if it cannot be watched, 2 for wrong usage.
    #[command(override_usage = "varta-server exec [OPTIONS] -- <COMMAND>...")]
    Exec(Box<ExecArgs>),
}

impl ExecTask {
    /// Runs the command, and gives the exit status that it ended with. If a signal ended it, the same signal ends this
    /// process.
    ///
    /// # Errors
    ///
    /// An option makes no sense; nothing was started then.
    pub fn run(&self) -> Result<ExitCode, Error> {
        let ExecTask::Exec(args) = self;
        run(ExecOptions::new(args)?)
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::config::Task;
    use crate::config::args::{Args as AllArgs, exec_alone};
    use crate::services;

    fn parsed(words: &[&str]) -> Result<ExecArgs, clap::Error> {
        let words = ["varta-server", "exec"].iter().chain(words);
        match AllArgs::try_parse_from(words)?.task {
            Some(Task::Service(services::Task::Exec(ExecTask::Exec(args)))) => Ok(*args),
            other => unreachable!("{other:?}"),
        }
    }

    #[test]
    fn all_behind_the_command_is_the_commands() {
        for words in
            [&["--beat", "alive", "--", "ls", "--name", "-h"][..], &["--beat=alive", "ls", "--name", "-h"]]
        {
            let args = parsed(words).unwrap();
            assert_eq!(args.command, ["ls", "--name", "-h"]);
            assert_eq!(args.name, None);
        }
    }

    #[test]
    fn a_command_line_of_exec_alone_is_read_as_with_all_the_rest() {
        let alone = |words: &[&str]| {
            let words: Vec<_> = ["varta-server"].iter().chain(words).map(Into::into).collect();
            exec_alone(&words).map(|ExecTask::Exec(args)| format!("{args:?}"))
        };
        for words in [
            &["--beat", "alive", "--", "ls", "--name", "-h"][..],
            &["--beat", "output,check=a b", "--every", "3s", "--name", "one", "--name", "two", "ls"],
            &["--label", "a=b", "--label", "c=d", "--restart=always", "--", "exec", "exec"],
        ] {
            let of_exec = [&["exec"], words].concat();
            assert_eq!(alone(&of_exec), parsed(words).ok().map(|args| format!("{args:?}")), "{words:?}");
        }
        // What is wrong, and what asks for help, is left to the whole definition.
        for words in [
            &["exec"][..],
            &["exec", "--help"],
            &["exec", "--beat", "", "ls"],
            &["--metrics-addr", "none"],
            &["beat", "a"],
            &[],
        ] {
            assert_eq!(alone(words), None, "{words:?}");
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused_as_wrong_usage() {
        for wrong in [
            &["--beat", "alive"][..],
            &["--beat", "alive", "--"],
            &["--beat", "", "--", "ls"],
            &["--beat", "check=", "--", "ls"],
            &["--beat", "check='a", "--", "ls"],
            &["--beat", "alive", "--name", "a b", "--", "ls"],
            &["--beat", "alive", "--label", "a", "--", "ls"],
            &["--beat", "alive", "--success-exit-codes", "256", "--", "ls"],
            &["--beat", "alive", "--restart", "sometimes", "--", "ls"],
            &["--beat", "alive", "--every", "1M", "--", "ls"],
        ] {
            assert!(parsed(wrong).is_err(), "{wrong:?}");
        }
    }
}
