//! Bars that show on a terminal how far long work has come. In a pipe, a file or a dumb terminal there are none.

use std::fmt::Write as _;
use std::io::{self, Read, Write};
use std::sync::{Mutex, OnceLock, PoisonError};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle, TermLike};
use tracing_appender::non_blocking::NonBlocking;

/// How often a bar is drawn, at most.
const PER_SECOND: u8 = 10;
/// The columns that a bar is fit into.
const COLUMNS: u16 = 80;

/// The queue to the thread that writes the log, where that goes to a terminal.
static LOG: OnceLock<NonBlocking> = OnceLock::new();

/// The bar that is shown in the midst of the log.
static IN_LOG: Mutex<Option<ProgressBar>> = Mutex::new(None);

/// Has bars of a server that logs to a terminal drawn through the queue of its log, so that a terminal that blocks
/// holds nothing up.
pub(crate) fn draw_by(log: NonBlocking) {
    LOG.get_or_init(|| log);
}

/// Writes to the log what is no bar. One that is shown is taken away before, and comes back behind it.
pub(crate) fn beside_bar<T>(write: impl FnOnce() -> T) -> T {
    let shown = IN_LOG.lock().unwrap_or_else(PoisonError::into_inner);
    match &*shown {
        Some(bar) => bar.suspend(write),
        None => write(),
    }
}

/// Work whose end is known. Its bar vanishes with it.
#[derive(Debug)]
pub(crate) struct Progress {
    bar: ProgressBar,
    is_in_log: bool,
}

impl Progress {
    /// Shows nothing.
    pub(crate) fn hidden() -> Self {
        Progress { bar: ProgressBar::hidden(), is_in_log: false }
    }

    /// Shows the progress of a command on standard error, if that is a terminal.
    pub(crate) fn of_command(what: &'static str) -> Self {
        Progress { bar: bar(what, ProgressDrawTarget::stderr_with_hz(PER_SECOND)), is_in_log: false }
    }

    /// Shows the progress of the server itself, if its log goes to a terminal.
    pub(crate) fn of_server(what: &'static str, units: u64) -> Self {
        let Some(log) = LOG.get() else { return Progress::hidden() };
        let terminal = Box::new(LogTerminal { log: log.clone(), text: Mutex::default() });
        let bar = bar(what, ProgressDrawTarget::term_like_with_hz(terminal, PER_SECOND));
        *IN_LOG.lock().unwrap_or_else(PoisonError::into_inner) = Some(bar.clone());
        let progress = Progress { bar, is_in_log: true };
        progress.expect(units);
        progress
    }

    /// Says how much there is to do, and shows that nothing of it is done.
    pub(crate) fn expect(&self, units: u64) {
        self.bar.set_length(units);
        self.bar.tick();
    }

    /// So much more is done.
    pub(crate) fn advance(&self, units: u64) {
        self.bar.inc(units);
    }

    /// A reader of which each byte is a unit that is done.
    pub(crate) fn reading<R: Read>(&self, input: R) -> impl Read + use<R> {
        self.bar.wrap_read(input)
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
        if self.is_in_log {
            *IN_LOG.lock().unwrap_or_else(PoisonError::into_inner) = None;
        }
    }
}

fn bar(what: &'static str, target: ProgressDrawTarget) -> ProgressBar {
    let style = ProgressStyle::with_template("{msg} [{bar:30}] {percent:>3} %, {eta} to go");
    let style = style.expect("the template is well-formed").progress_chars("=> ");
    ProgressBar::with_draw_target(Some(0), target).with_style(style).with_message(what)
}

/// The terminal behind the queue of the log. Each frame is one entry of the queue, and may be lost as a line may.
#[derive(Debug)]
struct LogTerminal {
    log: NonBlocking,
    text: Mutex<String>,
}

impl LogTerminal {
    #[allow(clippy::unnecessary_wraps, reason = "the trait asks for it")]
    fn add(&self, text: &str) -> io::Result<()> {
        self.text.lock().unwrap_or_else(PoisonError::into_inner).push_str(text);
        Ok(())
    }

    /// Adds a control sequence that moves the cursor.
    fn move_by(&self, steps: usize, direction: char) -> io::Result<()> {
        let mut text = String::new();
        if steps > 0 {
            // Writing to a `String` cannot fail.
            let _ = write!(text, "\x1b[{steps}{direction}");
        }
        self.add(&text)
    }
}

impl TermLike for LogTerminal {
    fn width(&self) -> u16 {
        COLUMNS
    }

    fn move_cursor_up(&self, steps: usize) -> io::Result<()> {
        self.move_by(steps, 'A')
    }

    fn move_cursor_down(&self, steps: usize) -> io::Result<()> {
        self.move_by(steps, 'B')
    }

    fn move_cursor_right(&self, steps: usize) -> io::Result<()> {
        self.move_by(steps, 'C')
    }

    fn move_cursor_left(&self, steps: usize) -> io::Result<()> {
        self.move_by(steps, 'D')
    }

    fn write_line(&self, text: &str) -> io::Result<()> {
        self.add(text)?;
        self.add("\n")
    }

    fn write_str(&self, text: &str) -> io::Result<()> {
        self.add(text)
    }

    fn clear_line(&self) -> io::Result<()> {
        self.add("\r\x1b[2K")
    }

    fn flush(&self) -> io::Result<()> {
        let frame = std::mem::take(&mut *self.text.lock().unwrap_or_else(PoisonError::into_inner));
        if frame.is_empty() { Ok(()) } else { self.log.clone().write_all(frame.as_bytes()) }
    }
}
