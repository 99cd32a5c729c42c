//! How a handle is made: everything about a beat that can fail or allocate happens here, once.

#[cfg(feature = "secure-udp")]
mod secure;
#[cfg(all(feature = "shm", target_os = "linux"))]
mod shm;
#[cfg(feature = "udp")]
mod udp;

use std::env;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use crate::agent::Varta;
use crate::profile::{Fault, Profile};
use crate::transport::uds::Advice;
use crate::transport::{BeatTransport, UdsTransport};

#[cfg(feature = "secure-udp")]
pub use secure::SecureUdpServer;
#[cfg(all(feature = "shm", target_os = "linux"))]
pub use shm::SharedMemory;
#[cfg(feature = "udp")]
pub use udp::UdpServer;

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
    settings: Settings,
    source: S,
}

/// What is the same for every transport.
#[derive(Debug)]
struct Settings {
    reconnect_after: u32,
    profile: Option<Box<Profile>>,
    /// The first setting that cannot be. It waits for `connect`, so that settings can be written in one chain.
    fault: Option<Fault>,
}

/// Where a [`Builder`] gets its transport from: a Unix socket that it connects itself.
#[derive(Debug, Default)]
pub struct UnixSocket {
    path: Option<PathBuf>,
    lazy: bool,
}

/// Where a [`Builder`] gets its transport from: the one that [`Builder::transport`] was given.
#[derive(Debug)]
pub struct CustomTransport<T>(T);

impl Builder {
    pub(crate) fn new() -> Self {
        let settings = Settings { reconnect_after: DEFAULT_RECONNECT_AFTER, profile: None, fault: None };
        Self { settings, source: UnixSocket::default() }
    }

    /// Sends to the server that listens at `path`. Without it the handle looks where
    /// [`connect_default`](Varta::connect_default) does.
    pub fn socket(mut self, path: impl Into<PathBuf>) -> Self {
        self.source.path = Some(path.into());
        self
    }

    /// Connects when there is something to send, so that a program can start before its server.
    ///
    /// As long as there is no server, each beat looks for one and is
    /// [`Dropped(NoObserver)`](crate::DropReason::NoObserver) if there is still none. It does so whatever
    /// [`reconnect_after`](Self::reconnect_after) says, which is about connections that were lost.
    ///
    /// Nor does the handle say anything before its first beat: what it has to say of itself goes out behind that one.
    /// So a process that connects and leaves all beats to the children that it forks is not taken for an agent.
    pub const fn lazy(mut self) -> Self {
        self.source.lazy = true;
        self
    }

    /// Makes the handle.
    ///
    /// # Errors
    ///
    /// No socket can have the path that was given, or a setting cannot be. Unless the handle is [`lazy`](Self::lazy),
    /// also: nobody listens there, this process may not connect, or there is no descriptor left. The message names the
    /// path and says what to do.
    pub fn connect(self) -> io::Result<Varta> {
        let settings = self.settings.checked()?;
        let is_lazy = self.source.lazy;
        let transport = self.source.transport()?;
        Ok(Varta::introduced(transport, settings.reconnect_after, settings.profile, !is_lazy))
    }
}

impl UnixSocket {
    /// Makes the transport, connected unless it is to look for its server later.
    fn transport(self) -> io::Result<UdsTransport> {
        let (transport, advice) = match self.path {
            Some(path) => (UdsTransport::at(&path)?, Advice::Path),
            None => (UdsTransport::at_default(|name| env::var_os(name))?, Advice::Environment),
        };
        if self.lazy { Ok(transport) } else { transport.connect_now(advice) }
    }
}

impl<T: BeatTransport> Builder<CustomTransport<T>> {
    /// Makes the handle, of a transport that is ready.
    ///
    /// # Errors
    ///
    /// A setting cannot be. The message says which and why.
    pub fn connect(self) -> io::Result<Varta<T>> {
        self.settings.handle(Ok(self.source.0))
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
        self.tell(|profile| profile.set_name(name.as_ref()))
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
        self.tell(|profile| profile.set_interval(interval).map(drop))
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
        self.tell(|profile| profile.set_stall_after(stall_after))
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
        self.tell(|profile| profile.add_label(key.as_ref(), value.as_ref()))
    }

    /// Sends through `transport` and not through a socket that the builder connects.
    pub fn transport<T: BeatTransport>(self, transport: T) -> Builder<CustomTransport<T>> {
        Builder { settings: self.settings, source: CustomTransport(transport) }
    }

    /// Has the handle say something of itself.
    fn tell(mut self, set: impl FnOnce(&mut Profile) -> Result<(), Fault>) -> Self {
        let told = set(self.settings.profile.get_or_insert_default());
        self.settings.fault = self.settings.fault.or(told.err());
        self
    }
}

impl Settings {
    /// Gives the settings if all of them can be.
    fn checked(mut self) -> io::Result<Self> {
        let fault =
            self.fault.take().map_or_else(|| self.profile.as_ref().map_or(Ok(()), |p| p.check()), Err);
        fault.map_err(Fault::into_io)?;
        Ok(self)
    }

    /// Makes a handle of a transport, if there is one.
    fn handle<T: BeatTransport>(self, transport: io::Result<T>) -> io::Result<Varta<T>> {
        let Self { reconnect_after, profile, .. } = self.checked()?;
        Ok(Varta::introduced(transport?, reconnect_after, profile, true))
    }
}
