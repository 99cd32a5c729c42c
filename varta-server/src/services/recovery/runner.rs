//! Runs a command in bounded time and without leftovers: in its own process group, with a given environment,
//! no input, and an output that is drained and truncated.
//!
//! Processes that the command started end with it, unless they have left its group. The leader is reaped
//! after the group is empty: until then the kernel does not reuse the number of the group, so no signal can
//! reach a stranger.

use std::collections::VecDeque;
use std::io::{self, PipeReader, PipeWriter, Read};
use std::os::fd::AsFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use crate::base::children::{self, OwnChild};
use crate::observe::{Pidfd, members_of_group};

/// The bytes kept of a command's output, from its beginning and again from its end.
pub(super) const KEPT: usize = 2_048;
/// The time from SIGTERM to SIGKILL on shutdown.
const TERM_TO_KILL_AT_THE_END: Duration = Duration::from_secs(1);
/// The longest time that a command may continue on shutdown.
const LEFT_AT_THE_END: Duration = Duration::from_secs(2);
/// The longest wait for killed processes to end: one in uninterruptible sleep does not.
const GONE_WITHIN: Duration = Duration::from_secs(2);
/// The interval of checks for remaining group members and, without a pidfd, for the leader.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// A command to run.
#[derive(Debug)]
pub(super) struct Program {
    /// The path, which contains a slash.
    pub(super) path: std::path::PathBuf,
    pub(super) arguments: Vec<String>,
    /// The whole environment.
    pub(super) environment: Vec<(String, String)>,
    pub(super) timeout: Duration,
    /// The time from SIGTERM to SIGKILL.
    pub(super) term_to_kill: Duration,
}

impl Program {
    /// The default of `term_to_kill`.
    pub(super) const TERM_TO_KILL: Duration = Duration::from_secs(5);
}

/// The result of a command.
#[derive(Debug)]
pub(super) struct CommandResult {
    pub(super) end: CommandEnd,
    pub(super) lasted: Duration,
    pub(super) output: Output,
    /// The number of processes that it left in its group, which were killed.
    pub(super) killed: usize,
}

/// The end of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CommandEnd {
    Exited(i32),
    Signalled(i32),
    /// It timed out, or the server was shut down, and it was ended by a signal.
    TimedOut,
    /// SIGKILL had no effect. The process is abandoned.
    Unkillable,
}

/// The standard output and error of a command, interleaved as written.
#[derive(Debug, Default)]
pub(super) struct Output {
    first: Vec<u8>,
    last: VecDeque<u8>,
    /// The number of bytes written.
    pub(super) length: u64,
}

impl Output {
    fn add(&mut self, bytes: &[u8]) {
        self.length += bytes.len() as u64;
        let (first, rest) = bytes.split_at(bytes.len().min(KEPT - self.first.len()));
        self.first.extend_from_slice(first);
        let rest = &rest[rest.len().saturating_sub(KEPT)..];
        let too_many = (self.last.len() + rest.len()).saturating_sub(KEPT);
        self.last.drain(..too_many);
        self.last.extend(rest);
    }

    /// The kept output as text; the omitted middle is replaced by its length.
    pub(super) fn text(&self) -> String {
        let last: Vec<u8> = self.last.iter().copied().collect();
        let kept = (self.first.len() + last.len()) as u64;
        let mut text = String::from_utf8_lossy(&self.first).into_owned();
        if self.length > kept {
            text.push_str(&format!("\n[{} bytes left out]\n", self.length - kept));
        }
        text + &String::from_utf8_lossy(&last)
    }
}

/// Its drop ends the running commands.
#[derive(Debug)]
pub(super) struct ShutdownGuard {
    _open: PipeWriter,
}

/// The signal to a running command that its [`ShutdownGuard`] was dropped.
#[derive(Debug)]
pub(super) struct ShutdownSignal(PipeReader);

impl ShutdownGuard {
    pub(super) fn new() -> io::Result<(Self, ShutdownSignal)> {
        let (kept, keeper) = io::pipe()?;
        Ok((ShutdownGuard { _open: keeper }, ShutdownSignal(kept)))
    }
}

impl ShutdownSignal {
    pub(super) fn try_clone(&self) -> io::Result<Self> {
        self.0.try_clone().map(ShutdownSignal)
    }
}

/// Runs a program to its end, and blocks the thread for that bounded time.
///
/// # Errors
///
/// The program cannot be started.
pub(super) fn run(program: &Program, kept: &ShutdownSignal) -> io::Result<CommandResult> {
    let began = Instant::now();
    let (output, writer) = io::pipe()?;
    let flags = fcntl(&output, FcntlArg::F_GETFL)?;
    fcntl(&output, FcntlArg::F_SETFL(OFlag::from_bits_truncate(flags) | OFlag::O_NONBLOCK))?;
    let mut command = Command::new(&program.path);
    command
        .args(&program.arguments)
        .env_clear()
        .envs(program.environment.iter().map(|(key, value)| (key, value)))
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(writer.try_clone()?)
        .stderr(writer)
        .process_group(0);
    let child = children::spawn(&mut command)?;
    // With it the ends of the pipe that are the child's.
    drop(command);
    let group = Group { pidfd: Pidfd::open(child.id()), child };
    let mut running = Running { group, output: Some(output), captured: Output::default() };
    let (end, killed) = running.see_through(program, kept);
    Ok(CommandResult { end, killed, lasted: began.elapsed(), output: running.captured })
}

/// A command's process and its descendants in the group.
struct Group {
    child: OwnChild,
    /// Of the leader. Without one, as descriptors are short, the leader is polled.
    pidfd: io::Result<Pidfd>,
}

impl Group {
    fn signal(&self, signal: Signal) {
        let Ok(group) = i32::try_from(self.child.id()) else { return };
        // Fails if the group is empty or out of reach; remaining members are counted afterwards.
        let _ = killpg(Pid::from_raw(group), signal);
    }

    /// Whether the leader has ended. It is not reaped.
    fn leader_has_ended(&self) -> bool {
        match &self.pidfd {
            Ok(pidfd) => pidfd.has_ended(),
            Err(_) => !members_of_group(self.child.id()).contains(&self.child.id()),
        }
    }

    /// The number of group members without the leader.
    fn others(&self) -> usize {
        members_of_group(self.child.id()).into_iter().filter(|pid| *pid != self.child.id()).count()
    }
}

struct Running {
    group: Group,
    /// `None` once all writers have closed it.
    output: Option<PipeReader>,
    captured: Output,
}

impl Running {
    /// Waits for the leader, ends the rest of the group, and returns the leader's end and how many were
    /// killed with it.
    fn see_through(&mut self, program: &Program, kept: &ShutdownSignal) -> (CommandEnd, usize) {
        let mut until = Instant::now() + program.timeout;
        let mut is_at_the_end = false;
        let mut was_told = None;
        while !self.group.leader_has_ended() {
            let now = Instant::now();
            if !is_at_the_end && self.wait(until.saturating_duration_since(now), Some(kept)) {
                is_at_the_end = true;
                until = until.min(now + LEFT_AT_THE_END);
            } else if is_at_the_end {
                self.wait(until.saturating_duration_since(now), None);
            }
            if Instant::now() < until || self.group.leader_has_ended() {
                continue;
            }
            let next = match was_told {
                None => Signal::SIGTERM,
                Some(Signal::SIGTERM) => Signal::SIGKILL,
                Some(_) => return (CommandEnd::Unkillable, 0),
            };
            self.group.signal(next);
            was_told = Some(next);
            until = Instant::now()
                + match next {
                    Signal::SIGTERM => kill_timeout(program, is_at_the_end),
                    _ => GONE_WITHIN,
                };
        }
        let killed = self.end_others(program, if is_at_the_end { None } else { Some(kept) });
        self.drain();
        let end = match self.group.child.wait() {
            _ if was_told.is_some() => CommandEnd::TimedOut,
            Ok(status) => end_of(status),
            Err(_) => CommandEnd::Unkillable,
        };
        (end, killed)
    }

    /// Ends the processes that the leader has left, and returns their number.
    fn end_others(&mut self, program: &Program, mut kept: Option<&ShutdownSignal>) -> usize {
        let others = self.group.others();
        if others == 0 {
            return 0;
        }
        for signal in [Signal::SIGTERM, Signal::SIGKILL] {
            self.group.signal(signal);
            let told_at = Instant::now();
            let is_over = |kept: Option<&ShutdownSignal>| {
                let may_take = if signal == Signal::SIGTERM {
                    kill_timeout(program, kept.is_none())
                } else {
                    GONE_WITHIN
                };
                told_at.elapsed() >= may_take
            };
            while !is_over(kept) {
                if self.wait(LOOK_AGAIN, kept) {
                    kept = None;
                }
                if self.group.others() == 0 {
                    return others;
                }
            }
        }
        others
    }

    /// Waits for output, the end of the leader or the timeout, and drains the output. Returns whether the
    /// server is shutting down.
    fn wait(&mut self, timeout: Duration, kept: Option<&ShutdownSignal>) -> bool {
        let mut watched = Vec::with_capacity(3);
        if let Ok(pidfd) = &self.group.pidfd {
            // The pidfd of an ended leader is always readable and would turn the wait into a busy loop.
            if !pidfd.has_ended() {
                watched.push(PollFd::new(pidfd.as_fd(), PollFlags::POLLIN));
            }
        }
        if let Some(output) = &self.output {
            watched.push(PollFd::new(output.as_fd(), PollFlags::POLLIN));
        }
        let is_waited_for_by_pidfd = self.group.pidfd.is_ok();
        if let Some(kept) = kept {
            watched.push(PollFd::new(kept.0.as_fd(), PollFlags::empty()));
        }
        let timeout = if is_waited_for_by_pidfd { timeout } else { timeout.min(LOOK_AGAIN) };
        // Rounded up, as a poll that ends too early is wasted.
        let millis = timeout.as_millis().saturating_add(u128::from(timeout.subsec_nanos() % 1_000_000 > 0));
        let timeout = PollTimeout::try_from(millis).unwrap_or(PollTimeout::MAX);
        match poll(&mut watched, timeout) {
            Ok(_) | Err(Errno::EINTR) => {}
            // Without a working poll the state is checked periodically.
            Err(_) => std::thread::sleep(LOOK_AGAIN),
        }
        let is_at_the_end = kept.is_some()
            && watched
                .last()
                .and_then(PollFd::revents)
                .is_some_and(|events| events.intersects(PollFlags::POLLHUP | PollFlags::POLLERR));
        self.drain();
        is_at_the_end
    }

    /// Reads the available output, up to a bound that a fast writer cannot extend.
    fn drain(&mut self) {
        const MAX_AT_ONCE: usize = 64;
        let mut room = [0; 16 * 1024];
        for _ in 0..MAX_AT_ONCE {
            let Some(output) = &mut self.output else { return };
            match output.read(&mut room) {
                Ok(0) => self.output = None,
                Ok(length) => self.captured.add(&room[..length]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(_) => self.output = None,
            }
        }
    }
}

/// The time from SIGTERM to SIGKILL.
fn kill_timeout(program: &Program, is_at_the_end: bool) -> Duration {
    if is_at_the_end { program.term_to_kill.min(TERM_TO_KILL_AT_THE_END) } else { program.term_to_kill }
}

fn end_of(status: ExitStatus) -> CommandEnd {
    match (status.code(), status.signal()) {
        (Some(code), _) => CommandEnd::Exited(code),
        (None, Some(signal)) => CommandEnd::Signalled(signal),
        (None, None) => CommandEnd::Unkillable,
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;
    use crate::observe::testing::await_that;

    fn shell(script: &str, timeout: Duration) -> Program {
        Program {
            path: "/bin/sh".into(),
            arguments: vec!["-c".to_owned(), script.to_owned()],
            environment: vec![("PATH".to_owned(), "/usr/bin:/bin".to_owned())],
            timeout,
            term_to_kill: Duration::from_millis(200),
        }
    }

    fn ran(script: &str, timeout: Duration) -> CommandResult {
        let (_keeper, kept) = ShutdownGuard::new().unwrap();
        run(&shell(script, timeout), &kept).unwrap()
    }

    const LONG: Duration = Duration::from_secs(60);
    const SHORT: Duration = Duration::from_millis(50);

    #[test]
    fn its_end_and_its_words_are_told() {
        let ran = ran("echo one; echo two >&2; exit 3", LONG);
        assert_eq!((ran.end, ran.killed), (CommandEnd::Exited(3), 0));
        assert_eq!(ran.output.text(), "one\ntwo\n");
        assert_eq!(self::ran("kill -SEGV $$", LONG).end, CommandEnd::Signalled(11));
    }

    #[test]
    fn it_has_nothing_to_read_and_the_environment_that_it_is_given() {
        let ran =
            ran("read line; echo \"status $?\"; env | sort; pwd; ps -o pgid= $$ | tr -d ' '; echo $$", LONG);
        let text = ran.output.text();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "status 1");
        // A shell adds variables of its own.
        assert!(lines.contains(&"PATH=/usr/bin:/bin") && !text.contains("CARGO"), "{text}");
        assert!(lines.contains(&"/"), "{text}");
        assert_eq!(lines[lines.len() - 2], lines[lines.len() - 1], "it leads its own group");
    }

    #[test]
    fn of_very_much_output_the_ends_are_kept_and_nothing_hangs() {
        let ran = ran("echo begin; head -c 100000000 /dev/zero | tr '\\0' x; echo; echo end", LONG);
        assert_eq!(ran.end, CommandEnd::Exited(0));
        assert_eq!(ran.output.length, 100_000_011);
        let text = ran.output.text();
        assert!(text.starts_with("begin\nxxx") && text.ends_with("xxx\nend\n"));
        assert!(text.contains("bytes left out") && text.len() < 3 * KEPT, "{}", text.len());
    }

    #[test]
    fn one_that_never_ends_is_told_to_and_one_that_does_not_listen_is_killed() {
        let obeys = ran("sleep 1000", SHORT);
        assert_eq!(obeys.end, CommandEnd::TimedOut);
        let deaf = ran("trap '' TERM; echo $$; while :; do sleep 1000; done", SHORT);
        assert_eq!(deaf.end, CommandEnd::TimedOut);
        assert!(deaf.lasted >= SHORT + Duration::from_millis(200));
        let group: u32 = deaf.output.text().trim().parse().unwrap();
        await_that("nobody is left", || members_of_group(group).is_empty());
    }

    #[test]
    fn whom_it_has_started_ends_with_it_also_who_does_not_listen() {
        let script = "(trap '' TERM; sleep 1000; sleep 1000) & sleep 1000 & echo $$";
        let ran = ran(script, LONG);
        assert_eq!(ran.end, CommandEnd::Exited(0));
        assert!(ran.killed >= 2, "{}", ran.killed);
        let group: u32 = ran.output.text().trim().parse().unwrap();
        assert!(members_of_group(group).is_empty());
    }

    #[test]
    fn when_the_server_ends_so_does_it() {
        let (keeper, kept) = ShutdownGuard::new().unwrap();
        let program = shell("trap '' TERM; sleep 1000; sleep 1000", LONG);
        let running = thread::spawn(move || run(&program, &kept).unwrap());
        drop(keeper);
        let ran = running.join().unwrap();
        assert_eq!(ran.end, CommandEnd::TimedOut);
        assert!(ran.lasted < LONG);
    }

    #[test]
    fn what_cannot_be_started_is_an_error() {
        let (_keeper, kept) = ShutdownGuard::new().unwrap();
        let program = Program { path: "/nowhere/at/all".into(), ..shell("", LONG) };
        assert_eq!(run(&program, &kept).unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
