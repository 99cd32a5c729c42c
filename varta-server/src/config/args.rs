//! The command line, the environment and the configuration's file. Turns what a person wrote into a [`Config`], or says
//! which option is wrong.
//!
//! The file is read as more words of the command line: those that say what neither the command line nor the environment
//! says. So there is one definition of every option, and one place for every default.

use std::env;
use std::ffi::{OsStr, OsString};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::FalseyValueParser;
use clap::parser::ValueSource;
use clap::{Arg, ArgMatches, Command, CommandFactory, FromArgMatches, Id, Parser};
use varta_proto::address::default_socket_path;

use crate::base::error::Error;
use crate::base::options::Mode;
use crate::base::options::values::{find_group, parse_mode, parse_socket_address};
use crate::base::{LogFormat, SocketOptions};
use crate::config::Config;
use crate::config::file::ConfigFile;
use crate::domain::tracker::Policy;
use crate::engine::DetectorArgs;
use crate::ingest::options::{DEFAULT_MAX_SHM_AGENTS, DEFAULT_UDP_RECEIVE_BUFFER};
use crate::ingest::{AllowedSenders, KeyFiles};
use crate::services::{Sections, Task};

/// Takes heartbeats from processes, says which of them went silent and why, and exports Prometheus metrics.
///
/// Without arguments it listens on a Unix socket in the runtime directory and serves metrics on 127.0.0.1:9843.
/// Every option can be given in the environment too, under the name shown, and in a file of --config; the command line
/// goes before the environment, and that before the file.
#[derive(Debug, Parser)]
#[command(name = "varta-server", version = crate::base::version::VERSION_AND_COMMIT, max_term_width = 100, args_override_self = true, after_help = AFTER_HELP,
          args_conflicts_with_subcommands = true, disable_help_subcommand = true)]
pub struct Args {
    /// What to do instead of serving.
    #[command(subcommand)]
    pub task: Option<Task>,

    /// File with options, in TOML: those of this list under their names without the dashes
    ///
    /// As in `stall-after = "2s"` or `udp = ["127.0.0.1:9844"]`. A list given elsewhere replaces the file's. Paths are
    /// relative to the directory in which the server is started, as they are on the command line. The file may have
    /// `[[rule]]`, `[[expected]]` and `[[pause]]` tables too: what holds for agents by their names, which agents are to
    /// come, and which are not to alarm for a time.
    #[arg(long, env = "VARTA_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// Unix datagram socket to listen on; may be given more than once; `none` turns it off
    ///
    /// Default: $RUNTIME_DIRECTORY/varta.sock, else $XDG_RUNTIME_DIR/varta/varta.sock, else /run/varta/varta.sock for
    /// root and /tmp/varta-UID/varta.sock for others. A missing directory is made, with mode 0700.
    #[arg(long, env = "VARTA_SOCKET", value_name = "PATH")]
    pub socket: Vec<PathBuf>,

    /// Permissions of the socket's file, in octal: who may connect
    #[arg(long, env = "VARTA_SOCKET_MODE", value_name = "OCTAL", default_value = "0600", value_parser = parse_mode)]
    pub socket_mode: Mode,

    /// Group, by name or number, to which the socket's file is given
    #[arg(long, env = "VARTA_SOCKET_GROUP", value_name = "NAME")]
    pub socket_group: Option<String>,

    /// User id whose processes may beat; may be given more than once [default: this server's and 0]
    #[arg(long, env = "VARTA_ALLOW_UID", value_name = "UID", value_delimiter = ',')]
    pub allow_uid: Vec<u32>,

    /// Group id whose processes may beat too; may be given more than once
    #[arg(long, env = "VARTA_ALLOW_GID", value_name = "GID", value_delimiter = ',')]
    pub allow_gid: Vec<u32>,

    /// UDP address for plaintext beats; may be given more than once; port 0 picks one
    ///
    /// Whoever can reach the address can pretend to be any agent of another host, so one that is not loopback needs
    /// --allow-plaintext-remote. `[::]` takes IPv4 too, unless 0.0.0.0 is given with the same port.
    #[arg(long, env = "VARTA_UDP", value_name = "ADDR", value_delimiter = ',', value_parser = parse_socket_address)]
    pub udp: Vec<SocketAddr>,

    /// Take plaintext beats from the network as well
    #[arg(long, env = "VARTA_ALLOW_PLAINTEXT_REMOTE", value_parser = FalseyValueParser::new())]
    pub allow_plaintext_remote: bool,

    /// UDP address for encrypted beats; may be given more than once; needs a key file
    #[arg(long, env = "VARTA_SECURE_UDP", value_name = "ADDR", value_delimiter = ',',
          value_parser = parse_socket_address)]
    pub secure_udp: Vec<SocketAddr>,

    /// File with the key that server and agents share: 64 hexadecimal characters
    ///
    /// Key files must be closed to others (chmod 600) and belong to this server's user or root. SIGHUP has them read
    /// again.
    #[arg(long, env = "VARTA_KEY_FILE", value_name = "FILE")]
    pub key_file: Option<PathBuf>,

    /// File with more shared keys that are accepted, one a line: the old and the new one while keys are rotated
    #[arg(long, env = "VARTA_ACCEPTED_KEY_FILE", value_name = "FILE")]
    pub accepted_key_file: Option<PathBuf>,

    /// File with the master key from which agents derive theirs; several, one a line, while it is rotated
    #[arg(long, env = "VARTA_MASTER_KEY_FILE", value_name = "FILE")]
    pub master_key_file: Option<PathBuf>,

    /// How many bytes of datagrams fit the queue of a UDP socket, counted as the kernel does
    ///
    /// Without CAP_NET_ADMIN the kernel grants no more than twice net.core.rmem_max.
    #[arg(long, env = "VARTA_UDP_RECEIVE_BUFFER", value_name = "BYTES", default_value_t = DEFAULT_UDP_RECEIVE_BUFFER)]
    pub udp_receive_buffer: usize,

    /// How long an agent may be silent before it is called stalled
    #[arg(long, env = "VARTA_STALL_AFTER", value_name = "DURATION", default_value = "5s",
          value_parser = humantime::parse_duration)]
    pub stall_after: Duration,

    /// How long an agent may ask to be silent, for good or for once
    #[arg(long, env = "VARTA_LONGEST_SILENCE", value_name = "DURATION", default_value = "1h",
          value_parser = humantime::parse_duration)]
    pub longest_silence: Duration,

    /// How long an agent may be silent that asks for nothing.
    #[command(flatten)]
    pub detector: DetectorArgs,

    /// How many agents are tracked; beyond it new ones are refused and counted
    #[arg(long, env = "VARTA_MAX_AGENTS", value_name = "N", default_value_t = Policy::DEFAULT_MAX_AGENTS)]
    pub max_agents: usize,

    /// How many local agents may beat through a page of memory; beyond it they beat by datagrams; 0 for none
    ///
    /// Each page takes 4 KiB, which the agent pays for, and one of the mappings that vm.max_map_count allows.
    #[arg(long, env = "VARTA_MAX_SHM_AGENTS", value_name = "N", default_value_t = DEFAULT_MAX_SHM_AGENTS)]
    pub max_shm_agents: usize,

    /// How many agents one address may introduce over --udp; 0 for no limit
    ///
    /// All of loopback counts as one address, and so does an IPv6 network of 64 bits. Where there are other ways in, a
    /// quarter of --max-agents is kept free of plaintext.
    #[arg(long, env = "VARTA_MAX_AGENTS_PER_SOURCE", value_name = "N",
          default_value_t = Policy::DEFAULT_MAX_AGENTS_PER_SOURCE)]
    pub max_agents_per_source: usize,

    /// Beats accepted a second from one agent; 0 for no limit
    #[arg(long, env = "VARTA_MAX_BEAT_RATE", value_name = "N", default_value_t = Policy::DEFAULT_MAX_BEAT_RATE)]
    pub max_beat_rate: u32,

    /// Beats accepted a second from all agents together; 0 for no limit
    #[arg(long, env = "VARTA_MAX_TOTAL_RATE", value_name = "N", default_value_t = 0)]
    pub max_total_rate: u32,

    /// How long a silent agent is remembered after its last beat
    #[arg(long, env = "VARTA_FORGET_AFTER", value_name = "DURATION", default_value = "24h",
          value_parser = humantime::parse_duration)]
    pub forget_after: Duration,

    /// What the capabilities do.
    #[command(flatten)]
    pub services: Sections,

    /// How log lines look [default: text on a terminal, else json]
    #[arg(long, env = "VARTA_LOG_FORMAT", value_name = "FORMAT", value_enum)]
    pub log_format: Option<LogFormat>,

    /// What is logged: off, error, warn, info, debug, trace, or directives such as `info,varta::agent=warn`
    #[arg(long, env = "VARTA_LOG_LEVEL", value_name = "LEVEL", default_value = "info")]
    pub log_level: String,

    /// The file of `config`, read.
    #[arg(skip)]
    pub file: Option<ConfigFile>,
}

const AFTER_HELP: &str = "\
Durations read like 500ms, 2s or 1h30m. Log lines go to standard error.
SIGTERM and SIGINT stop the server in order. SIGHUP has key files read again, and of --config rules, expected agents,
recovery and pauses.
Exit status: 0 after a clean stop, 1 after a failure, 2 for wrong usage or configuration.";

/// Options that help lists behind an option of another section, since both limit or show the same thing.
const LISTED_BEHIND: [(&str, &str); 3] = [
    ("metrics_addr", "udp_receive_buffer"),
    ("metrics_token_file", "metrics_addr"),
    ("agent_metrics", "max_agents_per_source"),
];

/// The definition of the command line, and with it of the environment and the file.
///
/// An empty variable of the environment counts as unset: that is how a unit or a container's file clears one.
pub(crate) fn definition() -> Command {
    in_order_of_help(without_variables(Args::command(), |value| value.is_empty()))
}

/// The same with numbers by which help lists the options: section by section, but for [`LISTED_BEHIND`].
fn in_order_of_help(command: Command) -> Command {
    let mut order: Vec<Id> = command.get_arguments().map(|option| option.get_id().clone()).collect();
    for (option, other) in LISTED_BEHIND {
        order.retain(|id| id != option);
        if let Some(place) = order.iter().position(|id| id == other) {
            order.insert(place + 1, Id::from(option));
        }
    }
    command.mut_args(|option| {
        let place = order.iter().position(|id| id == option.get_id());
        option.display_order(place.unwrap_or(order.len()))
    })
}

/// The same without those variables whose present value is one of these.
pub(super) fn without_variables(command: Command, is_one: fn(&OsStr) -> bool) -> Command {
    let has_one = |option: &Arg| option.get_env().and_then(env::var_os).is_some_and(|value| is_one(&value));
    command
        .mut_args(|option| if has_one(&option) { option.env(None::<&'static str>) } else { option })
        .mut_subcommands(|task| without_variables(task, is_one))
}

impl Args {
    /// Reads the command line, the program's name first, the environment, and the file that they name.
    ///
    /// # Errors
    ///
    /// [`Error::Usage`] when the command line or the environment cannot be understood, or when help or the version is
    /// asked for; otherwise what is wrong with the file.
    pub fn read(command_line: impl IntoIterator<Item = OsString>) -> Result<Self, Error> {
        Self::read_by(definition(), command_line)
    }

    pub(super) fn read_by(
        definition: Command,
        command_line: impl IntoIterator<Item = OsString>,
    ) -> Result<Self, Error> {
        let mut words: Vec<OsString> = command_line.into_iter().collect();
        let mut matches = definition.clone().try_get_matches_from(&words)?;
        let mut file = None;
        let serves = matches.subcommand_name().is_none();
        if let Some(path) = matches.get_one::<PathBuf>("config").filter(|_| serves) {
            let mut read = ConfigFile::read(path, &definition)?;
            let from_file = read.count_unless(|key| is_given(&definition, &matches, key));
            // In front, where no `--` stands before them.
            let behind_name = words.len().min(1);
            words.splice(behind_name..behind_name, from_file.into_iter().map(OsString::from));
            matches = definition.try_get_matches_from(words)?;
            file = Some(read);
        }
        Ok(Args { file, ..Args::from_arg_matches(&matches)? })
    }

    /// Says of an error about an option which line of the file it comes from, if it comes from there.
    #[must_use]
    pub fn locate(&self, error: Error) -> Error {
        match &self.file {
            Some(file) => file.locate(error),
            None => error,
        }
    }

    /// Checks the options against each other and reads the files that they name.
    ///
    /// # Errors
    ///
    /// The first option whose value makes no sense, or the file that cannot be used.
    pub fn into_config(mut self) -> Result<Config, Error> {
        let Some(file) = self.file.take() else {
            let config = self.options(None)?;
            config.check()?;
            return Ok(config);
        };
        let checked = self.options(Some(&file)).and_then(|config| {
            config.check()?;
            Ok(config)
        });
        let mut config = checked.map_err(|error| file.locate(error))?;
        config.file = Some(file);
        Ok(config)
    }

    /// What the options and tables say, not yet checked against each other.
    fn options(self, file: Option<&ConfigFile>) -> Result<Config, Error> {
        let us = nix::unistd::geteuid().as_raw();
        let group = self.socket_group.map(find_group).transpose()?;
        let is_default = self.socket.is_empty();
        let paths = if is_default { vec![default_socket_path(us)] } else { self.socket };
        let sockets: Vec<_> = paths
            .into_iter()
            .filter(|path| path.as_os_str() != "none")
            .map(|path| SocketOptions { path, is_default, mode: self.socket_mode.0, group })
            .collect();
        let mut uids = self.allow_uid;
        if uids.is_empty() {
            uids = vec![us, 0];
        }
        let services =
            self.services.options(file.map(ConfigFile::pauses), file.map(ConfigFile::recovery), &sockets)?;
        // What anybody can make up leaves room for those who prove who they are.
        let is_only_plain = Vec::is_empty(&sockets) && self.secure_udp.is_empty();
        Ok(Config {
            sockets,
            allowed: AllowedSenders { uids, gids: self.allow_gid },
            udp: self.udp,
            allow_plaintext_remote: self.allow_plaintext_remote,
            secure_udp: self.secure_udp,
            keys: KeyFiles {
                key: self.key_file,
                accepted: self.accepted_key_file,
                master: self.master_key_file,
            },
            max_shm_agents: self.max_shm_agents,
            udp_receive_buffer: self.udp_receive_buffer,
            services,
            policy: Policy {
                stall_after: self.stall_after,
                arrival: self.detector.policy()?,
                forget_after: self.forget_after,
                max_agents: self.max_agents,
                max_agents_per_source: self.max_agents_per_source,
                max_plain_agents: if is_only_plain { self.max_agents } else { self.max_agents / 4 * 3 },
                longest_silence: self.longest_silence,
                least_crowd: Policy::LEAST_CROWD,
                looks_per_second: Policy::LOOKS_PER_SECOND,
                rules: file.map(|file| file.rules().clone()).unwrap_or_default(),
                expected: file.map(|file| file.expected().clone()).unwrap_or_default(),
                max_beat_rate: self.max_beat_rate,
                max_total_rate: self.max_total_rate,
            },
            file: None,
        })
    }
}

/// Whether the command line or the environment has this option.
fn is_given(definition: &Command, matches: &ArgMatches, key: &str) -> bool {
    let option = definition.get_arguments().find(|option| option.get_long() == Some(key));
    let source = option.and_then(|option| matches.value_source(option.get_id().as_str()));
    matches!(source, Some(ValueSource::CommandLine | ValueSource::EnvVariable))
}
