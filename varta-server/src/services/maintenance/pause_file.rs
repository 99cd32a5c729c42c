//! The file that carries requested pauses over a restart. Planned ones are not in it.
//!
//! Each write replaces the file atomically: whatever happens meanwhile, the old or the new one exists in
//! full.

use std::io;
use std::path::Path;

use serde_json::Value;

use crate::base::error::Error;
use crate::base::files::bounded_read::{Owner, ReadError};
use crate::base::files::private_json::{Fault, PrivateJson};
use crate::services::maintenance::json_object::JsonObject;
use crate::services::maintenance::pause::Pause;
use crate::services::maintenance::schedule::Schedule;

const FILE: &str = "pauses.json";
const VERSION: u64 = 1;
/// The limit of the file's length in bytes: above what the most pauses can take.
const MAX_LEN: u64 = 4 << 20;

/// The file, in the directory of `--state-dir`, which this server has locked.
#[derive(Clone, Debug)]
pub(super) struct PauseFile(PrivateJson);

impl PauseFile {
    /// The file in this directory, without access to it.
    pub(super) fn new(directory: &Path) -> Self {
        PauseFile(PrivateJson::new(directory.join(FILE), VERSION, MAX_LEN, Owner::OursOrRoot))
    }

    pub(super) fn path(&self) -> &Path {
        self.0.path()
    }

    /// Reads the pauses of the server's previous run. An invalid file is moved aside, one that cannot be read
    /// stays; both are logged, and there are no earlier pauses then.
    ///
    /// # Errors
    ///
    /// [`Error::NewerState`] when a newer server wrote it. The file is unchanged.
    pub(super) fn read(&self) -> Result<Vec<Pause>, Error> {
        self.0.refuse_newer()?;
        let path = self.path().display();
        let fault = match self.0.read(parse) {
            Ok(pauses) => return Ok(pauses.unwrap_or_default()),
            Err(Fault::Unreadable(ReadError::Io(error))) => {
                tracing::error!(
                    target: "varta::maintenance",
                    "{path}: cannot be read: {error}; pauses from before this start are not in force, and the file is written \
                     anew with the next one"
                );
                return Ok(Vec::new());
            }
            Err(Fault::Unreadable(ReadError::TooLong { max_len })) => {
                format!("it is longer than {} MiB", max_len >> 20)
            }
            Err(Fault::Unreadable(error)) => format!("it {error}"),
            Err(Fault::Broken(fault)) => fault,
        };
        let moved = self.0.move_aside();
        tracing::error!(
            target: "varta::maintenance",
            "{path}: is broken ({fault}); {moved}, and pauses from before this start are not in force"
        );
        Ok(Vec::new())
    }

    /// Writes these pauses, and returns once they are on the disk.
    ///
    /// # Errors
    ///
    /// The error of the write. The previous content remains; only if the sync of the directory failed may it
    /// be the new one.
    pub(super) fn write(&self, pauses: &[Pause]) -> io::Result<()> {
        self.0.write(text_of(pauses).as_bytes())
    }
}

/// The pauses as the bytes of a file, for a server that takes over and has none.
pub(super) fn to_bytes(pauses: &[Pause]) -> Vec<u8> {
    text_of(pauses).into_bytes()
}

/// Reads what [`to_bytes`] has written.
///
/// # Errors
///
/// The first fault.
pub(super) fn from_bytes(bytes: &[u8]) -> Result<Vec<Pause>, String> {
    parse(bytes)
}

/// The text of the file, with one pause in a line to be readable.
fn text_of(pauses: &[Pause]) -> String {
    let lines: Vec<String> = pauses.iter().map(|pause| pause.to_json().to_string()).collect();
    format!("{{\"v\":{VERSION},\"pauses\":[\n{}\n]}}\n", lines.join(",\n"))
}

fn parse(bytes: &[u8]) -> Result<Vec<Pause>, String> {
    let mut fields = JsonObject::parse(bytes)?;
    match fields.need_number("v")? {
        VERSION => {}
        other => return Err(format!("it is of version {other}, and this server knows version {VERSION}")),
    }
    let entries = fields.list("pauses")?;
    if entries.len() > Schedule::MAX_PAUSES {
        return Err(format!("it has more than {} pauses", Schedule::MAX_PAUSES));
    }
    entries.into_iter().map(parse_entry).collect()
}

fn parse_entry(entry: Value) -> Result<Pause, String> {
    let pause = Pause::from_json(entry)?;
    if !pause.could_be_asked_for() {
        let pattern = pause.pattern.as_str().escape_debug();
        return Err(format!("the pause of {pattern} is none that could be asked for"));
    }
    Ok(pause)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use serde_json::json;

    use super::*;
    use crate::services::maintenance::testing::asked;

    /// Where one goes that makes no sense.
    const ASIDE: &str = "pauses.json.corrupt";
    /// The name of the temporary file.
    const UNFINISHED: &str = "pauses.json.new";

    #[test]
    fn what_is_written_is_read_and_only_the_owner_can_read_it() {
        let directory = tempfile::tempdir().unwrap();
        let kept = PauseFile::new(directory.path());
        assert_eq!(kept.read().unwrap(), [], "there is none at first");
        let pauses = [asked("batch-*", 3_600), asked("\"größer\"", 60)];
        kept.write(&pauses).unwrap();
        assert_eq!(kept.read().unwrap(), pauses);
        assert_eq!(fs::metadata(kept.path()).unwrap().permissions().mode() & 0o777, 0o600);
        kept.write(&[]).unwrap();
        assert_eq!(kept.read().unwrap(), []);
        assert!(!directory.path().join(UNFINISHED).exists());
    }

    #[test]
    fn what_is_broken_is_moved_aside_and_what_is_there_then_can_be_written() {
        let entry = |change: fn(&mut Value)| {
            let mut entry = asked("a", 3_600).to_json();
            change(&mut entry);
            json!({ "v": 1, "pauses": [entry] }).to_string()
        };
        let too_many: Vec<Value> = (0..=Schedule::MAX_PAUSES).map(|_| asked("a", 3_600).to_json()).collect();
        for text in [
            String::new(),
            "{".to_owned(),
            "[]".to_owned(),
            "{\"v\":0,\"pauses\":[]}".to_owned(),
            "{\"pauses\":[]}".to_owned(),
            "{\"v\":1,\"pauses\":{}}".to_owned(),
            format!("{{\"v\":1,\"pauses\":{}", "[".repeat(100_000)),
            entry(|entry| entry["pattern"] = json!("a\nb")),
            entry(|entry| entry["until"] = json!(null)),
            entry(|entry| entry["until"] = json!("9999-12-31T23:59:59.000Z")),
            entry(|entry| entry["by"] = json!("configuration")),
            json!({ "v": 1, "pauses": too_many }).to_string(),
            " ".repeat(usize::try_from(MAX_LEN).unwrap() + 1),
        ] {
            let directory = tempfile::tempdir().unwrap();
            let kept = PauseFile::new(directory.path());
            fs::write(kept.path(), &text).unwrap();
            assert_eq!(kept.read().unwrap(), [], "{text:.80}");
            assert_eq!(fs::read_to_string(directory.path().join(ASIDE)).unwrap(), text);
            kept.write(&[asked("a", 60)]).unwrap();
            assert_eq!(kept.read().unwrap().len(), 1);
        }
    }

    #[test]
    fn a_file_of_a_newer_server_is_refused_and_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let kept = PauseFile::new(directory.path());
        let newer = r#"{"v":2,"pauses":{},"more":true}"#;
        fs::write(kept.path(), newer).unwrap();
        let refused = kept.read().unwrap_err();
        assert!(matches!(refused, Error::NewerState { version: 2, .. }), "{refused}");
        assert_eq!(fs::read_to_string(kept.path()).unwrap(), newer);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn what_is_no_regular_file_is_moved_aside_unread() {
        let directory = tempfile::tempdir().unwrap();
        let kept = PauseFile::new(directory.path());
        let other = directory.path().join("other");
        fs::write(&other, text_of(&[asked("a", 3_600)])).unwrap();
        symlink(&other, kept.path()).unwrap();
        assert_eq!(kept.read().unwrap(), []);
        nix::unistd::mkfifo(kept.path(), nix::sys::stat::Mode::from_bits_truncate(0o600)).unwrap();
        assert_eq!(kept.read().unwrap(), []);
        assert!(!kept.path().exists() && other.exists());
    }

    #[test]
    fn a_link_in_the_place_of_the_unfinished_file_is_not_written_through() {
        let directory = tempfile::tempdir().unwrap();
        let kept = PauseFile::new(directory.path());
        let precious = directory.path().join("precious");
        fs::write(&precious, "precious").unwrap();
        symlink(&precious, directory.path().join(UNFINISHED)).unwrap();
        kept.write(&[asked("a", 60)]).unwrap();
        assert_eq!(fs::read_to_string(&precious).unwrap(), "precious");
        assert_eq!(kept.read().unwrap().len(), 1);
    }

    #[test]
    fn a_directory_that_has_gone_is_an_error() {
        let directory = tempfile::tempdir().unwrap();
        let kept = PauseFile::new(&directory.path().join("gone"));
        assert!(kept.write(&[]).is_err());
        assert_eq!(kept.read().unwrap(), []);
    }
}
