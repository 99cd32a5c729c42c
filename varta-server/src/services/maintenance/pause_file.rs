//! The file in which pauses outlive the server: what was asked for, and nothing that is planned.
//!
//! It is written anew each time, beside the old one, and takes its place in one step: whatever happens meanwhile, one of
//! the two is there and whole.

use std::fs::{self, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::base::error::Error;
use crate::base::files::atomic;
use crate::services::maintenance::json_object::Fields;
use crate::services::maintenance::pause::Pause;
use crate::services::maintenance::schedule::List;

const FILE: &str = "pauses.json";
/// Where one goes that makes no sense.
const ASIDE: &str = "pauses.json.corrupt";
const VERSION: u64 = 1;
/// More than as many pauses as there may be can take.
const LONGEST: u64 = 4 << 20;

/// The file, in the directory of `--state-dir`, which is this server's alone.
#[derive(Clone, Debug)]
pub(super) struct KeptFile {
    directory: PathBuf,
}

/// Why a file was not read.
#[derive(Debug)]
enum Fault {
    /// A newer server wrote it.
    Newer(u64),
    /// It makes no sense, and never will.
    Broken(String),
    /// It may be read another time.
    Io(io::Error),
}

impl From<String> for Fault {
    fn from(fault: String) -> Self {
        Fault::Broken(fault)
    }
}

impl KeptFile {
    /// The file in this directory. Nothing is done yet.
    pub(super) fn new(directory: &Path) -> Self {
        KeptFile { directory: directory.to_path_buf() }
    }

    pub(super) fn path(&self) -> PathBuf {
        self.directory.join(FILE)
    }

    /// Reads what the server before this one kept. A file that makes no sense is moved aside, one that cannot be read is
    /// left; both are said in the log, and nothing is known of before then.
    ///
    /// # Errors
    ///
    /// [`Error::NewerState`] when a newer server wrote it. It is as it was.
    pub(super) fn read(&self) -> Result<Vec<Pause>, Error> {
        let path = self.path();
        let pauses = match self.try_read() {
            Ok(pauses) => pauses,
            Err(Fault::Newer(version)) => return Err(Error::NewerState { path, form: "format", version }),
            Err(Fault::Io(error)) => {
                tracing::error!(
                    target: "varta::maintenance",
                    "{}: cannot be read: {error}; pauses from before this start are not in force, and the file is written \
                     anew with the next one",
                    path.display()
                );
                Vec::new()
            }
            Err(Fault::Broken(fault)) => {
                let aside = self.directory.join(ASIDE);
                let became = match fs::rename(&path, &aside) {
                    Ok(()) => format!("it is {} now", aside.display()),
                    Err(error) => format!("it cannot be moved aside: {error}"),
                };
                tracing::error!(
                    target: "varta::maintenance",
                    "{}: is broken ({fault}); {became}, and pauses from before this start are not in force",
                    path.display()
                );
                Vec::new()
            }
        };
        Ok(pauses)
    }

    fn try_read(&self) -> Result<Vec<Pause>, Fault> {
        let opened = OpenOptions::new()
            .read(true)
            // Without waiting: a pipe that nobody writes to would hold up the start for ever.
            .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
            .open(self.path());
        let file = match opened {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) if error.raw_os_error() == Some(libc::ELOOP) => {
                return Err(Fault::Broken("it is a symlink".to_owned()));
            }
            Err(error) => return Err(Fault::Io(error)),
        };
        let found = file.metadata().map_err(Fault::Io)?;
        let us = nix::unistd::geteuid().as_raw();
        if !found.is_file() {
            return Err(Fault::Broken("it is not a regular file".to_owned()));
        }
        if found.uid() != us && found.uid() != 0 {
            return Err(Fault::Broken(format!(
                "it belongs to uid {}, which is neither this server's nor root",
                found.uid()
            )));
        }
        let mut bytes = Vec::new();
        file.take(LONGEST + 1).read_to_end(&mut bytes).map_err(Fault::Io)?;
        if bytes.len() as u64 > LONGEST {
            return Err(Fault::Broken(format!("it is longer than {} MiB", LONGEST >> 20)));
        }
        parse(&bytes)
    }

    /// Writes these pauses, and returns when they are on the disk.
    ///
    /// # Errors
    ///
    /// What the system says. What was kept before is still kept, then; only if the directory itself could not be written
    /// out may it be either.
    pub(super) fn write(&self, pauses: &[Pause]) -> io::Result<()> {
        atomic::replace(&self.path(), text_of(pauses).as_bytes())
    }
}

/// The file's text: one pause a line, for people.
fn text_of(pauses: &[Pause]) -> String {
    let lines: Vec<String> = pauses.iter().map(|pause| pause.to_json().to_string()).collect();
    format!("{{\"v\":{VERSION},\"pauses\":[\n{}\n]}}\n", lines.join(",\n"))
}

fn parse(bytes: &[u8]) -> Result<Vec<Pause>, Fault> {
    let mut fields = Fields::parse(bytes)?;
    match fields.need_number("v")? {
        VERSION => {}
        newer if newer > VERSION => return Err(Fault::Newer(newer)),
        other => Err(format!("it is of version {other}, and this server knows version {VERSION}"))?,
    }
    let entries = fields.list("pauses")?;
    if entries.len() > List::MOST {
        Err(format!("it has more than {} pauses", List::MOST))?;
    }
    Ok(entries.into_iter().map(parse_entry).collect::<Result<_, _>>()?)
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
    use std::os::unix::fs::{PermissionsExt, symlink};

    use serde_json::json;

    use super::*;
    use crate::services::maintenance::testing::asked;

    /// What it is called while it is written.
    const UNFINISHED: &str = "pauses.json.new";

    #[test]
    fn what_is_written_is_read_and_only_the_owner_can_read_it() {
        let directory = tempfile::tempdir().unwrap();
        let kept = KeptFile::new(directory.path());
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
        let too_many: Vec<Value> = (0..=List::MOST).map(|_| asked("a", 3_600).to_json()).collect();
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
            " ".repeat(usize::try_from(LONGEST).unwrap() + 1),
        ] {
            let directory = tempfile::tempdir().unwrap();
            let kept = KeptFile::new(directory.path());
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
        let kept = KeptFile::new(directory.path());
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
        let kept = KeptFile::new(directory.path());
        let other = directory.path().join("other");
        fs::write(&other, text_of(&[asked("a", 3_600)])).unwrap();
        symlink(&other, kept.path()).unwrap();
        assert_eq!(kept.read().unwrap(), []);
        nix::unistd::mkfifo(&kept.path(), nix::sys::stat::Mode::from_bits_truncate(0o600)).unwrap();
        assert_eq!(kept.read().unwrap(), []);
        assert!(!kept.path().exists() && other.exists());
    }

    #[test]
    fn a_link_in_the_place_of_the_unfinished_file_is_not_written_through() {
        let directory = tempfile::tempdir().unwrap();
        let kept = KeptFile::new(directory.path());
        let precious = directory.path().join("precious");
        fs::write(&precious, "precious").unwrap();
        symlink(&precious, directory.path().join(UNFINISHED)).unwrap();
        assert!(kept.write(&[asked("a", 60)]).is_err());
        assert_eq!(fs::read_to_string(&precious).unwrap(), "precious");
        kept.write(&[asked("a", 60)]).unwrap();
        assert_eq!(kept.read().unwrap().len(), 1, "the failure has cleared the way");
    }

    #[test]
    fn a_directory_that_has_gone_is_an_error() {
        let directory = tempfile::tempdir().unwrap();
        let kept = KeptFile::new(&directory.path().join("gone"));
        assert!(kept.write(&[]).is_err());
        assert_eq!(kept.read().unwrap(), []);
    }
}
