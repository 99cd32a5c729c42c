//! `/proc/PID/stat`: the one file that says most about a process, see proc_pid_stat(5).

use std::num::NonZeroU64;

use crate::domain::process::ExitStatus;
use crate::observe::kernel_file::read_some;

/// The bytes read: more than 52 numbers and a name need.
pub(in crate::observe) const ROOM: usize = 2048;

/// The parsed fields of a `stat` file. Times are in clock ticks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Stat {
    /// The command name, which the process may change.
    pub(crate) name: String,
    /// The state letter.
    pub(crate) state: u8,
    /// The parent; 0 for none that is visible here.
    pub(crate) parent: u32,
    /// The process group; 0 for none.
    pub(crate) group: u32,
    /// CPU time in user and kernel mode; in the file of a process summed over all threads, ended ones
    /// included.
    pub(crate) cpu_ticks: u64,
    /// The number of threads, counting a main thread that has ended before the others.
    pub(crate) threads: u32,
    /// The start time after the boot. Together with the pid it identifies a process.
    pub(crate) start_time: NonZeroU64,
    /// The exit status, if this is a zombie and the status is readable.
    pub(crate) death: Option<ExitStatus>,
}

impl Stat {
    /// Reads the file of a process, in which the kernel sums the times of all its threads.
    pub(crate) fn of_process(pid: u32) -> Option<Stat> {
        Stat::parse(read_some(format!("/proc/{pid}/stat"), &mut [0; ROOM])?)
    }

    /// Reads the file of this process.
    pub(in crate::observe) fn of_self() -> Option<Stat> {
        Stat::parse(read_some("/proc/self/stat", &mut [0; ROOM])?)
    }

    /// Reads the file of one thread, at a cost that does not depend on the number of threads.
    pub(crate) fn of_thread(pid: u32, thread: u32) -> Option<Stat> {
        Stat::parse(read_some(format!("/proc/{pid}/task/{thread}/stat"), &mut [0; ROOM])?)
    }

    /// Parses a `stat` file; `None` without a start time (field 22). Other missing numbers are 0.
    ///
    /// The name is in parentheses and may hold anything, even parentheses and newlines; no later field does.
    pub(crate) fn parse(stat: &[u8]) -> Option<Stat> {
        let open = stat.iter().position(|byte| *byte == b'(')?;
        let close = stat.iter().rposition(|byte| *byte == b')')?;
        let name = String::from_utf8_lossy(stat.get(open + 1..close)?).into_owned();
        let after_name = std::str::from_utf8(&stat[close + 1..]).ok()?;
        let mut fields = Fields { rest: after_name.split_ascii_whitespace(), next: 3 };
        // In the order of the file: the iterator cannot go back.
        let state = *fields.skip_to(3)?.as_bytes().first()?;
        let parent = u32::try_from(fields.number(4)).unwrap_or(0);
        let group = u32::try_from(fields.number(5)).unwrap_or(0);
        let user_ticks = fields.number(14);
        let kernel_ticks = fields.number(15);
        let threads = u32::try_from(fields.number(20)).unwrap_or(0);
        let start_time = NonZeroU64::new(fields.skip_to(22)?.parse().ok()?)?;
        let waits = fields.number(35);
        let exit_code = fields.skip_to(52).and_then(|field| field.parse().ok());
        // Without permission the exit code reads 0, and so does the field `wchan`, which is 1 for every
        // zombie.
        let told = exit_code.filter(|code| *code != 0 || waits == 1);
        let cpu_ticks = user_ticks.saturating_add(kernel_ticks);
        let mut stat = Stat { name, state, parent, group, cpu_ticks, threads, start_time, death: None };
        stat.death = told.filter(|_| stat.is_dead()).map(ExitStatus::from_wait_status);
        Some(stat)
    }

    /// Whether every thread has ended: a zombie that its parent has not reaped.
    ///
    /// A main thread that ended before the others is a zombie too, of a live process.
    pub(crate) fn is_dead(&self) -> bool {
        matches!(self.state, b'Z' | b'X') && self.threads <= 1
    }
}

/// The fields after the name, in order, by the numbers of the manual page.
struct Fields<'a> {
    rest: std::str::SplitAsciiWhitespace<'a>,
    next: usize,
}

impl<'a> Fields<'a> {
    /// The field with this number, which must not have been passed yet.
    fn skip_to(&mut self, number: usize) -> Option<&'a str> {
        let field = self.rest.nth(number.checked_sub(self.next)?);
        self.next = number + 1;
        field
    }

    /// The field as a number; 0 if it is none.
    fn number(&mut self, number: usize) -> u64 {
        self.skip_to(number).and_then(|field| field.parse().ok()).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ZOMBIE: &[u8] =
        b"29029 (python3) Z 28988 28984 26426 0 -1 4227148 227 0 0 0 3 4 0 0 20 0 1 0 1148482 0 0 \
        18446744073709551615 0 0 0 0 0 0 0 16781312 2 1 0 0 17 0 0 0 0 0 0 0 0 0 0 0 0 0 768\n";

    /// A real line with changed fields.
    fn with(changes: &[(usize, &str)]) -> Vec<u8> {
        let text = std::str::from_utf8(ZOMBIE).unwrap();
        let mut fields: Vec<&str> = text.split_ascii_whitespace().collect();
        for (number, value) in changes {
            fields[number - 1] = value;
        }
        fields.join(" ").into_bytes()
    }

    #[test]
    fn a_name_may_hold_anything() {
        let stat = b"77 (a) 1 (b\n) S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 4711 20 21\n";
        let stat = Stat::parse(stat).unwrap();
        assert_eq!((stat.name.as_str(), stat.start_time.get()), ("a) 1 (b\n", 4711));
    }

    #[test]
    fn what_is_cut_short_is_nobody() {
        for stat in [&b"77 (name) S 1 2 3"[..], b"77 (name", b"77 )name(", b"", b"77 () \xff 1"] {
            assert_eq!(Stat::parse(stat), None);
        }
    }

    #[test]
    fn any_cut_of_a_line_is_read_or_refused() {
        for end in 0..ZOMBIE.len() {
            let _ = Stat::parse(&ZOMBIE[..end]);
        }
    }

    #[test]
    fn each_field_is_where_the_manual_says() {
        let stat = Stat::parse(ZOMBIE).unwrap();
        assert_eq!((stat.state, stat.cpu_ticks, stat.threads), (b'Z', 7, 1));
        assert_eq!((stat.parent, stat.group), (28_988, 28_984));
        assert_eq!((stat.start_time.get(), stat.death), (1_148_482, Some(ExitStatus::Exited { code: 3 })));
        assert!(stat.is_dead());
    }

    #[test]
    fn an_exit_code_is_believed_only_of_the_dead_and_when_it_may_be_known() {
        let exited = |code| Some(ExitStatus::Exited { code });
        let table = [
            (with(&[(52, "0")]), exited(0)),
            (with(&[(52, "9")]), Some(ExitStatus::Killed { signal: 9, core_dumped: false })),
            // Without permission: both fields are 0.
            (with(&[(52, "0"), (35, "0")]), None),
            (with(&[(52, "256"), (35, "0")]), exited(1)),
            // The main thread has ended, the others have not.
            (with(&[(20, "2")]), None),
            (with(&[(3, "S")]), None),
            (with(&[(52, "x")]), None),
        ];
        for (line, death) in table {
            assert_eq!(Stat::parse(&line).unwrap().death, death, "{}", String::from_utf8_lossy(&line));
        }
    }

    #[test]
    fn a_main_thread_that_ended_first_is_no_dead_process() {
        assert!(!Stat::parse(&with(&[(20, "2")])).unwrap().is_dead());
        assert!(!Stat::parse(&with(&[(3, "R")])).unwrap().is_dead());
    }

    #[test]
    fn the_files_of_a_process_and_its_main_thread_name_the_same() {
        let pid = std::process::id();
        let (process, thread) = (Stat::of_process(pid).unwrap(), Stat::of_thread(pid, pid).unwrap());
        assert_eq!((process.start_time, process.name), (thread.start_time, thread.name));
    }
}
