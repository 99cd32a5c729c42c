//! Variables of the environment that look like options and are none: a misspelt one would change nothing, and
//! nobody would know.

use std::env;
use std::ffi::{OsStr, OsString};

use clap::{Command, CommandFactory};

use crate::base::options::nearest::nearest;
use crate::config::args::Args;
use crate::services::recovery::is_variable_of_commands;

const PREFIX: &str = "VARTA_";
/// The most variables that are named; of more only the number is.
const MAX_NAMED: usize = 10;

/// A warning for each variable `VARTA_..` of this process that has a value and is no option.
///
/// Variables that others set are left out: those that Kubernetes and Docker make for a service of that name,
/// and those of recovery commands, one of which may have started this process.
#[must_use]
pub fn unknown_variables() -> Vec<String> {
    warnings(&Args::command(), env::vars_os())
}

fn warnings(definition: &Command, variables: impl Iterator<Item = (OsString, OsString)>) -> Vec<String> {
    let known = names(definition);
    let is_unknown = |(name, value): &(OsString, OsString)| {
        let Some(name) = name.to_str() else { return name.to_string_lossy().starts_with(PREFIX) };
        name.starts_with(PREFIX)
            && !value.is_empty()
            && !known.iter().any(|option| option == name)
            && !is_service_link(name, value)
            && !is_variable_of_commands(name)
    };
    let unknown = variables.filter(is_unknown).map(|(name, _)| name.to_string_lossy().into_owned());
    let mut unknown: Vec<String> = unknown.collect();
    unknown.sort_unstable();
    let mut warnings: Vec<_> = unknown.iter().take(MAX_NAMED).map(|name| warning(name, &known)).collect();
    if let Some(more) = unknown.len().checked_sub(MAX_NAMED).filter(|more| *more > 0) {
        warnings.push(format!("and {more} more variables of the environment are no options"));
    }
    warnings
}

/// The variables of all options, also of those that only a subcommand has.
fn names(definition: &Command) -> Vec<String> {
    let own = definition.get_arguments().filter_map(|option| option.get_env().and_then(OsStr::to_str));
    let own = own.map(str::to_owned);
    own.chain(definition.get_subcommands().flat_map(names)).collect()
}

fn warning(name: &str, known: &[String]) -> String {
    // Without what all have in common, by which short names would be alike.
    let without_prefix = |name| str::strip_prefix(name, PREFIX).unwrap_or(name);
    let hint = match nearest(without_prefix(name), known.iter().map(|known| without_prefix(known))) {
        Some(near) => format!("did you mean {PREFIX}{near}?"),
        None => "`varta-server --help` has them all".to_owned(),
    };
    format!("{}: no option has this variable of the environment; {hint}", name.escape_debug())
}

/// Whether it is one of those that Kubernetes makes in each container for a service `varta` or `varta-..`,
/// and Docker for a link of such a name: `VARTA_SERVICE_HOST`, `VARTA_SERVICE_PORT_METRICS`,
/// `VARTA_PORT=tcp://10.0.0.1:9843`, `VARTA_PORT_9843_TCP_ADDR`.
fn is_service_link(name: &str, value: &OsStr) -> bool {
    const PROTOCOLS: [&str; 3] = ["TCP", "UDP", "SCTP"];
    let is_protocol = |text: &str| PROTOCOLS.contains(&text);
    match *name.split('_').collect::<Vec<_>>() {
        [.., "SERVICE", "HOST" | "PORT"] | [.., "SERVICE", "PORT", _] => true,
        [.., "PORT", number, protocol] | [.., "PORT", number, protocol, "ADDR" | "PORT" | "PROTO"] => {
            number.parse::<u16>().is_ok() && is_protocol(protocol)
        }
        // Somebody may believe in an option of that name, whose value would be another.
        [.., "PORT"] => {
            let value = value.to_string_lossy();
            value.split_once("://").is_some_and(|(scheme, _)| is_protocol(&scheme.to_ascii_uppercase()))
        }
        _ => name.contains("_SERVICE_PORT_"),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStringExt;

    use super::*;

    fn warned(variables: &[(&str, &str)]) -> Vec<String> {
        let variables = variables.iter().map(|(name, value)| (name.into(), value.into()));
        warnings(&Args::command(), variables)
    }

    #[test]
    fn a_misspelt_variable_is_warned_of_with_the_one_that_was_meant() {
        assert_eq!(
            warned(&[("VARTA_STAL_AFTER", "2s"), ("PATH", "/bin"), ("VARTA_SOCKET", "a"), ("VARTAX", "1")]),
            [
                "VARTA_STAL_AFTER: no option has this variable of the environment; did you mean VARTA_STALL_AFTER?"
            ]
        );
        let far =
            "VARTA_TURBO: no option has this variable of the environment; `varta-server --help` has them all";
        assert_eq!(warned(&[("VARTA_TURBO", "1"), ("VARTA_SOCKT", "")]), [far]);
        assert!(
            warned(&[("VARTA_METRICS_PORT", "9843"), ("VARTA_A\u{7}", "1")])[0]
                .starts_with(r"VARTA_A\u{7}: ")
        );
    }

    #[test]
    fn variables_that_others_set_are_no_mistakes() {
        let links = [
            ("VARTA_SERVICE_HOST", "10.0.0.1"),
            ("VARTA_SERVICE_PORT", "9843"),
            ("VARTA_SERVICE_PORT_METRICS", "9843"),
            ("VARTA_SERVER_SERVICE_HOST", "10.0.0.1"),
            ("VARTA_PORT", "tcp://10.0.0.1:9843"),
            ("VARTA_PORT_9843_TCP", "tcp://10.0.0.1:9843"),
            ("VARTA_PORT_9844_UDP_PROTO", "udp"),
            ("VARTA_PORT_9843_TCP_PORT", "9843"),
            ("VARTA_PORT_9843_TCP_ADDR", "10.0.0.1"),
            // Of recovery.
            ("VARTA_AGENT", "billing"),
            ("VARTA_SILENCE_MS", "5"),
            ("VARTA_LABEL_team", "a"),
        ];
        assert_eq!(warned(&links), [] as [&str; 0]);
        for name in ["VARTA_PORT", "VARTA_METRICS_PORT", "VARTA_PORT_TCP", "VARTA_PORT_9843_TCP_ADDRS"] {
            assert_eq!(warned(&[(name, "9843")]).len(), 1, "{name}");
        }
    }

    #[test]
    fn of_many_the_first_few_are_named_and_the_others_counted() {
        let many = (0..15).map(|number| (OsString::from(format!("VARTA_X{number:02}")), "1".into()));
        let warnings = warnings(&Args::command(), many);
        assert_eq!(warnings.len(), MAX_NAMED + 1);
        assert_eq!(warnings[MAX_NAMED], "and 5 more variables of the environment are no options");
    }

    #[test]
    fn a_name_that_is_no_text_is_named_as_far_as_it_is() {
        let name = OsString::from_vec(b"VARTA_\xff".to_vec());
        let warnings = warnings(&Args::command(), [(name, "1".into())].into_iter());
        assert!(warnings[0].starts_with("VARTA_\u{fffd}: "), "{warnings:?}");
    }
}
