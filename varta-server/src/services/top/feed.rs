//! The thread that asks the server, again and again, for what is to be shown.

use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender};
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};

use crate::base::visible::visible_text;
use crate::services::follow::client::{ApiError, Client, encode};
use crate::services::top::model::{Act, SORTS, Update, Wanted};
use crate::services::top::rows::{Detail, List};

/// The time from one look to the next.
const EVERY: Duration = Duration::from_millis(500);
/// The most agents that are listed.
pub(super) const LIMIT: usize = 500;

/// What it is asked for.
#[derive(Debug)]
pub(super) enum Ask {
    /// Another list.
    Show(Wanted),
    /// Something is to be done.
    Act(Act),
}

/// Asks the server until nobody wants anything any more. What has come goes to `put`, which says whether anybody takes
/// it.
pub(super) fn run(client: &Client, mut wanted: Wanted, asks: &Receiver<Ask>, put: impl Fn(Update) -> bool) {
    loop {
        let update = look(client, &wanted).unwrap_or_else(|error| Update::Lost(error.to_string()));
        if !put(update) {
            return;
        }
        match asks.recv_timeout(EVERY) {
            Ok(Ask::Show(next)) => wanted = next,
            Ok(Ask::Act(act)) => {
                if !put(Update::Acted(done(client, &act))) {
                    return;
                }
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

/// Puts into a queue that may be closed.
pub(super) fn put_into<T: From<Update>>(queue: SyncSender<T>) -> impl Fn(Update) -> bool {
    move |update| queue.send(update.into()).is_ok()
}

fn look(client: &Client, wanted: &Wanted) -> Result<Update, ApiError> {
    let Wanted { sort, search, followed } = wanted;
    let (sort, _) = SORTS[*sort % SORTS.len()];
    let search = match search.trim() {
        "" => String::new(),
        words => format!("&search={}", encode(words)),
    };
    let list = client.get(&format!("/api/v1/agents?limit={LIMIT}&sort={sort}{search}"))?;
    let detail = match followed {
        None => None,
        Some(id) => match client.get(&format!("/api/v1/agents/{}", encode(id))) {
            Ok(detail) => Some(Box::new(parse::<Detail>(&detail)?)),
            // It has been forgotten.
            Err(ApiError::Refused { status: 404, .. }) => None,
            Err(error) => return Err(error),
        },
    };
    Ok(Update::Fresh { list: Box::new(parse::<List>(&list)?), detail })
}

fn parse<'v, T: Deserialize<'v>>(value: &'v Value) -> Result<T, ApiError> {
    T::deserialize(value).map_err(|fault| ApiError::Senseless(fault.to_string()))
}

/// Does it. Gives what has come of it in words.
fn done(client: &Client, act: &Act) -> String {
    let done = match act {
        Act::Pause { name, length } => client
            .request("POST", "/api/v1/pauses", Some(&json!({ "pattern": name, "for": length })))
            .map(|answer| {
                let until = answer["pause"]["until"].as_str().unwrap_or("further notice");
                format!("{name} is paused until {until}")
            }),
        Act::Resume { name } => client
            .request("DELETE", &format!("/api/v1/pauses?pattern={}", encode(name)), None)
            .map(|_| format!("the pause of {name} is lifted")),
    };
    visible_text(&done.unwrap_or_else(|error| error.to_string()))
}
