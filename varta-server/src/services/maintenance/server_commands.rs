//! The commands that are about a running server itself.

use std::time::Duration;

use clap::Args;

use crate::base::error::Error;
use crate::base::stdout::print;
use crate::base::visible::visible_lines;
use crate::services::maintenance::command::{ControlArgs, warn_of};
use crate::services::maintenance::protocol::Request;

/// Which server reloads.
#[derive(Clone, Debug, Args)]
pub struct ReloadArgs {
    /// Which server is asked.
    #[command(flatten)]
    pub control: ControlArgs,
}

impl ReloadArgs {
    /// Requests the reload, and prints what counts from now on.
    ///
    /// # Errors
    ///
    /// The server cannot be reached, or its files cannot be used.
    pub fn run(&self) -> Result<(), Error> {
        let answer = self.control.ask(&Request::Reload)?;
        for line in &answer.lines {
            print(&format!("{}\n", visible_lines(line)))?;
        }
        warn_of(&answer);
        Ok(())
    }
}

/// The longest time of an upgrade.
const UPGRADE_WITHIN: Duration = Duration::from_secs(120);

/// Which server starts another in its place.
#[derive(Clone, Debug, Args)]
pub struct UpgradeArgs {
    /// Which server is asked.
    #[command(flatten)]
    pub control: ControlArgs,
}

impl UpgradeArgs {
    /// Requests the upgrade, and prints which process the server is now.
    ///
    /// # Errors
    ///
    /// The server cannot be reached, or goes on itself.
    pub fn run(&self) -> Result<(), Error> {
        let answer = self.control.ask_within(&Request::Upgrade, UPGRADE_WITHIN)?;
        for line in &answer.lines {
            print(&format!("{}\n", visible_lines(line)))?;
        }
        Ok(())
    }
}
