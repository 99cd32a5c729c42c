//! A stream of changes that is opened again whenever it ends.

use std::thread;
use std::time::{Duration, Instant};

use crate::services::follow::client::{ApiError, Client};
use crate::services::follow::stream::{EventStream, StreamEvent};

/// The pause before a server that has gone is looked for again.
const AGAIN_AFTER: Duration = Duration::from_millis(200);

/// A stream of changes, through restarts and upgrades of the server.
#[derive(Debug)]
pub(crate) struct Follower {
    client: Client,
    target: String,
    /// The revision up to which everything has come.
    since: Option<String>,
    stream: Option<EventStream>,
    was_open: bool,
    lost_at: Option<Instant>,
}

/// What comes next.
#[derive(Debug)]
pub(crate) enum Next {
    /// An event.
    Event(StreamEvent),
    /// The server has gone; why it is thought so.
    Lost(String),
    /// It answers again, or another in its place.
    Back,
    /// Nothing, in the time that was given.
    Nothing,
}

impl Follower {
    /// Follows the stream behind `target`, from a revision on if one is given.
    pub(crate) fn new(client: &Client, target: String, since: Option<String>) -> Self {
        Follower { client: client.clone(), target, since, stream: None, was_open: false, lost_at: None }
    }

    /// Since when the server has been gone; `None` while it is there.
    pub(crate) fn lost_at(&self) -> Option<Instant> {
        self.lost_at
    }

    /// What comes next, within this time if there is a limit.
    ///
    /// # Errors
    ///
    /// The server was never reached, or it is none that can be followed.
    pub(crate) fn next(&mut self, most: Option<Duration>) -> Result<Next, ApiError> {
        let Some(stream) = &mut self.stream else { return self.open(most) };
        match stream.next_within(most) {
            Ok(Some(event)) => {
                self.since = stream.last().map(str::to_owned).or(self.since.take());
                Ok(Next::Event(event))
            }
            Ok(None) => Ok(Next::Nothing),
            Err(error) => {
                self.since = stream.last().map(str::to_owned).or(self.since.take());
                self.stream = None;
                self.lost_at = Some(Instant::now());
                Ok(Next::Lost(format!("the server has gone: {error}")))
            }
        }
    }

    fn open(&mut self, most: Option<Duration>) -> Result<Next, ApiError> {
        match self.client.stream(&self.target, self.since.as_deref()) {
            Ok(stream) => {
                self.stream = Some(stream);
                self.was_open = true;
                Ok(if self.lost_at.take().is_some() { Next::Back } else { Next::Nothing })
            }
            Err(ApiError::Unreachable(_) | ApiError::Refused { status: 503, .. }) if self.was_open => {
                thread::sleep(most.map_or(AGAIN_AFTER, |most| most.min(AGAIN_AFTER)));
                Ok(Next::Nothing)
            }
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::services::follow::testing::FakeServer;

    /// What comes, without what is waited for in vain.
    fn next(follower: &mut Follower) -> String {
        loop {
            match follower.next(None).unwrap() {
                Next::Event(event) => return format!("{} {}", event.kind, event.data),
                Next::Lost(_) => return "lost".to_owned(),
                Next::Back => return "back".to_owned(),
                Next::Nothing => {}
            }
        }
    }

    #[test]
    fn a_stream_that_ends_is_opened_again_where_it_ended() {
        let server = FakeServer::start([
            "HTTP/1.0 200 OK\r\n\r\nid: a-1\nevent: hello\ndata: {}\n\nid: a-2\nevent: change\ndata: {\"n\":1}\n\n",
            "HTTP/1.0 503 Service Unavailable\r\n\r\n",
            "HTTP/1.0 200 OK\r\n\r\nid: a-3\nevent: change\ndata: {\"n\":2}\n\n",
        ]);
        let mut follower =
            Follower::new(&Client::new(server.path()), "/stream".to_owned(), Some("a-0".into()));
        let came: Vec<_> = (0..5).map(|_| next(&mut follower)).collect();
        assert_eq!(came, ["hello {}", "change {\"n\":1}", "lost", "back", "change {\"n\":2}"]);
        assert!(follower.lost_at().is_none());
        let resumed: Vec<_> = server
            .requests()
            .iter()
            .filter_map(|request| Some(request.split_once("Last-Event-ID: ")?.1.trim().to_owned()))
            .collect();
        assert_eq!(resumed, ["a-0", "a-2", "a-2"]);
    }

    #[test]
    fn a_server_that_was_never_there_is_an_error() {
        let mut follower = Follower::new(&Client::new("/nowhere/control".into()), "/".to_owned(), None);
        assert!(matches!(follower.next(None), Err(ApiError::Unreachable(_))));
    }
}
