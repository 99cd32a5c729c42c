//! The scope within which a pid and a start time identify a process: one boot of the host, one PID namespace,
//! and one offset of the boot clock. Persisted pids are valid only if the first two are the same as now.
//!
//! The kernel reports start times by the boot clock of the reader's time namespace. A server that comes back
//! in another one reads other start times of the same processes; by the offsets of both they are compared.

use std::fs;
use std::num::NonZeroU64;
use std::time::Duration;

use nix::unistd::{SysconfVar, sysconf};

use crate::observe::identify::exists;
use crate::observe::stat::Stat;

const NANOS: i128 = 1_000_000_000;

/// The boot id and the namespaces of this process, as the kernel names them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Boot {
    /// `/proc/sys/kernel/random/boot_id`.
    pub(crate) id: String,
    /// The target of the link `/proc/self/ns/pid`.
    pub(crate) namespace: String,
    /// How far the boot clock of this time namespace is ahead of the host's, in nanoseconds; `None` where it
    /// is not known.
    pub(crate) clock_offset: Option<i64>,
}

/// What is to be found of a process whose pid and start time were persisted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Remains {
    /// It exists; its start time is this one here.
    Lives(NonZeroU64),
    /// It has ended. Its parent may not have reaped it yet.
    Ended,
    /// A process has the pid, and whether it is this one cannot be told.
    Unknown,
}

impl Boot {
    /// The present boot and namespaces; `None` where they cannot be read.
    pub(crate) fn this() -> Option<Self> {
        let id = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?.trim().to_owned();
        let namespace = fs::read_link("/proc/self/ns/pid").ok()?.to_str()?.to_owned();
        Some(Boot { id, namespace, clock_offset: clock_offset() })
    }

    /// Parses what `Display` writes, also what it wrote without an offset.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (id, rest) = text.split_once(' ')?;
        let (namespace, offset) = rest.split_once(' ').unwrap_or((rest, ""));
        Some(Boot { id: id.to_owned(), namespace: namespace.to_owned(), clock_offset: offset.parse().ok() })
    }

    /// What `CLOCK_BOOTTIME` of the host says while that of this process says `boot_time`; `None` where that
    /// is not known.
    pub(crate) fn host_time(&self, boot_time: Duration) -> Option<Duration> {
        let nanos = i128::try_from(boot_time.as_nanos()).ok()? - i128::from(self.clock_offset?);
        Some(Duration::from_nanos(u64::try_from(nanos).ok()?))
    }

    /// Looks for a process that had this start time in `then`: the same boot and the same PID namespace, and
    /// perhaps another time namespace.
    pub(crate) fn look_for(&self, then: &Boot, pid: u32, start_time: NonZeroU64) -> Remains {
        let Some(found) = Stat::of_thread(pid, pid) else {
            // Out of descriptors, or not to be read by this user.
            return if exists(pid) { Remains::Unknown } else { Remains::Ended };
        };
        match self.is_same_start(found.start_time, then, start_time) {
            Some(true) if !found.is_dead() => Remains::Lives(found.start_time),
            Some(_) => Remains::Ended,
            None => Remains::Unknown,
        }
    }

    /// Whether the start time `here` is that which was read as `there` in the time namespace of `then`;
    /// `None` where the offsets are not known.
    fn is_same_start(&self, here: NonZeroU64, then: &Boot, there: NonZeroU64) -> Option<bool> {
        let shift = i128::from(self.clock_offset?) - i128::from(then.clock_offset?);
        let tick = NANOS / ticks_per_second();
        // Both were rounded down to whole ticks, after the offset was added.
        let from = i128::from(there.get()) + shift.div_euclid(tick);
        let to = from + i128::from(shift.rem_euclid(tick) != 0);
        Some((from..=to).contains(&i128::from(here.get())))
    }
}

/// Boot id, PID namespace and offset, separated by spaces.
impl std::fmt::Display for Boot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.id, self.namespace)?;
        self.clock_offset.map_or(Ok(()), |offset| write!(f, " {offset}"))
    }
}

/// The offset of this process's time namespace to the host's boot clock.
fn clock_offset() -> Option<i64> {
    let namespace = |name: &str| fs::read_link(format!("/proc/self/ns/{name}")).ok();
    let Some(own) = namespace("time") else {
        // A kernel without time namespaces has no offsets.
        return Some(0);
    };
    // The file has the offsets of the namespace for children, which is this one except between unshare(2) and
    // exec(2).
    let is_own = namespace("time_for_children") == Some(own);
    let offsets = fs::read_to_string("/proc/self/timens_offsets").ok().filter(|_| is_own)?;
    parse_offset(&offsets)
}

/// Finds the offset of the boot clock in nanoseconds.
fn parse_offset(offsets: &str) -> Option<i64> {
    let line = offsets.lines().find_map(|line| line.trim_start().strip_prefix("boottime"))?;
    let mut numbers = line.split_ascii_whitespace().map(str::parse::<i64>);
    let (seconds, nanos) = (numbers.next()?.ok()?, numbers.next()?.ok()?);
    seconds.checked_mul(1_000_000_000)?.checked_add(nanos)
}

/// The unit of start times.
fn ticks_per_second() -> i128 {
    let ticks = sysconf(SysconfVar::CLK_TCK).ok().flatten();
    ticks.map(i128::from).filter(|ticks| *ticks > 0).unwrap_or(100)
}

/// Whether the process with this pid and start time still exists, if only as a zombie.
pub(crate) fn is_there(pid: u32, start_time: NonZeroU64) -> bool {
    Stat::of_thread(pid, pid).is_some_and(|stat| stat.start_time == start_time)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::identify::start_time;
    use crate::observe::testing::{Child, await_that};

    fn ahead(nanos: Option<i64>) -> Boot {
        Boot { clock_offset: nanos, ..Boot::this().unwrap() }
    }

    fn ticks(ticks: u64) -> NonZeroU64 {
        NonZeroU64::new(ticks).unwrap()
    }

    #[test]
    fn a_boot_is_read_as_it_was_written() {
        let boot = Boot::this().unwrap();
        for clock_offset in [boot.clock_offset, Some(i64::MIN), Some(7), None] {
            let boot = ahead(clock_offset);
            assert_eq!(Boot::parse(&boot.to_string()), Some(boot));
        }
    }

    #[test]
    fn the_offset_of_the_boot_clock_is_read() {
        let usual = "monotonic           0         0\nboottime            0         0\n";
        assert_eq!(parse_offset(usual), Some(0));
        assert_eq!(parse_offset("monotonic 5 0\nboottime 86400 250000000\n"), Some(86_400_250_000_000));
        assert_eq!(parse_offset("boottime -3 999999999\n"), Some(-2_000_000_001));
        for senseless in ["", "monotonic 0 0\n", "boottime\n", "boottime 1\n", "boottime 9999999999999 0\n"] {
            assert_eq!(parse_offset(senseless), None, "{senseless}");
        }
    }

    #[test]
    fn a_start_time_is_known_again_in_another_time_namespace() {
        let same = |here, there, here_ticks, there_ticks| {
            ahead(Some(here)).is_same_start(ticks(here_ticks), &ahead(Some(there)), ticks(there_ticks))
        };
        assert_eq!(same(0, 0, 500, 500), Some(true));
        assert_eq!(same(0, 0, 501, 500), Some(false));
        // A day ahead, and back.
        assert_eq!(same(86_400_000_000_000, 0, 8_640_500, 500), Some(true));
        assert_eq!(same(86_400_000_000_000, 0, 500, 500), Some(false));
        assert_eq!(same(0, 86_400_000_000_000, 500, 8_640_500), Some(true));
        // An offset that is no whole tick rounds to one of two.
        for (here, is_same) in [(499, false), (500, true), (501, true), (502, false)] {
            assert_eq!(same(1, 0, here, 500), Some(is_same), "{here}");
        }
        for (here, is_same) in [(498, false), (499, true), (500, true), (501, false)] {
            assert_eq!(same(-1, 0, here, 500), Some(is_same), "{here}");
        }
        assert_eq!(ahead(None).is_same_start(ticks(1), &ahead(Some(0)), ticks(1)), None);
        assert_eq!(ahead(Some(0)).is_same_start(ticks(1), &ahead(None), ticks(1)), None);
    }

    #[test]
    fn the_hosts_clock_is_that_of_this_process_without_its_offset() {
        let seconds = Duration::from_secs;
        assert_eq!(ahead(Some(100_000_000_000)).host_time(seconds(150)), Some(seconds(50)));
        assert_eq!(ahead(Some(-100_000_000_000)).host_time(seconds(150)), Some(seconds(250)));
        assert_eq!(ahead(None).host_time(seconds(150)), None);
        assert_eq!(ahead(Some(i64::MAX)).host_time(seconds(150)), None);
    }

    #[test]
    fn what_remains_of_a_process_is_told_from_another_and_from_what_is_not_known() {
        let mut child = Child::shell("read line");
        let boot = Boot::this().unwrap();
        let started = start_time(child.pid()).unwrap();
        let look = |start_time| boot.look_for(&boot, child.pid(), start_time);
        assert_eq!(look(started), Remains::Lives(started));
        assert_eq!(look(ticks(started.get() + 1)), Remains::Ended, "another has its pid");
        assert_eq!(boot.look_for(&ahead(None), child.pid(), started), Remains::Unknown);
        child.close_input();
        await_that("it is dead", || boot.look_for(&boot, child.pid(), started) == Remains::Ended);
        child.reap();
        assert_eq!(boot.look_for(&ahead(None), child.pid(), started), Remains::Ended);
    }
}
