//! The new server's side of a hand-over.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use nix::unistd::dup2_stderr;
use tokio_util::sync::CancellationToken;

use crate::base::clock::Clock;
use crate::base::descriptor_link::DescriptorLink;
use crate::base::error::Error;
use crate::base::given_sockets::GivenSockets;
use crate::base::time::{millis, nanos};
use crate::config::Config;
use crate::domain::tracker::Tracker;
use crate::engine::ProcessMonitor;
use crate::engine::handover::{EngineState, HANDOVER_VERSION};
use crate::ingest::Keyring;
use crate::ingest::kernel_drops::KernelDrops;
use crate::server::handover::message::{
    FAILED, PREPARED, PassedSocket, RELEASED, RUNNING, STATE, STEP_WITHIN, State, TAKEN, WELCOME, Welcome,
    YOURS, blocking, expect, fault, is_end,
};
use crate::services::context::Context;
use crate::services::maintenance::take_over_request;

/// How errors and log lines name the other server.
const OTHER: &str = "the other server";

/// The server that runs, and from which this one takes over.
#[derive(Debug)]
pub(in crate::server) struct Predecessor {
    link: Arc<DescriptorLink>,
    path: PathBuf,
    pid: u32,
    welcome: Welcome,
    lock: Option<File>,
    stderr: Option<OwnedFd>,
}

/// What the other server knew, and its pidfds.
#[derive(Debug)]
pub(in crate::server) struct TakenState {
    state: State,
    pidfds: Vec<OwnedFd>,
}

/// Tells the other server why this one does not take over.
pub(in crate::server) fn refuse(link: &DescriptorLink, error: &Error) {
    // It may have gone.
    let _ = link.send(FAILED, error.to_string().as_bytes(), &[]);
}

impl Predecessor {
    /// Asks the server behind the control socket, and adds its sockets to the given ones.
    ///
    /// # Errors
    ///
    /// There is none, or it does not hand over to this version.
    pub(in crate::server) fn connect(config: &Config, given: &GivenSockets) -> Result<Self, Error> {
        let wrong = |option, fault: &str| Error::Option { option, fault: fault.to_owned() };
        let Some(path) = config.services.maintenance.control_path() else {
            return Err(wrong("--take-over", "asks over the control socket; give --control-socket"));
        };
        if config.services.recording.is_some() {
            return Err(wrong(
                "--record",
                "records a server from its start, and does not go with --take-over",
            ));
        }
        let failed =
            |fault: String| Error::file(path, format!("cannot take over from the server there: {fault}"));
        Self::greet(path, given).map_err(failed)
    }

    fn greet(path: &Path, given: &GivenSockets) -> Result<Self, String> {
        let mut stream = UnixStream::connect(path).map_err(fault)?;
        stream.write_all(take_over_request(HANDOVER_VERSION).as_bytes()).map_err(fault)?;
        let link = DescriptorLink::new(stream, STEP_WITHIN).map_err(fault)?;
        let (pid, uid) = link.peer().map_err(fault)?;
        let us = nix::unistd::geteuid().as_raw();
        if us != 0 && uid != us {
            return Err(format!("uid {uid} answers there, who is not to be believed"));
        }
        let message = expect(&link, WELCOME, OTHER)?;
        let welcome: Welcome = serde_json::from_slice(&message.bytes).map_err(|error| error.to_string())?;
        let extra = usize::from(welcome.has_lock) + usize::from(welcome.has_stderr);
        if message.descriptors.len() != welcome.sockets.len() + extra {
            return Err("it has passed another number of descriptors than it says".to_owned());
        }
        let mut descriptors = message.descriptors.into_iter();
        for (socket, descriptor) in welcome.sockets.iter().zip(descriptors.by_ref()) {
            let PassedSocket { option, removes_file, queue } = socket;
            given.add_inherited(descriptor, option.clone(), *removes_file, *queue).map_err(fault)?;
        }
        let lock = if welcome.has_lock { descriptors.next().map(File::from) } else { None };
        let stderr = if welcome.has_stderr { descriptors.next() } else { None };
        let (link, path) = (Arc::new(link), path.to_path_buf());
        Ok(Predecessor { link, path, pid, welcome, lock, stderr })
    }

    pub(in crate::server) fn link(&self) -> Arc<DescriptorLink> {
        Arc::clone(&self.link)
    }

    /// Its clock, with which this server goes on.
    pub(in crate::server) fn clock(&self) -> Clock {
        Clock::resume(self.welcome.host_start)
    }

    /// The fingerprints of its keys.
    pub(in crate::server) fn fingerprints(&self) -> Vec<u64> {
        self.welcome.fingerprints.clone()
    }

    /// The lock of its state directory.
    pub(in crate::server) fn take_lock(&mut self) -> Option<File> {
        self.lock.take()
    }

    /// Says that this server is ready, and waits until the other has stopped reading and given what it knows.
    ///
    /// # Errors
    ///
    /// It does not: it goes on itself, or has ended.
    pub(in crate::server) async fn state(&self) -> Result<TakenState, Error> {
        let taken = blocking(&self.link, |link| {
            link.send(PREPARED, b"", &[]).map_err(fault)?;
            let message = expect(link, STATE, OTHER)?;
            let state = postcard::from_bytes(&message.bytes).map_err(|error| error.to_string())?;
            Ok(TakenState { state, pidfds: message.descriptors })
        });
        taken.await.map_err(|fault| self.failed(&fault))
    }

    /// Takes all: from the return on this server reads, and the other never again.
    ///
    /// # Errors
    ///
    /// The other server goes on itself.
    pub(in crate::server) async fn take(&self) -> Result<(), Error> {
        let taken = blocking(&self.link, |link| {
            link.send(TAKEN, b"", &[]).map_err(fault)?;
            match link.receive() {
                Ok(message) if message.kind == YOURS => Ok(()),
                Ok(message) => Err(String::from_utf8_lossy(&message.bytes).into_owned()),
                // It has ended, and nobody else reads.
                Err(error) if is_end(&error) => Ok(()),
                Err(error) => Err(error.to_string()),
            }
        });
        taken.await.map_err(|fault| self.failed(&fault))?;
        if let Some(stderr) = &self.stderr {
            // Else the log goes on through the other server, as long as that lives.
            let _ = dup2_stderr(stderr);
        }
        Ok(())
    }

    /// Logs for how long nobody has read, since the other server stopped at this time on the clock of the host, in
    /// nanoseconds.
    pub(in crate::server) fn log_pause(&self, stopped_at: u64) {
        let pause = Duration::from_nanos(nanos(Clock::monotonic_now()).saturating_sub(stopped_at));
        tracing::info!(
            target: "varta::server",
            from_pid = self.pid,
            pause_ms = millis(pause),
            pause_us = u64::try_from(pause.as_micros()).unwrap_or(u64::MAX),
            "took over from the server with pid {}; nobody read for {pause:.3?}",
            self.pid
        );
    }

    /// Waits until the services of the other server have ended, and gives what they have left.
    pub(in crate::server) async fn release(&self) -> BTreeMap<String, Vec<u8>> {
        let released = blocking(&self.link, |link| {
            let message = expect(link, RELEASED, OTHER)?;
            postcard::from_bytes(&message.bytes).map_err(|error| error.to_string())
        });
        released.await.unwrap_or_else(|fault| {
            tracing::warn!(
                target: "varta::server",
                "what the services of the other server had in memory is lost: {fault}"
            );
            BTreeMap::new()
        })
    }

    /// Says that this server runs, and cancels `is_alone` when the other has ended.
    pub(in crate::server) fn finish(self, is_alone: CancellationToken) {
        tokio::spawn(async move {
            let done = blocking(&self.link, |link| {
                link.send(RUNNING, b"", &[]).map_err(fault)?;
                // Nothing is sent any more: this is its end.
                let _ = link.receive();
                Ok(())
            });
            // It may have ended before.
            let _ = done.await;
            is_alone.cancel();
        });
    }

    /// Tells the other server why it is not taken over from, and gives that as an error.
    pub(in crate::server) fn refuse(&self, fault: &str) -> Error {
        let error = self.failed(fault);
        refuse(&self.link, &error);
        error
    }

    fn failed(&self, fault: &str) -> Error {
        Error::file(&self.path, format!("cannot take over from the server there: {fault}"))
    }
}

impl TakenState {
    /// When the other server stopped reading, on the clock of the host in nanoseconds.
    pub(in crate::server) fn stopped_at(&self) -> u64 {
        self.state.stopped_at
    }

    /// Goes on with it: counters, replay windows and watched processes, and the tracker that is returned.
    ///
    /// # Errors
    ///
    /// It makes no sense here.
    pub(in crate::server) fn resume(
        self,
        config: &Config,
        context: &Context,
        keyring: &Keyring,
        kernel_drops: &KernelDrops,
        monitor: &mut ProcessMonitor,
    ) -> Result<Tracker, String> {
        let TakenState { state: State { fingerprints, engine, windows, counters, .. }, pidfds } = self;
        let EngineState { tracker, watched, exits } = EngineState::decode(&engine)?;
        // A key that was loaded meanwhile may have another number here.
        if !keyring.fingerprints().starts_with(&fingerprints) {
            return Err("the keys have changed during the hand-over; try again".to_owned());
        }
        keyring.restore(&windows);
        let policy = config.policy.clone();
        let tracker = Tracker::resume(policy, tracker, context.clock.now()).map_err(str::to_owned)?;
        monitor.inherit(watched, pidfds, exits);
        kernel_drops.resume(&counters);
        for counter in counters {
            if context.registry.counts(&counter.0) && !KernelDrops::is_its(&counter.0) {
                context.registry.resume(counter);
            }
        }
        Ok(tracker)
    }
}
