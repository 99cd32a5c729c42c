//! Reports: what a process says of something that is known by its name alone, and not by a process.

use super::encode::BodyWriter;
use super::wire::{MAX_CONTROL_LEN, MAX_SAID_LEN, MIN_CONTROL_LEN, split_entry, tag};
use super::{AgentName, Control, ControlKind, Declaration, EncodedControl, ReportEvent};

/// What a process says of something that is known by its name alone, such as a job of cron: the process that
/// says it may end at once.
///
/// ```
/// use varta_proto::control::{AgentName, Control, MAX_CONTROL_LEN, Report, ReportEvent};
///
/// let name = AgentName::parse("backup")?;
/// let report = Report::new(4242, [0xd1; 16], &name, ReportEvent::Failed { status: Some(3) });
/// let mut out = [0; MAX_CONTROL_LEN];
/// let control = Control::decode(report.encode(&mut out).as_bytes())?;
/// assert_eq!(control.name(), Some(&name));
/// assert_eq!(control.event(), Some(ReportEvent::Failed { status: Some(3) }));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Report<'a> {
    /// The process id of the sender.
    pub pid: u32,
    /// 16 random bytes.
    pub session: [u8; 16],
    /// The name of what the report is about.
    pub name: &'a AgentName,
    /// What has happened.
    pub event: ReportEvent,
    /// The silence after which it is to count as stalled, in milliseconds.
    pub stall_after_ms: Option<u32>,
    /// When it is to happen.
    pub declaration: Option<Declaration<'a>>,
    /// Words about it, of which the first [`MAX_SAID_LEN`](Self::MAX_SAID_LEN) bytes are sent; with a declaration none are.
    pub said: Option<&'a str>,
    /// The child of the sending process that does the work for which the process beats, by its pid as the parent knows
    /// it. It is about the agent that the sending process is, and goes with [`ReportEvent::Said`].
    pub child: Option<u32>,
}

/// The whole report fits in any case.
const _: () = {
    let texts = (2 + Declaration::MAX_SCHEDULE_LEN) + (2 + Declaration::MAX_TIMEZONE_LEN);
    let times = 2 * (2 + 8) + 2;
    let more = if Report::MAX_SAID_LEN > texts + times { 2 + Report::MAX_SAID_LEN } else { texts + times };
    let body = (2 + 16) + (2 + AgentName::MAX_LEN) + (2 + 2) + (2 + 4) + more + (2 + 4);
    assert!(MIN_CONTROL_LEN + body + 2 <= MAX_CONTROL_LEN, "one padding entry included");
};

impl<'a> Report<'a> {
    /// The maximum length of what is said, in bytes.
    pub const MAX_SAID_LEN: usize = MAX_SAID_LEN;

    /// Creates a report with the required fields; the optional ones are unset.
    ///
    /// ```
    /// use varta_proto::control::{AgentName, Report, ReportEvent};
    ///
    /// let name = AgentName::parse("backup").unwrap();
    /// let report = Report::new(4242, [0xd1; 16], &name, ReportEvent::Started);
    /// assert_eq!((report.stall_after_ms, report.declaration, report.said, report.child), (None, None, None, None));
    /// ```
    pub const fn new(pid: u32, session: [u8; 16], name: &'a AgentName, event: ReportEvent) -> Self {
        Self { pid, session, name, event, stall_after_ms: None, declaration: None, said: None, child: None }
    }

    /// Writes the datagram into `out`, and returns the part of `out` that it takes.
    ///
    /// ```
    /// use varta_proto::control::{AgentName, MAX_CONTROL_LEN, Report, ReportEvent};
    ///
    /// let name = AgentName::parse("backup").unwrap();
    /// let mut out = [0; MAX_CONTROL_LEN];
    /// let datagram = Report::new(4242, [0xd1; 16], &name, ReportEvent::Beat).encode(&mut out);
    /// assert_eq!(&datagram[..4], b"VC\x01\x04");
    /// ```
    pub fn encode<'o>(&self, out: &'o mut [u8; MAX_CONTROL_LEN]) -> EncodedControl<'o> {
        let &Self { pid, session, name, event, stall_after_ms, declaration, said, child } = self;
        let mut body = BodyWriter::new(out);
        body.push(tag::SESSION, &session);
        body.push(tag::NAME, name.as_bytes());
        let (value, len) = event.to_wire();
        body.push(tag::EVENT, &value[..len]);
        body.push_optional(tag::STALL_AFTER, stall_after_ms.map(u32::to_le_bytes));
        if let Some(declaration) = declaration {
            body.push(tag::SCHEDULE, declaration.schedule().as_bytes());
            body.push_optional(tag::TIMEZONE, declaration.timezone());
            body.push_optional(tag::GRACE, declaration.grace_ms.map(u64::to_le_bytes));
            body.push_optional(tag::LONGEST_RUN, declaration.longest_run_ms.map(u64::to_le_bytes));
            body.push_optional(tag::ALARM_ON_OVERLAP, declaration.alarm_on_overlap.then_some([0; 0]));
        } else if let Some(said) = said {
            body.push(tag::SAID, cut(said, Self::MAX_SAID_LEN).as_bytes());
        }
        body.push_optional(tag::CHILD, child.map(u32::to_le_bytes));
        body.finish(ControlKind::Report, pid, 0, 0)
    }
}

/// The characters of a text that have at most so many bytes together.
fn cut(text: &str, most: usize) -> &str {
    let end = (0..=most.min(text.len())).rev().find(|end| text.is_char_boundary(*end));
    &text[..end.unwrap_or(0)]
}

impl<'a> Control<'a> {
    /// Returns what a [`Report`] says has happened; `None` also for an event that this version does not know.
    ///
    /// ```
    /// # use varta_proto::control::*;
    /// # let mut out = [0; MAX_CONTROL_LEN];
    /// let name = AgentName::parse("backup")?;
    /// let datagram = Report::new(4242, [7; 16], &name, ReportEvent::Ended).encode(&mut out);
    /// assert_eq!(Control::decode(&datagram)?.event(), Some(ReportEvent::Ended));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[inline]
    pub const fn event(&self) -> Option<ReportEvent> {
        match self.entries.event {
            Some((value, len)) => ReportEvent::from_wire(value, len),
            None => None,
        }
    }

    /// Returns when that is to happen of which a [`Report`] speaks, if the report says so.
    ///
    /// ```
    /// # use varta_proto::control::*;
    /// # let mut out = [0; MAX_CONTROL_LEN];
    /// let name = AgentName::parse("backup")?;
    /// let mut report = Report::new(4242, [7; 16], &name, ReportEvent::Declared);
    /// report.declaration = Declaration::new("@daily", None);
    /// assert_eq!(Control::decode(&report.encode(&mut out))?.declaration(), report.declaration);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn declaration(&self) -> Option<Declaration<'a>> {
        let mut declaration = Declaration::new(self.text(tag::SCHEDULE)?, self.text(tag::TIMEZONE))?;
        declaration.grace_ms = self.entries.grace_ms;
        declaration.longest_run_ms = self.entries.longest_run_ms;
        declaration.alarm_on_overlap = self.entries.alarm_on_overlap;
        Some(declaration)
    }

    /// Returns the words of a [`Report`], if it has some.
    ///
    /// ```
    /// # use varta_proto::control::*;
    /// # let mut out = [0; MAX_CONTROL_LEN];
    /// let name = AgentName::parse("backup")?;
    /// let mut report = Report::new(4242, [7; 16], &name, ReportEvent::Said);
    /// report.said = Some("no space left on device");
    /// assert_eq!(Control::decode(&report.encode(&mut out))?.said(), report.said);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn said(&self) -> Option<&'a str> {
        self.text(tag::SAID)
    }

    /// Returns the child of the sending process that does its work, if a [`Report`] names one: its pid as the parent
    /// knows it.
    ///
    /// ```
    /// # use varta_proto::control::*;
    /// # let mut out = [0; MAX_CONTROL_LEN];
    /// let name = AgentName::parse("backup")?;
    /// let mut report = Report::new(4242, [7; 16], &name, ReportEvent::Said);
    /// report.child = Some(4243);
    /// assert_eq!(Control::decode(&report.encode(&mut out))?.child(), report.child);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub const fn child(&self) -> Option<u32> {
        self.entries.child
    }

    /// The first text with this tag. Decoding has checked all of them.
    fn text(&self, tag: u8) -> Option<&'a str> {
        let mut rest = self.body;
        while let Some((found, value, behind)) = split_entry(rest) {
            if found == tag {
                return core::str::from_utf8(value).ok();
            }
            rest = behind;
        }
        None
    }
}
