//! How many descriptors this process may have: each watched process takes one.

use std::io;

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Descriptors that are left for everything else: sockets, connections, files, and looks into `/proc`.
pub(crate) const RESERVED: usize = 512;

/// Raises the limit of open descriptors to the highest that this process may give itself, and says what is now in
/// force.
///
/// The usual limit of 1024 is only low because select(2) cannot take more, and nothing here uses that. Programs that
/// this one starts inherit the limit; who starts some may want to lower it for them.
///
/// # Errors
///
/// When the kernel refuses; the limit is then what it was before.
pub(crate) fn raise_descriptor_limit() -> io::Result<usize> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    if soft < hard {
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    }
    Ok(usize::try_from(hard).unwrap_or(usize::MAX))
}

/// How many processes may be watched under a limit of descriptors: all but [`RESERVED`], and of a small limit half.
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
