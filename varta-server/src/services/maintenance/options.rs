//! The options of maintenance: the control socket and planned pauses.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use clap::Args;

use crate::base::error::Error;
use crate::base::host_check::HostCheck;
use crate::base::options::table::{ParseError, ReadTables, Table, at, moment, text};
use crate::base::options::table_key::{KeyKind, TableKey};
use crate::base::{EntryError, Glob, SocketOptions};

/// The value that turns a socket off.
pub(super) const NONE: &str = "none";

/// Where a server has its control socket.
#[derive(Clone, Debug, Default, PartialEq, Eq, Args)]
pub struct MaintenanceArgs {
    /// Path of the control socket, or `none`
    ///
    /// On this Unix stream socket the server is asked by `varta-server pause`, `forget` and others. Default:
    /// the path of the first --socket with `.control` appended. Only this server's user and root can open it. A
    /// missing directory is made with mode 0700.
    #[arg(long, env = "VARTA_CONTROL_SOCKET", value_name = "PATH")]
    pub control_socket: Option<PathBuf>,
}

impl MaintenanceArgs {
    /// What these options say, with the pauses of the file. `sockets` are those on which agents beat.
    #[must_use]
    pub fn options(self, planned: PlannedPauses, sockets: &[SocketOptions]) -> MaintenanceOptions {
        let control = match self.control_socket {
            Some(path) if path.as_os_str() == NONE => None,
            Some(path) => Some(ControlSocket { path, is_default: false }),
            None => sockets.first().map(|socket| ControlSocket::beside(socket.path.clone())),
        };
        MaintenanceOptions { control, planned }
    }
}

/// The settings of maintenance.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MaintenanceOptions {
    /// The control socket; `None` without one.
    pub(crate) control: Option<ControlSocket>,
    /// The pauses of the configuration file.
    pub planned: PlannedPauses,
}

impl MaintenanceOptions {
    /// The path of the control socket, if there is one.
    #[must_use]
    pub fn control_path(&self) -> Option<&Path> {
        self.control.as_ref().map(|control| control.path.as_path())
    }

    /// Checks that the control socket can be made. With a default path that is too long there is none.
    pub(crate) fn check_host(&self, host: &mut HostCheck) {
        if let Some(ControlSocket { path, is_default: false }) = &self.control {
            host.socket("--control-socket", path, false);
        }
    }

    /// Checks the control socket. `sockets` are those on which agents beat.
    ///
    /// # Errors
    ///
    /// When its path is empty or one of those.
    pub fn check(&self, sockets: &[SocketOptions]) -> Result<(), Error> {
        let wrong = |fault: String| Err(Error::Option { option: "--control-socket", fault });
        let Some(ControlSocket { path, .. }) = &self.control else { return Ok(()) };
        if path.as_os_str().is_empty() {
            return wrong("the path is empty".to_owned());
        }
        if sockets.iter().any(|socket| socket.path == *path) {
            return wrong(format!("{} is a --socket already; give it a path of its own", path.display()));
        }
        Ok(())
    }
}

/// A control socket: a Unix stream socket that only its owner can open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ControlSocket {
    /// The path of the socket. A missing directory is created with mode 0700.
    pub path: PathBuf,
    /// Whether the path is the default: the server then runs without the socket if the path is too long.
    pub is_default: bool,
}

impl ControlSocket {
    /// The default control socket of a server: the path of its socket with `.control` appended.
    ///
    /// ```
    /// use varta_server::config::ControlSocket;
    ///
    /// let control = ControlSocket::beside("/run/varta/varta.sock".into());
    /// assert_eq!(control.path.to_str(), Some("/run/varta/varta.sock.control"));
    /// ```
    #[must_use]
    pub fn beside(socket: PathBuf) -> Self {
        let mut path = socket.into_os_string();
        path.push(".control");
        ControlSocket { path: path.into(), is_default: true }
    }
}

/// The reason of a pause: one line of text.
///
/// ```
/// use varta_server::config::Reason;
///
/// assert_eq!(Reason::parse("kernel update")?.as_str(), "kernel update");
/// assert!(Reason::parse("two\nlines").is_err());
/// # Ok::<(), varta_server::config::EntryError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reason(Box<str>);

impl Reason {
    /// The longest reason in bytes.
    pub const MAX_LEN: usize = 256;

    /// Parses a reason.
    ///
    /// # Errors
    ///
    /// [`EntryError::NotAReason`] for a text that is empty, too long, or has a control character.
    pub fn parse(text: &str) -> Result<Self, EntryError> {
        if text.is_empty() || text.len() > Self::MAX_LEN || text.chars().any(char::is_control) {
            return Err(EntryError::NotAReason { most: Self::MAX_LEN });
        }
        Ok(Reason(text.into()))
    }

    /// The text of the reason.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A pause in the configuration file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlannedPause {
    /// The pattern of the agents' names.
    pub name: Glob,
    /// The start; `None` for at once.
    pub from: Option<SystemTime>,
    /// The end; `None` for the removal of the entry from the file.
    pub until: Option<SystemTime>,
    /// The reason.
    pub reason: Option<Reason>,
}

/// The pauses of the configuration file in its order. A pattern may have several, for example one for each
/// night.
///
/// ```
/// use varta_server::config::{Glob, PlannedPause, PlannedPauses};
///
/// let mut pauses = PlannedPauses::default();
/// pauses.add(PlannedPause { name: Glob::parse("batch-*")?, from: None, until: None, reason: None })?;
/// assert_eq!(pauses.iter().len(), 1);
/// # Ok::<(), varta_server::config::EntryError>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PlannedPauses(Vec<PlannedPause>);

impl PlannedPauses {
    /// The most planned pauses. Each may be tried for every agent in alarm.
    pub const MAX_PLANNED: usize = 1_024;

    /// Appends a pause.
    ///
    /// # Errors
    ///
    /// There are too many, the pause ends before it starts, or an earlier one has the same pattern and times.
    /// The pauses are unchanged then.
    pub fn add(&mut self, pause: PlannedPause) -> Result<(), EntryError> {
        if let (Some(from), Some(until)) = (pause.from, pause.until)
            && until <= from
        {
            return Err(EntryError::EndsBeforeItBegins);
        }
        let is_same = |earlier: &PlannedPause| {
            (&earlier.name, earlier.from, earlier.until) == (&pause.name, pause.from, pause.until)
        };
        if self.0.iter().any(is_same) {
            return Err(EntryError::NameTwice { name: pause.name.as_str().to_owned() });
        }
        if self.0.len() >= Self::MAX_PLANNED {
            return Err(EntryError::TooMany { most: Self::MAX_PLANNED });
        }
        self.0.push(pause);
        Ok(())
    }

    /// All pauses in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &PlannedPause> {
        self.0.iter()
    }
}

/// The keys of a pause.
const PAUSE_KEYS: [TableKey; 4] = [
    TableKey::required(
        "name",
        KeyKind::Text(Glob::MAX_LEN),
        "Pattern of the agents' names: `*` matches any characters or none, `?` matches one",
    ),
    TableKey::optional("from", KeyKind::Moment, "Start; without it the pause begins at once"),
    TableKey::optional(
        "until",
        KeyKind::Moment,
        "End; without it the pause ends when it is removed from the file",
    ),
    TableKey::optional(
        "reason",
        KeyKind::Text(Reason::MAX_LEN),
        "Reason, for the log and the list of pauses",
    ),
];

impl ReadTables for PlannedPauses {
    const NAME: &str = "pause";
    const ABOUT: &str = "Agents that raise no alarms for a time";
    const KEYS: &[TableKey] = &PAUSE_KEYS;

    fn add(&mut self, table: &Table<'_, '_>) -> Result<(), ParseError> {
        let [name, from, until, reason] = table.values(&PAUSE_KEYS)?;
        let (place, name) = table.name(name)?;
        let name = Glob::parse(name).map_err(|error| at(place, error))?;
        let from = from.map(|value| moment("from", value)).transpose()?;
        let until = until.map(|value| moment("until", value)).transpose()?;
        let reason = reason.map(|value| {
            text("reason", value).and_then(|text| Reason::parse(text).map_err(|error| at(value, error)))
        });
        let pause = PlannedPause { name, from, until, reason: reason.transpose()? };
        PlannedPauses::add(self, pause).map_err(|error| at(place, error))
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    fn pause(name: &str, from: Option<u64>, until: Option<u64>) -> PlannedPause {
        let [from, until] = [from, until].map(|at| at.map(|at| UNIX_EPOCH + Duration::from_secs(at)));
        PlannedPause { name: Glob::parse(name).unwrap(), from, until, reason: None }
    }

    #[test]
    fn a_pattern_may_be_paused_at_several_times_and_not_twice_at_the_same() {
        let mut pauses = PlannedPauses::default();
        pauses.add(pause("a", Some(1), Some(2))).unwrap();
        pauses.add(pause("a", Some(3), Some(4))).unwrap();
        pauses.add(pause("a", None, None)).unwrap();
        assert!(matches!(pauses.add(pause("a", Some(1), Some(2))), Err(EntryError::NameTwice { .. })));
        assert_eq!(pauses.iter().len(), 3);
    }

    #[test]
    fn one_that_would_never_be_and_one_too_many_are_refused() {
        let mut pauses = PlannedPauses::default();
        for until in [1, 2] {
            assert_eq!(pauses.add(pause("a", Some(2), Some(until))), Err(EntryError::EndsBeforeItBegins));
        }
        for number in 0..PlannedPauses::MAX_PLANNED {
            pauses.add(pause(&format!("a{number}"), None, None)).unwrap();
        }
        let most = PlannedPauses::MAX_PLANNED;
        assert_eq!(pauses.add(pause("one-more", None, None)), Err(EntryError::TooMany { most }));
    }

    #[test]
    fn a_reason_is_one_line_of_bounded_length() {
        for wrong in ["", "a\nb", "\u{1b}[2J", &"x".repeat(Reason::MAX_LEN + 1)] {
            assert_eq!(Reason::parse(wrong), Err(EntryError::NotAReason { most: Reason::MAX_LEN }));
        }
        assert_eq!(Reason::parse("Größeres \"Update\"").unwrap().as_str(), "Größeres \"Update\"");
    }
}
