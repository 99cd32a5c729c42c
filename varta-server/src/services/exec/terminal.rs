//! A terminal of the command's own to print on, for `--beat output`: what is printed there is seen on its way to the
//! terminal of exec, and the command has a terminal all the same.
//!
//! The command stays in the session and the process group of exec, with the same controlling terminal, and reads what
//! is typed from that. So keys, signals, job control and passwords are as without exec, and exec changes no mode of
//! its terminal by itself: there is nothing to restore, however it ends. What remains is handed on: the size in one
//! direction, and modes that a program sets on its standard output, as those made with curses do, in the other.
//! What does not work is to read from standard output or standard error, on which nothing is typed.

use std::io::{self, PipeReader};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::pty::{PtyMaster, posix_openpt, unlockpt};
use nix::sys::stat::{Mode, fchmod};
use nix::sys::termios::{LocalFlags, OutputFlags, SetArg, Termios, tcgetattr, tcsetattr};
use nix::unistd::{read, write};

use crate::services::exec::sys;

/// The room for what is read at once, of which the kernel fills 4 kB.
const ROOM: usize = 16 * 1024;
/// How long a command that was stopped waits for what it has printed to be shown. One whose terminal was stopped by
/// Ctrl-S is not waited for longer.
const SHOWN_WITHIN: Duration = Duration::from_secs(1);
/// The interval at which that is looked at, beside being told.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// Where what a command prints is read.
#[derive(Debug)]
pub(super) enum Source {
    Pipe(PipeReader),
    Screen(Arc<Screen>),
}

/// A terminal on which a command prints, and that of exec, on which it is shown.
#[derive(Debug)]
pub(super) struct Screen {
    inner: PtyMaster,
    outer: OwnedFd,
    /// Whether a piece was taken out of the one and is not yet in the other.
    is_moving: Mutex<bool>,
    has_moved: Condvar,
}

impl Screen {
    /// Makes a terminal with the modes and the size of this one, and gives the command's end of it.
    ///
    /// # Errors
    ///
    /// There is none to be had, as without a devpts, or the given one is none or hung up.
    pub(super) fn open(outer: BorrowedFd<'_>) -> io::Result<(Arc<Self>, OwnedFd)> {
        let outer = outer.try_clone_to_owned()?;
        let inner = posix_openpt(OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC)?;
        unlockpt(&inner)?;
        // By the descriptor and not by its name, which may be another's in a mount namespace.
        let end = sys::other_end(inner.as_fd())?;
        let mut modes = tcgetattr(&outer)?;
        seal(&mut modes);
        tcsetattr(&end, SetArg::TCSANOW, &modes)?;
        sys::tell_of_modes(inner.as_fd())?;
        // Nothing is typed on it. `less` opens the terminal of its standard error by name to read there, and goes on with
        // the controlling one if it must not: all but root.
        let _ = fchmod(&end, Mode::S_IWUSR);
        let screen = Screen { inner, outer, is_moving: Mutex::default(), has_moved: Condvar::new() };
        screen.take_size()?;
        Ok((Arc::new(screen), end))
    }

    /// Shows all that is printed, until nobody can print any more, or `stop` is readable and nothing is left. `note`
    /// gets each piece.
    ///
    /// # Errors
    ///
    /// The terminal of exec is hung up.
    pub(super) fn run(&self, stop: BorrowedFd<'_>, mut note: impl FnMut(&[u8])) -> io::Result<()> {
        let mut room = vec![0; ROOM];
        let mut modes = tcgetattr(&self.inner)?;
        while self.wait(stop)? {
            *self.is_moving() = true;
            let moved = self.move_piece(&mut room, &mut modes, &mut note);
            *self.is_moving() = false;
            self.has_moved.notify_all();
            if !moved? {
                break;
            }
        }
        // The last modes are not told of when the terminal is closed behind them.
        if tcgetattr(&self.inner).is_ok_and(|last| last != modes) {
            self.hand_on_modes(&mut modes);
        }
        Ok(())
    }

    /// Waits for output; whether there is some, or the end.
    fn wait(&self, stop: BorrowedFd<'_>) -> io::Result<bool> {
        let mut asked =
            [PollFd::new(self.inner.as_fd(), PollFlags::POLLIN), PollFd::new(stop, PollFlags::POLLIN)];
        loop {
            match poll(&mut asked, PollTimeout::NONE) {
                Err(Errno::EINTR) => {}
                Err(error) => return Err(error.into()),
                Ok(_) => return Ok(asked[0].any() == Some(true)),
            }
        }
    }

    /// Whether the stream goes on.
    fn move_piece(
        &self,
        room: &mut [u8],
        modes: &mut Termios,
        note: &mut impl FnMut(&[u8]),
    ) -> io::Result<bool> {
        match read(&self.inner, room) {
            // The command and all its descendants have closed it.
            Ok(0) | Err(Errno::EIO) => return Ok(false),
            Err(Errno::EINTR | Errno::EAGAIN) => {}
            Err(error) => return Err(error.into()),
            Ok(length) => match room[..length].split_first() {
                Some((&sys::OUTPUT, piece)) => {
                    note(piece);
                    self.show(piece)?;
                }
                Some((told, _)) if told & sys::MODES != 0 => self.hand_on_modes(modes),
                // What was flushed or held up there says nothing here.
                Some(_) | None => {}
            },
        }
        Ok(true)
    }

    fn show(&self, mut piece: &[u8]) -> io::Result<()> {
        while !piece.is_empty() {
            match write(&self.outer, piece) {
                Err(Errno::EINTR) => {}
                // Whoever shares the terminal has made it one that does not wait.
                Err(Errno::EAGAIN) => {
                    let mut asked = [PollFd::new(self.outer.as_fd(), PollFlags::POLLOUT)];
                    match poll(&mut asked, PollTimeout::NONE) {
                        Ok(_) | Err(Errno::EINTR) => {}
                        Err(error) => return Err(error.into()),
                    }
                }
                written => piece = &piece[written?..],
            }
        }
        Ok(())
    }

    /// Gives the terminal of exec the modes that a program has set on its own. In the background this stops the job, as
    /// it does without exec. `last` becomes what they are.
    fn hand_on_modes(&self, last: &mut Termios) {
        let (Ok(mut inner), Ok(mut outer)) = (tcgetattr(&self.inner), tcgetattr(&self.outer)) else { return };
        let before = outer.clone();
        let (own_output, own_local) = (OutputFlags::OPOST, LocalFlags::EXTPROC);
        outer.input_flags = inner.input_flags;
        outer.output_flags = (inner.output_flags - own_output) | (before.output_flags & own_output);
        outer.local_flags = (inner.local_flags - own_local) | (before.local_flags & own_local);
        outer.control_chars = inner.control_chars;
        if outer != before {
            // One that is hung up refuses it.
            let _ = tcsetattr(&self.outer, SetArg::TCSANOW, &outer);
        }
        let set = inner.clone();
        seal(&mut inner);
        if inner != set {
            let _ = tcsetattr(&self.inner, SetArg::TCSANOW, &inner);
        }
        *last = inner;
    }

    /// Gives the command's terminal the size of that of exec; whether it had another.
    ///
    /// # Errors
    ///
    /// One of them is hung up.
    pub(super) fn take_size(&self) -> io::Result<bool> {
        let size = sys::window_size(self.outer.as_fd())?;
        if sys::window_size(self.inner.as_fd())? == size {
            return Ok(false);
        }
        sys::set_window_size(self.inner.as_fd(), size)?;
        Ok(true)
    }

    /// Waits until all that was printed is shown, [`SHOWN_WITHIN`] at most.
    pub(super) fn await_shown(&self) {
        let until = Instant::now() + SHOWN_WITHIN;
        let mut is_moving = self.is_moving();
        while (*is_moving || self.has_more()) && Instant::now() < until {
            let waited = self.has_moved.wait_timeout(is_moving, LOOK_AGAIN);
            is_moving = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn has_more(&self) -> bool {
        let mut asked = [PollFd::new(self.inner.as_fd(), PollFlags::POLLIN)];
        poll(&mut asked, PollTimeout::ZERO).is_ok_and(|ready| ready > 0)
    }

    fn is_moving(&self) -> MutexGuard<'_, bool> {
        // A flag is always whole.
        self.is_moving.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Leaves what is printed as it is, which the terminal of exec processes, and has the kernel tell of all modes that are
/// set.
fn seal(modes: &mut Termios) {
    modes.output_flags.remove(OutputFlags::OPOST);
    modes.local_flags.insert(LocalFlags::EXTPROC);
}
