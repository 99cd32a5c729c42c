//! An agent on the network that the test itself plays, datagram by datagram: what is on the way can be kept,
//! changed, held back and sent once more, as an attacker on the path can do it.

use std::fs::File;
use std::io::Read;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::{Duration, Instant};

use varta_proto::secure::{Key, Session, seal_master, seal_shared};
use varta_proto::{FRAME_LEN, Frame, NONCE_TERMINAL, Status};

use crate::route::{MASTER_KEY, Network, SHARED_KEY};

/// An agent that beats when the test calls for it.
#[derive(Debug)]
pub struct RemoteAgent {
    socket: Arc<UdpSocket>,
    server: SocketAddr,
    pid: u32,
    seal: Seal,
    session: Session,
    /// When the session began.
    since: Instant,
    /// How far its clock has been put forward.
    ahead: Duration,
    nonce: u64,
}

/// What goes around a frame.
#[derive(Debug)]
enum Seal {
    None,
    Shared(Key),
    /// The agent's own key.
    Master(Key),
}

impl RemoteAgent {
    /// An agent with this pid and the key that a server has for the network, on a socket of its own.
    #[must_use]
    #[track_caller]
    pub fn new(network: Network, server: SocketAddr, pid: u32) -> Self {
        Self::on(Arc::new(loopback_socket()), network, server, pid)
    }

    /// One that shares its socket with others, as those of a host behind another address do.
    #[must_use]
    #[track_caller]
    pub fn on(socket: Arc<UdpSocket>, network: Network, server: SocketAddr, pid: u32) -> Self {
        let key = match network {
            Network::Plain | Network::SharedKey => SHARED_KEY,
            Network::MasterKey => MASTER_KEY,
        };
        Self::with_key(socket, network, key, server, pid)
    }

    /// One with a key of the test's choice, in the form of the network; a master key is the one that it
    /// derives from.
    #[must_use]
    #[track_caller]
    pub fn with_key(
        socket: Arc<UdpSocket>,
        network: Network,
        key: &str,
        server: SocketAddr,
        pid: u32,
    ) -> Self {
        let key = Key::from_hex(key).expect("a test's key is a key");
        let seal = match network {
            Network::Plain => Seal::None,
            Network::SharedKey => Seal::Shared(key),
            Network::MasterKey => Seal::Master(key.agent_key(pid)),
        };
        let (since, ahead) = (Instant::now(), Duration::ZERO);
        RemoteAgent { socket, server, pid, seal, session: new_session(), since, ahead, nonce: 0 }
    }

    /// Its pid.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// How its beats arrive: the value of the metric label `transport`.
    #[must_use]
    pub fn transport(&self) -> &'static str {
        match self.seal {
            Seal::None => Network::Plain.label(),
            Seal::Shared(_) | Seal::Master(_) => Network::SharedKey.label(),
        }
    }

    /// Its socket.
    #[must_use]
    pub fn socket(&self) -> &UdpSocket {
        &self.socket
    }

    /// How many beats it has made in this session.
    #[must_use]
    pub fn beats(&self) -> u64 {
        self.nonce
    }

    /// Beats, and gives the datagram that was sent.
    #[track_caller]
    pub fn beat(&mut self) -> Vec<u8> {
        let datagram = self.hold_back();
        self.send(&datagram);
        datagram
    }

    /// Makes the next beat, and does not send it.
    #[must_use]
    #[track_caller]
    pub fn hold_back(&mut self) -> Vec<u8> {
        let frame = self.next_frame(Status::Ok);
        self.wrap(&frame.to_bytes())
    }

    /// The frame of its next beat.
    #[must_use]
    pub fn next_frame(&mut self, status: Status) -> Frame {
        self.nonce += 1;
        Frame::new(status, self.pid, self.now(), self.nonce, 7)
    }

    /// The frame that its panic hook would send.
    #[must_use]
    pub fn terminal_frame(&self) -> Frame {
        Frame::new(Status::Critical, self.pid, self.now(), NONCE_TERMINAL, 7)
    }

    /// The datagram for a frame of any agent. A nonce is spent for it.
    #[must_use]
    #[track_caller]
    pub fn wrap(&mut self, frame: &[u8; FRAME_LEN]) -> Vec<u8> {
        let sealed = match &self.seal {
            Seal::None => return frame.to_vec(),
            Seal::Shared(key) => seal_shared(key, &mut self.session, frame).map(|sealed| sealed.to_vec()),
            Seal::Master(key) => {
                seal_master(key, self.pid, &mut self.session, frame).map(|sealed| sealed.to_vec())
            }
        };
        sealed.expect("no test seals so much")
    }

    /// Sends bytes from its socket.
    #[track_caller]
    pub fn send(&self, datagram: &[u8]) {
        send_from(&self.socket, self.server, datagram);
    }

    /// Goes on under other nonces from the same socket, as a process does that has drawn a new salt.
    pub fn renew(&mut self) {
        self.session.renew(new_salt());
    }

    /// Starts again with a new socket and a new session: the process was restarted and has the pid that it
    /// had.
    pub fn restart(&mut self) {
        self.socket = Arc::new(loopback_socket());
        self.session = new_session();
        self.since = Instant::now();
        self.ahead = Duration::ZERO;
        self.nonce = 0;
    }

    /// Puts its clock forward: the timestamps of its next frames are so much later.
    pub fn put_clock_forward(&mut self, by: Duration) {
        self.ahead += by;
    }

    /// Sends to another server from now on, with the same session.
    pub fn send_to(&mut self, server: SocketAddr) {
        self.server = server;
    }

    fn now(&self) -> u64 {
        u64::try_from((self.since.elapsed() + self.ahead).as_nanos()).expect("no test lasts for centuries")
    }
}

/// A socket on a port of its own, on this host.
#[must_use]
#[track_caller]
pub fn loopback_socket() -> UdpSocket {
    socket_on(Ipv4Addr::LOCALHOST.into())
}

/// A socket on a port of its own, on one of this host's addresses.
#[must_use]
#[track_caller]
pub fn socket_on(address: IpAddr) -> UdpSocket {
    UdpSocket::bind((address, 0)).unwrap_or_else(|error| panic!("there is no socket on {address}: {error}"))
}

/// Sends bytes from any socket.
#[track_caller]
pub fn send_from(socket: &UdpSocket, server: SocketAddr, datagram: &[u8]) {
    let sent = socket.send_to(datagram, server).expect("this host takes what it is sent");
    assert_eq!(sent, datagram.len(), "a datagram is sent whole");
}

fn new_session() -> Session {
    Session::new(new_salt())
}

fn new_salt() -> [u8; Session::SALT_LEN] {
    let mut salt = [0; Session::SALT_LEN];
    let drawn = File::open("/dev/urandom").and_then(|mut entropy| entropy.read_exact(&mut salt));
    drawn.expect("every Linux has it");
    salt
}
