//! The commands and configuration files of the documents work as they are written, for a user who has only what
//! stands before them.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use varta_integration_tests::{Options, Scratch, Server, Signal, run_to_its_end, server_command, sys};

/// What the commands of the documents are for: other programs, and agents that the reader has.
const NOT_RUN: [&str; 7] = [
    "cargo ",
    "scripts/",
    "VARTA_",
    "tail ",
    "varta-server forget ",
    "varta-server ack ",
    "varta-server unack ",
];

/// The documents that are for users.
fn documents() -> Vec<String> {
    let top = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
    let docs = fs::read_dir(top.join("docs")).unwrap().map(|entry| entry.unwrap().path());
    let mut documents: Vec<_> = docs.chain([top.join("README.md")]).collect();
    documents.retain(|path| path.extension().is_some_and(|extension| extension == "md"));
    documents.into_iter().map(|path| path.into_os_string().into_string().unwrap()).collect()
}

/// The blocks of code in this language.
fn blocks(document: &str, language: &str) -> Vec<String> {
    let text = fs::read_to_string(document).unwrap_or_else(|error| panic!("{document}: {error}"));
    let start = format!("```{language}\n");
    let blocks = text.split(&start).skip(1);
    blocks.filter_map(|rest| rest.split("\n```").next().map(str::to_owned)).collect()
}

/// The commands of a document, of each block in which the server's program is called.
fn commands(document: &str) -> Vec<String> {
    let blocks = blocks(document, "console").into_iter().filter(|block| block.contains("$ varta-server"));
    let lines = blocks.flat_map(|block| {
        let block = block.replace("\\\n", " ");
        block.lines().filter_map(|line| line.strip_prefix("$ ").map(str::to_owned)).collect::<Vec<_>>()
    });
    lines.filter(|line| !NOT_RUN.iter().any(|start| line.starts_with(start))).collect()
}

/// A user of this host, whose directories are all in one place.
struct User {
    scratch: Scratch,
    server: Option<Server>,
    /// The pid of the server that has taken over from it.
    successor: Option<u32>,
}

impl User {
    /// The command with the directories of the system below this user's own, and with a port that is free.
    fn own(&self, command: &str) -> String {
        let below = format!("{}/", self.scratch.directory().display());
        ["/etc/", "/var/"].iter().fold(command.replace(":9845", ":0"), |command, directory| {
            command.replace(directory, &format!("{below}{}", &directory[1..]))
        })
    }

    fn program(&self, words: &[&str]) -> Command {
        let server = server_command();
        let directory = Path::new(server.get_program()).parent().unwrap().display().to_string();
        let mut command = Command::new(words[0]);
        command.args(&words[1..]).env_clear().current_dir(self.scratch.directory());
        command.env("PATH", format!("{directory}:/usr/sbin:/usr/bin:/sbin:/bin"));
        command.env("XDG_RUNTIME_DIR", self.scratch.path("run"));
        command
    }

    /// Stops the server that runs, if one does, which is no failure.
    fn stop(&mut self) {
        if let Some(pid) = self.successor.take() {
            sys::send_signal(pid, Signal::Terminate).unwrap();
        }
        if let Some(mut server) = self.server.take() {
            server.signal(Signal::Terminate);
            assert_eq!(server.wait().code(), Some(0));
        }
    }

    fn start(&mut self, options: &str) {
        self.stop();
        // A shell says what its words are.
        let words = run_to_its_end(self.program(&["sh", "-c", &format!("printf '%s\\0' {options}")])).stdout;
        let words = words.split_terminator('\0').filter(|word| !word.is_empty());
        let directory = self.scratch.directory().to_str().unwrap();
        let options = Options::new().env("XDG_RUNTIME_DIR", self.scratch.path("run")).args(words);
        let options = options.started_by(["env", "--chdir", directory]);
        self.server =
            Some(Server::start(options.finds_its_socket_at(&self.scratch.path("run/varta/varta.sock"))));
    }

    /// Runs a command: one that serves goes on until another begins, or something is done with what it has
    /// written.
    #[track_caller]
    fn run(&mut self, document: &str, command: &str) {
        let own = self.own(command);
        match own.strip_prefix("varta-server") {
            // Without a subcommand; behind `#` it is explained.
            Some(options) if !options.trim_start().starts_with(char::is_alphabetic) => {
                return self.start(options);
            }
            Some(task) if task.starts_with(" replay") || task.starts_with(" audit restart") => self.stop(),
            Some(_) if self.server.is_none() => self.start(""),
            _ => {}
        }
        let ended = run_to_its_end(self.program(&["sh", "-c", &own]));
        assert!(ended.status.success(), "{document}: {command}: {ended:?}");
        if own.starts_with("varta-server upgrade") {
            self.successor = ended.stdout.split(' ').find_map(|word| word.parse().ok());
        }
    }
}

#[test]
fn the_commands_of_the_documents_work_as_they_are_written() {
    let mut count = 0;
    for document in documents() {
        let mut user = User { scratch: Scratch::make(), server: None, successor: None };
        fs::create_dir(user.scratch.path("run")).unwrap();
        for command in commands(&document) {
            user.run(&document, &command);
            count += 1;
        }
        user.stop();
    }
    assert!(count > 20, "{count} commands");
}

#[test]
fn the_configuration_files_of_the_documents_are_taken_as_they_are_written() {
    let files: Vec<_> = documents().iter().flat_map(|document| blocks(document, "toml")).collect();
    for text in &files {
        let scratch = Scratch::make();
        let mut server = Server::start(Options::new().config(&scratch, text));
        server.stop();
    }
    assert!(files.len() >= 4, "{files:#?}");
}
