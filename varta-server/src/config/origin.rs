//! Where the value of each option comes from, and what else is given for it.

use std::env;

use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Command};

use crate::config::file::ConfigFile;
use crate::config::option_kind::{OptionKind, Secrecy, defaults, is_setting};

/// An option with all that is given for it.
#[derive(Clone, Debug)]
pub(crate) struct Setting {
    /// Its name on the command line, without the dashes.
    pub(crate) key: String,
    /// The heading under which help lists it.
    pub(crate) heading: String,
    pub(crate) kind: OptionKind,
    /// Whether it takes several values.
    pub(crate) is_list: bool,
    pub(crate) secrecy: Secrecy,
    /// Whether its default counts only together with another option, or depends on others, so that it is not written
    /// into a file.
    pub(crate) is_default_conditional: bool,
    /// What is given for it, each with its place; the first counts. Empty if nothing is and it has no default.
    pub(crate) layers: Vec<(Origin, Vec<String>)>,
}

/// The place of a value; one takes precedence over those behind it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    Flag,
    /// By its name.
    Variable(String),
    /// By the line, counted from 1.
    File(usize),
    Default,
}

/// The option that says how the others are shown.
const OF_SHOW: &str = "json";

/// All settings of a command. `given` is what the command line and the environment say.
pub(crate) fn settings(command: &Command, given: &ArgMatches, file: Option<&ConfigFile>) -> Vec<Setting> {
    let options =
        command.get_arguments().filter(|option| is_setting(option) && option.get_long() != Some(OF_SHOW));
    let options = options.filter_map(|option| Some((option, option.get_long()?)));
    let setting = |(option, key): (&Arg, &str)| Setting {
        key: key.to_owned(),
        heading: option.get_help_heading().unwrap_or_default().to_owned(),
        kind: OptionKind::of(option),
        is_list: matches!(option.get_action(), ArgAction::Append),
        secrecy: Secrecy::of(option),
        is_default_conditional: option.get_action().takes_values() && option.get_default_values().is_empty(),
        layers: layers(option, key, given, file),
    };
    options.map(setting).collect()
}

fn layers(
    option: &Arg,
    key: &str,
    given: &ArgMatches,
    file: Option<&ConfigFile>,
) -> Vec<(Origin, Vec<String>)> {
    let id = option.get_id().as_str();
    let is_switch = OptionKind::of(option) == OptionKind::Switch;
    let mut layers = Vec::new();
    if given.value_source(id) == Some(ValueSource::CommandLine) {
        let raw = given.get_raw(id).into_iter().flatten().map(|value| value.to_string_lossy().into_owned());
        layers.push((Origin::Flag, if is_switch { vec!["true".to_owned()] } else { raw.collect() }));
    }
    // A definition has no variable whose value is empty.
    if let Some((name, value)) = option.get_env().and_then(|name| Some((name, env::var_os(name)?))) {
        let text = value.to_string_lossy();
        let values = match option.get_value_delimiter() {
            _ if is_switch => vec![is_on(option).to_string()],
            Some(delimiter) => text.split(delimiter).map(str::to_owned).collect(),
            None => vec![text.into_owned()],
        };
        layers.push((Origin::Variable(name.to_string_lossy().into_owned()), values));
    }
    if let Some((line, values)) = file.and_then(|file| file.given(key)) {
        layers.push((Origin::File(line), values));
    }
    let default = defaults(option);
    if !default.is_empty() {
        layers.push((Origin::Default, default));
    }
    layers
}

/// What the variable of a switch says.
fn is_on(option: &Arg) -> bool {
    let alone = Command::new("").no_binary_name(true).arg(option.clone());
    let given = alone.try_get_matches_from([""; 0]);
    given.is_ok_and(|given| given.get_flag(option.get_id().as_str()))
}
