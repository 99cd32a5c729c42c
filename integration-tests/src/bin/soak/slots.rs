//! Memory that agents share with the program that commands them: a command for each, and what it did.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use nix::time::{ClockId, clock_gettime};
use varta_integration_tests::sys;

/// What an agent does from its next turn on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    /// It beats.
    Beat,
    /// It beats with the status critical.
    Critical,
    /// It lives, and does not beat.
    Hang,
    /// It exits with this status.
    Exit(u8),
    /// It aborts.
    Abort,
    /// It says goodbye and exits with a status that is no success.
    Goodbye,
    /// It sends what no agent sends, once, and beats on.
    Misbehave,
}

impl Order {
    fn to_word(self) -> u64 {
        match self {
            Order::Beat => 0,
            Order::Critical => 1,
            Order::Hang => 2,
            Order::Abort => 3,
            Order::Goodbye => 4,
            Order::Misbehave => 5,
            Order::Exit(status) => 256 + u64::from(status),
        }
    }

    fn of_word(word: u64) -> Self {
        match word {
            1 => Order::Critical,
            2 => Order::Hang,
            3 => Order::Abort,
            4 => Order::Goodbye,
            5 => Order::Misbehave,
            256.. => Order::Exit(u8::try_from(word - 256).unwrap_or(u8::MAX)),
            _ => Order::Beat,
        }
    }
}

/// A datagram that no agent sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bad {
    /// It is no frame.
    Magic,
    /// It is too short for one.
    Length,
    /// It is a beat of another process.
    Pid,
}

impl Bad {
    pub(crate) const ALL: [Bad; 3] = [Bad::Magic, Bad::Length, Bad::Pid];

    /// The label of the row in which the server counts it.
    pub(crate) const fn outcome(self) -> &'static str {
        match self {
            Bad::Magic => "bad_magic",
            Bad::Length => "bad_length",
            Bad::Pid => "pid_mismatch",
        }
    }
}

/// Datagrams that were begun, and those of them that the kernel took.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Sent {
    pub(crate) attempted: u64,
    pub(crate) taken: u64,
}

impl std::ops::AddAssign for Sent {
    fn add_assign(&mut self, other: Sent) {
        self.attempted += other.attempted;
        self.taken += other.taken;
    }
}

/// The words of a slot.
#[derive(Clone, Copy)]
enum Word {
    Order,
    /// The pid of the process that may begin.
    Pid,
    /// The longest time from one beat to the next that the kernel took, and when the last was, in nanoseconds.
    LongestGap,
    LastSent,
    /// Beats that were begun; the next word has those of them that the kernel took. They are never set back.
    Beats,
    /// The same for each of [`Bad::ALL`], one after the other.
    Bad = Word::Beats as isize + 2,
}

const WORDS: usize = Word::Bad as usize + 2 * Bad::ALL.len();

/// All slots.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Slots(&'static [AtomicU64]);

impl Slots {
    /// Makes so many, which this process shares with all that it forks.
    pub(crate) fn make(count: usize) -> io::Result<Self> {
        sys::shared_words(count * WORDS).map(Slots)
    }

    pub(crate) fn get(self, index: usize) -> Slot {
        Slot(&self.0[index * WORDS..][..WORDS])
    }

    pub(crate) fn count(self) -> usize {
        self.0.len() / WORDS
    }
}

/// The memory of one agent, which its next process takes over.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Slot(&'static [AtomicU64]);

impl Slot {
    fn word(self, word: Word) -> &'static AtomicU64 {
        &self.0[word as usize]
    }

    fn read(self, word: Word) -> u64 {
        self.word(word).load(Ordering::SeqCst)
    }

    fn write(self, word: Word, value: u64) {
        self.word(word).store(value, Ordering::SeqCst);
    }

    /// The words of the account that begins there.
    fn account(self, begin: usize) -> [&'static AtomicU64; 2] {
        [&self.0[begin], &self.0[begin + 1]]
    }

    fn bad_account(self, bad: Bad) -> [&'static AtomicU64; 2] {
        self.account(Word::Bad as usize + 2 * bad as usize)
    }

    // The side that commands.

    /// Clears what the process before has left.
    pub(crate) fn prepare(self) {
        self.order(Order::Beat);
        self.write(Word::LastSent, 0);
        self.forgive();
    }

    pub(crate) fn order(self, order: Order) {
        self.write(Word::Order, order.to_word());
    }

    /// Lets the process begin that has this pid.
    pub(crate) fn release(self, pid: u32) {
        self.write(Word::Pid, pid.into());
    }

    /// The longest time between two beats since the process began, or since [`forgive`](Self::forgive).
    pub(crate) fn longest_gap(self) -> Duration {
        Duration::from_nanos(self.read(Word::LongestGap))
    }

    /// Has gaps up to now not count.
    pub(crate) fn forgive(self) {
        self.write(Word::LongestGap, 0);
    }

    /// The beats.
    pub(crate) fn beats(self) -> Sent {
        read(self.account(Word::Beats as usize))
    }

    /// The datagrams of this kind.
    pub(crate) fn bad(self, bad: Bad) -> Sent {
        read(self.bad_account(bad))
    }

    // The side of the agent.

    pub(crate) fn may_begin(self, pid: u32) -> bool {
        self.read(Word::Pid) == u64::from(pid)
    }

    pub(crate) fn ordered(self) -> Order {
        Order::of_word(self.read(Word::Order))
    }

    /// Sends a beat, and keeps account of it. The gap before it counts before anybody can know of the beat.
    pub(crate) fn beat(self, send: impl FnOnce() -> bool) {
        let now = boot_nanos();
        let last = self.read(Word::LastSent);
        if last > 0 {
            self.word(Word::LongestGap).fetch_max(now.saturating_sub(last), Ordering::SeqCst);
        }
        if count(self.account(Word::Beats as usize), send) {
            self.write(Word::LastSent, now);
        }
    }

    /// Sends something else, and keeps account of it.
    pub(crate) fn misbehave(self, bad: Bad, send: impl FnOnce() -> bool) {
        count(self.bad_account(bad), send);
    }
}

fn read([attempted, taken]: [&AtomicU64; 2]) -> Sent {
    Sent { attempted: attempted.load(Ordering::SeqCst), taken: taken.load(Ordering::SeqCst) }
}

/// Counts what is begun, and if the kernel takes it. Whether it does.
fn count([attempted, taken]: [&AtomicU64; 2], send: impl FnOnce() -> bool) -> bool {
    attempted.fetch_add(1, Ordering::SeqCst);
    let is_taken = send();
    if is_taken {
        taken.fetch_add(1, Ordering::SeqCst);
    }
    is_taken
}

/// The time since the host was booted.
fn boot_nanos() -> u64 {
    let now = clock_gettime(ClockId::CLOCK_BOOTTIME).map(Duration::from);
    u64::try_from(now.unwrap_or_default().as_nanos()).unwrap_or(u64::MAX)
}
