//! The Varta SDK: a heartbeat that never blocks, never allocates and never fails the program that sends it.
//!
//! A process that wants to be watched sends a *beat* now and then: 32 bytes through one system call that does not wait.
//! A server on the host, `varta-server`, says within a millisecond of the deadline who went silent, and why.
//!
//! # A loop that beats
//!
//! ```
//! # let dir = tempfile::tempdir()?;
//! # let path = dir.path().join("varta.sock");
//! # let server = std::os::unix::net::UnixDatagram::bind(&path)?;
//! use varta_agent::{Status, Varta};
//!
//! let mut agent = Varta::connect(&path)?; // or `connect_default()`, which finds the server of the host
//! for job in 0..3 {
//!     let _ = agent.beat(Status::Ok, job);
//! }
//! # Ok::<(), std::io::Error>(())
//! ```
//!
//! `let _ =` is meant: whether a beat arrives is the server's business to notice. A program that does care matches on
//! the [`BeatOutcome`].
//!
//! A handle from [`Varta::connect`] stays with the socket that it found. One from [`Varta::connect_default`] or
//! [`Varta::builder`] finds a restarted server by itself, and a [lazy](Builder::lazy) one does not even need a server
//! to begin with.
//!
//! # A Tokio service
//!
//! With the feature `tokio` a task beats for you, and the handle to it changes what it says:
//!
#![cfg_attr(feature = "tokio", doc = "```")]
#![cfg_attr(not(feature = "tokio"), doc = "```ignore")]
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use std::time::Duration;
//! use varta_agent::{Status, Varta};
//!
//! let agent = Varta::builder().lazy().connect()?;
//! let heartbeat = agent.spawn_heartbeat(Duration::from_secs(1))?;
//! heartbeat.set_status(Status::Degraded)?;
//! heartbeat.stop().await;
//! # Ok(())
//! # }
//! ```
//!
//! A timer that beats proves that the timer runs. A `Heartbeat::guard` ties the heartbeat to work that has to make
//! progress: while it does not, the beats are held back.
//!
//! # More than beats
//!
//! A beat says that a process lives, and carries no name. What else there is to say goes in *control datagrams* beside the
//! beats. They are an extension: a server that does not know them counts them as malformed, and takes the beats as ever.
//! A handle that is not asked for any of it sends beats and nothing else.
//!
//! - [`Builder::name`], [`interval`](Builder::interval), [`stall_after`](Builder::stall_after) and
//!   [`label`](Builder::label): who the agent is and when it wants to be missed. The server hears of it again at least once
//!   a minute, and after a restart behind the first beat.
//! - [`Varta::close`]: that it goes, and why, so that its silence is no alarm. A heartbeat says so when it is stopped or
//!   dropped. A handle that is just dropped says nothing, because a program that fails drops its handles too.
//! - [`Varta::busy_for`]: that it is going to be silent for a while, and means to.
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
//! None is on by default, and then the crate depends on `libc` and the wire format only.
//!
//! | feature | what it adds |
//! |---|---|
//! | `panic-handler` | `install_panic_handler`: a panic tells the server before the process dies |
//! | `tokio` | `Varta::spawn_heartbeat`: a task that beats, and guards for work that has to make progress (on top of tokio and tracing) |
//! | `shm` | `Varta::connect_shm`: most beats are written to a page of memory and make no system call, on Linux |
//! | `udp` | `Varta::connect_udp`: beats to another host, in plain sight; with `panic-handler` also `install_panic_handler_udp` |
//! | `secure-udp` | `Varta::connect_secure_udp` and `connect_secure_udp_with_master`: beats to another host under a seal (on top of ring); with `panic-handler` also `install_panic_handler_secure_udp` and `.._with_master`. It brings `udp` along |
//! | `metrics` | the SDK's own counters, through the facade of the crate metrics |
//! | `test-hooks` | methods that force a fork, a clock that steps back and the end of the nonces; not for production |
//!
//! # What the SDK counts
//!
//! With the feature `metrics`, all handles of a process together count into the recorder that is installed when they
//! connect; one that connects before there is a recorder counts nowhere.
//!
//! | counter | what |
//! |---|---|
//! | `varta_client_beats_total{outcome}` | beats that were `sent`, `dropped` or `failed`; one that was refused, or found no connection after a fork, is not counted |
//! | `varta_client_clock_regression_total` | as [`Varta::clock_regressions`] |
//! | `varta_client_fork_recoveries_total` | as [`Varta::fork_recoveries`] |
//! | `varta_client_reconnects_total` | connections that were replaced, by the program or after lost beats; those after a fork are fork recoveries |
//!
//! # What happens on fork
//!
//! A child of `fork` may beat on with the handles that it has inherited. Each of them notices at its next beat,
//! connects anew and begins a session of the child's own, so that parent and child are two agents and never one with
//! two voices; see [`Varta::fork_recoveries`]. Noticing costs a read of memory and no system call: on Linux the kernel wipes a page
//! in every child (`MADV_WIPEONFORK`, since 4.14), which covers `fork` and a raw `clone` alike.
//!
//! Two cases are beyond it. Where there is no such page (other systems, older kernels) a handler that `fork` runs takes
//! its place, and a raw `clone` goes past that. And a child that shares its parent's memory (`vfork`, `clone` with
//! `CLONE_VM`) cannot be told from a thread: it must not beat before it has called `exec`.
//!
//! # What a seal protects
//!
//! With the feature `secure-udp`, whoever listens on the way cannot read a beat, nobody without a key can make or change
//! one, and a server refuses one that it has had before. That a process beats, how often and from which address stays
//! visible; beats can be held back, and a datagram that is lost is lost.
//!
//! - *A shared key* is the same in the server and all its agents. It keeps strangers out, and does not tell its holders
//!   apart: any agent can read the beats of every other, and speak for it. A host that was broken into means a new key
//!   for all.
//! - *A master key* gives each process a key that is derived for its pid, and a server believes no beat with another
//!   pid in it. But the processes derive their keys themselves: each of them holds the master key, and could speak for
//!   all as with a shared key.
//! - *In memory*, a handle keeps the key that it was given, in one place on the heap, and in master mode also the one
//!   that it derived last. Both are wiped when the handle is dropped, a panic hook keeps its own as long as the process
//!   lives, and neither is shown by `Debug`. What a call leaves behind on the stack, what reads the memory of the
//!   process, and a core dump are beyond that. A forked child inherits all of it, and keeps it when it does not beat;
//!   `exec` takes it away.
//! - *Nonces* never repeat: a session draws its salt from the operating system or does not begin, and the child of a
//!   fork begins one of its own before it seals anything, even if it sends through the transport itself. Beyond what a
//!   program can see is a virtual machine, or a checkpoint of a process, that is resumed twice: there
//!   [`Varta::reconnect`] has to come before the first beat.
//!
//! # Process 1
//!
//! The protocol does not let process 1 of a container send its pid, which it has in common with process 1 of every
//! other. It sends a random number with the top bit set instead, the same from all its handles. A server on the other
//! end of a Unix socket knows the sender from the kernel anyway.

#[cfg(not(unix))]
compile_error!("varta-agent beats through Unix sockets, which this system does not have");

mod agent;
mod builder;
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

/// Gives the path at which the server of this host listens unless it was told otherwise: `VARTA_SOCKET` if that is set,
/// else the server's own default for this user.
///
/// For what wants a path, as the panic hook does. [`Varta::connect_default`] looks further: at every place where a server
/// may be.
///
/// ```
/// let socket = varta_agent::default_socket_path();
/// assert!(socket.is_absolute() || std::env::var_os("VARTA_SOCKET").is_some());
/// ```
pub fn default_socket_path() -> std::path::PathBuf {
    let configured = transport::uds::path_from_env(|name| std::env::var_os(name));
    configured.unwrap_or_else(|| varta_proto::address::default_socket_path(sys::effective_uid()))
}

/// Has forks be noticed by the handler of `fork` and not by the page, as on a system that has no such page. To be
/// called before the first handle is made (feature `test-hooks`).
#[cfg(feature = "test-hooks")]
pub fn without_fork_page_for_test() {
    fork::hooks::refuse_page();
}

/// The programs of the README are compiled with the tests.
#[cfg(all(doctest, feature = "tokio", feature = "panic-handler", feature = "secure-udp"))]
#[doc = include_str!("../../README.md")]
struct Readme;
