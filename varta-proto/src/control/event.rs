//! What a report says: what has happened, and when that is to happen.

use core::fmt;

/// What a [`Report`](super::Report) says.
///
/// ```
/// use varta_proto::control::ReportEvent;
///
/// assert_eq!(ReportEvent::Failed { status: Some(3) }.to_string(), "failed");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ReportEvent {
    /// It is well.
    Beat,
    /// It has begun.
    Started,
    /// It has ended well.
    Ended,
    /// It has failed.
    Failed {
        /// The exit status, if there is one.
        status: Option<u8>,
    },
    /// Nothing happened: the report only declares when it is to happen.
    Declared,
    /// Nothing happened: the report has words of the process that sends it, or names the child that does its work, and is
    /// about the agent that this process is.
    Said,
}

impl ReportEvent {
    /// Returns the event in lower case.
    ///
    /// ```
    /// assert_eq!(varta_proto::control::ReportEvent::Started.as_str(), "started");
    /// ```
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Beat => "beat",
            Self::Started => "started",
            Self::Ended => "ended",
            Self::Failed { .. } => "failed",
            Self::Declared => "declared",
            Self::Said => "said",
        }
    }

    /// The value of its entry, which has one byte, or two.
    pub(super) const fn to_wire(self) -> ([u8; 2], usize) {
        match self {
            Self::Beat => ([0, 0], 1),
            Self::Started => ([1, 0], 1),
            Self::Ended => ([2, 0], 1),
            Self::Failed { status: None } => ([3, 0], 1),
            Self::Failed { status: Some(status) } => ([3, status], 2),
            Self::Declared => ([4, 0], 1),
            Self::Said => ([5, 0], 1),
        }
    }

    /// Reads the value of an entry; `None` for one that this version does not know.
    pub(super) const fn from_wire(value: [u8; 2], len: usize) -> Option<Self> {
        match (value, len) {
            ([0, _], 1) => Some(Self::Beat),
            ([1, _], 1) => Some(Self::Started),
            ([2, _], 1) => Some(Self::Ended),
            ([3, _], 1) => Some(Self::Failed { status: None }),
            ([3, status], 2) => Some(Self::Failed { status: Some(status) }),
            ([4, _], 1) => Some(Self::Declared),
            ([5, _], 1) => Some(Self::Said),
            _ => None,
        }
    }
}

/// Formats as [`as_str`](ReportEvent::as_str), with width and alignment.
impl fmt::Display for ReportEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// When something that is known by its name is to begin, and how long it may take: a declared job.
///
/// The texts are bounded here and understood by the server.
///
/// ```
/// use varta_proto::control::Declaration;
///
/// let mut daily = Declaration::new("0 4 * * *", Some("Europe/Berlin")).unwrap();
/// daily.grace_ms = Some(3_600_000);
/// assert_eq!((daily.schedule(), daily.timezone()), ("0 4 * * *", Some("Europe/Berlin")));
/// assert!(Declaration::new("", None).is_none());
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Declaration<'a> {
    schedule: &'a str,
    timezone: Option<&'a str>,
    /// How late it may begin, in milliseconds.
    pub grace_ms: Option<u64>,
    /// How long it may take, in milliseconds.
    pub longest_run_ms: Option<u64>,
    /// Whether it is an alarm that it begins while it is under way.
    pub alarm_on_overlap: bool,
}

impl<'a> Declaration<'a> {
    /// The maximum length of a schedule, in bytes.
    pub const MAX_SCHEDULE_LEN: usize = 255;
    /// The maximum length of the name of a time zone, in bytes.
    pub const MAX_TIMEZONE_LEN: usize = 64;

    /// Creates a declaration with neither grace nor longest run, and without alarms for overlaps; `None` if a text is
    /// empty, too long, or has control characters.
    ///
    /// ```
    /// use varta_proto::control::Declaration;
    ///
    /// assert!(Declaration::new("every 1d", None).is_some());
    /// assert!(Declaration::new("every\n1d", None).is_none());
    /// ```
    pub fn new(schedule: &'a str, timezone: Option<&'a str>) -> Option<Self> {
        let is_right = |text: &str, most: usize| {
            !text.is_empty() && text.len() <= most && !text.chars().any(char::is_control)
        };
        let are_right = is_right(schedule, Self::MAX_SCHEDULE_LEN)
            && timezone.is_none_or(|zone| is_right(zone, Self::MAX_TIMEZONE_LEN));
        are_right.then_some(Self {
            schedule,
            timezone,
            grace_ms: None,
            longest_run_ms: None,
            alarm_on_overlap: false,
        })
    }

    /// Returns the schedule.
    ///
    /// ```
    /// # use varta_proto::control::Declaration;
    /// assert_eq!(Declaration::new("daily", None).unwrap().schedule(), "daily");
    /// ```
    pub const fn schedule(&self) -> &'a str {
        self.schedule
    }

    /// Returns the name of the time zone; `None` for that of the server.
    ///
    /// ```
    /// # use varta_proto::control::Declaration;
    /// assert_eq!(Declaration::new("daily", Some("UTC")).unwrap().timezone(), Some("UTC"));
    /// ```
    pub const fn timezone(&self) -> Option<&'a str> {
        self.timezone
    }
}
