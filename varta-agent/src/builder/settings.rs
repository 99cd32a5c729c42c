//! The builder, and what is the same for every transport.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use crate::agent::Varta;
use crate::profile::{Profile, ProfileError};
use crate::transport::BeatTransport;

/// Lost beats in a row after which a handle from the builder reconnects: the first beat to a server that was restarted
/// is lost to the old socket, and goes out once more on a new one.
const DEFAULT_RECONNECT_AFTER: u32 = 1;

/// Makes a [`Varta`]; [`Varta::builder`] gives one.
///
/// ```
/// # let dir = tempfile::tempdir()?;
/// # let path = dir.path().join("varta.sock");
/// use varta_agent::{Status, Varta};
///
/// // Nobody listens yet, and a lazy handle does not mind.
/// let mut agent = Varta::builder().socket(&path).lazy().connect()?;
/// assert!(agent.beat(Status::Ok, 0).is_dropped());
///
/// let server = std::os::unix::net::UnixDatagram::bind(&path)?;
/// assert!(agent.beat(Status::Ok, 0).is_sent());
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// # Saying more than beats
///
/// A beat carries no name and no interval. A handle that is given a [name](Self::name), an [interval](Self::interval),
/// a [stall-after](Self::stall_after) or [labels](Self::label) says so to the server in a *Hello*: when it connects,
/// behind the first beat after a fork or a reconnect, and behind a beat at least once a minute, so that a restarted
/// server learns it anew. A Hello that is lost goes out again behind a later beat; it never makes a difference to what
/// becomes of the beat. A handle that is given none of these sends beats and nothing else.
///
/// A server that does not know of Hellos counts them as malformed, and takes the beats as ever.
///
/// ```
/// # let dir = tempfile::tempdir()?;
/// # let path = dir.path().join("varta.sock");
/// # let server = std::os::unix::net::UnixDatagram::bind(&path)?;
/// use std::time::Duration;
/// use varta_agent::{Control, Varta};
///
/// let agent = Varta::builder()
///     .socket(&path)
///     .name("billing-worker")
///     .interval(Duration::from_millis(500))
///     .stall_after(Duration::from_secs(2))
///     .label("team", "payments")
///     .connect()?;
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

/// What is the same for every transport.
#[derive(Debug)]
pub(super) struct Settings {
    pub(super) reconnect_after: u32,
    pub(super) profile: Option<Box<Profile>>,
    /// The first setting that cannot be. It waits for `connect`, so that settings can be written in one chain.
    error: Option<ProfileError>,
}

/// Where a [`Builder`] gets its transport from: a Unix socket that it connects itself.
#[derive(Debug, Default)]
pub struct UnixSocket {
    pub(super) path: Option<PathBuf>,
    pub(super) lazy: bool,
}

impl Builder {
    pub(crate) fn new() -> Self {
        let settings = Settings { reconnect_after: DEFAULT_RECONNECT_AFTER, profile: None, error: None };
        Self { settings, source: UnixSocket::default() }
    }
}

impl<S> Builder<S> {
    /// Reconnects after `n` lost beats in a row, as [`Varta::set_reconnect_after`] says; 0 never does. Here the default
    /// is 1, with which a handle finds a restarted server by itself and loses no beat to the restart.
    pub fn reconnect_after(mut self, n: u32) -> Self {
        self.settings.reconnect_after = n;
        self
    }

    /// Gives the agent a name: 1 to 64 characters of `A-Z a-z 0-9 . _ - : / @`. It groups what one worker is through
    /// all its restarts, whatever its pid is; several processes may have the same. Any other name is an error of
    /// `connect`.
    ///
    /// ```
    /// use varta_agent::Varta;
    ///
    /// let error = Varta::builder().lazy().name("my worker").connect().unwrap_err();
    /// assert!(error.to_string().starts_with("an agent cannot be named \"my worker\": character 3 "));
    /// ```
    pub fn name(self, name: impl AsRef<str>) -> Self {
        self.set_profile(|profile| profile.set_name(name.as_ref()))
    }

    /// Says how often the agent means to beat, in milliseconds begun. It does not make the handle beat. An interval of
    /// zero or of more than 49 days is an error of `connect`.
    ///
    /// ```
    /// use std::time::Duration;
    /// use varta_agent::Varta;
    ///
    /// let agent = Varta::builder().lazy().interval(Duration::from_secs(1)).connect()?;
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn interval(self, interval: Duration) -> Self {
        self.set_profile(|profile| profile.set_interval(interval).map(drop))
    }

    /// Asks to be called stalled after so long a silence and not when the server does by default, in milliseconds
    /// begun. Three intervals are a good measure. Zero, more than 49 days, and what is not longer than the
    /// [interval](Self::interval) are errors of `connect`.
    ///
    /// ```
    /// use std::time::Duration;
    /// use varta_agent::Varta;
    ///
    /// let second = Duration::from_secs(1);
    /// let agent = Varta::builder().lazy().interval(second).stall_after(3 * second).connect()?;
    /// assert!(Varta::builder().lazy().interval(second).stall_after(second).connect().is_err());
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn stall_after(self, stall_after: Duration) -> Self {
        self.set_profile(|profile| profile.set_stall_after(stall_after))
    }

    /// Adds a label by which operators sort agents: the key as Prometheus has it, the value any text without control
    /// characters. An agent has at most 8, no two with one key and some 350 bytes in all; what is beyond is an error of
    /// `connect`.
    ///
    /// ```
    /// use varta_agent::Varta;
    ///
    /// let agent = Varta::builder().lazy().label("team", "payments").label("zone", "a").connect()?;
    /// assert!(Varta::builder().lazy().label("my-team", "payments").connect().is_err());
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn label(self, key: impl AsRef<str>, value: impl AsRef<str>) -> Self {
        self.set_profile(|profile| profile.add_label(key.as_ref(), value.as_ref()))
    }

    /// Has the handle say something of itself.
    fn set_profile(mut self, set: impl FnOnce(&mut Profile) -> Result<(), ProfileError>) -> Self {
        let result = set(self.settings.profile.get_or_insert_default());
        self.settings.error = self.settings.error.or(result.err());
        self
    }
}

impl Settings {
    /// Gives the settings if all of them can be.
    pub(super) fn validated(mut self) -> io::Result<Self> {
        let error =
            self.error.take().map_or_else(|| self.profile.as_ref().map_or(Ok(()), |p| p.check()), Err);
        error.map_err(ProfileError::into_io)?;
        Ok(self)
    }

    /// Makes a handle of a transport, if there is one.
    pub(super) fn build<T: BeatTransport>(self, transport: io::Result<T>) -> io::Result<Varta<T>> {
        let Self { reconnect_after, profile, .. } = self.validated()?;
        Ok(Varta::with_profile(transport?, reconnect_after, profile, true))
    }
}
