//! Waiting until a server is ready, and its metrics are as expected.

use crate::expect::metric;
use crate::retry::{LIMIT, or_fail, wait_for, wait_until};
use crate::scrape::Scrape;
use crate::server::Server;

impl Server {
    /// Reads its metrics again and again until they are as expected, and once more: the rows of one reading
    /// may be of different moments, those of the second are of none before the first. `what` is the condition
    /// in words.
    #[track_caller]
    pub fn await_scrape(&self, what: &str, expected: impl FnMut(&Scrape) -> bool) -> Scrape {
        or_fail(self.wait_for_scrape(what, expected))
    }

    pub(crate) fn wait_for_scrape(
        &self,
        what: &str,
        mut expected: impl FnMut(&Scrape) -> bool,
    ) -> Result<Scrape, String> {
        let mut last = String::new();
        let found = wait_for(|| {
            let mut read = || {
                // A server that is busy may not answer in time, and be better the next time.
                last = self.try_get("/metrics").ok()?.body;
                Scrape::parse(&last).ok().filter(&mut expected)
            };
            read()?;
            read()
        });
        found.ok_or_else(|| format!("not within {LIMIT:?}: {what}\nthe last scrape is\n{last}"))
    }

    /// Waits until it says that it is ready: on a busy machine its tracker may not answer within the second
    /// that `/readyz` gives it.
    #[track_caller]
    pub fn await_ready(&self) {
        wait_until("the server is ready", || self.get("/readyz").status == 200);
    }

    /// Waits until so many datagrams are accounted for.
    #[track_caller]
    pub fn await_datagrams(&self, count: f64) -> Scrape {
        self.await_scrape(&format!("{count} datagrams are accounted for"), |scrape| {
            scrape.datagrams() >= count
        })
    }

    /// Waits until so many agents are in a state.
    #[track_caller]
    pub fn await_agents(&self, state: &str, count: usize) -> Scrape {
        self.expect(metric("varta_agents").with("state", state).is(count as f64))
    }

    /// Waits until each of these agents has sent `more` beats from now on.
    #[track_caller]
    pub fn await_beats(&self, pids: &[u32], more: u32) -> Scrape {
        self.await_beats_and_seconds(pids, more, 0.0)
    }

    /// Waits until each of these agents has sent `more` beats from now on, and `seconds` have passed by the
    /// server's own clock.
    #[track_caller]
    pub fn await_beats_and_seconds(&self, pids: &[u32], more: u32, seconds: f64) -> Scrape {
        let now = self.await_scrape("the server answers, and knows the agents", |scrape| {
            pids.iter().all(|pid| scrape.get("varta_beats_total", &[("pid", &pid.to_string())]).is_some())
        });
        let uptime = |scrape: &Scrape| scrape.value("varta_watch_uptime_seconds", &[]);
        let beats = |scrape: &Scrape, pid: u32| scrape.of_agent("varta_beats_total", pid);
        let what = format!("{pids:?} have sent {more} beats more and {seconds} seconds have passed");
        self.await_scrape(&what, |scrape| {
            uptime(scrape) >= uptime(&now) + seconds
                && pids.iter().all(|pid| beats(scrape, *pid) >= beats(&now, *pid) + f64::from(more))
        })
    }
}
