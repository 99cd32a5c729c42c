//! The limit of open file descriptors: each watched process takes one.

use std::io;

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// The descriptors reserved for everything else: sockets, connections, files, and reads of `/proc`.
pub(crate) const RESERVED: usize = 512;

/// Raises the soft limit of open files to the hard limit, and returns the limit in force.
///
/// The usual limit of 1024 exists only because select(2) cannot handle more, and nothing here uses that.
/// Child processes inherit the limit; code that starts one may lower it there.
///
/// # Errors
///
/// The kernel refuses; the limit is unchanged.
pub(crate) fn raise_descriptor_limit() -> io::Result<usize> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    if soft < hard {
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    }
    Ok(usize::try_from(hard).unwrap_or(usize::MAX))
}

/// The most processes to watch under a descriptor limit: all but [`RESERVED`], or half of a small limit.
#[must_use]
pub(crate) const fn watch_cap(descriptors: usize) -> usize {
    let reserved = if descriptors / 2 < RESERVED { descriptors - descriptors / 2 } else { RESERVED };
    descriptors - reserved
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_is_what_it_is_said_to_be() {
        let limit = raise_descriptor_limit().unwrap();
        let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        assert_eq!((soft, usize::try_from(hard).unwrap_or(usize::MAX)), (hard, limit));
    }

    #[test]
    fn something_is_always_left_for_the_rest() {
        let table = [(0, 0), (1, 0), (64, 32), (1024, 512), (4096, 3584), (1_048_576, 1_048_064)];
        for (descriptors, cap) in table {
            assert_eq!(watch_cap(descriptors), cap, "{descriptors}");
        }
    }
}
