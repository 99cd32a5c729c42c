//! The ends of a process that count as ordinary.

use std::fmt;
use std::str::FromStr;

use nix::sys::signal::Signal;

use crate::domain::process::ExitStatus;

/// A set of exit statuses and signals: a process that ends by one of them has ended as it should, and its
/// agent is `gone` instead of `down`.
///
/// The default is what service managers call success, and what runtimes make of it that catch the signal: exit
/// status 0, the signals SIGHUP, SIGINT and SIGTERM, and the exit statuses 129, 130 and 143.
///
/// ```
/// use varta_server::config::SuccessExit;
///
/// let recycled = SuccessExit::of(["0", "30", "TERM"])?;
/// assert!(recycled.has_code(30) && recycled.has_signal(15));
/// assert!(!recycled.has_code(143), "a list replaces the default");
/// assert!(SuccessExit::default().has_code(143));
/// # Ok::<(), String>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SuccessExit {
    /// One bit for each exit status.
    codes: [u64; 4],
    /// One bit for each signal.
    signals: u128,
}

/// One member of a [`SuccessExit`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum OrdinaryEnd {
    /// An exit status.
    Code(u8),
    /// A signal that ends the process.
    Signal(u8),
}

impl SuccessExit {
    /// No end at all, not even exit status 0.
    pub const NONE: SuccessExit = SuccessExit { codes: [0; 4], signals: 0 };

    /// The set of these exit statuses and signals, as text.
    ///
    /// # Errors
    ///
    /// The first text that is neither an exit status from 0 to 255 nor the name of a signal.
    pub fn of<'t>(ends: impl IntoIterator<Item = &'t str>) -> Result<Self, String> {
        let mut set = SuccessExit::NONE;
        for end in ends {
            set.add(end.parse()?);
        }
        Ok(set)
    }

    /// Adds an end.
    pub const fn add(&mut self, end: OrdinaryEnd) {
        match end {
            OrdinaryEnd::Code(code) => self.codes[code as usize / 64] |= 1 << (code % 64),
            OrdinaryEnd::Signal(signal) => self.signals |= 1 << (signal % 128),
        }
    }

    /// Whether this exit status is in the set.
    #[must_use]
    pub const fn has_code(&self, code: u8) -> bool {
        self.codes[code as usize / 64] >> (code % 64) & 1 == 1
    }

    /// Whether this signal is in the set.
    #[must_use]
    pub const fn has_signal(&self, signal: u8) -> bool {
        self.signals >> (signal % 128) & 1 == 1
    }

    /// Whether a process that ended so has ended as it should. An end of which nothing is known has not, and
    /// neither has one with a core dump.
    #[must_use]
    pub const fn contains(&self, end: ExitStatus) -> bool {
        match end {
            ExitStatus::Exited { code } => self.has_code(code),
            ExitStatus::Killed { signal, core_dumped } => !core_dumped && self.has_signal(signal),
            ExitStatus::Unknown => false,
        }
    }
}

impl Default for SuccessExit {
    fn default() -> Self {
        let mut set = SuccessExit::NONE;
        set.add(OrdinaryEnd::Code(0));
        for signal in [Signal::SIGHUP, Signal::SIGINT, Signal::SIGTERM] {
            let signal = signal as u8;
            set.add(OrdinaryEnd::Signal(signal));
            // What a program exits with that catches the signal, by the convention of shells.
            set.add(OrdinaryEnd::Code(128 + signal));
        }
        set
    }
}

/// `30`, `SIGTERM` or `TERM`.
impl FromStr for OrdinaryEnd {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let fault = || {
            format!(
                "`{}` is neither an exit status from 0 to 255 nor the name of a signal",
                text.escape_debug()
            )
        };
        if text.starts_with(|first: char| first.is_ascii_digit()) {
            return text.parse().map(OrdinaryEnd::Code).map_err(|_| fault());
        }
        let name = if text.starts_with("SIG") { text.to_owned() } else { format!("SIG{text}") };
        let signal = Signal::from_str(&name).map_err(|_| fault())?;
        Ok(OrdinaryEnd::Signal(signal as u8))
    }
}

impl fmt::Display for OrdinaryEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            OrdinaryEnd::Code(code) => write!(f, "{code}"),
            OrdinaryEnd::Signal(signal) => f.write_str(&super::signal_name(*signal)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn killed(signal: u8) -> ExitStatus {
        ExitStatus::Killed { signal, core_dumped: false }
    }

    #[test]
    fn by_default_a_request_to_end_is_ordinary_and_a_crash_is_not() {
        let set = SuccessExit::default();
        for code in 0..=u8::MAX {
            let is_ordinary = [0, 129, 130, 143].contains(&code);
            assert_eq!(set.contains(ExitStatus::Exited { code }), is_ordinary, "{code}");
        }
        for signal in 1..=64 {
            assert_eq!(set.contains(killed(signal)), [1, 2, 15].contains(&signal), "{signal}");
        }
        assert!(!set.contains(ExitStatus::Unknown));
        assert!(!set.contains(ExitStatus::Killed { signal: 15, core_dumped: true }));
    }

    #[test]
    fn a_list_says_all_that_is_ordinary() {
        let set = SuccessExit::of(["0", "30", "255", "SIGUSR1", "TERM"]).unwrap();
        assert!([0, 30, 255].into_iter().all(|code| set.has_code(code)) && !set.has_code(143));
        assert!(set.contains(killed(10)) && set.contains(killed(15)) && !set.contains(killed(2)));
        assert_eq!(SuccessExit::of([]), Ok(SuccessExit::NONE));
    }

    #[test]
    fn what_is_no_end_is_refused_by_name() {
        for wrong in ["256", "-1", "", "SIG", "SIGNOTHING", "term", "0x1", "1.0"] {
            let fault = wrong.parse::<OrdinaryEnd>().unwrap_err();
            assert_eq!(
                fault,
                format!("`{wrong}` is neither an exit status from 0 to 255 nor the name of a signal")
            );
        }
    }
}
