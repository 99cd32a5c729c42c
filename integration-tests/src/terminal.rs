//! A terminal with a shell that controls jobs, as a person has it.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use nix::pty::{Winsize, openpty};
use nix::unistd::ttyname;

use crate::foreign::skip;
use crate::retry::{or_fail, wait_until};

/// A shell on a terminal of 33 rows and 99 columns. It is hung up when this is dropped.
#[derive(Debug)]
pub struct Terminal {
    shell: Child,
    keyboard: Option<File>,
    name: PathBuf,
    screen: Arc<Mutex<String>>,
}

impl Terminal {
    /// Starts the shell, which is its session's leader. `None` where there is no `setsid` that gives it the terminal;
    /// then the test is skipped, and this prints so.
    #[must_use]
    #[track_caller]
    pub fn with_shell() -> Option<Self> {
        let version = Command::new("setsid").arg("--help").output();
        if !version.is_ok_and(|help| String::from_utf8_lossy(&help.stdout).contains("--ctty")) {
            skip("no shell can be given a terminal here: that takes `setsid` of util-linux");
            return None;
        }
        let size = Winsize { ws_row: 33, ws_col: 99, ws_xpixel: 0, ws_ypixel: 0 };
        let pair = or_fail(openpty(&size, None).map_err(|error| format!("no terminal: {error}")));
        let name = or_fail(ttyname(&pair.slave).map_err(|error| error.to_string()));
        let stream =
            |descriptor: &OwnedFd| or_fail(descriptor.try_clone().map_err(|error| error.to_string()));
        let mut command = Command::new("setsid");
        // A prompt of its own would only be in the way.
        command
            .args(["--ctty", "--wait", "sh", "-i"])
            .env_clear()
            .env("PS1", "")
            .env("PATH", "/usr/bin:/bin");
        command.stdin(stream(&pair.slave)).stdout(stream(&pair.slave)).stderr(Stdio::from(pair.slave));
        let shell =
            or_fail(command.spawn().map_err(|error| format!("{command:?} cannot be started: {error}")));
        // With it the terminal's end that is the shell's.
        drop(command);
        let screen = Arc::new(Mutex::new(String::new()));
        let shared = Arc::clone(&screen);
        let mut shown = File::from(stream(&pair.master));
        thread::spawn(move || {
            let mut room = [0; 4096];
            // The end is an error, when nobody has the terminal open any more.
            while let Ok(length @ 1..) = shown.read(&mut room) {
                let piece = String::from_utf8_lossy(&room[..length]);
                shared.lock().unwrap_or_else(PoisonError::into_inner).push_str(&piece);
            }
        });
        let mut terminal = Terminal { shell, keyboard: Some(pair.master.into()), name, screen };
        // What is typed is not shown, so that each line on the screen is one that a program printed.
        terminal.type_keys("stty -echo; echo the shell is ready.\n");
        terminal.await_line("the shell is ready.");
        Some(terminal)
    }

    /// Types something. Control characters are what the keys give.
    #[track_caller]
    pub fn type_keys(&mut self, keys: &str) {
        let keyboard = self.keyboard.as_mut().expect("it was not hung up");
        or_fail(
            keyboard.write_all(keys.as_bytes()).map_err(|error| format!("nothing can be typed: {error}")),
        );
    }

    /// Gives the terminal another size, as the window does that it is in.
    #[track_caller]
    pub fn resize(&self, rows: u16, columns: u16) {
        let size = ["rows".to_owned(), rows.to_string(), "columns".to_owned(), columns.to_string()];
        self.stty(&size);
    }

    /// The modes of the terminal, as `stty -a` tells them.
    #[must_use]
    #[track_caller]
    pub fn modes(&self) -> String {
        self.stty(&["-a".to_owned()])
    }

    #[track_caller]
    fn stty(&self, arguments: &[String]) -> String {
        let told = Command::new("stty").arg("-F").arg(&self.name).args(arguments).output();
        let told = or_fail(told.map_err(|error| format!("stty cannot be run: {error}")));
        assert!(told.status.success(), "{told:?}");
        String::from_utf8_lossy(&told.stdout).into_owned()
    }

    /// All that was shown until now.
    #[must_use]
    pub fn screen(&self) -> String {
        self.screen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits until a line begins like this, and gives the rest of it.
    #[track_caller]
    pub fn await_line(&self, start: &str) -> String {
        let find = || {
            let screen = self.screen();
            let (complete, _) = screen.rsplit_once('\n')?;
            complete.lines().find_map(|line| line.strip_prefix(start)).map(|rest| rest.trim_end().to_owned())
        };
        wait_until(&format!("a line of the terminal begins with {start:?}"), || find().is_some());
        find().unwrap_or_default()
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        drop(self.keyboard.take());
        let _ = self.shell.kill();
        let _ = self.shell.wait();
    }
}
