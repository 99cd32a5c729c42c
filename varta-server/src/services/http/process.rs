//! Metrics of the server's own process, by the names and in the units of Prometheus's client libraries.

use std::fmt::Write as _;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::base::clock::{since_boot, wall_now};
use crate::metrics::family::{Family, families};
use crate::observe::own_process::{OwnProcess, Usage};

families! {
    CPU = "process_cpu_seconds_total", "Total user and system CPU time spent in seconds.";
    MAX_DESCRIPTORS = "process_max_fds", "Maximum number of open file descriptors.";
    OPEN_DESCRIPTORS = "process_open_fds", "Number of open file descriptors.";
    RESIDENT_MEMORY = "process_resident_memory_bytes", "Resident memory size in bytes.";
    START_TIME = "process_start_time_seconds", "Start time of the process since unix epoch in seconds.";
    THREADS = "process_threads", "Number of OS threads in the process.";
    VIRTUAL_MEMORY = "process_virtual_memory_bytes", "Virtual memory size in bytes.";
}

/// What the kernel says of this process, as rows. Those that it does not say are absent.
#[derive(Debug)]
pub(super) struct ProcessMetrics {
    process: OwnProcess,
    /// Unix time of the start: read once, because it must not change with the wall clock.
    started: Option<Duration>,
}

impl ProcessMetrics {
    pub(super) fn new() -> Self {
        let process = OwnProcess::new();
        let started = process.usage().started;
        ProcessMetrics { process, started: unix_time(started, since_boot(), wall_now()) }
    }

    /// The rows at present, in the order of their names.
    pub(super) fn render(&self) -> String {
        render(&self.process.usage(), self.started)
    }
}

/// The Unix time at which the boot clock said `then`, by what it and the wall clock say now.
fn unix_time(then: Option<Duration>, since_boot: Option<Duration>, wall: SystemTime) -> Option<Duration> {
    let age = since_boot?.checked_sub(then?)?;
    wall.duration_since(UNIX_EPOCH).ok()?.checked_sub(age)
}

fn render(usage: &Usage, started: Option<Duration>) -> String {
    // The kernel counts both in hundredths.
    let seconds = |time: Duration| format!("{}.{:02}", time.as_secs(), time.subsec_millis() / 10);
    let whole = |number: u64| number.to_string();
    let mut rows = String::new();
    for (family, kind, value) in [
        (CPU, "counter", usage.cpu.map(seconds)),
        (MAX_DESCRIPTORS, "gauge", usage.max_descriptors.map(whole)),
        (OPEN_DESCRIPTORS, "gauge", usage.open_descriptors.map(whole)),
        (RESIDENT_MEMORY, "gauge", usage.resident.map(whole)),
        (START_TIME, "gauge", started.map(seconds)),
        (THREADS, "gauge", usage.threads.map(whole)),
        (VIRTUAL_MEMORY, "gauge", usage.virtual_memory.map(whole)),
    ] {
        if let Some(value) = value {
            let Family { name, help, .. } = family;
            // Writing to memory cannot fail.
            let _ = write!(rows, "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}\n");
        }
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_kernel_does_not_say_has_no_row() {
        assert_eq!(render(&Usage::default(), None), "");
        let usage = Usage { cpu: Some(Duration::from_millis(12_050)), threads: Some(3), ..Usage::default() };
        let expected = "# HELP process_cpu_seconds_total Total user and system CPU time spent in seconds.\n\
            # TYPE process_cpu_seconds_total counter\n\
            process_cpu_seconds_total 12.05\n\
            # HELP process_threads Number of OS threads in the process.\n\
            # TYPE process_threads gauge\n\
            process_threads 3\n";
        assert_eq!(render(&usage, None), expected);
    }

    #[test]
    fn the_time_of_the_start_follows_from_both_clocks() {
        let secs = |secs| Some(Duration::from_secs(secs));
        let wall = UNIX_EPOCH + Duration::from_secs(1_000_000);
        assert_eq!(unix_time(secs(400), secs(500), wall), secs(999_900));
        assert_eq!(unix_time(secs(500), secs(500), wall), secs(1_000_000));
        assert_eq!(unix_time(None, secs(500), wall), None);
        assert_eq!(unix_time(secs(400), None, wall), None);
        assert_eq!(unix_time(secs(600), secs(500), wall), None);
    }

    #[test]
    fn families_are_in_the_order_of_their_names() {
        assert!(FAMILIES.is_sorted_by_key(|family| family.name));
        let text = ProcessMetrics::new().render();
        let rows = text.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.split_once(' '));
        assert!(rows.map(|(name, _)| name).eq(FAMILIES.iter().map(|family| family.name)), "{text}");
    }
}
