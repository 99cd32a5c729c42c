//! Sets of listeners that are staged and committed, without an engine.

use std::fs;
use std::os::fd::AsFd;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tempfile::TempDir;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use varta_proto::{Frame, Status};

use crate::base::clock::Clock;
use crate::base::files::watch::FileWatcher;
use crate::base::given_sockets::GivenSockets;
use crate::domain::beat::Transport;
use crate::ingest::batch::Batch;
use crate::ingest::gate::Gate;
use crate::ingest::keyring::{KeyFiles, Keyring};
use crate::ingest::listeners::{ListenerSet, Listeners, Surroundings};
use crate::ingest::metrics::FrameCounters;
use crate::ingest::options::IngestOptions;
use crate::ingest::recvmmsg::{pass_pidfds, passes_pidfds};
use crate::ingest::shm::ShmPages;
use crate::metrics::Registry;
use crate::metrics::faults::Faults;

const STALL_AFTER: Duration = Duration::from_secs(5);

struct World {
    directory: TempDir,
    set: ListenerSet,
    inbox: mpsc::Receiver<Batch>,
    stop: CancellationToken,
    registry: Registry,
}

impl World {
    /// Listeners that read.
    fn start(options: impl FnOnce(&Path) -> IngestOptions) -> Self {
        World::start_at(Gate::new(false), |directory, _| options(directory))
    }

    /// Listeners at this gate, which take given sockets.
    fn start_at(gate: Gate, options: impl FnOnce(&Path, &GivenSockets) -> IngestOptions) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let (clock, registry, stop) = (Clock::start(), Registry::for_test(), CancellationToken::new());
        let pages = ShmPages::new(0, clock, &registry);
        let keyring = Keyring::read(&KeyFiles::default(), 1, STALL_AFTER, Vec::new()).unwrap();
        let given = GivenSockets::default();
        let options = options(directory.path(), &given);
        let listeners = Listeners::bind(&options, &pages, &keyring, &given, &registry, &stop).unwrap();
        let (to_inbox, inbox) = mpsc::channel(8);
        let surroundings = Surroundings {
            ingest: Handle::current(),
            inbox: to_inbox,
            clock,
            frames: Transport::ALL.map(|transport| FrameCounters::new(&registry, transport)),
            watcher: FileWatcher::new(),
            faults: Faults::new(&registry),
            gate,
        };
        let set = listeners.set().clone();
        tokio::spawn(listeners.start(surroundings).run(stop.clone()));
        World { directory, set, inbox, stop, registry }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    async fn reload(&self, options: IngestOptions) -> Result<(), String> {
        let staged = self.set.stage(options).await.map_err(|error| error.to_string())?;
        staged.commit(STALL_AFTER, 1).await.ok_or("the server ends".to_owned())
    }

    /// The number of beats in the next batch.
    async fn beats(&mut self) -> usize {
        self.inbox.recv().await.unwrap().beats.len()
    }
}

fn send(path: &Path, nonce: u64) -> std::io::Result<usize> {
    UnixDatagram::unbound()?
        .send_to(&Frame::new(Status::Ok, std::process::id(), 1, nonce, 0).to_bytes(), path)
}

#[tokio::test]
async fn a_socket_that_is_taken_away_is_read_and_gone_when_the_reload_has_ended_and_can_come_back_at_once() {
    let mut world = World::start(|directory| IngestOptions::for_socket(directory.join("one")));
    let one = IngestOptions::for_socket(world.path("one"));
    let mut both = one.clone();
    both.sockets.extend(IngestOptions::for_socket(world.path("two")).sockets);
    for nonce in 1..10 {
        world.reload(both.clone()).await.unwrap();
        send(&world.path("two"), nonce).unwrap();
        world.reload(one.clone()).await.unwrap();
        assert!(!world.path("two").exists() && !world.path("two.check").exists());
        assert_eq!(world.beats().await, 1);
    }
    send(&world.path("one"), 10).unwrap();
    assert_eq!(world.beats().await, 1);
    world.stop.cancel();
    assert!(world.inbox.recv().await.is_none(), "the last of them ends the inbox");
    assert!(!world.path("one").exists());
}

#[tokio::test]
async fn a_socket_that_another_server_reads_is_not_set_otherwise_before_the_gate_is_open() {
    let gate = Gate::new(true);
    let mut read_by_another = None;
    let mut world = World::start_at(gate.clone(), |directory, given| {
        let path = directory.join("one");
        let socket = UnixDatagram::bind(&path).unwrap();
        read_by_another = Some(socket.try_clone().unwrap());
        given.add_inherited(socket.into(), "socket".to_owned(), true, Some(11)).unwrap();
        IngestOptions::for_socket(path)
    });
    let socket = read_by_another.unwrap();
    send(&world.path("one"), 1).unwrap();
    // The listener's task comes to the gate.
    tokio::task::yield_now().await;
    assert!(!passes_pidfds(socket.as_fd()));
    let has_option = pass_pidfds(socket.as_fd(), false).is_ok();
    gate.open();
    assert_eq!(world.beats().await, 1);
    assert_eq!(passes_pidfds(socket.as_fd()), has_option);
    world.stop.cancel();
}

#[tokio::test]
async fn what_is_staged_and_not_committed_is_released() {
    let world = World::start(|directory| IngestOptions::for_socket(directory.join("one")));
    let mut more = IngestOptions::for_socket(world.path("one"));
    more.sockets.extend(IngestOptions::for_socket(world.path("two")).sockets);
    more.sockets[0].mode = 0o660;
    let mode = || std::os::unix::fs::MetadataExt::mode(&fs::metadata(world.path("one")).unwrap()) & 0o777;
    let staged = world.set.stage(more.clone()).await.unwrap();
    assert!(world.path("two").exists());
    drop(staged);
    assert_eq!((mode(), world.path("two").exists()), (0o600, false));
    more.sockets.extend(IngestOptions::for_socket("/dev/null".into()).sockets);
    assert!(world.reload(more).await.unwrap_err().starts_with("/dev/null: is there and is not a socket"));
    assert_eq!((mode(), world.path("two").exists()), (0o600, false));
    world.stop.cancel();
}

#[tokio::test]
async fn the_rows_of_queues_are_those_of_the_sockets_that_are_there() {
    let udp = |directory: &Path| {
        let any = "127.0.0.1:0".parse().unwrap();
        IngestOptions { udp: vec![any, any], ..IngestOptions::for_socket(directory.join("one")) }
    };
    let world = World::start(udp);
    let rows = || {
        let text = world.set.kernel_drops().queue_rows();
        let count = |name: &str| text.lines().filter(|line| line.starts_with(name)).count();
        (count("varta_udp_receive_buffer_bytes{address="), count("varta_unix_max_dgram_qlen "))
    };
    assert_eq!(rows().0, 2);
    let mut options = udp(world.directory.path());
    options.udp.pop();
    options.udp_receive_buffer = 100_000;
    options.max_shm_agents = 7;
    world.reload(options).await.unwrap();
    assert_eq!(rows().0, 1);
    assert!(world.registry.handle().render().contains("varta_shm_capacity 7\n"));
    let text = world.set.kernel_drops().queue_rows();
    assert!(text.lines().any(|line| line.ends_with("} 100000")), "{text}");
    world.reload(IngestOptions::for_socket(world.path("one"))).await.unwrap();
    assert_eq!(rows().0, 0);
    assert!(world.registry.handle().render().contains("varta_kernel_drops_total{transport=\"udp\"} 0"));
    world.stop.cancel();
}

#[tokio::test]
async fn a_socket_for_all_addresses_keeps_the_family_that_it_was_bound_for() {
    let with = |udp: &[&str], directory: &Path| {
        let udp = udp.iter().map(|address| address.parse().unwrap()).collect();
        let options = IngestOptions::for_socket(directory.join("one"));
        IngestOptions { udp, allow_plaintext_remote: true, ..options }
    };
    let Ok(free) = std::net::UdpSocket::bind("[::]:0") else { return };
    let port = free.local_addr().unwrap().port();
    drop(free);
    let (six, four) = (format!("[::]:{port}"), format!("0.0.0.0:{port}"));
    let world = World::start(|directory| with(&[&six], directory));
    let refused = world.reload(with(&[&six, &four], world.directory.path())).await.unwrap_err();
    assert!(refused.starts_with(&format!("--udp: {six}")) && refused.contains("restart"), "{refused}");
    world.stop.cancel();
}
