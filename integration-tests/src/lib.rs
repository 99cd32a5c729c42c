//! What the integration tests share: a real server, real agents, and expectations.
//!
//! Nothing in here looks inside a server or an agent. A test starts the programs that users start, speaks to
//! them through sockets, signals and standard streams, and reads what an operator reads: metrics, log lines
//! and exit statuses. It waits for conditions and never for time, so that its result is the same on a loaded
//! machine as on an idle one.

#![allow(
    clippy::panic,
    clippy::missing_panics_doc,
    reason = "what keeps a test from going on fails the test, with all that is known"
)]

mod agent_process;
mod browser;
mod cgroup;
mod commands;
mod counts;
mod database;
mod datagrams;
mod exec;
pub mod expect;
pub mod foreign;
pub mod handover_peer;
pub mod http;
mod log;
mod mail_server;
mod network_host;
mod programs;
mod prometheus;
mod receiver;
mod remote_agent;
mod retry;
mod route;
mod scrape;
mod scratch;
mod server;
mod small_disk;
pub mod sys;
mod terminal;
pub mod tls;
mod watch;

pub use agent_process::AgentProcess;
pub use browser::{Browser, Look};
pub use cgroup::{CgroupVersion, Freezer, LittleMemory};
pub use commands::{Commands, ReceivedCommand, exit_code};
pub use counts::{ExpectedCounts, Flood};
pub use database::{await_in_database, read_database};
pub use datagrams::{Datagrams, with_checksum};
pub use exec::{ExecProcess, exec_command};
pub use expect::{agent, any_agent, line, line_with, metric};
pub use log::{Line, Log, Transition};
pub use mail_server::{MailServer, ReceivedMail};
pub use network_host::{Cable, NetworkHost, in_a_network_of_its_own};
pub use programs::{
    Ended, as_pid, children, into_pid_namespace, into_time_namespace, notifier_command, notify_crate_command,
    pid_namespaces_work, pids_can_be_chosen, refused_start, run_server, run_to_its_end, same_pid,
    server_command, service_command, worker_command,
};
pub use prometheus::Prometheus;
pub use receiver::{Receiver, Reply, Request};
pub use remote_agent::{RemoteAgent, loopback_socket, send_from, socket_on};
pub use retry::{LIMIT, wait_for, wait_for_at, wait_until};
pub use route::{ANOTHER_KEY, MASTER_KEY, Network, Route, SHARED_KEY, loopbacks, write_secret};
pub use scrape::{Sample, Scrape};
pub use scratch::Scratch;
pub use server::{Options, Server, Successor};
pub use small_disk::SmallDisk;
pub use sys::Signal;
pub use terminal::Terminal;
pub use watch::Watch;
