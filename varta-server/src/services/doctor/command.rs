//! The command `doctor`.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde_json::json;

use crate::base::error::Error;
use crate::base::stdout::print;
use crate::services::doctor::check::{Check, Outcome};
use crate::services::doctor::facts::Facts;
use crate::services::doctor::{host, server};
use crate::services::maintenance::ControlArgs;

/// The exit status where something is wrong.
const WRONG: u8 = 1;
/// The same where no server can be asked.
const UNKNOWN: u8 = 2;

/// What can be looked into.
#[derive(Clone, Debug, Subcommand)]
#[non_exhaustive]
pub enum DoctorTask {
    /// Check this host and a running server for what is wrong or may become so
    ///
    /// Each check is `ok`, `warning`, `failed` or `skipped`, with what was seen and what to do about it;
    /// docs/DOCTOR.md explains each. Nothing is changed. Only the server's own user and root may ask. Exit status: 0 if
    /// nothing is wrong, 1 if a check warns or failed, 2 if no server answers.
    Doctor(DoctorArgs),
}

/// How the result is shown.
#[derive(Clone, Debug, Args)]
pub struct DoctorArgs {
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,

    /// Which server is asked.
    #[command(flatten)]
    pub control: ControlArgs,
}

impl DoctorTask {
    /// Makes the checks, and prints their results. Gives the exit status of the program.
    ///
    /// # Errors
    ///
    /// When nothing can be printed.
    pub fn run(&self) -> Result<ExitCode, Error> {
        let DoctorTask::Doctor(args) = self;
        let facts = Facts::gather(&args.control);
        let mut checks = server::checks(&facts);
        checks.extend(host::checks(&facts));
        print(&if args.json { to_json(&checks) } else { to_text(&checks) })?;
        Ok(match facts.server {
            Err(_) => ExitCode::from(UNKNOWN),
            Ok(_) if checks.iter().any(Check::is_wrong) => ExitCode::from(WRONG),
            Ok(_) => ExitCode::SUCCESS,
        })
    }
}

fn to_json(checks: &[Check]) -> String {
    let is_ok = !checks.iter().any(Check::is_wrong);
    format!("{}\n", json!({ "ok": is_ok, "checks": checks.iter().map(Check::to_json).collect::<Vec<_>>() }))
}

fn to_text(checks: &[Check]) -> String {
    let count = |outcome| checks.iter().filter(|check| check.outcome == outcome).count();
    let lines: String = checks.iter().map(Check::to_string).collect();
    let [ok, warning, failed, skipped] =
        [Outcome::Ok, Outcome::Warning, Outcome::Failed, Outcome::Skipped].map(count);
    format!("{lines}{ok} ok, {warning} warnings, {failed} failed, {skipped} skipped\n")
}
