//! A little chance, for what must differ between processes, and in [`strict`] also for what nobody may guess or repeat.
//!
//! It is drawn where a handle is made or recovers from a fork, and never on an ordinary beat.

#[cfg(not(any(target_os = "linux", target_os = "android")))]
use std::fs::File;
#[cfg(not(any(target_os = "linux", target_os = "android")))]
use std::io::Read;
use std::process;
use std::time::{SystemTime, UNIX_EPOCH};

#[cfg(any(target_os = "linux", target_os = "android"))]
use crate::sys;

#[cfg(any(feature = "secure-udp", not(any(target_os = "linux", target_os = "android"))))]
const DEVICE: &str = "/dev/urandom";

/// Draws a random number from the operating system, without waiting and without allocating. It need not be secret.
///
/// Where that has none to give (a system call that is forbidden, a boot that has just begun) the clock and the pid stand in.
pub(crate) fn random() -> u64 {
    drawn().unwrap_or_else(|| {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let nanos = now.as_secs().wrapping_mul(1_000_000_000).wrapping_add(u64::from(now.subsec_nanos()));
        scattered(nanos ^ u64::from(process::id()).rotate_left(32))
    })
}

#[cfg(any(target_os = "linux", target_os = "android"))]
fn drawn() -> Option<u64> {
    let mut bytes = [0; 8];
    let is_full = sys::get_random(&mut bytes).is_ok_and(|got| got == bytes.len());
    is_full.then(|| u64::from_ne_bytes(bytes))
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn drawn() -> Option<u64> {
    let mut bytes = [0; 8];
    File::open(DEVICE).and_then(|mut file| file.read_exact(&mut bytes)).ok()?;
    Some(u64::from_ne_bytes(bytes))
}

/// Spreads what little differs over all bits: the finisher of G. Steele, D. Lea and C. Flood, "Fast splittable pseudorandom
/// number generators", OOPSLA 2014.
const fn scattered(number: u64) -> u64 {
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

/// Draws 16 bytes that nothing else has, as [`random`] does. They need not be secret either.
pub(crate) fn random_id() -> [u8; 16] {
    (u128::from(random()) << u64::BITS | u128::from(random())).to_ne_bytes()
}

/// What depends on chance and on nothing else.
#[cfg(feature = "secure-udp")]
pub(crate) mod strict {
    use std::error::Error;
    use std::fmt;
    use std::fs::File;
    use std::io::{self, Read};
    use std::os::unix::fs::FileTypeExt;

    use varta_proto::secure::Session;

    use super::DEVICE;
    #[cfg(any(target_os = "linux", target_os = "android"))]
    use crate::sys;

    /// Draws the salt of a session from the operating system, without waiting and without allocating. Nothing stands in
    /// for it: with a salt that was there before, nonces would repeat, and with them the cipher is worth nothing.
    pub(crate) fn salt() -> Result<[u8; Session::SALT_LEN], NoEntropy> {
        let mut salt = [0; Session::SALT_LEN];
        match fill(&mut salt) {
            Ok(()) => Ok(salt),
            Err(source) => Err(NoEntropy { source }),
        }
    }

    #[cfg(any(target_os = "linux", target_os = "android"))]
    fn fill(bytes: &mut [u8]) -> io::Result<()> {
        match sys::get_random(bytes) {
            Ok(got) if got == bytes.len() => Ok(()),
            // The call is missing, or forbidden to this process. A generator that is not seeded yet is no such case: the
            // device would answer all the same.
            Err(error) if !matches!(error.raw_os_error(), Some(libc::ENOSYS | libc::EPERM)) => Err(error),
            Ok(_) | Err(_) => fill_from_device(bytes),
        }
    }

    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    fn fill(bytes: &mut [u8]) -> io::Result<()> {
        fill_from_device(bytes)
    }

    fn fill_from_device(bytes: &mut [u8]) -> io::Result<()> {
        let mut device = File::open(DEVICE)?;
        // In a chroot somebody may have put a file there, which says the same each time.
        if !device.metadata()?.file_type().is_char_device() {
            return Err(io::ErrorKind::NotFound.into());
        }
        device.read_exact(bytes)
    }

    /// The operating system gives nothing that nobody could guess.
    #[derive(Debug)]
    pub(crate) struct NoEntropy {
        source: io::Error,
    }

    impl NoEntropy {
        /// Makes it the error of a beat, without its source: that may be a file that is not there, and a beat would
        /// take that for a server that is not there. It allocates nothing.
        pub(crate) fn into_beat_error(self) -> io::Error {
            io::ErrorKind::Other.into()
        }
    }

    impl fmt::Display for NoEntropy {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "the operating system gives no randomness: {}", self.source)
        }
    }

    impl Error for NoEntropy {
        fn source(&self) -> Option<&(dyn Error + 'static)> {
            Some(&self.source)
        }
    }

    #[cfg(test)]
    mod tests {
        use super::*;
        use crate::outcome::{BeatOutcome, classify_send_error};

        #[test]
        fn two_salts_differ_wherever_they_come_from() {
            let (mut one, mut other) = ([0; 16], [0; 16]);
            fill_from_device(&mut one).unwrap();
            fill_from_device(&mut other).unwrap();
            assert_ne!(one, other);
            assert_ne!(salt().unwrap(), salt().unwrap());
        }

        #[test]
        fn a_beat_without_entropy_has_failed_whatever_the_reason() {
            for errno in [libc::ENOENT, libc::EAGAIN, libc::ENOSYS] {
                let error = NoEntropy { source: io::Error::from_raw_os_error(errno) };
                assert!(error.to_string().contains("no randomness"), "{error}");
                let outcome = classify_send_error(&error.into_beat_error());
                assert!(matches!(outcome, BeatOutcome::Failed(_)), "{outcome}");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_draws_differ() {
        assert_ne!(random(), random());
        assert!(drawn().is_some());
    }

    #[test]
    fn what_stands_in_differs_in_all_bits() {
        let differing = (scattered(1) ^ scattered(2)).count_ones();
        assert!((16..=48).contains(&differing), "{differing}");
        assert_ne!(scattered(1), scattered(1 << 32));
    }
}
