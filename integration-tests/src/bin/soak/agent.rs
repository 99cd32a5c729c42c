//! One agent: a process that beats by the SDK and does what its slot orders.

use std::net::SocketAddr;
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::parent_id;
use std::path::{Path, PathBuf};
use std::process;
use std::thread;
use std::time::Duration;

use varta_agent::{BeatOutcome, BeatTransport, GoodbyeReason, Key, Status, Varta};
use varta_proto::{FRAME_LEN, Frame};

use crate::slots::{Bad, Order, Slot};

/// How often an agent beats.
pub(crate) const INTERVAL: Duration = Duration::from_millis(500);
/// How long it waits to be let begin, each time.
const SOON: Duration = Duration::from_millis(5);
/// The exit status after a goodbye, by which any is good.
const AFTER_GOODBYE: i32 = 9;
/// The same where the kernel has refused the goodbye: the agent is gone all the same.
const UNHEARD_GOODBYE: i32 = 0;
/// Exit statuses of an agent that cannot do what it is there for.
const CANNOT_CONNECT: i32 = 90;
const IS_AN_ORPHAN: i32 = 91;

/// The way of an agent's beats.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    Unix(PathBuf),
    Shm(PathBuf),
    SecureUdp(SocketAddr, PathBuf),
}

impl Way {
    /// Whether the server sees the process, and not only its beats.
    pub(crate) fn is_local(&self) -> bool {
        !matches!(self, Way::SecureUdp(..))
    }

    pub(crate) fn to_words(&self) -> String {
        match self {
            Way::Unix(path) => format!("unix {}", path.display()),
            Way::Shm(path) => format!("shm {}", path.display()),
            Way::SecureUdp(address, key) => format!("secure_udp {address} {}", key.display()),
        }
    }

    pub(crate) fn of_words(words: &[&str]) -> Option<Self> {
        Some(match words {
            ["unix", path] => Way::Unix(path.into()),
            ["shm", path] => Way::Shm(path.into()),
            ["secure_udp", address, key] => Way::SecureUdp(address.parse().ok()?, key.into()),
            _ => return None,
        })
    }
}

/// Lives until it is ordered to end, or its parent ends.
pub(crate) fn run(slot: Slot, name: &str, way: &Way) -> ! {
    let parent = parent_id();
    while !slot.may_begin(process::id()) {
        exit_if_orphaned(parent);
        thread::sleep(SOON);
    }
    match way {
        Way::Unix(path) => {
            live(slot, parent, Some(path), connect(|| Varta::builder().name(name).socket(path).connect()))
        }
        Way::Shm(path) => live(
            slot,
            parent,
            Some(path),
            connect(|| Varta::builder().name(name).socket(path).shm().connect()),
        ),
        Way::SecureUdp(address, key) => live(
            slot,
            parent,
            None,
            connect(|| {
                let key = Key::from_file(key).map_err(std::io::Error::other)?;
                Varta::builder().name(name).secure_udp(*address, key).connect()
            }),
        ),
    }
}

fn connect<T>(connect: impl FnOnce() -> std::io::Result<T>) -> T {
    connect().unwrap_or_else(|_| process::exit(CANNOT_CONNECT))
}

fn exit_if_orphaned(parent: u32) {
    if parent_id() != parent {
        process::exit(IS_AN_ORPHAN);
    }
}

fn live<T: BeatTransport>(slot: Slot, parent: u32, socket: Option<&Path>, mut handle: Varta<T>) -> ! {
    let mut turn: u32 = 0;
    let mut last = Order::Beat;
    loop {
        exit_if_orphaned(parent);
        turn = turn.wrapping_add(1);
        let order = slot.ordered();
        let mut beat = |status| slot.beat(|| handle.beat(status, turn) == BeatOutcome::Sent);
        match order {
            Order::Beat => beat(Status::Ok),
            Order::Critical => beat(Status::Critical),
            Order::Hang => {}
            Order::Misbehave => {
                beat(Status::Ok);
                if last != order {
                    misbehave(slot, socket);
                }
            }
            Order::Exit(status) => process::exit(status.into()),
            Order::Abort => process::abort(),
            Order::Goodbye => {
                let mut is_sent = false;
                slot.beat(|| {
                    is_sent = handle.close(GoodbyeReason::Shutdown) == BeatOutcome::Sent;
                    is_sent
                });
                process::exit(if is_sent { AFTER_GOODBYE } else { UNHEARD_GOODBYE })
            }
        }
        last = order;
        thread::sleep(INTERVAL);
    }
}

/// Sends three datagrams of which the server takes none: no frame, one that is not whole, and a beat of the
/// first process of the host.
fn misbehave(slot: Slot, socket: Option<&Path>) {
    let (Some(path), Ok(own)) = (socket, UnixDatagram::unbound()) else { return };
    let _ = own.set_nonblocking(true);
    let mut of_another = [0; FRAME_LEN];
    Frame::new(Status::Ok, 2, u64::MAX / 2, 1, 0).encode(&mut of_another);
    for bad in Bad::ALL {
        let datagram = match bad {
            Bad::Magic => &[0; FRAME_LEN][..],
            Bad::Length => &[1; 9],
            Bad::Pid => &of_another,
        };
        slot.misbehave(bad, || own.send_to(datagram, path).is_ok());
    }
}
