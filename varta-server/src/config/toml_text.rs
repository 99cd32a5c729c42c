//! Values as TOML on one line.

use std::fmt::Write;

use toml::de::DeValue;

use crate::base::options::table::{Value, decimal, in_order};

/// A basic string: quoted, with what may not stand in one escaped.
pub(crate) fn string(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            '\n' => quoted.push_str("\\n"),
            '\t' => quoted.push_str("\\t"),
            c if c.is_control() => {
                // Writing to a `String` cannot fail.
                let _ = write!(quoted, "\\u{:04X}", u32::from(c));
            }
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

/// A value of a file.
pub(crate) fn value(value: &Value<'_>) -> String {
    match value.get_ref() {
        DeValue::String(text) => string(text),
        DeValue::Integer(number) => decimal(number).unwrap_or_else(|| number.as_str().to_owned()),
        DeValue::Float(number) => number.as_str().to_owned(),
        DeValue::Boolean(is_true) => is_true.to_string(),
        DeValue::Datetime(moment) => moment.to_string(),
        DeValue::Array(items) => list(items.iter().map(self::value)),
        DeValue::Table(entries) => {
            let entries = in_order(entries).into_iter();
            let entries =
                entries.map(|(key, value)| format!("{} = {}", self::key(key.get_ref()), self::value(value)));
            let entries: Vec<_> = entries.collect();
            if entries.is_empty() { "{}".to_owned() } else { format!("{{ {} }}", entries.join(", ")) }
        }
    }
}

/// A list of values.
pub(crate) fn list(values: impl IntoIterator<Item = String>) -> String {
    format!("[{}]", values.into_iter().collect::<Vec<_>>().join(", "))
}

/// A key, quoted if it has to be.
pub(crate) fn key(name: &str) -> String {
    let is_bare = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if !name.is_empty() && name.chars().all(is_bare) { name.to_owned() } else { string(name) }
}

/// A text in a comment, which may have no control characters.
pub(crate) fn in_comment(text: &str) -> String {
    text.chars().flat_map(|c| if c.is_control() { c.escape_unicode().collect() } else { vec![c] }).collect()
}

/// A value of a file as JSON. Dates and times are strings.
pub(crate) fn to_json(value: &Value<'_>) -> serde_json::Value {
    match value.get_ref() {
        DeValue::String(text) => text.to_string().into(),
        DeValue::Integer(number) => {
            let number = decimal(number).unwrap_or_default();
            number.parse::<i64>().map_or_else(|_| number.into(), Into::into)
        }
        DeValue::Float(number) => {
            number.as_str().parse::<f64>().map_or_else(|_| number.as_str().into(), Into::into)
        }
        DeValue::Boolean(is_true) => (*is_true).into(),
        DeValue::Datetime(moment) => moment.to_string().into(),
        DeValue::Array(items) => items.iter().map(to_json).collect(),
        DeValue::Table(entries) => {
            let entries = in_order(entries).into_iter();
            entries.map(|(key, value)| (key.get_ref().to_string(), to_json(value))).collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use toml::de::DeTable;

    use super::*;

    #[test]
    fn a_value_that_is_written_is_read_as_the_same() {
        for text in [
            r#""a""#,
            r#""quote \" back \\ tab \t line \n nul \u0000 del \u007F ü""#,
            "-7",
            "0x10",
            "1.5",
            "true",
            "1970-01-01T01:00:00+01:00",
            "[1, [2, \"a\"], {}]",
            "{ a = 1, \"b c\" = { d = [] } }",
        ] {
            let file = format!("k = {text}");
            let parsed = DeTable::parse(&file).unwrap();
            let (_, first) = in_order(parsed.get_ref())[0];
            let written = value(first);
            assert!(!written.contains('\n'), "{written}");
            let again = format!("k = {written}");
            let again = DeTable::parse(&again).unwrap();
            let (_, second) = in_order(again.get_ref())[0];
            assert_eq!((to_json(first), &written), (to_json(second), &value(second)));
        }
        assert_eq!(in_comment("a\nb\u{7f}"), r"a\u{a}b\u{7f}");
    }
}
