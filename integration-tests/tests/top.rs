//! `varta-server top` on a terminal, which is tmux: what is on the screen, and what is left when it ends.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::path::Path;
use std::process::Command;

use tempfile::TempDir;
use varta_integration_tests::{
    Options, Scratch, Server, Signal, foreign, run_to_its_end, server_command, sys, wait_until,
};

/// A shell in a terminal of 80 columns and 24 rows.
struct Tmux {
    directory: TempDir,
}

impl Tmux {
    /// `None` where there is no tmux; then the test is skipped, and this prints so.
    fn start() -> Option<Self> {
        foreign::installed("tmux")?;
        let tmux = Tmux { directory: tempfile::tempdir().unwrap() };
        tmux.ask(&["-f", "/dev/null", "new-session", "-d", "-x", "80", "-y", "24", "env", "PS1=$ ", "sh"]);
        Some(tmux)
    }

    fn command(&self) -> Command {
        let mut command = foreign::installed("tmux").unwrap();
        command.env("TERM", "xterm").arg("-S").arg(self.directory.path().join("tmux"));
        command
    }

    fn ask(&self, words: &[&str]) -> String {
        let mut command = self.command();
        command.args(words);
        let ended = run_to_its_end(command);
        assert!(ended.status.success(), "{words:?}: {}", ended.stderr);
        ended.stdout
    }

    fn screen(&self) -> String {
        self.ask(&["capture-pane", "-p"])
    }

    /// Waits until the screen is so.
    #[track_caller]
    fn await_screen(&self, what: &str, is_so: impl Fn(&str) -> bool) -> String {
        wait_until(what, || is_so(&self.screen()));
        self.screen()
    }

    #[track_caller]
    fn await_text(&self, text: &str) -> String {
        self.await_screen(text, |screen| screen.contains(text))
    }

    fn keys(&self, keys: &[&str]) {
        self.ask(&[&["send-keys"], keys].concat());
    }

    /// Types `top` for a server, and a word behind it that says how it ended.
    fn run_top(&self, socket: &Path) {
        let server = server_command();
        let program = server.get_program().to_str().unwrap().to_owned();
        self.keys(&[&format!("VARTA_SOCKET={} {program} top; echo ended $?.", socket.display()), "Enter"]);
    }

    /// The process of `top`.
    fn top(&self) -> u32 {
        let shell = self.ask(&["display-message", "-p", "#{pane_pid}"]).trim().to_owned();
        let children = std::fs::read_to_string(format!("/proc/{shell}/task/{shell}/children")).unwrap();
        children.split_ascii_whitespace().next().unwrap().parse().unwrap()
    }

    /// That the terminal is as a shell has it.
    fn assert_restored(&self) {
        self.keys(&[
            "clear; stty -a | grep -o -- '-*icanon'; stty -a | grep -o -- '-*echo '; echo asked.",
            "Enter",
        ]);
        let screen = self.await_screen("the shell answers", |screen| screen.contains("\nasked."));
        let lines: Vec<_> = screen.lines().map(str::trim).collect();
        assert!(lines.contains(&"icanon") && lines.contains(&"echo"), "{screen}");
        assert_eq!(self.ask(&["display-message", "-p", "#{alternate_on}#{cursor_flag}"]).trim(), "01");
    }
}

impl Drop for Tmux {
    fn drop(&mut self) {
        let _ = self.command().arg("kill-server").output();
    }
}

#[test]
fn the_list_is_live_sorted_filtered_and_paused_from_and_the_terminal_is_as_before() {
    let Some(tmux) = Tmux::start() else { return };
    let server = Server::start(["--stall-after", "1s"]);
    let [alpha, beta] = ["alpha", "beta"].map(|name| server.start_agent(&["--name", name]));
    server.await_agents("up", 2);
    tmux.keys(&["echo before", "Enter"]);
    tmux.run_top(server.socket());
    let screen = tmux.await_text("2 agents: 2 up; worst first");
    let lines: Vec<_> = screen.lines().collect();
    assert!(
        lines[2].starts_with("STATE") && lines[3].contains("alpha") && lines[4].contains("beta"),
        "{screen}"
    );
    assert!(lines[23].contains("q quit"), "{screen}");

    beta.signal(Signal::Stop);
    let screen = tmux.await_text("2 agents: 1 up, 1 stalled");
    let first = screen.lines().nth(3).unwrap();
    assert!(
        first.starts_with("stalled") && first.contains("beta") && first.contains("##########"),
        "{screen}"
    );
    beta.signal(Signal::Continue);
    tmux.await_text("2 agents: 2 up");

    tmux.keys(&["s"]);
    tmux.await_text("by name");
    tmux.keys(&["/", "b", "e", "t"]);
    let screen = tmux.await_text("; 1 match");
    assert!(screen.contains("filter: bet_") && !screen.contains("alpha"), "{screen}");
    tmux.keys(&["Enter", "Home", "Enter"]);
    tmux.await_text(&format!("beta[{}]@", beta.pid()));
    tmux.await_text("from stalled to up");
    tmux.keys(&["Enter", "p"]);
    tmux.await_text("pause beta for: 1h_");
    tmux.keys(&["Enter"]);
    tmux.await_text("beta (paused)");
    tmux.keys(&["r"]);
    tmux.await_screen("the pause is lifted", |screen| !screen.contains("beta (paused)"));
    tmux.keys(&["Escape"]);
    tmux.await_text("alpha");
    let _ = alpha.pid();
    tmux.keys(&["q"]);
    let screen = tmux.await_text("ended 0.");
    assert!(screen.contains("before") && !screen.contains("STATE"), "{screen}");
    tmux.assert_restored();
}

#[test]
fn a_signal_ends_it_and_leaves_the_terminal_as_it_was() {
    let Some(tmux) = Tmux::start() else { return };
    let server = Server::start(Options::new());
    for (signal, status) in [(Signal::Terminate, 143), (Signal::HangUp, 129), (Signal::Interrupt, 130)] {
        tmux.run_top(server.socket());
        tmux.await_text("no agents");
        sys::send_signal(tmux.top(), signal).unwrap();
        tmux.await_text(&format!("ended {status}."));
        tmux.assert_restored();
    }
}

#[test]
fn it_says_when_the_server_is_gone_and_goes_on_with_the_next_whatever_the_size_of_the_screen() {
    let Some(tmux) = Tmux::start() else { return };
    let scratch = Scratch::make();
    let mut server = Server::start(Options::new().in_scratch(&scratch));
    tmux.run_top(server.socket());
    tmux.await_text("no agents");
    server.kill();
    tmux.await_text("the server does not answer");
    let server = Server::start(Options::new().in_scratch(&scratch));
    tmux.await_screen("it answers again", |screen| !screen.contains("does not answer"));
    let _agent = server.start_agent(&["--name", "alpha"]);
    tmux.await_text("1 agent: 1 up");
    for (width, height) in [("50", "10"), ("120", "40"), ("10", "3"), ("80", "24")] {
        tmux.ask(&["resize-window", "-x", width, "-y", height]);
        let height: usize = height.parse().unwrap();
        tmux.await_screen("the keys are in the last line", |screen| {
            screen.lines().count() == height
                && screen.lines().last().is_some_and(|line| line.starts_with("up/down"))
        });
    }
    tmux.keys(&["C-c"]);
    tmux.await_text("ended 0.");
    tmux.assert_restored();
}
