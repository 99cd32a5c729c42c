//! Sealed datagrams: frames and control datagrams under ChaCha20-Poly1305 (RFC 8439), for networks that
//! others can read and write.
//!
//! A sealed beat has one of two forms, which differ in their length:
//!
//! | form | length | envelope | key |
//! |---|---|---|---|
//! | shared | [`SHARED_LEN`] | nonce, tag | one [`Key`] for all agents and the server |
//! | master | [`MASTER_LEN`] | pid, nonce, tag | [one for each agent](Key::agent_key), derived from a master key |
//!
//! In the master form a compromised agent can impersonate only its own pid, unless it holds the master key.
//!
//! A sealed control datagram is 28 or 32 bytes longer than the plain one, and never has the length of a beat
//! of either form. Its length does not determine its form: a receiver with keys of both forms tries both,
//! with [`open_control_any`].
//!
//! # Sealing
//!
//! One key and one nonce must never seal two datagrams. Nonces come from a [`Session`], which uses each once
//! and can be neither copied nor reset.
//!
//! # Opening
//!
//! A datagram is untrusted until its tag has been verified. An attacker can replay a datagram of an honest
//! sender, and its tag verifies: a receiver stores, for each sender, the highest
//! [`iv_counter`](Opened::iv_counter) that it has accepted with an [`iv_random`](Opened::iv_random), and
//! rejects any that is not higher. [`Envelope`] reads both, and the pid, before anything is opened.
//!
//! ```
//! use varta_proto::secure::{Key, Opener, Session, open_any, seal_shared};
//! use varta_proto::{Frame, Status};
//!
//! let mut session = Session::new([2; 16]);
//! let frame = Frame::new(Status::Ok, 4242, 0, 1, 0);
//! let datagram = seal_shared(&Key::from_bytes([7; 32]), &mut session, &frame.to_bytes())?;
//!
//! // While keys are rotated a server accepts the new one and the old one.
//! let keys = [Key::from_bytes([8; 32]), Key::from_bytes([7; 32])];
//! let (index, opened) = open_any(keys.iter().map(Opener::Shared), &datagram)?;
//! assert_eq!((index, opened.frame, opened.iv_counter), (1, frame, 1));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Nothing here allocates, except the functions that read keys from files, which need the standard library.

mod crypto;
mod envelope;
mod error;
mod key;
// On Unix, where owner and mode of a file determine who can read it.
#[cfg(all(feature = "std", unix))]
mod key_file;
#[cfg(feature = "std")]
mod key_list;
mod open;
mod seal;
mod session;
mod wire;

pub use envelope::Envelope;
pub use error::OpenError;
pub use key::{AgentKeys, Key, KeyError};
#[cfg(all(feature = "std", unix))]
pub use key_file::{KeyFileError, KeyFileFault, MAX_KEY_FILE_LEN, read_private};
#[cfg(feature = "std")]
pub use key_list::{KeyLineError, parse_keys};
pub use open::{
    Opened, OpenedControl, Opener, open_agent, open_any, open_control_agent, open_control_any,
    open_control_master, open_control_shared, open_master, open_shared,
};
pub use seal::{seal_control_master, seal_control_shared, seal_master, seal_shared};
pub use session::{Exhausted, Session};
pub use wire::{MASTER_LEN, MASTER_OVERHEAD, MAX_SEALED_CONTROL_LEN, SHARED_LEN, SHARED_OVERHEAD};
