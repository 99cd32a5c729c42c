//! A real browser, without a window, that a test leads through a page.

use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, ChildStdin, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;

use serde_json::{Value, json};

use crate::foreign;
use crate::retry::{LIMIT, wait_for};

/// A size of window and a scheme of colors.
#[derive(Clone, Copy, Debug)]
pub struct Look {
    /// The width, in pixels.
    pub width: u32,
    /// The height, in pixels.
    pub height: u32,
    /// Whether dark colors are wanted.
    pub is_dark: bool,
}

impl Look {
    /// A window as on a desk, in light colors.
    pub const DESK: Look = Look { width: 1280, height: 800, is_dark: false };
    /// A window as on a desk, in dark colors.
    pub const DARK: Look = Look { is_dark: true, ..Look::DESK };
    /// The window of a small phone.
    pub const PHONE: Look = Look { width: 360, height: 740, is_dark: false };
}

/// A browser with one page. It ends when this is dropped.
#[derive(Debug)]
pub struct Browser {
    child: Child,
    stdin: Option<ChildStdin>,
    answers: Receiver<String>,
}

impl Browser {
    /// Starts one; `None` where there is none to be had.
    #[must_use]
    #[track_caller]
    pub fn start() -> Option<Self> {
        let mut command = foreign::command("venv/bin/python")?;
        // Programs are looked for there, and the browser keeps its profile in a directory for what is temporary.
        command.env("PATH", "/usr/bin:/bin").env("HOME", "/nonexistent");
        command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/src/browser.py"));
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .unwrap_or_else(|error| panic!("{command:?} cannot be started: {error}"));
        let stdout = child.stdout.take().expect("standard output is a pipe");
        let stdin = child.stdin.take();
        let (to_answers, answers) = mpsc::channel();
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if to_answers.send(line).is_err() {
                    return;
                }
            }
        });
        let browser = Browser { child, stdin, answers };
        let Ok(first) = browser.answers.recv_timeout(LIMIT) else {
            foreign::skip_or_fail("the browser of src/browser.py does not start");
            return None;
        };
        let first: Value = serde_json::from_str(&first).unwrap_or_default();
        if first["ready"].is_string() {
            return Some(browser);
        }
        foreign::skip_or_fail(&format!("no browser: {}; scripts/test installs one", first["absent"]));
        None
    }

    /// Opens a path of a server, such as `/`, in a profile of its own.
    #[track_caller]
    pub fn open(&mut self, server: SocketAddr, path: &str, look: Look) {
        let scheme = if look.is_dark { "dark" } else { "light" };
        let url = format!("http://{server}{path}");
        self.ask(
            json!({ "do": "open", "url": url, "width": look.width, "height": look.height, "scheme": scheme }),
        );
    }

    /// Opens a path in another tab of the same profile; what follows is for that tab.
    #[track_caller]
    pub fn open_tab(&mut self, server: SocketAddr, path: &str) {
        self.ask(json!({ "do": "tab", "url": format!("http://{server}{path}") }));
    }

    /// Closes this tab; what follows is for the first one.
    #[track_caller]
    pub fn close_tab(&mut self) {
        self.ask(json!({ "do": "leave" }));
    }

    /// Waits until an expression is true in each of so many tabs, which have so many streams of changes together.
    #[track_caller]
    pub fn await_in_all(&mut self, tabs: usize, streams: usize, expression: &str) {
        let all = json!({ "values": vec![true; tabs], "streams": streams });
        let mut last = Value::Null;
        let holds = wait_for(|| {
            last = self.ask(json!({ "do": "everywhere", "js": expression }));
            (last == all).then_some(())
        });
        assert!(holds.is_some(), "not within {LIMIT:?}: {expression}: {last}");
    }

    /// The value of an expression in JavaScript.
    #[track_caller]
    pub fn js(&mut self, expression: &str) -> Value {
        self.ask(json!({ "do": "js", "js": expression }))
    }

    /// Waits until an expression is true.
    #[track_caller]
    pub fn await_js(&mut self, expression: &str) {
        let holds = wait_for(|| (self.js(expression) == true).then_some(()));
        if holds.is_none() {
            let shown = self.js("document.body.innerText");
            panic!("not within {LIMIT:?}: {expression}; the page says {shown}");
        }
    }

    /// Waits until a text is shown by the element of this selector.
    #[track_caller]
    pub fn await_text(&mut self, selector: &str, text: &str) {
        self.await_js(&format!(
            "[...document.querySelectorAll({})].some((node) => node.innerText.includes({}))",
            json!(selector),
            json!(text)
        ));
    }

    /// Presses keys, one after the other, by the names that browsers have for them.
    #[track_caller]
    pub fn press(&mut self, keys: &[&str]) {
        self.ask(json!({ "do": "press", "keys": keys }));
    }

    /// Types a text into whatever has the focus.
    #[track_caller]
    pub fn type_text(&mut self, text: &str) {
        self.ask(json!({ "do": "type", "text": text }));
    }

    /// Clicks on the element of a selector.
    #[track_caller]
    pub fn click(&mut self, selector: &str) {
        self.ask(json!({ "do": "click", "at": selector }));
    }

    /// Answers the page's requests for these paths, a pattern, with this body instead of the server's.
    #[track_caller]
    pub fn fake(&mut self, paths: &str, body: &Value) {
        self.ask(json!({ "do": "fake", "path": paths, "body": body }));
    }

    /// What axe-core finds on the page that is serious or worse.
    #[track_caller]
    pub fn axe(&mut self) -> Value {
        self.ask(json!({ "do": "axe" }))
    }

    /// Asserts that all requests so far went to `servers`, that the policy of no page was broken, and that no script
    /// failed.
    #[track_caller]
    pub fn assert_clean(&mut self, servers: &[SocketAddr]) {
        let seen = self.ask(json!({ "do": "seen" }));
        assert_eq!(seen["faults"], json!([]));
        let requests = seen["requests"].as_array().cloned().unwrap_or_default();
        assert!(!requests.is_empty());
        for request in requests {
            let url = request.as_str().unwrap_or_default();
            let is_own = servers.iter().any(|server| url.starts_with(&format!("http://{server}/")));
            assert!(is_own, "{url}");
        }
    }

    /// Writes a picture of what is shown.
    #[track_caller]
    pub fn picture(&mut self, file: &Path) {
        self.ask(json!({ "do": "picture", "file": file }));
    }

    #[track_caller]
    #[expect(clippy::needless_pass_by_value, reason = "commands are made where they are given")]
    fn ask(&mut self, command: Value) -> Value {
        let stdin = self.stdin.as_mut().expect("its input is open as long as it lives");
        writeln!(stdin, "{command}").unwrap_or_else(|error| panic!("{command} cannot be sent: {error}"));
        // The browser has a limit of its own for whatever it waits for.
        let answer = self.answers.recv_timeout(LIMIT * 2);
        let answer = answer.unwrap_or_else(|error| panic!("no answer to {command}: {error}"));
        let answer: Value = serde_json::from_str(&answer).expect("answers are JSON");
        assert!(answer.get("ok").is_some(), "to {command} it says {answer}");
        answer["ok"].clone()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // With this it ends, and takes the browser with it.
        self.stdin.take();
        if wait_for(|| self.child.try_wait().ok().flatten()).is_none() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}
