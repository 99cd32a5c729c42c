//! The stream of changes: server-sent events, as in the section of that name of the HTML Living Standard. A reader that
//! comes back is given what it missed. What waits for a slow one is what is kept for all of them, and no more.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{self, Poll};
use std::time::Duration;

use axum::body::{Body, HttpBody};
use bytes::{Bytes, BytesMut};
use hyper::body::Frame;
use serde_json::json;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::time::sleep;

use crate::base::Glob;
use crate::base::clock::wall_now;
use crate::base::time::rfc3339;
use crate::base::version::VERSION;
use crate::services::api::changes::{Change, Missed, Revision};
use crate::services::api::shared::Api;

/// The most streams at once.
pub(super) const MAX_STREAMS: usize = 256;
/// After how long without a change a reader is shown that the server is there.
const QUIET: Duration = Duration::from_secs(15);
/// The most changes that are sent together.
const TOGETHER: usize = 64;

/// Which changes.
#[derive(Clone, Debug, Default)]
pub(super) struct StreamFilter {
    pub(super) name: Option<Glob>,
    /// The id of one agent.
    pub(super) agent: Option<String>,
}

impl StreamFilter {
    fn selects(&self, change: &Change, host: &str) -> bool {
        let Some(agent) = change.agent() else { return true };
        self.name.as_ref().is_none_or(|name| name.matches(&agent.name))
            && self.agent.as_ref().is_none_or(|id| agent.instance(host) == *id)
    }
}

/// The body of a stream that goes on behind `since`, or begins with what comes next.
pub(super) fn body(
    api: Arc<Api>,
    since: Option<Revision>,
    filter: StreamFilter,
    permit: OwnedSemaphorePermit,
) -> Body {
    let (sender, receiver) = mpsc::channel(1);
    tokio::spawn(async move {
        let stop = api.stop.clone();
        let writer = Writer { api, filter, sender };
        tokio::select! {
            biased;
            () = stop.cancelled() => {}
            () = writer.sender.closed() => {}
            _ = writer.run(since) => {}
        }
        drop(permit);
    });
    Body::new(Streamed(receiver))
}

struct Streamed(mpsc::Receiver<Bytes>);

impl HttpBody for Streamed {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut task::Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0.poll_recv(context).map(|bytes| bytes.map(|bytes| Ok(Frame::data(bytes))))
    }
}

struct Writer {
    api: Arc<Api>,
    filter: StreamFilter,
    sender: mpsc::Sender<Bytes>,
}

/// The reader is gone.
struct Gone;

impl Writer {
    async fn run(&self, since: Option<Revision>) -> Result<(), Gone> {
        let changes = &self.api.changes;
        let mut newest = changes.watch();
        let present = changes.revision();
        self.say(
            "hello",
            Some(since.filter(|since| since.instance == present.instance).unwrap_or(present)),
            &json!({
                "revision": present.to_string(), "now": rfc3339(wall_now()), "version": VERSION, "host": &*self.api.host,
            }),
        )
        .await?;
        let mut position = present.number;
        match since {
            None => {}
            Some(since) if since.instance != present.instance => {
                self.say("resync", Some(present), &json!({ "reason": "another server" })).await?;
            }
            Some(since) => match changes.after(since.number, 1) {
                Missed::Known(_) => position = since.number,
                Missed::Unknown => self.say("resync", Some(present), &json!({ "reason": "too old" })).await?,
            },
        }
        loop {
            newest.mark_unchanged();
            match changes.after(position, TOGETHER) {
                Missed::Unknown => return self.say("resync", None, &json!({ "reason": "too slow" })).await,
                Missed::Known(some) if some.is_empty() => {
                    tokio::select! {
                        // The sender is there as long as this.
                        _ = newest.changed() => {}
                        () = sleep(QUIET) => self.send(format!("id: {}\n:\n\n", self.at(position))).await?,
                    }
                }
                Missed::Known(some) => {
                    let mut events = BytesMut::new();
                    for change in some {
                        position = change.number;
                        if self.filter.selects(&change, &self.api.host) {
                            events.extend_from_slice(format!("id: {}\n", self.at(position)).as_bytes());
                            events.extend_from_slice(change.event(&self.api.host));
                        }
                    }
                    if !events.is_empty() {
                        self.send(events.freeze()).await?;
                    }
                }
            }
        }
    }

    fn at(&self, number: u64) -> Revision {
        Revision { number, ..self.api.changes.revision() }
    }

    async fn say(&self, event: &str, id: Option<Revision>, data: &serde_json::Value) -> Result<(), Gone> {
        let id = id.map(|id| format!("id: {id}\n")).unwrap_or_default();
        self.send(format!("{id}event: {event}\ndata: {data}\n\n")).await
    }

    async fn send(&self, text: impl Into<Bytes>) -> Result<(), Gone> {
        self.sender.send(text.into()).await.map_err(|_| Gone)
    }
}
