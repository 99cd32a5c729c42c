//! The task that completes command lines by names that a running server knows.

use std::ffi::OsString;

use clap::{ArgMatches, Command, FromArgMatches};

use crate::base::error::Error;
use crate::base::stdout::print;
use crate::config::args::{Args, definition};
use crate::config::task::CompleteArgs;
use crate::services::maintenance::{ControlArgs, NamesOf};

/// Prints them, a line for each. Names that cannot stand on one are left out.
///
/// # Errors
///
/// They cannot be printed.
pub(super) fn run(line: &CompleteArgs) -> Result<(), Error> {
    let Some((of, start, control)) = argument(&line.words) else { return Ok(()) };
    let names = control.names(of, &start);
    let names = names.into_iter().filter(|name| !name.chars().any(char::is_control));
    print(&names.map(|name| name + "\n").collect::<String>())
}

/// Which names the last word of a command line is one of, how it begins, and which server knows them.
fn argument(words: &[OsString]) -> Option<(NamesOf, String, ControlArgs)> {
    let (last, before) = words.split_last()?;
    let start = last.to_str().filter(|start| !start.starts_with('-'))?;
    // In the place of the word, one that is a name and a pattern. What is still to be typed behind it is not missing.
    let program = OsString::from("varta-server");
    let whole = [program].into_iter().chain(before.iter().cloned()).chain([STAND_IN.into()]);
    let (matches, _, _) = Args::matches(definition().mut_subcommands(without_needed_options), whole).ok()?;
    let (name, given) = matches.subcommand()?;
    let of = NamesOf::parse(name).ok()?;
    is_argument(given).then_some(())?;
    Some((of, start.to_owned(), ControlArgs::from_arg_matches(given).ok()?))
}

/// What the word is read as.
const STAND_IN: &str = "*";
/// The arguments that are names or patterns, by their names in the definition.
const ARGUMENTS: [&str; 2] = ["who", "pattern"];

fn without_needed_options(command: Command) -> Command {
    command.mut_args(|arg| if arg.is_positional() { arg } else { arg.required(false) })
}

/// Whether the stand-in was read as the argument of the command, and not as the value of an option.
fn is_argument(given: &ArgMatches) -> bool {
    let is_read_as = |id| {
        given.try_get_raw(id).ok().flatten().is_some_and(|mut values| values.any(|value| value == STAND_IN))
    };
    ARGUMENTS.into_iter().any(is_read_as)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(words: &[&str]) -> Option<(NamesOf, String, ControlArgs)> {
        argument(&words.iter().map(OsString::from).collect::<Vec<_>>())
    }

    #[test]
    fn the_argument_of_each_command_that_takes_names_is_found() {
        for of in NamesOf::ALL {
            for start in ["", "bill", "b*"] {
                let (found, begun, _) = asked(&[of.as_str(), start]).unwrap();
                assert_eq!((found, begun.as_str()), (of, start));
            }
        }
        let (of, start, control) =
            asked(&["pause", "--reason", "a b", "--socket", "/run/a.sock", "x"]).unwrap();
        assert_eq!((of, start.as_str()), (NamesOf::Pause, "x"));
        assert_eq!(control.socket, [std::path::PathBuf::from("/run/a.sock")]);
        assert!(asked(&["forget", "--", "x"]).is_some());
    }

    #[test]
    fn each_command_whose_argument_is_a_name_or_a_pattern_has_them() {
        let definition = definition();
        let has_names = |command: &&Command| {
            command.get_positionals().any(|argument| ARGUMENTS.contains(&argument.get_id().as_str()))
        };
        let mut found: Vec<_> =
            definition.get_subcommands().filter(has_names).map(Command::get_name).collect();
        let mut known = NamesOf::ALL.map(NamesOf::as_str);
        found.sort_unstable();
        known.sort_unstable();
        assert_eq!(found, known);
    }

    #[test]
    fn elsewhere_there_are_none() {
        for words in [
            &[][..],
            &[""],
            &["forg"],
            &["forget"],
            &["forget", "-"],
            &["forget", "--rea"],
            &["forget", "--reason", ""],
            &["forget", "a", ""],
            &["forget", "--no-such", ""],
            &["pauses", ""],
            &["reload", ""],
            &["replay", ""],
            &["forget", "--config", "/no/such/file", ""],
        ] {
            assert!(asked(words).is_none(), "{words:?}");
        }
    }
}
