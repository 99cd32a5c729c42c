//! Opening of sealed datagrams.

use super::envelope::SealedParts;
use super::wire::Purpose;
use super::{AgentKeys, Envelope, Key, OpenError, crypto};
use crate::control::{Control, MAX_CONTROL_LEN};
use crate::{FRAME_LEN, Frame};

/// An opened frame, and the nonce of its datagram.
///
/// ```
/// use varta_proto::secure::{Key, Session, open_shared, seal_shared};
/// use varta_proto::{Frame, Status};
///
/// let key = Key::from_bytes([1; 32]);
/// let mut session = Session::new([2; 16]);
/// let frame = Frame::new(Status::Ok, 4242, 0, 1, 0).to_bytes();
///
/// let one = open_shared(&key, &seal_shared(&key, &mut session, &frame)?)?;
/// let two = open_shared(&key, &seal_shared(&key, &mut session, &frame)?)?;
/// assert_eq!(one.iv_random, two.iv_random);
/// assert!(one.iv_counter < two.iv_counter);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opened {
    /// The frame. It has passed every check of [`Frame::decode`], and in the master form its pid is the one
    /// of the key.
    pub frame: Frame,
    /// The random part of the nonce, which identifies the sender's session.
    pub iv_random: [u8; 8],
    /// The counter part of the nonce, which increases by one for each datagram of the session. Some senders
    /// start at 0, others at 1.
    pub iv_counter: u32,
}

/// An opened control datagram, and the nonce of its datagram.
///
/// ```
/// use varta_proto::control::{Hello, MAX_CONTROL_LEN};
/// use varta_proto::secure::{
///     Key, MAX_SEALED_CONTROL_LEN, Session, open_control_shared, seal_control_shared,
/// };
///
/// let key = Key::from_bytes([1; 32]);
/// let mut plain = [0; MAX_CONTROL_LEN];
/// let hello = Hello::new(4242, 0, 0, [3; 16]).encode(&mut plain);
/// let mut out = [0; MAX_SEALED_CONTROL_LEN];
/// let datagram = seal_control_shared(&key, &mut Session::new([2; 16]), hello, &mut out)?;
///
/// let mut room = [0; MAX_CONTROL_LEN];
/// let opened = open_control_shared(&key, datagram, &mut room)?;
/// assert_eq!((opened.control.pid(), opened.iv_counter), (4242, 1));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct OpenedControl<'a> {
    /// The control datagram, in the caller's buffer.
    pub control: Control<'a>,
    /// The random part of the nonce, as in [`Opened::iv_random`].
    pub iv_random: [u8; 8],
    /// The counter part of the nonce, as in [`Opened::iv_counter`]; beats and control datagrams share one
    /// sequence.
    pub iv_counter: u32,
}

/// A key together with the form of the datagrams that it opens.
///
/// It borrows the key, so each element of a list costs two words. A server with many agents stores their
/// 32-byte keys and not the cipher state, which is many times as large and cheap to compute.
///
/// ```
/// use varta_proto::secure::{Key, Opener};
///
/// let (current, previous) = (Key::from_bytes([2; 32]), Key::from_bytes([1; 32]));
/// let openers = [Opener::Shared(&current), Opener::Shared(&previous)];
/// assert_eq!(format!("{:?}", openers[0]), "Shared(Key(..))");
/// ```
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Opener<'k> {
    /// The key shared by agents and server: the shared form.
    Shared(&'k Key),
    /// One agent's key, already derived: the master form. Another agent's datagram fails with
    /// [`AuthFailed`](OpenError::AuthFailed).
    Agent(&'k Key),
    /// The master key: the master form, with the agent's key derived for each datagram.
    Master(&'k Key),
    /// The prepared master key: as [`Opener::Master`], at half of the derivation's cost.
    Agents(&'k AgentKeys),
}

impl Opener<'_> {
    /// Decrypts a datagram into the start of `plain`, and returns the envelope and the length of the
    /// decrypted content. After an error `plain` holds nothing of the datagram.
    #[inline]
    fn unseal(
        self,
        purpose: Purpose,
        datagram: &[u8],
        plain: &mut [u8],
    ) -> Result<(Envelope, usize), OpenError> {
        let parts = match self {
            Self::Shared(_) => SealedParts::of_shared(datagram),
            Self::Agent(_) | Self::Master(_) | Self::Agents(_) => SealedParts::of_master(datagram),
        };
        let parts = parts
            .filter(|parts| purpose.allows_len(datagram.len(), parts.text.len()))
            .ok_or(OpenError::BadLength { actual: datagram.len() })?;
        let envelope = parts.envelope();
        let derived;
        let pid = envelope.pid.unwrap_or_default();
        let key = match self {
            Self::Shared(key) | Self::Agent(key) => key,
            Self::Master(master) => {
                derived = master.agent_key(pid);
                &derived
            }
            Self::Agents(agents) => {
                derived = agents.of(pid);
                &derived
            }
        };
        let text = &mut plain[..parts.text.len()];
        text.copy_from_slice(parts.text);
        let verified = purpose.with_aad(parts.pid.copied(), |aad| {
            crypto::open(key.as_bytes(), *parts.nonce, aad, text, *parts.tag)
        });
        if verified { Ok((envelope, parts.text.len())) } else { Err(OpenError::AuthFailed) }
    }
}

/// Opens a beat in the shared form.
///
/// ```
/// use varta_proto::secure::{Key, OpenError, Session, open_shared, seal_shared};
/// use varta_proto::{Frame, Status};
///
/// let key = Key::from_bytes([1; 32]);
/// let frame = Frame::new(Status::Ok, 4242, 0, 1, 0);
/// let mut datagram = seal_shared(&key, &mut Session::new([2; 16]), &frame.to_bytes())?;
/// assert_eq!(open_shared(&key, &datagram)?.frame, frame);
///
/// datagram[30] ^= 1;
/// assert_eq!(open_shared(&key, &datagram), Err(OpenError::AuthFailed));
/// assert_eq!(open_shared(&key, b"hello"), Err(OpenError::BadLength { actual: 5 }));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
///
/// The first rule that the datagram breaks, in the order of the variants of [`OpenError`].
#[inline]
pub fn open_shared(key: &Key, datagram: &[u8]) -> Result<Opened, OpenError> {
    open(Opener::Shared(key), datagram)
}

/// Opens a beat in the master form, with the key of its agent, which the caller has derived before.
///
/// That is several times cheaper than [`open_master`]. [`Envelope::of_master`] returns the pid of the key.
///
/// ```
/// use varta_proto::secure::{Key, OpenError, Session, open_agent, seal_master};
/// use varta_proto::{Frame, Status};
///
/// let master = Key::from_bytes([1; 32]);
/// let (key, other) = (master.agent_key(4242), master.agent_key(4243));
/// let frame = Frame::new(Status::Ok, 4242, 0, 1, 0);
/// let datagram = seal_master(&key, 4242, &mut Session::new([2; 16]), &frame.to_bytes())?;
///
/// assert_eq!(open_agent(&key, &datagram)?.frame, frame);
/// assert_eq!(open_agent(&other, &datagram), Err(OpenError::AuthFailed));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
///
/// The first rule that the datagram breaks, in the order of the variants of [`OpenError`].
#[inline]
pub fn open_agent(agent_key: &Key, datagram: &[u8]) -> Result<Opened, OpenError> {
    open(Opener::Agent(agent_key), datagram)
}

/// Opens a beat in the master form, and derives the key of its agent for it.
///
/// ```
/// use varta_proto::secure::{Key, Session, open_master, seal_master};
/// use varta_proto::{Frame, Status};
///
/// let master = Key::from_bytes([1; 32]);
/// let frame = Frame::new(Status::Ok, 4242, 0, 1, 0);
/// let key = master.agent_key(4242);
/// let datagram = seal_master(&key, 4242, &mut Session::new([2; 16]), &frame.to_bytes())?;
/// assert_eq!(open_master(&master, &datagram)?.frame, frame);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
///
/// The first rule that the datagram breaks, in the order of the variants of [`OpenError`].
#[inline]
pub fn open_master(master: &Key, datagram: &[u8]) -> Result<Opened, OpenError> {
    open(Opener::Master(master), datagram)
}

/// Opens a beat with the one of several keys that fits, and returns that key's index.
///
/// All keys are tried, also after one has fitted, so that the time does not reveal which. So each accepted
/// key costs one trial for each datagram, and a rotation ends when the old key is removed. If several fit,
/// the first counts.
///
/// ```
/// use varta_proto::secure::{Key, OpenError, Opener, Session, open_any, seal_shared};
/// use varta_proto::{Frame, Status};
///
/// let keys = [Key::from_bytes([8; 32]), Key::from_bytes([7; 32])];
/// let frame = Frame::new(Status::Ok, 4242, 0, 1, 0);
/// let datagram = seal_shared(&keys[1], &mut Session::new([2; 16]), &frame.to_bytes())?;
///
/// let (index, opened) = open_any(keys.iter().map(Opener::Shared), &datagram)?;
/// assert_eq!((index, opened.frame), (1, frame));
///
/// let error = open_any([Opener::Shared(&keys[0])], &datagram).unwrap_err();
/// assert_eq!(error, OpenError::AuthFailed);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
///
/// The fault of the content if a key has fitted, else [`OpenError::BadLength`] if the length is wrong for all
/// keys, else [`OpenError::AuthFailed`], also for an empty list of keys.
#[inline]
pub fn open_any<'k>(
    openers: impl IntoIterator<Item = Opener<'k>>,
    datagram: &[u8],
) -> Result<(usize, Opened), OpenError> {
    let mut frame = [0; FRAME_LEN];
    let (index, envelope, _) = unseal_any(openers, Purpose::Beat, datagram, &mut frame)?;
    Ok((index, Opened::read(envelope, &frame)?))
}

/// Opens a control datagram in the shared form, into the caller's buffer.
///
/// ```
/// use varta_proto::control::MAX_CONTROL_LEN;
/// use varta_proto::secure::{Key, OpenError, open_control_shared};
///
/// let mut room = [0; MAX_CONTROL_LEN];
/// let error = open_control_shared(&Key::from_bytes([1; 32]), &[0; 60], &mut room).unwrap_err();
/// assert_eq!(error, OpenError::BadLength { actual: 60 }, "that is the length of a beat");
/// ```
///
/// # Errors
///
/// The first rule that the datagram breaks, in the order of the variants of [`OpenError`].
pub fn open_control_shared<'a>(
    key: &Key,
    datagram: &[u8],
    room: &'a mut [u8; MAX_CONTROL_LEN],
) -> Result<OpenedControl<'a>, OpenError> {
    open_control(Opener::Shared(key), datagram, room)
}

/// Opens a control datagram in the master form, with the key of its agent, which the caller has derived
/// before, into the caller's buffer.
///
/// ```
/// use varta_proto::control::MAX_CONTROL_LEN;
/// use varta_proto::secure::{Key, OpenError, open_control_agent};
///
/// let mut room = [0; MAX_CONTROL_LEN];
/// let agent_key = Key::from_bytes([1; 32]).agent_key(4242);
/// let error = open_control_agent(&agent_key, &[0; 100], &mut room).unwrap_err();
/// assert_eq!(error, OpenError::AuthFailed);
/// ```
///
/// # Errors
///
/// The first rule that the datagram breaks, in the order of the variants of [`OpenError`].
pub fn open_control_agent<'a>(
    agent_key: &Key,
    datagram: &[u8],
    room: &'a mut [u8; MAX_CONTROL_LEN],
) -> Result<OpenedControl<'a>, OpenError> {
    open_control(Opener::Agent(agent_key), datagram, room)
}

/// Opens a control datagram in the master form, and derives the key of its agent for it, into the caller's
/// buffer.
///
/// ```
/// use varta_proto::control::MAX_CONTROL_LEN;
/// use varta_proto::secure::{Key, OpenError, open_control_master};
///
/// let mut room = [0; MAX_CONTROL_LEN];
/// let error = open_control_master(&Key::from_bytes([1; 32]), &[0; 545], &mut room).unwrap_err();
/// assert_eq!(error, OpenError::BadLength { actual: 545 });
/// ```
///
/// # Errors
///
/// The first rule that the datagram breaks, in the order of the variants of [`OpenError`].
pub fn open_control_master<'a>(
    master: &Key,
    datagram: &[u8],
    room: &'a mut [u8; MAX_CONTROL_LEN],
) -> Result<OpenedControl<'a>, OpenError> {
    open_control(Opener::Master(master), datagram, room)
}

/// Opens a control datagram with the one of several keys that fits, into the caller's buffer, and returns
/// that key's index.
///
/// All keys are tried, as in [`open_any`]. The length of a control datagram does not determine its form, so
/// the list holds every key of the receiver.
///
/// ```
/// use varta_proto::control::{Hello, MAX_CONTROL_LEN};
/// use varta_proto::secure::{
///     Key, MAX_SEALED_CONTROL_LEN, Opener, Session, open_control_any, seal_control_master,
/// };
///
/// let (shared, master) = (Key::from_bytes([1; 32]), Key::from_bytes([2; 32]));
/// let mut plain = [0; MAX_CONTROL_LEN];
/// let hello = Hello::new(4242, 0, 0, [3; 16]).encode(&mut plain);
/// let mut out = [0; MAX_SEALED_CONTROL_LEN];
/// let mut session = Session::new([4; 16]);
/// let datagram = seal_control_master(&master.agent_key(4242), 4242, &mut session, hello, &mut out)?;
///
/// let mut room = [0; MAX_CONTROL_LEN];
/// let openers = [Opener::Shared(&shared), Opener::Master(&master)];
/// let (index, opened) = open_control_any(openers, datagram, &mut room)?;
/// assert_eq!((index, opened.control.pid()), (1, 4242));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
///
/// As for [`open_any`].
pub fn open_control_any<'k, 'a>(
    openers: impl IntoIterator<Item = Opener<'k>>,
    datagram: &[u8],
    room: &'a mut [u8; MAX_CONTROL_LEN],
) -> Result<(usize, OpenedControl<'a>), OpenError> {
    let (index, envelope, len) = unseal_any(openers, Purpose::Control, datagram, room)?;
    Ok((index, OpenedControl::read(envelope, &room[..len])?))
}

#[inline]
fn open(opener: Opener<'_>, datagram: &[u8]) -> Result<Opened, OpenError> {
    let mut frame = [0; FRAME_LEN];
    let (envelope, _) = opener.unseal(Purpose::Beat, datagram, &mut frame)?;
    Opened::read(envelope, &frame)
}

fn open_control<'a>(
    opener: Opener<'_>,
    datagram: &[u8],
    room: &'a mut [u8; MAX_CONTROL_LEN],
) -> Result<OpenedControl<'a>, OpenError> {
    let (envelope, len) = opener.unseal(Purpose::Control, datagram, room)?;
    OpenedControl::read(envelope, &room[..len])
}

/// Tries every opener, and decrypts into `plain` with the first that fits.
#[inline]
fn unseal_any<'k, const N: usize>(
    openers: impl IntoIterator<Item = Opener<'k>>,
    purpose: Purpose,
    datagram: &[u8],
    plain: &mut [u8; N],
) -> Result<(usize, Envelope, usize), OpenError> {
    let mut opened = None;
    let mut fault = None;
    for (index, opener) in openers.into_iter().enumerate() {
        let mut trial = [0; N];
        match opener.unseal(purpose, datagram, &mut trial) {
            Ok((envelope, len)) if opened.is_none() => {
                *plain = trial;
                opened = Some((index, envelope, len));
            }
            Ok(_) => {}
            // An opener that accepted the length got further than one that did not.
            Err(error) => fault = fault.filter(|known| *known == OpenError::AuthFailed).or(Some(error)),
        }
    }
    opened.ok_or(fault.unwrap_or(OpenError::AuthFailed))
}

impl Opened {
    #[inline]
    fn read(envelope: Envelope, frame: &[u8; FRAME_LEN]) -> Result<Self, OpenError> {
        let Envelope { iv_random, iv_counter, .. } = envelope;
        envelope.check_pid(frame)?;
        let frame = Frame::decode(frame).map_err(OpenError::Frame)?;
        Ok(Self { frame, iv_random, iv_counter })
    }
}

impl<'a> OpenedControl<'a> {
    fn read(envelope: Envelope, control: &'a [u8]) -> Result<Self, OpenError> {
        let Envelope { iv_random, iv_counter, .. } = envelope;
        envelope.check_pid(control)?;
        let control = Control::decode(control).map_err(OpenError::Frame)?;
        Ok(Self { control, iv_random, iv_counter })
    }
}
