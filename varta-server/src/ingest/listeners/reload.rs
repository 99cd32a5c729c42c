//! Other listeners while the server runs: what is new is bound before anything changes.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use tokio::task::spawn_blocking;

use crate::base::error::Error;
use crate::base::time::millis;
use crate::ingest::endpoint::Endpoint;
use crate::ingest::held_socket::Changed;
use crate::ingest::kernel_queues::warn_if_small;
use crate::ingest::listeners::bound::{Bound, Wanted};
use crate::ingest::listeners::{ListenerSet, Present};
use crate::ingest::options::IngestOptions;
use crate::ingest::senders::AllowedSenders;
use crate::ingest::socket_access;

/// Other listeners, which do not read yet. A drop releases them and takes back what has changed.
#[derive(Debug)]
pub(crate) struct Staged {
    set: ListenerSet,
    begin: Vec<Bound>,
    kept: Vec<Arc<Present>>,
    end: Vec<Arc<Present>>,
    changed: Vec<Changed>,
    allowed: AllowedSenders,
    receive_buffer: usize,
    is_open_to_network: bool,
    max_pages: usize,
}

impl ListenerSet {
    /// Binds the listeners that are new, and gives the files of Unix sockets their new modes. Those that are there
    /// read on as they were.
    ///
    /// # Errors
    ///
    /// One cannot be had. Nothing has changed, and what was bound before it is released.
    pub(crate) async fn stage(&self, options: IngestOptions) -> Result<Staged, Error> {
        let mut end = self.present().clone();
        let (mut new, mut kept, mut changes) = (Vec::new(), Vec::new(), Vec::new());
        for wanted in Wanted::all(&options) {
            let Some(place) = end.iter().position(|present| present.wanted.is_same(&wanted)) else {
                new.push(wanted);
                continue;
            };
            let present = end.remove(place);
            refuse_other_family(&present.wanted, &wanted)?;
            if let Some(options) = wanted.file() {
                let change = |file| (file, options.mode, options.group);
                changes.extend(present.files.iter().cloned().map(change));
            }
            kept.push(present);
        }
        let (parts, queue) = (self.0.parts.clone(), options.socket_queue);
        let bind = move || {
            let bind = |wanted| parts.bind(wanted, queue);
            new.into_iter().map(bind).collect::<Result<Vec<_>, Error>>()
        };
        let bound = spawn_blocking(bind).await.map_err(|error| Error::Runtime {
            action: "bind the sockets",
            source: io::Error::other(error),
        })?;
        let begin = bound.map_err(|error| own_port(error, &end))?;
        let changed: Result<Vec<_>, Error> = changes
            .into_iter()
            .filter_map(|(file, mode, group)| file.change(mode, group).transpose())
            .collect();
        Ok(Staged {
            set: self.clone(),
            begin,
            kept,
            end,
            changed: changed?,
            allowed: options.allowed,
            receive_buffer: options.udp_receive_buffer,
            is_open_to_network: options.allow_plaintext_remote,
            max_pages: options.max_shm_agents,
        })
    }
}

/// Refuses that a socket for all IPv6 addresses begins or ceases to take IPv4: the kernel sets that when it is bound.
fn refuse_other_family(present: &Wanted, wanted: &Wanted) -> Result<(), Error> {
    let (Some((_, before)), Some((option, after))) = (present.udp(), wanted.udp()) else { return Ok(()) };
    let address = after.address;
    if before.only_v6 == after.only_v6 || !(address.is_ipv6() && address.ip().is_unspecified()) {
        return Ok(());
    }
    let fault = format!(
        "{address}: whether it takes IPv4 too, which depends on 0.0.0.0:{}, counts only after a restart",
        address.port()
    );
    Err(Error::Option { option, fault })
}

/// Says which listener has the port, if it is one that would end by the reload.
fn own_port(error: Error, end: &[Arc<Present>]) -> Error {
    let Error::UdpAddress { option, address, ref source } = error else { return error };
    let holder = |present: &&Arc<Present>| {
        let its: Option<SocketAddr> = present.probe.endpoint().address();
        its.is_some_and(|its| its.port() == address.port())
    };
    match end.iter().find(holder) {
        Some(present) if source.kind() == io::ErrorKind::AddrInUse => {
            let holder = present.probe.endpoint();
            let fault = format!(
                "{address}: {holder} of this server has the port until the reload has succeeded; reload once without it, or \
                 restart the server"
            );
            Error::Option { option, fault }
        }
        Some(_) | None => error,
    }
}

impl Staged {
    /// Has the new listeners read, and then ends the others, which read what has arrived before. `stall_after` is
    /// what agents are judged by, of which there may be `max_agents`. `None` when the server is about to end.
    pub(crate) async fn commit(self, stall_after: Duration, max_agents: usize) -> Option<()> {
        let Staged { set, begin, kept, end, changed, allowed, receive_buffer, is_open_to_network, max_pages } =
            self;
        set.0.parts.pages.resize(max_pages);
        let is_another = !begin.is_empty() || !changed.is_empty() || *set.0.allowed.borrow() != allowed;
        changed.into_iter().for_each(Changed::keep);
        set.0.allowed.send_replace(allowed.clone());
        set.resize(&kept, receive_buffer);
        if is_open_to_network && begin.iter().any(|bound| matches!(bound.wanted, Wanted::Udp(_))) {
            warn_of_plaintext();
        }
        for bound in begin {
            log_endpoint(bound.listener.endpoint(), stall_after);
            warn_if_small([&*bound.probe], max_agents, receive_buffer);
            set.begin(bound).await?;
        }
        set.end(end).await;
        if is_another {
            let paths = set.paths();
            // Users and groups are looked up, which may take a while.
            drop(spawn_blocking(move || socket_access::warn(paths.iter().map(AsRef::as_ref), &allowed)));
        }
        Some(())
    }
}

impl ListenerSet {
    async fn begin(&self, bound: Bound) -> Option<()> {
        let present = Arc::new(Present::of(&bound, &self.0.stop));
        self.0.probes.add(Arc::clone(&present.probe));
        self.present().push(Arc::clone(&present));
        self.0.starts.send(present.starting(bound, &self.0.parts)).await.ok()
    }

    /// Ends listeners, and waits until their sockets are closed and their files removed.
    async fn end(&self, end: Vec<Arc<Present>>) {
        self.present().retain(|present| !end.iter().any(|ended| Arc::ptr_eq(present, ended)));
        for present in &end {
            if present.files.first().is_some_and(|file| file.is_ours()) {
                present.probe.refuse_more();
            }
            present.stop.cancel();
        }
        for present in end {
            for ended in &present.ended {
                ended.cancelled().await;
            }
            self.0.kernel_drops.publish();
            self.0.probes.remove(&present.probe);
            let endpoint = present.probe.endpoint();
            tracing::info!(
                target: "varta::server",
                transport = endpoint.transport().as_str(),
                "{endpoint} is closed; agents that beat there are silent from now on"
            );
        }
    }

    /// Gives UDP sockets a receive buffer of this size, in bytes, if they were to have another.
    fn resize(&self, kept: &[Arc<Present>], bytes: usize) {
        let mut present = self.0.receive_buffer.lock().unwrap_or_else(PoisonError::into_inner);
        if *present == bytes {
            return;
        }
        *present = bytes;
        for listener in kept {
            if let Err(error) = listener.probe.resize(bytes) {
                let endpoint = listener.probe.endpoint();
                tracing::warn!(
                    target: "varta::ingest",
                    "{endpoint}: its queue stays as long as it is: {error}; see --udp-receive-buffer"
                );
            }
        }
    }
}

/// Logs a listening socket: the first lines of the log.
pub(crate) fn log_endpoint(endpoint: &Endpoint, stall_after: Duration) {
    if matches!(endpoint, Endpoint::Notify(_)) {
        return log_notify(endpoint);
    }
    tracing::info!(
        target: "varta::server",
        path = endpoint.path().map(|path| tracing::field::display(path.display())),
        address = endpoint.address().map(tracing::field::display),
        transport = endpoint.transport().as_str(),
        stall_after_ms = millis(stall_after),
        "listening on {endpoint}; an agent is stalled after {stall_after:?} of silence"
    );
}

/// The same of a socket for notifications, for which no such time counts.
fn log_notify(endpoint: &Endpoint) {
    tracing::info!(
        target: "varta::server",
        path = endpoint.path().map(|path| tracing::field::display(path.display())),
        transport = endpoint.transport().as_str(),
        "listening on {endpoint}; services find it in NOTIFY_SOCKET"
    );
}

/// Warns that anybody on the network can pretend to be an agent.
pub(crate) fn warn_of_plaintext() {
    tracing::warn!(
        target: "varta::server",
        "beats are taken from the network in plaintext (--allow-plaintext-remote): anyone on it can read them, pretend to \
         be any agent of another host, keep a dead one alive, and make up new ones; use --secure-udp where that matters"
    );
}
