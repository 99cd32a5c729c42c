//! The loop of `exec`: waits for signals, output, checks and times, and decides.

use std::collections::HashSet;
use std::ops::ControlFlow;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use varta_agent::Status;
use varta_proto::control::Report;

use crate::base::backoff::{Backoff, MAX_DELAY};
use crate::base::children::{JobChange, OwnChild, reap_adopted};
use crate::services::exec::agent::Agent;
use crate::services::exec::check::{Check, CheckResult};
use crate::services::exec::leftovers::{Leftovers, Progress};
use crate::services::exec::notify::NotifySocket;
use crate::services::exec::options::{ExecOptions, RestartPolicy};
use crate::services::exec::outcome::{Ending, OWN_FAILURE, start_failure};
use crate::services::exec::output::{Output, close_stdin};
use crate::services::exec::process::{StartError, start};
use crate::services::exec::signals::{EndSignals, Received, Signals, is_job_of_shell, leads_session};
use crate::services::exec::sources::{Source, Sources};
use crate::services::exec::sys;

mod messages;

/// The pause where the kernel cannot wait.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// Everything but the command.
pub(super) struct Supervisor {
    pub(super) options: ExecOptions,
    pub(super) agent: Agent,
    pub(super) signals: Signals,
    pub(super) output: Output,
    pub(super) notify: Option<NotifySocket>,
    /// When it was said last that messages were passed over.
    pub(super) told_of_strangers: Option<Instant>,
    /// Descendants that are not the command's.
    pub(super) strangers: HashSet<u32>,
    /// The signals that asked the command to end.
    pub(super) ending_signals: EndSignals,
    /// Whether it is not started again.
    pub(super) is_ending: bool,
    pub(super) backoff: Backoff,
}

/// The command while it runs.
struct Run {
    child: OwnChild,
    sources: Sources,
    check: Option<Check>,
    /// When the first keep-alive by sd_notify has to have come, until one has.
    ready_by: Option<Instant>,
    is_ready: bool,
    status: Status,
}

/// How it ended.
#[derive(Clone, Copy, Debug)]
pub(super) struct End {
    pub(super) ending: Ending,
    pub(super) is_success: bool,
}

/// The end of exec, or another run: after a delay, in which the status is told.
type Next = ControlFlow<End, (Duration, Status)>;

impl Supervisor {
    /// Runs the command as often as the options say.
    pub(super) fn run(&mut self) -> End {
        let mut is_first = true;
        loop {
            self.drop_messages();
            let started = Instant::now();
            let next =
                match start(&self.options, &mut self.output, self.notify.as_ref(), self.signals.inherited) {
                    Ok(child) => {
                        let ending = self.see_through(child, started);
                        self.end_leftovers();
                        self.flush_output();
                        self.handle_end(ending, started.elapsed())
                    }
                    Err(error) => self.handle_start_error(&error, is_first),
                };
            is_first = false;
            match next {
                ControlFlow::Break(end) => return end,
                ControlFlow::Continue((delay, status)) => {
                    if let ControlFlow::Break(end) = self.wait_to_restart(delay, status) {
                        return end;
                    }
                }
            }
            self.agent.count_restart();
        }
    }

    /// Beats for the command until it ends.
    fn see_through(&mut self, child: OwnChild, now: Instant) -> Ending {
        let mut run = self.watch(child, now);
        if self.options.restart == RestartPolicy::No {
            close_stdin();
        }
        // An earlier run may have set another.
        self.agent.set_deadline(self.options.every, self.options.stall_after, Status::Ok);
        self.agent.set_command(Some(run.child.id()));
        // It is the first sign of life, from which on the sources have to speak.
        self.agent.beat(Status::Ok);
        if let Some(ready_within) = self.options.ready_within {
            self.agent.busy_for(ready_within);
        }
        loop {
            self.handle_messages(&mut run);
            self.handle_times(&mut run, Instant::now());
            let check = run.check.as_ref().and_then(Check::poll_timeout);
            let timeouts = [run.sources.poll_timeout(), check, run.ready_by];
            self.wait(timeouts.into_iter().flatten().min());
            if self.options.restart == RestartPolicy::No {
                self.output.close_stdout_if_ended();
            }
            while let Some(signal) = self.signals.next() {
                if signal.number != libc::SIGCHLD {
                    self.handle_signal(signal, &run.child);
                } else if let Some(ending) = self.handle_child(&mut run) {
                    self.agent.set_command(None);
                    return ending;
                }
            }
        }
    }

    fn watch(&self, child: OwnChild, now: Instant) -> Run {
        let ExecOptions { has_alive, has_output, check, ready_within, every, .. } = &self.options;
        let named = [
            (*has_alive, Source::Alive),
            (*has_output, Source::Output),
            (check.is_some(), Source::Check),
            (ready_within.is_some(), Source::Notify),
        ];
        let named: Vec<_> =
            named.into_iter().filter_map(|(is_named, source)| is_named.then_some(source)).collect();
        let check = check.clone().map(|words| Check::new(words, *every, self.signals.inherited, now));
        let ready_by = ready_within.map(|within| now + within);
        let sources = Sources::new(&named, *every, now);
        Run { child, sources, check, ready_by, is_ready: false, status: Status::Ok }
    }

    /// Does what is due: a check, a beat.
    fn handle_times(&mut self, run: &mut Run, now: Instant) {
        if let Some(result) = run.check.as_mut().and_then(|check| check.handle_timeout(now)) {
            self.handle_check(run, result, now);
        }
        if run.ready_by.take_if(|by| *by <= now).is_some() {
            self.handle_silence(run);
        }
        if run.sources.lacks(Source::Output) && self.output.take_sign() {
            run.sources.handle_sign(Source::Output);
        }
        if run.sources.take_beat(now) {
            self.agent.beat(run.status);
            if self.options.has_output {
                // What was printed before this beat is in it. The next output is awaited.
                self.output.take_sign();
            }
        }
    }

    /// A check has said something. That the command is not well is told at once, and so is the end of that.
    fn handle_check(&mut self, run: &mut Run, result: CheckResult, now: Instant) {
        let was_well = run.status == Status::Ok;
        match result {
            CheckResult::Well => {
                run.status = Status::Ok;
                run.sources.handle_sign(Source::Check);
                if !was_well {
                    run.sources.make_due(now);
                    self.agent.say("its check has ended well again");
                }
            }
            CheckResult::Unwell(fault) => {
                run.status = Status::Critical;
                run.sources.revoke(Source::Check);
                run.sources.revoke(Source::Notify);
                self.agent.beat(Status::Critical);
                if was_well {
                    self.agent.say(&format!("is critical: {fault}"));
                }
            }
        }
    }

    fn handle_signal(&mut self, signal: Received, child: &OwnChild) {
        if signal.asks_to_end() {
            self.ending_signals.insert(signal.number);
            self.is_ending |= signal.ends_restarts();
        }
        if [libc::SIGWINCH, libc::SIGCONT].contains(&signal.number) && self.output.take_size() {
            // Who has got the signal of the terminal may have asked for the size before this.
            sys::tell_group(libc::SIGWINCH);
        }
        if signal.is_passed_on(leads_session())
            && let Err(error) = child.send_signal(signal.number)
        {
            let number = signal.number;
            self.agent.say(&format!("does not get signal {number}, which cannot be passed on: {error}"));
        }
    }

    /// A child has changed its state: the command, a check, or a process that the command left. Gives the end of the
    /// command.
    fn handle_child(&mut self, run: &mut Run) -> Option<Ending> {
        match run.child.take_job_change() {
            Some(JobChange::Stopped) => {
                run.sources.set_stopped(true);
                if is_job_of_shell() {
                    // What the command has left on the screen comes before what the shell prints there.
                    self.output.await_shown();
                    if let Err(error) = sys::stop_self() {
                        self.agent.say(&format!("is stopped, and exec cannot stop with it: {error}"));
                    }
                }
            }
            Some(JobChange::Continued) => run.sources.set_stopped(false),
            None => {}
        }
        if let Ok(Some(status)) = run.child.try_wait() {
            return Some(Ending::of(status));
        }
        if let Some(result) = run.check.as_mut().and_then(Check::handle_child) {
            self.handle_check(run, result, Instant::now());
        }
        reap_adopted();
        None
    }

    /// Ends the processes that the command has left. Another request to end has them killed at once.
    fn end_leftovers(&mut self) {
        let mut leftovers = Leftovers::new(Instant::now(), self.options.kill_after);
        loop {
            match leftovers.step(Instant::now(), &self.strangers) {
                Progress::Waiting => {}
                Progress::Done => break,
                Progress::GivenUp(left) => {
                    self.agent.say(&format!("has left {left} that do not end by SIGKILL either"));
                    break;
                }
            }
            self.wait(Some(leftovers.poll_timeout()));
            if self.take_request_to_end().is_some() {
                leftovers.hurry(Instant::now());
            }
        }
        if let Some(told) = leftovers.told() {
            let text = format!(
                "has left {told} behind, now ended; a command that is watched must not go to the background"
            );
            self.agent.say(&text);
        }
    }

    /// Moves what the command has printed. A request to end has the rest thrown away, which nobody reads.
    fn flush_output(&mut self) {
        self.output.end();
        while !self.output.has_ended() {
            self.wait(None);
            if self.take_request_to_end().is_some() {
                return;
            }
        }
    }

    /// The command has ended, and nothing is left of it.
    fn handle_end(&mut self, ending: Ending, lasted: Duration) -> Next {
        let is_success = ending.is_success(&self.options.success_exit_codes, self.ending_signals);
        if lasted >= MAX_DELAY {
            self.backoff.reset();
        }
        let goes_on = match self.options.restart {
            _ if self.is_ending => false,
            RestartPolicy::No => false,
            RestartPolicy::OnFailure => !is_success,
            RestartPolicy::Always => true,
        };
        if !is_success && let Some(words) = self.output.last_words(Report::MAX_SAID_LEN) {
            self.agent.tell(&words);
        }
        let last_line = self.output.last_line().filter(|_| !is_success);
        let last_line = last_line.map(|line| format!("; its last line: {line}")).unwrap_or_default();
        let told = format!("{ending} after {}", humantime::format_duration(in_millis(lasted)));
        if goes_on {
            let status = if is_success { Status::Ok } else { Status::Critical };
            let delay = self.backoff.next_delay();
            self.agent.say(&format!("{told}, and is started again in {delay:?}{last_line}"));
            return Next::Continue((delay, status));
        }
        if !is_success {
            self.agent.say_last(&format!("{told}{last_line}"));
        }
        Next::Break(End { ending, is_success })
    }

    /// The command was not started. What cannot be run at first will not be later; one that ran may be about to be
    /// replaced.
    fn handle_start_error(&mut self, error: &StartError, is_first: bool) -> Next {
        let program = self.options.program.display();
        let status = match error {
            StartError::Program(error) => {
                self.agent.say(&format!("cannot be started: {program}: {error}"));
                start_failure(error)
            }
            StartError::Own(error) => {
                self.agent
                    .say(&format!("cannot be started: no pipe, terminal or thread for its output: {error}"));
                OWN_FAILURE
            }
        };
        if is_first {
            // The server learns that there is such an agent, and then of its end.
            self.agent.beat_once(Status::Critical);
            return Next::Break(End { ending: Ending::Exited(status), is_success: false });
        }
        Next::Continue((self.backoff.next_delay(), Status::Critical))
    }

    /// Waits, with beats that tell the status. A request to end ends exec, as it would have ended the command.
    fn wait_to_restart(&mut self, delay: Duration, status: Status) -> ControlFlow<End> {
        let until = Instant::now() + delay;
        let mut next_beat = Instant::now();
        loop {
            let now = Instant::now();
            if now >= until {
                return ControlFlow::Continue(());
            }
            if now >= next_beat {
                self.agent.beat(status);
                next_beat = now + self.options.every;
            }
            self.wait(Some(until.min(next_beat)));
            reap_adopted();
            if let Some(signal) = self.take_request_to_end() {
                let ending = Ending::Signalled(signal.number);
                return ControlFlow::Break(End { ending, is_success: true });
            }
        }
    }

    /// The first of the signals that have arrived that asks to end, while there is no command to pass it on to.
    fn take_request_to_end(&mut self) -> Option<Received> {
        let mut request = None;
        while let Some(signal) = self.signals.next() {
            if signal.asks_to_end() {
                self.is_ending |= signal.ends_restarts();
                request = request.or(Some(signal));
            }
        }
        request
    }

    /// Waits for a signal, a change of the output, or the time.
    fn wait(&self, until: Option<Instant>) {
        let timeout = match until.map(|until| until.saturating_duration_since(Instant::now())) {
            None => PollTimeout::NONE,
            // Rounded up: a wait that ends too early is done again.
            Some(left) => {
                PollTimeout::try_from(left.as_nanos().div_ceil(1_000_000)).unwrap_or(PollTimeout::MAX)
            }
        };
        let events = PollFlags::POLLIN;
        let descriptors =
            [Some(self.signals.as_fd()), Some(self.output.as_fd()), self.notify.as_ref().map(AsFd::as_fd)];
        let mut asked: Vec<_> =
            descriptors.into_iter().flatten().map(|file| PollFd::new(file, events)).collect();
        match poll(&mut asked, timeout) {
            Ok(_) | Err(Errno::EINTR) => {}
            // Without memory for it, the state is looked at again a moment later.
            Err(_) => std::thread::sleep(LOOK_AGAIN),
        }
        self.output.handle_change();
    }
}

/// Without the digits that nobody reads.
fn in_millis(time: Duration) -> Duration {
    Duration::from_millis(u64::try_from(time.as_millis()).unwrap_or(u64::MAX))
}
