//! What the kernel knows of a process of this host.

use std::fs::File;
use std::io::Read;
use std::num::NonZeroU64;

use crate::tracker::{ProcessIdentity, Processes};

/// More than the file has: 52 numbers and a name.
const STAT_ROOM: usize = 2048;

/// Reads identities from `/proc`.
#[derive(Clone, Copy, Debug, Default)]
pub struct ProcFs;

impl Processes for ProcFs {
    fn identify(&mut self, pid: u32) -> Option<ProcessIdentity> {
        let mut buffer = [0; STAT_ROOM];
        // The file of the main thread, and not that of the process, for which the kernel adds up all threads: a process
        // with ten thousand of them would cost a hundred times as much. What is read here is the same in both.
        let mut file = File::open(format!("/proc/{pid}/task/{pid}/stat")).ok()?;
        let length = file.read(&mut buffer).ok()?;
        parse_stat(&buffer[..length])
    }
}

/// Reads the command name and the start time (field 22) out of a `stat` file, see proc_pid_stat(5).
///
/// The name stands in parentheses and may hold anything, parentheses and newlines too; nothing after it does.
fn parse_stat(stat: &[u8]) -> Option<ProcessIdentity> {
    let open = stat.iter().position(|byte| *byte == b'(')?;
    let close = stat.iter().rposition(|byte| *byte == b')')?;
    let name = String::from_utf8_lossy(stat.get(open + 1..close)?).into_owned();
    let after_name = std::str::from_utf8(&stat[close + 1..]).ok()?;
    // The first field after the name is the third.
    let start_time = after_name.split_ascii_whitespace().nth(22 - 3)?.parse().ok()?;
    Some(ProcessIdentity { start_time: NonZeroU64::new(start_time)?, name })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_identified_the_same_each_time() {
        let first = ProcFs.identify(std::process::id()).unwrap();
        assert_eq!(ProcFs.identify(std::process::id()), Some(first));
    }

    #[test]
    fn a_pid_that_nobody_has_is_nobody() {
        assert_eq!(ProcFs.identify(u32::MAX), None);
    }

    #[test]
    fn a_name_may_hold_anything() {
        let stat = b"77 (a) 1 (b\n) S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 4711 20 21\n";
        let identity = parse_stat(stat).unwrap();
        assert_eq!((identity.name.as_str(), identity.start_time.get()), ("a) 1 (b\n", 4711));
    }

    #[test]
    fn what_is_cut_short_is_nobody() {
        assert_eq!(parse_stat(b"77 (name) S 1 2 3"), None);
        assert_eq!(parse_stat(b"77 (name"), None);
        assert_eq!(parse_stat(b""), None);
    }
}
