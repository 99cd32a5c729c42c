//! Moves what a command prints from its pipe to where it belongs, without copying where the kernel can.
//!
//! The last bytes are kept on the way. What has enough behind it in the pipe is moved unseen, as it cannot be among the
//! last. The rest is duplicated into a second pipe with tee(2), which moves no data either, and read there.

use std::io::{self, PipeReader, PipeWriter, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, SpliceFFlags, fcntl, splice, tee};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::{read, write};

use crate::services::exec::sys::bytes_in;
use crate::services::exec::tail::KEPT;

/// The most bytes of a piece: more than a pipe holds.
const PIECE: usize = 1 << 20;
/// What the pipe of a command may hold, so that it is switched to less often.
const CAPACITY: libc::c_int = 256 * 1024;
/// The room for what is read and not moved.
const ROOM: usize = 64 * 1024;

/// One stream of output.
#[derive(Debug)]
pub(super) struct Mover {
    from: PipeReader,
    to: OwnedFd,
    /// The pipe into which pieces are duplicated, if their ends are kept.
    copy: Option<(PipeReader, PipeWriter)>,
    buffer: Vec<u8>,
    /// Some files cannot be moved to, such as those that are only appended to.
    can_move: bool,
}

impl Mover {
    /// # Errors
    ///
    /// There is no descriptor left.
    pub(super) fn new(from: PipeReader, to: OwnedFd, keeps: bool) -> io::Result<Self> {
        let copy = keeps.then(io::pipe).transpose()?;
        // Where the kernel gives this user no more, it is smaller.
        let _ = fcntl(&from, FcntlArg::F_SETPIPE_SZ(CAPACITY));
        Ok(Mover { from, to, copy, buffer: vec![0; ROOM], can_move: true })
    }

    /// Moves all that comes, until nobody can write any more, or `stop` is readable and nothing is left. `note` gets
    /// the end of each piece, which is empty where none is kept.
    ///
    /// # Errors
    ///
    /// The other side has closed the stream, or cannot take more. The command gets that error with its next write, as
    /// the pipe is closed.
    pub(super) fn run(mut self, stop: BorrowedFd<'_>, mut note: impl FnMut(&[u8])) -> io::Result<()> {
        while self.has_more() || self.wait(stop)? {
            let is_open =
                if self.can_move { self.move_piece(&mut note)? } else { self.copy_piece(&mut note)? };
            if !is_open {
                break;
            }
        }
        Ok(())
    }

    /// Whether more is there already, so that nothing has to be waited for.
    fn has_more(&self) -> bool {
        bytes_in(self.from.as_fd()).is_ok_and(|length| length > 0)
    }

    /// Waits for output; whether there is some, or the end.
    fn wait(&self, stop: BorrowedFd<'_>) -> io::Result<bool> {
        let mut asked =
            [PollFd::new(self.from.as_fd(), PollFlags::POLLIN), PollFd::new(stop, PollFlags::POLLIN)];
        loop {
            match poll(&mut asked, PollTimeout::NONE) {
                Err(Errno::EINTR) => {}
                Err(error) => return Err(error.into()),
                Ok(_) => return Ok(asked[0].any() == Some(true)),
            }
        }
    }

    /// Whether the stream goes on.
    fn move_piece(&mut self, note: &mut impl FnMut(&[u8])) -> io::Result<bool> {
        let Some((copied, copy)) = &mut self.copy else {
            let moved = match splice(&self.from, None, &self.to, None, PIECE, SpliceFFlags::empty()) {
                Err(error) => return self.is_no_end(error),
                Ok(moved) => moved,
            };
            note(&[]);
            return Ok(moved > 0);
        };
        let unseen = bytes_in(self.from.as_fd())?.saturating_sub(KEPT);
        if unseen > 0 {
            match splice(&self.from, None, &self.to, None, unseen, SpliceFFlags::empty()) {
                Ok(_) => note(&[]),
                Err(error) => return self.is_no_end(error),
            }
            return Ok(true);
        }
        let length = match tee(&self.from, copy, KEPT, SpliceFFlags::SPLICE_F_NONBLOCK) {
            Err(Errno::EAGAIN | Errno::EINTR) => return Ok(true),
            other => other?,
        };
        if length == 0 {
            return Ok(false);
        }
        let end = &mut self.buffer[..length];
        copied.read_exact(end)?;
        note(end);
        let mut left = length;
        while left > 0 {
            match splice(&self.from, None, &self.to, None, left, SpliceFFlags::empty()) {
                Ok(moved) => left -= moved,
                Err(error) => {
                    self.is_no_end(error)?;
                    if !self.can_move {
                        return self.copy_exactly(left);
                    }
                }
            }
        }
        Ok(true)
    }

    /// After a splice that failed: whether it can go on, in another way or later.
    fn is_no_end(&mut self, error: Errno) -> io::Result<bool> {
        match error {
            Errno::EINTR => Ok(true),
            // Whoever shares the file has made it one that does not wait.
            Errno::EAGAIN => self.wait_for_room().map(|()| true),
            Errno::EINVAL => {
                self.can_move = false;
                Ok(true)
            }
            _ => Err(error.into()),
        }
    }

    fn copy_piece(&mut self, note: &mut impl FnMut(&[u8])) -> io::Result<bool> {
        let length = match read(&self.from, &mut self.buffer) {
            Err(Errno::EINTR) => return Ok(true),
            other => other?,
        };
        note(if self.copy.is_some() { &self.buffer[..length] } else { &[] });
        self.write_all(length)?;
        Ok(length > 0)
    }

    /// Copies the bytes of a piece that have been noted.
    fn copy_exactly(&mut self, mut left: usize) -> io::Result<bool> {
        while left > 0 {
            let most = left.min(self.buffer.len());
            let length = self.from.read(&mut self.buffer[..most])?;
            self.write_all(length)?;
            left -= length;
        }
        Ok(true)
    }

    fn write_all(&self, length: usize) -> io::Result<()> {
        let mut rest = &self.buffer[..length];
        while !rest.is_empty() {
            match write(&self.to, rest) {
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => self.wait_for_room()?,
                written => rest = &rest[written?..],
            }
        }
        Ok(())
    }

    fn wait_for_room(&self) -> io::Result<()> {
        let mut asked = [PollFd::new(self.to.as_fd(), PollFlags::POLLOUT)];
        match poll(&mut asked, PollTimeout::NONE) {
            Ok(_) | Err(Errno::EINTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::io::Write;
    use std::thread;

    use nix::sys::eventfd::EventFd;

    use super::*;
    use crate::services::exec::tail::Tail;

    /// Moves what is written by `print` to a file, and gives its content and the last bytes that were noted.
    fn moved(to: File, keeps: bool, print: impl FnOnce(PipeWriter) + Send + 'static) -> Option<String> {
        let (from, writer) = io::pipe().unwrap();
        let printing = thread::spawn(move || print(writer));
        let stop = EventFd::new().unwrap();
        let mut tail = Tail::default();
        let mover = Mover::new(from, to.into(), keeps).unwrap();
        mover.run(stop.as_fd(), |end| tail.add(end)).unwrap();
        printing.join().unwrap();
        tail.last_line()
    }

    fn numbers(mut writer: PipeWriter) {
        for number in 0..40_000 {
            writeln!(writer, "{number}").unwrap();
        }
    }

    #[test]
    fn all_arrives_unchanged_whether_the_file_can_be_moved_to_or_only_appended() {
        let directory = tempfile::tempdir().unwrap();
        let expected: String = (0..40_000).map(|number| format!("{number}\n")).collect();
        for (index, (appends, keeps)) in
            [(false, false), (false, true), (true, false), (true, true)].iter().enumerate()
        {
            let path = directory.path().join(index.to_string());
            let mut options = File::options();
            let file = options.create(true).append(*appends).write(!*appends).open(&path).unwrap();
            let last = moved(file, *keeps, numbers);
            assert_eq!(last.as_deref(), keeps.then_some("39999"));
            assert!(fs::read_to_string(&path).unwrap() == expected, "{appends} {keeps}");
        }
    }

    #[test]
    fn the_last_bytes_are_kept_whatever_is_moved_unseen_before_them() {
        for length in [1, KEPT - 1, KEPT, KEPT + 1, 3 * KEPT, CAPACITY as usize, 40 * KEPT + 7] {
            let bytes: Vec<u8> = (0..=250).cycle().take(length).collect();
            let (from, mut writer) = io::pipe().unwrap();
            let printed = bytes.clone();
            let printing = thread::spawn(move || writer.write_all(&printed));
            let stop = EventFd::new().unwrap();
            let mut kept = Vec::new();
            let to = tempfile::tempfile().unwrap();
            let mover = Mover::new(from, to.into(), true).unwrap();
            mover.run(stop.as_fd(), |end| kept.extend_from_slice(end)).unwrap();
            printing.join().unwrap().unwrap();
            let end = length.min(KEPT);
            assert!(kept.len() >= end && kept[kept.len() - end..] == bytes[length - end..], "{length}");
        }
    }

    #[test]
    fn who_is_told_to_stop_moves_what_is_there_and_does_not_wait_for_the_end() {
        let (from, mut writer) = io::pipe().unwrap();
        writer.write_all(b"last words").unwrap();
        let (mut read_end, to) = io::pipe().unwrap();
        let stop = EventFd::from_value(1).unwrap();
        Mover::new(from, to.into(), true).unwrap().run(stop.as_fd(), |_| {}).unwrap();
        let mut text = String::new();
        read_end.read_to_string(&mut text).unwrap();
        assert_eq!(text, "last words");
        drop(writer);
    }

    #[test]
    fn a_reader_that_has_gone_closes_the_pipe_of_the_command() {
        let (from, mut writer) = io::pipe().unwrap();
        let (read_end, to) = io::pipe().unwrap();
        drop(read_end);
        writer.write_all(b"nobody reads this").unwrap();
        let stop = EventFd::new().unwrap();
        let error = Mover::new(from, to.into(), true).unwrap().run(stop.as_fd(), |_| {}).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
        assert_eq!(writer.write_all(b"nor this").unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }

    #[test]
    fn a_file_that_does_not_wait_is_waited_for() {
        let (from, writer) = io::pipe().unwrap();
        let printing = thread::spawn(move || numbers(writer));
        let (mut read_end, to) = io::pipe().unwrap();
        let flags = nix::fcntl::OFlag::O_NONBLOCK;
        nix::fcntl::fcntl(&to, nix::fcntl::FcntlArg::F_SETFL(flags)).unwrap();
        let moving = thread::spawn(move || {
            let stop = EventFd::new().unwrap();
            Mover::new(from, to.into(), true).unwrap().run(stop.as_fd(), |_| {})
        });
        let mut text = String::new();
        read_end.read_to_string(&mut text).unwrap();
        assert_eq!(text.lines().count(), 40_000);
        printing.join().unwrap();
        moving.join().unwrap().unwrap();
    }
}
