//! A directory in which the program runs, and the transcript of its runs.

use std::fmt::Display;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;
use varta_integration_tests::{Ended, run_to_its_end, server_command};

/// The length of the longest argument that a transcript shows in full, in characters.
const MAX_ARGUMENT_LEN: usize = 100;

/// Compares a text with the snapshot of this name.
#[track_caller]
pub(crate) fn assert_unchanged(name: &str, text: &str) {
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/snapshots"));
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.bind(|| insta::assert_snapshot!(name, text));
}

/// Runs the program in a directory of its own, so that paths are relative and the same each time. By default
/// it listens at `varta.sock` and serves metrics on a port that the kernel picks.
#[derive(Debug)]
pub(crate) struct Sandbox {
    directory: TempDir,
    transcript: String,
    redacted: Vec<(String, &'static str)>,
    /// Name, the key of the configuration file that it overrides, and value.
    variables: Vec<(&'static str, &'static str, &'static str)>,
    user: Option<u32>,
}

impl Sandbox {
    pub(crate) fn new() -> Self {
        let directory = tempfile::Builder::new().prefix("varta-it-").tempdir().unwrap();
        let variables = vec![
            ("VARTA_SOCKET", "socket =", "varta.sock"),
            ("VARTA_METRICS_ADDR", "metrics-addr =", "127.0.0.1:0"),
        ];
        Sandbox { directory, transcript: String::new(), redacted: Vec::new(), variables, user: None }
    }

    pub(crate) fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Writes a file that only its owner can read or write.
    pub(crate) fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, content).unwrap();
        self.chmod(name, 0o600);
        path
    }

    pub(crate) fn chmod(&self, name: &str, mode: u32) {
        fs::set_permissions(self.path(name), Permissions::from_mode(mode)).unwrap();
    }

    /// Replaces `text` by `word` in the transcript.
    pub(crate) fn redact(&mut self, text: impl Display, word: &'static str) {
        self.redacted.push((text.to_string(), word));
    }

    /// Runs the program as this user from now on.
    pub(crate) fn run_as(&mut self, user: u32) {
        self.user = Some(user);
    }

    /// Adds a comment.
    pub(crate) fn comment(&mut self, text: &str) {
        self.transcript += &format!("# {text}\n");
    }

    /// Adds lines.
    pub(crate) fn add(&mut self, text: &str) {
        self.transcript += text;
        if !text.is_empty() && !text.ends_with('\n') {
            self.transcript.push('\n');
        }
    }

    /// Runs the program to its end.
    #[track_caller]
    pub(crate) fn run(&mut self, arguments: &[&str]) {
        self.run_with(&[], arguments);
    }

    /// Runs the program once for each of these command lines.
    #[track_caller]
    pub(crate) fn run_each(&mut self, lines: &[&[&str]]) {
        lines.iter().for_each(|arguments| self.run(arguments));
    }

    /// Runs the program with variables of the environment.
    #[track_caller]
    pub(crate) fn run_with(&mut self, variables: &[(&str, &str)], arguments: &[&str]) {
        let mut command = self.command(arguments);
        command.envs(variables.iter().copied());
        let before: String =
            variables.iter().map(|(name, value)| format!("{name}={} ", quoted(value))).collect();
        self.add_prompt(&before, arguments);
        self.add_ended(&run_to_its_end(command));
    }

    /// Runs the program with this configuration file. The default of the sandbox for an option that the file
    /// sets, which would override the file, is left out.
    #[track_caller]
    pub(crate) fn run_with_file(&mut self, text: &str) {
        self.write("varta.toml", text);
        for line in text.lines() {
            self.transcript += &format!("| {line}\n");
        }
        let variables = self.variables.clone();
        self.variables.retain(|(_, key, _)| text.lines().all(|line| !line.starts_with(key)));
        self.run(&["--config", "varta.toml"]);
        self.variables = variables;
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = server_command();
        command.current_dir(self.directory.path());
        command.envs(self.variables.iter().map(|(name, _, value)| (name, value))).args(arguments);
        if let Some(user) = self.user {
            command.uid(user);
        }
        command
    }

    pub(crate) fn add_prompt(&mut self, before: &str, arguments: &[&str]) {
        let words: String = arguments.iter().map(|argument| format!(" {}", quoted(argument))).collect();
        self.transcript += &format!("$ {before}varta-server{words}\n");
    }

    pub(crate) fn add_ended(&mut self, ended: &Ended) {
        self.add(&ended.stdout);
        if !ended.stdout.is_empty() && !ended.stderr.is_empty() {
            self.add("[standard error]");
        }
        self.add(&without_times(&ended.stderr));
        assert_eq!(ended.status.success(), ended.stderr.is_empty(), "{ended:?}");
        let status = ended.status.code().unwrap();
        self.transcript += &format!("[exit status {status}]\n\n");
    }

    /// The redacted transcript.
    pub(crate) fn transcript(&self) -> String {
        let redacted = self.redacted.iter();
        redacted.fold(self.transcript.clone(), |text, (redacted, word)| text.replace(redacted, word))
    }

    /// Compares the transcript with the snapshot of this name.
    #[track_caller]
    pub(crate) fn assert_unchanged(&self, name: &str) {
        assert_unchanged(name, &self.transcript());
    }
}

/// An argument, quoted as for a shell.
fn quoted(text: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=,[]@%+".contains(c);
    let length = text.chars().count();
    if length > MAX_ARGUMENT_LEN {
        let start: String = text.chars().take(8).collect();
        format!("'{start}..' ({length} characters)")
    } else if !text.is_empty() && text.chars().all(is_plain) {
        text.to_owned()
    } else {
        format!("'{}'", text.escape_debug())
    }
}

/// Log lines without their times.
fn without_times(text: &str) -> String {
    const BEFORE: &str = "\"timestamp\":\"";
    let mut pieces = text.split(BEFORE);
    let first = pieces.next().unwrap_or_default().to_owned();
    pieces.fold(first, |text, piece| {
        let (_, rest) = piece.split_once('"').unwrap_or(("", piece));
        format!("{text}{BEFORE}TIME\"{rest}")
    })
}
