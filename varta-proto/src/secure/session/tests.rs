use super::*;
use std::collections::HashSet;
use std::format;

const SALT: [u8; Session::SALT_LEN] = [0x5a; Session::SALT_LEN];

fn next_nonce(session: &mut Session) -> [u8; NONCE_LEN] {
    session.next_nonce().unwrap().into_bytes()
}

fn nonce(index: u32, counter: u32) -> [u8; NONCE_LEN] {
    Nonce::new(prefix(&SALT, index), counter).into_bytes()
}

#[test]
fn the_first_counter_is_one_and_each_is_one_more() {
    let mut session = Session::new(SALT);
    assert_eq!([(); 3].map(|()| next_nonce(&mut session)), [nonce(0, 1), nonce(0, 2), nonce(0, 3)]);
}

#[test]
fn the_next_prefix_comes_before_the_counter_wraps() {
    let mut session = Session::resume_for_test(SALT, 6, u32::MAX - 1);
    assert_eq!([(); 3].map(|()| next_nonce(&mut session)), [nonce(6, u32::MAX), nonce(7, 1), nonce(7, 2)]);
}

#[test]
fn no_nonce_comes_twice_across_prefixes() {
    let mut seen = HashSet::new();
    for index in 0..50 {
        let mut session = Session::resume_for_test(SALT, 2 * index, u32::MAX - 100);
        for _ in 0..200 {
            assert!(seen.insert(next_nonce(&mut session)), "{session:?}");
        }
    }
}

#[test]
fn an_exhausted_session_stays_so_until_it_is_renewed() {
    let mut session = Session::resume_for_test(SALT, u32::MAX, u32::MAX - 1);
    assert_eq!(next_nonce(&mut session), nonce(u32::MAX, u32::MAX));
    for _ in 0..3 {
        assert_eq!(session.next_nonce().err(), Some(Exhausted));
    }
    session.renew([0xa5; Session::SALT_LEN]);
    assert_eq!(next_nonce(&mut session), Nonce::new(prefix(&[0xa5; Session::SALT_LEN], 0), 1).into_bytes());
}

#[test]
fn renewing_with_the_same_salt_repeats_nothing() {
    let mut session = Session::new(SALT);
    assert_eq!(next_nonce(&mut session), nonce(0, 1));
    session.renew(SALT);
    assert_eq!(next_nonce(&mut session), nonce(0, 2));

    let mut exhausted = Session::resume_for_test(SALT, u32::MAX, u32::MAX);
    exhausted.renew(SALT);
    assert_eq!(exhausted.next_nonce().err(), Some(Exhausted));
}

#[test]
fn debug_tells_how_far_it_is_and_not_the_salt() {
    let session = Session::resume_for_test(SALT, 3, 9);
    assert_eq!(format!("{session:?}"), "Session { index: 3, counter: 9, .. }");
}
