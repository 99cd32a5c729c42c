//! Random numbers that must differ and may be predictable.

#[cfg(not(any(target_os = "linux", target_os = "android")))]
use std::fs::File;
#[cfg(not(any(target_os = "linux", target_os = "android")))]
use std::io::Read;
use std::process;
use std::time::{SystemTime, UNIX_EPOCH};

#[cfg(any(target_os = "linux", target_os = "android"))]
use crate::sys;

#[cfg(any(feature = "secure-udp", not(any(target_os = "linux", target_os = "android"))))]
pub(super) const DEVICE: &str = "/dev/urandom";

/// Draws a random number from the operating system, without blocking and without allocating. It need not be
/// secret.
///
/// If the operating system has none (a forbidden system call, early boot), the clock and the pid are the
/// source.
pub(crate) fn random() -> u64 {
    from_os().unwrap_or_else(|| {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let nanos = now.as_secs().wrapping_mul(1_000_000_000).wrapping_add(u64::from(now.subsec_nanos()));
        mix(nanos ^ u64::from(process::id()).rotate_left(32))
    })
}

#[cfg(any(target_os = "linux", target_os = "android"))]
fn from_os() -> Option<u64> {
    let mut bytes = [0; 8];
    let is_full = sys::get_random(&mut bytes).is_ok_and(|got| got == bytes.len());
    is_full.then(|| u64::from_ne_bytes(bytes))
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn from_os() -> Option<u64> {
    let mut bytes = [0; 8];
    File::open(DEVICE).and_then(|mut file| file.read_exact(&mut bytes)).ok()?;
    Some(u64::from_ne_bytes(bytes))
}

/// Distributes the entropy of a number over all bits: the finisher of G. Steele, D. Lea and C. Flood, "Fast
/// splittable pseudorandom number generators", OOPSLA 2014.
const fn mix(number: u64) -> u64 {
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

/// Draws 16 random bytes, as [`random`] does. They must be unique and need not be secret.
pub(crate) fn random_id() -> [u8; 16] {
    (u128::from(random()) << u64::BITS | u128::from(random())).to_ne_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_draws_differ() {
        assert_ne!(random(), random());
        assert!(from_os().is_some());
    }

    #[test]
    fn what_stands_in_differs_in_all_bits() {
        let differing = (mix(1) ^ mix(2)).count_ones();
        assert!((16..=48).contains(&differing), "{differing}");
        assert_ne!(mix(1), mix(1 << 32));
    }
}
