//! The command `top`.

use std::io::{self, IsTerminal};
use std::process::ExitCode;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread;

use clap::{Args, Subcommand};
use crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use nix::sys::signal::{SigSet, Signal};

use crate::base::error::Error;
use crate::services::follow::client::Client;
use crate::services::maintenance::ControlArgs;
use crate::services::top::feed::{self, Ask, put_into};
use crate::services::top::model::{Effect, Key, Model, Update};
use crate::services::top::screen::Screen;
use crate::services::top::view::draw;

/// What waits to be shown, at most.
const QUEUE: usize = 64;

/// What can be shown on a terminal.
#[derive(Clone, Debug, Subcommand)]
#[non_exhaustive]
pub enum TopTask {
    /// Show the agents of a running server on a terminal, live
    ///
    /// Keys: up and down select, enter follows an agent, / filters by words, s sorts, p pauses alarms of agents with the
    /// name under the bar, r resumes, q quits. Only the server's own user and root may ask. It says when the server does
    /// not answer, and goes on when it does.
    Top(TopArgs),
}

/// What is shown to begin with.
#[derive(Clone, Debug, Args)]
pub struct TopArgs {
    /// Words that must occur in the name, unit, host, labels or pid of an agent
    #[arg(value_name = "WORDS")]
    pub words: Vec<String>,

    /// Which server is asked.
    #[command(flatten)]
    pub control: ControlArgs,
}

/// What happens.
enum Happening {
    Key(Key),
    /// The screen has another size, or another look.
    Redraw,
    Update(Update),
    /// The end is asked for.
    Signal(Signal),
}

impl From<Update> for Happening {
    fn from(update: Update) -> Self {
        Happening::Update(update)
    }
}

impl TopTask {
    /// Shows them until it is told to end. Gives the exit status of the program: 0, or 128 and more after a signal.
    ///
    /// # Errors
    ///
    /// There is no terminal.
    pub fn run(&self) -> Result<ExitCode, Error> {
        let TopTask::Top(args) = self;
        let failed = |action| move |source| Error::Runtime { action, source };
        if !io::stdout().is_terminal() || !io::stdin().is_terminal() {
            let source =
                io::Error::other("standard input and output are none; `varta-server status` is for scripts");
            return Err(failed("show agents on a terminal")(source));
        }
        let client = Client::new(args.control.path()?);
        let signals = SigSet::from_iter([Signal::SIGTERM, Signal::SIGHUP, Signal::SIGINT]);
        // Before any thread: all have them blocked but the one that waits for them.
        signals.thread_block().map_err(|errno| failed("wait for signals")(errno.into()))?;
        let (happen, happenings) = sync_channel(QUEUE);
        let (ask, asks) = sync_channel(QUEUE);
        let mut model = Model::new(args.words.join(" "));
        let mut screen = Screen::take().map_err(failed("take the terminal"))?;
        let (wanted, feed) = (model.wanted.clone(), put_into(happen.clone()));
        thread::spawn(move || feed::run(&client, wanted, &asks, feed));
        let keys = happen.clone();
        thread::spawn(move || read_keys(&keys));
        thread::spawn(move || {
            if let Ok(signal) = signals.wait() {
                // Whether anybody still waits makes no difference.
                let _ = happen.send(Happening::Signal(signal));
            }
        });
        loop {
            screen.terminal.draw(|frame| draw(frame, &mut model)).map_err(failed("draw on the terminal"))?;
            let Ok(happening) = happenings.recv() else { return Ok(ExitCode::SUCCESS) };
            match happening {
                Happening::Redraw => {}
                Happening::Update(update) => model.update(update),
                Happening::Signal(signal) => {
                    return Ok(ExitCode::from(u8::try_from(128 + signal as i32).unwrap_or(u8::MAX)));
                }
                Happening::Key(key) => match model.key(key) {
                    Effect::None => {}
                    Effect::Quit => return Ok(ExitCode::SUCCESS),
                    // A full queue has what is newer behind it soon.
                    Effect::Ask => _ = ask.try_send(Ask::Show(model.wanted.clone())),
                    Effect::Act(act) => {
                        if ask.try_send(Ask::Act(act)).is_err() {
                            model.message = Some("not done: the server has not answered yet".to_owned());
                        }
                    }
                },
            }
        }
    }
}

/// Reads keys until the terminal is gone, or nobody takes them.
fn read_keys(happen: &SyncSender<Happening>) {
    while let Ok(event) = event::read() {
        let happening = match event {
            Event::Key(key) => match key_of(key) {
                Some(key) => Happening::Key(key),
                None => continue,
            },
            Event::Resize(..) => Happening::Redraw,
            _ => continue,
        };
        if happen.send(happening).is_err() {
            return;
        }
    }
    let _ = happen.send(Happening::Signal(Signal::SIGHUP));
}

fn key_of(event: KeyEvent) -> Option<Key> {
    if event.kind == KeyEventKind::Release {
        return None;
    }
    Some(match event.code {
        KeyCode::Char('c') if event.modifiers.contains(KeyModifiers::CONTROL) => Key::Interrupt,
        KeyCode::Char(_) if event.modifiers.intersects(KeyModifiers::CONTROL | KeyModifiers::ALT) => {
            return None;
        }
        KeyCode::Char(character) => Key::Char(character),
        KeyCode::Enter => Key::Enter,
        KeyCode::Esc => Key::Escape,
        KeyCode::Backspace => Key::Backspace,
        KeyCode::Up => Key::Up,
        KeyCode::Down => Key::Down,
        KeyCode::PageUp => Key::PageUp,
        KeyCode::PageDown => Key::PageDown,
        KeyCode::Home => Key::Home,
        KeyCode::End => Key::End,
        _ => return None,
    })
}
