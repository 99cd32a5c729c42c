//! The file `instance.json`: which database the state directory has, written beside it.
//!
//! A database that is missing, empty, another one or an older copy looks like any other. By this file the
//! server tells that something was lost.

use std::io;
use std::path::Path;

use ring::rand::{SecureRandom, SystemRandom};
use serde::{Deserialize, Serialize};

use crate::base::error::Error;
use crate::base::files::bounded_read::Owner;
use crate::base::files::private_json::{Fault, PrivateJson};
use crate::services::state::last_sign::LastSign;
use crate::services::state::schema::FileState;

const FILE: &str = "instance.json";
const VERSION: u64 = 1;
/// The limit of the file's length in bytes.
const MAX_LEN: u64 = 4_096;

/// What the file says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Instance {
    v: u64,
    /// The name of the database.
    instance: String,
    /// How often a server was started with it.
    starts: u64,
}

impl Instance {
    /// What there is to say of the database that gives this sign.
    pub(super) fn of(sign: &LastSign) -> Self {
        Instance { v: VERSION, instance: sign.instance.clone(), starts: sign.starts }
    }
}

/// The file, in the locked state directory.
#[derive(Debug)]
pub(super) struct InstanceFile {
    file: PrivateJson,
    is_written: bool,
    /// Whether a failure to write it is logged.
    is_failing: bool,
}

impl InstanceFile {
    /// The file in this directory, without access to it.
    pub(super) fn new(directory: &Path) -> Self {
        let file = PrivateJson::new(directory.join(FILE), VERSION, MAX_LEN, Owner::OursOrRoot);
        InstanceFile { file, is_written: false, is_failing: false }
    }

    /// Reads the file. One that makes no sense or cannot be read is logged, and counts as none.
    ///
    /// # Errors
    ///
    /// [`Error::NewerState`] when a newer server wrote it. The file is unchanged.
    pub(super) fn read(&self) -> Result<Option<Instance>, Error> {
        self.file.refuse_newer()?;
        let parse = |content: &[u8]| serde_json::from_slice(content).map_err(|fault| fault.to_string());
        let fault = match self.file.read(parse) {
            Ok(instance) => return Ok(instance),
            Err(Fault::Unreadable(error)) => error.to_string(),
            Err(Fault::Broken(fault)) => format!("is broken ({fault})"),
        };
        tracing::warn!(
            target: "varta::state",
            "{}: {fault}; whether the database beside it is the one of the server before cannot be told, and the file is \
             written anew",
            self.file.path().display()
        );
        Ok(None)
    }

    /// Has the next write replace the file, because the database or its directory is another.
    pub(super) fn write_again(&mut self) {
        self.is_written = false;
    }

    /// Replaces the file by what there is to say of the database that gives this sign, unless it was replaced
    /// before.
    ///
    /// # Errors
    ///
    /// The error of the system. The first one is logged.
    pub(super) fn write_once(&mut self, sign: &LastSign) -> io::Result<()> {
        if self.is_written {
            return Ok(());
        }
        let mut text = serde_json::to_vec(&Instance::of(sign)).map_err(io::Error::other)?;
        text.push(b'\n');
        let written = self.file.write(&text);
        self.is_written = written.is_ok();
        if let Err(error) = &written
            && !std::mem::replace(&mut self.is_failing, true)
        {
            tracing::warn!(
                target: "varta::state",
                "{}: cannot be written: {error}; until it can, the next server does not see it when the database is missing",
                self.file.path().display()
            );
        }
        written
    }
}

/// A name for a new database.
pub(super) fn new_name() -> String {
    let mut bytes = [0; 8];
    // Without random numbers another database cannot be told from this one, and nothing else is lost.
    let _ = SystemRandom::new().fill(&mut bytes);
    format!("{:016x}", u64::from_be_bytes(bytes))
}

/// What a person should know of a database with this sign, where the file says this. `None` when nothing is
/// lost.
pub(super) fn warning(
    before: Option<&Instance>,
    state: FileState,
    found: Option<&LastSign>,
) -> Option<String> {
    let was = match state {
        FileState::Present => {
            let (before, found) = before.zip(found)?;
            return if before.instance != found.instance {
                Some(
                    "is not the database that this directory had: its agents, its history and its table of replays take \
                     the place of those"
                        .to_owned(),
                )
            } else if before.starts > found.starts {
                Some(format!(
                    "is an older copy (starts of a server since: {}): what changed since is lost, and a sealed datagram that \
                     was accepted since may be accepted again",
                    before.starts - found.starts
                ))
            } else {
                None
            };
        }
        FileState::Missing => "is missing",
        FileState::Empty => "is empty",
    };
    match (before, state) {
        (Some(_), _) => Some(format!(
            "{was}, and this directory had a database ({FILE} says so): all agents are unknown to this server, and the \
             history and the table of replays are lost. Was the file removed, or replaced? A new one is begun"
        )),
        (None, FileState::Empty) => Some(format!(
            "{was}: if there was a database before, all of its agents are unknown to this server, and the history and the \
             table of replays are lost. A new one is begun"
        )),
        (None, FileState::Missing | FileState::Present) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::time::WallTime;

    fn sign(instance: &str, starts: u64) -> LastSign {
        let instance = instance.to_owned();
        LastSign {
            instance,
            starts,
            boot: None,
            since_boot: None,
            wall: WallTime::default(),
            is_complete: true,
        }
    }

    #[test]
    fn what_is_written_is_read_and_what_makes_no_sense_is_none() {
        let directory = tempfile::tempdir().unwrap();
        let mut file = InstanceFile::new(directory.path());
        assert_eq!(file.read().unwrap(), None);
        for _ in 0..2 {
            file.write_once(&sign("a", 7)).unwrap();
            assert_eq!(file.read().unwrap(), Some(Instance::of(&sign("a", 7))));
        }
        for senseless in ["", "{}", r#"{"v":1,"instance":7,"starts":1}"#] {
            std::fs::write(directory.path().join(FILE), senseless).unwrap();
            assert_eq!(file.read().unwrap(), None, "{senseless}");
        }
        std::fs::write(directory.path().join(FILE), r#"{"v":2}"#).unwrap();
        assert!(matches!(file.read(), Err(Error::NewerState { version: 2, .. })));
    }

    #[test]
    fn a_database_that_lost_something_is_told_from_one_that_did_not() {
        let before = Instance::of(&sign("a", 7));
        let tells = |before: Option<&Instance>, state, found: Option<(&str, u64)>, what: Option<&str>| {
            let found = found.map(|(instance, starts)| sign(instance, starts));
            let told = warning(before, state, found.as_ref());
            assert_eq!(told.is_some(), what.is_some(), "{told:?}");
            assert!(told.unwrap_or_default().contains(what.unwrap_or_default()));
        };
        tells(None, FileState::Missing, None, None);
        tells(Some(&before), FileState::Missing, None, Some("is missing"));
        tells(None, FileState::Empty, None, Some("is empty: if there was"));
        tells(Some(&before), FileState::Empty, None, Some("is empty, and this directory had"));
        // A server was killed before it wrote the file, or it wrote none yet.
        tells(Some(&before), FileState::Present, Some(("a", 8)), None);
        tells(Some(&before), FileState::Present, Some(("a", 7)), None);
        tells(None, FileState::Present, Some(("a", 7)), None);
        tells(Some(&before), FileState::Present, None, None);
        tells(Some(&before), FileState::Present, Some(("a", 5)), Some("since: 2"));
        tells(Some(&before), FileState::Present, Some(("b", 9)), Some("is not the database"));
    }
}
