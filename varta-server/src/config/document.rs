//! The content of the configuration file.
//!
//! The keys have no second definition: they are the options of the command line, and its parsers read their
//! values, so that an option means the same in both places. Parsed here are the command-line arguments that
//! the file stands for, and the tables that the command line cannot express.

#[cfg(test)]
mod tests;

use std::any::TypeId;
use std::error::Error as _;

use clap::error::{ContextKind, ContextValue};
use clap::{Arg, ArgAction, Command};
use toml::de::{DeTable, DeValue};

use crate::base::options::nearest::nearest;
use crate::base::options::table::{
    ParseError, ParseErrors, TomlKey, Value, at, decimal, in_order, line_at, wrong_type,
};
use crate::base::options::{Id, Size};
use crate::engine::EngineTables;
use crate::services;

/// The option that the file cannot set, because it names the file.
const ITSELF: &str = "config";
/// The option that the file cannot set, because it is meant for one start.
const FOR_ONE_START: &str = "take-over";
/// The parsed content of a file.
#[derive(Clone, Debug, Default)]
pub(super) struct Document {
    /// The options in the order of the file.
    pub(super) options: Vec<FileOption>,
    pub(super) tables: Tables,
}

/// The tables of a file, each with the section that names it.
#[derive(Clone, Debug, Default)]
pub struct Tables {
    /// What holds for agents by their names.
    pub engine: EngineTables,
    /// What holds for the capabilities.
    pub services: services::Tables,
}

impl Tables {
    fn names<'n>() -> impl Iterator<Item = &'n str> {
        EngineTables::NAMES.into_iter().chain(services::Tables::NAMES)
    }

    /// Reads the value of a key, if the key names tables. Whether it does.
    fn read(&mut self, key: &TomlKey<'_>, value: &Value<'_>, faults: &mut ParseErrors) -> bool {
        self.engine.read(key, value, faults) || self.services.read(key, value, faults)
    }
}

/// An option that a file sets.
#[derive(Clone, Debug)]
pub(super) struct FileOption {
    /// Its name on the command line, without the dashes.
    pub(super) key: String,
    /// Its line, counted from 1.
    pub(super) line: usize,
    /// The equivalent command-line arguments.
    pub(super) arguments: Vec<String>,
}

impl Document {
    /// Parses the text of a file. `command` is the definition of the command line.
    ///
    /// # Errors
    ///
    /// The first syntax error, or else all unknown keys and invalid values.
    pub(super) fn parse(text: &str, command: &Command) -> Result<Self, ParseErrors> {
        let mut faults = ParseErrors::default();
        let document = match DeTable::parse(text) {
            Ok(document) => document,
            Err(error) => {
                faults.push(ParseError {
                    offset: error.span().map_or(0, |span| span.start),
                    text: format!("is not TOML: {}", error.message().replace('\n', ", ")),
                });
                return Err(faults);
            }
        };
        let mut content = Document::default();
        for (key, value) in in_order(document.get_ref()) {
            if content.tables.read(key, value, &mut faults) {
                continue;
            }
            let line = line_at(text.as_bytes(), key.span().start);
            match read_option(command, key, value) {
                Ok(arguments) => {
                    content.options.push(FileOption { key: key.get_ref().to_string(), line, arguments });
                }
                Err(fault) => faults.push(fault),
            }
        }
        if faults.is_empty() { Ok(content) } else { Err(faults) }
    }
}

// Options.

/// The equivalent command-line arguments of a key that names no tables.
fn read_option(command: &Command, key: &TomlKey<'_>, value: &Value<'_>) -> Result<Vec<String>, ParseError> {
    let name = key.get_ref();
    let option = find(command, name).map_err(|fault| at(key, fault))?;
    arguments(option, name, value)
        .map_err(|ParseError { offset, text }| ParseError { offset, text: format!("{name}: {text}") })
}

/// Looks up an option by name, or returns the fault of an unknown key.
fn find<'c>(command: &'c Command, name: &str) -> Result<&'c Arg, String> {
    if name == ITSELF {
        return Err(format!("{ITSELF}: a file cannot name another; give it on the command line"));
    }
    if name == FOR_ONE_START {
        return Err(format!("{FOR_ONE_START}: is for one start; give it on the command line"));
    }
    let is_key = |long: &str| long != ITSELF && long != FOR_ONE_START;
    let options = || command.get_arguments().filter(|option| option.get_long().is_some_and(is_key));
    options().find(|option| option.get_long() == Some(name)).ok_or_else(|| {
        let known = options().filter_map(Arg::get_long).chain(Tables::names());
        let hint = match nearest(name, known) {
            Some(near) => format!("did you mean {near}?"),
            None => "`varta-server --help` has them all".to_owned(),
        };
        format!("{}: there is no such option; {hint}", name.escape_debug())
    })
}

/// The equivalent command-line arguments of a value.
fn arguments(option: &Arg, name: &str, value: &Value<'_>) -> Result<Vec<String>, ParseError> {
    if matches!(option.get_action(), ArgAction::SetTrue) {
        return match value.get_ref() {
            DeValue::Boolean(true) => Ok(vec![format!("--{name}")]),
            DeValue::Boolean(false) => Ok(Vec::new()),
            other => Err(at(value, wrong_type(other, "true or false is"))),
        };
    }
    match value.get_ref() {
        DeValue::Array(_) if !matches!(option.get_action(), ArgAction::Append) => {
            Err(at(value, "takes one value, and not a list"))
        }
        DeValue::Array(items) if items.is_empty() => {
            Err(at(value, "is an empty list; leave the key out to have the default"))
        }
        DeValue::Array(items) => items.iter().map(|item| argument(option, name, item)).collect(),
        _ => Ok(vec![argument(option, name, value)?]),
    }
}

fn argument(option: &Arg, name: &str, value: &Value<'_>) -> Result<String, ParseError> {
    let numbers = [TypeId::of::<u32>(), TypeId::of::<u64>(), TypeId::of::<usize>()];
    let is_number = numbers.iter().any(|number| option.get_value_parser().type_id() == *number);
    let is_id = option.get_value_parser().type_id() == TypeId::of::<Id>();
    let is_size = option.get_value_parser().type_id() == TypeId::of::<Size>();
    let is_fraction = option.get_value_parser().type_id() == TypeId::of::<f64>();
    let text = match value.get_ref() {
        DeValue::Float(number) if is_fraction => number.as_str().to_owned(),
        DeValue::Integer(number) if is_fraction => {
            decimal(number).ok_or_else(|| at(value, "is too large"))?
        }
        other if is_fraction => return Err(at(value, wrong_type(other, "a number is"))),
        DeValue::String(text) if !is_number => text.to_string(),
        DeValue::Integer(number) if is_number || is_id || is_size => {
            decimal(number).ok_or_else(|| at(value, "is too large"))?
        }
        other if is_id && !matches!(other, DeValue::String(_)) => {
            return Err(at(value, wrong_type(other, "a name or a number is")));
        }
        other if is_size && !matches!(other, DeValue::String(_)) => {
            return Err(at(value, wrong_type(other, "a size such as 4096 or \"64MiB\" is")));
        }
        other if is_number => return Err(at(value, wrong_type(other, "a number is"))),
        other => {
            let example = option.get_default_values().first().and_then(|default| default.to_str());
            let example = example.map(|default| format!(", such as \"{default}\"")).unwrap_or_default();
            return Err(at(value, wrong_type(other, "a string is") + &example));
        }
    };
    let argument = format!("--{name}={text}");
    // Parsed as the only option and without its variable, whose value is checked elsewhere.
    let alone = Command::new("").no_binary_name(true).arg(option.clone().env(None::<&'static str>));
    match alone.try_get_matches_from([&argument]) {
        Ok(_) => Ok(argument),
        Err(error) => Err(at(value, format!("`{}`: {}", text.escape_debug(), fault_of(&error)))),
    }
}

/// The fault of a value, from the error of the command-line parser.
fn fault_of(error: &clap::Error) -> String {
    match (error.get(ContextKind::ValidValue), error.source()) {
        (Some(ContextValue::Strings(valid)), _) if !valid.is_empty() => {
            format!("is none of {}", valid.join(", "))
        }
        (_, Some(source)) => source.to_string(),
        (_, None) => "is not a value for it".to_owned(),
    }
}
