//! The engine while another server takes over and nobody reads the sockets.
//!
//! A beat or a goodbye may wait in a socket, so nothing is judged: deadlines wait, and so do exits, which the kernel
//! goes on to report. Whichever server goes on has the sockets read first.

use std::pin::pin;

use crate::engine::handover::{Export, GiveAway};
use crate::engine::query::Query;
use crate::engine::subscribers::Subscribers;
use crate::engine::task::TrackerActor;

/// How a standstill has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standstill {
    /// This server goes on, and has read what has waited.
    Over,
    /// Another server has everything.
    HandedOver,
    /// All listeners have ended.
    Stopped,
}

impl TrackerActor {
    /// Stands still until the gate is open and what has waited is read, or until another server has taken everything.
    /// `asked` is the hand-over that is to begin.
    pub(super) async fn stand_still(&mut self, mut asked: Option<GiveAway>) -> Standstill {
        let since = self.unread_since.take().unwrap_or_else(|| self.clock.now());
        let gate = self.gate.clone();
        let mut read_again = pin!(gate.entered_by_all());
        loop {
            if let Some(asked) = asked.take()
                && self.give_away(asked)
            {
                return Standstill::HandedOver;
            }
            tokio::select! {
                biased;
                batch = self.inbox.recv() => match batch {
                    Some(batch) => self.take(batch),
                    None => return Standstill::Stopped,
                },
                Some(query) = self.queries.recv() => match query {
                    Query::GiveAway(give) => asked = Some(give),
                    query => self.answer(query).await,
                },
                () = &mut read_again => break,
            }
        }
        self.read_ahead().await;
        let now = self.clock.now();
        self.notice_blindness(self.tracker.poll_timeout().map(|_| since), now);
        Standstill::Over
    }

    /// Answers requests of HTTP that were accepted before another server has taken over, by what was known then. Ends
    /// when nobody can ask any more. Who asks for anything else is told that the server is stopping.
    pub(super) async fn give_last_answers(mut self) {
        self.inbox.close();
        self.sinks = Subscribers::default();
        while let Some(query) = self.queries.recv().await {
            if matches!(query, Query::Ping(_) | Query::StartRows { .. } | Query::AddRows { .. }) {
                self.answer(query).await;
            }
        }
    }

    /// Gives the state to another server. Whether that has taken it. All that has been received is handled before.
    fn give_away(&mut self, GiveAway(give): GiveAway) -> bool {
        self.drain_inbox();
        let now = self.clock.now();
        while self.process_monitor.has_requests() {
            self.process_monitor.do_requests(&mut self.tracker, now);
        }
        self.hand_on_transitions();
        give(&Export::new(self.tracker.state(), &self.process_monitor.watcher))
    }
}
