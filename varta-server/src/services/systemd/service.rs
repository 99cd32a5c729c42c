//! The task that speaks with the service manager.

use std::env;
use std::ffi::OsString;
use std::time::Duration;

use metrics::Counter;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::base::clock::Clock;
use crate::base::error::Error;
use crate::domain::tracker::Transition;
use crate::engine::query::{Query, population, summary};
use crate::services::context::Context;
use crate::services::systemd::metrics::{SINK, failures};
use crate::services::systemd::notifier::Notifier;
use crate::services::systemd::store::StoreKeeper;
use crate::services::systemd::watchdog;

/// The least time between two summaries, and between two attempts to say that the server is ready.
const STATUS_EVERY: Duration = Duration::from_secs(1);
/// The most attempts to say that a reload has ended.
const READY_ATTEMPTS: usize = 10;
/// The most transitions that are taken from the subscription at once.
const TRANSITIONS: usize = 1_024;

/// The capability before it runs.
#[derive(Debug)]
pub(crate) struct Systemd {
    notifier: Option<Notifier>,
    /// The interval of keep-alives.
    keep_alive: Option<Duration>,
}

impl Systemd {
    /// Takes what the service manager has put into the environment. What makes no sense there is logged, and
    /// the server does without.
    pub(crate) fn open(context: &Context) -> Self {
        Self::from_environment(context, |name| env::var_os(name).filter(|value| !value.is_empty()))
    }

    fn from_environment(context: &Context, variable: impl Fn(&str) -> Option<OsString>) -> Self {
        let failures = failures(&context.registry);
        let none = Systemd { notifier: None, keep_alive: None };
        let Some(address) = variable("NOTIFY_SOCKET") else { return none };
        let notifier = match Notifier::new(&address, failures) {
            Ok(notifier) => notifier,
            Err(error) => {
                tracing::warn!(
                    target: "varta::server",
                    "the service manager is not told anything: NOTIFY_SOCKET={} cannot be used: {error}",
                    address.display()
                );
                return none;
            }
        };
        let [timeout, of] = ["WATCHDOG_USEC", "WATCHDOG_PID"].map(variable);
        let keep_alive = watchdog::interval(timeout.as_deref(), of.as_deref(), std::process::id());
        let keep_alive = keep_alive.unwrap_or_else(|wrong| {
            tracing::warn!(target: "varta::server", "no keep-alives are sent: {wrong} is no number");
            None
        });
        Systemd { notifier: Some(notifier), keep_alive }
    }

    /// What says when the server reloads.
    pub(crate) fn reload(&self) -> ReloadNotice {
        ReloadNotice { notifier: self.notifier.clone() }
    }

    /// Starts the task, if there is a service manager.
    pub(crate) fn start(self, context: &mut Context) {
        let Systemd { notifier: Some(notifier), keep_alive } = self else { return };
        let store = context.given.store().clone();
        store.set_stop(&context.stop);
        let conversation = Conversation {
            store: StoreKeeper::new(notifier.clone(), store),
            notifier,
            keep_alive,
            queries: context.queries.clone(),
            transitions: context.subscribe(SINK),
            stop: context.stop.clone(),
            is_alone: context.is_alone.clone(),
            is_handed_over: context.is_handed_over.clone(),
        };
        context.spawn("service manager", conversation.run());
    }
}

/// Tells the service manager that the process with this pid is the server from now on. Does nothing without one.
pub(crate) async fn name_successor(pid: u32) {
    let address = env::var_os("NOTIFY_SOCKET").filter(|value| !value.is_empty());
    // What cannot be used was logged at the start.
    let Some(Ok(notifier)) = address.map(|address| Notifier::new(&address, Counter::noop())) else { return };
    notifier.send(&format!("MAINPID={pid}")).await;
}

/// Tells the service manager that the server reloads. Does nothing without one.
#[derive(Clone, Debug)]
pub(crate) struct ReloadNotice {
    notifier: Option<Notifier>,
}

impl ReloadNotice {
    /// Says that the server begins to reload.
    pub(crate) async fn begin(&self) {
        if let Some(notifier) = &self.notifier {
            let micros = Clock::monotonic_now().as_micros();
            notifier.send(&format!("RELOADING=1\nMONOTONIC_USEC={micros}")).await;
        }
    }

    /// Says that it is ready again, until that is heard or was said ten times: without it a service manager
    /// waits for the end of the reload.
    pub(crate) async fn end(&self) {
        let Some(notifier) = &self.notifier else { return };
        for _ in 0..READY_ATTEMPTS {
            if notifier.send("READY=1").await {
                return;
            }
            sleep(STATUS_EVERY).await;
        }
    }
}

/// The running task.
struct Conversation {
    notifier: Notifier,
    store: StoreKeeper,
    keep_alive: Option<Duration>,
    queries: mpsc::Sender<Query>,
    transitions: mpsc::Receiver<Transition>,
    stop: CancellationToken,
    /// Before, the service manager listens to another server.
    is_alone: CancellationToken,
    is_handed_over: CancellationToken,
}

impl Conversation {
    /// Says that the server is ready once the tracker has completed a turn, then how its agents are when that
    /// has changed, and that it works, until it stops.
    async fn run(mut self) -> Result<(), Error> {
        let stop = self.stop.clone();
        tokio::select! {
            biased;
            () = stop.cancelled() => {}
            () = self.converse() => {}
        }
        // The service goes on with another server.
        if !self.is_handed_over.is_cancelled() {
            self.notifier.send("STOPPING=1\nWATCHDOG_USEC=0\nSTATUS=stopping").await;
        }
        // A subscription that nobody takes from counts what is lost with it.
        while self.transitions.recv().await.is_some() {}
        Ok(())
    }

    /// Ends when the tracker does.
    async fn converse(&mut self) {
        self.is_alone.cancelled().await;
        // Before it is ready, so that a restart from then on finds them.
        let mut is_stored = self.store.bring_up_to_date().await;
        let Some(agents) = population(&self.queries).await else { return };
        let mut told = summary(&agents);
        // Without it a service manager gives the start up, so it is said until it is heard.
        let mut is_ready = self.notifier.send(&format!("READY=1\nSTATUS={told}")).await;
        let started = Instant::now();
        let mut next_status = started + STATUS_EVERY;
        let mut next_keep_alive = started;
        let mut has_changed = false;
        let mut taken = Vec::new();
        loop {
            let keep_alive = self.keep_alive;
            tokio::select! {
                biased;
                () = sleep_until(next_keep_alive), if keep_alive.is_some() => {
                    // A tracker that does not take turns gives no answer, and then nothing is sent.
                    if population(&self.queries).await.is_none() {
                        return;
                    }
                    self.notifier.send("WATCHDOG=1").await;
                    next_keep_alive = Instant::now() + keep_alive.unwrap_or_default();
                }
                () = self.store.changed() => is_stored = false,
                () = sleep_until(next_status), if has_changed || !is_ready || !is_stored => {
                    if !is_stored {
                        is_stored = self.store.bring_up_to_date().await;
                    }
                    let Some(agents) = population(&self.queries).await else { return };
                    has_changed = false;
                    let status = summary(&agents);
                    if !is_ready {
                        is_ready = self.notifier.send(&format!("READY=1\nSTATUS={status}")).await;
                    } else if status != told {
                        self.notifier.send(&format!("STATUS={status}")).await;
                    }
                    told = status;
                    next_status = Instant::now() + STATUS_EVERY;
                }
                count = self.transitions.recv_many(&mut taken, TRANSITIONS) => {
                    if count == 0 {
                        return;
                    }
                    taken.clear();
                    has_changed = true;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixDatagram;
    use std::path::Path;

    use tokio::sync::oneshot;
    use tokio::time::timeout;

    use super::*;
    use crate::engine::query::Population;

    struct Manager {
        socket: tokio::net::UnixDatagram,
        _directory: tempfile::TempDir,
    }

    impl Manager {
        fn new() -> (Self, OsString) {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("notify");
            let socket = bind(&path);
            (Manager { socket, _directory: directory }, path.into_os_string())
        }

        async fn next(&self) -> String {
            let mut room = [0; 256];
            let length = self.socket.recv(&mut room).await.unwrap();
            String::from_utf8_lossy(&room[..length]).into_owned()
        }
    }

    fn bind(path: &Path) -> tokio::net::UnixDatagram {
        let socket = UnixDatagram::bind(path).unwrap();
        socket.set_nonblocking(true).unwrap();
        tokio::net::UnixDatagram::from_std(socket).unwrap()
    }

    async fn asked(queries: &mut mpsc::Receiver<Query>) -> oneshot::Sender<Population> {
        match queries.recv().await {
            Some(Query::Population(answer)) => answer,
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn it_says_nothing_before_the_tracker_has_taken_a_turn_and_no_keep_alive_while_it_takes_none() {
        let (manager, address) = Manager::new();
        let (mut context, mut queries) = Context::for_test();
        let systemd = Systemd::from_environment(&context, |name| match name {
            "NOTIFY_SOCKET" => Some(address.clone()),
            "WATCHDOG_USEC" => Some("30000".into()),
            _ => None,
        });
        context.is_alone.cancel();
        systemd.start(&mut context);
        let stop = context.stop.clone();
        let feeds = context.take_subscribers();
        let first = asked(&mut queries).await;
        assert!(timeout(Duration::from_millis(20), manager.next()).await.is_err(), "it is not ready");
        first.send([2, 1, 0, 0, 0, 0]).unwrap();
        assert_eq!(manager.next().await, "READY=1\nSTATUS=3 agents: 2 up, 1 stalled");
        for _ in 0..3 {
            asked(&mut queries).await.send([2, 1, 0, 0, 0, 0]).unwrap();
            assert_eq!(manager.next().await, "WATCHDOG=1");
        }
        let hung = asked(&mut queries).await;
        assert!(timeout(Duration::from_millis(100), manager.next()).await.is_err(), "the tracker hangs");
        stop.cancel();
        assert_eq!(manager.next().await, "STOPPING=1\nWATCHDOG_USEC=0\nSTATUS=stopping");
        drop((hung, feeds));
        context.run_until(std::future::ready(())).await.unwrap();
    }

    #[tokio::test]
    async fn a_service_manager_that_missed_that_the_server_is_ready_is_told_once_more() {
        let (manager, address) = Manager::new();
        let (mut context, mut queries) = Context::for_test();
        let systemd =
            Systemd::from_environment(&context, |name| (name == "NOTIFY_SOCKET").then(|| address.clone()));
        std::fs::remove_file(&address).unwrap();
        context.is_alone.cancel();
        systemd.start(&mut context);
        let _feeds = context.take_subscribers();
        asked(&mut queries).await.send([1, 0, 0, 0, 0, 0]).unwrap();
        // The next attempt, after the first has failed.
        let answer = asked(&mut queries).await;
        let again = bind(Path::new(&address));
        answer.send([2, 0, 0, 0, 0, 0]).unwrap();
        let manager = Manager { socket: again, ..manager };
        assert_eq!(manager.next().await, "READY=1\nSTATUS=2 agents: 2 up");
        assert!(
            timeout(Duration::from_millis(20), queries.recv()).await.is_err(),
            "nothing has changed since"
        );
    }

    #[tokio::test]
    async fn a_reload_is_framed_by_two_messages_with_the_time_of_its_begin() {
        let (manager, address) = Manager::new();
        let (context, _queries) = Context::for_test();
        let systemd =
            Systemd::from_environment(&context, |name| (name == "NOTIFY_SOCKET").then(|| address.clone()));
        let before = Clock::monotonic_now().as_micros();
        systemd.reload().begin().await;
        let said = manager.next().await;
        let at: u128 = said.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").unwrap().parse().unwrap();
        assert!((before..=Clock::monotonic_now().as_micros()).contains(&at));
        systemd.reload().end().await;
        assert_eq!(manager.next().await, "READY=1");
    }

    #[tokio::test]
    async fn the_end_of_a_reload_is_said_until_it_is_heard() {
        let (manager, address) = Manager::new();
        let (context, _queries) = Context::for_test();
        let systemd =
            Systemd::from_environment(&context, |name| (name == "NOTIFY_SOCKET").then(|| address.clone()));
        std::fs::remove_file(&address).unwrap();
        let notice = systemd.reload();
        let end = tokio::spawn(async move { notice.end().await });
        assert!(timeout(Duration::from_millis(20), manager.next()).await.is_err());
        let manager = Manager { socket: bind(Path::new(&address)), ..manager };
        assert_eq!(manager.next().await, "READY=1");
        end.await.unwrap();
    }

    #[tokio::test]
    async fn without_a_service_manager_or_with_an_address_that_is_none_nothing_runs() {
        for address in [None, Some("relative")] {
            let (mut context, mut queries) = Context::for_test();
            let systemd = Systemd::from_environment(&context, |name| {
                address.filter(|_| name == "NOTIFY_SOCKET").map(OsString::from)
            });
            systemd.reload().begin().await;
            context.is_alone.cancel();
            systemd.start(&mut context);
            assert!(context.take_subscribers().is_empty());
            assert!(queries.try_recv().is_err());
        }
    }
}
