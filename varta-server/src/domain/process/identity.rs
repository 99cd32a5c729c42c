//! The identity of a local process beyond its pid, and the trait that looks it up.
//!
//! The kernel reuses pids; the start time distinguishes one process life from the next.

use std::num::NonZeroU64;

use serde::{Deserialize, Serialize};

use crate::domain::process::{ExitStatus, ProcessPlace};

/// The identity of a process beyond its pid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProcessIdentity {
    /// The start time, in the kernel's ticks since boot. Together with the pid it identifies one process
    /// life.
    pub start_time: NonZeroU64,
    /// Tells it from another process that had the same pid and was started in the same tick.
    pub tag: PidfdTag,
    /// The name of the process, its unit or its container.
    pub name: String,
    /// Whether the name is that of its unit or container and not of its command, so that a successor of the
    /// process has the same name and a stranger has not.
    pub is_group: bool,
    /// Whether the name is that of a unit that this host's service manager knows.
    pub is_unit: bool,
    /// Where it runs; `None` in the root of the cgroups, and where that cannot be read.
    pub place: Option<ProcessPlace>,
    /// What it has in common with a process that takes its place.
    pub lineage: Lineage,
    /// Whether it has ended, and its parent has not asked for its status yet.
    pub has_ended: bool,
}

impl ProcessIdentity {
    /// A living process that is known by its command's name and nothing else.
    #[must_use]
    pub fn of_command(start_time: NonZeroU64, name: String) -> Self {
        ProcessIdentity {
            start_time,
            tag: PidfdTag::UNKNOWN,
            name,
            is_group: false,
            is_unit: false,
            place: None,
            lineage: Lineage::default(),
            has_ended: false,
        }
    }
}

/// What a process has in common with the one that takes its place, as far as it could be read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lineage {
    /// A hash of its command line and its working directory; 0 where that is unknown.
    pub command: u32,
}

impl Lineage {
    /// Whether both were started by the same command in the same directory.
    #[must_use]
    pub const fn has_same_command(self, other: Lineage) -> bool {
        self.command != 0 && self.command == other.command
    }
}

/// Looks up which process has a pid on this host.
pub trait Processes {
    /// The process that has `pid` now; `None` when there is none or it may not be seen.
    ///
    /// `Some` only of a process that exists: failing to read it, as without descriptors, is no evidence.
    ///
    /// Called on an agent's first beat, on a frame that fits none of its sessions and on a beat after a
    /// silence: never for an ordinary beat.
    fn identify(&mut self, pid: u32) -> Option<ProcessIdentity>;

    /// The processes whose end is known and has not been handled yet, if only because it is not known how they
    /// ended, so that a newcomer is recognised as the successor of one of them. Called on the first beat of an
    /// agent.
    fn ended(&mut self) -> Vec<EndedProcess> {
        Vec::new()
    }
}

/// A process that has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EndedProcess {
    /// Its pid.
    pub pid: u32,
    /// The process; `None` if it could not be identified, because `/proc` hides it.
    pub process: Option<ProcessId>,
    /// How it ended.
    pub death: ExitStatus,
    /// What it has in common with its successor.
    pub lineage: Lineage,
}

/// A local process, as requests of the tracker and the replies to them name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ProcessId {
    /// The process id.
    pub pid: u32,
    /// The start time, in the kernel's ticks since boot.
    pub start_time: NonZeroU64,
    /// Tells it from another process that had the same pid and was started in the same tick.
    pub tag: PidfdTag,
}

impl ProcessId {
    /// A process of which nothing else is known.
    #[must_use]
    pub const fn new(pid: u32, start_time: NonZeroU64) -> Self {
        ProcessId { pid, start_time, tag: PidfdTag::UNKNOWN }
    }

    /// Whether this and the other are one process, as far as is known.
    #[must_use]
    pub fn may_be(self, other: ProcessId) -> bool {
        (self.pid, self.start_time) == (other.pid, other.start_time) && self.tag.may_be(other.tag)
    }
}

/// The low 16 bits of the inode number of a process's pidfd, which no two processes of a boot share; unknown where
/// the kernel has no such numbers (before Linux 6.9).
///
/// It only has to tell apart processes that were started in one tick of the clock, which is ten milliseconds, and
/// the kernel counts the numbers up: 16 bits do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PidfdTag(u16);

impl PidfdTag {
    /// The tag of a process whose inode number is not known.
    pub const UNKNOWN: PidfdTag = PidfdTag(0);

    /// The tag of the process with this inode number. One whose low bits are 0 counts as not known.
    #[must_use]
    pub const fn of_inode(number: u64) -> Self {
        let [low, high, ..] = number.to_le_bytes();
        PidfdTag(u16::from_le_bytes([low, high]))
    }

    /// The tag as a number; 0 for an unknown one.
    #[must_use]
    pub const fn number(self) -> u16 {
        self.0
    }

    /// Whether both may be tags of one process: they are equal, or one is not known.
    #[must_use]
    pub fn may_be(self, other: PidfdTag) -> bool {
        self == other || self == PidfdTag::UNKNOWN || other == PidfdTag::UNKNOWN
    }
}

/// When a process was started, and its tag, in eight bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ProcessStart(NonZeroU64);

impl ProcessStart {
    /// The bits of the time: ticks of nearly ninety thousand years.
    const TIME: u64 = (1 << 48) - 1;

    /// A time that is too late for its bits is cut to the latest one.
    pub(crate) fn new(start_time: NonZeroU64, tag: PidfdTag) -> Self {
        let time = start_time.get().min(Self::TIME);
        ProcessStart(NonZeroU64::new(time | u64::from(tag.0) << 48).unwrap_or(NonZeroU64::MIN))
    }

    /// In ticks since boot.
    pub(crate) fn time(self) -> NonZeroU64 {
        NonZeroU64::new(self.0.get() & Self::TIME).unwrap_or(NonZeroU64::MIN)
    }

    pub(crate) fn tag(self) -> PidfdTag {
        let [.., low, high] = self.0.get().to_le_bytes();
        PidfdTag(u16::from_le_bytes([low, high]))
    }

    /// Whether two processes with one pid are one, as far as is known.
    pub(crate) fn may_be(self, other: ProcessStart) -> bool {
        self.time() == other.time() && self.tag().may_be(other.tag())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_start_holds_its_time_and_its_tag() {
        let ticks = |ticks: u64| NonZeroU64::new(ticks).unwrap();
        for inode in [0, 1, 0xffff, 0x1_0000, 0x12_3456, u64::MAX] {
            for time in [1, 77, (1 << 48) - 1] {
                let start = ProcessStart::new(ticks(time), PidfdTag::of_inode(inode));
                assert_eq!((start.time(), u64::from(start.tag().number())), (ticks(time), inode & 0xffff));
            }
        }
        assert_eq!(ProcessStart::new(NonZeroU64::MAX, PidfdTag::UNKNOWN).time(), ticks((1 << 48) - 1));
    }

    #[test]
    fn who_started_in_one_tick_is_told_apart_by_known_tags_only() {
        let process = |start: u64, tag| ProcessId {
            tag: PidfdTag(tag),
            ..ProcessId::new(7, NonZeroU64::new(start).unwrap())
        };
        let may_be = |(start, tag), (other, other_tag)| {
            let [one, other] = [process(start, tag), process(other, other_tag)];
            let starts = [one, other].map(|process| ProcessStart::new(process.start_time, process.tag));
            assert_eq!(one.may_be(other), starts[0].may_be(starts[1]));
            one.may_be(other)
        };
        assert!(may_be((1, 5), (1, 5)) && may_be((1, 0), (1, 5)) && may_be((1, 5), (1, 0)));
        assert!(!may_be((1, 5), (1, 6)) && !may_be((1, 5), (2, 5)) && !may_be((1, 0), (2, 0)));
    }
}
