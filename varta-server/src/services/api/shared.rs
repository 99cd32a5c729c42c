//! What all paths share: what answers are made of, and why there is none.

use std::sync::Arc;

use axum::http::StatusCode;
use axum::http::header::{CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::base::clock::wall_now;
use crate::base::time::rfc3339;
use crate::services::alarms::Alarms;
use crate::services::alerts::AlertBoard;
use crate::services::api::changes::{Changes, Revision};
use crate::services::api::directory::{Directories, Directory};
use crate::services::api::incidents::Incidents;
use crate::services::api::stream::MAX_STREAMS;
use crate::services::http::problem;
use crate::services::maintenance::desk::Desk;
use crate::services::recovery::Journal;
use crate::services::state::HistoryReader;

/// The most requests that are answered at once, but for streams.
const MAX_READS: usize = 32;
/// The most reads of the history at once.
const MAX_DISK_READS: usize = 2;

/// What other services give to read, and the desk at which is acted.
#[derive(Debug)]
pub(crate) struct Sources {
    pub(crate) alarms: Alarms,
    pub(crate) desk: Desk,
    pub(crate) board: AlertBoard,
    pub(crate) journal: Journal,
    /// Where there is a state directory.
    pub(crate) history: Option<HistoryReader>,
}

/// What the answers are made of.
#[derive(Debug)]
pub(super) struct Api {
    pub(super) changes: Changes,
    pub(super) directories: Directories,
    pub(super) incidents: Incidents,
    pub(super) alarms: Alarms,
    pub(super) desk: Desk,
    /// What fires.
    pub(super) board: AlertBoard,
    /// What recovery does.
    pub(super) journal: Journal,
    pub(super) history: Option<Arc<HistoryReader>>,
    /// The name of this host.
    pub(super) host: Arc<str>,
    pub(super) streams: Arc<Semaphore>,
    pub(super) reads: Arc<Semaphore>,
    pub(super) disk: Arc<Semaphore>,
    /// Cancelled when the server stops.
    pub(super) stop: CancellationToken,
}

/// Why there is no answer.
#[derive(Debug)]
pub(super) enum Refusal {
    /// The request makes no sense.
    Malformed(String),
    /// There is no such agent.
    Unknown(String),
    /// Who asks may only read.
    Forbidden,
    /// Who asks for more than to read has shown nothing.
    Unauthenticated,
    /// It cannot be done.
    Conflict(String),
    /// Too many ask at once.
    Busy,
    /// The history cannot be read.
    Unreadable(String),
    Stopping,
}

impl From<String> for Refusal {
    fn from(fault: String) -> Self {
        Refusal::Malformed(fault)
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        match self {
            Refusal::Malformed(fault) => problem(StatusCode::BAD_REQUEST, fault),
            Refusal::Unknown(what) => problem(StatusCode::NOT_FOUND, what),
            Refusal::Forbidden => problem(StatusCode::FORBIDDEN, TO_ACT),
            Refusal::Unauthenticated => {
                ([(WWW_AUTHENTICATE, "Bearer")], problem(StatusCode::UNAUTHORIZED, TO_ACT)).into_response()
            }
            Refusal::Conflict(why) => problem(StatusCode::CONFLICT, why),
            Refusal::Busy => {
                let busy =
                    problem(StatusCode::SERVICE_UNAVAILABLE, "too many ask at once; try again in a second");
                ([(RETRY_AFTER, "1")], busy).into_response()
            }
            Refusal::Unreadable(why) => problem(StatusCode::SERVICE_UNAVAILABLE, why),
            Refusal::Stopping => problem(StatusCode::SERVICE_UNAVAILABLE, "the server is stopping"),
        }
    }
}

/// What an act needs.
const TO_ACT: &str =
    "this needs the token of --api-token-file in the header Authorization, or the control socket";

impl Api {
    pub(super) fn new(
        changes: Changes,
        directories: Directories,
        incidents: Incidents,
        sources: Sources,
        host: Arc<str>,
        stop: CancellationToken,
    ) -> Self {
        let [streams, reads, disk] =
            [MAX_STREAMS, MAX_READS, MAX_DISK_READS].map(|most| Arc::new(Semaphore::new(most)));
        let Sources { alarms, desk, board, journal, history } = sources;
        let history = history.map(Arc::new);
        Api {
            changes,
            directories,
            incidents,
            alarms,
            desk,
            board,
            journal,
            history,
            host,
            streams,
            reads,
            disk,
            stop,
        }
    }

    /// Whether agents of this name are paused.
    pub(super) fn is_paused(&self, name: &str) -> bool {
        self.desk.schedule().is_paused(name, wall_now())
    }

    pub(super) async fn directory(&self) -> Result<Arc<Directory>, Refusal> {
        self.directories.get().await.ok_or(Refusal::Stopping)
    }

    /// What all answers begin with.
    pub(super) fn head(&self, revision: Revision) -> Value {
        json!({ "revision": revision.to_string(), "now": rfc3339(wall_now()) })
    }
}

/// A JSON object, with what all answers begin with.
pub(super) fn answer(head: Value, rest: Value) -> Response {
    let mut all = head;
    if let (Value::Object(all), Value::Object(rest)) = (&mut all, rest) {
        all.extend(rest);
    }
    json_text(all.to_string())
}

pub(super) fn json_text(text: String) -> Response {
    ([(CONTENT_TYPE, "application/json")], text).into_response()
}
