//! Tests of the state service by itself: what one server persists, the next one reads.

mod faults;
mod restarts;

use std::fs;
use std::net::IpAddr;
use std::num::NonZeroU64;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::time::Duration;

use rusqlite::Connection;
use rusqlite::types::FromSql;
use tempfile::TempDir;
use tokio::sync::mpsc;
use varta_proto::Status;

use super::history;
use crate::base::clock::Clock;
use crate::base::error::Error;
use crate::base::files::state_dir::StateDir;
use crate::base::files::watch::FileWatcher;
use crate::base::time::MonoTime;
use crate::domain::beat::Origin;
use crate::domain::beat::{KeyId, RemoteEndpoint};
use crate::domain::tracker::tests::sample;
use crate::domain::tracker::{AgentId, Cause, LastReport, NameSource, Twin, Verdict};
use crate::domain::tracker::{AgentSnapshot, ForgetReason, Forgotten, RegistryChange, Transition};
use crate::engine::query::Query;
use crate::engine::state_queue::{Event, Slice, StateSink};
use crate::ingest::{KeyFiles, Keyring, PersistedWindow};
use crate::metrics::Registry;
use crate::metrics::faults::Faults;
use crate::services::state::database::{Limits, StateDatabase};
use crate::services::state::metrics::StateMetrics;
use crate::services::state::progress::Next;
use crate::services::state::registry::PersistedAgent;
use crate::services::state::writer::Writer;

const ROOM: Limits = Limits { agents: 1_000, replay_sessions: 1_000, jobs: 1_000 };

/// A state directory, and a writer whose turns the test takes.
struct World {
    directory: TempDir,
    clock: Clock,
    metrics: Registry,
    faults: Faults,
}

/// One server that has the directory open.
struct Run {
    sink: StateSink,
    writer: Writer,
    kept: Vec<PersistedAgent>,
    queries: mpsc::Receiver<Query>,
    now: MonoTime,
}

/// The keyring of a server without keys.
fn no_keys() -> Keyring {
    Keyring::read(&KeyFiles::default(), 16, Duration::ZERO, Vec::new()).unwrap()
}

impl World {
    fn new() -> Self {
        let metrics = Registry::for_test();
        let faults = Faults::new(&metrics);
        World { directory: tempfile::tempdir().unwrap(), clock: Clock::start(), metrics, faults }
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("varta.db")
    }

    fn try_open(&self) -> Result<(StateDatabase, Vec<PersistedAgent>), Error> {
        let (store, left) = StateDatabase::open(StateDir::open(self.directory.path())?, ROOM, self.clock)?;
        Ok((store, left.agents))
    }

    fn open(&self) -> Run {
        let (store, kept) = self.try_open().unwrap();
        let (to_queries, queries) = mpsc::channel(16);
        let metrics = StateMetrics::new(&self.metrics, self.faults.clone());
        let (sink, writer) =
            store.into_writer(self.clock, to_queries, no_keys(), metrics, FileWatcher::new());
        Run { sink, writer, kept, queries, now: MonoTime::START }
    }

    /// Reads with a connection of its own, as external tools do.
    fn look<T: FromSql>(&self, query: &str) -> T {
        let database = Connection::open(self.path()).unwrap();
        database.query_row(query, [], |row| row.get(0)).unwrap()
    }

    fn count(&self, table: &str) -> i64 {
        self.look(&format!("SELECT count(*) FROM {table}"))
    }

    fn counted(&self, row: &str) -> bool {
        self.metrics.handle().render().lines().any(|line| line == row)
    }
}

impl Run {
    fn note(&mut self, agent: AgentSnapshot) {
        self.take(Event::RegistryChange(RegistryChange::Known(Box::new(agent))));
    }

    fn take(&mut self, event: Event) {
        self.writer.take(event, self.now);
    }

    fn write(&mut self) {
        self.now = self.now + Duration::from_secs(60);
        self.writer.write(self.now);
    }

    /// Takes what is queued, writes what is due, and requests the next slice.
    fn turn(&mut self) {
        self.now = self.now + Duration::from_secs(60);
        self.writer.turn(self.now);
    }

    /// Responds to the writer's query like an engine that has these agents, one in each slice.
    fn answer(&mut self, agents: &[AgentSnapshot]) {
        let Ok(Query::Slice { from, place }) = self.queries.try_recv() else { panic!("nothing is asked") };
        let next = (from + 1 < agents.len()).then_some(from + 1);
        let agents = agents.get(from).cloned().into_iter().collect();
        place.send(Event::Slice(Slice { from, jobs: Vec::new(), agents, next }));
        self.turn();
    }

    /// Responds to all of the writer's queries in a sweep, by an engine that has these agents.
    fn sweep(&mut self, agents: &[AgentSnapshot]) {
        self.turn();
        while !self.queries.is_empty() {
            self.answer(agents);
            // The next slice is due a moment later. After the last one the next sweep is begun, which is not answered.
            let is_over = matches!(self.writer.sweep.next, Next::Begin { .. });
            if is_over {
                return;
            }
            self.turn();
        }
    }

    /// The number of queued changes.
    fn waiting(&self) -> usize {
        self.sink.queue.sender().max_capacity() - self.sink.queue.sender().capacity()
    }

    fn pids(&self) -> Vec<u32> {
        let mut pids: Vec<_> = self.kept.iter().map(|kept| kept.agent.agent.pid).collect();
        pids.sort_unstable();
        pids
    }
}

fn forgotten(pid: u32) -> Forgotten {
    Forgotten { agent: agent(pid).agent, reason: ForgetReason::Expired }
}

fn agent(pid: u32) -> AgentSnapshot {
    AgentSnapshot {
        agent: AgentId { name: "bill \"ing\"".into(), origin: Origin::Local, pid, twin: Twin::FIRST },
        name_source: NameSource::Agent,
        lane: RemoteEndpoint { port: 0, key: KeyId(0) },
        start_time: NonZeroU64::new(4_711),
        verdict: Verdict::Up(Status::Degraded),
        last: LastReport { status: Status::Degraded, payload: u32::MAX, terminal: true, beats: u64::MAX },
        labels: [("team", "a=b"), ("zone", "")].into_iter().collect(),
        unit: Some("billing.service".into()),
        asked: Some(Duration::from_micros(1_500)),
        busy_until: MonoTime::from_secs(1_000),
        stalls: 3,
        lost: u32::MAX,
        last_beat: MonoTime::START,
        silent_before: Duration::from_secs(10),
        is_unawaited: true,
        said: Some("Serving \"all\"\u{e9}".into()),
        stood: Some(Duration::from_millis(1_500)),
        silent_at_least: false,
    }
}

fn transition(pid: u32) -> Transition {
    let AgentSnapshot { agent, last, .. } = agent(pid);
    let sample = sample::transition(&agent.name)
        .pid(pid)
        .started_at(NonZeroU64::MIN)
        .to(Verdict::Down, Cause::Killed { signal: 9 })
        .at(MonoTime::from_secs(1))
        .silence(Duration::from_millis(1_500));
    Transition { agent, last, detection_latency: Some(Duration::from_micros(250)), ..sample }
}

fn event(pid: u32) -> Event {
    Event::Transition(Box::new(transition(pid)))
}

#[test]
fn what_was_known_of_an_agent_is_known_to_the_next_server() {
    let world = World::new();
    let address: IpAddr = "fd00::1".parse().unwrap();
    let remote = |origin, number| AgentSnapshot {
        agent: AgentId { origin, twin: Twin::from_number(number).unwrap(), ..agent(7).agent },
        lane: RemoteEndpoint { port: 4_000, key: KeyId(0) },
        start_time: None,
        verdict: Verdict::Stalled,
        asked: None,
        busy_until: MonoTime::START,
        ..agent(7)
    };
    let agents = [
        agent(7),
        remote(Origin::Udp(address), 1),
        remote(Origin::SecureUdp(address), 1),
        remote(Origin::Udp(address), 64),
    ];
    let mut run = world.open();
    assert_eq!(run.pids(), [0; 0]);
    agents.iter().for_each(|agent| run.note(agent.clone()));
    run.take(Event::Complete);
    run.write();
    drop(run);

    let kept = world.open().kept;
    assert_eq!(kept.len(), agents.len());
    for agent in agents {
        let found = kept.iter().find(|kept| kept.agent.agent == agent.agent).unwrap();
        let AgentSnapshot { last_beat, silent_before, busy_until, last, .. } = found.agent;
        assert_eq!(last.beats, i64::MAX.unsigned_abs(), "as much as SQLite takes");
        assert!((10..60).contains(&silent_before.as_secs()), "{silent_before:?}");
        let remaining = busy_until.since(last_beat).as_secs();
        assert!(if agent.busy_until == MonoTime::START {
            remaining == 0
        } else {
            (900..=1_000).contains(&remaining)
        });
        let rest = AgentSnapshot { last_beat, silent_before, busy_until, last, ..agent.clone() };
        assert_eq!(found.agent, rest);
        assert_eq!(found.boot.is_some(), agent.agent.origin == Origin::Local);
    }
}

#[test]
fn who_is_forgotten_is_forgotten() {
    let world = World::new();
    let mut run = world.open();
    [1, 2, 3].map(agent).into_iter().for_each(|agent| run.note(agent));
    run.take(Event::RegistryChange(RegistryChange::Forgotten(forgotten(2))));
    run.write();
    drop(run);
    assert_eq!(world.open().pids(), [1, 3]);
}

#[test]
fn an_agent_is_first_seen_once_and_another_process_anew() {
    let world = World::new();
    let mut run = world.open();
    run.note(agent(1));
    run.write();
    let seen = || world.look::<i64>("SELECT first_seen_ms FROM agents");
    Connection::open(world.path()).unwrap().execute("UPDATE agents SET first_seen_ms = 5", []).unwrap();
    run.note(agent(1));
    run.write();
    assert_eq!(seen(), 5);
    run.note(AgentSnapshot { start_time: NonZeroU64::new(5_000), ..agent(1) });
    run.write();
    assert!(seen() > 5);
}

#[test]
fn sessions_of_the_replay_table_are_known_to_the_next_server_each_in_its_place() {
    let world = World::new();
    let seal = |place, highest| PersistedWindow {
        place,
        key: u64::MAX - 1,
        prefix: [0, 1, 2, 3, 4, 5, 6, 255],
        highest,
        continued_at: u64::MAX,
        nonce: u64::MAX - 2,
        start: -5_000_000_000,
        heard_at: MonoTime::START,
    };
    let mut run = world.open();
    run.take(Event::Seals(vec![seal(0, 1), seal(7, u32::MAX)]));
    run.take(Event::Seals(vec![seal(0, 2)]));
    run.write();
    drop(run);
    let (store, left) =
        StateDatabase::open(StateDir::open(world.directory.path()).unwrap(), ROOM, world.clock).unwrap();
    for (found, expected) in left.replay_sessions.iter().zip([seal(0, 2), seal(7, u32::MAX)]) {
        assert!(found.start.abs_diff(expected.start) <= 2_000_000, "to the millisecond");
        assert_eq!(*found, PersistedWindow { start: found.start, ..expected });
    }
    assert_eq!(left.replay_sessions.len(), 2);
    drop(store);
    let room = Limits { replay_sessions: 1, ..ROOM };
    let (_store, left) =
        StateDatabase::open(StateDir::open(world.directory.path()).unwrap(), room, world.clock).unwrap();
    assert_eq!(left.replay_sessions.len(), 1);
}

#[test]
fn the_history_has_what_was_said() {
    let world = World::new();
    let mut run = world.open();
    run.take(event(7));
    run.write();
    let said: String = world.look(
        "SELECT concat_ws('|', name, origin, pid, start_time, was, became, cause, signal, exit_code, silence_ms,
            latency_us, status) FROM history",
    );
    assert_eq!(said, "bill \"ing\"|local|7|1|up|down|killed|9|1500|250|degraded");
}

#[test]
fn the_history_has_all_that_there_is() {
    let world = World::new();
    let mut run = world.open();
    let exited = transition(8).to(Verdict::Down, Cause::Exited { code: Some(3) });
    for transition in [sample::complete(), Transition { from: None, ..exited }] {
        run.take(Event::Transition(Box::new(transition)));
    }
    run.write();
    let row = |id: u32| -> String {
        world.look(&format!(
            "SELECT concat_ws('|', origin, pid, twin, start_time, ifnull(was, '-'), became, cause, ifnull(exit_code, '-'),
                ifnull(signal, '-'), ifnull(reason, '-'), silence_ms, ifnull(latency_us, '-'), status, payload, beats,
                ifnull(dossier, '-')) FROM history WHERE id = {id}"
        ))
    };
    assert_eq!(
        row(1),
        "secure_udp 10.0.0.7|7|2|1|up|gone|goodbye|-|-|restart|5001|1234|degraded|7|812|idle: it sleeps; main thread \
         sleeping; 1 thread; 1.2 s of CPU since it started"
    );
    assert_eq!(row(2), "local|8|1|1|-|down|exited|3|-|-|1500|250|degraded|4294967295|9223372036854775807|-");
}

#[test]
fn the_history_is_bounded_by_number_and_age() {
    let world = World::new();
    let mut run = world.open();
    run.take(event(1));
    run.write();
    let database = Connection::open(world.path()).unwrap();
    database.execute("UPDATE history SET id = ?1", [2 * history::MAX_ROWS]).unwrap();
    run.take(event(2));
    run.write();
    assert_eq!(world.count("history"), 2);
    database.execute("UPDATE history SET id = id - ?1 WHERE pid = 1", [history::MAX_ROWS]).unwrap();
    run.take(event(3));
    run.write();
    assert_eq!(world.count("history"), 2);
    database.execute("UPDATE history SET at_ms = 0 WHERE pid = 2", []).unwrap();
    run.take(event(4));
    run.write();
    assert_eq!(world.look::<String>("SELECT group_concat(pid) FROM history"), "3,4");
}

#[test]
fn a_flood_of_what_costs_nothing_does_not_fill_the_history() {
    let world = World::new();
    let mut run = world.open();
    let reported = Transition { to: Verdict::Up(Status::Ok), cause: Cause::Reported, ..transition(1) };
    for _ in 0..1_000 {
        run.take(Event::Transition(Box::new(reported.clone())));
    }
    run.take(event(2));
    run.write();
    assert_eq!(world.count("history"), 101);
    assert!(world.counted("varta_sink_dropped_total{sink=\"state\"} 900"));
}

#[test]
fn a_sweep_brings_what_nobody_told_and_takes_out_who_is_not_there() {
    let world = World::new();
    let mut run = world.open();
    [1, 2].map(agent).into_iter().for_each(|agent| run.note(agent));
    run.write();
    run.turn();
    let there = [agent(2), agent(3)];
    run.answer(&there);
    // An agent arrives meanwhile.
    run.note(agent(4));
    run.turn();
    run.answer(&there);
    drop(run);
    assert_eq!(world.open().pids(), [2, 3, 4]);
}

#[test]
fn nobody_else_can_read_it() {
    let world = World::new();
    let mut run = world.open();
    run.note(agent(1));
    run.write();
    for file in fs::read_dir(world.directory.path()).unwrap() {
        let file = file.unwrap();
        assert_eq!(file.metadata().unwrap().mode() & 0o777, 0o600, "{:?}", file.path());
    }
}

#[tokio::test]
async fn the_thread_writes_what_it_was_told_before_it_ends() {
    let world = World::new();
    let (store, _) = world.try_open().unwrap();
    let (to_queries, queries) = mpsc::channel(16);
    drop(queries);
    let metrics = StateMetrics::new(&world.metrics, world.faults.clone());
    let (sink, done) = store.start(world.clock, to_queries, no_keys(), metrics, FileWatcher::new()).unwrap();
    sink.transition(&transition(7), false);
    sink.note(RegistryChange::Known(Box::new(agent(7))));
    drop(sink);
    done.await.unwrap();
    assert_eq!((world.count("history"), world.open().pids()), (1, vec![7]));
}
