//! Parsers of the smaller files of a process: `status`, `wchan`, `syscall`, `schedstat`, `limits`, `children`.
//!
//! Each parser is a pure function over bytes; a value that is missing or malformed is `None`.

use std::time::Duration;

use crate::domain::process::ContextSwitches;
use crate::domain::process::text::truncated;

/// The most bytes of a wait channel's name: longer than any function name in the kernel.
pub(crate) const MAX_CHANNEL_LEN: usize = 64;
/// The most nested PID namespaces that the kernel allows.
pub(crate) const MAX_NAMESPACES: usize = 32;

/// The parsed fields of `status`, see proc_pid_status(5).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Status {
    /// The pid in each nested PID namespace, from this server's to the process's own.
    pub(crate) namespace_pids: Vec<u32>,
    /// The real user id.
    pub(crate) user: Option<u32>,
    /// The supplementary groups, as far as the line is complete.
    pub(crate) groups: Vec<u32>,
    /// Resident memory.
    pub(crate) resident_bytes: Option<u64>,
    /// Whether the kernel writes a core dump of the process.
    pub(crate) dumping_core: bool,
    /// Voluntary and involuntary context switches of the thread.
    pub(crate) switches: Option<ContextSwitches>,
}

impl Status {
    pub(crate) fn parse(file: &[u8]) -> Self {
        let text = String::from_utf8_lossy(file);
        let mut status = Status::default();
        let (mut voluntary, mut involuntary) = (None, None);
        for (key, value) in text.split_inclusive('\n').filter_map(|line| line.split_once(':')) {
            let mut words = value.split_ascii_whitespace();
            let mut number = || words.next().and_then(|word| word.parse::<u64>().ok());
            match key {
                "VmRSS" => status.resident_bytes = number().and_then(|kibibytes| kibibytes.checked_mul(1024)),
                "CoreDumping" => status.dumping_core = number() == Some(1),
                "voluntary_ctxt_switches" => voluntary = number(),
                "nonvoluntary_ctxt_switches" => involuntary = number(),
                "Uid" => status.user = number().and_then(|user| u32::try_from(user).ok()),
                // The last number of a line that was cut may be the beginning of another.
                "Groups" if value.ends_with('\n') => {
                    status.groups = words.map_while(|word| word.parse().ok()).collect();
                }
                "NSpid" => {
                    let pids = words.take(MAX_NAMESPACES).map_while(|word| word.parse().ok());
                    status.namespace_pids = pids.collect();
                }
                _ => {}
            }
        }
        status.switches = voluntary
            .zip(involuntary)
            .map(|(voluntary, involuntary)| ContextSwitches { voluntary, involuntary });
        status
    }
}

/// The kernel function in which a thread waits; `None` when it runs, or without permission.
pub(crate) fn parse_channel(file: &[u8]) -> Option<Box<str>> {
    let name = file.trim_ascii();
    (!name.is_empty() && name != b"0").then(|| truncated(name, MAX_CHANNEL_LEN))
}

/// The number of the system call in which a thread is; `None` outside of one, or when it runs.
pub(crate) fn parse_call(file: &[u8]) -> Option<u32> {
    // `running`, or -1 when it waits outside of a system call, as in a page fault.
    std::str::from_utf8(file).ok()?.split_ascii_whitespace().next()?.parse().ok()
}

/// The time for which a thread was runnable and waited for a CPU since its start: the second field of
/// `schedstat`.
pub(crate) fn parse_run_delay(file: &[u8]) -> Option<Duration> {
    let nanos = std::str::from_utf8(file).ok()?.split_ascii_whitespace().nth(1)?.parse().ok()?;
    Some(Duration::from_nanos(nanos))
}

/// The last pid in a list of children, in which the newest stands last. `None` also for a list that is cut
/// where it was read.
pub(crate) fn parse_last_child(file: &[u8]) -> Option<u32> {
    // Each pid is followed by a space.
    std::str::from_utf8(file).ok()?.strip_suffix(' ')?.rsplit(' ').next()?.parse().ok()
}

/// The pids in a list of children. One that was cut may end in the beginning of a pid.
pub(crate) fn parse_children(file: &[u8]) -> Vec<u32> {
    let text = std::str::from_utf8(file).unwrap_or_default();
    text.split(' ').filter_map(|pid| pid.parse().ok()).collect()
}

/// The soft limit of open files, from `limits`; `None` also when there is no limit.
pub(crate) fn parse_open_files(file: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(file).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_is_read_as_the_kernel_writes_it() {
        let file =
            b"Name:\tcat\nState:\tS (sleeping)\nUid:\t1000\t0\t0\t0\nGroups:\t4 27 1000 \nNSpid:\t22025\t7\t1\nVmRSS:\t    1744 kB\nThreads:\t1\nCoreDumping:\t1\n\
            voluntary_ctxt_switches:\t12\nnonvoluntary_ctxt_switches:\t3\n";
        let status = Status {
            namespace_pids: vec![22025, 7, 1],
            user: Some(1000),
            groups: vec![4, 27, 1000],
            resident_bytes: Some(1744 * 1024),
            dumping_core: true,
            switches: Some(ContextSwitches { voluntary: 12, involuntary: 3 }),
        };
        assert_eq!(Status::parse(file), status);
    }

    #[test]
    fn hostile_status_gives_nothing_that_it_does_not_say() {
        let table: [&[u8]; 8] = [
            b"",
            b"Uid:\t4294967296\nGroups:\tx\n",
            b"Groups:\t4 27 100",
            b"\xff\xff:\xff\n:::\n",
            b"NSpid:\tx 1\nVmRSS:\t-1 kB\n",
            b"VmRSS:\t18446744073709551615 kB\n",
            b"voluntary_ctxt_switches:\t1\n",
            b"NSpid:\nVmRSS:\nCoreDumping:\t0\n",
        ];
        for file in table {
            assert_eq!(Status::parse(file), Status::default(), "{}", String::from_utf8_lossy(file));
        }
        let many = format!("NSpid:{}", "\t1".repeat(1000));
        assert_eq!(Status::parse(many.as_bytes()).namespace_pids.len(), MAX_NAMESPACES);
    }

    #[test]
    fn a_wait_channel_is_a_name() {
        let table: [(&[u8], Option<&str>); 5] = [
            (b"futex_do_wait", Some("futex_do_wait")),
            (b"hrtimer_nanosleep\n", Some("hrtimer_nanosleep")),
            (b"0", None),
            (b"", None),
            (&[b'a'; 100], Some(&"a".repeat(64))),
        ];
        for (file, expected) in table {
            assert_eq!(parse_channel(file).as_deref(), expected);
        }
    }

    #[test]
    fn a_call_is_a_number() {
        let table: [(&[u8], _); 6] = [
            (b"230 0x0 0x0 0x7ffff7919090 0x7ffff79190d0 0x0 0x0 0x7ffff7919078 0x7fc51fbbb503\n", Some(230)),
            (b"0 0x3", Some(0)),
            (b"running\n", None),
            (b"-1 0x7ffe 0x7fb2\n", None),
            (b"99999999999 0x0\n", None),
            (b"", None),
        ];
        for (file, expected) in table {
            assert_eq!(parse_call(file), expected, "{}", String::from_utf8_lossy(file));
        }
    }

    #[test]
    fn the_last_child_in_a_list_is_the_newest() {
        let table: [(&[u8], _); 5] =
            [(b"12 13 400 ", Some(400)), (b"7 ", Some(7)), (b"", None), (b"12 13 40", None), (b"x ", None)];
        for (file, expected) in table {
            assert_eq!(parse_last_child(file), expected, "{}", String::from_utf8_lossy(file));
        }
    }

    #[test]
    fn delays_and_limits_are_found_or_not_there() {
        assert_eq!(parse_run_delay(b"3000 58016 1\n"), Some(Duration::from_nanos(58016)));
        assert_eq!(parse_run_delay(b"0\n"), None);
        let limits = b"Max processes             96365                96365                processes \n\
            Max open files            20000                40000                files     \n";
        assert_eq!(parse_open_files(limits), Some(20000));
        assert_eq!(parse_open_files(b"Max open files            unlimited    unlimited   files\n"), None);
        assert_eq!(parse_open_files(b"Max open files"), None);
    }
}
