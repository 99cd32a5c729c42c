//! Beats to another server, as those of any agent: with a name, the timeout that the interval asks for, and a
//! goodbye at an orderly stop.

use std::fmt;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::time::Duration;

use ring::rand::{SecureRandom, SystemRandom};
use varta_proto::control::{AgentName, Goodbye, GoodbyeReason, Hello, MAX_CONTROL_LEN};
use varta_proto::{Frame, Status};

use crate::base::clock::Clock;
use crate::base::error::Error;
use crate::base::options::LookUps;
use crate::base::time::{millis, nanos};
use crate::services::context::Context;
use crate::services::heartbeat::metrics::{Change, Outcomes};
use crate::services::heartbeat::options::{BeatTo, PeerOptions};
use crate::services::heartbeat::turns::Turns;

/// The silence that the other server is asked to bear, in intervals.
const INTERVALS: u32 = 5;
/// The time after which a beat is introduced again: a server that was restarted forgets who beats over UDP.
const HELLO_EVERY: Duration = Duration::from_secs(15);

/// Another server, and what is told to it.
#[derive(Debug)]
pub(super) struct PeerTarget {
    address: Address,
    every: Duration,
    name: AgentName,
    session: [u8; 16],
    started: Duration,
    nonce: u64,
    /// While it is `None`, the next beat connects.
    socket: Option<Socket>,
    /// When the server introduced itself last, on the clock of `started`.
    introduced: Duration,
}

#[derive(Debug)]
enum Address {
    Unix(PathBuf),
    Udp(SocketAddr),
}

#[derive(Debug)]
enum Socket {
    Unix(UnixDatagram),
    Udp(UdpSocket),
}

impl PeerTarget {
    /// Looks the host up. Nothing is sent, and the other server need not run yet.
    ///
    /// # Errors
    ///
    /// The host has no address, or the system has no random numbers.
    pub(super) fn open(options: PeerOptions, host: &str) -> Result<Self, Error> {
        let address = match options.to {
            BeatTo::Unix(path) => Address::Unix(path),
            BeatTo::Udp(host) => Address::Udp(host.resolve("--beat-to", LookUps::Done)?),
        };
        let mut session = [0; 16];
        SystemRandom::new().fill(&mut session).map_err(|_| Error::Runtime {
            action: "draw a random number",
            source: io::Error::other("the system has none"),
        })?;
        Ok(PeerTarget {
            address,
            every: options.every,
            name: name_of(host),
            session,
            started: Clock::monotonic_now(),
            nonce: 0,
            socket: None,
            introduced: Duration::ZERO,
        })
    }

    /// The task: a beat after a completed turn of the tracker in each interval, and a goodbye at the end, unless
    /// the server ends because of an error.
    pub(super) fn run(
        mut self,
        context: &Context,
        mut outcomes: Outcomes,
    ) -> impl Future<Output = Result<(), Error>> + Send + 'static {
        let (stop, failure) = (context.stop_last.clone(), context.failure.clone());
        let turns = Turns::new(context.queries.clone(), self.every);
        async move {
            tokio::select! {
                biased;
                () = stop.cancelled() => {}
                () = self.converse(turns, &mut outcomes) => {}
            }
            if failure.get().is_none()
                && let Err(error) = self.say_goodbye()
            {
                tracing::debug!(target: "varta::heartbeat", "{}: no goodbye: {error}", self.address);
            }
            Ok(())
        }
    }

    /// Does not end.
    async fn converse(&mut self, mut turns: Turns, outcomes: &mut Outcomes) {
        loop {
            turns.next().await;
            let sent = self.beat();
            match outcomes.count(sent.is_ok()) {
                Some(Change::Fails) => tracing::warn!(
                    target: "varta::heartbeat",
                    "a beat to {} cannot be sent: {}; trying again every {:?}, see --beat-to",
                    self.address,
                    sent.err().map(|error| error.to_string()).unwrap_or_default(),
                    self.every
                ),
                Some(Change::WorksAgain) => tracing::info!(
                    target: "varta::heartbeat",
                    "beats to {} are sent again",
                    self.address
                ),
                None => {}
            }
        }
    }

    /// Sends a beat. A server that was restarted has another socket, and gets this beat too.
    fn beat(&mut self) -> io::Result<()> {
        let was_connected = self.socket.is_some();
        match self.try_beat() {
            Err(_) if was_connected => self.try_beat(),
            result => result,
        }
    }

    /// After an error the next beat connects anew.
    fn try_beat(&mut self) -> io::Result<()> {
        let connected = self.socket.take();
        let is_new = connected.is_none();
        let socket = connected.map_or_else(|| self.address.connect(), Ok)?;
        let now = Clock::monotonic_now();
        let since_start = now.saturating_sub(self.started);
        let (pid, timestamp) = (std::process::id(), nanos(since_start));
        if is_new || now.saturating_sub(self.introduced) >= HELLO_EVERY {
            let mut hello = Hello::new(pid, timestamp, self.nonce, self.session);
            let asked = [self.every, self.every * INTERVALS];
            let asked = asked.map(|time| u32::try_from(millis(time)).unwrap_or(u32::MAX));
            hello.name = Some(&self.name);
            hello.interval_ms = Some(asked[0]);
            hello.stall_after_ms = Some(asked[1]);
            socket.send(hello.encode(&mut [0; MAX_CONTROL_LEN]).as_bytes())?;
            self.introduced = now;
        }
        socket.send(&Frame::new(Status::Ok, pid, timestamp, self.nonce + 1, 0).to_bytes())?;
        self.nonce += 1;
        self.socket = Some(socket);
        Ok(())
    }

    fn say_goodbye(&self) -> io::Result<()> {
        let Some(socket) = &self.socket else { return Ok(()) };
        let timestamp = nanos(Clock::monotonic_now().saturating_sub(self.started));
        let (pid, reason) = (std::process::id(), GoodbyeReason::Shutdown);
        let goodbye = Goodbye::new(pid, timestamp, self.nonce, self.session, reason);
        socket.send(goodbye.encode(&mut [0; MAX_CONTROL_LEN]).as_bytes())
    }
}

/// `varta-server@HOST`, as far as names of agents have room for it; other characters become `-`.
fn name_of(host: &str) -> AgentName {
    let full = format!("varta-server@{host}")
        .replace(|c: char| !c.is_ascii_alphanumeric() && !"._-@".contains(c), "-");
    let length = full.len().min(AgentName::MAX_LEN);
    AgentName::parse(&full[..length]).expect("its characters and its length are those of a name")
}

impl Address {
    /// A socket that does not wait.
    fn connect(&self) -> io::Result<Socket> {
        match self {
            Address::Unix(path) => {
                let socket = UnixDatagram::unbound()?;
                socket.set_nonblocking(true)?;
                socket.connect(path)?;
                Ok(Socket::Unix(socket))
            }
            Address::Udp(address) => {
                let any: SocketAddr = if address.is_ipv4() {
                    (std::net::Ipv4Addr::UNSPECIFIED, 0).into()
                } else {
                    (std::net::Ipv6Addr::UNSPECIFIED, 0).into()
                };
                let socket = UdpSocket::bind(any)?;
                socket.set_nonblocking(true)?;
                socket.connect(address)?;
                Ok(Socket::Udp(socket))
            }
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Unix(path) => write!(f, "unix:{}", path.display()),
            Address::Udp(address) => write!(f, "udp:{address}"),
        }
    }
}

impl Socket {
    fn send(&self, datagram: &[u8]) -> io::Result<()> {
        match self {
            Socket::Unix(socket) => socket.send(datagram).map(drop),
            Socket::Udp(socket) => socket.send(datagram).map(drop),
        }
    }
}

#[cfg(test)]
mod tests {
    use varta_proto::control::Control;

    use super::*;

    fn target(to: BeatTo, every: Duration) -> PeerTarget {
        PeerTarget::open(PeerOptions { to, every }, "host.example").unwrap()
    }

    fn received(socket: &UnixDatagram) -> Vec<u8> {
        let mut room = [0; MAX_CONTROL_LEN];
        let length = socket.recv(&mut room).unwrap();
        room[..length].to_vec()
    }

    #[test]
    fn a_server_introduces_itself_before_its_first_beat_on_each_connection() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("other.sock");
        let mut target = target(BeatTo::Unix(path.clone()), Duration::from_secs(2));
        assert_eq!(target.beat().unwrap_err().kind(), io::ErrorKind::NotFound);
        for connection in 0..2 {
            let server = UnixDatagram::bind(&path).unwrap();
            target.beat().unwrap();
            target.beat().unwrap();
            let hello = received(&server);
            let hello = Control::decode(&hello).unwrap();
            assert_eq!(hello.name().unwrap().as_str(), "varta-server@host.example");
            assert_eq!((hello.interval_ms(), hello.stall_after_ms()), (Some(2_000), Some(10_000)));
            for beat in 1..=2 {
                let frame = Frame::decode(&received(&server)).unwrap();
                assert_eq!((frame.pid, frame.nonce), (std::process::id(), 2 * connection + beat));
            }
            if connection == 1 {
                target.say_goodbye().unwrap();
                let goodbye = received(&server);
                assert_eq!(Control::decode(&goodbye).unwrap().reason(), Some(GoodbyeReason::Shutdown));
            }
            std::fs::remove_file(&path).unwrap();
        }
    }

    #[test]
    fn the_name_has_room_for_every_host() {
        assert_eq!(name_of("größe x").as_str(), "varta-server@gr--e-x");
        assert_eq!(name_of(&"h".repeat(200)).as_str().len(), AgentName::MAX_LEN);
    }
}
