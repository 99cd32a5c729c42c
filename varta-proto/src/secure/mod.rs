//! Sealed datagrams: frames and control datagrams under ChaCha20-Poly1305 (RFC 8439), for networks that others
//! can listen to and write into.
//!
//! A beat is sealed in one of two forms, told apart by their length:
//!
//! | form | length | what stands outside | key |
//! |---|---|---|---|
//! | shared | [`SHARED_LEN`] | nonce, tag | one [`Key`] for all agents and the server |
//! | master | [`MASTER_LEN`] | pid, nonce, tag | [each agent its own](Key::agent_key), derived from a master key |
//!
//! In the master form an agent that was broken into can speak for its own pid and for nobody else, unless it
//! holds the master key.
//!
//! A sealed control datagram is 28 or 32 bytes longer than the plain one, and therefore never as long as a
//! beat of either form. Its length does not tell which of the forms it has: a receiver that has keys of both
//! tries both, with [`open_control_any`].
//!
//! # Sealing
//!
//! What is never to happen is that one key and one nonce seal two datagrams. Nonces come from a [`Session`],
//! which spends them and can be neither copied nor set back.
//!
//! # Opening
//!
//! What arrives is hostile until its tag has been verified. What an honest sender sealed can still be sent
//! once more by somebody else, and verifies: a receiver keeps, for each sender, the highest
//! [`iv_counter`](Opened::iv_counter) that it has accepted with an [`iv_random`](Opened::iv_random), and
//! refuses what is not higher. [`Envelope`] reads both, and the pid, before anything is opened.
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
//! Nothing here allocates, except what reads keys from files and so needs the standard library.

mod crypto;
mod envelope;
mod error;
mod key;
// Where the owner and the mode of a file tell who can read it.
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
