//! The Varta server: takes heartbeats from processes, says which of them went silent and why, and exports Prometheus
//! metrics.
//!
//! Data flows one way: a [`listener`] reads a socket and hands on decoded beats, the actor gives them to the pure
//! [`tracker`], and sinks get its [`Transition`](tracker::Transition)s. This library is what the program
//! `varta-server` runs, and what a test starts inside its own process:
//!
//! ```no_run
//! use varta_server::{Server, config::Config};
//!
//! #[tokio::main(flavor = "current_thread")]
//! async fn main() -> Result<(), varta_server::Error> {
//!     let server = Server::bind(Config::for_socket("/tmp/varta.sock".into()))?;
//!     server.run(async { tokio::signal::ctrl_c().await.unwrap_or(()) }).await
//! }
//! ```

mod actor;
mod alerts;
mod append_file;
pub mod audit;
pub mod beat;
pub mod cli;
pub mod clock;
pub mod config;
mod error;
pub mod events;
mod http;
mod ingest;
pub mod labels;
pub mod listener;
mod lock;
pub mod logging;
mod maintenance;
mod memory;
mod metrics;
pub mod outcome;
pub mod process;
mod queues;
pub mod recording;
pub mod recovery;
mod restore;
mod secret;
mod server;
mod sink;
mod store;
pub mod time;
pub mod tracker;
mod whole_file;

pub use self::alerts::{AlertOptions, AlertUrl};
pub use self::error::Error;
pub use self::metrics::agents::AgentMetrics;
pub use self::secret::Secret;
pub use self::server::{BoundServer, Reloader, Server};

/// This server's version.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
/// The commit from which it was built; `unknown` when it was not built from a repository.
pub const COMMIT: &str = env!("VARTA_COMMIT");
/// Both, as `--version` prints them.
pub const VERSION_AND_COMMIT: &str = concat!(env!("CARGO_PKG_VERSION"), " (", env!("VARTA_COMMIT"), ")");
