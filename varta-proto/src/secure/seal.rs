//! Sealing of frames and control datagrams.

use super::crypto::{self, NONCE_LEN, TAG_LEN};
use super::session::Nonce;
use super::wire::{
    MASTER_LEN, MASTER_OVERHEAD, MAX_SEALED_CONTROL_LEN, PID_LEN, Purpose, SHARED_LEN, SHARED_OVERHEAD,
};
use super::{Exhausted, Key, Session};
use crate::FRAME_LEN;
use crate::control::EncodedControl;

/// Seals a frame with the key shared by agents and server.
///
/// The frame is sealed unchecked, as [`Frame::encode`](crate::Frame::encode) writes it.
///
/// ```
/// use varta_proto::secure::{Key, Session, open_shared, seal_shared};
/// use varta_proto::{Frame, Status};
///
/// let key = Key::from_bytes([1; 32]);
/// let mut session = Session::new([2; 16]);
///
/// let frame = Frame::new(Status::Ok, 4242, 0, 1, 0);
/// let datagram = seal_shared(&key, &mut session, &frame.to_bytes())?;
/// assert_eq!(open_shared(&key, &datagram)?.frame, frame);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
///
/// When the session has no nonce left. Nothing was sealed, and the session is unchanged.
#[inline]
pub fn seal_shared(
    key: &Key,
    session: &mut Session,
    frame: &[u8; FRAME_LEN],
) -> Result<[u8; SHARED_LEN], Exhausted> {
    let nonce = session.next_nonce()?;
    Ok(seal_beat_shared(key, nonce, frame))
}

/// Seals a frame with the agent's own key, which [`Key::agent_key`] derives from the master key.
///
/// `pid` is the process that `agent_key` was derived for, and the pid of the frame. It is part of the
/// envelope; a receiver rejects the datagram if the key is another process's or the frame has another pid.
///
/// ```
/// use varta_proto::secure::{Key, Session, open_master, seal_master};
/// use varta_proto::{Frame, Status};
///
/// let master = Key::from_bytes([1; 32]);
/// let agent_key = master.agent_key(4242);
/// let mut session = Session::new([2; 16]);
///
/// let frame = Frame::new(Status::Ok, 4242, 0, 1, 0);
/// let datagram = seal_master(&agent_key, 4242, &mut session, &frame.to_bytes())?;
/// assert_eq!(open_master(&master, &datagram)?.frame, frame);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
///
/// When the session has no nonce left. Nothing was sealed, and the session is unchanged.
#[inline]
pub fn seal_master(
    agent_key: &Key,
    pid: u32,
    session: &mut Session,
    frame: &[u8; FRAME_LEN],
) -> Result<[u8; MASTER_LEN], Exhausted> {
    let nonce = session.next_nonce()?;
    Ok(seal_beat_master(agent_key, pid, nonce, frame))
}

/// Seals a control datagram with the key shared by agents and server, into `out`, and returns the part of
/// `out` that it takes.
///
/// It uses a nonce of the same session as the beats.
///
/// ```
/// use varta_proto::control::{Hello, MAX_CONTROL_LEN};
/// use varta_proto::secure::{
///     Key, MAX_SEALED_CONTROL_LEN, Session, open_control_shared, seal_control_shared,
/// };
///
/// let key = Key::from_bytes([1; 32]);
/// let mut session = Session::new([2; 16]);
///
/// let mut plain = [0; MAX_CONTROL_LEN];
/// let hello = Hello::new(4242, 0, 0, [3; 16]).encode(&mut plain);
/// let mut out = [0; MAX_SEALED_CONTROL_LEN];
/// let datagram = seal_control_shared(&key, &mut session, hello, &mut out)?;
///
/// let mut room = [0; MAX_CONTROL_LEN];
/// let opened = open_control_shared(&key, datagram, &mut room)?;
/// assert_eq!(opened.control.session(), [3; 16]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
///
/// When the session has no nonce left. Nothing was sealed or written, and the session is unchanged.
pub fn seal_control_shared<'o>(
    key: &Key,
    session: &mut Session,
    control: EncodedControl<'_>,
    out: &'o mut [u8; MAX_SEALED_CONTROL_LEN],
) -> Result<&'o [u8], Exhausted> {
    let nonce = session.next_nonce()?;
    let (out, _) = out.split_at_mut(control.len() + SHARED_OVERHEAD);
    seal(Purpose::Control, key, None, nonce, &control, out);
    Ok(out)
}

/// Seals a control datagram with the agent's own key, into `out`, and returns the part of `out` that it
/// takes.
///
/// `pid` and `agent_key` are as in [`seal_master`]. It uses a nonce of the same session as the beats.
///
/// ```
/// use varta_proto::control::{Goodbye, GoodbyeReason, MAX_CONTROL_LEN};
/// use varta_proto::secure::{
///     Key, MAX_SEALED_CONTROL_LEN, Session, open_control_master, seal_control_master,
/// };
///
/// let master = Key::from_bytes([1; 32]);
/// let mut session = Session::new([2; 16]);
///
/// let mut plain = [0; MAX_CONTROL_LEN];
/// let goodbye = Goodbye::new(4242, 0, 7, [3; 16], GoodbyeReason::Restart).encode(&mut plain);
/// let mut out = [0; MAX_SEALED_CONTROL_LEN];
/// let datagram = seal_control_master(&master.agent_key(4242), 4242, &mut session, goodbye, &mut out)?;
///
/// let mut room = [0; MAX_CONTROL_LEN];
/// let opened = open_control_master(&master, datagram, &mut room)?;
/// assert_eq!(opened.control.reason(), Some(GoodbyeReason::Restart));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
///
/// When the session has no nonce left. Nothing was sealed or written, and the session is unchanged.
pub fn seal_control_master<'o>(
    agent_key: &Key,
    pid: u32,
    session: &mut Session,
    control: EncodedControl<'_>,
    out: &'o mut [u8; MAX_SEALED_CONTROL_LEN],
) -> Result<&'o [u8], Exhausted> {
    let nonce = session.next_nonce()?;
    let (out, _) = out.split_at_mut(control.len() + MASTER_OVERHEAD);
    seal(Purpose::Control, agent_key, Some(pid), nonce, &control, out);
    Ok(out)
}

#[inline]
fn seal_beat_shared(key: &Key, nonce: Nonce, frame: &[u8; FRAME_LEN]) -> [u8; SHARED_LEN] {
    let mut out = [0; SHARED_LEN];
    seal(Purpose::Beat, key, None, nonce, frame, &mut out);
    out
}

#[inline]
fn seal_beat_master(key: &Key, pid: u32, nonce: Nonce, frame: &[u8; FRAME_LEN]) -> [u8; MASTER_LEN] {
    let mut out = [0; MASTER_LEN];
    seal(Purpose::Beat, key, Some(pid), nonce, frame, &mut out);
    out
}

/// Writes a sealed datagram into `out`, which has exactly its length: the master form with a pid, else the
/// shared form.
#[inline]
fn seal(purpose: Purpose, key: &Key, pid: Option<u32>, nonce: Nonce, plain: &[u8], out: &mut [u8]) {
    let pid = pid.map(u32::to_le_bytes);
    let nonce = nonce.into_bytes();
    let (head, rest) = out.split_at_mut(if pid.is_some() { PID_LEN + NONCE_LEN } else { NONCE_LEN });
    let (text, tag) = rest.split_at_mut(plain.len());
    if let Some(pid) = pid {
        head[..PID_LEN].copy_from_slice(&pid);
    }
    let offset = head.len() - NONCE_LEN;
    head[offset..].copy_from_slice(&nonce);
    text.copy_from_slice(plain);
    tag.copy_from_slice(&purpose.with_aad(pid, |aad| crypto::seal(key.as_bytes(), nonce, aad, text)));
}

const _: () = assert!(SHARED_OVERHEAD == NONCE_LEN + TAG_LEN && MASTER_OVERHEAD == PID_LEN + SHARED_OVERHEAD);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::Control;
    use crate::test_vectors::{for_each, hex, number, text};
    use serde_json::Value;
    use std::vec;

    fn key(entry: &Value, field: &str) -> Key {
        Key::from_hex(text(entry, field)).unwrap()
    }

    fn nonce(entry: &Value) -> Nonce {
        Nonce::new(hex(entry, "iv_random").try_into().unwrap(), number(entry, "iv_counter"))
    }

    #[test]
    fn every_frame_seals_to_exactly_its_bytes() {
        for_each("secure", |id, entry| {
            let frame = hex(entry, "plaintext").try_into().unwrap();
            let wire = hex(entry, "wire");
            if text(entry, "mode") == "shared" {
                assert_eq!(seal_beat_shared(&key(entry, "key"), nonce(entry), &frame)[..], wire, "{id}");
            } else {
                let pid = number(entry, "pid");
                let agent_key = key(entry, "master_key").agent_key(pid);
                assert_eq!(agent_key, key(entry, "agent_key"), "{id}");
                assert_eq!(seal_beat_master(&agent_key, pid, nonce(entry), &frame)[..], wire, "{id}");
            }
        });
    }

    #[test]
    fn every_control_datagram_seals_to_exactly_its_bytes() {
        for_each("control_secure", |id, entry| {
            let plain = hex(entry, "plaintext");
            let wire = hex(entry, "wire");
            assert!(Control::decode(&plain).is_ok(), "{id}");
            let mut out = vec![0; wire.len()];
            if text(entry, "mode") == "shared" {
                seal(Purpose::Control, &key(entry, "key"), None, nonce(entry), &plain, &mut out);
            } else {
                let pid = number(entry, "pid");
                let agent_key = key(entry, "master_key").agent_key(pid);
                seal(Purpose::Control, &agent_key, Some(pid), nonce(entry), &plain, &mut out);
            }
            assert_eq!(out, wire, "{id}");
        });
    }
}
