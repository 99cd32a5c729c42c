//! Heartbeats to a URL, by the conventions of healthchecks.io.

use std::time::Duration;

use reqwest::Client;
use reqwest::header::HeaderMap;
use tokio::time::timeout;

use crate::base::error::Error;
use crate::engine::query::summary;
use crate::services::alerts::AlertUrl;
use crate::services::alerts::http_client::{self, DeliveryResult};
use crate::services::context::Context;
use crate::services::heartbeat::metrics::{Change, Outcomes};
use crate::services::heartbeat::options::UrlOptions;
use crate::services::heartbeat::turns::Turns;

/// The longest time that the last message may take, with which the server says that it ends because of an error.
const FAIL_WITHIN: Duration = Duration::from_secs(3);
/// The most characters of the reason in it.
const MAX_REASON_LEN: usize = 1_000;
const TEXT: &str = "text/plain; charset=utf-8";

/// A URL and the client for it.
#[derive(Debug)]
pub(super) struct UrlTarget {
    client: Client,
    every: Duration,
    /// For success, start and failure.
    urls: [AlertUrl; 3],
}

impl UrlTarget {
    /// Builds the client.
    ///
    /// # Errors
    ///
    /// A file of certificates that cannot be used.
    pub(super) fn open(options: UrlOptions) -> Result<Self, Error> {
        let UrlOptions { url, every, ca_file } = options;
        let client = http_client::client(ca_file.as_deref(), "--heartbeat-ca-file", url.is_https())?;
        Ok(UrlTarget { client, every, urls: [url.clone(), url.below("start"), url.below("fail")] })
    }

    /// The task: it says that the server starts, then after a completed turn of the tracker in each interval
    /// that it works, and at last why the server ends if that is because of an error.
    pub(super) fn run(
        self,
        context: &Context,
        outcomes: Outcomes,
    ) -> impl Future<Output = Result<(), Error>> + Send + 'static {
        let (stop, failure) = (context.stop_last.clone(), context.failure.clone());
        let turns = Turns::new(context.queries.clone(), self.every);
        let mut sender = Sender { target: self, outcomes };
        async move {
            tokio::select! {
                biased;
                () = stop.cancelled() => {}
                () = sender.converse(turns) => {}
            }
            if let Some(reason) = failure.get() {
                let reason = reason.chars().take(MAX_REASON_LEN).collect();
                if timeout(FAIL_WITHIN, sender.send(2, reason)).await.is_err() {
                    sender.judge(&DeliveryResult::Failed(format!("no answer within {FAIL_WITHIN:?}"), None));
                }
            }
            Ok(())
        }
    }
}

/// What the task owns.
struct Sender {
    target: UrlTarget,
    outcomes: Outcomes,
}

impl Sender {
    /// Does not end.
    async fn converse(&mut self, mut turns: Turns) {
        self.send(1, "starting".to_owned()).await;
        loop {
            let population = turns.next().await;
            self.send(0, summary(&population)).await;
        }
    }

    async fn send(&mut self, which: usize, body: String) {
        let UrlTarget { client, urls, .. } = &self.target;
        let answer = http_client::post(client, &urls[which], TEXT, HeaderMap::new(), body).await;
        self.judge(&answer.result);
    }

    /// Counts what became of a message. The first failure after a success is logged, and the first success
    /// after a failure.
    fn judge(&mut self, result: &DeliveryResult) {
        let (url, every) = (&self.target.urls[0], self.target.every);
        match self.outcomes.count(matches!(result, DeliveryResult::Taken)) {
            Some(Change::Fails) => tracing::warn!(
                target: "varta::heartbeat",
                "a heartbeat to {url} is {result}; the next one follows in {every:?}, see --heartbeat-url"
            ),
            Some(Change::WorksAgain) => tracing::info!(
                target: "varta::heartbeat",
                "heartbeats to {url} are taken again"
            ),
            None => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;
    use tokio::sync::{mpsc, oneshot};

    use super::*;
    use crate::engine::query::{Population, Query};
    use crate::services::heartbeat::HeartbeatOptions;
    use crate::services::heartbeat::service::Heartbeat;

    /// What a watcher of the server gets.
    struct Watcher(TcpListener);

    impl Watcher {
        async fn listen() -> (Self, Heartbeat) {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let url = format!("http://{}/key", listener.local_addr().unwrap());
            let url = AlertUrl::of_webhook(&url).unwrap();
            let url = UrlOptions { url, every: Duration::from_millis(10), ca_file: None };
            (
                Watcher(listener),
                Heartbeat::open(HeartbeatOptions { url: Some(url), ..HeartbeatOptions::default() }, "host")
                    .unwrap(),
            )
        }

        /// The path and the body of the next message, which gets this status.
        async fn next(&self, status: u16) -> (String, String) {
            let (mut stream, _) = self.0.accept().await.unwrap();
            let mut said = Vec::new();
            loop {
                stream.read_buf(&mut said).await.unwrap();
                let text = String::from_utf8_lossy(&said);
                let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
                let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
                if length.map_or(0, |length| length.parse().unwrap()) == body.len() {
                    let answer =
                        format!("HTTP/1.1 {status} A\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
                    stream.write_all(answer.as_bytes()).await.unwrap();
                    let path = head.split(' ').nth(1).unwrap();
                    return (path.to_owned(), body.to_owned());
                }
            }
        }
    }

    async fn asked(queries: &mut mpsc::Receiver<Query>) -> oneshot::Sender<Population> {
        match queries.recv().await {
            Some(Query::Population(answer)) => answer,
            other => panic!("{other:?}"),
        }
    }

    fn pair(path: &str, body: &str) -> (String, String) {
        (path.to_owned(), body.to_owned())
    }

    #[tokio::test]
    async fn a_heartbeat_follows_only_a_completed_turn_and_the_reason_of_an_error_is_the_last_word() {
        let (watcher, heartbeat) = Watcher::listen().await;
        let (mut context, mut queries) = Context::for_test();
        let registry = context.registry.handle();
        heartbeat.start(&mut context);
        assert_eq!(watcher.next(200).await, pair("/key/start", "starting"));
        for _ in 0..3 {
            let turn = asked(&mut queries).await;
            assert!(timeout(Duration::from_millis(20), watcher.next(200)).await.is_err(), "before the turn");
            turn.send([2, 1, 0, 0, 0, 0]).unwrap();
            assert_eq!(watcher.next(503).await, pair("/key", "3 agents: 2 up, 1 stalled"));
        }
        let error = Error::TaskEnded { task: "tracker", fault: "it panicked".to_owned() };
        context.spawn("tracker", ready(Err(error)));
        let (_, last) = tokio::join!(context.run_until(pending()), watcher.next(200));
        assert_eq!(last, pair("/key/fail", "the tracker ended unasked: it panicked"));
        let rows = registry.render();
        for (outcome, count) in [("sent", 2), ("failed", 3)] {
            let row =
                format!("varta_heartbeats_total{{destination=\"url\",outcome=\"{outcome}\"}} {count}\n");
            assert!(rows.contains(&row), "{rows}");
        }
    }

    #[tokio::test]
    async fn an_orderly_stop_sends_nothing_and_a_watcher_that_does_not_answer_delays_no_end() {
        let (watcher, heartbeat) = Watcher::listen().await;
        let (mut context, _queries) = Context::for_test();
        heartbeat.start(&mut context);
        assert_eq!(watcher.next(200).await, pair("/key/start", "starting"));
        context.run_until(ready(())).await.unwrap();
        assert!(timeout(Duration::from_millis(20), watcher.next(200)).await.is_err(), "nothing comes");

        let (_deaf, heartbeat) = Watcher::listen().await;
        let (mut context, _queries) = Context::for_test();
        heartbeat.start(&mut context);
        let error = Error::TaskEnded { task: "tracker", fault: "it panicked".to_owned() };
        context.spawn("tracker", ready(Err(error)));
        let ended = timeout(FAIL_WITHIN * 5, context.run_until(pending())).await;
        ended.expect("it ends").unwrap_err();
    }
}
