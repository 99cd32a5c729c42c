//! A beat allocates nothing, with any outcome: counted by an allocator that sees every allocation of this
//! program.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]
#![allow(unsafe_code, reason = "an allocator is unsafe by its trait")]

mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::io;
use std::os::unix::net::UnixListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

#[cfg(feature = "shm")]
use common::WithPage;
use common::{HandleKind, Server, SocketOnly};
use varta_agent::{BeatOutcome, BeatTransport, Builder, DropReason, EncodedControl, Status, Varta};

struct Counting;

/// Allocations and reallocations of this program so far.
static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

// SAFETY: every call is forwarded to the system's allocator with the same layout.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller keeps the contract.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the contract.
        unsafe { System.dealloc(block, layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller keeps the contract.
        unsafe { System.realloc(block, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// With this recorder the counters of every beat are covered too.
#[cfg(feature = "metrics")]
static COUNTS: std::sync::LazyLock<common::recorder::Counts> = std::sync::LazyLock::new(Default::default);

fn main() {
    #[cfg(feature = "metrics")]
    assert!(metrics::set_global_recorder(COUNTS.clone()).is_ok());
    common::run(&[
        ("the_allocator_counts", the_allocator_counts),
        ("a_beat_that_is_sent", a_beat_that_is_sent::<SocketOnly>),
        #[cfg(feature = "shm")]
        ("with_a_page_a_beat_that_is_sent", a_beat_that_is_sent::<WithPage>),
        #[cfg(feature = "metrics")]
        ("a_beat_that_is_counted", a_beat_that_is_counted),
        ("a_beat_that_meets_a_full_queue", a_beat_that_meets_a_full_queue::<SocketOnly>),
        #[cfg(feature = "shm")]
        ("with_a_page_a_beat_that_meets_a_full_queue", a_beat_that_meets_a_full_queue::<WithPage>),
        ("a_beat_whose_server_has_gone", a_beat_whose_server_has_gone::<SocketOnly>),
        #[cfg(feature = "shm")]
        ("with_a_page_a_beat_whose_server_has_gone", a_beat_whose_server_has_gone::<WithPage>),
        ("a_beat_that_finds_the_restarted_server", a_beat_that_finds_the_restarted_server::<SocketOnly>),
        #[cfg(feature = "shm")]
        (
            "with_a_page_a_beat_that_finds_the_restarted_server",
            a_beat_that_finds_the_restarted_server::<WithPage>,
        ),
        ("a_beat_of_a_lazy_handle_without_a_server", a_beat_of_a_lazy_handle_without_a_server::<SocketOnly>),
        #[cfg(feature = "shm")]
        (
            "with_a_page_a_beat_of_a_lazy_handle_without_a_server",
            a_beat_of_a_lazy_handle_without_a_server::<WithPage>,
        ),
        ("a_beat_of_a_disabled_handle", a_beat_of_a_disabled_handle),
        ("a_beat_with_which_a_hello_is_due", a_beat_with_which_a_hello_is_due::<SocketOnly>),
        #[cfg(feature = "shm")]
        ("with_a_page_a_beat_with_which_a_hello_is_due", a_beat_with_which_a_hello_is_due::<WithPage>),
        ("a_beat_with_which_a_hello_is_lost", a_beat_with_which_a_hello_is_lost),
        #[cfg(feature = "shm")]
        ("beats_that_are_written_to_a_page", beats_that_are_written_to_a_page),
        #[cfg(feature = "tokio")]
        ("a_tick_of_a_guard", a_tick_of_a_guard),
        ("a_beat_for_every_reason_of_a_drop", a_beat_for_every_reason_of_a_drop),
        ("a_beat_that_is_refused", a_beat_that_is_refused),
        #[cfg(feature = "udp")]
        ("beats_by_udp", udp::beats_by_udp),
        #[cfg(feature = "udp")]
        ("beats_by_udp_without_a_server", udp::beats_by_udp_without_a_server),
        #[cfg(feature = "secure-udp")]
        ("sealed_beats", udp::sealed_beats),
        #[cfg(feature = "udp")]
        ("hellos_by_udp", udp::hellos_by_udp),
        #[cfg(feature = "secure-udp")]
        ("sealed_hellos", udp::sealed_hellos),
        #[cfg(feature = "secure-udp")]
        ("sealed_beats_without_a_server", udp::sealed_beats_without_a_server),
        #[cfg(all(feature = "secure-udp", feature = "test-hooks"))]
        (
            "sealed_beats_around_the_end_of_a_prefix_a_session_and_a_fork",
            udp::sealed_beats_around_the_end_of_a_prefix_a_session_and_a_fork,
        ),
        #[cfg(feature = "test-hooks")]
        (
            "the_beats_around_the_end_of_the_nonces_and_a_fork",
            the_beats_around_the_end_of_the_nonces_and_a_fork,
        ),
    ]);
}

/// Sends a beat and checks that it allocated nothing.
fn beat<T: BeatTransport>(agent: &mut Varta<T>) -> BeatOutcome {
    beat_with(agent, Status::Ok)
}

fn beat_with<T: BeatTransport>(agent: &mut Varta<T>, status: Status) -> BeatOutcome {
    let before = ALLOCATIONS.load(Ordering::Relaxed);
    let outcome = agent.beat(status, 7);
    let after = ALLOCATIONS.load(Ordering::Relaxed);
    assert_eq!(after - before, 0, "allocations of a beat that was {outcome}");
    outcome
}

const FULL: BeatOutcome = BeatOutcome::Dropped(DropReason::KernelQueueFull);
const NOBODY: BeatOutcome = BeatOutcome::Dropped(DropReason::NoObserver);
const GONE: BeatOutcome = BeatOutcome::Dropped(DropReason::PeerGone);

fn the_allocator_counts() {
    let before = ALLOCATIONS.load(Ordering::Relaxed);
    drop(std::hint::black_box(Box::new(7)));
    assert_eq!(ALLOCATIONS.load(Ordering::Relaxed) - before, 1);
}

fn a_beat_that_is_sent<W: HandleKind>() {
    let server = Server::listening();
    let mut agent = W::connect(server.path()).unwrap();
    for _ in 0..1000 {
        assert_eq!(beat(&mut agent), BeatOutcome::Sent);
        let _ = server.frame();
    }
}

#[cfg(feature = "shm")]
fn beats_that_are_written_to_a_page() {
    let server = common::page::PageServer::listening();
    let mut agent = Varta::connect_shm(server.path()).unwrap();
    assert_eq!(beat(&mut agent), BeatOutcome::Sent);
    let page = server.page();
    page.promise();
    for nonce in 2..1000 {
        assert_eq!(beat(&mut agent), BeatOutcome::Sent);
        assert_eq!(page.nonce(), Some(nonce));
    }
    assert_eq!(beat_with(&mut agent, Status::Degraded), BeatOutcome::Sent);
    assert_eq!(page.nonce(), None, "news goes by datagram");
    agent.reconnect().unwrap();
    assert!(page.was_left());
    assert_eq!(beat(&mut agent), BeatOutcome::Sent);
    let page = server.page();
    page.promise();
    assert_eq!(beat(&mut agent), BeatOutcome::Sent);
    assert_eq!(page.nonce(), Some(1002));
}

#[cfg(feature = "metrics")]
fn a_beat_that_is_counted() {
    let sent =
        || COUNTS.read().into_iter().find(|(name, _)| name.contains("sent")).map_or(0, |(_, count)| count);
    let server = Server::listening();
    let mut agent = Varta::connect(server.path()).unwrap();
    let before = sent();
    assert_eq!(beat(&mut agent), BeatOutcome::Sent);
    assert_eq!(sent(), before + 1);
}

fn a_beat_that_meets_a_full_queue<W: HandleKind>() {
    let server = Server::listening();
    common::fill(&server.path());
    for threshold in [0, 1] {
        let mut agent =
            W::build(Varta::builder().socket(server.path()).eager().reconnect_after(threshold)).unwrap();
        for _ in 0..3 {
            assert_eq!(beat(&mut agent), FULL);
        }
    }
}

fn a_beat_whose_server_has_gone<W: HandleKind>() {
    for threshold in [0, 1, 2] {
        let mut server = Server::listening();
        let mut agent =
            W::build(Varta::builder().socket(server.path()).eager().reconnect_after(threshold)).unwrap();
        server.kill();
        assert_eq!(beat(&mut agent), NOBODY);
        assert_eq!(beat(&mut agent), GONE);
        std::fs::remove_file(server.path()).unwrap();
        assert_eq!(beat(&mut agent), GONE);
    }
}

fn a_beat_that_finds_the_restarted_server<W: HandleKind>() {
    let mut server = Server::listening();
    let mut agent = W::build(Varta::builder().socket(server.path())).unwrap();
    server.kill();
    server.start();
    assert_eq!(beat(&mut agent), BeatOutcome::Sent);
    assert_eq!(server.frame().nonce, 1);
}

fn a_beat_of_a_lazy_handle_without_a_server<W: HandleKind>() {
    let mut server = Server::absent();
    let mut agent = W::build(Varta::builder().socket(server.path()).lazy()).unwrap();
    for _ in 0..3 {
        assert_eq!(beat(&mut agent), NOBODY);
    }
    server.start();
    assert_eq!(beat(&mut agent), BeatOutcome::Sent);
}

fn a_beat_of_a_disabled_handle() {
    assert_eq!(beat(&mut Varta::disabled()), NOBODY);
}

/// A handle with a Hello of the maximum length.
fn with_profile() -> Builder {
    let long = "x".repeat(100);
    let builder = Varta::builder().name("n".repeat(64)).interval(Duration::from_secs(1));
    builder.stall_after(Duration::from_secs(3)).label("one", &long).label("two", &long).label("three", &long)
}

fn a_beat_with_which_a_hello_is_due<W: HandleKind>() {
    let server = Server::listening();
    let mut agent = W::build(with_profile().socket(server.path()).lazy()).unwrap();
    for _ in 0..3 {
        assert_eq!(beat(&mut agent), BeatOutcome::Sent);
        let lengths: Vec<usize> = server.datagrams().iter().map(Vec::len).collect();
        assert!(matches!(lengths[..], [400..=512, 32]), "{lengths:?}");
        agent.reconnect().unwrap();
    }
    #[cfg(feature = "test-hooks")]
    {
        agent.set_connect_pid_for_test(1);
        assert_eq!((beat(&mut agent), agent.fork_recoveries()), (BeatOutcome::Sent, 1));
        assert_eq!(server.datagrams().len(), 2);
    }
}

fn a_beat_with_which_a_hello_is_lost() {
    for (errno, tried) in [(libc::ENOBUFS, 3), (libc::ECONNREFUSED, 3), (libc::EPERM, 1)] {
        let hellos = Arc::new(AtomicUsize::new(0));
        let transport = BeatsAlone { errno, hellos: hellos.clone() };
        let mut agent = with_profile().transport(transport).connect().unwrap();
        for _ in 0..2 {
            assert_eq!(beat(&mut agent), BeatOutcome::Sent);
        }
        assert_eq!(hellos.load(Ordering::Relaxed), tried);
    }

    struct BeatsAlone {
        errno: i32,
        hellos: Arc<AtomicUsize>,
    }

    impl BeatTransport for BeatsAlone {
        fn send(&mut self, _: &[u8; 32]) -> io::Result<usize> {
            Ok(32)
        }

        fn reconnect(&mut self) -> io::Result<()> {
            Ok(())
        }

        fn send_control(&mut self, _: EncodedControl<'_>) -> io::Result<usize> {
            self.hellos.fetch_add(1, Ordering::Relaxed);
            Err(io::Error::from_raw_os_error(self.errno))
        }
    }
}

#[cfg(feature = "tokio")]
fn a_tick_of_a_guard() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let _context = runtime.enter();
    let heartbeat = Varta::disabled().spawn_heartbeat(Duration::from_secs(1)).unwrap();
    let guard = heartbeat.guard("consumer", Duration::from_secs(30));
    let before = ALLOCATIONS.load(Ordering::Relaxed);
    for count in 0..1000 {
        guard.tick();
        guard.progress(count);
    }
    assert_eq!(ALLOCATIONS.load(Ordering::Relaxed) - before, 0);
}

fn a_beat_for_every_reason_of_a_drop() {
    struct Refusing(i32);

    impl BeatTransport for Refusing {
        fn send(&mut self, _: &[u8; 32]) -> io::Result<usize> {
            Err(io::Error::from_raw_os_error(self.0))
        }

        fn reconnect(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    for (errno, reason) in [
        (libc::ENOBUFS, DropReason::KernelQueueFull),
        (libc::ECONNREFUSED, DropReason::NoObserver),
        (libc::EPIPE, DropReason::PeerGone),
        (libc::ENOSPC, DropReason::StorageFull),
    ] {
        let mut agent = Varta::builder().transport(Refusing(errno)).connect().unwrap();
        assert_eq!(beat(&mut agent), BeatOutcome::Dropped(reason));
    }
}

fn a_beat_that_is_refused() {
    let server = Server::listening();
    let mut agent = Varta::connect(server.path()).unwrap();
    assert!(beat_with(&mut agent, Status::Stall).is_failed());

    // A socket of another type: a lasting error.
    let stream = server.path().with_file_name("stream");
    let _listener = UnixListener::bind(&stream).unwrap();
    let mut agent = Varta::builder().socket(stream).lazy().connect().unwrap();
    assert_eq!(beat(&mut agent).error().unwrap().errno, libc::EPROTOTYPE);
}

#[cfg(feature = "test-hooks")]
fn the_beats_around_the_end_of_the_nonces_and_a_fork() {
    let server = Server::listening();
    let mut agent = Varta::connect(server.path()).unwrap();
    agent.set_nonce_for_test(varta_agent::NONCE_TERMINAL - 2);
    for _ in 0..3 {
        assert_eq!(beat(&mut agent), BeatOutcome::Sent);
    }
    agent.set_connect_pid_for_test(1);
    assert_eq!(beat(&mut agent), BeatOutcome::Sent);
    assert_eq!(agent.fork_recoveries(), 1);
}

#[cfg(feature = "udp")]
mod udp {
    use super::*;
    use common::UdpServer;
    #[cfg(feature = "secure-udp")]
    use std::net::SocketAddr;
    use std::time::Instant;
    use varta_agent::UdpTransport;
    #[cfg(feature = "secure-udp")]
    use varta_agent::{Key, SecureUdpTransport};

    fn is_sent<T: BeatTransport>(agent: &mut Varta<T>, server: &UdpServer) {
        for _ in 0..1000 {
            assert_eq!(beat(agent), BeatOutcome::Sent);
            server.datagram();
        }
    }

    /// Sends beats until one is dropped, and more of them to reconnect.
    fn beats_until_dropped<T: BeatTransport>(transport: impl Fn() -> T) {
        let started = Instant::now();
        let mut agent = Varta::builder().transport(transport()).reconnect_after(0).connect().unwrap();
        while beat(&mut agent) != NOBODY {
            assert!(started.elapsed() < Duration::from_secs(20), "never refused");
        }
        let mut agent = Varta::builder().transport(transport()).reconnect_after(1).connect().unwrap();
        for _ in 0..20 {
            assert_eq!(beat(&mut agent), BeatOutcome::Sent);
        }
    }

    pub(super) fn beats_by_udp() {
        let server = UdpServer::listening();
        is_sent(&mut Varta::connect_udp(server.addr()).unwrap(), &server);
    }

    pub(super) fn beats_by_udp_without_a_server() {
        let server = UdpServer::absent();
        beats_until_dropped(|| UdpTransport::connect(server.addr()).unwrap());
    }

    /// Checks that beats followed by a Hello arrive.
    fn send_hellos<T: BeatTransport>(agent: &mut Varta<T>, server: &UdpServer) {
        assert!(server.datagram().len() > 400);
        for _ in 0..10 {
            agent.reconnect().unwrap();
            assert_eq!(beat(agent), BeatOutcome::Sent);
            assert!(server.datagram().len() > 400 && server.datagram().len() <= 64);
        }
    }

    pub(super) fn hellos_by_udp() {
        let server = UdpServer::listening();
        send_hellos(&mut with_profile().udp(server.addr()).connect().unwrap(), &server);
    }

    #[cfg(feature = "secure-udp")]
    pub(super) fn sealed_hellos() {
        let server = UdpServer::listening();
        let key = || Key::from_bytes([0x8f; 32]);
        send_hellos(&mut with_profile().secure_udp(server.addr(), key()).connect().unwrap(), &server);
        let with_master = with_profile().secure_udp_with_master(server.addr(), key());
        send_hellos(&mut with_master.connect().unwrap(), &server);
    }

    #[cfg(feature = "secure-udp")]
    fn both_modes(addr: SocketAddr) -> [SecureUdpTransport; 2] {
        let key = || Key::from_bytes([0x8f; 32]);
        [SecureUdpTransport::connect(addr, key()), SecureUdpTransport::connect_with_master(addr, key())]
            .map(Result::unwrap)
    }

    #[cfg(feature = "secure-udp")]
    pub(super) fn sealed_beats() {
        let server = UdpServer::listening();
        for transport in both_modes(server.addr()) {
            is_sent(&mut Varta::builder().transport(transport).connect().unwrap(), &server);
        }
    }

    #[cfg(feature = "secure-udp")]
    pub(super) fn sealed_beats_without_a_server() {
        let server = UdpServer::absent();
        for mode in 0..2 {
            beats_until_dropped(|| both_modes(server.addr()).into_iter().nth(mode).unwrap());
        }
    }

    #[cfg(all(feature = "secure-udp", feature = "test-hooks"))]
    pub(super) fn sealed_beats_around_the_end_of_a_prefix_a_session_and_a_fork() {
        let server = UdpServer::listening();
        for prefixes in [0, u32::MAX] {
            for mut transport in both_modes(server.addr()) {
                transport.skip_for_test(prefixes, u32::MAX - 2).unwrap();
                let mut agent = Varta::builder().transport(transport).connect().unwrap();
                for _ in 0..5 {
                    assert_eq!(beat(&mut agent), BeatOutcome::Sent);
                }
                agent.set_connect_pid_for_test(1);
                assert_eq!(beat(&mut agent), BeatOutcome::Sent);
                assert_eq!(agent.fork_recoveries(), 1);
            }
        }
    }
}
