//! The JSON Schema of the configuration file, for editors: from the definitions of the options and of the tables.
//!
//! It is of draft 7 and has only what draft 4 has too, which is what editors of TOML know.

use std::time::Duration;

use clap::{Arg, ArgAction, Command};
use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::base::options::Mode;
use crate::base::options::table::TableDefinition;
use crate::base::options::table_key::{KeyKind, Need, TableKey};
use crate::config::bounds::{Bounds, Judge};
use crate::config::document::Tables;
use crate::config::option_kind::{OptionKind, defaults, is_a, is_setting};

/// All that [`parse_duration`](crate::base::options::parse_duration) takes, and some more.
const DURATION: &str = r"^\s*(0|([0-9][0-9.]*\s*[A-Za-zµ]+\s*)+)$";
/// All that [`parse_size`](crate::base::options::parse_size) takes.
const SIZE: &str = "^[0-9]+([KMGTkmgt]([Ii][Bb])?)?$";
/// The permissions of a file.
const MODE: &str = "^[0-7]+$";

/// The schema of the file of a command.
pub(crate) fn schema(command: &Command) -> Value {
    let options = command.get_arguments().filter(|option| is_setting(option));
    let judge = Judge::new(command);
    let options =
        options.filter_map(|option| Some((option.get_long()?.to_owned(), of_option(option, &judge))));
    let tables = Tables::definitions().map(|table| (table.name.to_owned(), of_tables(&table)));
    let properties: Map<_, _> = options.chain(tables).collect();
    json!({
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "varta-server",
        "description": "The file of varta-server --config",
        "type": "object",
        "additionalProperties": false,
        "properties": properties,
    })
}

fn of_option(option: &Arg, judge: &Judge) -> Value {
    let item = of_value(option, judge);
    let mut schema = if matches!(option.get_action(), ArgAction::Append) {
        json!({ "anyOf": [item, { "type": "array", "minItems": 1, "items": item }] })
    } else {
        item
    };
    let help = option.get_long_help().or(option.get_help());
    let help = help.map(ToString::to_string).unwrap_or_default();
    schema["description"] = (help + &said_bounds(option, judge)).into();
    if let [default] = &defaults(option)[..] {
        schema["default"] = match OptionKind::of(option) {
            OptionKind::Switch => json!(default == "true"),
            OptionKind::Number => {
                default.parse().map_or_else(|_| json!(default), |number: u64| json!(number))
            }
            OptionKind::Fraction => {
                default.parse().map_or_else(|_| json!(default), |number: f64| json!(number))
            }
            OptionKind::Id | OptionKind::Size | OptionKind::Text => json!(default),
        };
    }
    schema
}

/// The schema of one value of an option.
fn of_value(option: &Arg, judge: &Judge) -> Value {
    let names: Vec<_> =
        option.get_possible_values().iter().map(|value| value.get_name().to_owned()).collect();
    match OptionKind::of(option) {
        OptionKind::Switch => json!({ "type": "boolean" }),
        OptionKind::Number => of_numbers("integer", judge.whole(option)),
        OptionKind::Fraction => of_numbers("number", judge.fraction(option)),
        OptionKind::Id => json!({ "anyOf": [
            { "type": "string", "minLength": 1 },
            { "type": "integer", "minimum": 0, "maximum": u32::MAX - 1 },
        ] }),
        OptionKind::Size => {
            let bytes = of_numbers("integer", judge.whole(option));
            json!({ "anyOf": [bytes, { "type": "string", "pattern": SIZE }] })
        }
        OptionKind::Text if !names.is_empty() => json!({ "type": "string", "enum": names }),
        OptionKind::Text if is_a::<Duration>(option) => json!({ "type": "string", "pattern": DURATION }),
        OptionKind::Text if is_a::<Mode>(option) => json!({ "type": "string", "pattern": MODE }),
        OptionKind::Text => json!({ "type": "string", "minLength": 1 }),
    }
}

/// The bounds of an option's durations, for people: a schema knows no other than those of numbers.
fn said_bounds(option: &Arg, judge: &Judge) -> String {
    let bounds = is_a::<Duration>(option).then(|| judge.duration(option)).flatten();
    match bounds {
        None | Some(Bounds { least: Duration::ZERO, most: None }) => String::new(),
        Some(Bounds { least, most: None }) => format!("\n\nAt least {}.", written(least)),
        Some(Bounds { least, most: Some(most) }) => said_range(least, most),
    }
}

fn said_range(least: Duration, most: Duration) -> String {
    format!("\n\nFrom {} to {}.", written(least), written(most))
}

/// As people write it: a year of humantime is no whole number of days.
fn written(duration: Duration) -> String {
    const DAY: u64 = 86_400;
    match duration.as_secs() {
        seconds if seconds > DAY && Duration::from_secs(seconds / DAY * DAY) == duration => {
            format!("{} days", seconds / DAY)
        }
        _ => humantime::format_duration(duration).to_string(),
    }
}

/// The range of the durations of a key, for people.
fn said_range_of(kind: &KeyKind) -> String {
    match kind {
        KeyKind::Duration(least, most) => said_range(*least, *most),
        KeyKind::AnyOf(kinds) => kinds.iter().map(said_range_of).collect(),
        _ => String::new(),
    }
}

fn of_numbers<N: Serialize>(name: &str, bounds: Bounds<N>) -> Value {
    let mut schema = json!({ "type": name, "minimum": bounds.least });
    if let Some(most) = bounds.most {
        schema["maximum"] = json!(most);
    }
    schema
}

fn of_tables(table: &TableDefinition) -> Value {
    json!({ "type": "array", "description": table.about, "items": of_table(table.keys) })
}

fn of_table(keys: &[TableKey]) -> Value {
    let key = |key: &TableKey| {
        let mut schema = of_kind(&key.kind);
        schema["description"] = (key.about.to_owned() + &said_range_of(&key.kind)).into();
        if let Some(default) = key.default {
            schema["default"] = default.into();
        }
        (key.name.to_owned(), schema)
    };
    let properties: Map<_, _> = keys.iter().map(key).collect();
    let mut schema = json!({ "type": "object", "additionalProperties": false, "properties": properties });
    let with = |need: Need| keys.iter().filter(move |key| key.need == need).map(|key| key.name);
    let required: Vec<_> = with(Need::Required).collect();
    if !required.is_empty() {
        schema["required"] = required.into();
    }
    let one_of: Vec<_> = with(Need::OneOf).map(|name| json!({ "required": [name] })).collect();
    if !one_of.is_empty() {
        schema["oneOf"] = one_of.into();
    }
    schema
}

fn of_kind(kind: &KeyKind) -> Value {
    match kind {
        KeyKind::True => json!({ "type": "boolean", "enum": [true] }),
        KeyKind::Text(most) => json!({ "type": "string", "minLength": 1, "maxLength": most }),
        KeyKind::AnyText => json!({ "type": "string" }),
        KeyKind::Duration(..) => json!({ "type": "string", "pattern": DURATION }),
        // Editors take the dates and times of TOML for strings.
        KeyKind::Moment => json!({ "type": "string" }),
        KeyKind::Number(least, most) => json!({ "type": "integer", "minimum": least, "maximum": most }),
        KeyKind::OneOf(names) => json!({ "type": "string", "enum": names() }),
        KeyKind::AnyOf(kinds) => json!({ "anyOf": kinds.iter().map(of_kind).collect::<Vec<_>>() }),
        KeyKind::List(kind) => json!({ "type": "array", "items": of_kind(kind) }),
        KeyKind::SomeOf(kind, most) => {
            json!({ "type": "array", "minItems": 1, "maxItems": most, "items": of_kind(kind) })
        }
        KeyKind::Table(keys) => of_table(keys),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::args::definition;
    use crate::config::document::Document;

    /// The schema that stands in the tree, for editors.
    const IN_THE_TREE: &str = include_str!("../../varta.schema.json");

    #[test]
    fn the_schema_in_the_tree_is_that_of_the_code() {
        let of_code = format!("{:#}\n", schema(&definition()));
        assert!(
            IN_THE_TREE == of_code,
            "write it anew: varta-server config schema > varta-server/varta.schema.json"
        );
    }

    /// A range, and tables that are right when `DURATION` in them is in it.
    type Ranged = (String, [Duration; 2]);

    /// Values of this kind with one duration each, written as `DURATION`.
    fn values(kind: &KeyKind) -> Vec<Ranged> {
        match kind {
            KeyKind::Duration(least, most) => vec![("\"DURATION\"".to_owned(), [*least, *most])],
            KeyKind::AnyOf(kinds) => kinds.iter().flat_map(values).collect(),
            KeyKind::SomeOf(kind, _) | KeyKind::List(kind) => {
                values(kind).into_iter().map(|(value, range)| (format!("[{value}]"), range)).collect()
            }
            KeyKind::Table(keys) => entries(keys)
                .into_iter()
                .map(|(entries, range)| (format!("{{ {} }}", entries.join(", ")), range))
                .collect(),
            _ => Vec::new(),
        }
    }

    /// The entries of tables with these keys and one duration each.
    fn entries(keys: &[TableKey]) -> Vec<(Vec<String>, [Duration; 2])> {
        // Beside a duration stands what a table needs: a text, or of several keys the one with a text.
        let is_text = |key: &&TableKey| matches!(key.kind, KeyKind::Text(_)) && key.need != Need::Optional;
        let needed = |kind: &KeyKind| {
            let needed = keys.iter().filter(|_| !matches!(kind, KeyKind::SomeOf(..))).filter(is_text);
            needed.map(|key| format!("{} = \"a\"", key.name)).collect::<Vec<_>>()
        };
        let key = |key: &TableKey| {
            let (name, needed) = (key.name, needed(&key.kind));
            let with = move |(value, range)| {
                let mut entries = needed.clone();
                entries.push(format!("{name} = {value}"));
                (entries, range)
            };
            values(&key.kind).into_iter().map(with)
        };
        keys.iter().flat_map(key).collect()
    }

    #[test]
    fn the_durations_of_tables_have_the_ranges_that_the_schema_says() {
        let mut count = 0;
        for table in Tables::definitions() {
            for (mut entries, [least, most]) in entries(table.keys) {
                if table.name == "job" && !entries.iter().any(|entry| entry.starts_with("every")) {
                    entries.push("schedule = \"daily\"".to_owned());
                }
                let text = format!("[[{}]]\n{}\n", table.name, entries.join("\n"));
                let takes = |duration: Duration| {
                    let duration = humantime::format_duration(duration).to_string();
                    let text = text.replace("DURATION", &duration);
                    Document::parse(&text, &definition()).1.is_empty()
                };
                assert!(takes(least) && takes(most), "{text}");
                assert!(!takes(most + Duration::from_secs(1)), "{text}");
                let shorter = least.checked_sub(Duration::from_nanos(1));
                assert!(shorter.is_none_or(|shorter| !takes(shorter)), "{text}");
                count += 1;
            }
        }
        assert!(count >= 13, "{count}");
        let schema = schema(&definition());
        let key = |table: &str, key: &str| {
            schema["properties"][table]["items"]["properties"][key]["description"].as_str().map(str::to_owned)
        };
        for (table, name, said) in [
            ("rule", "forget-after", "\n\nFrom 10ms to 366 days."),
            ("rule", "replaced-within", "\n\nFrom 0s to 10m."),
            ("job", "every", "\n\nFrom 1s to 366 days."),
        ] {
            assert!(key(table, name).unwrap().ends_with(said), "{table}: {name}");
        }
    }

    #[test]
    fn each_option_and_table_has_a_type_a_description_and_the_default_that_the_command_line_has() {
        let definition = definition();
        let schema = schema(&definition);
        let properties = schema["properties"].as_object().unwrap();
        let options: Vec<_> = definition.get_arguments().filter(|option| is_setting(option)).collect();
        assert_eq!(properties.len(), options.len() + Tables::definitions().count());
        assert!(!properties.contains_key("config") && properties.contains_key("rule"));
        for (key, schema) in properties {
            assert!(schema["description"].as_str().is_some_and(|text| !text.is_empty()), "{key}");
            assert!(schema["type"].is_string() || schema["anyOf"].is_array(), "{key}");
        }
        let said = |key: &str, range: &str| {
            assert!(properties[key]["description"].as_str().unwrap().ends_with(range), "{}", properties[key]);
        };
        said("stall-after", "\n\nFrom 10ms to 1day.");
        said("beat-every", "\n\nFrom 100ms to 10m.");
        for option in options {
            let key = option.get_long().unwrap();
            let default = properties[key].get("default").map(|default| match default {
                Value::String(text) => text.clone(),
                other => other.to_string(),
            });
            let of_clap = option.get_default_values().first().and_then(|value| value.to_str());
            if let Some(of_clap) = of_clap.filter(|_| OptionKind::of(option) != OptionKind::Switch) {
                assert_eq!(default.as_deref(), Some(of_clap), "{key}");
            }
        }
    }
}
