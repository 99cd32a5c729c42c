//! The task that checks a configuration file.

use std::ffi::OsString;

use super::note;
use crate::base::error::Error;
use crate::base::host_check::HostCheck;
use crate::base::options::LookUps;
use crate::base::stdout::print;
use crate::config::args::{Args, definition, without_variables};
use crate::config::file::ConfigFile;
use crate::config::task::CheckArgs;

/// Checks a file, and prints that it is good.
///
/// # Errors
///
/// [`Error::FailedCheck`] with all faults.
pub(super) fn run(check: &CheckArgs) -> Result<(), Error> {
    find_faults(check).map_err(|error| Error::FailedCheck(Box::new(error)))?;
    print(&format!("{}: ok\n", check.file.display()))
}

fn find_faults(check: &CheckArgs) -> Result<(), Error> {
    let mut option = OsString::from("--config=");
    option.push(&check.file);
    let args = Args::read_by(without_variables(definition(), |_| true), ["varta-server".into(), option])?;
    let here = args.clone();
    let config = args.into_config_by(LookUps::LeftOut)?;
    if let Some(warning) = config.file.as_ref().and_then(ConfigFile::warning) {
        note(warning);
    }
    if !check.environment {
        return Ok(());
    }
    let mut host = HostCheck::default();
    match here.into_config() {
        Ok(config) => config.check_host(&mut host),
        // What could not be looked up has stand-ins in the other one.
        Err(error) => {
            host.result(Err::<(), _>(error));
            config.check_host(&mut host);
        }
    }
    let (faults, notes) = host.finish();
    notes.iter().for_each(|line| note(line));
    faults.map_err(|error| match &config.file {
        Some(file) => file.locate(error),
        None => error,
    })
}
