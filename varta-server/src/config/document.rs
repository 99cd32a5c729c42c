//! What stands in the configuration's file.
//!
//! The keys are not written down a second time: the command line's own definition says which there are, and its own
//! parsers read their values, so that an option means the same wherever it is given. What is read here is which words
//! the file adds to the command line, and the tables that the command line has no room for.

#[cfg(test)]
mod tests;

use std::any::TypeId;
use std::error::Error as _;

use clap::error::{ContextKind, ContextValue};
use clap::{Arg, ArgAction, Command};
use toml::de::{DeTable, DeValue};

use crate::base::options::nearest::nearest;
use crate::base::options::table::{Fault, Key, Value, at, decimal, in_order, line_at, wrong_type};
use crate::engine::EngineTables;
use crate::services;

/// The option that the file cannot have: it names the file.
const ITSELF: &str = "config";
/// What a file says.
#[derive(Clone, Debug, Default)]
pub(super) struct Content {
    /// In the order in which they stand there.
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
    fn read(&mut self, key: &Key<'_>, value: &Value<'_>) -> Result<bool, Fault> {
        Ok(self.engine.read(key, value)? || self.services.read(key, value)?)
    }
}

/// What a file says of one option.
#[derive(Clone, Debug)]
pub(super) struct FileOption {
    /// Its name on the command line, without the dashes.
    pub(super) key: String,
    /// Where it stands, counted from 1.
    pub(super) line: usize,
    /// What would say the same on the command line.
    pub(super) arguments: Vec<String>,
}

impl Content {
    /// Reads a file's text. `command` is the command line's definition.
    ///
    /// # Errors
    ///
    /// The first fault of the syntax, else the first key or value that makes no sense.
    pub(super) fn parse(text: &str, command: &Command) -> Result<Self, Fault> {
        let document = DeTable::parse(text).map_err(|error| Fault {
            offset: error.span().map_or(0, |span| span.start),
            text: format!("is not TOML: {}", error.message().replace('\n', ", ")),
        })?;
        let mut content = Content::default();
        for (key, value) in in_order(document.get_ref()) {
            if content.tables.read(key, value)? {
                continue;
            }
            let name = key.get_ref();
            let option = find(command, name).map_err(|fault| at(key, fault))?;
            let line = line_at(text.as_bytes(), key.span().start);
            let arguments = arguments(option, name, value)
                .map_err(|Fault { offset, text }| Fault { offset, text: format!("{name}: {text}") })?;
            content.options.push(FileOption { key: name.to_string(), line, arguments });
        }
        Ok(content)
    }
}

// Options.

/// The option of this name, or what to say of a key that is none.
fn find<'c>(command: &'c Command, name: &str) -> Result<&'c Arg, String> {
    if name == ITSELF {
        return Err(format!("{ITSELF}: a file cannot name another; give it on the command line"));
    }
    let options =
        || command.get_arguments().filter(|option| option.get_long().is_some_and(|long| long != ITSELF));
    options().find(|option| option.get_long() == Some(name)).ok_or_else(|| {
        let known = options().filter_map(Arg::get_long).chain(Tables::names());
        let hint = match nearest(name, known) {
            Some(near) => format!("did you mean {near}?"),
            None => "`varta-server --help` has them all".to_owned(),
        };
        format!("{}: there is no such option; {hint}", name.escape_debug())
    })
}

/// What says the same on a command line.
fn arguments(option: &Arg, name: &str, value: &Value<'_>) -> Result<Vec<String>, Fault> {
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

fn argument(option: &Arg, name: &str, value: &Value<'_>) -> Result<String, Fault> {
    let numbers = [TypeId::of::<u32>(), TypeId::of::<u64>(), TypeId::of::<usize>()];
    let is_number = numbers.iter().any(|number| option.get_value_parser().type_id() == *number);
    let is_fraction = option.get_value_parser().type_id() == TypeId::of::<f64>();
    let text = match value.get_ref() {
        DeValue::Float(number) if is_fraction => number.as_str().to_owned(),
        DeValue::Integer(number) if is_fraction => {
            decimal(number).ok_or_else(|| at(value, "is too large"))?
        }
        other if is_fraction => return Err(at(value, wrong_type(other, "a number is"))),
        DeValue::String(text) if !is_number => text.to_string(),
        DeValue::Integer(number) if is_number => decimal(number).ok_or_else(|| at(value, "is too large"))?,
        other if is_number => return Err(at(value, wrong_type(other, "a number is"))),
        other => {
            let example = option.get_default_values().first().and_then(|default| default.to_str());
            let example = example.map(|default| format!(", such as \"{default}\"")).unwrap_or_default();
            return Err(at(value, wrong_type(other, "a string is") + &example));
        }
    };
    let argument = format!("--{name}={text}");
    // The option alone, and without its variable: what that says is looked at elsewhere.
    let alone = Command::new("").no_binary_name(true).arg(option.clone().env(None::<&'static str>));
    match alone.try_get_matches_from([&argument]) {
        Ok(_) => Ok(argument),
        Err(error) => Err(at(value, format!("`{}`: {}", text.escape_debug(), fault_of(&error)))),
    }
}

/// What the command line's parser has against a value.
fn fault_of(error: &clap::Error) -> String {
    match (error.get(ContextKind::ValidValue), error.source()) {
        (Some(ContextValue::Strings(valid)), _) if !valid.is_empty() => {
            format!("is none of {}", valid.join(", "))
        }
        (_, Some(source)) => source.to_string(),
        (_, None) => "is not a value for it".to_owned(),
    }
}
