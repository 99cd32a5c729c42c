//! What is sent over UDP, and the process that sends it. Everything is made and sealed before the clock starts, so that
//! the sender does nothing but send.

use std::fs::File;
use std::io::{Read, stdin};
use std::net::{Ipv4Addr, UdpSocket};

use varta_agent::{Frame, Status};
use varta_integration_tests::{MASTER_KEY, SHARED_KEY};
use varta_proto::FRAME_LEN;
use varta_proto::secure::{Key, MASTER_LEN, SHARED_LEN, Session, seal_master, seal_shared};

use crate::Fallible;

/// The pid of the first agent; the others' follow it.
const FIRST_PID: u32 = 10_000;

/// What the datagrams are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Frames in plain sight.
    Plain,
    /// Frames under the shared key.
    Shared,
    /// The same with one bit of the tag changed.
    SharedFlipped,
    /// As long as those, and noise.
    SharedNoise,
    /// Frames under the keys that are derived from the master key.
    Master,
    /// The same with one bit of the tag changed: a forgery in the name of an agent that there is.
    MasterFlipped,
    /// As long as those, and noise: each in the name of another pid.
    MasterNoise,
}

impl Kind {
    const ALL: [Kind; 7] = [
        Kind::Plain,
        Kind::Shared,
        Kind::SharedFlipped,
        Kind::SharedNoise,
        Kind::Master,
        Kind::MasterFlipped,
        Kind::MasterNoise,
    ];

    /// Whether it is to be accepted.
    pub(crate) const fn is_genuine(self) -> bool {
        matches!(self, Kind::Plain | Kind::Shared | Kind::Master)
    }

    /// The value of the metric label `transport`.
    pub(crate) const fn transport(self) -> &'static str {
        if matches!(self, Kind::Plain) { "udp" } else { "secure_udp" }
    }

    fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| format!("{kind:?}") == name)
    }
}

/// One sender's datagrams.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load {
    pub(crate) kind: Kind,
    /// How many agents send in turn, all from one socket.
    pub(crate) agents: u32,
    pub(crate) frames: u64,
}

impl Load {
    /// From one agent, enough to fill a queue five times.
    pub(crate) const fn of(kind: Kind) -> Self {
        Load { kind, agents: 1, frames: 40_000 }
    }

    /// The arguments that tell it to the sending process.
    pub(crate) fn arguments(&self) -> [String; 3] {
        [format!("{:?}", self.kind), self.agents.to_string(), self.frames.to_string()]
    }

    fn from_arguments(arguments: &[String]) -> Option<Self> {
        let [kind, agents, frames] = arguments else { return None };
        let (agents, frames) = (agents.parse().ok()?, frames.parse().ok()?);
        Some(Load { kind: Kind::named(kind)?, agents, frames })
    }

    /// Makes all datagrams.
    fn make(&self) -> Fallible<Vec<Datagram>> {
        let mut noise = Noise(u64::from_le_bytes(entropy()?) | 1);
        let mut agents = (0..self.agents)
            .map(|number| Agent::new(self.kind, FIRST_PID + number))
            .collect::<Fallible<Vec<_>>>()?;
        let mut datagrams = Vec::new();
        for number in 0..self.frames {
            let nonce = 1 + number / u64::from(self.agents);
            let agent = &mut agents[usize::try_from(number % u64::from(self.agents))?];
            datagrams.push(agent.datagram(nonce, &mut noise)?);
        }
        Ok(datagrams)
    }
}

struct Datagram {
    room: [u8; MASTER_LEN],
    length: usize,
}

struct Agent {
    kind: Kind,
    pid: u32,
    key: Key,
    session: Session,
}

impl Agent {
    fn new(kind: Kind, pid: u32) -> Fallible<Self> {
        let key = match kind {
            Kind::Plain | Kind::Shared | Kind::SharedFlipped | Kind::SharedNoise => {
                Key::from_hex(SHARED_KEY)?
            }
            Kind::Master | Kind::MasterFlipped | Kind::MasterNoise => {
                Key::from_hex(MASTER_KEY)?.agent_key(pid)
            }
        };
        Ok(Agent { kind, pid, key, session: Session::new(entropy()?) })
    }

    fn datagram(&mut self, nonce: u64, noise: &mut Noise) -> Fallible<Datagram> {
        let Agent { kind, pid, ref key, ref mut session } = *self;
        // A beat each microsecond, by the agent's clock.
        let frame = Frame::new(Status::Ok, pid, nonce * 1_000, nonce, 0).to_bytes();
        let mut room = [0; MASTER_LEN];
        let length = match kind {
            Kind::Plain => FRAME_LEN,
            Kind::Shared | Kind::SharedFlipped | Kind::SharedNoise => SHARED_LEN,
            Kind::Master | Kind::MasterFlipped | Kind::MasterNoise => MASTER_LEN,
        };
        let datagram = &mut room[..length];
        match kind {
            Kind::Plain => datagram.copy_from_slice(&frame),
            Kind::Shared | Kind::SharedFlipped => {
                datagram.copy_from_slice(&seal_shared(key, session, &frame)?);
            }
            Kind::Master | Kind::MasterFlipped => {
                datagram.copy_from_slice(&seal_master(key, pid, session, &frame)?);
            }
            Kind::SharedNoise | Kind::MasterNoise => datagram.fill_with(|| noise.byte()),
        }
        if matches!(kind, Kind::SharedFlipped | Kind::MasterFlipped) {
            datagram[length - 1] ^= 1;
        }
        Ok(Datagram { room, length })
    }
}

/// Numbers without a pattern (xorshift).
struct Noise(u64);

impl Noise {
    fn byte(&mut self) -> u8 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.to_be_bytes()[0]
    }
}

/// Bytes that nobody has had before: a session that began like another one would be taken for a replay.
fn entropy<const N: usize>() -> Fallible<[u8; N]> {
    let mut bytes = [0; N];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes)
}

/// The sending process: `ADDRESS KIND AGENTS FRAMES`. Prints a line when it is ready; then it reads how many of its
/// datagrams to send, sends them, and prints a line again.
pub(crate) fn send(arguments: &[String]) -> Fallible<()> {
    let Some((address, load)) = arguments.split_first() else { return Err("wants ADDRESS".into()) };
    let datagrams = Load::from_arguments(load).ok_or("wants KIND AGENTS FRAMES")?.make()?;
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    socket.connect(address)?;
    let mut left = datagrams.iter();
    println!("ready");
    for line in stdin().lines() {
        for Datagram { room, length } in left.by_ref().take(line?.parse()?) {
            socket.send(&room[..*length])?;
        }
        println!("sent");
    }
    Ok(())
}
