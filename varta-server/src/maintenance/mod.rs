//! Maintenance: agents that are paused for a time. They are watched and shown as always, and alarm nobody: the sinks that
//! act ask [`Pauses`] first.
//!
//! Pauses come from two places. Those of the configuration's file are planned and are read again with it; the others are
//! asked for on the control socket, and outlive the server in a file of `--state-dir`.

mod alarm;
mod client;
mod control;
mod desk;
mod fields;
mod keeper;
mod kept;
mod list;
mod pause;
mod protocol;

use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::SystemTime;

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

pub(crate) use self::client::ask;
use self::control::ControlListener;
use self::desk::Desk;
use self::kept::KeptFile;
use self::list::{List, Replanned, Turn};
pub(crate) use self::pause::{Pause, parse_pattern, parse_reason, rfc3339};
pub(crate) use self::protocol::{Answer, Outcome, Request, check_length};
use crate::clock::wall_now;
use crate::config::{self, PlannedPauses};
use crate::error::Error;
use crate::metrics::MaintenanceMetrics;

/// Where log lines about pauses come from, for those who filter them.
const TARGET: &str = "varta::maintenance";

/// Who is paused. Clones share what they know.
#[derive(Clone, Debug, Default)]
pub(crate) struct Pauses(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    /// Held for as long as it takes to look through it, and never while something outside is done.
    list: RwLock<List>,
    /// Told when somebody else than time has changed the list.
    changed: Notify,
}

impl Pauses {
    /// Whether agents of this name are paused.
    pub(crate) fn is_paused(&self, name: &str, now: SystemTime) -> bool {
        self.look(|list| list.is_paused(name, now))
    }

    /// Goes by what the configuration's file plans now, and says in the log which pauses are no more for it, and which it
    /// plans too late.
    pub(crate) fn plan(&self, planned: &PlannedPauses, now: SystemTime) {
        let Replanned { gone, too_late } = self.change(|list| list.plan(planned, now));
        for Pause { pattern, until, .. } in too_late {
            let pattern = pattern.as_str().escape_debug();
            let until = until.map(rfc3339).unwrap_or_default();
            tracing::warn!(
                target: TARGET,
                %pattern,
                until,
                "{pattern} is not paused: what the configuration's file plans for it was over at {until}; take it out there, or \
                 mend its `until`"
            );
        }
        for Pause { pattern, .. } in gone {
            let pattern = pattern.as_str().escape_debug();
            tracing::info!(
                target: TARGET,
                %pattern,
                "{pattern} is no longer paused: that was taken out of the configuration's file"
            );
        }
    }

    fn look<T>(&self, look: impl FnOnce(&List) -> T) -> T {
        look(&self.0.list.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Changes the list, and has time look at it anew.
    fn change<T>(&self, change: impl FnOnce(&mut List) -> T) -> T {
        let changed = change(&mut self.0.list.write().unwrap_or_else(PoisonError::into_inner));
        self.0.changed.notify_one();
        changed
    }

    /// Does what time has brought, and says in the log what begins and what is over.
    fn turn(&self, now: SystemTime) -> Turn {
        let turn = self.0.list.write().unwrap_or_else(PoisonError::into_inner).turn(now);
        for Pause { pattern, until, reason, by, .. } in &turn.begun {
            let pattern = pattern.as_str().escape_debug();
            let reason = reason.as_ref().map(|reason| reason.as_str().escape_debug());
            let until = until.map(rfc3339);
            tracing::info!(
                target: TARGET,
                %pattern,
                until,
                %by,
                reason = reason.as_ref().map(tracing::field::display),
                "{pattern} is paused {}, by {by}{}",
                until.as_ref().map_or("until further notice".to_owned(), |until| format!("until {until}")),
                reason.as_ref().map_or_else(String::new, |reason| format!(": {reason}")),
            );
        }
        for Pause { pattern, by, .. } in &turn.over {
            let pattern = pattern.as_str().escape_debug();
            tracing::info!(target: TARGET, %pattern, %by, "{pattern} is no longer paused: the time that {by} gave is over");
        }
        turn
    }

    /// Returns when somebody else than time has changed the list since this was last awaited.
    async fn changed(&self) {
        self.0.changed.notified().await;
    }
}

/// Maintenance of a server that has not begun to run. Dropping it gives its socket up.
#[derive(Debug)]
pub(crate) struct Maintenance {
    pauses: Pauses,
    file: Option<KeptFile>,
    control: Option<ControlListener>,
}

impl Maintenance {
    /// Reads what the server before this one kept in `state_dir`, which must be this one's alone by now, and takes the
    /// control socket.
    ///
    /// # Errors
    ///
    /// When the control socket cannot be had. One that nobody asked for and whose path would be too long is done without,
    /// which is said in the log.
    pub(crate) fn open(options: &config::Maintenance, state_dir: Option<&Path>) -> Result<Self, Error> {
        let control = match options.control.as_ref().map(ControlListener::bind).transpose() {
            Err(error @ Error::SocketPathTooLong { .. })
                if options.control.as_ref().is_some_and(|control| control.is_default) =>
            {
                tracing::warn!(target: "varta::maintenance", "there is no control socket: {error}");
                None
            }
            control => control?,
        };
        let pauses = Pauses::default();
        let file = state_dir.map(KeptFile::new);
        let kept = file.as_ref().map(KeptFile::read).unwrap_or_default();
        pauses.change(|list| {
            for pause in kept {
                // There are no more in the file than there may be.
                let _former = list.ask(pause);
            }
        });
        pauses.plan(&options.planned, wall_now());
        Ok(Maintenance { pauses, file, control })
    }

    /// Who is paused.
    pub(crate) fn pauses(&self) -> &Pauses {
        &self.pauses
    }

    /// Lets pauses begin and end, and does what is asked for on the control socket, until `stop` is cancelled.
    ///
    /// # Errors
    ///
    /// When the kernel has no timer for it, or refuses to watch the socket.
    pub(crate) async fn run(self, metrics: MaintenanceMetrics, stop: CancellationToken) -> Result<(), Error> {
        let Maintenance { pauses, file, control } = self;
        let desk = Arc::new(Desk::new(pauses, file, metrics));
        let serve = async {
            match control {
                Some(listener) => listener.serve(&desk, &stop).await,
                None => {
                    stop.cancelled().await;
                    Ok(())
                }
            }
        };
        tokio::try_join!(desk.keep_time(&stop), serve)?;
        Ok(())
    }
}

#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
