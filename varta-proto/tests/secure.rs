//! Properties of every sealed datagram and of every other sequence of bytes, with independent implementations
//! of the cipher and of the derivation.

#![cfg(feature = "secure")]
#![allow(clippy::unwrap_used, reason = "the helpers of tests are tests too")]

use std::cell::Cell;

use chacha20poly1305::aead::AeadInPlace;
use chacha20poly1305::{ChaCha20Poly1305, KeyInit};
use hkdf::Hkdf;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;
use sha2::Sha256;
use varta_proto::control::{AgentName, EncodedControl, Hello, MAX_CONTROL_LEN};
use varta_proto::secure::{
    AgentKeys, Envelope, Key, MASTER_LEN, MAX_SEALED_CONTROL_LEN, OpenError, Opened, Opener, SHARED_LEN,
    Session, open_agent, open_any, open_control_agent, open_control_any, open_control_master,
    open_control_shared, open_master, open_shared, seal_control_master, seal_control_shared, seal_master,
    seal_shared,
};
use varta_proto::{DecodeError, FRAME_LEN, Frame, NONCE_TERMINAL, Status};

const PID: u32 = 4242;

fn valid_frame() -> impl Strategy<Value = Frame> {
    (2..=u32::MAX, 0..u64::MAX, 0..NONCE_TERMINAL, any::<u32>()).prop_map(
        |(pid, timestamp, nonce, payload)| Frame::new(Status::Degraded, pid, timestamp, nonce, payload),
    )
}

/// A Hello with a name of this length.
fn hello(name: usize, out: &mut [u8; MAX_CONTROL_LEN]) -> EncodedControl<'_> {
    let name = AgentName::parse(&"x".repeat(name)).unwrap();
    Hello { name: Some(&name), ..Hello::new(PID, 0, 0, [7; 16]) }.encode(out)
}

fn frame_of(pid: u32) -> [u8; FRAME_LEN] {
    Frame::new(Status::Ok, pid, 0, 1, 0).to_bytes()
}

fn derived<const N: usize>(secret: &[u8], label: &[u8], number: u32) -> [u8; N] {
    let mut out = [0; N];
    let info = [label, &[0], &number.to_le_bytes()].concat();
    Hkdf::<Sha256>::new(None, secret).expand(&info, &mut out).unwrap();
    out
}

/// Seals with the other implementation: `head`, which is authenticated together with `extra`, the nonce, the
/// text, the tag.
fn sealed_elsewhere(key: &[u8; 32], extra: &[u8], head: &[u8], nonce: [u8; 12], text: &[u8]) -> Vec<u8> {
    let mut text = text.to_vec();
    let tag = ChaCha20Poly1305::new(key.into())
        .encrypt_in_place_detached(&nonce.into(), &[extra, head].concat(), &mut text)
        .unwrap();
    [head, &nonce, &text, &tag].concat()
}

/// Opens with the other implementation.
fn opened_elsewhere(key: &[u8; 32], extra: &[u8], head: usize, datagram: &[u8]) -> Option<Vec<u8>> {
    let (head, rest) = datagram.split_at(head);
    let (nonce, rest) = rest.split_first_chunk::<12>()?;
    let (text, tag) = rest.split_last_chunk::<16>()?;
    let mut text = text.to_vec();
    let aad = [extra, head].concat();
    ChaCha20Poly1305::new(key.into())
        .decrypt_in_place_detached(nonce.into(), &aad, &mut text, tag.into())
        .ok()?;
    Some(text)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn what_is_sealed_opens_to_itself(frame in valid_frame(), key: [u8; 32], salt: [u8; 16]) {
        let key = Key::from_bytes(key);
        let mut session = Session::new(salt);
        let iv_random = derived(&salt, b"varta-iv-prefix-v1", 0);

        let shared = seal_shared(&key, &mut session, &frame.to_bytes()).unwrap();
        let expected = Opened { frame, iv_random, iv_counter: 1 };
        prop_assert_eq!(open_shared(&key, &shared), Ok(expected));
        let envelope = Envelope { pid: None, iv_random, iv_counter: 1 };
        prop_assert_eq!(Envelope::of_shared(&shared), Some(envelope));

        let agent_key = key.agent_key(frame.pid);
        let master = seal_master(&agent_key, frame.pid, &mut session, &frame.to_bytes()).unwrap();
        let expected = Opened { frame, iv_random, iv_counter: 2 };
        prop_assert_eq!(open_master(&key, &master), Ok(expected));
        prop_assert_eq!(open_agent(&agent_key, &master), Ok(expected));
        let envelope = Envelope { pid: Some(frame.pid), iv_random, iv_counter: 2 };
        prop_assert_eq!(Envelope::of_master(&master), Some(envelope));
    }

    #[test]
    fn another_implementation_opens_what_we_seal(frame: [u8; FRAME_LEN], pid: u32, key: [u8; 32], salt: [u8; 16]) {
        let mut session = Session::new(salt);
        let shared = seal_shared(&Key::from_bytes(key), &mut session, &frame).unwrap();
        prop_assert_eq!(opened_elsewhere(&key, b"", 0, &shared), Some(frame.to_vec()));

        let agent_key = Key::from_bytes(key).agent_key(pid);
        let master = seal_master(&agent_key, pid, &mut session, &frame).unwrap();
        let agent_key = derived(&key, b"varta-agent-v1", pid);
        prop_assert_eq!(opened_elsewhere(&agent_key, b"", 4, &master), Some(frame.to_vec()));
        prop_assert_eq!(&master[..4], pid.to_le_bytes());
    }

    #[test]
    fn we_open_what_another_implementation_seals(
        frame in valid_frame(), key: [u8; 32], iv_random: [u8; 8], iv_counter: u32,
    ) {
        let mut nonce = [0; 12];
        nonce[..8].copy_from_slice(&iv_random);
        nonce[8..].copy_from_slice(&iv_counter.to_le_bytes());
        let expected = Ok(Opened { frame, iv_random, iv_counter });

        let shared = sealed_elsewhere(&key, b"", b"", nonce, &frame.to_bytes());
        prop_assert_eq!(open_shared(&Key::from_bytes(key), &shared), expected);
        let agent_key = derived(&key, b"varta-agent-v1", frame.pid);
        let master =
            sealed_elsewhere(&agent_key, b"", &frame.pid.to_le_bytes(), nonce, &frame.to_bytes());
        prop_assert_eq!(open_master(&Key::from_bytes(key), &master), expected);
    }

    #[test]
    fn what_is_under_the_seal_is_judged_as_a_frame(frame: [u8; FRAME_LEN], key: [u8; 32]) {
        let key = Key::from_bytes(key);
        let datagram = seal_shared(&key, &mut Session::new([1; 16]), &frame).unwrap();
        let answer = open_shared(&key, &datagram).map(|opened| opened.frame);
        prop_assert_eq!(answer, Frame::decode(&frame).map_err(OpenError::Frame));
    }

    #[test]
    fn control_datagrams_seal_and_open_here_and_elsewhere(
        name in 1_usize..=64, key: [u8; 32], salt: [u8; 16],
    ) {
        let mut plain = [0; MAX_CONTROL_LEN];
        let plain = hello(name, &mut plain);
        let (mut out, mut room) = ([0; MAX_SEALED_CONTROL_LEN], [0; MAX_CONTROL_LEN]);
        let mut session = Session::new(salt);
        let master = Key::from_bytes(key);

        let datagram = seal_control_shared(&master, &mut session, plain, &mut out).unwrap();
        let opened = open_control_shared(&master, datagram, &mut room).unwrap();
        prop_assert_eq!((opened.control.encoded(), opened.iv_counter), (plain, 1));
        let elsewhere = opened_elsewhere(&key, b"varta-ctl-v1", 0, datagram);
        prop_assert_eq!(elsewhere, Some(plain.to_vec()));

        let agent_key = master.agent_key(PID);
        let datagram = seal_control_master(&agent_key, PID, &mut session, plain, &mut out).unwrap();
        let opened = open_control_master(&master, datagram, &mut room).unwrap();
        prop_assert_eq!((opened.control.encoded(), opened.iv_counter), (plain, 2));
        let opened = open_control_agent(&agent_key, datagram, &mut room).unwrap();
        prop_assert_eq!(opened.control.encoded(), plain);
        let agent_key = derived(&key, b"varta-agent-v1", PID);
        let elsewhere = opened_elsewhere(&agent_key, b"varta-ctl-v1", 4, datagram);
        prop_assert_eq!(elsewhere, Some(plain.to_vec()));
    }

    #[test]
    fn any_bytes_are_answered_and_never_with_a_panic(bytes in vec(any::<u8>(), 0..600), short in 0..100_usize) {
        let key = Key::from_bytes([1; 32]);
        let mut room = [0; MAX_CONTROL_LEN];
        for bytes in [&bytes[..], &bytes[..short.min(bytes.len())]] {
            let len = bytes.len();
            let error = |legal| if legal { OpenError::AuthFailed } else { OpenError::BadLength { actual: len } };
            prop_assert_eq!(open_shared(&key, bytes), Err(error(len == SHARED_LEN)));
            prop_assert_eq!(open_agent(&key, bytes), Err(error(len == MASTER_LEN)));
            prop_assert_eq!(open_master(&key, bytes), Err(error(len == MASTER_LEN)));
            let legal = |over: usize| {
                (32 + over..=512 + over).contains(&len) && len != SHARED_LEN && len != MASTER_LEN
            };
            prop_assert_eq!(open_control_shared(&key, bytes, &mut room).unwrap_err(), error(legal(28)));
            prop_assert_eq!(open_control_agent(&key, bytes, &mut room).unwrap_err(), error(legal(32)));
            prop_assert_eq!(open_control_master(&key, bytes, &mut room).unwrap_err(), error(legal(32)));
            prop_assert_eq!(Envelope::of_shared(bytes).is_some(), len >= 28);
            prop_assert_eq!(Envelope::of_master(bytes).is_some(), len >= 32);
        }
    }

    #[test]
    fn a_cut_or_longer_datagram_is_a_bad_length(cut in any::<Index>(), more in vec(any::<u8>(), 1..40)) {
        let key = Key::from_bytes([1; 32]);
        let mut session = Session::new([2; 16]);
        let shared = seal_shared(&key, &mut session, &frame_of(PID)).unwrap();
        let master = seal_master(&key.agent_key(PID), PID, &mut session, &frame_of(PID)).unwrap();
        for wire in [&shared[..], &master] {
            for bytes in [&wire[..cut.index(wire.len())], &[wire, &more].concat()] {
                let fault = OpenError::BadLength { actual: bytes.len() };
                prop_assert_eq!(open_shared(&key, bytes).is_err(), true);
                if bytes.len() != SHARED_LEN {
                    prop_assert_eq!(open_shared(&key, bytes), Err(fault));
                }
                if bytes.len() != MASTER_LEN {
                    prop_assert_eq!(open_master(&key, bytes), Err(fault));
                }
            }
        }
    }

    #[test]
    fn whichever_key_fits_is_found_and_all_are_tried(fits in 0_u8..6, keys in 1_u8..6) {
        let keys: Vec<Key> = (0..keys).map(|number| Key::from_bytes([number; 32])).collect();
        let sender = Key::from_bytes([fits; 32]);
        let frame = Frame::new(Status::Ok, PID, 0, 1, 0);
        let mut session = Session::new([2; 16]);
        let shared = seal_shared(&sender, &mut session, &frame.to_bytes()).unwrap();
        let master = seal_master(&sender.agent_key(PID), PID, &mut session, &frame.to_bytes()).unwrap();
        let fits = usize::from(fits);
        let expected = if fits < keys.len() { Ok((fits, frame)) } else { Err(OpenError::AuthFailed) };

        let taken = Cell::new(0);
        let count = |_: &_| taken.set(taken.get() + 1);
        let answer = open_any(keys.iter().map(Opener::Shared).inspect(count), &shared);
        prop_assert_eq!(answer.map(|(index, opened)| (index, opened.frame)), expected);
        let answer = open_any(keys.iter().map(Opener::Master).inspect(count), &master);
        prop_assert_eq!(answer.map(|(index, opened)| (index, opened.frame)), expected);
        prop_assert_eq!(taken.get(), 2 * keys.len());
        let prepared: Vec<AgentKeys> = keys.iter().map(AgentKeys::new).collect();
        let answer = open_any(prepared.iter().map(Opener::Agents), &master);
        prop_assert_eq!(answer.map(|(index, opened)| (index, opened.frame)), expected);
    }

    #[test]
    fn any_text_is_a_key_or_an_error(text in "\\PC{0,70}|[0-9a-fA-F]{62,66}") {
        let is_key = text.len() == 64 && text.chars().all(|digit| digit.is_ascii_hexdigit());
        prop_assert_eq!(Key::from_hex(&text).is_ok(), is_key);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn a_flipped_bit_is_never_opened(frame in valid_frame(), key: [u8; 32], name in 1_usize..=64) {
        let key = Key::from_bytes(key);
        let agent_key = key.agent_key(frame.pid);
        let mut session = Session::new([2; 16]);

        let shared = seal_shared(&key, &mut session, &frame.to_bytes()).unwrap();
        for bit in 0..8 * shared.len() {
            let mut bytes = shared;
            bytes[bit / 8] ^= 1 << (bit % 8);
            prop_assert_eq!(open_shared(&key, &bytes), Err(OpenError::AuthFailed), "bit {}", bit);
        }

        let master = seal_master(&agent_key, frame.pid, &mut session, &frame.to_bytes()).unwrap();
        for bit in 0..8 * master.len() {
            let mut bytes = master;
            bytes[bit / 8] ^= 1 << (bit % 8);
            prop_assert_eq!(open_master(&key, &bytes), Err(OpenError::AuthFailed), "bit {}", bit);
            prop_assert_eq!(open_agent(&agent_key, &bytes), Err(OpenError::AuthFailed), "bit {}", bit);
        }

        let (mut plain, mut out, mut room) =
            ([0; MAX_CONTROL_LEN], [0; MAX_SEALED_CONTROL_LEN], [0; MAX_CONTROL_LEN]);
        let control = seal_control_master(
            &key.agent_key(PID), PID, &mut session, hello(name, &mut plain), &mut out,
        ).unwrap().to_vec();
        for bit in 0..8 * control.len() {
            let mut bytes = control.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            let error = open_control_master(&key, &bytes, &mut room).unwrap_err();
            prop_assert_eq!(error, OpenError::AuthFailed, "bit {}", bit);
        }
        prop_assert_eq!(room, [0; MAX_CONTROL_LEN], "nothing of it is left behind");
    }
}

#[test]
fn a_key_of_another_pid_opens_nothing() {
    let master = Key::from_bytes([1; 32]);
    let mut session = Session::new([2; 16]);
    let foreign = seal_master(&master.agent_key(7), PID, &mut session, &frame_of(PID)).unwrap();
    assert_eq!(open_master(&master, &foreign), Err(OpenError::AuthFailed));
    let own = seal_master(&master.agent_key(PID), PID, &mut session, &frame_of(PID)).unwrap();
    assert_eq!(open_agent(&master.agent_key(7), &own), Err(OpenError::AuthFailed));
}

#[test]
fn an_agent_cannot_speak_for_another_pid() {
    let master = Key::from_bytes([1; 32]);
    let key = master.agent_key(PID);
    let mut session = Session::new([2; 16]);
    let beat = seal_master(&key, PID, &mut session, &frame_of(PID + 1)).unwrap();
    assert_eq!(open_master(&master, &beat), Err(OpenError::PidMismatch));
    // The pid is compared before anything else under the seal is checked.
    let junk = seal_master(&key, PID, &mut session, &[0; FRAME_LEN]).unwrap();
    assert_eq!(open_master(&master, &junk), Err(OpenError::PidMismatch));
    let openers = [Opener::Agent(&master), Opener::Agent(&key)];
    assert_eq!(open_any(openers, &junk), Err(OpenError::PidMismatch));

    let (mut plain, mut out, mut room) =
        ([0; MAX_CONTROL_LEN], [0; MAX_SEALED_CONTROL_LEN], [0; MAX_CONTROL_LEN]);
    let other = master.agent_key(PID + 1);
    let plain = hello(9, &mut plain);
    let control = seal_control_master(&other, PID + 1, &mut session, plain, &mut out).unwrap();
    let error = open_control_master(&master, control, &mut room).unwrap_err();
    assert_eq!(error, OpenError::PidMismatch);
}

#[test]
fn a_beat_and_a_control_datagram_are_sealed_differently() {
    let key = [1; 32];
    let mut plain = [0; MAX_CONTROL_LEN];
    let plain = hello(9, &mut plain);
    let mut room = [0; MAX_CONTROL_LEN];
    // Sealed as a beat is, with any content.
    let beatlike = sealed_elsewhere(&key, b"", b"", [3; 12], &plain);
    let error = open_control_shared(&Key::from_bytes(key), &beatlike, &mut room).unwrap_err();
    assert_eq!(error, OpenError::AuthFailed);
    // And a frame sealed as a control datagram is.
    let controllike = sealed_elsewhere(&key, b"varta-ctl-v1", b"", [3; 12], &frame_of(PID));
    assert_eq!(open_shared(&Key::from_bytes(key), &controllike), Err(OpenError::AuthFailed));
}

#[test]
fn what_is_under_the_seal_is_judged_as_a_control_datagram() {
    let key = [1; 32];
    let mut room = [0; MAX_CONTROL_LEN];
    let mut fault = |text: &[u8]| {
        let datagram = sealed_elsewhere(&key, b"varta-ctl-v1", b"", [3; 12], text);
        open_control_shared(&Key::from_bytes(key), &datagram, &mut room).unwrap_err()
    };
    assert_eq!(fault(&[0; 33]), OpenError::Frame(DecodeError::BadLength { actual: 33 }));
    assert_eq!(fault(&[0; 34]), OpenError::Frame(DecodeError::BadLength { actual: 34 }));
    let mut bodied = [0; 34];
    bodied[24] = 2;
    assert_eq!(fault(&bodied), OpenError::Frame(DecodeError::BadMagic));
    assert_eq!(fault(&[0; 513]), OpenError::BadLength { actual: 541 });
    assert_eq!(fault(&[0; 36]), OpenError::BadLength { actual: MASTER_LEN });
}

#[test]
fn no_key_fits_nothing() {
    assert_eq!(open_any([], &[0; SHARED_LEN]), Err(OpenError::AuthFailed));
    let mut room = [0; MAX_CONTROL_LEN];
    assert_eq!(open_control_any([], &[0; 100], &mut room).unwrap_err(), OpenError::AuthFailed);
}

#[test]
fn a_wrong_length_is_only_the_answer_if_it_is_wrong_for_all() {
    let key = Key::from_bytes([1; 32]);
    let openers = [Opener::Shared(&key), Opener::Master(&key)];
    assert_eq!(open_any(openers, &[0; SHARED_LEN]), Err(OpenError::AuthFailed));
    assert_eq!(open_any(openers, &[0; MASTER_LEN]), Err(OpenError::AuthFailed));
    assert_eq!(open_any(openers, &[0; 61]), Err(OpenError::BadLength { actual: 61 }));
}

#[test]
fn of_several_keys_that_fit_the_first_counts() {
    let keys = [[9; 32], [1; 32], [1; 32]].map(Key::from_bytes);
    let datagram = seal_shared(&keys[1], &mut Session::new([2; 16]), &frame_of(PID)).unwrap();
    assert_eq!(open_any(keys.iter().map(Opener::Shared), &datagram).unwrap().0, 1);
}

#[test]
fn an_answer_is_no_bigger_than_a_datagram() {
    assert!(size_of::<Result<Opened, OpenError>>() <= SHARED_LEN);
    assert_eq!(size_of::<Key>(), Key::LEN);
}

#[cfg(feature = "test-hooks")]
mod near_the_end {
    use super::*;
    use std::collections::HashSet;
    use varta_proto::secure::Exhausted;

    const SALT: [u8; 16] = [0x5a; 16];

    #[test]
    fn beats_and_control_datagrams_share_one_sequence_across_prefixes() {
        let key = Key::from_bytes([1; 32]);
        let agent_key = key.agent_key(PID);
        let mut session = Session::resume_for_test(SALT, 3, u32::MAX - 50);
        let (mut plain, mut out) = ([0; MAX_CONTROL_LEN], [0; MAX_SEALED_CONTROL_LEN]);
        let plain = hello(9, &mut plain);
        let mut seen = HashSet::new();
        for turn in 0..200 {
            let envelope = match turn % 4 {
                0 => Envelope::of_shared(&seal_shared(&key, &mut session, &frame_of(PID)).unwrap()),
                1 => Envelope::of_shared(seal_control_shared(&key, &mut session, plain, &mut out).unwrap()),
                2 => {
                    Envelope::of_master(&seal_master(&agent_key, PID, &mut session, &frame_of(PID)).unwrap())
                }
                _ => Envelope::of_master(
                    seal_control_master(&agent_key, PID, &mut session, plain, &mut out).unwrap(),
                ),
            };
            let Envelope { iv_random, iv_counter, .. } = envelope.unwrap();
            let index = if turn < 50 { 3 } else { 4 };
            assert_eq!(iv_random, derived(&SALT, b"varta-iv-prefix-v1", index), "turn {turn}");
            assert!(seen.insert((iv_random, iv_counter)), "turn {turn}");
        }
    }

    #[test]
    fn an_exhausted_session_seals_nothing_until_it_is_renewed() {
        let key = Key::from_bytes([1; 32]);
        let mut session = Session::resume_for_test(SALT, u32::MAX, u32::MAX);
        let (mut plain, mut out) = ([0; MAX_CONTROL_LEN], [0; MAX_SEALED_CONTROL_LEN]);
        let plain = hello(9, &mut plain);
        assert_eq!(seal_shared(&key, &mut session, &frame_of(PID)), Err(Exhausted));
        assert_eq!(seal_master(&key, PID, &mut session, &frame_of(PID)), Err(Exhausted));
        assert_eq!(seal_control_shared(&key, &mut session, plain, &mut out), Err(Exhausted));
        assert_eq!(seal_control_master(&key, PID, &mut session, plain, &mut out), Err(Exhausted));
        assert_eq!(out, [0; MAX_SEALED_CONTROL_LEN]);

        session.renew([0xa5; 16]);
        assert!(seal_shared(&key, &mut session, &frame_of(PID)).is_ok());
    }
}

#[cfg(feature = "std")]
proptest! {
    #[test]
    fn any_text_is_keys_or_an_error(
        lines in vec("[0-9a-f]{64}|# \\PC{0,9}| *|\\PC{0,5}", 0..6),
    ) {
        let text = lines.join("\n");
        let is_key = |line: &&String| line.len() == 64;
        let is_other = |line: &&String| !(line.trim().is_empty() || line.trim().starts_with('#'));
        match varta_proto::secure::parse_keys(&text) {
            Ok(keys) => prop_assert_eq!(keys.len(), lines.iter().filter(is_key).count()),
            Err(error) => {
                prop_assert!(is_other(&&lines[error.line - 1]), "{}", error);
            }
        }
    }
}
