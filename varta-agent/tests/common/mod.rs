//! What the test programs share: a server that only listens.

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

/// After it a test has failed; no test that succeeds waits for it.
const GIVE_UP: Duration = Duration::from_secs(20);

/// Waits until a heartbeat has sent so many beats.
#[cfg(feature = "tokio")]
pub(crate) async fn await_beats(heartbeat: &varta_agent::Heartbeat, beats: u64) {
    let sent = async {
        while heartbeat.beats_sent() < beats {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(GIVE_UP, sent).await.expect("the heartbeat beats");
}

/// A socket that somebody listens on, in a directory of its own.
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
        socket.set_read_timeout(Some(GIVE_UP)).unwrap();
        self.socket = Some(socket);
    }

    /// Closes the socket, and leaves its file as a server that is killed does.
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

    /// Takes the next datagram, whatever it is.
    pub(crate) fn take(&self) {
        self.socket().recv(&mut [0; 600]).expect("a datagram in time");
    }

    /// Takes what has arrived, all of it frames, without waiting.
    pub(crate) fn arrived(&self) -> Vec<Frame> {
        self.datagrams().iter().map(|datagram| Frame::decode(datagram).unwrap()).collect()
    }

    /// Takes what has arrived, without waiting. A page of memory that is handed over is not taken.
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

/// Tells whether a datagram hands over a page of memory.
fn is_attach(datagram: &[u8]) -> bool {
    Control::decode(datagram).is_ok_and(|control| control.kind() == ControlKind::Attach)
}

/// A way to a server on this host. A handle that shares memory does what the other does wherever nobody takes the page.
pub(crate) trait Way {
    type Transport: BeatTransport + Debug;

    fn connect(path: PathBuf) -> io::Result<Varta<Self::Transport>>;

    fn made_by(builder: Builder) -> io::Result<Varta<Self::Transport>>;
}

/// Through the socket alone.
pub(crate) struct BySocket;

impl Way for BySocket {
    type Transport = UdsTransport;

    fn connect(path: PathBuf) -> io::Result<Varta> {
        Varta::connect(path)
    }

    fn made_by(builder: Builder) -> io::Result<Varta> {
        builder.connect()
    }
}

/// With a page of memory beside it.
#[cfg(feature = "shm")]
pub(crate) struct ByPage;

#[cfg(feature = "shm")]
impl Way for ByPage {
    type Transport = varta_agent::ShmTransport;

    fn connect(path: PathBuf) -> io::Result<Varta<Self::Transport>> {
        Varta::connect_shm(path)
    }

    fn made_by(builder: Builder) -> io::Result<Varta<Self::Transport>> {
        builder.shm().connect()
    }
}

/// Makes a test of each of these cases for each [`Way`].
#[macro_export]
macro_rules! each_way {
    ($($case:ident),* $(,)?) => {
        mod by_socket {
            $(#[test] fn $case() { super::$case::<super::common::BySocket>() })*
        }
        #[cfg(feature = "shm")]
        mod by_page {
            $(#[test] fn $case() { super::$case::<super::common::ByPage>() })*
        }
    };
}

/// Fills the queue of a server's socket, by as many datagrams as it takes.
pub(crate) fn fill(path: &Path) {
    let socket = UnixDatagram::unbound().unwrap();
    socket.connect(path).unwrap();
    socket.set_nonblocking(true).unwrap();
    while socket.send(&[0; 32]).is_ok() {}
}

/// Runs the cases whose names contain one of the arguments, or all, one after the other on this thread. For test
/// programs that cannot have the threads of the standard harness.
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

/// A UDP socket that somebody listens on.
#[cfg(feature = "udp")]
pub(crate) struct UdpServer(UdpSocket);

#[cfg(feature = "udp")]
impl UdpServer {
    /// On a port of the kernel's choice.
    pub(crate) fn on(ip: impl Into<IpAddr>) -> io::Result<Self> {
        let socket = UdpSocket::bind((ip.into(), 0))?;
        socket.set_read_timeout(Some(GIVE_UP))?;
        Ok(Self(socket))
    }

    pub(crate) fn listening() -> Self {
        Self::on(Ipv4Addr::LOCALHOST).unwrap()
    }

    /// On a port at which nobody else can listen, and which takes no datagrams either: as good as nobody.
    pub(crate) fn absent() -> Self {
        let server = Self::listening();
        server.stop();
        server
    }

    /// Refuses all datagrams from now on, as if the socket were closed, without giving the port to anybody.
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

    /// Takes what was sent before now, and waits for all of it to arrive.
    pub(crate) fn arrived(&self) -> Vec<Vec<u8>> {
        const END: &[u8] = b"that was all";
        UdpSocket::bind((self.addr().ip(), 0)).unwrap().send_to(END, self.addr()).unwrap();
        std::iter::repeat_with(|| self.datagram()).take_while(|datagram| datagram != END).collect()
    }
}

/// Takes all randomness of the operating system from this process and its children, for ever; nor can they open files.
/// `false` if that is not to be had here.
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
