//! How often the service manager wants to hear that the server works.

use std::ffi::OsStr;
use std::time::Duration;

/// How many keep-alives there are in the time after which the service manager acts: one may be late.
const PER_TIMEOUT: u32 = 3;
/// The least interval. A shorter timeout is none that anybody means.
const MIN_INTERVAL: Duration = Duration::from_millis(10);

/// The interval of keep-alives by `WATCHDOG_USEC` and `WATCHDOG_PID`; `None` when no keep-alive is asked of the
/// process with this pid.
///
/// # Errors
///
/// The variable that is no number.
pub(super) fn interval(
    timeout: Option<&OsStr>,
    of: Option<&OsStr>,
    pid: u32,
) -> Result<Option<Duration>, &'static str> {
    let number = |text: &OsStr| text.to_str().and_then(|text| text.parse::<u64>().ok());
    let Some(timeout) = timeout else { return Ok(None) };
    let timeout = number(timeout).ok_or("WATCHDOG_USEC")?;
    let is_for_this = match of {
        Some(of) => number(of).ok_or("WATCHDOG_PID")? == u64::from(pid),
        None => true,
    };
    let is_wanted = is_for_this && timeout > 0;
    Ok(is_wanted.then(|| (Duration::from_micros(timeout) / PER_TIMEOUT).max(MIN_INTERVAL)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keep_alives_come_three_times_in_the_timeout_if_they_are_asked_of_this_process() {
        let table = [
            (None, None, Ok(None)),
            (Some("3000000"), None, Ok(Some(1_000))),
            (Some("3000000"), Some("7"), Ok(Some(1_000))),
            (Some("3000000"), Some("8"), Ok(None)),
            (None, Some("7"), Ok(None)),
            (Some("0"), Some("7"), Ok(None)),
            (Some("1"), None, Ok(Some(10))),
            (Some("30s"), None, Err("WATCHDOG_USEC")),
            (Some(""), None, Err("WATCHDOG_USEC")),
            (Some("3000000"), Some("x"), Err("WATCHDOG_PID")),
        ];
        for (timeout, of, wanted) in table {
            let told = interval(timeout.map(OsStr::new), of.map(OsStr::new), 7);
            assert_eq!(told, wanted.map(|millis| millis.map(Duration::from_millis)), "{timeout:?} {of:?}");
        }
        let longest = interval(Some(OsStr::new(&u64::MAX.to_string())), None, 7);
        assert!(longest.unwrap().is_some());
    }
}
