//! The scope within which a pid identifies a process: one boot of the host and one PID namespace. Persisted
//! pids are valid only if both are the same as now.

use std::fs;
use std::num::NonZeroU64;

use crate::observe::stat::Stat;

/// The boot id and the PID namespace of this process, as the kernel names them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Boot {
    /// `/proc/sys/kernel/random/boot_id`.
    pub(crate) id: String,
    /// The target of the link `/proc/self/ns/pid`.
    pub(crate) namespace: String,
}

impl Boot {
    /// The present boot and namespace; `None` where they cannot be read.
    pub(crate) fn this() -> Option<Self> {
        let id = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?.trim().to_owned();
        let namespace = fs::read_link("/proc/self/ns/pid").ok()?.to_str()?.to_owned();
        Some(Boot { id, namespace })
    }

    /// Parses what `Display` writes.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (id, namespace) = text.split_once(' ')?;
        Some(Boot { id: id.to_owned(), namespace: namespace.to_owned() })
    }
}

/// Boot id and namespace, separated by a space.
impl std::fmt::Display for Boot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.id, self.namespace)
    }
}

/// Whether the process with this pid and start time still exists, if only as a zombie.
pub(crate) fn is_there(pid: u32, start_time: NonZeroU64) -> bool {
    Stat::of_thread(pid, pid).is_some_and(|stat| stat.start_time == start_time)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_boot_is_read_as_it_was_written() {
        let boot = Boot::this().unwrap();
        assert_eq!(Boot::parse(&boot.to_string()), Some(boot));
    }
}
