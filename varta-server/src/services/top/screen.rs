//! The terminal: raw and with a screen of its own while `top` runs, and as it was before when that ends, however it
//! ends.

use std::io::{self, Stdout, stdout};
use std::panic;

use crossterm::cursor::Show;
use crossterm::execute;
use crossterm::terminal::{EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode};
use ratatui::Terminal;
use ratatui::backend::CrosstermBackend;

/// The terminal, which is restored when this is dropped.
pub(super) struct Screen {
    pub(super) terminal: Terminal<CrosstermBackend<Stdout>>,
}

impl Screen {
    /// Takes the terminal.
    ///
    /// # Errors
    ///
    /// Standard output is none.
    pub(super) fn take() -> io::Result<Self> {
        let former = panic::take_hook();
        // What a panic says must not vanish with the screen.
        panic::set_hook(Box::new(move |panic| {
            restore();
            former(panic);
        }));
        enable_raw_mode()?;
        let screen = Screen { terminal: Terminal::new(CrosstermBackend::new(stdout()))? };
        execute!(stdout(), EnterAlternateScreen)?;
        Ok(screen)
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        restore();
    }
}

/// Leaves the terminal as it was. Whether it is still there makes no difference.
fn restore() {
    let _ = execute!(stdout(), LeaveAlternateScreen, Show);
    let _ = disable_raw_mode();
}
