//! How starved the host may be while recovery acts.
//!
//! On a host that swaps without end, or whose disk keeps everybody waiting, many agents fall silent and none of them is
//! at fault: to restart them costs what is missing, and makes it worse. The kernel measures it as pressure stall
//! information (PSI).

use std::fmt;
use std::str::FromStr;

use crate::domain::process::{Pressure, Share};
use crate::services::recovery::job::Refusal;

/// The resources, as the kernel names them, in the order in which they are written.
const RESOURCES: [&str; 3] = ["cpu", "memory", "io"];

/// The largest shares of the last ten seconds, in percent, in which all tasks that had work may have waited for memory
/// or for I/O, or any of them for a CPU, for which the kernel does not measure that all wait; written as
/// `memory=20,io=80`. What is not named has no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PressureLimits([Option<u8>; RESOURCES.len()]);

impl PressureLimits {
    /// The default.
    pub const DEFAULT: Self = PressureLimits([None, Some(20), Some(80)]);
    /// No limit.
    const NONE: &str = "none";

    /// The reason to hold back at this pressure; `None` if there is none, or the kernel reports no pressure.
    pub(super) fn refusal(self, pressure: &Pressure) -> Option<Refusal> {
        let shares = [
            pressure.cpu.map(|stall| stall.some),
            pressure.memory.map(|stall| stall.full),
            pressure.io.map(|stall| stall.full),
        ];
        let is_over = |(limit, share): (Option<u8>, Option<Share>)| {
            limit.zip(share).is_some_and(|(limit, share)| share.percent() > f32::from(limit))
        };
        self.0.into_iter().zip(shares).any(is_over).then_some(Refusal::HostPressure)
    }
}

/// Parses `memory=20,io=80`, or `none`.
impl FromStr for PressureLimits {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const FAULT: &str = "is not RESOURCE=PERCENT, as in memory=20,io=80, of cpu, memory and io, each once, and 1 to 100; or none";
        let mut limits = Self::default();
        if text == Self::NONE {
            return Ok(limits);
        }
        for part in text.split(',') {
            let (resource, percent) = part.trim().split_once('=').ok_or(FAULT)?;
            let place = RESOURCES.iter().position(|known| *known == resource).ok_or(FAULT)?;
            let percent = percent.parse().ok().filter(|percent| (1..=100).contains(percent)).ok_or(FAULT)?;
            if limits.0[place].replace(percent).is_some() {
                return Err(FAULT);
            }
        }
        Ok(limits)
    }
}

impl fmt::Display for PressureLimits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        for (resource, limit) in RESOURCES.iter().zip(self.0) {
            if let Some(limit) = limit {
                write!(f, "{separator}{resource}={limit}")?;
                separator = ",";
            }
        }
        if separator.is_empty() { f.write_str(Self::NONE) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::process::Stall;

    #[test]
    fn limits_read_as_they_are_written() {
        for text in ["memory=20,io=80", "cpu=100", "cpu=1,memory=2,io=3", "none"] {
            assert_eq!(text.parse::<PressureLimits>().unwrap().to_string(), text);
        }
        assert_eq!("io=80, memory=20".parse::<PressureLimits>().unwrap().to_string(), "memory=20,io=80");
        for wrong in ["", "memory", "memory=", "memory=0", "memory=101", "disk=5", "io=5,io=6", "io=5,", "-"]
        {
            assert!(wrong.parse::<PressureLimits>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_holds_it_back_is_that_all_wait_and_for_a_cpu_that_any_does() {
        let limits: PressureLimits = "cpu=90,memory=20".parse().unwrap();
        let stall = |some, full| Some(Stall { some: Share(some), full: Share(full) });
        let host = |cpu, memory, io| limits.refusal(&Pressure { cpu, memory, io }).is_some();
        assert!(!host(None, None, None), "the kernel says nothing");
        assert!(!host(stall(9_000, 0), stall(10_000, 2_000), stall(10_000, 10_000)));
        assert!(host(stall(9_001, 0), None, None));
        assert!(host(None, stall(2_001, 2_001), None));
        let all = Pressure { cpu: stall(10_000, 0), memory: stall(10_000, 10_000), io: None };
        assert_eq!(PressureLimits::default().refusal(&all), None);
    }
}
