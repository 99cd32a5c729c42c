//! Tells the server when the command is to run: at the start, and again in case another server is there.

use std::time::Duration;

use varta_proto::control::{AgentName, Declaration, ReportEvent};

use crate::base::clock::Clock;
use crate::base::time::millis;
use crate::domain::job::DeclaredJob;
use crate::services::beat::ReportSender;
use crate::services::exec::options::ExecOptions;

/// How often the server is told.
pub(super) const EVERY: Duration = Duration::from_secs(60);

/// The job that a command is.
#[derive(Debug)]
pub(super) struct Declaring {
    sender: ReportSender,
    name: AgentName,
    job: DeclaredJob,
    told_at: Option<Duration>,
}

impl Declaring {
    /// `None` for a command that is no job.
    pub(super) fn new(options: &ExecOptions) -> Option<Self> {
        let job = options.declared.clone()?;
        let sender = ReportSender::new(options.socket.as_ref());
        Some(Declaring { sender, name: options.name, job, told_at: None })
    }

    /// Tells the server, if that is due. What does not arrive is told again.
    pub(super) fn tell(&mut self) {
        let now = Clock::monotonic_now();
        if self.told_at.is_some_and(|at| now.saturating_sub(at) < EVERY) {
            return;
        }
        let Some(mut declaration) = Declaration::new(&self.job.schedule, self.job.timezone.as_deref()) else {
            return;
        };
        let Ok(mut report) = self.sender.report(&self.name, ReportEvent::Declared) else { return };
        declaration.grace_ms = self.job.grace.map(millis);
        declaration.longest_run_ms = self.job.longest_run.map(millis);
        declaration.alarm_on_overlap = self.job.alarm_on_overlap;
        report.declaration = Some(declaration);
        if self.sender.try_send(&report) {
            self.told_at = Some(now);
        }
    }
}
