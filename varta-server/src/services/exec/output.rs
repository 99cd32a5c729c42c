//! The standard streams of a command: what goes through a pipe to be read, and what is left as it
//! is.
//!
//! A terminal is left as it is, so that the command can use it; if what is printed is to be seen, the command gets one
//! of its own to print on, see `terminal.rs`. Where both streams are one file, they go through one pipe or terminal,
//! which keeps the order in which they were written.

use std::io::{self, IsTerminal};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread;

use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::stat::fstat;
use nix::unistd::{dup2_stdin, dup2_stdout};

use crate::base::files::device_null;
use crate::services::exec::agent::say;
use crate::services::exec::splice::Mover;
use crate::services::exec::tail::Tail;
use crate::services::exec::terminal::{Screen, Source};

/// Which streams are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Plan {
    None,
    Stdout,
    Stderr,
    /// Each through its own pipe or terminal.
    Both,
    /// Both through one, as they are one file.
    One,
}

impl Plan {
    /// All streams, if they are to be seen; those that are no terminal, if they are to be kept.
    pub(super) fn of_this_process(is_kept: bool, is_seen: bool) -> Self {
        let (out, err) = (io::stdout(), io::stderr());
        let is_one_file = || {
            let of = |descriptor: BorrowedFd<'_>| fstat(descriptor).map(|file| (file.st_dev, file.st_ino));
            of(out.as_fd()).is_ok_and(|file| of(err.as_fd()) == Ok(file))
        };
        let is_read = |is_terminal: bool| is_seen || (is_kept && !is_terminal);
        match (is_read(out.is_terminal()), is_read(err.is_terminal())) {
            (false, false) => Plan::None,
            (true, false) => Plan::Stdout,
            (false, true) => Plan::Stderr,
            (true, true) if is_one_file() => Plan::One,
            (true, true) => Plan::Both,
        }
    }
}

/// Closes this process's standard input, which only the command reads: who writes to it sees when the command has
/// closed it.
pub(super) fn close_stdin() {
    // Without it, the writer sees the end of exec.
    if let Ok(null) = device_null() {
        let _ = dup2_stdin(null);
    }
}

/// The streams of the command that runs.
#[derive(Debug)]
pub(super) struct Output {
    plan: Plan,
    keeps: bool,
    shared: Arc<Shared>,
    /// The terminals of the command that runs, until they have ended.
    screens: Vec<Weak<Screen>>,
}

/// What the threads that move the output share with the one that decides.
#[derive(Debug)]
struct Shared {
    tail: Mutex<Tail>,
    /// Whether the next output is waited for.
    is_awaited: AtomicBool,
    /// Whether there was output since that was asked last.
    has_spoken: AtomicBool,
    /// The streams that are not at their end.
    open: AtomicUsize,
    /// Whether standard output is at its end.
    stdout_ended: AtomicBool,
    /// Readable when one of these has changed.
    changed: EventFd,
    /// Readable when the threads are to move what is there, and to end.
    stop: EventFd,
}

/// The reading ends of a command that is being started.
#[derive(Debug, Default)]
pub(super) struct Pipes {
    out: Option<Source>,
    err: Option<Source>,
}

impl Output {
    /// # Errors
    ///
    /// There is no descriptor left.
    pub(super) fn new(plan: Plan, keeps: bool) -> io::Result<Self> {
        let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
        let shared = Shared {
            tail: Mutex::default(),
            is_awaited: AtomicBool::new(true),
            has_spoken: AtomicBool::new(false),
            open: AtomicUsize::new(0),
            stdout_ended: AtomicBool::new(false),
            changed: EventFd::from_flags(flags)?,
            stop: EventFd::from_flags(flags)?,
        };
        Ok(Output { plan, keeps, shared: Arc::new(shared), screens: Vec::new() })
    }

    /// Gives a command its streams.
    ///
    /// # Errors
    ///
    /// There is no descriptor or terminal left.
    pub(super) fn attach(&self, command: &mut Command) -> io::Result<Pipes> {
        let mut pipes = Pipes::default();
        if matches!(self.plan, Plan::Stdout | Plan::Both | Plan::One) {
            let (source, end) = open(&io::stdout())?;
            if self.plan == Plan::One {
                command.stderr(end.try_clone()?);
            }
            command.stdout(end);
            pipes.out = Some(source);
        }
        if matches!(self.plan, Plan::Stderr | Plan::Both) {
            let (source, end) = open(&io::stderr())?;
            command.stderr(end);
            pipes.err = Some(source);
        }
        Ok(pipes)
    }

    /// Starts to move what comes. The streams of an earlier command have ended.
    ///
    /// # Errors
    ///
    /// There is no descriptor or thread left.
    pub(super) fn start(&mut self, pipes: Pipes) -> io::Result<()> {
        self.shared.tail.lock().unwrap_or_else(PoisonError::into_inner).clear();
        self.shared.has_spoken.store(false, Ordering::Relaxed);
        // What was written to it is taken out again, if it was.
        let _ = self.shared.stop.read();
        self.screens.clear();
        if let Some(source) = pipes.out {
            self.move_all(source, io::stdout().as_fd(), "standard output")?;
        }
        if let Some(source) = pipes.err {
            self.move_all(source, io::stderr().as_fd(), "standard error")?;
        }
        Ok(())
    }

    fn move_all(&mut self, from: Source, to: BorrowedFd<'_>, name: &'static str) -> io::Result<()> {
        match from {
            Source::Pipe(reader) => {
                let mover = Mover::new(reader, to.try_clone_to_owned()?, self.keeps)?;
                self.spawn(name, move |shared| mover.run(shared.stop.as_fd(), |end| shared.note(end)))
            }
            Source::Screen(screen) => {
                self.screens.push(Arc::downgrade(&screen));
                let keeps = self.keeps;
                self.spawn(name, move |shared| {
                    screen.run(shared.stop.as_fd(), |piece| shared.note(if keeps { piece } else { &[] }))
                })
            }
        }
    }

    fn spawn(
        &self,
        name: &'static str,
        run: impl FnOnce(&Shared) -> io::Result<()> + Send + 'static,
    ) -> io::Result<()> {
        let shared = Arc::clone(&self.shared);
        shared.open.fetch_add(1, Ordering::AcqRel);
        let work = move || {
            match run(&shared) {
                Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
                    say(&format!("{name} cannot be written: {error}"));
                }
                Ok(()) | Err(_) => {}
            }
            if name == "standard output" {
                shared.stdout_ended.store(true, Ordering::Release);
            }
            shared.open.fetch_sub(1, Ordering::AcqRel);
            shared.tell();
        };
        let started = thread::Builder::new().name("exec-output".to_owned()).spawn(work);
        if started.is_err() {
            self.shared.open.fetch_sub(1, Ordering::AcqRel);
        }
        started.map(drop)
    }

    /// Whether something was printed since this was asked last. The next output makes the descriptor readable.
    pub(super) fn take_sign(&self) -> bool {
        // Also the request for the next one.
        self.shared.is_awaited.store(true, Ordering::Release);
        self.shared.has_spoken.swap(false, Ordering::AcqRel)
    }

    /// Takes note of what has changed.
    pub(super) fn handle_change(&self) {
        // It may have been read already.
        let _ = self.shared.changed.read();
    }

    /// Ends the streams, once what is there has been moved: nobody is left who could write more.
    pub(super) fn end(&self) {
        // Fails only when it counts up to the greatest number.
        let _ = self.shared.stop.write(1);
    }

    /// Gives the command's terminals the size of those of exec; whether one had another.
    pub(super) fn take_size(&self) -> bool {
        let screens = self.screens.iter().filter_map(Weak::upgrade);
        // One that is hung up has none.
        screens.filter(|screen| screen.take_size().unwrap_or(false)).count() > 0
    }

    /// Waits a moment until all that was printed on a terminal is shown.
    pub(super) fn await_shown(&self) {
        self.screens.iter().filter_map(Weak::upgrade).for_each(|screen| screen.await_shown());
    }

    /// Whether all streams have ended.
    pub(super) fn has_ended(&self) -> bool {
        self.shared.open.load(Ordering::Acquire) == 0
    }

    /// Closes this process's standard output, once the command and all its descendants have closed theirs: who reads
    /// it sees the end then, as without exec.
    pub(super) fn close_stdout_if_ended(&self) {
        if self.shared.stdout_ended.swap(false, Ordering::AcqRel)
            && let Ok(null) = device_null()
        {
            // Without it, the reader sees the end when exec ends.
            let _ = dup2_stdout(null);
        }
    }

    /// The last lines of what was printed, of at most so many bytes together, if it is kept.
    pub(super) fn last_words(&self, most: usize) -> Option<String> {
        self.shared.tail.lock().unwrap_or_else(PoisonError::into_inner).last_words(most)
    }

    /// The last line of what was printed, if it is kept.
    pub(super) fn last_line(&self) -> Option<String> {
        self.shared.tail.lock().unwrap_or_else(PoisonError::into_inner).last_line()
    }
}

/// A way from a command to a stream of this process, and the command's end of it.
fn open(stream: &(impl AsFd + IsTerminal)) -> io::Result<(Source, OwnedFd)> {
    if stream.is_terminal() {
        let (screen, end) = Screen::open(stream.as_fd())?;
        return Ok((Source::Screen(screen), end));
    }
    let (reader, writer) = io::pipe()?;
    Ok((Source::Pipe(reader), writer.into()))
}

impl AsFd for Output {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.shared.changed.as_fd()
    }
}

impl Shared {
    /// There is output, which ends like this.
    fn note(&self, end: &[u8]) {
        if !end.is_empty() {
            self.tail.lock().unwrap_or_else(PoisonError::into_inner).add(end);
        }
        self.has_spoken.store(true, Ordering::Release);
        // A look before the exchange, which is dear: most output is not waited for.
        if self.is_awaited.load(Ordering::Relaxed) && self.is_awaited.swap(false, Ordering::AcqRel) {
            self.tell();
        }
    }

    fn tell(&self) {
        // Fails only when it counts up to the greatest number, and is readable then.
        let _ = self.changed.write(1);
    }
}
