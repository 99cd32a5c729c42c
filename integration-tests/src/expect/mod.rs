//! Expectations: what a test waits for at a server, in one sentence.
//!
//! ```text
//! server.expect(agent("billing").stalled().because("stopped").within(STALL_AFTER));
//! server.expect(line("the key files were read again").nth(2));
//! server.expect(metric("varta_notifications_total").with("outcome", "sent").is(3.0));
//! ```
//!
//! Verdicts are read from the server's log, where each change of verdict is a line of the target
//! `varta::agent`. Every server of a test writes that log, and the lines stand in the order in which the
//! tracker made the changes. A line that is already there counts: an expectation holds if the log has the
//! line or gets it in time. Whether an agent had other verdicts as well is a question for
//! [`Server::history`](crate::Server::history).
//!
//! An expectation that fails panics at the line of the test, with all changes of verdict in the order in
//! which they were seen. The lines of the agent in question are marked with `>`.

mod agent;
mod line;
mod metric;
#[cfg(test)]
mod tests;
mod verdict;

pub use self::agent::{Agent, agent, any_agent};
pub use self::line::{LogLine, line, line_with};
pub use self::metric::{Metric, MetricValue, metric};
pub use self::verdict::Verdict;
pub(crate) use self::verdict::story;
use crate::server::Server;

/// What a test can wait for at a server.
pub trait Expectation {
    /// What is found when it holds.
    type Found;

    /// Waits until it holds.
    ///
    /// # Errors
    ///
    /// It did not hold in time. The text is for the person who reads the failure: what was expected, and what
    /// was seen.
    fn wait(self, server: &Server) -> Result<Self::Found, String>;
}
