//! Bars of progress: on a terminal while the work goes on, and in a pipe never.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::fs;
use std::path::{Path, PathBuf};

use varta_integration_tests::{
    Options, Scratch, Server, Terminal, loopback_socket, run_to_its_end, send_from, server_command,
    wait_until,
};
use varta_proto::{Frame, Status};

/// What takes a bar off the screen.
const CLEAR: &str = "\x1b[2K";

fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("data/formats/0.1").join(name)
}

/// The command line of the server with these words.
fn command_line(words: &[&str]) -> String {
    let command = server_command();
    [command.get_program().to_str().unwrap()].iter().chain(words).map(|word| format!("'{word}' ")).collect()
}

/// What a command shows on a terminal.
fn shown(terminal: &mut Terminal, environment: &str, words: &[&str]) -> String {
    let before = terminal.screen().len();
    terminal.type_keys(&format!("{environment} {}; echo ended $?.\n", command_line(words)));
    let all = || terminal.screen()[before..].to_owned();
    wait_until("the command has ended", || all().contains("ended 0."));
    all()
}

#[test]
fn long_commands_show_on_a_terminal_how_far_they_have_come_and_leave_nothing_of_it() {
    let Some(mut terminal) = Terminal::with_shell() else { return };
    let (recording, log) = (data("recording.varta"), data("audit/plain/audit.log"));
    let replay = ["replay", recording.to_str().unwrap(), "--json"];
    let verify = ["audit", "verify", log.to_str().unwrap(), "--json"];
    for (words, bar) in [(&replay[..], "replaying ["), (&verify, "verifying [")] {
        let screen = shown(&mut terminal, "TERM=xterm", words);
        let (_, drawn) = screen.split_once(bar).unwrap();
        assert!(drawn.contains("] ") && drawn.contains(" %, "), "{screen:?}");
        let (_, behind) = screen.rsplit_once(" to go").unwrap();
        let (cleared, behind) = behind.split_once(CLEAR).unwrap();
        assert_eq!(cleared.trim(), "", "{screen:?}");
        assert!(behind.starts_with('{') && !behind.contains('\x1b'), "{screen:?}");

        let pipe = run_to_its_end({
            let mut command = server_command();
            command.env("TERM", "xterm").args(words);
            command
        });
        assert_eq!((pipe.status.code(), pipe.stderr.as_str()), (Some(0), ""));
        assert_eq!(behind.lines().next(), pipe.stdout.lines().next());

        let dumb = shown(&mut terminal, "TERM=dumb", words);
        assert!(dumb.starts_with('{') && !dumb.contains('\x1b'), "{dumb:?}");
    }
}

#[test]
fn a_server_that_logs_to_a_terminal_shows_there_how_many_of_many_agents_it_has_restored() {
    const AGENTS: u32 = 10_000;
    let Some(mut terminal) = Terminal::with_shell() else { return };
    let scratch = Scratch::make();
    let options = Options::from(["--stall-after", "1h"]).in_scratch(&scratch).udp("127.0.0.1:0");
    let quiet =
        ["--max-agents-per-source", "0", "--agent-metrics", "off", "--log-level", "info,varta::agent=off"];
    let mut server = Server::start(options.args(quiet));
    let socket = loopback_socket();
    // No more at once than its queue has room for.
    for first in (1..=AGENTS).step_by(200) {
        // No process of this host can have these.
        for pid in (first..first + 200).map(|pid| 10_000_000 + pid) {
            send_from(&socket, server.udp_address(0), &Frame::new(Status::Ok, pid, 1, 1, 0).to_bytes());
        }
        server.await_agents("up", first as usize + 199);
    }
    server.stop();

    let (path, state) = (scratch.socket(), scratch.state());
    let (path, state) = (path.to_str().unwrap(), state.to_str().unwrap());
    let words = [
        "--socket",
        path,
        "--metrics-addr",
        "none",
        "--max-agents-per-source",
        "0",
        "--stall-after",
        "1h",
        "--state-dir",
        state,
    ];
    let run = |terminal: &mut Terminal, behind: &str| {
        terminal.type_keys(&format!("TERM=xterm NO_COLOR=1 {}{behind}\n", command_line(&words)));
    };
    let done = |text: &str| text.contains("10000 agents are known from before this server's start");
    run(&mut terminal, "");
    wait_until("the agents are restored", || done(&terminal.screen()));
    terminal.type_keys("\x03echo ended $?.\n");
    assert_eq!(terminal.await_line("ended "), "0.");
    let screen = terminal.screen();
    let (_, drawn) = screen.split_once("restoring agents [").unwrap();
    assert!(drawn.contains("] ") && drawn.contains(" %, "), "{screen:?}");
    // Each line of the log stands for itself.
    let lines = screen.lines().filter(|line| line.contains(" INFO "));
    let is_alone = |line: &str| {
        !line.contains(" to go") || line.rsplit_once(CLEAR).is_some_and(|(_, line)| !line.contains(" to go"))
    };
    assert!(lines.clone().all(is_alone), "{screen:?}");

    let log = scratch.path("log");
    run(&mut terminal, &format!(" 2>{}", log.display()));
    let written = || fs::read_to_string(&log).unwrap_or_default();
    wait_until("the agents are restored", || done(&written()));
    terminal.type_keys("\x03echo ended again $?.\n");
    assert_eq!(terminal.await_line("ended again "), "0.");
    assert!(!written().contains("restoring agents") && !written().contains("\\u001b"), "{}", written());
}
