//! The agent whose transitions are counted.

use clap::Args;
use varta_proto::control::AgentName;

use crate::base::error::Error;

/// The agent whose transitions are counted. A group of options.
#[derive(Clone, Debug, Default, PartialEq, Eq, Args)]
pub struct WorkedExampleArgs {
    /// Agent whose transitions are counted
    #[arg(long, env = "VARTA_WORKED_EXAMPLE_AGENT", value_name = "NAME")]
    pub worked_example_agent: Option<String>,
}

impl WorkedExampleArgs {
    /// Converts the options; `None` without an agent.
    #[must_use]
    pub fn options(self) -> Option<WorkedExampleOptions> {
        self.worked_example_agent.map(|agent| WorkedExampleOptions { agent })
    }
}

/// The agent whose transitions are counted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkedExampleOptions {
    /// The name of the agent.
    pub agent: String,
}

impl WorkedExampleOptions {
    /// Checks the name.
    ///
    /// # Errors
    ///
    /// The option whose value no agent can have as its name, by its name on the command line.
    pub fn check(&self) -> Result<(), Error> {
        AgentName::parse(&self.agent).map(drop).map_err(|error| {
            let fault = format!("`{}`: {error}", self.agent.escape_debug());
            Error::Option { option: "--worked-example-agent", fault }
        })
    }
}
