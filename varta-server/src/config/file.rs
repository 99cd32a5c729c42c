//! The configuration file: TOML with a key for each option of the command line.
//!
//! Reads and reloads the file, and keeps track of which of its options are effective. Its content is parsed
//! by [`document`].

use std::collections::HashSet;
use std::ffi::OsString;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Command;

use crate::base::error::Error;
use crate::base::files::bounded_read::{self, Checks, Owner, ReadError, Symlink, is_ours_or_roots};
use crate::base::options::table::{ParseErrors, line_at};
use crate::config::Config;
use crate::config::args::Args;
use crate::config::document::{self, Document, FileOption, ShownTable, Tables};

/// A longer file was not written by people.
const MAX_FILE_LEN: u64 = 1 << 20;

/// A file of `--config` that was parsed. Keeps its content, and can be reloaded.
#[derive(Clone, Debug)]
pub struct ConfigFile {
    path: PathBuf,
    text: Arc<str>,
    content: Document,
    /// The keys of its effective options, which neither the command line nor the environment sets.
    counting: HashSet<String>,
    warning: Option<String>,
    hash: u64,
    /// The command line and its definition, for when the file is read again.
    words: Vec<OsString>,
    definition: Command,
}

/// What the command line, the environment and the file say now.
#[derive(Debug)]
pub struct Reloaded {
    /// All settings, checked against each other. Its file is the one that was read.
    pub config: Config,
    /// The level of log lines, if one is given.
    pub log_level: Option<String>,
    /// The effective options of the file that differ from those of its former content, by their names.
    pub changed_options: Vec<String>,
}

impl ConfigFile {
    /// Reads a file. `words` is the command line that names it, and `command` the definition of that. With it come the
    /// unknown keys and invalid values, each with its line, which make the whole file unusable.
    ///
    /// # Errors
    ///
    /// It cannot be read, is not a regular file, or is too long.
    pub(crate) fn read(
        path: &Path,
        words: &[OsString],
        command: &Command,
    ) -> Result<(Self, Option<Error>), Error> {
        let (text, warning) = read_text(path)?;
        let (content, faults) = Document::parse(&text, command);
        let faults = (!faults.is_empty()).then(|| located(path, text.as_bytes(), faults));
        let file = ConfigFile {
            path: path.to_path_buf(),
            text: text.as_str().into(),
            content,
            counting: HashSet::new(),
            warning,
            hash: hash_of(text.as_bytes()),
            words: words.to_vec(),
            definition: command.clone(),
        };
        Ok((file, faults))
    }

    /// Reads the file again, and the files that it names, and returns all settings, which are not applied.
    ///
    /// # Errors
    ///
    /// As at the start.
    pub fn reload(&self) -> Result<Reloaded, Error> {
        let args = Args::read_by(self.definition.clone(), self.words.iter().cloned())?;
        let log_level = args.log_level.clone();
        let config = args.into_config()?;
        let now = config.file.as_ref().map(ConfigFile::effective).unwrap_or_default();
        let changed_options = changed(&self.effective(), &now);
        Ok(Reloaded { config, log_level, changed_options })
    }

    /// The options of the file that are set nowhere else.
    fn effective(&self) -> Vec<&FileOption> {
        self.content.options.iter().filter(|option| self.counting.contains(&option.key)).collect()
    }

    /// The first 48 bits of the SHA-256 of the file, which fit the mantissa of a `f64`.
    #[must_use]
    pub fn hash(&self) -> u64 {
        self.hash
    }

    /// The path of the file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A fault that does not prevent the use of the file.
    #[must_use]
    pub fn warning(&self) -> Option<&str> {
        self.warning.as_deref()
    }

    /// Marks the options that the command has and nothing else sets as effective, and returns the equivalent
    /// command-line arguments.
    pub(crate) fn count_effective(&mut self, is_open: impl Fn(&str) -> bool) -> Vec<String> {
        let options = self.content.options.iter().filter(|option| is_open(&option.key));
        let counting: Vec<&FileOption> = options.collect();
        self.counting = counting.iter().map(|option| option.key.clone()).collect();
        counting.into_iter().flat_map(|option| option.arguments.clone()).collect()
    }

    /// The line of an option and its values as on the command line, if the file has it.
    pub(crate) fn given(&self, key: &str) -> Option<(usize, Vec<String>)> {
        let option = self.content.options.iter().find(|option| option.key == key)?;
        // `--key=value`, or `--key` for a switch that is on; none for one that is off.
        let value =
            |argument: &String| argument.split_once('=').map_or("true", |(_, value)| value).to_owned();
        let values: Vec<_> = option.arguments.iter().map(value).collect();
        Some((option.line, if values.is_empty() { vec!["false".to_owned()] } else { values }))
    }

    /// The tables as they are written.
    pub(crate) fn shown_tables(&self) -> Vec<ShownTable> {
        document::shown_tables(&self.text)
    }

    pub(crate) fn tables(&self) -> &Tables {
        &self.content.tables
    }

    /// Adds to the unknown keys and invalid values of the file what is wrong with its other options by themselves. What
    /// is said of another option too is left out, as it may come from the faults that are there already.
    pub(crate) fn with_other_faults(&self, faults: Error, others: Option<Error>) -> Error {
        let (mut lines, more) = match faults {
            Error::ConfigLine { line, fault, .. } => (vec![(line, fault)], 0),
            Error::ConfigLines { faults, more, .. } => (faults, more),
            error => return error,
        };
        let others = match others.map(|error| self.locate(error)) {
            Some(Error::Configuration { faults, .. }) => faults,
            error => error.into_iter().collect(),
        };
        lines.extend(others.into_iter().filter_map(|error| match error {
            Error::ConfigLine { line, fault, .. } if !fault.contains("--") => Some((line, fault)),
            _ => None,
        }));
        lines.sort_by_key(|(line, _)| *line);
        with_lines(&self.path, lines, more)
    }

    /// Adds the lines of the file to an error about options that the file has set. Several are in the order of the
    /// file, behind those that it has not set.
    #[must_use]
    pub fn locate(&self, error: Error) -> Error {
        if let Error::Configuration { faults, more } = error {
            let mut faults: Vec<_> = faults.into_iter().map(|fault| self.locate(fault)).collect();
            faults.sort_by_key(|fault| match fault {
                Error::ConfigLine { line, .. } => *line,
                _ => 0,
            });
            return Error::Configuration { faults, more };
        }
        let Some(key) = error.option() else { return error };
        let stands_here = |option: &&FileOption| option.key == key && self.counting.contains(key);
        let Some(option) = self.content.options.iter().find(stands_here) else { return error };
        let said = error.to_string();
        let fault = said.strip_prefix("--").unwrap_or(&said).to_owned();
        Error::ConfigLine { path: self.path.clone(), line: option.line, fault }
    }
}

/// The faults of the text of a file, each with its line.
fn located(path: &Path, text: &[u8], faults: ParseErrors) -> Error {
    let (faults, more) = faults.in_order();
    let lines = faults.into_iter().map(|fault| (line_at(text, fault.offset), fault.text));
    with_lines(path, lines.collect(), more)
}

/// Faults with their lines, of which the first few are told.
fn with_lines(path: &Path, mut faults: Vec<(usize, String)>, more: usize) -> Error {
    let path = path.to_path_buf();
    if let ([(line, fault)], 0) = (&mut faults[..], more) {
        return Error::ConfigLine { path, line: *line, fault: std::mem::take(fault) };
    }
    let more = more + faults.len().saturating_sub(ParseErrors::MAX);
    faults.truncate(ParseErrors::MAX);
    Error::ConfigLines { path, faults, more }
}

fn hash_of(text: &[u8]) -> u64 {
    let digest = ring::digest::digest(&ring::digest::SHA256, text);
    digest.as_ref().iter().take(6).fold(0, |hash, byte| hash << 8 | u64::from(*byte))
}

/// Reads the text, and says what ought to be otherwise with the file.
fn read_text(path: &Path) -> Result<(String, Option<String>), Error> {
    let checks = Checks { max_len: MAX_FILE_LEN, symlink: Symlink::Followed, owner: Owner::Anybody };
    let (bytes, found) = bounded_read::read(path, checks).map_err(|error| {
        let fault = match error {
            ReadError::TooLong { max_len } => format!("is longer than {} KiB", max_len >> 10),
            other => other.to_string(),
        };
        Error::configuration_file(path, fault)
    })?;
    let text = String::from_utf8(bytes).map_err(|error| {
        let line = line_at(error.as_bytes(), error.utf8_error().valid_up_to());
        Error::ConfigLine { path: path.to_path_buf(), line, fault: "is not UTF-8 text".to_owned() }
    })?;
    let who = if found.mode() & 0o002 != 0 {
        Some(format!("everybody may write to it (mode {:04o}); chmod o-w it", found.mode() & 0o7777))
    } else if !is_ours_or_roots(&found) {
        Some(format!("it belongs to uid {}, which is neither this server's nor root", found.uid()))
    } else {
        None
    };
    let warning =
        who.map(|who| format!("{}: {who}: who can change it decides what this server does", path.display()));
    Ok((text, warning))
}

/// The options that differ between two versions of a file.
fn changed(before: &[&FileOption], after: &[&FileOption]) -> Vec<String> {
    let differs = |option: &&&FileOption, others: &[&FileOption]| {
        !others.iter().any(|other| other.key == option.key && other.arguments == option.arguments)
    };
    let removed_or_changed = before.iter().filter(|option| differs(option, after));
    let added = after.iter().filter(|option| !before.iter().any(|other| other.key == option.key));
    let mut keys: Vec<_> = removed_or_changed.chain(added).map(|option| option.key.clone()).collect();
    keys.sort_unstable();
    keys
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::{PermissionsExt, symlink};

    use tempfile::TempDir;

    use super::*;
    use crate::config::args;
    use crate::domain::tracker::Policy;

    fn directory_with(text: impl AsRef<[u8]>) -> (TempDir, PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("varta.toml");
        fs::write(&path, text).unwrap();
        (directory, path)
    }

    fn read(path: &Path) -> Result<ConfigFile, Error> {
        let words = ["varta-server".into(), "--config".into(), path.into()];
        let (file, faults) = ConfigFile::read(path, &words, &args::definition())?;
        faults.map_or(Ok(file), Err)
    }

    fn refused(path: &Path) -> String {
        let error = read(path).unwrap_err();
        assert_eq!(error.exit_status(), 2, "{error}");
        let said = error.to_string();
        assert!(said.starts_with(path.to_str().unwrap()), "{said}");
        said[path.as_os_str().len()..].to_owned()
    }

    #[test]
    fn a_file_that_cannot_be_a_configuration_is_refused_by_name() {
        let (directory, path) = directory_with("");
        assert!(read(&path).is_ok(), "an empty file says nothing");
        assert!(refused(&directory.path().join("none")).starts_with(": cannot be read: No such file"));
        assert_eq!(refused(directory.path()), ": is not a regular file");
        let pipe = directory.path().join("pipe");
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::from_bits_truncate(0o600)).unwrap();
        assert_eq!(refused(&pipe), ": is not a regular file");
        let (_directory, long) = directory_with(vec![b'#'; usize::try_from(MAX_FILE_LEN).unwrap() + 1]);
        assert_eq!(refused(&long), ": is longer than 1024 KiB");
        let (_directory, binary) = directory_with(b"# one\n# two\n\xff");
        assert_eq!(refused(&binary), ":3: is not UTF-8 text");
    }

    #[test]
    fn a_fault_is_told_with_its_line() {
        let (_directory, path) = directory_with("# first\nstall-after = \"2s\"\n\nstal-after = \"2s\"\n");
        assert_eq!(refused(&path), ":4: stal-after: there is no such option; did you mean stall-after?");
    }

    #[test]
    fn a_link_is_followed_and_a_file_that_everybody_may_write_to_is_warned_of() {
        let (directory, path) = directory_with("");
        fs::set_permissions(&path, Permissions::from_mode(0o664)).unwrap();
        let link = directory.path().join("link");
        symlink(&path, &link).unwrap();
        assert_eq!(read(&link).unwrap().warning(), None);
        fs::set_permissions(&path, Permissions::from_mode(0o666)).unwrap();
        let warned = read(&link).unwrap();
        let warning = warned.warning().unwrap();
        assert!(warning.contains("link") && warning.contains("0666"), "{warning}");
    }

    #[test]
    fn read_again_it_gives_all_settings_and_names_the_effective_options_that_differ() {
        let (_directory, path) = directory_with("stall-after = \"2s\"\nmax-agents = 7\nsocket = \"a\"");
        let words =
            ["varta-server", "--max-beat-rate=5", "--config", path.to_str().unwrap()].map(OsString::from);
        let args = Args::read_by(args::without_variables(args::definition(), |_| true), words).unwrap();
        let file = args.into_config().unwrap().file.unwrap();
        let now = "# moved\nstall-after = \"3s\"\nsocket = [\"a\"]\nmax-beat-rate = 1\n\
                   [[rule]]\nname = \"*\"\nstall-after = \"9s\"\n[[expected]]\nname = \"b\"\n";
        fs::write(&path, now).unwrap();
        let Reloaded { config, changed_options, .. } = file.reload().unwrap();
        assert_eq!(changed_options, ["max-agents", "stall-after"]);
        let Policy { stall_after, max_beat_rate, rules, expected, .. } = config.policy;
        assert_eq!((stall_after.as_secs(), max_beat_rate), (3, 5), "the command line takes precedence");
        assert_eq!(rules.stall_after_for("x").map(|time| time.as_secs()), Some(9));
        assert_eq!(expected.iter().len(), 1);
        assert_ne!(config.file.unwrap().hash(), file.hash());

        fs::write(&path, "rule = 1").unwrap();
        assert!(file.reload().is_err());
        fs::write(&path, "stall-after = \"1ms\"").unwrap();
        assert!(file.reload().unwrap_err().to_string().contains("varta.toml:1: stall-after"));
    }
}
