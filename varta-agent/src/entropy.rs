//! A little chance, for what must differ between processes and need not be secret.
//!
//! It is drawn where a handle is made or recovers from a fork, and never on an ordinary beat.

use std::fs::File;
use std::hash::{BuildHasher, RandomState};
use std::io::Read;
use std::time::SystemTime;

/// Draws a random number from the operating system, without waiting and without allocating.
///
/// Where there is no `/dev/urandom` (a bare chroot, no descriptor left) the clock, the pid and the keys of the
/// standard library's hash maps stand in. The keys alone would not do: a forked child has those of its parent.
pub(crate) fn random() -> u64 {
    let mut bytes = [0; 8];
    match File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut bytes)) {
        Ok(()) => u64::from_ne_bytes(bytes),
        Err(_) => RandomState::new().hash_one((std::process::id(), SystemTime::now())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_draws_differ() {
        assert_ne!(random(), random());
    }
}
