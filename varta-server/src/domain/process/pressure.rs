//! Pressure stall information (PSI): how much of the time tasks waited for CPU, memory and I/O.
//!
//! The format of the files is that of the kernel's `Documentation/accounting/psi.rst`.

use std::fmt;

/// A share in hundredths of a percent, from 0 to 100 %.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Share(pub(crate) u16);

impl Share {
    /// The share in percent.
    #[must_use]
    pub fn percent(self) -> f32 {
        f32::from(self.0) / 100.0
    }

    /// Parses `12.34`; `None` for any other format and for more than 100.
    fn parse(text: &str) -> Option<Self> {
        let (whole, hundredths) = text.split_once('.')?;
        let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        if !is_number(whole) || !is_number(hundredths) || hundredths.len() != 2 {
            return None;
        }
        let whole: u16 = whole.parse().ok()?;
        let share = whole.checked_mul(100)?.checked_add(hundredths.parse().ok()?)?;
        (share <= 10_000).then_some(Share(share))
    }
}

/// `12.3 %`.
impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.1} %", self.percent())
    }
}

/// How much tasks waited for one resource in the last ten seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stall {
    /// The share of time in which at least one task waited for the resource.
    pub some: Share,
    /// The share of time in which all tasks that had work waited for it. Always 0 for a host's CPU.
    pub full: Share,
}

impl Stall {
    /// Parses a `pressure` file; `None` when it has no line `some`. An old kernel has no line `full` for CPU.
    pub(crate) fn parse(file: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(file).ok()?;
        let average = |kind: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(kind))?;
            line.split_ascii_whitespace()
                .find_map(|field| field.strip_prefix("avg10="))
                .and_then(Share::parse)
        };
        Some(Stall { some: average("some ")?, full: average("full ").unwrap_or_default() })
    }
}

/// The pressure on a cgroup or on the host; `None` where the kernel does not report it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pressure {
    /// Tasks wait for a CPU.
    pub cpu: Option<Stall>,
    /// Tasks wait for memory to be freed or read back.
    pub memory: Option<Stall>,
    /// Tasks wait for I/O.
    pub io: Option<Stall>,
}

impl Pressure {
    /// Whether the kernel reports any pressure.
    #[must_use]
    pub fn is_known(&self) -> bool {
        self.cpu.is_some() || self.memory.is_some() || self.io.is_some()
    }
}

/// `cpu 9.3 %, memory 0.0 %, io 0.2 %`: the shares in which some task waited.
impl fmt::Display for Pressure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        for (name, stall) in [("cpu", self.cpu), ("memory", self.memory), ("io", self.io)] {
            if let Some(stall) = stall {
                write!(f, "{separator}{name} {}", stall.some)?;
                separator = ", ";
            }
        }
        Ok(())
    }
}
