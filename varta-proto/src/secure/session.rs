//! The sequence of nonces of one sender, in which none repeats.
//!
//! Sealing two datagrams with one key and one nonce reveals both, and the authentication key with them. So a
//! nonce can only be taken from the sequence: it cannot be chosen, stored, copied or returned.

use core::fmt;

use super::crypto::{self, NONCE_LEN};

/// The length of the part of a nonce that identifies a session and its prefix, in bytes.
pub(super) const PREFIX_LEN: usize = 8;

/// The sequence of nonces of one sender.
///
/// A session starts from a salt: 16 bytes of the operating system's entropy, drawn by the caller when the
/// handle is opened, because this crate draws none. A prefix of 8 bytes is derived from the salt and an index
/// that starts at 0; after the prefix a counter runs from 1 to `u32::MAX`, one for each datagram. Then the
/// index increases, the next prefix is derived, and the counter starts at 1 again. That needs no entropy, and
/// after the first nonce it is the only step in four billion that costs more than an addition.
///
/// A nonce stays used, also when sending fails afterwards: receivers accept gaps and reject repetitions.
///
/// # What the types cannot prevent
///
/// - After `fork` both processes hold the same session. The child must call [`renew`](Self::renew) with a new
///   salt before it seals anything.
/// - Two sessions with the same salt have the same nonces. A salt must be drawn at random, never configured
///   or derived.
///
/// A session cannot be cloned, which would repeat nonces within one process:
///
/// ```compile_fail,E0599
/// let session = varta_proto::secure::Session::new([7; 16]);
/// let copy = session.clone();
/// ```
///
/// ```compile_fail,E0382
/// let mut session = varta_proto::secure::Session::new([7; 16]);
/// let moved = session;
/// session.renew([8; 16]);
/// ```
pub struct Session {
    salt: [u8; Self::SALT_LEN],
    /// The number of prefixes before the current one.
    index: u32,
    /// Derived from the two fields above, and stored because each nonce contains it.
    prefix: [u8; PREFIX_LEN],
    /// The last counter used, 0 before the first.
    counter: u32,
}

impl Session {
    /// The length of a salt, in bytes.
    pub const SALT_LEN: usize = 16;

    /// Starts a session. `salt` must come fresh from the operating system's random number generator.
    ///
    /// ```
    /// use varta_proto::secure::Session;
    ///
    /// # fn draw() -> [u8; 16] { [0xd1; 16] }
    /// let session = Session::new(draw());
    /// ```
    pub fn new(salt: [u8; Self::SALT_LEN]) -> Self {
        Self::at(salt, 0, 0)
    }

    /// Restarts the session with another salt: after a fork, on reconnect, and when it is [`Exhausted`].
    ///
    /// With its current salt the session continues where it is, because a restart would repeat its nonces.
    ///
    /// ```
    /// use varta_proto::secure::{Key, Session, seal_shared};
    ///
    /// let key = Key::from_bytes([1; 32]);
    /// let mut session = Session::new([2; 16]);
    /// let first = seal_shared(&key, &mut session, &[0; 32])?;
    ///
    /// session.renew([3; 16]);
    /// let renewed = seal_shared(&key, &mut session, &[0; 32])?;
    /// assert_ne!(first[..8], renewed[..8], "another prefix");
    /// assert_eq!(first[8..12], renewed[8..12], "the same counter");
    /// # Ok::<(), varta_proto::secure::Exhausted>(())
    /// ```
    pub fn renew(&mut self, salt: [u8; Self::SALT_LEN]) {
        if salt != self.salt {
            *self = Self::new(salt);
        }
    }

    /// Starts a session at a position of the test's choice, after `index` prefixes and `counter` datagrams.
    ///
    /// It can repeat nonces, and exists for tests of exhaustion.
    ///
    /// ```
    /// use varta_proto::secure::{Key, Session, seal_shared};
    ///
    /// let key = Key::from_bytes([1; 32]);
    /// let mut session = Session::resume_for_test([2; 16], u32::MAX, u32::MAX - 1);
    /// assert!(seal_shared(&key, &mut session, &[0; 32]).is_ok());
    /// assert!(seal_shared(&key, &mut session, &[0; 32]).is_err());
    /// ```
    #[cfg(any(test, feature = "test-hooks"))]
    #[doc(hidden)]
    pub fn resume_for_test(salt: [u8; Self::SALT_LEN], index: u32, counter: u32) -> Self {
        Self::at(salt, index, counter)
    }

    fn at(salt: [u8; Self::SALT_LEN], index: u32, counter: u32) -> Self {
        Self { salt, index, prefix: prefix(&salt, index), counter }
    }

    /// Takes the next nonce. It counts as used before anything is done with it.
    #[inline]
    pub(super) fn next_nonce(&mut self) -> Result<Nonce, Exhausted> {
        self.counter = match self.counter.checked_add(1) {
            Some(counter) => counter,
            None => self.next_prefix()?,
        };
        Ok(Nonce::new(self.prefix, self.counter))
    }

    /// Advances to the next prefix, and returns its first counter. An exhausted session is unchanged.
    #[cold]
    fn next_prefix(&mut self) -> Result<u32, Exhausted> {
        self.index = self.index.checked_add(1).ok_or(Exhausted)?;
        self.prefix = prefix(&self.salt, self.index);
        Ok(1)
    }
}

/// Shows the position of the session, and not its salt.
impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { salt: _, index, prefix: _, counter } = self;
        f.debug_struct("Session").field("index", index).field("counter", counter).finish_non_exhaustive()
    }
}

/// Derives the prefix of a session with this index.
fn prefix(salt: &[u8; Session::SALT_LEN], index: u32) -> [u8; PREFIX_LEN] {
    let mut prefix = [0; PREFIX_LEN];
    crypto::derive(salt, &[b"varta-iv-prefix-v1\0", &index.to_le_bytes()], &mut prefix);
    prefix
}

/// A nonce for one datagram: neither `Clone` nor `Copy`.
pub(super) struct Nonce([u8; NONCE_LEN]);

impl Nonce {
    #[inline]
    pub(super) fn new(prefix: [u8; PREFIX_LEN], counter: u32) -> Self {
        let mut bytes = [0; NONCE_LEN];
        bytes[..PREFIX_LEN].copy_from_slice(&prefix);
        bytes[PREFIX_LEN..].copy_from_slice(&counter.to_le_bytes());
        Self(bytes)
    }

    #[inline]
    pub(super) fn into_bytes(self) -> [u8; NONCE_LEN] {
        self.0
    }
}

/// The session has no nonce left. Nothing was sealed; [`Session::renew`] provides new ones.
///
/// It takes some 2⁶⁴ datagrams to exhaust a session.
///
/// ```
/// assert_eq!(varta_proto::secure::Exhausted.to_string(), "every nonce of the session is spent");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exhausted;

impl fmt::Display for Exhausted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("every nonce of the session is spent")
    }
}

impl core::error::Error for Exhausted {}

#[cfg(test)]
mod tests;
