//! In which boot of the host, and in which PID namespace, a pid means something.

use std::fs;
use std::num::NonZeroU64;

use crate::observe::stat::Stat;

/// The boot and the namespace of this process, each by what the kernel calls it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Boot {
    /// `/proc/sys/kernel/random/boot_id`.
    pub(crate) id: String,
    /// What `/proc/self/ns/pid` links to.
    pub(crate) namespace: String,
}

impl Boot {
    /// This one; `None` where the kernel does not tell.
    pub(crate) fn this() -> Option<Self> {
        let id = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?.trim().to_owned();
        let namespace = fs::read_link("/proc/self/ns/pid").ok()?.to_str()?.to_owned();
        Some(Boot { id, namespace })
    }

    /// As one word behind another.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (id, namespace) = text.split_once(' ')?;
        Some(Boot { id: id.to_owned(), namespace: namespace.to_owned() })
    }
}

/// As [`Boot::parse`] reads it.
impl std::fmt::Display for Boot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.id, self.namespace)
    }
}

/// Whether the process that has this pid and started at this time is still there, be it as a zombie.
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
