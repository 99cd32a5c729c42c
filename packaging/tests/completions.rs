//! The completions in real shells: of subcommands and options, and of names that a running server knows.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::fs;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::Command;

use varta_integration_tests::foreign::installed;
use varta_integration_tests::{Ended, Options, Scratch, Server, run_to_its_end, server_command, wait_until};

/// The completions, with the server's program as the shells find it.
struct Completions {
    scratch: Scratch,
}

impl Completions {
    fn write() -> Self {
        let scratch = Scratch::make();
        let mut command = Command::new(env!("CARGO_BIN_EXE_varta-packaging"));
        command.arg(scratch.directory()).arg("2026-11-30");
        let ended = run_to_its_end(command);
        assert!(ended.status.success(), "{ended:?}");
        fs::create_dir(scratch.path("bin")).unwrap();
        symlink(server_command().get_program(), scratch.path("bin/varta-server")).unwrap();
        Completions { scratch }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.scratch.path("completions").join(name)
    }

    /// The words that a shell offers for the last word of a line, or that it writes there. `None` where the shell is
    /// not installed.
    fn offered(&self, shell: &str, line: &str) -> Option<Vec<String>> {
        let mut command = installed(shell)?;
        let (script, file) = match shell {
            "bash" => (BASH, "varta-server"),
            "zsh" => (ZSH, "_varta-server"),
            _ => (FISH, "varta-server.fish"),
        };
        let path = format!("{}:/usr/bin:/bin", self.scratch.path("bin").display());
        command.env("PATH", path).env("HOME", self.scratch.directory()).env("TERM", "dumb");
        command.env("FILE", self.path(file)).env("LINE", line).env("OUT", self.scratch.path("out"));
        command.current_dir(self.scratch.directory()).args(["-c", script]);
        let ended = run_to_its_end(command);
        assert!(ended.status.success() && ended.stderr.is_empty(), "{shell}: {line}: {ended:?}");
        Some(ended.stdout.lines().map(str::to_owned).collect())
    }
}

/// Calls the function that bash has been told of, as readline does.
const BASH: &str = r#"
    . "$FILE"
    function=$(complete -p varta-server | sed 's/.*-F \([^ ]*\).*/\1/')
    COMP_LINE=$LINE COMP_POINT=${#LINE} COMPREPLY=()
    read -ra COMP_WORDS <<<"$LINE"
    [ "${LINE%" "}" = "$LINE" ] || COMP_WORDS+=("")
    COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
    "$function" varta-server "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}"
    ((${#COMPREPLY[@]} == 0)) || printf '%s\n' "${COMPREPLY[@]}"
"#;

/// Asks fish for what it would offer, without the descriptions.
const FISH: &str = r#"
    source $FILE
    complete -C "$LINE" | string replace -r "\t.*" ""
    true
"#;

/// Has an interactive zsh in a terminal of its own list what fits the line: it may find the same more than once.
const ZSH: &str = r#"
    zmodload zsh/zpty
    zpty shell zsh -f -i
    wait_for() { local seen; zpty -r shell seen "*$1*" }
    zpty -w shell 'PS1=; fpath=(${FILE:h} $fpath); autoload -Uz compinit; compinit -u -D; unsetopt zle_bracketed_paste'
    zpty -w shell 'compadd() { builtin compadd -O fitting "$@" 2>/dev/null; print -rl -- $fitting >>$OUT; builtin compadd "$@" }'
    zpty -w shell 'leave() { : >>$OUT; print -r -- end-of-line; exit }; zle -N leave; bindkey "^X" leave; : >$OUT'
    zpty -w shell 'print -r -- rea""dy'
    wait_for ready
    zpty -w -n shell "$LINE"$'\t\x18'
    wait_for end-of-line
    sort -u $OUT | sed '/^$/d'
"#;

const SHELLS: [&str; 3] = ["bash", "zsh", "fish"];

/// A server that waits for agents in vain, has paused some, and has two of the three alarms acknowledged.
fn start(scratch: &Scratch) -> Server {
    let agents = ["worker-1", "worker-2", "work@home", "db:main"];
    let expected = agents.map(|name| format!("[[expected]]\nname = \"{name}\"\ngrace = \"10ms\"\n")).concat();
    let planned = "[[pause]]\nname = \"planned\"\nuntil = 2099-01-01T00:00:00Z\n";
    let path =
        scratch.write("varta.toml", &format!("webhook = \"http://127.0.0.1:1/\"\n{expected}{planned}"));
    Server::start(Options::new().path("--config", &path).in_scratch(scratch))
}

fn ask(server: &Server, words: &[&str]) -> Ended {
    let mut command = server_command();
    command.env("VARTA_SOCKET", server.socket()).args(words);
    run_to_its_end(command)
}

#[test]
fn shells_offer_the_names_that_the_running_server_knows_where_a_command_takes_one() {
    let completions = Completions::write();
    let scratch = Scratch::make();
    let server = start(&scratch);
    wait_until("the alarms are acknowledged", || ask(&server, &["ack", "worker-2"]).status.success());
    for pattern in ["batch *", "b"] {
        assert!(ask(&server, &["pause", pattern, "--for", "1h"]).status.success());
    }
    let socket = server.socket().display().to_string();
    for shell in SHELLS {
        let offered = |words: &str| {
            let (command, word) = words.rsplit_once(' ').unwrap();
            completions.offered(shell, &format!("varta-server {command} --socket {socket} {word}"))
        };
        let Some(all) = offered("forget ") else { continue };
        assert_eq!(all, ["db:main", "work@home", "worker-1", "worker-2"], "{shell}");
        assert_eq!(offered("forget worker").unwrap(), ["worker-1", "worker-2"], "{shell}");
        // Bash has cut the word behind these characters.
        let [main, home] = if shell == "bash" { ["main", "home"] } else { ["db:main", "work@home"] };
        assert_eq!(offered("forget db:").unwrap(), [main], "{shell}");
        assert_eq!(offered("forget work@h").unwrap(), [home], "{shell}");
        assert_eq!(offered("ack w").unwrap(), ["work@home", "worker-1"], "{shell}");
        assert_eq!(offered("unack ").unwrap(), ["worker-2"], "{shell}");
        assert_eq!(offered("pause worker-1").unwrap(), ["worker-1"], "{shell}");
        let pattern = if shell == "bash" { r"batch\ \*" } else { "batch *" };
        assert_eq!(offered("resume ").unwrap(), ["b", pattern], "{shell}");
    }
}

#[test]
fn without_a_server_and_where_no_name_is_due_shells_offer_what_they_know_and_no_error() {
    let completions = Completions::write();
    for shell in SHELLS {
        let offered = |words: &str| completions.offered(shell, &format!("varta-server {words}"));
        let Some(options) = offered("forget --socket /no/such/socket --reas") else { continue };
        assert_eq!(options, ["--reason"], "{shell}");
        assert_eq!(offered("forg").unwrap(), ["forget"], "{shell}");
        assert_eq!(offered("forget --socket /no/such/socket wor").unwrap(), [""; 0], "{shell}");
        assert_eq!(offered("--detector p").unwrap(), ["phi"], "{shell}");
        assert_eq!(offered("--stall-after 3s --detector p").unwrap(), ["phi"], "{shell}");
        assert_eq!(offered("comple").unwrap(), [""; 0], "{shell}");
    }
}

#[test]
fn the_server_of_the_file_is_asked_and_one_that_never_answers_is_left() {
    let scratch = Scratch::make();
    let _server = start(&scratch);
    let names = |words: &[&str]| {
        let mut command = server_command();
        command.args(["complete", "--"]).args(words).current_dir(scratch.directory());
        let ended = run_to_its_end(command);
        assert!(ended.status.success() && ended.stderr.is_empty(), "{ended:?}");
        ended.stdout
    };
    let path = scratch.path("other.toml").display().to_string();
    let say = |socket: &Path| scratch.write("other.toml", &format!("socket = \"{}\"\n", socket.display()));
    say(&scratch.path("varta.sock"));
    assert_eq!(names(&["forget", "--config", &path, "work"]), "work@home\nworker-1\nworker-2\n");
    let _silent = UnixListener::bind(scratch.path("silent.control")).unwrap();
    say(&scratch.path("silent"));
    assert_eq!(names(&["forget", "--config", &path, "work"]), "");
}
