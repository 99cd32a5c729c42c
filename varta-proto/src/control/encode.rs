//! Encoding of control datagrams.

use core::fmt;
use core::ops::Deref;

use super::wire::{CONTROL_MAGIC, CONTROL_VERSION, CRC_LEN, HEAD_LEN, MAX_CONTROL_LEN, MIN_CONTROL_LEN, tag};
use super::{AgentName, ControlKind, GoodbyeReason, LabelSet};
use crate::crc32c;

/// The lengths of beats, plain and sealed, which a control datagram never has. Defined here as well as in
/// `secure`, because they hold for senders without that feature too.
const BEAT_LENGTHS: [usize; 3] = [32, 60, 64];

/// How an agent introduces itself: when it connects, after it reconnects or forks, and at least once a
/// minute.
///
/// The fields are plain values; each value with a rule has a type that enforces it. So encoding cannot fail.
///
/// ```
/// use varta_proto::control::{Control, Hello, MAX_CONTROL_LEN};
///
/// let mut hello = Hello::new(4242, 0, 0, [0xd1; 16]);
/// hello.interval_ms = Some(500);
/// hello.stall_after_ms = Some(2000);
///
/// let mut out = [0; MAX_CONTROL_LEN];
/// let control = Control::decode(hello.encode(&mut out).as_bytes())?;
/// assert_eq!((control.interval_ms(), control.stall_after_ms()), (Some(500), Some(2000)));
/// # Ok::<(), varta_proto::DecodeError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hello<'a> {
    /// The process id, as in the beats.
    pub pid: u32,
    /// Nanoseconds on the clock of the beats.
    pub timestamp: u64,
    /// The nonce of the last beat sent in this session, 0 before the first.
    pub nonce: u64,
    /// 16 random bytes, the same in every control datagram of a handle, and new after a fork.
    pub session: [u8; 16],
    /// The agent's name, the same for every pid of it.
    pub name: Option<&'a AgentName>,
    /// The interval between beats, in milliseconds.
    pub interval_ms: Option<u32>,
    /// The silence after which the agent asks to count as stalled, in milliseconds.
    pub stall_after_ms: Option<u32>,
    /// Labels for operators to sort agents by.
    pub labels: &'a LabelSet,
    /// How many beats of this session the agent failed to send.
    pub unsent: Option<u64>,
    /// For how long from now the agent is busy and may be silent, in milliseconds.
    pub busy_for_ms: Option<u32>,
    /// Says that the payload of the beats is a counter that moves while the agent makes progress, and for how long it
    /// may stand, in milliseconds; 0 leaves that to the server.
    pub no_progress_after_ms: Option<u32>,
}

impl<'a> Hello<'a> {
    /// Creates a Hello with the required fields; the optional ones are unset.
    ///
    /// ```
    /// use varta_proto::control::Hello;
    ///
    /// let hello = Hello::new(4242, 1_500_000_000, 3, [0xd1; 16]);
    /// assert_eq!((hello.nonce, hello.name, hello.labels.iter().count()), (3, None, 0));
    /// ```
    pub const fn new(pid: u32, timestamp: u64, nonce: u64, session: [u8; 16]) -> Self {
        const NO_LABELS: &LabelSet = &LabelSet::new();
        Self {
            pid,
            timestamp,
            nonce,
            session,
            name: None,
            interval_ms: None,
            stall_after_ms: None,
            labels: NO_LABELS,
            unsent: None,
            busy_for_ms: None,
            no_progress_after_ms: None,
        }
    }

    /// Writes the datagram into `out`, and returns the part of `out` that it takes.
    ///
    /// ```
    /// use varta_proto::control::{Hello, MAX_CONTROL_LEN};
    ///
    /// let mut out = [0; MAX_CONTROL_LEN];
    /// let datagram = Hello::new(4242, 0, 0, [0xd1; 16]).encode(&mut out);
    /// assert_eq!((datagram.len(), &datagram[..4]), (50, &b"VC\x01\x01"[..]));
    /// ```
    pub fn encode<'o>(&self, out: &'o mut [u8; MAX_CONTROL_LEN]) -> EncodedControl<'o> {
        let &Self {
            pid,
            timestamp,
            nonce,
            session,
            name,
            interval_ms,
            stall_after_ms,
            labels,
            unsent,
            busy_for_ms,
            no_progress_after_ms,
        } = self;
        let mut body = BodyWriter::new(out);
        body.push(tag::SESSION, &session);
        body.push_optional(tag::NAME, name.map(AgentName::as_bytes));
        body.push_optional(tag::INTERVAL, interval_ms.map(u32::to_le_bytes));
        body.push_optional(tag::STALL_AFTER, stall_after_ms.map(u32::to_le_bytes));
        body.append(labels.as_entries());
        body.push_optional(tag::UNSENT, unsent.map(u64::to_le_bytes));
        body.push_optional(tag::BUSY_FOR, busy_for_ms.map(u32::to_le_bytes));
        body.push_optional(tag::NO_PROGRESS_AFTER, no_progress_after_ms.map(u32::to_le_bytes));
        body.finish(ControlKind::Hello, pid, timestamp, nonce)
    }
}

/// How an agent ends its session, so that the silence after it does not count as a stall.
///
/// ```
/// use varta_proto::control::{Control, Goodbye, GoodbyeReason, MAX_CONTROL_LEN};
///
/// let mut goodbye = Goodbye::new(4242, 9_000_000_000, 18, [0xd1; 16], GoodbyeReason::Restart);
/// goodbye.unsent = Some(3);
///
/// let mut out = [0; MAX_CONTROL_LEN];
/// let control = Control::decode(goodbye.encode(&mut out).as_bytes())?;
/// assert_eq!((control.reason(), control.unsent()), (Some(GoodbyeReason::Restart), Some(3)));
/// # Ok::<(), varta_proto::DecodeError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Goodbye {
    /// The process id, as in the beats.
    pub pid: u32,
    /// Nanoseconds on the clock of the beats.
    pub timestamp: u64,
    /// The nonce of the last beat sent in this session, 0 if there was none.
    pub nonce: u64,
    /// The session id, as in the session's [`Hello`].
    pub session: [u8; 16],
    /// The reason of the goodbye.
    pub reason: GoodbyeReason,
    /// How many beats of this session the agent failed to send.
    pub unsent: Option<u64>,
}

impl Goodbye {
    /// Creates a Goodbye with the required fields; the optional ones are unset.
    ///
    /// ```
    /// use varta_proto::control::{Goodbye, GoodbyeReason};
    ///
    /// let goodbye = Goodbye::new(4242, 9_000_000_000, 18, [0xd1; 16], GoodbyeReason::Shutdown);
    /// assert_eq!((goodbye.nonce, goodbye.unsent), (18, None));
    /// ```
    pub const fn new(pid: u32, timestamp: u64, nonce: u64, session: [u8; 16], reason: GoodbyeReason) -> Self {
        Self { pid, timestamp, nonce, session, reason, unsent: None }
    }

    /// Writes the datagram into `out`, and returns the part of `out` that it takes.
    ///
    /// ```
    /// use varta_proto::control::{Goodbye, GoodbyeReason, MAX_CONTROL_LEN};
    ///
    /// let mut out = [0; MAX_CONTROL_LEN];
    /// let goodbye = Goodbye::new(4242, 0, 18, [0xd1; 16], GoodbyeReason::Shutdown);
    /// assert_eq!(goodbye.encode(&mut out)[..4], *b"VC\x01\x02");
    /// ```
    pub fn encode<'o>(&self, out: &'o mut [u8; MAX_CONTROL_LEN]) -> EncodedControl<'o> {
        let &Self { pid, timestamp, nonce, session, reason, unsent } = self;
        let mut body = BodyWriter::new(out);
        body.push(tag::SESSION, &session);
        body.push_optional(tag::UNSENT, unsent.map(u64::to_le_bytes));
        body.push(tag::REASON, &[reason as u8]);
        body.finish(ControlKind::Goodbye, pid, timestamp, nonce)
    }
}

/// How an agent hands over a [page](crate::page) for its beats, whose file descriptor is sent with the
/// datagram.
///
/// ```
/// use varta_proto::control::{Attach, Control, ControlKind, MAX_CONTROL_LEN};
///
/// let mut out = [0; MAX_CONTROL_LEN];
/// let datagram = Attach::new(4242, 1_500_000_000, 1, [0xd1; 16]).encode(&mut out);
/// assert_eq!((datagram.len(), &datagram[..4]), (50, &b"VC\x01\x03"[..]));
/// assert_eq!(Control::decode(&datagram)?.kind(), ControlKind::Attach);
/// # Ok::<(), varta_proto::DecodeError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attach {
    /// The process id, as in the beats.
    pub pid: u32,
    /// Nanoseconds on the clock of the beats.
    pub timestamp: u64,
    /// The nonce of the last beat sent in this session, 0 before the first.
    pub nonce: u64,
    /// 16 random bytes.
    pub session: [u8; 16],
}

impl Attach {
    /// Creates an Attach, which has no other fields.
    ///
    /// ```
    /// let attach = varta_proto::control::Attach::new(4242, 1_500_000_000, 3, [0xd1; 16]);
    /// assert_eq!((attach.pid, attach.nonce), (4242, 3));
    /// ```
    pub const fn new(pid: u32, timestamp: u64, nonce: u64, session: [u8; 16]) -> Self {
        Self { pid, timestamp, nonce, session }
    }

    /// Writes the datagram into `out`, and returns the part of `out` that it takes.
    ///
    /// ```
    /// use varta_proto::control::{Attach, MAX_CONTROL_LEN};
    ///
    /// let mut out = [0; MAX_CONTROL_LEN];
    /// assert_eq!(Attach::new(4242, 0, 1, [0xd1; 16]).encode(&mut out).len(), 50);
    /// ```
    pub fn encode<'o>(&self, out: &'o mut [u8; MAX_CONTROL_LEN]) -> EncodedControl<'o> {
        let &Self { pid, timestamp, nonce, session } = self;
        let mut body = BodyWriter::new(out);
        body.push(tag::SESSION, &session);
        body.finish(ControlKind::Attach, pid, timestamp, nonce)
    }
}

/// The bytes of a valid control datagram, ready to send or to seal.
///
/// Only encoding and decoding create one, so that nothing else is sealed as a control datagram.
///
/// ```
/// use varta_proto::control::{Control, Hello, MAX_CONTROL_LEN};
///
/// let mut out = [0; MAX_CONTROL_LEN];
/// let datagram = Hello::new(4242, 0, 0, [7; 16]).encode(&mut out);
/// let bytes: &[u8] = &datagram;
/// assert!(Control::decode(bytes).is_ok());
/// ```
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct EncodedControl<'a>(&'a [u8]);

impl<'a> EncodedControl<'a> {
    /// Wraps bytes that were encoded or decoded.
    pub(super) const fn from_valid(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// Returns the bytes with the lifetime of their buffer.
    ///
    /// ```
    /// use varta_proto::control::{Hello, MAX_CONTROL_LEN};
    ///
    /// fn hello(out: &mut [u8; MAX_CONTROL_LEN]) -> &[u8] {
    ///     Hello::new(4242, 0, 0, [7; 16]).encode(out).as_bytes()
    /// }
    /// assert_eq!(hello(&mut [0; MAX_CONTROL_LEN]).len(), 50);
    /// ```
    #[inline]
    pub const fn as_bytes(&self) -> &'a [u8] {
        self.0
    }
}

impl Deref for EncodedControl<'_> {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        self.0
    }
}

impl AsRef<[u8]> for EncodedControl<'_> {
    #[inline]
    fn as_ref(&self) -> &[u8] {
        self.0
    }
}

impl fmt::Debug for EncodedControl<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("EncodedControl").field(&self.0).finish()
    }
}

/// A control datagram during encoding. Every possible content fits: [`LabelSet::ROOM`] is what the other
/// entries leave.
pub(super) struct BodyWriter<'o> {
    out: &'o mut [u8; MAX_CONTROL_LEN],
    /// The offset of the next entry.
    end: usize,
}

impl<'o> BodyWriter<'o> {
    pub(super) fn new(out: &'o mut [u8; MAX_CONTROL_LEN]) -> Self {
        Self { out, end: HEAD_LEN }
    }

    pub(super) fn push_optional(&mut self, tag: u8, value: Option<impl AsRef<[u8]>>) {
        if let Some(value) = value {
            self.push(tag, value.as_ref());
        }
    }

    pub(super) fn push(&mut self, tag: u8, value: &[u8]) {
        let len = u8::try_from(value.len()).expect("no value is longer than a name");
        self.append(&[tag, len]);
        self.append(value);
    }

    /// Writes bytes that are already encoded.
    fn append(&mut self, bytes: &[u8]) {
        let end = self.end + bytes.len();
        self.out[self.end..end].copy_from_slice(bytes);
        self.end = end;
    }

    /// Pads the body, and writes header and checksum.
    pub(super) fn finish(
        mut self,
        kind: ControlKind,
        pid: u32,
        timestamp: u64,
        nonce: u64,
    ) -> EncodedControl<'o> {
        if BEAT_LENGTHS.contains(&(self.end + CRC_LEN)) {
            self.push(tag::PADDING, &[]);
        }
        let end = self.end;
        let body_len = u16::try_from(end - HEAD_LEN).expect("the whole datagram is shorter");
        self.end = 0;
        self.append(&CONTROL_MAGIC);
        self.append(&[CONTROL_VERSION, kind as u8]);
        self.append(&pid.to_le_bytes());
        self.append(&timestamp.to_le_bytes());
        self.append(&nonce.to_le_bytes());
        self.append(&body_len.to_le_bytes());
        self.append(&[0, 0]);
        self.end = end;
        self.append(&crc32c::checksum(&self.out[..end]).to_le_bytes());
        let Self { out, end } = self;
        EncodedControl(&out[..end])
    }
}

// One padding entry has two bytes, which turns none of these lengths into another of them; and sealing, which
// adds 28 or 32 bytes, turns no valid length into any of them.
const _: () = {
    let shortest = MIN_CONTROL_LEN + 2 + 16;
    let [plain, shared, master] = BEAT_LENGTHS;
    assert!(plain + 2 != shared && shared + 2 != master);
    assert!(shortest > plain && shortest + 28 > master);
};
