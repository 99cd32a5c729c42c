//! The configuration's file: TOML, with a key for every option of the command line.
//!
//! This is the file as a whole: how it is read and read again, and which of its options count. What stands in it is for
//! [`content`](super::content).

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Command;

use super::content::{Content, FileOption, line_at};
use super::expected::ExpectedAgents;
use super::rules::Rules;
use crate::cli;
use crate::error::Error;

/// A file that is longer than this was not written by people.
const LONGEST_FILE: u64 = 1 << 20;

/// A file of `--config` that was read and made sense. It remembers what it said, and can be read again.
#[derive(Clone, Debug)]
pub struct ConfigFile {
    path: PathBuf,
    content: Content,
    /// The options, by their keys, that neither the command line nor the environment has.
    counting: HashSet<String>,
    warning: Option<String>,
}

/// What a file says when it is read again.
#[derive(Clone, Debug)]
pub struct Reread {
    /// The rules that it has now.
    pub rules: Rules,
    /// The agents that it expects now.
    pub expected: ExpectedAgents,
    /// The options of which it says something else than at the start. They stay as they were until a restart.
    pub changed_options: Vec<String>,
}

impl ConfigFile {
    /// Reads a file. `command` is the command line's definition.
    ///
    /// # Errors
    ///
    /// When it cannot be read, is no regular file, is too long or no TOML, or when a key or its value makes no sense:
    /// the first of these, with the line.
    pub(crate) fn read(path: &Path, command: &Command) -> Result<Self, Error> {
        let (text, warning) = read_text(path)?;
        let content = Content::parse(&text, command).map_err(|fault| {
            let line = line_at(text.as_bytes(), fault.offset);
            Error::ConfigLine { path: path.to_path_buf(), line, fault: fault.text }
        })?;
        Ok(ConfigFile { path: path.to_path_buf(), content, counting: HashSet::new(), warning })
    }

    /// Reads the file again. Nothing changes by that: what it says now is handed out.
    ///
    /// # Errors
    ///
    /// As at the start, or when a rule's time is longer than `forget_after`.
    pub fn read_anew(&self, forget_after: Duration) -> Result<Reread, Error> {
        let file = ConfigFile::read(&self.path, &cli::definition())?;
        super::check_rules(&file.content.rules, forget_after).map_err(|error| file.locate(error))?;
        let changed_options = changed(&self.content.options, &file.content.options);
        Ok(Reread { rules: file.content.rules, expected: file.content.expected, changed_options })
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What is not wrong with the file and ought to be otherwise.
    #[must_use]
    pub fn warning(&self) -> Option<&str> {
        self.warning.as_deref()
    }

    /// Lets those options count that are given nowhere else, and gives the words that say the same on a command line.
    pub(crate) fn count_unless(&mut self, is_given: impl Fn(&str) -> bool) -> Vec<String> {
        let options = self.content.options.iter().filter(|option| !is_given(&option.key));
        let counting: Vec<&FileOption> = options.collect();
        self.counting = counting.iter().map(|option| option.key.clone()).collect();
        counting.into_iter().flat_map(|option| option.arguments.clone()).collect()
    }

    pub(crate) fn rules(&self) -> &Rules {
        &self.content.rules
    }

    pub(crate) fn expected(&self) -> &ExpectedAgents {
        &self.content.expected
    }

    /// Says of an error about an option which line of the file it comes from, if it comes from there.
    pub(crate) fn locate(&self, error: Error) -> Error {
        let Some(key) = error.option() else { return error };
        let stands_here = |option: &&FileOption| option.key == key && self.counting.contains(key);
        let Some(option) = self.content.options.iter().find(stands_here) else { return error };
        let said = error.to_string();
        let fault = said.strip_prefix("--").unwrap_or(&said).to_owned();
        Error::ConfigLine { path: self.path.clone(), line: option.line, fault }
    }
}

/// Which options two versions of a file do not say the same of.
fn changed(before: &[FileOption], after: &[FileOption]) -> Vec<String> {
    let differs = |option: &&FileOption, others: &[FileOption]| {
        !others.iter().any(|other| other.key == option.key && other.arguments == option.arguments)
    };
    let removed_or_changed = before.iter().filter(|option| differs(option, after));
    let added = after.iter().filter(|option| !before.iter().any(|other| other.key == option.key));
    let mut keys: Vec<_> = removed_or_changed.chain(added).map(|option| option.key.clone()).collect();
    keys.sort_unstable();
    keys
}

/// Reads the text, and says what ought to be otherwise with the file.
fn read_text(path: &Path) -> Result<(String, Option<String>), Error> {
    let unusable = |fault: String| Error::ConfigFile { path: path.to_path_buf(), fault };
    let failed = |error: io::Error| unusable(format!("cannot be read: {error}"));
    // Without waiting: a pipe that nobody writes to would hold up the start for ever.
    let file = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(path).map_err(failed)?;
    let found = file.metadata().map_err(failed)?;
    if !found.is_file() {
        return Err(unusable("is not a regular file".to_owned()));
    }
    let mut bytes = Vec::new();
    // One more than there may be, and not what its length was a moment ago.
    file.take(LONGEST_FILE + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > LONGEST_FILE {
        return Err(unusable(format!("is longer than {} KiB", LONGEST_FILE >> 10)));
    }
    let text = String::from_utf8(bytes).map_err(|error| {
        let line = line_at(error.as_bytes(), error.utf8_error().valid_up_to());
        Error::ConfigLine { path: path.to_path_buf(), line, fault: "is not UTF-8 text".to_owned() }
    })?;
    let us = nix::unistd::geteuid().as_raw();
    let who = if found.mode() & 0o002 != 0 {
        Some(format!("everybody may write to it (mode {:04o}); chmod o-w it", found.mode() & 0o7777))
    } else if found.uid() != us && found.uid() != 0 {
        Some(format!("it belongs to uid {}, which is neither this server's nor root", found.uid()))
    } else {
        None
    };
    let warning =
        who.map(|who| format!("{}: {who}: who can change it decides what this server does", path.display()));
    Ok((text, warning))
}
