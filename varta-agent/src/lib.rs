//! The Varta SDK: a heartbeat that never blocks, never allocates and never fails the program that sends it.
//!
//! A monitored process sends a *beat* at intervals: 32 bytes through one system call that does not block. A
//! server on the host, `varta-server`, reports within a millisecond of the deadline which process went
//! silent, and why.
//!
//! # A loop that beats
//!
//! ```
//! use varta_agent::{Status, Varta};
//!
//! let mut agent = Varta::connect_default()?; // whether or not a server runs
//! for job in 0..3 {
//!     let _ = agent.beat(Status::Ok, job);
//! }
//! # Ok::<(), std::io::Error>(())
//! ```
//!
//! `let _ =` is intended: the server detects missing beats. A program that needs the result matches on the
//! [`BeatOutcome`].
//!
//! A handle from [`Varta::connect_default`] or [`Varta::builder`] finds its server with a beat, as soon as there
//! is one and after each of its restarts; a program never ends or waits because there is none. One from
//! [`Varta::connect`] fails where nobody listens, and stays with its socket.
//!
//! # A Tokio service
//!
//! With the feature `tokio` a task sends the beats, and its handle sets what they carry:
//!
#![cfg_attr(feature = "tokio", doc = "```")]
#![cfg_attr(not(feature = "tokio"), doc = "```ignore")]
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use std::time::Duration;
//! use varta_agent::{Status, Varta};
//!
//! let agent = Varta::builder().name("billing").connect()?;
//! let heartbeat = agent.spawn_heartbeat(Duration::from_secs(1))?;
//! heartbeat.set_status(Status::Degraded)?;
//! heartbeat.stop().await;
//! # Ok(())
//! # }
//! ```
//!
//! The task also asks the server whether it takes the beats, which are sent whether it does or not; a refusal is
//! logged with what to do about it, and `Heartbeat::admission` has it. Without a task, [`Varta::check`] asks.
//!
//! A timer that beats proves only that the timer runs. A `Heartbeat::guard` ties the heartbeat to work that
//! must make progress: without progress the beats are withheld.
//!
//! # More than beats
//!
//! A beat reports that a process is alive, and carries no name. Everything else goes in *control datagrams*.
//! They are an extension: a server without support for them counts them as malformed, and accepts the beats.
//! A handle without any of the following sends only beats.
//!
//! - [`Builder::name`], [`interval`](Builder::interval), [`stall_after`](Builder::stall_after) and
//!   [`label`](Builder::label): the identity of the agent, and the silence after which it counts as stalled.
//!   The handle sends them before its first beat, also to a restarted server, and at least once a minute.
//! - [`Varta::close`]: the agent ends, and why, so that its silence raises no alert. A heartbeat sends it
//!   when it is stopped or dropped. Dropping a handle sends nothing, because a program that fails drops its
//!   handles too.
//! - [`Varta::busy_for`]: the agent will be silent for a while.
//! - [`Varta::progress`], [`Heartbeat::progress`] and [`Guard::progress`], or [`Builder::no_progress_after`]: the payload
//!   is a counter that must move, so that an agent that beats and does nothing is found out.
//!
//! ```
//! # let dir = tempfile::tempdir()?;
//! # let path = dir.path().join("varta.sock");
//! # let server = std::os::unix::net::UnixDatagram::bind(&path)?;
//! use std::time::Duration;
//! use varta_agent::{GoodbyeReason, Status, Varta};
//!
//! let second = Duration::from_secs(1);
//! let builder = Varta::builder().name("billing-worker").interval(second).stall_after(3 * second);
//! let mut agent = builder.socket(&path).connect()?;
//! let _ = agent.beat(Status::Ok, 0);
//! let _ = agent.close(GoodbyeReason::Shutdown);
//! # Ok::<(), std::io::Error>(())
//! ```
//!
//! # Features
//!
//! No feature is on by default, and then the crate depends only on `libc` and `varta-proto`.
//!
//! | feature | what it adds |
//! |---|---|
//! | `panic-handler` | `install_panic_handler`: a panic is reported to the server before the process dies |
//! | `tokio` | `Varta::spawn_heartbeat`: a task that sends beats, and guards for work that must make progress (with tokio and tracing) |
//! | `shm` | `Varta::connect_shm`: most beats are written to a page of memory and make no system call, on Linux |
//! | `udp` | `Varta::connect_udp`: beats to another host, without encryption; with `panic-handler` also `install_panic_handler_udp` |
//! | `secure-udp` | `Varta::connect_secure_udp` and `connect_secure_udp_with_master`: sealed beats to another host (with ring); with `panic-handler` also `install_panic_handler_secure_udp` and `.._with_master`. It enables `udp` |
//! | `metrics` | the SDK's own counters, through the facade of the crate metrics |
//!
//! # What the SDK counts
//!
//! With the feature `metrics`, all handles of a process share the counters of the recorder that is installed
//! when they connect; a handle that connects before there is a recorder counts nothing.
//!
//! | counter | meaning |
//! |---|---|
//! | `varta_client_beats_total{outcome}` | beats that were `sent`, `dropped` or `failed`; one with an invalid status, or without a connection after a fork, is not counted |
//! | `varta_client_clock_regression_total` | as [`Varta::clock_regressions`] |
//! | `varta_client_fork_recoveries_total` | as [`Varta::fork_recoveries`] |
//! | `varta_client_reconnects_total` | connections that were replaced, by the program or after lost beats; those after a fork are fork recoveries |
//!
//! # What happens on fork
//!
//! A child of `fork` may use the handles that it has inherited. Each of them detects the fork at its next
//! beat, connects again and starts a session of the child, so that parent and child are two agents; see
//! [`Varta::fork_recoveries`]. Detection costs a read of memory and no system call: on Linux the kernel
//! zeroes a page in every child (`MADV_WIPEONFORK`, since 4.14), for `fork` and a raw `clone` alike.
//!
//! There are two limits. Without such a page (other systems, older kernels) a handler that `fork` runs does
//! the same, and a raw `clone` does not run it. And a child that shares its parent's memory (`vfork`, `clone`
//! with `CLONE_VM`) cannot be distinguished from a thread: it must not send beats before it has called
//! `exec`.
//!
//! # What a seal protects
//!
//! With the feature `secure-udp`, an observer of the network cannot read a beat, only holders of a key can
//! create or change one, and a server rejects a replayed one. Visible are that a process sends beats, how
//! often and from which address; beats can be withheld, and a lost datagram stays lost.
//!
//! - *A shared key* is the same in the server and all its agents. It keeps strangers out, and does not
//!   separate its holders: any agent can read the beats of every other, and impersonate it. A compromised
//!   host means a new key for all.
//! - *A master key* gives each process a key that is derived for its pid, and a server accepts no beat with
//!   another pid under it. But the processes derive their keys themselves: each of them holds the master key,
//!   and could impersonate all, as with a shared key.
//! - *In memory*, a handle stores its configured key, in one place on the heap, and in master mode also the
//!   one that it derived last. Both are wiped when the handle is dropped; a panic hook keeps its own as long
//!   as the process lives; `Debug` shows neither. Not covered are copies that a call leaves on the stack,
//!   readers of the process's memory, and core dumps. A forked child inherits all of it, and keeps it if it
//!   sends no beat; `exec` removes it.
//! - *Nonces* never repeat: a session draws its salt from the operating system or does not start, and the
//!   child of a fork starts a session of its own before it seals anything, even if it uses the transport
//!   directly. A program cannot detect a virtual machine, or a checkpoint of a process, that is resumed
//!   twice: there [`Varta::reconnect`] must come before the first beat.
//!
//! # Process 1
//!
//! The protocol does not allow process 1 of a container to send its pid, which is also that of process 1 of
//! every other container. Its handles all send the same random number with the top bit set instead. A server
//! on the other end of a Unix socket knows the sender from the kernel anyway.

#[cfg(not(unix))]
compile_error!("varta-agent beats through Unix sockets, which this system does not have");

mod agent;
mod builder;
mod check;
mod control_schedule;
mod counters;
mod entropy;
mod fork;
#[cfg(feature = "tokio")]
mod heartbeat;
mod outcome;
#[cfg(feature = "panic-handler")]
mod panic;
mod profile;
#[cfg(feature = "tokio")]
mod progress;
mod retry;
mod sys;
mod time;
mod transport;

pub use agent::Varta;
#[cfg(feature = "secure-udp")]
pub use builder::SecureUdpServer;
#[cfg(all(feature = "shm", target_os = "linux"))]
pub use builder::SharedMemory;
#[cfg(feature = "udp")]
pub use builder::UdpServer;
pub use builder::{Builder, CustomTransport, UnixSocket};
pub use check::Admission;
#[cfg(feature = "tokio")]
pub use heartbeat::Heartbeat;
pub use outcome::{BeatError, BeatOutcome, DropReason, classify_send_error};
#[cfg(feature = "panic-handler")]
pub use panic::install_panic_handler;
#[cfg(all(feature = "panic-handler", feature = "udp"))]
pub use panic::install_panic_handler_udp;
#[cfg(all(feature = "panic-handler", feature = "secure-udp"))]
pub use panic::{install_panic_handler_secure_udp, install_panic_handler_secure_udp_with_master};
#[cfg(feature = "tokio")]
pub use progress::Guard;
#[cfg(feature = "secure-udp")]
pub use transport::SecureUdpTransport;
#[cfg(all(feature = "shm", target_os = "linux"))]
pub use transport::ShmTransport;
#[cfg(feature = "udp")]
pub use transport::UdpTransport;
pub use transport::{BeatTransport, UdsTransport};
pub use varta_proto::control::{Control, ControlKind, EncodedControl, GoodbyeReason};
#[cfg(feature = "secure-udp")]
pub use varta_proto::secure::{Key, KeyError, KeyFileError, KeyFileFault, KeyLineError};
pub use varta_proto::{DecodeError, Frame, NONCE_TERMINAL, Status};

/// Returns the path at which the server of this host listens by default: `VARTA_SOCKET` if that is set, else
/// the server's default for this user.
///
/// For functions that take a path, such as `install_panic_handler`. [`Varta::connect_default`] tries more
/// paths: all of those at which a server may listen.
///
/// ```
/// let socket = varta_agent::default_socket_path();
/// assert!(socket.is_absolute() || std::env::var_os("VARTA_SOCKET").is_some());
/// ```
pub fn default_socket_path() -> std::path::PathBuf {
    let configured = transport::uds::path_from_env(|name| std::env::var_os(name));
    configured.unwrap_or_else(|| varta_proto::address::default_socket_path(sys::effective_uid()))
}

/// Makes the handler of `fork` detect forks instead of the page, as on a system without such a page. Call it
/// before the first handle is created (feature `test-hooks`).
#[cfg(feature = "test-hooks")]
#[doc(hidden)]
pub fn without_fork_page_for_test() {
    fork::hooks::refuse_page();
}

/// The programs of the README are compiled with the tests.
#[cfg(all(doctest, feature = "tokio", feature = "panic-handler", feature = "secure-udp"))]
#[doc = include_str!("../../README.md")]
struct Readme;
