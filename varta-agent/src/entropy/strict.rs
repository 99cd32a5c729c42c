//! Random bytes that must be unpredictable.

use std::error::Error;
use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileTypeExt;

use varta_proto::secure::Session;

use super::random::DEVICE;
#[cfg(any(target_os = "linux", target_os = "android"))]
use crate::sys;

/// Draws the salt of a session from the operating system, without blocking and without allocating. There is
/// no other source: with a repeated salt nonces would repeat, and the cipher would protect nothing.
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
        // The system call is missing or forbidden. If the generator is not seeded yet, the error is another
        // one, and the device is no substitute: it would give bytes all the same.
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
    // In a chroot the path may be a regular file, which has the same content each time.
    if !device.metadata()?.file_type().is_char_device() {
        return Err(io::ErrorKind::NotFound.into());
    }
    device.read_exact(bytes)
}

/// The operating system has no unpredictable bytes.
#[derive(Debug)]
pub(crate) struct NoEntropy {
    source: io::Error,
}

impl NoEntropy {
    /// Converts it to the error of a beat, without its source: an `ENOENT` of the device would be classified
    /// as a missing server. It allocates nothing.
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
