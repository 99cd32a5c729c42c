//! The subcommands: the tasks of the capabilities, and those with the configuration itself, which
//! [`commands`](super::commands) carries out.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, Subcommand};

use crate::services;

/// What the program can do instead of serving.
#[derive(Clone, Debug, Subcommand)]
#[non_exhaustive]
pub enum Task {
    /// A task of a capability.
    #[command(flatten)]
    Service(services::Task),
    /// Work with the configuration
    #[command(subcommand)]
    Config(ConfigTask),
    /// Print the names that complete a command line, for the completions of shells
    ///
    /// A name a line: of agents, or the patterns of pauses, as the last word may be. Nothing where that takes no names
    /// or no server answers within a second.
    #[command(hide = true)]
    Complete(CompleteArgs),
}

/// The command line that is to be completed.
#[derive(Clone, Debug, Args)]
pub struct CompleteArgs {
    /// Its words behind the name of the program, up to the cursor; the last may be empty
    #[arg(value_name = "WORD", last = true)]
    pub words: Vec<OsString>,
}

/// What can be done with a configuration.
#[derive(Clone, Debug, Subcommand)]
#[non_exhaustive]
pub enum ConfigTask {
    /// Check a configuration file
    ///
    /// As a server does that is started with the file and no other options: variables of the environment have no
    /// effect. All faults are printed, a line for each, with the line of the file and what would be right. Only the
    /// file itself is read, and no users, groups and hosts are looked up, so that it may be the file of another host.
    ///
    /// Exit status: 0 when a server takes the file, and 2 when not.
    Check(CheckArgs),
    /// Show the configuration that counts, and where each value comes from
    ///
    /// Takes all options of the server (`varta-server --help`), variables of the environment and the file of --config.
    /// The result is a configuration file in which each line says where its value comes from (the flag, the variable,
    /// the line of the file, or the default) and what it overrides. What may be secret is hidden: users, passwords,
    /// paths and queries of URLs, and the values of --recovery-env.
    #[command(override_usage = "varta-server config show [--json] [OPTIONS OF THE SERVER]")]
    Show(ShowArgs),
    /// Print a JSON Schema of the configuration file, for editors
    ///
    /// With the type, the default and the description of each key. A line `#:schema PATH` at the top of a file tells
    /// editors of TOML where the schema is. docs/CONFIGURATION.md has the details.
    Schema,
}

/// How the configuration is shown. The options of the server are added where the command line is defined.
#[derive(Clone, Debug, Args)]
pub struct ShowArgs {
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

/// Which file to check, and how far.
#[derive(Clone, Debug, Args)]
pub struct CheckArgs {
    /// Configuration file
    #[arg(value_name = "FILE")]
    pub file: PathBuf,

    /// Also check what the file relies on at this host
    ///
    /// As the user who asks: whether sockets can be made, and addresses are free; whether files with keys and
    /// secrets can be read, are closed to others and hold what they should; whether directories can be written to;
    /// whether users, groups and the hosts of URLs are known. Nothing is made, changed or sent. A server that runs
    /// with the file is not disturbed, and that it has its sockets and addresses is no fault.
    #[arg(long)]
    pub environment: bool,
}
