//! The names of the options of a group.

use clap::{Arg, Args, Command};

/// The names of all options of a group, without dashes, in the order of the definition.
pub(crate) fn names<T: Args>() -> Vec<String> {
    let command = T::augment_args(Command::new(""));
    command.get_arguments().filter_map(Arg::get_long).map(str::to_owned).collect()
}
