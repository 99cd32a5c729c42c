//! Every function that opens datagrams rejects any bytes, and a sealed content is decoded as a plain one is.
//! Never a panic.
//!
//! ```text
//! cargo +nightly fuzz run open -- -max_total_time=10
//! ```

#![no_main]

use libfuzzer_sys::fuzz_target;
use varta_proto::control::{Control, MAX_CONTROL_LEN};
use varta_proto::secure::{
    Envelope, Key, MAX_SEALED_CONTROL_LEN, OpenError, Opener, Session, open_agent, open_any,
    open_control_agent, open_control_any, open_control_master, open_control_shared, open_master, open_shared,
    parse_keys, seal_control_master, seal_control_shared, seal_master, seal_shared,
};
use varta_proto::{FRAME_LEN, Frame};

fuzz_target!(|bytes: &[u8]| {
    let key = Key::from_bytes([0x5a; 32]);
    refuse(&key, bytes);
    if let Some(frame) = bytes.first_chunk() {
        seal_and_open(&key, frame);
    }
    if let Ok(control) = Control::decode(bytes) {
        seal_and_open_control(&key, &control);
    }
    if let Ok(text) = str::from_utf8(bytes)
        && let Err(error) = parse_keys(text)
    {
        assert!((1..=text.lines().count()).contains(&error.line));
    }
});

/// No datagram was sealed with this key, so none opens.
fn refuse(key: &Key, bytes: &[u8]) {
    let openers = [Opener::Shared(key), Opener::Agent(key), Opener::Master(key)];
    let mut room = [0; MAX_CONTROL_LEN];
    let errors = [
        open_shared(key, bytes).unwrap_err(),
        open_agent(key, bytes).unwrap_err(),
        open_master(key, bytes).unwrap_err(),
        open_any(openers, bytes).unwrap_err(),
        open_control_shared(key, bytes, &mut room).unwrap_err(),
        open_control_agent(key, bytes, &mut room).unwrap_err(),
        open_control_master(key, bytes, &mut room).unwrap_err(),
        open_control_any(openers, bytes, &mut room).unwrap_err(),
    ];
    for error in errors {
        assert!(matches!(error, OpenError::AuthFailed | OpenError::BadLength { .. }));
        assert!(!error.to_string().is_empty() && !error.kind().is_empty());
    }
    assert_eq!(Envelope::of_shared(bytes).is_some(), bytes.len() >= 28);
    assert_eq!(Envelope::of_master(bytes).is_some(), bytes.len() >= 32);
}

fn seal_and_open(key: &Key, frame: &[u8; FRAME_LEN]) {
    let mut session = Session::new([0xa5; 16]);
    let expected = Frame::decode(frame).map_err(OpenError::Frame);

    let datagram = seal_shared(key, &mut session, frame).expect("nonces are left");
    assert_eq!(open_shared(key, &datagram).map(|opened| opened.frame), expected);

    let [_, _, _, _, a, b, c, d, ..] = *frame;
    let pid = u32::from_le_bytes([a, b, c, d]);
    let datagram = seal_master(&key.agent_key(pid), pid, &mut session, frame).expect("nonces are left");
    assert_eq!(open_master(key, &datagram).map(|opened| opened.frame), expected);

    let other = pid ^ 1;
    let datagram = seal_master(&key.agent_key(other), other, &mut session, frame).expect("nonces are left");
    assert_eq!(open_master(key, &datagram), Err(OpenError::PidMismatch));
}

fn seal_and_open_control(key: &Key, control: &Control<'_>) {
    let mut session = Session::new([0xa5; 16]);
    let (mut out, mut room) = ([0; MAX_SEALED_CONTROL_LEN], [0; MAX_CONTROL_LEN]);
    // Another implementation may have omitted the padding, and sealed the datagram without it.
    let datagram =
        seal_control_shared(key, &mut session, control.encoded(), &mut out).expect("nonces are left");
    let opened = open_control_shared(key, datagram, &mut room).expect("it was sealed");
    assert_eq!(opened.control.encoded(), control.encoded());

    let (pid, agent_key) = (control.pid(), key.agent_key(control.pid()));
    let datagram = seal_control_master(&agent_key, pid, &mut session, control.encoded(), &mut out)
        .expect("nonces are left");
    let opened = open_control_master(key, datagram, &mut room).expect("it was sealed");
    assert_eq!(opened.control.encoded(), control.encoded());
}
