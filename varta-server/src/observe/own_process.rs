//! What the kernel says of this server's own process: CPU time, memory, descriptors, threads.

use std::fs;
use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit};
use nix::unistd::{SysconfVar, sysconf};

use crate::observe::kernel_file::read_some;
use crate::observe::stat::Stat;

/// The room of the descriptor table up to which open ones are counted one by one, where the kernel does not
/// say how many there are: before Linux 6.2.
const MAX_COUNTED: u64 = 65_536;

/// Reads what the kernel says of this process.
#[derive(Debug)]
pub(crate) struct OwnProcess {
    ticks_per_second: u64,
    page_size: u64,
}

/// What the process has used and uses. What could not be read is `None`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Usage {
    /// CPU time of all threads, in user and kernel mode.
    pub(crate) cpu: Option<Duration>,
    /// The start of the process, since the boot.
    pub(crate) started: Option<Duration>,
    pub(crate) threads: Option<u64>,
    /// In bytes.
    pub(crate) resident: Option<u64>,
    /// In bytes.
    pub(crate) virtual_memory: Option<u64>,
    pub(crate) open_descriptors: Option<u64>,
    /// The limit in force.
    pub(crate) max_descriptors: Option<u64>,
}

impl OwnProcess {
    pub(crate) fn new() -> Self {
        let number =
            |variable| sysconf(variable).ok().flatten().and_then(|number| u64::try_from(number).ok());
        let positive = |variable, usual| number(variable).filter(|number| *number > 0).unwrap_or(usual);
        OwnProcess {
            ticks_per_second: positive(SysconfVar::CLK_TCK, 100),
            page_size: positive(SysconfVar::PAGE_SIZE, 4096),
        }
    }

    /// What the process uses at present.
    pub(crate) fn usage(&self) -> Usage {
        let stat = Stat::of_self();
        let time =
            |ticks: u64| Duration::from_nanos(ticks.saturating_mul(1_000_000_000 / self.ticks_per_second));
        let (virtual_pages, resident_pages) = memory().unzip();
        Usage {
            cpu: stat.as_ref().map(|stat| time(stat.cpu_ticks)),
            started: stat.as_ref().map(|stat| time(stat.start_time.get())),
            threads: stat.map(|stat| u64::from(stat.threads)),
            resident: resident_pages.map(|pages| pages.saturating_mul(self.page_size)),
            virtual_memory: virtual_pages.map(|pages| pages.saturating_mul(self.page_size)),
            open_descriptors: open_descriptors(),
            max_descriptors: getrlimit(Resource::RLIMIT_NOFILE).ok().map(|(soft, _)| soft),
        }
    }
}

/// Pages of virtual and of resident memory.
fn memory() -> Option<(u64, u64)> {
    let mut room = [0; 128];
    let text = std::str::from_utf8(read_some("/proc/self/statm", &mut room)?).ok()?;
    let mut pages = text.split_ascii_whitespace().map(str::parse);
    Some((pages.next()?.ok()?, pages.next()?.ok()?))
}

/// The number of open descriptors. The kernel gives it as the length of the directory since Linux 6.2; before,
/// its entries are counted where that does not take long.
fn open_descriptors() -> Option<u64> {
    const DIRECTORY: &str = "/proc/self/fd";
    match fs::metadata(DIRECTORY).ok()?.len() {
        0 if descriptor_room()? <= MAX_COUNTED => {
            let entries = fs::read_dir(DIRECTORY).ok()?;
            // One of them is the directory's.
            Some(u64::try_from(entries.count()).ok()?.saturating_sub(1))
        }
        0 => None,
        count => Some(count),
    }
}

/// The size of the descriptor table.
fn descriptor_room() -> Option<u64> {
    let mut room = [0; 2048];
    let status = std::str::from_utf8(read_some("/proc/self/status", &mut room)?).ok()?;
    status.lines().find_map(|line| line.strip_prefix("FDSize:"))?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;

    #[test]
    fn this_process_uses_memory_threads_descriptors_and_time() {
        let process = OwnProcess::new();
        let files = [(); 10].map(|()| File::open("/dev/null").unwrap());
        let usage = process.usage();
        assert!(usage.threads.unwrap() >= 1 && usage.started.unwrap() > Duration::ZERO);
        assert!(usage.resident.unwrap() >= 100_000 && usage.virtual_memory > usage.resident);
        assert!(usage.open_descriptors.unwrap() >= 10 && usage.max_descriptors >= usage.open_descriptors);
        drop(files);
        let later = process.usage();
        assert!(later.cpu >= usage.cpu);
        assert_eq!((later.started, later.max_descriptors), (usage.started, usage.max_descriptors));
    }

    #[test]
    fn the_descriptor_table_has_room_for_what_is_open() {
        assert!(descriptor_room().unwrap() >= 3);
    }
}
