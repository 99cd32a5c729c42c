//! Very many agents that beat over UDP from one socket, and nothing is lost: whoever sends looks at the receiver's queue
//! and waits while it has no room.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};

use varta_agent::{Frame, Status};
use varta_proto::control::{Hello, MAX_CONTROL_LEN};

use crate::Fallible;
use crate::flow::{Queue, RECEIVE_BUFFER};
use crate::programs::{Server, wait_for};

/// The pid of the first agent; the others' follow it.
pub(crate) const FIRST_PID: u32 = 10_000;
/// Datagrams from one look at the queue to the next. They fit into the half of it that is free then.
const STRIDE: u64 = 2_000;

/// The arguments of a server for them. The log tells of no single agent, for a million lines in a row would be a
/// measurement of whoever reads them.
pub(crate) const ARGUMENTS: [&str; 8] = [
    "--udp",
    "127.0.0.1:0",
    "--udp-receive-buffer",
    "8388608",
    "--max-agents-per-source",
    "0",
    "--log-level",
    "info,varta::agent=warn",
];

/// One socket from which agents beat, by their numbers.
pub(crate) struct Paced {
    socket: UdpSocket,
    to: SocketAddr,
    nonces: Vec<u64>,
    sent: u64,
}

impl Paced {
    /// `agents` of them, none of which has beaten.
    pub(crate) fn new(server: &Server, agents: u32) -> Fallible<Self> {
        let to = server.udp()?;
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
        socket.connect(to)?;
        Ok(Paced { socket, to, nonces: vec![0; agents as usize], sent: 0 })
    }

    /// Sends an agent's next beat.
    pub(crate) fn beat(&mut self, agent: u32) -> Fallible<()> {
        let nonce = &mut self.nonces[agent as usize];
        *nonce += 1;
        // A beat each microsecond, by the agent's clock.
        let frame = Frame::new(Status::Ok, FIRST_PID + agent, *nonce * 1_000, *nonce, 0);
        self.send(&frame.to_bytes())
    }

    /// Has an agent say that it is busy from now on.
    pub(crate) fn be_busy(&mut self, agent: u32, for_ms: u32) -> Fallible<()> {
        let nonce = self.nonces[agent as usize];
        let mut session = [0; 16];
        session[..4].copy_from_slice(&agent.to_le_bytes());
        let mut hello = Hello::new(FIRST_PID + agent, nonce * 1_000, nonce, session);
        hello.busy_for_ms = Some(for_ms);
        self.send(&hello.encode(&mut [0; MAX_CONTROL_LEN]))
    }

    fn send(&mut self, datagram: &[u8]) -> Fallible<()> {
        if self.sent.is_multiple_of(STRIDE) {
            let has_room = |queue: Queue| queue.waiting <= u64::from(RECEIVE_BUFFER.unsigned_abs()) / 2;
            wait_for("room in the queue", || Ok(has_room(Queue::of(self.to)?).then_some(())))?;
        }
        self.socket.send(datagram)?;
        self.sent += 1;
        Ok(())
    }

    /// Waits until the server counts all that was sent, and nothing else.
    pub(crate) fn await_taken(&self, server: &Server) -> Fallible<()> {
        let mut last = None;
        wait_for("counts that balance", || {
            let counts = server.counts("udp")?;
            last = Some(counts);
            Ok((counts.sum() >= self.sent).then_some(()))
        })
        .map_err(|error| format!("{error}: {} were sent, {last:?}", self.sent))?;
        match last {
            Some(counts) if counts.accepted == self.sent && counts.refused + counts.dropped == 0 => Ok(()),
            _ => Err(format!("{} were sent, {last:?}", self.sent).into()),
        }
    }
}
