//! What the metrics of a server must count, to the datagram.

use std::collections::BTreeMap;
use std::fs;

use crate::scrape::Scrape;
use crate::server::Server;

/// Families that count a refusal once more, and the outcomes that each of them counts.
const REPEATED: [(&str, &[&str]); 6] = [
    ("varta_frame_decrypt_failures_total", &["decrypt_failed"]),
    ("varta_replay_refused_total", &["replayed", "replay_table_full"]),
    ("varta_frame_auth_failures_total", &["pid_mismatch", "uid_refused", "unattested"]),
    ("varta_source_limited_total", &["source_limit"]),
    ("varta_out_of_order_total", &["out_of_order", "duplicate"]),
    ("varta_truncated_datagrams_total", &["bad_length"]),
];

/// How many datagrams come by each transport and with each outcome.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExpectedCounts {
    rows: BTreeMap<(String, String), u64>,
}

impl ExpectedCounts {
    /// Expects `count` datagrams more in a row.
    pub fn expect(&mut self, transport: &str, outcome: &str, count: u64) {
        *self.rows.entry((transport.to_owned(), outcome.to_owned())).or_default() += count;
    }

    /// How many datagrams are expected in all.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.rows.values().sum()
    }

    /// Waits until so many are counted, and checks that they are in these rows and none in any other, that
    /// the kernel has dropped none, and that every family that counts them once more has the same number.
    #[track_caller]
    pub fn check(&self, server: &Server) -> Scrape {
        let scrape = server.await_datagrams(self.total() as f64);
        let rows: BTreeMap<_, _> = scrape
            .matching("varta_frames_total", &[])
            .filter(|sample| sample.value != 0.0)
            .map(|sample| {
                ((sample.labels["transport"].clone(), sample.labels["outcome"].clone()), sample.value)
            })
            .collect();
        let expected = self.rows.iter().filter(|(_, count)| **count != 0);
        let expected: BTreeMap<_, _> = expected.map(|(row, count)| (row.clone(), *count as f64)).collect();
        assert_eq!(rows, expected, "found, and expected");
        assert_eq!(scrape.sum("varta_kernel_drops_total", &[]), 0.0, "{}", scrape.text);
        for (family, outcomes) in REPEATED {
            let refused: f64 = outcomes.iter().map(|outcome| scrape.outcome(outcome)).sum();
            assert_eq!(scrape.sum(family, &[]), refused, "{family}");
        }
        scrape
    }
}

/// What several senders have sent, each as fast as it can, so that the kernel may drop some of it.
#[derive(Debug)]
pub struct Flood {
    sent: BTreeMap<String, u64>,
    lost_before: u64,
}

impl Flood {
    /// Nothing has been sent yet. Of what was sent before, nothing may be on the way any more.
    #[must_use]
    pub fn begin() -> Self {
        Flood { sent: BTreeMap::new(), lost_before: lost_between_sockets() }
    }

    /// Adds `count` datagrams that the kernel took.
    pub fn sent(&mut self, transport: &str, count: u64) {
        *self.sent.entry(transport.to_owned()).or_default() += count;
    }

    /// Waits until each datagram is counted as read by the server or as dropped at its socket, to the
    /// datagram for each transport, and checks that it stays so.
    #[track_caller]
    pub fn await_balance(&self, server: &Server) -> Scrape {
        let balances = |scrape: &Scrape| {
            // The machine may lose some before they come to a socket, and counts them.
            let lost = lost_between_sockets() - self.lost_before;
            self.sent.iter().all(|(transport, sent)| {
                let transport = [("transport", transport.as_str())];
                let found = scrape.sum("varta_frames_total", &transport)
                    + scrape.sum("varta_kernel_drops_total", &transport);
                let sent = *sent as f64;
                found == sent || (found < sent && found + lost as f64 >= sent)
            })
        };
        let scrape = server.await_scrape(&format!("{:?} are accounted for", self.sent), balances);
        let uptime = |scrape: &Scrape| scrape.value("varta_watch_uptime_seconds", &[]);
        let later = server.await_scrape("a moment later", |later| uptime(later) >= uptime(&scrape) + 0.3);
        assert!(balances(&later), "{:?} were sent, and some are counted twice in\n{}", self.sent, later.text);
        later
    }
}

/// How many packets this host has lost on the way to a socket because the queue of a processor was full: the
/// second column of a file that `proc(5)` does not explain and every Linux has.
fn lost_between_sockets() -> u64 {
    let table = fs::read_to_string("/proc/net/softnet_stat").unwrap_or_default();
    let lost = |row: &str| u64::from_str_radix(row.split_whitespace().nth(1)?, 16).ok();
    table.lines().filter_map(lost).sum()
}
