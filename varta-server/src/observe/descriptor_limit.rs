//! The limit of open file descriptors: each watched process takes one.

use std::io;

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// The bounds of the descriptors for sockets, files, notices, reads of `/proc`, and what comes with datagrams.
/// An idle server has some twenty.
const MIN_RESERVED: usize = 40;
const MAX_RESERVED: usize = 512;
/// With so many descriptors a quarter of them is a multiple of what may come with datagrams at once.
const ENOUGH_TO_SPARE: u64 = 1_024;
/// The most recovery commands at once, and the descriptors that one of them takes: its pidfd, what ends it
/// together with the server, and the pipes of its outputs, of which it has the other ends while it starts.
const MAX_COMMANDS: usize = 256;
const PER_COMMAND: usize = 6;
/// The bounds of the connections to the metrics address.
const MIN_CONNECTIONS: usize = 4;
const MAX_CONNECTIONS: usize = 320;
/// The most files with counts of kills that are kept open.
const MAX_KILL_COUNTS: usize = 128;

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

/// Whether there are so many descriptors that those which come with datagrams take none that others need: a batch of
/// beats of new agents would otherwise keep the server from reading who they are.
pub(crate) fn has_descriptors_to_spare() -> bool {
    getrlimit(Resource::RLIMIT_NOFILE).is_ok_and(|(soft, _)| soft >= ENOUGH_TO_SPARE)
}

/// How the descriptors of this process are shared out, so that what happens in one place takes none of
/// another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DescriptorShares {
    /// The most processes to watch; each takes a descriptor.
    pub(crate) watched: usize,
    /// The most recovery commands that run at once.
    pub(crate) commands: usize,
    /// The most connections to the metrics address.
    pub(crate) connections: usize,
    /// The most files with counts of kills that are kept open.
    pub(crate) kill_counts: usize,
}

impl DescriptorShares {
    /// Shares out `limit` descriptors: nobody but the watch of processes has more than a quarter.
    #[must_use]
    pub(crate) const fn of(limit: usize) -> Self {
        let commands = least(limit / 4 / PER_COMMAND, MAX_COMMANDS);
        let commands = if commands == 0 { 1 } else { commands };
        let connections = least(limit / 8, MAX_CONNECTIONS);
        let connections = if connections < MIN_CONNECTIONS { MIN_CONNECTIONS } else { connections };
        let reserved = least(limit / 4, MAX_RESERVED);
        let reserved = if reserved < MIN_RESERVED { MIN_RESERVED } else { reserved };
        let kill_counts = least(limit / 64, MAX_KILL_COUNTS);
        let others = reserved + commands * PER_COMMAND + connections + kill_counts;
        DescriptorShares { watched: limit.saturating_sub(others), commands, connections, kill_counts }
    }
}

const fn least(left: usize, right: usize) -> usize {
    if left < right { left } else { right }
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
    fn every_use_has_a_share_and_all_shares_together_fit_the_limit() {
        for limit in [128, 256, 1_024, 4_096, 20_000, 1_048_576] {
            let DescriptorShares { watched, commands, connections, kill_counts } =
                DescriptorShares::of(limit);
            assert!(watched >= limit / 4, "{limit}: {watched}");
            assert!((1..=MAX_COMMANDS).contains(&commands), "{limit}: {commands}");
            assert!((MIN_CONNECTIONS..=MAX_CONNECTIONS).contains(&connections), "{limit}: {connections}");
            assert!((1..=MAX_KILL_COUNTS).contains(&kill_counts), "{limit}: {kill_counts}");
            let rest = limit - watched - commands * PER_COMMAND - connections - kill_counts;
            assert!((MIN_RESERVED..=MAX_RESERVED).contains(&rest), "{limit}: {rest}");
        }
        let full = DescriptorShares::of(1_048_576);
        assert_eq!((full.commands, full.connections), (MAX_COMMANDS, MAX_CONNECTIONS));
        assert_eq!(full.kill_counts, MAX_KILL_COUNTS);
        // With less than that nobody is watched, and ends are noticed at the deadline.
        let least = DescriptorShares { watched: 0, commands: 1, connections: 4, kill_counts: 0 };
        assert_eq!(DescriptorShares::of(32), least);
    }
}
