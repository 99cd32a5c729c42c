//! The file that carries alerts over a restart: `alerts.json` in the directory of `--state-dir`.

use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::base::error::Error;
use crate::base::files::bounded_read::{Owner, ReadError};
use crate::base::files::private_json::{Fault, PrivateJson};
use crate::base::files::state_dir::StateDir;
use crate::services::alerts::lifecycle::{PersistedAck, PersistedAlert};

const NAME: &str = "alerts.json";
/// The version of the file's format: version 1 has no acknowledgements.
const VERSION: u32 = 2;
/// The limit of the file's length in bytes. The server writes less: there are some five thousand alerts at
/// most.
const MAX_LEN: u64 = 32 << 20;

#[derive(Serialize)]
struct Written<'a> {
    version: u32,
    alerts: &'a [PersistedAlert],
    acks: &'a [PersistedAck],
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AlertFileContent {
    version: u32,
    alerts: Vec<PersistedAlert>,
    #[serde(default)]
    acks: Vec<PersistedAck>,
}

/// What outlives the server.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct KeptAlerts {
    pub(super) alerts: Vec<PersistedAlert>,
    pub(super) acks: Vec<PersistedAck>,
}

impl KeptAlerts {
    /// The content of a file, also for a server that takes over and has none.
    ///
    /// # Errors
    ///
    /// None is expected.
    pub(super) fn to_bytes(&self) -> serde_json::Result<Vec<u8>> {
        let KeptAlerts { alerts, acks } = self;
        serde_json::to_vec(&Written { version: VERSION, alerts, acks })
    }

    /// Reads what [`KeptAlerts::to_bytes`] has written; nothing, with a log line, where that makes no sense.
    pub(super) fn from_bytes(content: &[u8]) -> Self {
        parse(content).unwrap_or_else(|fault| {
            tracing::error!(
                target: "varta::alerts",
                "the alerts of the server before this one make no sense ({fault}), and may fire again"
            );
            KeptAlerts::default()
        })
    }
}

/// The path of the file, which need not exist.
#[derive(Clone, Debug)]
pub(super) struct AlertFile {
    file: PrivateJson,
    /// Holds the lock of the directory until the last write has ended.
    _directory: StateDir,
}

impl AlertFile {
    pub(super) fn new(directory: &StateDir) -> Self {
        let path = directory.path().join(NAME);
        let file = PrivateJson::new(path, u64::from(VERSION), MAX_LEN, Owner::Anybody);
        AlertFile { file, _directory: directory.clone() }
    }

    /// Refuses a file that a newer server wrote, which [`AlertFile::read`] would take for a broken one.
    ///
    /// # Errors
    ///
    /// [`Error::NewerState`]. The file is unchanged.
    pub(super) fn refuse_newer(&self) -> Result<(), Error> {
        self.file.refuse_newer()
    }

    /// The alerts of the server's previous run; empty without a file. A file that cannot be read is logged,
    /// and one that is broken is moved aside.
    pub(super) fn read(&self) -> KeptAlerts {
        let path = self.path().display();
        let fault = match self.file.read(parse) {
            Ok(alerts) => return alerts.unwrap_or_default(),
            Err(Fault::Broken(fault)) => fault,
            Err(Fault::Unreadable(error @ ReadError::TooLong { .. })) => format!("it {error}"),
            Err(Fault::Unreadable(error)) => {
                tracing::warn!(
                    target: "varta::alerts",
                    "{path}: {error}; alerts that fired before may fire again"
                );
                return KeptAlerts::default();
            }
        };
        let moved = self.file.move_aside();
        tracing::warn!(
            target: "varta::alerts",
            "{path}: is broken ({fault}); {moved}, and alerts that fired before may fire again"
        );
        KeptAlerts::default()
    }

    /// Replaces the file atomically: a reader finds the old content or the new one.
    ///
    /// # Errors
    ///
    /// The error of the write; the old file is unchanged.
    pub(super) fn write(&self, kept: &KeptAlerts) -> io::Result<()> {
        self.file.write(&kept.to_bytes()?)
    }

    pub(super) fn path(&self) -> &Path {
        self.file.path()
    }
}

fn parse(content: &[u8]) -> Result<KeptAlerts, String> {
    let AlertFileContent { version, alerts, acks } =
        serde_json::from_slice(content).map_err(|error| error.to_string())?;
    if !(1..=VERSION).contains(&version) {
        return Err(format!("its form has version {version}, and this server knows 1 to {VERSION}"));
    }
    Ok(KeptAlerts { alerts, acks })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn file_in(directory: &Path) -> AlertFile {
        AlertFile::new(&StateDir::open(directory).unwrap())
    }

    #[test]
    fn a_file_that_is_not_there_says_nothing_and_a_broken_one_is_moved_aside() {
        let directory = tempfile::tempdir().unwrap();
        let file = file_in(directory.path());
        assert_eq!(file.read(), KeptAlerts::default());
        let broken =
            ["", "{", "[]", r#"{"version":0,"alerts":[]}"#, r#"{"version":1,"alerts":[{}]}"#, "\u{0}"];
        for content in broken {
            fs::write(file.path(), content).unwrap();
            assert_eq!(file.read(), KeptAlerts::default(), "{content}");
            assert!(!file.path().exists(), "{content}");
            let aside = fs::read_to_string(directory.path().join("alerts.json.corrupt")).unwrap();
            assert_eq!(aside, content);
        }
    }

    #[test]
    fn a_file_of_a_newer_server_is_refused_and_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let file = file_in(directory.path());
        assert!(file.refuse_newer().is_ok());
        for content in ["{", "{}", r#"{"version":1,"alerts":[]}"#, r#"{"version":0,"alerts":[]}"#] {
            fs::write(file.path(), content).unwrap();
            assert!(file.refuse_newer().is_ok(), "{content}");
        }
        let newer = r#"{"version":3,"alerts":{},"more":true}"#;
        fs::write(file.path(), newer).unwrap();
        let refused = file.refuse_newer().unwrap_err();
        assert!(matches!(refused, Error::NewerState { version: 3, .. }), "{refused}");
        assert_eq!(fs::read_to_string(file.path()).unwrap(), newer);
    }

    #[test]
    fn what_is_no_plain_file_is_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let file = file_in(directory.path());
        std::os::unix::fs::symlink("/dev/zero", file.path()).unwrap();
        assert_eq!(file.read(), KeptAlerts::default());
        assert!(file.path().is_symlink());
    }

    #[test]
    fn a_write_leaves_one_file_that_only_its_owner_reads() {
        use std::os::unix::fs::PermissionsExt;
        let directory = tempfile::tempdir().unwrap();
        let file = file_in(directory.path());
        file.write(&KeptAlerts::default()).unwrap();
        file.write(&KeptAlerts::default()).unwrap();
        assert_eq!(file.read(), KeptAlerts::default());
        assert_eq!(fs::metadata(file.path()).unwrap().permissions().mode() & 0o777, 0o600);
        // The other file is the lock of the directory.
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 2);
    }
}
