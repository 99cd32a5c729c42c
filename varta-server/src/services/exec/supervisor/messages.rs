//! What the command says by sd_notify(3), as the supervisor takes it.

use std::time::{Duration, Instant};

use varta_agent::Status;

use crate::services::exec::check::{CheckResult, Fault};
use crate::services::exec::notify::{NotifySocket, Strangers};
use crate::services::exec::options::INTERVALS;
use crate::services::exec::sources::Source;
use crate::services::exec::supervisor::{Run, Supervisor};

/// The most messages that are handled in one turn.
const MAX_MESSAGES: usize = 64;
/// The longest silence that a command can ask for at once.
const MAX_BUSY: Duration = Duration::from_secs(86_400);
/// The shortest deadline that a command can set.
const MIN_DEADLINE: Duration = Duration::from_millis(100);
/// The least time between two lines about messages that were passed over.
const TOLD_EVERY: Duration = Duration::from_secs(60);

impl Supervisor {
    /// Forgets what an earlier run of the command has said. Nothing of it is left to say more.
    pub(super) fn drop_messages(&mut self) {
        while self.notify.as_mut().and_then(NotifySocket::next).is_some() {}
    }

    /// What the command has said by sd_notify. What is sent faster than it is handled waits for the next turn.
    pub(super) fn handle_messages(&mut self, run: &mut Run) {
        for _ in 0..MAX_MESSAGES {
            let Some(message) = self.notify.as_mut().and_then(NotifySocket::next) else { break };
            let now = Instant::now();
            if message.is_broken {
                self.handle_check(run, CheckResult::Unwell(Fault::SaidSo), now);
            }
            if message.is_alive {
                if run.ready_by.take().is_some() {
                    self.agent.busy_for(Duration::ZERO);
                }
                run.sources.handle_sign(Source::Notify);
                if run.status != Status::Ok && run.check.is_none() {
                    run.status = Status::Ok;
                    run.sources.make_due(now);
                }
            }
            if let Some(deadline) = message.watchdog.filter(|deadline| !deadline.is_zero()) {
                let deadline = deadline.clamp(MIN_DEADLINE, MAX_BUSY);
                let every = self.options.every.min(deadline / INTERVALS);
                run.sources.set_interval(every);
                self.agent.set_deadline(every, deadline, run.status);
            }
            run.is_ready |= message.is_ready;
            let ready_within = self.options.ready_within.unwrap_or_default();
            let asked = message.busy_for.map(|asked| asked.min(MAX_BUSY));
            let is_changing = message.is_reloading || message.is_stopping;
            if let Some(span) = asked.or(is_changing.then_some(ready_within)) {
                self.agent.busy_for(span);
                run.ready_by = run.ready_by.map(|by| by.max(now + span));
            }
        }
        self.tell_of_strangers(Instant::now());
    }

    /// Says that messages were passed over, with how many, at most once in [`TOLD_EVERY`].
    fn tell_of_strangers(&mut self, now: Instant) {
        let is_due = self.told_of_strangers.is_none_or(|at| now.saturating_duration_since(at) >= TOLD_EVERY);
        let Some(Strangers { count, pid, uid }) =
            self.notify.as_mut().filter(|_| is_due).and_then(NotifySocket::take_strangers)
        else {
            return;
        };
        self.told_of_strangers = Some(now);
        let messages = if count == 1 { "a message".to_owned() } else { format!("{count} messages") };
        self.agent.say(&format!(
            "is not believed: {messages} by sd_notify passed over, the last of process {pid} of user {uid}, which is no \
             descendant of the command, or had ended before that was seen"
        ));
    }

    /// The command has not sent the keep-alive by which it was to be watched. The server has it as stalled from here on.
    pub(super) fn handle_silence(&mut self, run: &Run) {
        let within = self.options.ready_within.unwrap_or_default();
        let but = if run.is_ready { ", though it has said READY=1" } else { "" };
        self.agent.say(&format!(
            "has sent no keep-alive by sd_notify within {within:?}{but}, and is not known to be well; choose what proves \
             that it is with --beat alive, output or check=CMD"
        ));
    }
}
