//! The cryptographic operations, all of them from ring: the cipher and the derivation of keys.
//!
//! Only this file uses ring, so that a replacement means rewriting four functions. None of them allocates.
//! ring does not wipe the cipher state that it computes from a key; the state lives on the stack during one
//! call and is computed again for each, because it is seventeen times as large as the key.

use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, MAX_TAG_LEN, Nonce, UnboundKey};
use ring::hkdf::{HKDF_SHA256, KeyType, Prk};
use ring::hmac;

/// The length of a key, in bytes.
pub(super) const KEY_LEN: usize = 32;

/// The length of a nonce, in bytes. The cipher needs a different nonce for each datagram under one key.
pub(super) const NONCE_LEN: usize = 12;

/// The length of an authentication tag, in bytes.
pub(super) const TAG_LEN: usize = MAX_TAG_LEN;

/// Encrypts `text` in place, and returns the tag for it and `aad`.
#[inline]
pub(super) fn seal(
    key: &[u8; KEY_LEN],
    nonce: [u8; NONCE_LEN],
    aad: &[u8],
    text: &mut [u8],
) -> [u8; TAG_LEN] {
    let nonce = Nonce::assume_unique_for_key(nonce);
    let tag = cipher(key)
        .seal_in_place_separate_tag(nonce, Aad::from(aad), text)
        .expect("the cipher takes up to 256 GiB at once");
    let mut out = [0; TAG_LEN];
    out.copy_from_slice(tag.as_ref());
    out
}

/// Decrypts `text` in place, and returns whether `tag` authenticates it and `aad`. If not, `text` holds
/// zeros.
#[must_use]
#[inline]
pub(super) fn open(
    key: &[u8; KEY_LEN],
    nonce: [u8; NONCE_LEN],
    aad: &[u8],
    text: &mut [u8],
    tag: [u8; TAG_LEN],
) -> bool {
    let nonce = Nonce::assume_unique_for_key(nonce);
    cipher(key).open_in_place_separate_tag(nonce, Aad::from(aad), tag.into(), text, 0..).is_ok()
}

/// Fills `out` with the output of HKDF-SHA256 for `secret` and the concatenated pieces of `info`, without a
/// salt.
pub(super) fn derive(secret: &[u8], info: &[&[u8]], out: &mut [u8]) {
    expand(&extract(secret), info, out);
}

/// The extract step of [`derive`](fn@derive), which is the same for every `info`. Returns the pseudorandom key of RFC
/// 5869.
pub(super) fn extract(secret: &[u8]) -> [u8; KEY_LEN] {
    // RFC 5869 defines a missing salt as zeros of the hash's length.
    let salt = hmac::Key::new(hmac::HMAC_SHA256, &[0; KEY_LEN]);
    let mut pseudorandom_key = [0; KEY_LEN];
    pseudorandom_key.copy_from_slice(hmac::sign(&salt, secret).as_ref());
    pseudorandom_key
}

/// The expand step of [`derive`](fn@derive).
pub(super) fn expand(pseudorandom_key: &[u8; KEY_LEN], info: &[&[u8]], out: &mut [u8]) {
    Prk::new_less_safe(HKDF_SHA256, pseudorandom_key)
        .expand(info, Length(out.len()))
        .and_then(|okm| okm.fill(out))
        .expect("HKDF gives up to 8160 bytes");
}

#[inline]
fn cipher(key: &[u8; KEY_LEN]) -> LessSafeKey {
    LessSafeKey::new(
        UnboundKey::new(&CHACHA20_POLY1305, key).expect("the length is that of the cipher's keys"),
    )
}

/// The number of bytes to derive.
struct Length(usize);

impl KeyType for Length {
    fn len(&self) -> usize {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_vectors::{for_each, hex};
    use std::vec;

    #[test]
    fn every_derivation_has_exactly_its_bytes() {
        for_each("kdf", |id, entry| {
            let info = hex(entry, "info");
            let expected = hex(entry, "okm");
            let mut out = vec![0; expected.len()];
            // In two pieces, as every caller passes `info`.
            let (label, context) = info.split_at(info.len() / 2);
            derive(&hex(entry, "ikm"), &[label, context], &mut out);
            assert_eq!(out, expected, "{id}");
        });
    }

    #[test]
    fn what_does_not_verify_is_wiped() {
        let mut text = *b"thirty-two bytes of one thing...";
        let tag = seal(&[1; KEY_LEN], [2; NONCE_LEN], &[], &mut text);
        assert!(!open(&[1; KEY_LEN], [2; NONCE_LEN], b"more", &mut text, tag));
        assert_eq!(text, [0; 32]);
    }
}
