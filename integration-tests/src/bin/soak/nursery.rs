//! The parent of all agents: a process with one thread, which forks them when it is told, and waits for those
//! that have ended only when it is told, so that the kernel keeps how they ended until the server has seen it.

use std::collections::HashSet;
use std::io::{self, BufRead, BufReader, PipeReader, PipeWriter, Write};
use std::process;

use nix::sys::wait::waitpid;
use nix::unistd::Pid;
use varta_integration_tests::sys::{self, Forked, Signal};

use crate::agent::{self, Way};
use crate::slots::Slots;

/// The side of who commands it.
#[derive(Debug)]
pub(crate) struct Nursery {
    orders: PipeWriter,
    answers: BufReader<PipeReader>,
}

impl Nursery {
    /// Forks it. This process must have one thread.
    pub(crate) fn fork(slots: Slots) -> io::Result<Self> {
        let (in_orders, orders) = io::pipe()?;
        let (answers, in_answers) = io::pipe()?;
        match sys::fork()? {
            Forked::Parent(_) => Ok(Nursery { orders, answers: BufReader::new(answers) }),
            Forked::Child => {
                drop((orders, answers));
                let ended = serve(slots, BufReader::new(in_orders), in_answers);
                process::exit(i32::from(ended.is_err()))
            }
        }
    }

    /// Starts an agent and gives its pid. It has not beaten yet, and does not before
    /// [`release`](crate::slots::Slot::release).
    pub(crate) fn start(&mut self, slot: usize, name: &str, way: &Way) -> io::Result<u32> {
        let answer = self.ask(&format!("start {slot} {name} {}", way.to_words()))?;
        answer.parse().map_err(|_| io::Error::other(format!("the parent of agents says {answer}")))
    }

    /// Takes the exit status of an agent that has ended off the kernel.
    pub(crate) fn reap(&mut self, pid: u32) -> io::Result<()> {
        self.ask(&format!("reap {pid}")).map(drop)
    }

    fn ask(&mut self, order: &str) -> io::Result<String> {
        writeln!(self.orders, "{order}")?;
        let mut answer = String::new();
        self.answers.read_line(&mut answer)?;
        match answer.trim_end() {
            "" => Err(io::Error::other("the parent of agents has ended")),
            answer => match answer.strip_prefix("error ") {
                Some(error) => Err(io::Error::other(format!("to {order} the parent of agents says {error}"))),
                None => Ok(answer.to_owned()),
            },
        }
    }
}

/// Obeys until its orders end, and ends all agents then.
fn serve(slots: Slots, orders: impl BufRead, mut answers: PipeWriter) -> io::Result<()> {
    let mut alive = HashSet::new();
    for order in orders.lines() {
        let order = order?;
        let words: Vec<_> = order.split(' ').collect();
        let answer = match words[..] {
            ["start", slot, name, ref way @ ..] => start(slots, slot, name, way),
            ["reap", pid] => reap(pid),
            _ => Err(io::Error::other("what is that?")),
        };
        match answer {
            Ok(Done::Started(pid)) => {
                alive.insert(pid);
                writeln!(answers, "{pid}")?;
            }
            Ok(Done::Reaped(pid)) => {
                alive.remove(&pid);
                writeln!(answers, "reaped")?;
            }
            Err(error) => writeln!(answers, "error {error}")?,
        }
    }
    for pid in alive {
        // It may have ended already.
        let _ = sys::send_signal(pid, Signal::Kill);
    }
    Ok(())
}

enum Done {
    Started(u32),
    Reaped(u32),
}

fn start(slots: Slots, slot: &str, name: &str, way: &[&str]) -> io::Result<Done> {
    let slot = slot.parse().map_err(io::Error::other)?;
    let way = Way::of_words(way).ok_or_else(|| io::Error::other("what way is that?"))?;
    match sys::fork()? {
        Forked::Parent(pid) => Ok(Done::Started(pid)),
        Forked::Child => agent::run(slots.get(slot), name, &way),
    }
}

fn reap(pid: &str) -> io::Result<Done> {
    let pid: u32 = pid.parse().map_err(io::Error::other)?;
    waitpid(Pid::from_raw(pid.cast_signed()), None)?;
    Ok(Done::Reaped(pid))
}
