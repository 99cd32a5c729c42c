//! Shared code of the test programs: a server that only receives.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]
#![allow(dead_code, reason = "each test program takes what it needs")]

#[cfg(all(feature = "shm", target_os = "linux"))]
pub(crate) mod page;
#[cfg(feature = "metrics")]
pub(crate) mod recorder;
#[cfg(feature = "tokio")]
pub(crate) mod tape;

use std::env;
use std::fmt::Debug;
use std::io;
#[cfg(feature = "udp")]
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tempfile::TempDir;
use varta_agent::{BeatTransport, Builder, Control, ControlKind, Frame, UdsTransport, Varta};

/// A test that waits longer has failed. It is no measure of speed, and no test that succeeds waits so long.
const LIMIT: Duration = Duration::from_secs(60);

/// Waits until a heartbeat has sent so many beats.
#[cfg(feature = "tokio")]
pub(crate) async fn await_beats(heartbeat: &varta_agent::Heartbeat, beats: u64) {
    let sent = async {
        while heartbeat.beats_sent() < beats {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(LIMIT, sent).await.expect("the heartbeat beats");
}

/// A server's socket, in a temporary directory.
pub(crate) struct Server {
    dir: TempDir,
    socket: Option<UnixDatagram>,
}

impl Server {
    /// A path at which there is no socket yet.
    pub(crate) fn absent() -> Self {
        Self { dir: tempfile::tempdir().unwrap(), socket: None }
    }

    pub(crate) fn listening() -> Self {
        let mut server = Self::absent();
        server.start();
        server
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.dir.path().join("varta.sock")
    }

    pub(crate) fn start(&mut self) {
        let _ = std::fs::remove_file(self.path());
        let socket = UnixDatagram::bind(self.path()).unwrap();
        socket.set_read_timeout(Some(LIMIT)).unwrap();
        self.socket = Some(socket);
    }

    /// Closes the socket and leaves its file, as a killed server does.
    pub(crate) fn kill(&mut self) {
        self.socket = None;
    }

    /// Waits for the next frame.
    pub(crate) fn frame(&self) -> Frame {
        let mut datagram = [0; 64];
        loop {
            let length = self.socket().recv(&mut datagram).expect("a frame in time");
            if !is_attach(&datagram[..length]) {
                return Frame::decode(&datagram[..length]).unwrap();
            }
        }
    }

    /// Receives the next datagram of any kind.
    pub(crate) fn take(&self) {
        self.socket().recv(&mut [0; 600]).expect("a datagram in time");
    }

    /// Returns the frames received so far, without waiting. Any other datagram fails the test.
    pub(crate) fn arrived(&self) -> Vec<Frame> {
        self.datagrams().iter().map(|datagram| Frame::decode(datagram).unwrap()).collect()
    }

    /// Returns the datagrams received so far, without waiting. The Attach of a page is skipped.
    pub(crate) fn datagrams(&self) -> Vec<Vec<u8>> {
        self.socket().set_nonblocking(true).unwrap();
        let mut datagrams = Vec::new();
        let mut datagram = [0; 600];
        loop {
            match self.socket().recv(&mut datagram) {
                Ok(length) if is_attach(&datagram[..length]) => {}
                Ok(length) => datagrams.push(datagram[..length].to_vec()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => panic!("{error}"),
            }
        }
        self.socket().set_nonblocking(false).unwrap();
        datagrams
    }

    fn socket(&self) -> &UnixDatagram {
        self.socket.as_ref().expect("the server listens")
    }
}

/// Returns whether a datagram is an Attach.
fn is_attach(datagram: &[u8]) -> bool {
    Control::decode(datagram).is_ok_and(|control| control.kind() == ControlKind::Attach)
}

/// A transport to a server on this host. While no server reads the page, a handle with a page behaves as one
/// without.
pub(crate) trait HandleKind {
    type Transport: BeatTransport + Debug;

    fn connect(path: PathBuf) -> io::Result<Varta<Self::Transport>>;

    fn build(builder: Builder) -> io::Result<Varta<Self::Transport>>;
}

/// The socket alone.
pub(crate) struct SocketOnly;

impl HandleKind for SocketOnly {
    type Transport = UdsTransport;

    fn connect(path: PathBuf) -> io::Result<Varta> {
        Varta::connect(path)
    }

    fn build(builder: Builder) -> io::Result<Varta> {
        builder.connect()
    }
}

/// The socket and a page of memory.
#[cfg(feature = "shm")]
pub(crate) struct WithPage;

#[cfg(feature = "shm")]
impl HandleKind for WithPage {
    type Transport = varta_agent::ShmTransport;

    fn connect(path: PathBuf) -> io::Result<Varta<Self::Transport>> {
        let mut agent = Varta::connect_shm(path)?;
        // As a handle of `connect`, which reconnects only when it is told to.
        agent.set_reconnect_after(0);
        Ok(agent)
    }

    fn build(builder: Builder) -> io::Result<Varta<Self::Transport>> {
        builder.shm().connect()
    }
}

/// Defines a test for each of these cases and each [`HandleKind`].
#[macro_export]
macro_rules! for_each_kind {
    ($($case:ident),* $(,)?) => {
        mod socket_only {
            $(#[test] fn $case() { super::$case::<super::common::SocketOnly>() })*
        }
        #[cfg(feature = "shm")]
        mod with_page {
            $(#[test] fn $case() { super::$case::<super::common::WithPage>() })*
        }
    };
}

/// Fills the queue of a server's socket.
pub(crate) fn fill(path: &Path) {
    let socket = UnixDatagram::unbound().unwrap();
    socket.connect(path).unwrap();
    socket.set_nonblocking(true).unwrap();
    while socket.send(&[0; 32]).is_ok() {}
}

/// Runs the cases whose names contain one of the arguments, or all of them, one after the other on this
/// thread. For test programs that cannot use the threads of the standard harness.
#[allow(clippy::print_stdout, reason = "this is what a test program does")]
pub(crate) fn run(cases: &[(&str, fn())]) {
    let filters: Vec<String> = env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    for (name, case) in cases {
        if filters.is_empty() || filters.iter().any(|filter| name.contains(filter.as_str())) {
            case();
            println!("test {name} ... ok");
        }
    }
}

/// A server's UDP socket.
#[cfg(feature = "udp")]
pub(crate) struct UdpServer(UdpSocket);

#[cfg(feature = "udp")]
impl UdpServer {
    /// Binds a port of the kernel's choice.
    pub(crate) fn on(ip: impl Into<IpAddr>) -> io::Result<Self> {
        let socket = UdpSocket::bind((ip.into(), 0))?;
        socket.set_read_timeout(Some(LIMIT))?;
        Ok(Self(socket))
    }

    pub(crate) fn listening() -> Self {
        Self::on(Ipv4Addr::LOCALHOST).unwrap()
    }

    /// A port that no other socket can bind, and that refuses all datagrams, as if it were unbound.
    pub(crate) fn absent() -> Self {
        let server = Self::listening();
        server.stop();
        server
    }

    /// Refuses all datagrams from now on, as if the socket were closed, but keeps the port.
    pub(crate) fn stop(&self) {
        self.0.connect((Ipv4Addr::LOCALHOST, 1)).unwrap();
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        self.0.local_addr().unwrap()
    }

    /// Waits for the next datagram.
    pub(crate) fn datagram(&self) -> Vec<u8> {
        let mut datagram = [0; 600];
        let length = self.0.recv(&mut datagram).expect("a datagram in time");
        datagram[..length].to_vec()
    }

    /// Returns what was sent before this call, after all of it has arrived.
    pub(crate) fn arrived(&self) -> Vec<Vec<u8>> {
        const END: &[u8] = b"that was all";
        UdpSocket::bind((self.addr().ip(), 0)).unwrap().send_to(END, self.addr()).unwrap();
        std::iter::repeat_with(|| self.datagram()).take_while(|datagram| datagram != END).collect()
    }
}

/// Denies this process and its children the operating system's random numbers, for ever, and opening files.
/// Returns `false` where the filter cannot be installed.
#[cfg(all(feature = "secure-udp", target_os = "linux"))]
#[allow(unsafe_code, reason = "a filter of system calls is set through libc")]
pub(crate) fn take_entropy_away() -> bool {
    let statement = |code: u32, jt: u8, jf: u8, k: u32| libc::sock_filter {
        code: u16::try_from(code).unwrap(),
        jt,
        jf,
        k,
    };
    let refuse = |call: libc::c_long, errno: i32| {
        [
            statement(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 1, u32::try_from(call).unwrap()),
            statement(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ERRNO | errno.cast_unsigned()),
        ]
    };
    let mut filter = vec![statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0)];
    filter.extend(refuse(libc::SYS_getrandom, libc::ENOSYS));
    filter.extend(refuse(libc::SYS_openat, libc::ENOENT));
    filter.push(statement(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW));
    let program = libc::sock_fprog { len: u16::try_from(filter.len()).unwrap(), filter: filter.as_mut_ptr() };
    // SAFETY: it sets a flag of this process.
    let privileges = unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) };
    // SAFETY: the program and its statements are alive, and the kernel copies them.
    let filtered =
        unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) };
    (privileges, filtered) == (0, 0)
}
