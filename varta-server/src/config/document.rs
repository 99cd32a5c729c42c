//! The content of the configuration file.
//!
//! The keys have no second definition: they are the options of the command line, and its parsers read their
//! values, so that an option means the same in both places. Parsed here are the command-line arguments that
//! the file stands for, and the tables that the command line cannot express.

#[cfg(test)]
mod tests;

use std::error::Error as _;

use clap::error::{ContextKind, ContextValue};
use clap::{Arg, ArgAction, Command};
use toml::de::{DeTable, DeValue};

use crate::base::options::nearest::nearest;
use crate::base::options::table::{
    ParseError, ParseErrors, TableDefinition, TomlKey, Value, at, decimal, in_order, line_at, wrong_type,
};
use crate::config::option_kind::{FOR_ONE_START, ITSELF, OptionKind};
use crate::config::toml_text;
use crate::engine::EngineTables;
use crate::services;

/// The parsed content of a file.
#[derive(Clone, Debug, Default)]
pub(super) struct Document {
    /// The options in the order of the file.
    pub(super) options: Vec<FileOption>,
    pub(super) tables: Tables,
}

/// A table of a file as it is written, such as one `[[rule]]`.
#[derive(Clone, Debug)]
pub(crate) struct ShownTable {
    pub(crate) name: String,
    /// Its line, counted from 1.
    pub(crate) line: usize,
    /// In the order of the file.
    pub(crate) entries: Vec<ShownEntry>,
}

/// An entry of such a table.
#[derive(Clone, Debug)]
pub(crate) struct ShownEntry {
    pub(crate) key: String,
    /// Its line, counted from 1.
    pub(crate) line: usize,
    /// The value as TOML on one line.
    pub(crate) toml: String,
    /// The value as JSON.
    pub(crate) json: serde_json::Value,
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
    /// What they are.
    pub(crate) fn definitions() -> impl Iterator<Item = TableDefinition> {
        EngineTables::definitions().into_iter().chain(services::Tables::definitions())
    }

    fn names<'n>() -> impl Iterator<Item = &'n str> {
        Self::definitions().map(|definition| definition.name)
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
    /// The first syntax error, or else all unknown keys and invalid values, with what the rest says.
    pub(super) fn parse(text: &str, command: &Command) -> (Self, ParseErrors) {
        let mut faults = ParseErrors::default();
        let document = match DeTable::parse(text) {
            Ok(document) => document,
            Err(error) => {
                faults.push(ParseError {
                    offset: error.span().map_or(0, |span| span.start),
                    text: format!("is not TOML: {}", error.message().replace('\n', ", ")),
                });
                return (Document::default(), faults);
            }
        };
        let mut content = Document::default();
        for (key, value) in in_order(document.get_ref()) {
            if content.tables.read(key, value, &mut faults) {
                continue;
            }
            match read_option(command, key, value) {
                Ok(arguments) => {
                    let line = line_at(text.as_bytes(), key.span().start);
                    content.options.push(FileOption { key: key.get_ref().to_string(), line, arguments });
                }
                Err(fault) => faults.push(fault),
            }
        }
        (content, faults)
    }
}

/// The tables of a file that was parsed before, as they are written.
pub(super) fn shown_tables(text: &str) -> Vec<ShownTable> {
    let Ok(document) = DeTable::parse(text) else { return Vec::new() };
    // Of many lines not each is counted from the first one.
    let ends: Vec<_> = text.match_indices('\n').map(|(place, _)| place).collect();
    let line = |place: usize| 1 + ends.partition_point(|end| *end < place);
    let entries = in_order(document.get_ref()).into_iter();
    let tables = entries.filter(|(key, _)| Tables::names().any(|name| name == key.get_ref()));
    tables.flat_map(|(key, value)| shown(key, value, &line)).collect()
}

/// The tables under a key.
fn shown(key: &TomlKey<'_>, value: &Value<'_>, line: &impl Fn(usize) -> usize) -> Vec<ShownTable> {
    let DeValue::Array(items) = value.get_ref() else { return Vec::new() };
    let table = |item: &Value<'_>| {
        let DeValue::Table(entries) = item.get_ref() else { return None };
        let entry = |(key, value): (&TomlKey<'_>, &Value<'_>)| ShownEntry {
            key: key.get_ref().to_string(),
            line: line(key.span().start),
            toml: toml_text::value(value),
            json: toml_text::to_json(value),
        };
        let entries = in_order(entries).into_iter().map(entry).collect();
        Some(ShownTable { name: key.get_ref().to_string(), line: line(item.span().start), entries })
    };
    items.iter().filter_map(table).collect()
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
    if OptionKind::of(option) == OptionKind::Switch {
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
    let kind = OptionKind::of(option);
    let text = match (value.get_ref(), kind) {
        (DeValue::Float(number), OptionKind::Fraction) => number.as_str().to_owned(),
        (
            DeValue::Integer(number),
            OptionKind::Fraction | OptionKind::Number | OptionKind::Id | OptionKind::Size,
        ) => decimal(number).ok_or_else(|| at(value, "is too large"))?,
        (DeValue::String(text), OptionKind::Id | OptionKind::Size | OptionKind::Text) => text.to_string(),
        (other, _) => {
            let wanted = match kind {
                OptionKind::Fraction | OptionKind::Number => "a number is".to_owned(),
                OptionKind::Id => "a name or a number is".to_owned(),
                OptionKind::Size => "a size such as 4096 or \"64MiB\" is".to_owned(),
                OptionKind::Switch | OptionKind::Text => "a string is".to_owned(),
            };
            let example = option.get_default_values().first().and_then(|default| default.to_str());
            let example = example.filter(|_| kind == OptionKind::Text);
            let example = example.map(|default| format!(", such as \"{default}\"")).unwrap_or_default();
            return Err(at(value, wrong_type(other, &wanted) + &example));
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
