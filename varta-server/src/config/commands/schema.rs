//! The task that prints the schema of the configuration file.

use crate::base::error::Error;
use crate::base::stdout::print;
use crate::config::args::definition;
use crate::config::schema::schema;

/// Prints it.
///
/// # Errors
///
/// It cannot be printed.
pub(super) fn run() -> Result<(), Error> {
    print(&format!("{:#}\n", schema(&definition())))
}
