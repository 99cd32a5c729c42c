//! The builder, and the settings that all transports have in common.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use crate::agent::Varta;
use crate::profile::{Profile, ProfileError};
use crate::transport::BeatTransport;

/// The default of [`Builder::reconnect_after`]: the first beat after a server's restart is lost on the old
/// socket, and is sent once more on a new one.
const DEFAULT_RECONNECT_AFTER: u32 = 1;

/// Creates a [`Varta`]. [`Varta::builder`] returns one.
///
/// Its defaults are those for production: a program starts with or without a server, finds the server as soon
/// as there is one, and finds it again after a restart.
///
/// ```
/// # let dir = tempfile::tempdir()?;
/// # let path = dir.path().join("varta.sock");
/// use varta_agent::{Status, Varta};
///
/// let mut agent = Varta::builder().name("billing-worker").socket(&path).connect()?;
/// assert!(agent.beat(Status::Ok, 0).is_dropped());
///
/// let server = std::os::unix::net::UnixDatagram::bind(&path)?;
/// assert!(agent.beat(Status::Ok, 0).is_sent());
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// # Settings that the server receives
///
/// A beat carries no name and no interval. A handle with a [name](Self::name), an [interval](Self::interval),
/// a [stall-after](Self::stall_after) or [labels](Self::label) sends them to the server in a *Hello*: before
/// the first beat on each connection and after each fork, so that the server knows the name from the first
/// beat on, and after a beat at least once a minute. A lost Hello is sent again with a later beat; it never
/// affects the outcome of a beat. A handle without any of these sends only beats.
///
/// A server without support for Hellos counts them as malformed, and accepts the beats.
///
/// ```
/// # let dir = tempfile::tempdir()?;
/// # let path = dir.path().join("varta.sock");
/// # let server = std::os::unix::net::UnixDatagram::bind(&path)?;
/// use std::time::Duration;
/// use varta_agent::{Control, Status, Varta};
///
/// let mut agent = Varta::builder()
///     .socket(&path)
///     .name("billing-worker")
///     .interval(Duration::from_millis(500))
///     .stall_after(Duration::from_secs(2))
///     .label("team", "payments")
///     .connect()?;
/// let _ = agent.beat(Status::Ok, 0);
///
/// let mut datagram = [0; 512];
/// let length = server.recv(&mut datagram)?;
/// let hello = Control::decode(&datagram[..length])?;
/// assert_eq!(hello.name().map(|name| name.as_str()), Some("billing-worker"));
/// assert_eq!((hello.interval_ms(), hello.stall_after_ms()), (Some(500), Some(2000)));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
#[must_use = "a builder does nothing before `connect`"]
pub struct Builder<S = UnixSocket> {
    pub(super) settings: Settings,
    pub(super) source: S,
}

/// The settings that all transports have in common.
#[derive(Debug)]
pub(super) struct Settings {
    pub(super) reconnect_after: u32,
    pub(super) profile: Option<Box<Profile>>,
    /// The first invalid setting. It is reported by `connect`, so that settings can be chained.
    error: Option<ProfileError>,
}

/// The source of a [`Builder`]'s transport: a Unix socket that the builder connects.
#[derive(Debug, Default)]
pub struct UnixSocket {
    pub(super) path: Option<PathBuf>,
    /// Whether the socket is connected with the handle, which fails without a server.
    pub(super) is_eager: bool,
}

impl Builder {
    pub(crate) fn new() -> Self {
        let settings = Settings { reconnect_after: DEFAULT_RECONNECT_AFTER, profile: None, error: None };
        Self { settings, source: UnixSocket::default() }
    }
}

impl<S> Builder<S> {
    /// Reconnects after `n` lost beats in a row, as with [`Varta::set_reconnect_after`]; 0 for never. The
    /// default is 1: a handle finds a restarted server automatically and loses no beat to the restart.
    pub fn reconnect_after(mut self, n: u32) -> Self {
        self.settings.reconnect_after = n;
        self
    }

    /// Sets the agent's name: 1 to 64 characters of `A-Z a-z 0-9 . _ - : / @`. The name identifies a worker
    /// across restarts, with any pid; several processes may have the same. Any other name is an error of
    /// `connect`.
    ///
    /// ```
    /// use varta_agent::Varta;
    ///
    /// let error = Varta::builder().name("my worker").connect().unwrap_err();
    /// assert!(error.to_string().starts_with("an agent cannot be named \"my worker\": character 3 "));
    /// ```
    pub fn name(self, name: impl AsRef<str>) -> Self {
        self.set_profile(|profile| profile.set_name(name.as_ref()))
    }

    /// Announces the interval between the agent's beats, rounded up to milliseconds. It does not make the
    /// handle beat. Zero and more than 49 days are errors of `connect`.
    ///
    /// A server takes it at its word: without a [stall-after](Self::stall_after), an agent is stalled after
    /// three intervals without a beat, which may be less or more than the server's default. The server's
    /// limits are 10 ms and its `--longest-silence`; a timeout that its operator sets for this agent's name
    /// goes before, and so does a timeout that the server has learned from this agent's beats, unless that is
    /// shorter than the interval.
    ///
    /// ```
    /// use std::time::Duration;
    /// use varta_agent::Varta;
    ///
    /// let agent = Varta::builder().interval(Duration::from_secs(1)).connect()?;
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn interval(self, interval: Duration) -> Self {
        self.set_profile(|profile| profile.set_interval(interval).map(drop))
    }

    /// Sets the silence after which the agent asks the server to count it as stalled, instead of the server's
    /// default and of what it learns, rounded up to milliseconds. Three intervals are a good value. Zero, more
    /// than 49 days, and a value that is not longer than the [interval](Self::interval) are errors of
    /// `connect`.
    ///
    /// A server grants it between 10 ms and its `--longest-silence`, unless its operator sets another timeout
    /// for this agent's name.
    ///
    /// ```
    /// use std::time::Duration;
    /// use varta_agent::Varta;
    ///
    /// let second = Duration::from_secs(1);
    /// let agent = Varta::builder().interval(second).stall_after(3 * second).connect()?;
    /// assert!(Varta::builder().interval(second).stall_after(second).connect().is_err());
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn stall_after(self, stall_after: Duration) -> Self {
        self.set_profile(|profile| profile.set_stall_after(stall_after))
    }

    /// Declares that the payload of the beats is a counter of the work done, which must move: an agent that beats and
    /// whose payload has been the same for this time is stalled, because it makes no progress. Rounded up to
    /// milliseconds; zero and more than 49 days are errors of `connect`.
    ///
    /// [`Varta::progress`] declares it too, with the time that the server has set. An operator can set another time
    /// for this agent's name, or that nobody looks at its counter. Servers without support for progress take no notice.
    ///
    /// ```
    /// use std::time::Duration;
    /// use varta_agent::Varta;
    ///
    /// let mut agent = Varta::builder().no_progress_after(Duration::from_secs(60)).connect()?;
    /// for message in 1..=3 {
    ///     // … handle it …
    ///     let _ = agent.progress(message);
    /// }
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn no_progress_after(self, after: Duration) -> Self {
        self.set_profile(|profile| profile.set_no_progress_after(after))
    }

    /// Adds a label by which operators sort agents: the key of the form of a Prometheus label name, the value
    /// any text without control characters. An agent has at most 8 labels, no two with one key, with some 350
    /// bytes in all; more are an error of `connect`.
    ///
    /// ```
    /// use varta_agent::Varta;
    ///
    /// let agent = Varta::builder().label("team", "payments").label("zone", "a").connect()?;
    /// assert!(Varta::builder().label("my-team", "payments").connect().is_err());
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn label(self, key: impl AsRef<str>, value: impl AsRef<str>) -> Self {
        self.set_profile(|profile| profile.add_label(key.as_ref(), value.as_ref()))
    }

    /// Changes the profile, and stores the first error.
    fn set_profile(mut self, set: impl FnOnce(&mut Profile) -> Result<(), ProfileError>) -> Self {
        let result = set(self.settings.profile.get_or_insert_default());
        self.settings.error = self.settings.error.or(result.err());
        self
    }
}

impl Settings {
    /// Returns the settings if all of them are valid.
    pub(super) fn validated(mut self) -> io::Result<Self> {
        let error =
            self.error.take().map_or_else(|| self.profile.as_ref().map_or(Ok(()), |p| p.check()), Err);
        error.map_err(ProfileError::into_io)?;
        Ok(self)
    }

    /// Creates a handle with this transport.
    pub(super) fn build<T: BeatTransport>(self, transport: io::Result<T>) -> io::Result<Varta<T>> {
        let Self { reconnect_after, profile, .. } = self.validated()?;
        Ok(Varta::with_profile(transport?, reconnect_after, profile, true))
    }
}
