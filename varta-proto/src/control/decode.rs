//! Decoding of control datagrams.
//!
//! [`Control::decode`] checks everything, so that the accessors cannot fail. Labels stay in the datagram,
//! because a fixed-size copy would need room for the largest set.

use core::fmt;

use super::wire::{CONTROL_MAGIC, CONTROL_VERSION, MAX_CONTROL_LEN, MAX_SAID_LEN, split_entry, tag};
use super::{AgentName, ControlKind, Declaration, EncodedControl, GoodbyeReason, Label, Labels, MAX_LABELS};
use crate::{DecodeError, crc32c};

/// A decoded control datagram. It borrows the bytes, all of which have been checked.
///
/// ```
/// use varta_proto::control::{Control, ControlKind, Goodbye, GoodbyeReason, MAX_CONTROL_LEN};
///
/// let mut out = [0; MAX_CONTROL_LEN];
/// let datagram = Goodbye::new(4242, 9_000_000_000, 18, [7; 16], GoodbyeReason::Shutdown).encode(&mut out);
///
/// let control = Control::decode(&datagram)?;
/// assert_eq!(control.kind(), ControlKind::Goodbye);
/// assert_eq!((control.pid(), control.timestamp(), control.nonce()), (4242, 9_000_000_000, 18));
/// assert_eq!((control.session(), control.reason()), ([7; 16], Some(GoodbyeReason::Shutdown)));
/// # Ok::<(), varta_proto::DecodeError>(())
/// ```
#[derive(Clone, Copy)]
pub struct Control<'a> {
    bytes: &'a [u8],
    pub(super) body: &'a [u8],
    kind: ControlKind,
    pid: u32,
    timestamp: u64,
    nonce: u64,
    session: [u8; 16],
    pub(super) entries: Entries,
}

impl<'a> Control<'a> {
    /// Decodes a datagram as a control datagram. It accepts any bytes and never panics.
    ///
    /// If an entry that is allowed once is repeated, the first counts. The values of pid and timestamp are
    /// not checked: the caller checks them against the sender.
    ///
    /// ```
    /// use varta_proto::control::Control;
    /// use varta_proto::{DecodeError, Frame, Status};
    ///
    /// let beat = Frame::new(Status::Ok, 4242, 0, 1, 0).to_bytes();
    /// assert_eq!(Control::decode(&beat).unwrap_err(), DecodeError::BadMagic);
    /// assert_eq!(Control::decode(b"VC").unwrap_err(), DecodeError::BadLength { actual: 2 });
    /// ```
    ///
    /// # Errors
    ///
    /// The first of these that applies: [`BadLength`](DecodeError::BadLength) under 32 bytes, above
    /// [`MAX_CONTROL_LEN`], or if the body has another length than its header says;
    /// [`BadMagic`](DecodeError::BadMagic); [`BadVersion`](DecodeError::BadVersion);
    /// [`BadCrc`](DecodeError::BadCrc); [`BadKind`](DecodeError::BadKind); [`BadBody`](DecodeError::BadBody)
    /// for an entry that extends past the body, a value of a wrong length, an invalid name or label, more
    /// than [`MAX_LABELS`] labels, two labels with one key, or no session id; and for a Report without a name or
    /// an event.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        let layout = Layout::of(bytes).ok_or(DecodeError::BadLength { actual: bytes.len() })?;
        if layout.magic != CONTROL_MAGIC {
            return Err(DecodeError::BadMagic);
        }
        if layout.version != CONTROL_VERSION {
            return Err(DecodeError::BadVersion { actual: layout.version });
        }
        let expected = crc32c::checksum(layout.covered);
        if layout.crc != expected {
            return Err(DecodeError::BadCrc { expected, actual: layout.crc });
        }
        let kind = ControlKind::from_u8(layout.kind).ok_or(DecodeError::BadKind { actual: layout.kind })?;
        let entries = Entries::read(layout.body).ok_or(DecodeError::BadBody)?;
        let session = entries.session.ok_or(DecodeError::BadBody)?;
        if kind == ControlKind::Report && (entries.name.is_none() || entries.event.is_none()) {
            return Err(DecodeError::BadBody);
        }
        let Layout { pid, timestamp, nonce, body, .. } = layout;
        Ok(Self { bytes, body, kind, pid, timestamp, nonce, session, entries })
    }

    /// Returns the kind: Hello, Goodbye, Attach or Report.
    ///
    /// ```
    /// # use varta_proto::control::*;
    /// # let mut out = [0; MAX_CONTROL_LEN];
    /// let datagram = Hello::new(4242, 0, 0, [7; 16]).encode(&mut out);
    /// assert_eq!(Control::decode(&datagram)?.kind(), ControlKind::Hello);
    /// # Ok::<(), varta_proto::DecodeError>(())
    /// ```
    #[inline]
    pub const fn kind(&self) -> ControlKind {
        self.kind
    }

    /// Returns the process id that the sender claims. An agent that is process 1 of its container sends a
    /// random number with the top bit set.
    ///
    /// ```
    /// # use varta_proto::control::*;
    /// # let mut out = [0; MAX_CONTROL_LEN];
    /// let datagram = Hello::new(4242, 0, 0, [7; 16]).encode(&mut out);
    /// assert_eq!(Control::decode(&datagram)?.pid(), 4242);
    /// # Ok::<(), varta_proto::DecodeError>(())
    /// ```
    #[inline]
    pub const fn pid(&self) -> u32 {
        self.pid
    }

    /// Returns the time of sending in nanoseconds, on the clock of the sender's beats.
    ///
    /// ```
    /// # use varta_proto::control::*;
    /// # let mut out = [0; MAX_CONTROL_LEN];
    /// let datagram = Hello::new(4242, 1_500_000_000, 3, [7; 16]).encode(&mut out);
    /// assert_eq!(Control::decode(&datagram)?.timestamp(), 1_500_000_000);
    /// # Ok::<(), varta_proto::DecodeError>(())
    /// ```
    #[inline]
    pub const fn timestamp(&self) -> u64 {
        self.timestamp
    }

    /// Returns the nonce of the last beat sent in this session, 0 before the first.
    ///
    /// ```
    /// # use varta_proto::control::*;
    /// # let mut out = [0; MAX_CONTROL_LEN];
    /// let datagram = Hello::new(4242, 1_500_000_000, 3, [7; 16]).encode(&mut out);
    /// assert_eq!(Control::decode(&datagram)?.nonce(), 3);
    /// # Ok::<(), varta_proto::DecodeError>(())
    /// ```
    #[inline]
    pub const fn nonce(&self) -> u64 {
        self.nonce
    }

    /// Returns the session id: the same in each control datagram of a handle, and another after a fork.
    ///
    /// ```
    /// # use varta_proto::control::*;
    /// # let mut out = [0; MAX_CONTROL_LEN];
    /// let datagram = Hello::new(4242, 0, 0, [7; 16]).encode(&mut out);
    /// assert_eq!(Control::decode(&datagram)?.session(), [7; 16]);
    /// # Ok::<(), varta_proto::DecodeError>(())
    /// ```
    #[inline]
    pub const fn session(&self) -> [u8; 16] {
        self.session
    }

    /// Returns the agent's name, if it has one.
    ///
    /// ```
    /// # use varta_proto::control::*;
    /// # let mut out = [0; MAX_CONTROL_LEN];
    /// let name = AgentName::parse("billing-worker")?;
    /// let mut hello = Hello::new(4242, 0, 0, [7; 16]);
    /// hello.name = Some(&name);
    /// assert_eq!(Control::decode(&hello.encode(&mut out))?.name(), Some(&name));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[inline]
    pub const fn name(&self) -> Option<&AgentName> {
        self.entries.name.as_ref()
    }

    /// Returns the interval between the agent's beats, in milliseconds.
    ///
    /// ```
    /// # use varta_proto::control::*;
    /// # let mut out = [0; MAX_CONTROL_LEN];
    /// let mut hello = Hello::new(4242, 0, 0, [7; 16]);
    /// hello.interval_ms = Some(500);
    /// assert_eq!(Control::decode(&hello.encode(&mut out))?.interval_ms(), Some(500));
    /// # Ok::<(), varta_proto::DecodeError>(())
    /// ```
    #[inline]
    pub const fn interval_ms(&self) -> Option<u32> {
        self.entries.interval_ms
    }

    /// Returns the silence after which the agent asks to count as stalled, in milliseconds.
    ///
    /// ```
    /// # use varta_proto::control::*;
    /// # let mut out = [0; MAX_CONTROL_LEN];
    /// let mut hello = Hello::new(4242, 0, 0, [7; 16]);
    /// hello.stall_after_ms = Some(2000);
    /// assert_eq!(Control::decode(&hello.encode(&mut out))?.stall_after_ms(), Some(2000));
    /// # Ok::<(), varta_proto::DecodeError>(())
    /// ```
    #[inline]
    pub const fn stall_after_ms(&self) -> Option<u32> {
        self.entries.stall_after_ms
    }

    /// Returns the labels in the order of the datagram: at most [`MAX_LABELS`], no two with one key.
    ///
    /// ```
    /// # use varta_proto::control::*;
    /// # let mut out = [0; MAX_CONTROL_LEN];
    /// let mut labels = LabelSet::new();
    /// labels.push(Label::new("zone", "a")?)?;
    /// let mut hello = Hello::new(4242, 0, 0, [7; 16]);
    /// hello.labels = &labels;
    /// assert!(Control::decode(&hello.encode(&mut out))?.labels().eq(labels.iter()));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[inline]
    pub const fn labels(&self) -> Labels<'a> {
        Labels::in_entries(self.body)
    }

    /// Returns how many beats of this session the agent failed to send.
    ///
    /// ```
    /// # use varta_proto::control::*;
    /// # let mut out = [0; MAX_CONTROL_LEN];
    /// let mut goodbye = Goodbye::new(4242, 0, 9, [7; 16], GoodbyeReason::Shutdown);
    /// goodbye.unsent = Some(3);
    /// assert_eq!(Control::decode(&goodbye.encode(&mut out))?.unsent(), Some(3));
    /// # Ok::<(), varta_proto::DecodeError>(())
    /// ```
    #[inline]
    pub const fn unsent(&self) -> Option<u64> {
        self.entries.unsent
    }

    /// Returns the reason of a Goodbye; `None` also for a reason that this version does not know.
    ///
    /// ```
    /// # use varta_proto::control::*;
    /// # let mut out = [0; MAX_CONTROL_LEN];
    /// let datagram = Goodbye::new(4242, 0, 9, [7; 16], GoodbyeReason::Replaced).encode(&mut out);
    /// assert_eq!(Control::decode(&datagram)?.reason(), Some(GoodbyeReason::Replaced));
    /// # Ok::<(), varta_proto::DecodeError>(())
    /// ```
    #[inline]
    pub const fn reason(&self) -> Option<GoodbyeReason> {
        match self.entries.reason {
            Some(reason) => GoodbyeReason::from_u8(reason),
            None => None,
        }
    }

    /// Returns for how long from now the agent is busy and may be silent, in milliseconds.
    ///
    /// ```
    /// # use varta_proto::control::*;
    /// # let mut out = [0; MAX_CONTROL_LEN];
    /// let mut hello = Hello::new(4242, 0, 0, [7; 16]);
    /// hello.busy_for_ms = Some(90_000);
    /// assert_eq!(Control::decode(&hello.encode(&mut out))?.busy_for_ms(), Some(90_000));
    /// # Ok::<(), varta_proto::DecodeError>(())
    /// ```
    #[inline]
    pub const fn busy_for_ms(&self) -> Option<u32> {
        self.entries.busy_for_ms
    }

    /// Returns for how long the counter in the payload of the beats may stand, in milliseconds, if the agent said that
    /// the payload is one; 0 leaves that to the server.
    ///
    /// ```
    /// # use varta_proto::control::{Control, Hello, MAX_CONTROL_LEN};
    /// # let mut out = [0; MAX_CONTROL_LEN];
    /// let mut hello = Hello::new(4242, 1_500_000_000, 3, [0xd1; 16]);
    /// hello.no_progress_after_ms = Some(60_000);
    /// assert_eq!(Control::decode(&hello.encode(&mut out))?.no_progress_after_ms(), Some(60_000));
    /// # Ok::<(), varta_proto::DecodeError>(())
    /// ```
    pub const fn no_progress_after_ms(&self) -> Option<u32> {
        self.entries.no_progress_after_ms
    }

    /// Returns the whole datagram as received, to forward or to seal it.
    ///
    /// ```
    /// # use varta_proto::control::*;
    /// # let mut out = [0; MAX_CONTROL_LEN];
    /// let datagram = Hello::new(4242, 0, 0, [7; 16]).encode(&mut out);
    /// assert_eq!(Control::decode(&datagram)?.encoded(), datagram);
    /// # Ok::<(), varta_proto::DecodeError>(())
    /// ```
    #[inline]
    pub const fn encoded(&self) -> EncodedControl<'a> {
        EncodedControl::from_valid(self.bytes)
    }
}

/// Shows the fields of the datagram.
impl fmt::Debug for Control<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Control")
            .field("kind", &self.kind)
            .field("pid", &self.pid)
            .field("timestamp", &self.timestamp)
            .field("nonce", &self.nonce)
            .field("session", &format_args!("{:032x}", u128::from_be_bytes(self.session)))
            .field("name", &self.name())
            .field("interval_ms", &self.interval_ms())
            .field("stall_after_ms", &self.stall_after_ms())
            .field("labels", &self.labels())
            .field("unsent", &self.unsent())
            .field("reason", &self.reason())
            .field("busy_for_ms", &self.busy_for_ms())
            .field("no_progress_after_ms", &self.no_progress_after_ms())
            .field("event", &self.event())
            .field("declaration", &self.declaration())
            .field("said", &self.said())
            .field("child", &self.child())
            .finish()
    }
}

/// The fields of a control datagram, before any check but that of the length.
struct Layout<'a> {
    magic: [u8; 2],
    version: u8,
    kind: u8,
    pid: u32,
    timestamp: u64,
    nonce: u64,
    body: &'a [u8],
    /// The bytes that the checksum covers.
    covered: &'a [u8],
    crc: u32,
}

impl<'a> Layout<'a> {
    /// Splits a datagram into its fields; `None` if its length is wrong.
    fn of(bytes: &'a [u8]) -> Option<Self> {
        if bytes.len() > MAX_CONTROL_LEN {
            return None;
        }
        let (covered, &crc) = bytes.split_last_chunk()?;
        let (&[v, c, version, kind], rest) = covered.split_first_chunk()?;
        let (&pid, rest) = rest.split_first_chunk()?;
        let (&timestamp, rest) = rest.split_first_chunk()?;
        let (&nonce, rest) = rest.split_first_chunk()?;
        let (&body_len, rest) = rest.split_first_chunk()?;
        let (&[_, _], body) = rest.split_first_chunk()?;
        (body.len() == usize::from(u16::from_le_bytes(body_len))).then_some(Self {
            magic: [v, c],
            version,
            kind,
            pid: u32::from_le_bytes(pid),
            timestamp: u64::from_le_bytes(timestamp),
            nonce: u64::from_le_bytes(nonce),
            body,
            covered,
            crc: u32::from_le_bytes(crc),
        })
    }
}

/// The values of the entries of a body, except the labels, which stay in the datagram.
#[derive(Clone, Copy, Default)]
pub(super) struct Entries {
    session: Option<[u8; 16]>,
    name: Option<AgentName>,
    interval_ms: Option<u32>,
    stall_after_ms: Option<u32>,
    unsent: Option<u64>,
    reason: Option<u8>,
    busy_for_ms: Option<u32>,
    no_progress_after_ms: Option<u32>,
    /// The value and its length.
    pub(super) event: Option<([u8; 2], usize)>,
    pub(super) grace_ms: Option<u64>,
    pub(super) longest_run_ms: Option<u64>,
    pub(super) alarm_on_overlap: bool,
    pub(super) child: Option<u32>,
}

impl Entries {
    /// Reads all entries; `None` if one of them is invalid.
    fn read(body: &[u8]) -> Option<Self> {
        let mut entries = Self::default();
        let mut labels = 0;
        let mut rest = body;
        while !rest.is_empty() {
            let before = &body[..body.len() - rest.len()];
            let (tag, value);
            (tag, value, rest) = split_entry(rest)?;
            match tag {
                tag::SESSION => set_first(&mut entries.session, value.try_into().ok()?),
                tag::NAME => set_first(&mut entries.name, AgentName::from_wire(value)?),
                tag::INTERVAL => set_first(&mut entries.interval_ms, read_u32(value)?),
                tag::STALL_AFTER => set_first(&mut entries.stall_after_ms, read_u32(value)?),
                tag::LABEL => {
                    let label = Label::from_wire(value)?;
                    labels += 1;
                    if labels > MAX_LABELS || Labels::in_entries(before).contains_key(label.key()) {
                        return None;
                    }
                }
                tag::UNSENT => set_first(&mut entries.unsent, read_u64(value)?),
                tag::REASON => {
                    let &[reason] = value else { return None };
                    set_first(&mut entries.reason, reason);
                }
                tag::BUSY_FOR => set_first(&mut entries.busy_for_ms, read_u32(value)?),
                tag::NO_PROGRESS_AFTER => set_first(&mut entries.no_progress_after_ms, read_u32(value)?),
                tag::EVENT => match *value {
                    [event] => set_first(&mut entries.event, ([event, 0], 1)),
                    [event, status] => set_first(&mut entries.event, ([event, status], 2)),
                    _ => return None,
                },
                tag::SCHEDULE => check_text(value, Declaration::MAX_SCHEDULE_LEN)?,
                tag::TIMEZONE => check_text(value, Declaration::MAX_TIMEZONE_LEN)?,
                tag::SAID => {
                    core::str::from_utf8(value).ok().filter(|said| said.len() <= MAX_SAID_LEN)?;
                }
                tag::GRACE => set_first(&mut entries.grace_ms, read_u64(value)?),
                tag::LONGEST_RUN => set_first(&mut entries.longest_run_ms, read_u64(value)?),
                tag::ALARM_ON_OVERLAP => {
                    let &[] = value else { return None };
                    entries.alarm_on_overlap = true;
                }
                tag::CHILD => set_first(&mut entries.child, read_u32(value)?),
                // Padding, and entries of later versions.
                _ => {}
            }
        }
        Some(entries)
    }
}

fn set_first<T>(slot: &mut Option<T>, value: T) {
    slot.get_or_insert(value);
}

fn read_u32(value: &[u8]) -> Option<u32> {
    Some(u32::from_le_bytes(value.try_into().ok()?))
}

fn read_u64(value: &[u8]) -> Option<u64> {
    Some(u64::from_le_bytes(value.try_into().ok()?))
}

/// Checks a text that [`Declaration::new`] takes.
fn check_text(value: &[u8], most: usize) -> Option<()> {
    let text = core::str::from_utf8(value).ok()?;
    (!text.is_empty() && text.len() <= most && !text.chars().any(char::is_control)).then_some(())
}
