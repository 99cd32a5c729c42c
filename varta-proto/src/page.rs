//! The page of shared memory in which an agent stores its newest beat for a server on the same host.
//!
//! The agent creates the page, hands it over with an [`Attach`](crate::control::Attach), and writes its beats
//! into it without a system call. The server reads it at intervals and sees only the newest beat. Creating
//! and mapping the memory is up to the two sides; this module defines the words of the page and the order of
//! writes.
//!
//! Neither side trusts the other: all access is to atomic words, nothing in the page is a pointer, a length
//! or an index, and a copy holds either one consistent state or nothing. [`Frame::decode`] checks the
//! content.
//!
//! ```
//! use varta_proto::page::{BeatPage, Glance, Writer};
//! use varta_proto::{Frame, Status};
//!
//! let page = BeatPage::new();
//! let frame = Frame::new(Status::Ok, 4242, 1_500_000_000, 7, 0).to_bytes();
//! Writer::new().write(&page, &frame);
//!
//! let Glance::Beat { frame: copy, sequence } = page.glance(0, u64::MAX) else { unreachable!() };
//! assert_eq!(copy, frame);
//! assert_eq!(page.glance(sequence, u64::MAX), Glance::Same);
//! ```
//!
//! # The words
//!
//! | offset | size | word | written by |
//! |---|---|---|---|
//! | 0 | 8 | sequence, odd while the frame is being written | agent |
//! | 8 | 32 | frame, as in a datagram; zeros if there is none | agent |
//! | 40 | 8 | time at which the agent's last datagram was sent, or [`HELD`] | agent |
//! | 48 | 8 | 1 after the agent has abandoned the page | agent |
//! | 64 | 8 | the server's lease: the time until which it reads the page, or 0 | server |
//!
//! Times are nanoseconds of the host's `CLOCK_MONOTONIC`. Words have the host's byte order: both sides run on
//! one host. Each side writes to a cache line of its own, so that their writes do not contend.
//!
//! # The order of beats
//!
//! A beat with new information goes by datagram, and the page carries the rest, so a server has to order the
//! two. An agent marks the page as [`HELD`] while it sends a beat by datagram, clears the page if the
//! datagram was sent, and stores the time of sending. A server uses the content of the page only after it has
//! received every datagram sent before it.
//!
//! The sequence lock is the one of H.-J. Boehm, "Can seqlocks get along with programming language memory
//! models?", MSPC 2012.

use core::fmt;
use core::sync::atomic::{AtomicU64, Ordering, fence};

use crate::FRAME_LEN;
#[cfg(doc)]
use crate::Frame;

/// The value of the send time while a datagram is being sent.
pub const HELD: u64 = u64::MAX;

/// The longest lease that a server may give, in nanoseconds from now: 10 s. A later time comes from another
/// clock and is not a lease.
pub const LONGEST_PROMISE: u64 = 10_000_000_000;

const FRAME_WORDS: usize = FRAME_LEN / size_of::<u64>();

/// How often [`BeatPage::glance`] tries to copy the frame before it reports [`Glance::Torn`].
const MAX_READ_ATTEMPTS: usize = 3;

/// The cache line that the agent writes.
#[derive(Default)]
#[repr(C, align(64))]
struct AgentLine {
    sequence: AtomicU64,
    frame: [AtomicU64; FRAME_WORDS],
    sent_at: AtomicU64,
    detached: AtomicU64,
}

/// The cache line that the server writes.
#[derive(Default)]
#[repr(C, align(64))]
struct ServerLine {
    looks_until: AtomicU64,
}

/// A page for beats: two cache lines at its start. Memory of zeros is an empty page.
#[derive(Default)]
#[repr(C)]
pub struct BeatPage {
    agent: AgentLine,
    server: ServerLine,
}

const _: () = assert!(size_of::<BeatPage>() == 128 && align_of::<BeatPage>() == 64);

/// The result of reading a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Glance {
    /// The page has not changed since the given sequence.
    Same,
    /// The agent cleared the page: its newest beat went by datagram.
    Empty {
        /// The current sequence of the page.
        sequence: u64,
    },
    /// The page has changed, and its content must wait: a datagram sent before it may not have been received
    /// yet.
    Held,
    /// The agent was writing to the page during each attempt to copy it.
    Torn,
    /// The page has a new beat.
    Beat {
        /// The current sequence of the page.
        sequence: u64,
        /// A consistent copy of what the agent wrote, which may be any bytes.
        frame: [u8; FRAME_LEN],
    },
}

impl BeatPage {
    /// Creates an empty page.
    ///
    /// ```
    /// use varta_proto::page::{BeatPage, Glance};
    ///
    /// assert_eq!(BeatPage::new().glance(0, u64::MAX), Glance::Same);
    /// ```
    pub fn new() -> Self {
        Self::default()
    }

    /// Copies the frame if the sequence of the page is no longer `seen`. `settled` is a time before which
    /// every datagram of the agent has been received: content that follows a later datagram is
    /// [`Held`](Glance::Held).
    ///
    /// It accepts any memory and never blocks.
    ///
    /// ```
    /// use varta_proto::page::{BeatPage, Glance, Writer};
    ///
    /// let page = BeatPage::new();
    /// page.hold();
    /// page.release(500);
    /// Writer::new().write(&page, &[7; 32]);
    /// assert_eq!(page.glance(0, 500), Glance::Held);
    /// assert_eq!(page.glance(0, 501), Glance::Beat { sequence: 2, frame: [7; 32] });
    /// ```
    #[inline]
    pub fn glance(&self, seen: u64, settled: u64) -> Glance {
        for _ in 0..MAX_READ_ATTEMPTS {
            let sequence = self.agent.sequence.load(Ordering::Acquire);
            if sequence == seen {
                return Glance::Same;
            }
            if !sequence.is_multiple_of(2) {
                continue;
            }
            // Not later than the frame: a reader that sees a frame also sees the send time of the datagram
            // before it.
            let sent_at = self.agent.sent_at.load(Ordering::Relaxed);
            let words = self.agent.frame.each_ref().map(|word| word.load(Ordering::Relaxed));
            fence(Ordering::Acquire);
            if self.agent.sequence.load(Ordering::Relaxed) != sequence {
                continue;
            }
            return if sent_at >= settled {
                Glance::Held
            } else if words == [0; FRAME_WORDS] {
                Glance::Empty { sequence }
            } else {
                Glance::Beat { sequence, frame: frame_of(words) }
            };
        }
        Glance::Torn
    }

    /// Returns whether the sequence of the page is still `seen`, with one load. A server that reads many
    /// pages calls this on some dozens of them first: the processor loads them all at once, and the
    /// [`glance`](Self::glance) at each does not wait for memory.
    ///
    /// ```
    /// use varta_proto::page::{BeatPage, Writer};
    ///
    /// let page = BeatPage::new();
    /// assert!(page.is_at(0));
    /// Writer::new().write(&page, &[7; 32]);
    /// assert!(!page.is_at(0));
    /// ```
    #[inline]
    pub fn is_at(&self, seen: u64) -> bool {
        self.agent.sequence.load(Ordering::Relaxed) == seen
    }

    /// Marks the page as [`HELD`] before a datagram is sent: the server uses nothing from the page until
    /// [`release`](Self::release).
    #[inline]
    pub fn hold(&self) {
        self.agent.sent_at.store(HELD, Ordering::Release);
    }

    /// Ends [`hold`](Self::hold): the datagram was sent by the time `at`, or sending failed.
    #[inline]
    pub fn release(&self, at: u64) {
        self.agent.sent_at.store(at, Ordering::Release);
    }

    /// Marks the page as abandoned: the agent does not write to it any more.
    ///
    /// ```
    /// let page = varta_proto::page::BeatPage::new();
    /// page.leave();
    /// assert!(page.was_left());
    /// ```
    pub fn leave(&self) {
        self.agent.detached.store(1, Ordering::Release);
    }

    /// Returns whether the agent has called [`leave`](Self::leave).
    #[inline]
    pub fn was_left(&self) -> bool {
        self.agent.detached.load(Ordering::Acquire) == 1
    }

    /// Sets the time until which the server reads the page; 0 withdraws it.
    ///
    /// ```
    /// let page = varta_proto::page::BeatPage::new();
    /// assert!(!page.is_read_at(1_000));
    /// page.promise(2_000);
    /// assert!(page.is_read_at(1_000) && page.is_read_at(2_000) && !page.is_read_at(2_001));
    /// ```
    #[inline]
    pub fn promise(&self, until: u64) {
        self.server.looks_until.store(until, Ordering::Release);
    }

    /// Returns whether a server reads the page at the time `now`: its lease has not expired, and is not
    /// longer than [`LONGEST_PROMISE`].
    #[inline]
    pub fn is_read_at(&self, now: u64) -> bool {
        self.server.looks_until.load(Ordering::Relaxed).wrapping_sub(now) <= LONGEST_PROMISE
    }

    /// Returns whether the server's lease expired at most `span` nanoseconds before `now`: the server may
    /// only be delayed.
    ///
    /// ```
    /// let page = varta_proto::page::BeatPage::new();
    /// page.promise(2_000);
    /// assert!(page.was_read_within(2_500, 500) && !page.was_read_within(2_501, 500));
    /// ```
    #[inline]
    pub fn was_read_within(&self, now: u64, span: u64) -> bool {
        let until = self.server.looks_until.load(Ordering::Relaxed);
        until != 0 && now.wrapping_sub(until) <= span
    }
}

impl fmt::Debug for BeatPage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BeatPage")
            .field("sequence", &self.agent.sequence.load(Ordering::Relaxed))
            .field("looks_until", &self.server.looks_until.load(Ordering::Relaxed))
            .finish_non_exhaustive()
    }
}

/// The agent's end of a page. The writer keeps the sequence itself: a change by the other side is overwritten
/// with the next beat.
#[derive(Debug, Default)]
pub struct Writer {
    sequence: u64,
}

impl Writer {
    /// Creates the writer of an empty page.
    pub const fn new() -> Self {
        Self { sequence: 0 }
    }

    /// Replaces the frame in the page. A page has one writer, which writes from one thread at a time.
    #[inline]
    pub fn write(&mut self, page: &BeatPage, frame: &[u8; FRAME_LEN]) {
        self.store_frame(page, words_of(frame));
    }

    /// Clears the page.
    ///
    /// ```
    /// use varta_proto::page::{BeatPage, Glance, Writer};
    ///
    /// let (page, mut writer) = (BeatPage::new(), Writer::new());
    /// writer.write(&page, &[7; 32]);
    /// writer.empty(&page);
    /// assert_eq!(page.glance(2, u64::MAX), Glance::Empty { sequence: 4 });
    /// ```
    pub fn empty(&mut self, page: &BeatPage) {
        self.store_frame(page, [0; FRAME_WORDS]);
    }

    #[inline]
    fn store_frame(&mut self, page: &BeatPage, words: [u64; FRAME_WORDS]) {
        page.agent.sequence.store(self.sequence.wrapping_add(1), Ordering::Relaxed);
        fence(Ordering::Release);
        for (slot, word) in page.agent.frame.iter().zip(words) {
            slot.store(word, Ordering::Relaxed);
        }
        self.sequence = self.sequence.wrapping_add(2);
        page.agent.sequence.store(self.sequence, Ordering::Release);
    }
}

#[inline]
fn words_of(frame: &[u8; FRAME_LEN]) -> [u64; FRAME_WORDS] {
    let mut words = [0; FRAME_WORDS];
    for (word, bytes) in words.iter_mut().zip(frame.as_chunks().0) {
        *word = u64::from_ne_bytes(*bytes);
    }
    words
}

#[inline]
fn frame_of(words: [u64; FRAME_WORDS]) -> [u8; FRAME_LEN] {
    let mut frame = [0; FRAME_LEN];
    for (bytes, word) in frame.as_chunks_mut().0.iter_mut().zip(words) {
        *bytes = word.to_ne_bytes();
    }
    frame
}

#[cfg(test)]
mod tests;
