//! Pressure: the share of time in which something waited for CPU, memory or I/O (the kernel's PSI files).

use std::fmt;

/// A share in hundredths of a percent, from 0 to 100 %.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Share(u16);

impl Share {
    /// In percent.
    #[must_use]
    pub fn percent(self) -> f32 {
        f32::from(self.0) / 100.0
    }

    /// Reads `12.34`; `None` for anything else, and for more than 100.
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

/// How short one resource was in the last ten seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stall {
    /// The share of time in which at least one task waited for it.
    pub some: Share,
    /// The share of time in which all tasks that had work waited for it. Always 0 for a host's CPU.
    pub full: Share,
}

impl Stall {
    /// Parses a `pressure` file; `None` when it has no line `some`. An old kernel has no line `full` for CPU.
    fn parse(file: &[u8]) -> Option<Self> {
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

/// How short a cgroup or the host was of what a process needs; `None` where the kernel does not say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pressure {
    /// Waiting for a CPU.
    pub cpu: Option<Stall>,
    /// Waiting for memory to be freed or read back.
    pub memory: Option<Stall>,
    /// Waiting for I/O.
    pub io: Option<Stall>,
}

impl Pressure {
    /// Reads what there is, through a function that reads the file for a resource.
    pub(super) fn read(mut file: impl FnMut(&str, &mut [u8]) -> Option<usize>) -> Self {
        let mut stall = |resource: &str| {
            // Two lines of about seventy characters.
            let mut room = [0; 512];
            let length = file(resource, &mut room)?;
            Stall::parse(&room[..length])
        };
        Pressure { cpu: stall("cpu"), memory: stall("memory"), io: stall("io") }
    }

    /// Whether the kernel says anything.
    #[must_use]
    pub fn is_known(&self) -> bool {
        self.cpu.is_some() || self.memory.is_some() || self.io.is_some()
    }
}

/// `cpu 9.3 %, memory 0.0 %, io 0.2 %`: what some task waited.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pressure_files_are_read_as_the_kernel_writes_them() {
        let stall = |some, full| Some(Stall { some: Share(some), full: Share(full) });
        let table: [(&[u8], _); 9] = [
            (b"some avg10=9.33 avg60=26.30 avg300=19.46 total=1559017061\nfull avg10=0.00 avg60=0.00 total=0\n", stall(933, 0)),
            (b"some avg10=100.00 avg60=1.00 total=1\nfull avg10=99.99 avg60=0.00 total=0\n", stall(10_000, 9_999)),
            (b"some avg10=0.22 avg60=0.27 avg300=0.20 total=57384460\n", stall(22, 0)),
            (b"some avg10=100.01 total=1\n", None),
            (b"some avg10=-1.00 total=1\n", None),
            (b"some avg10=99999999999999999999.00\n", None),
            (b"full avg10=1.00 total=1\n", None),
            (b"some avg10=\xff\n", None),
            (b"", None),
        ];
        for (file, expected) in table {
            assert_eq!(Stall::parse(file), expected, "{}", String::from_utf8_lossy(file));
        }
    }

    #[test]
    fn what_is_not_known_is_not_shown() {
        let pressure =
            Pressure { memory: Some(Stall { some: Share(1234), ..Stall::default() }), ..Pressure::default() };
        assert_eq!(pressure.to_string(), "memory 12.3 %");
        assert!(pressure.is_known());
        assert!(!Pressure::default().is_known());
    }
}
