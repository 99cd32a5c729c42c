//! Typed access to the tables of the configuration file, with errors that carry their position.

use std::borrow::Cow;
use std::fmt::Display;
use std::time::{Duration, SystemTime};

use toml::Spanned;
use toml::de::{DeInteger, DeTable, DeValue};

use crate::base::limits::check_duration;
use crate::base::options::duration::parse_duration;
use crate::base::options::nearest::nearest;
use crate::base::options::timestamp::{NOT_A_MOMENT, parse_moment};

/// What is wrong with the file, and the position in bytes.
#[derive(Debug)]
pub(crate) struct ParseError {
    pub(crate) offset: usize,
    pub(crate) text: String,
}

pub(crate) type TomlKey<'i> = Spanned<Cow<'i, str>>;
pub(crate) type Value<'i> = Spanned<DeValue<'i>>;

/// The line number of a byte offset, counted from 1.
pub(crate) fn line_at(text: &[u8], offset: usize) -> usize {
    1 + text.iter().take(offset).filter(|byte| **byte == b'\n').count()
}

pub(crate) fn at<T>(place: &Spanned<T>, fault: impl Display) -> ParseError {
    ParseError { offset: place.span().start, text: fault.to_string() }
}

/// The entries of a table in the order of the file, so that the first error in it is reported.
pub(crate) fn in_order<'t, 'i>(table: &'t DeTable<'i>) -> Vec<(&'t TomlKey<'i>, &'t Value<'i>)> {
    let mut entries: Vec<_> = table.iter().collect();
    entries.sort_by_key(|(key, _)| key.span().start);
    entries
}

pub(crate) fn decimal(number: &DeInteger<'_>) -> Option<String> {
    i128::from_str_radix(number.as_str(), number.radix()).ok().map(|number| number.to_string())
}

pub(crate) fn wrong_type(found: &DeValue<'_>, wanted: &str) -> String {
    let found = match found {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "an integer",
        DeValue::Float(_) => "a fraction",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date or time",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    };
    format!("is {found}, and {wanted} wanted")
}

// Tables.

/// One table of an array, as of `[[rule]]`.
pub(crate) struct Table<'t, 'i> {
    pub(crate) what: &'static str,
    pub(crate) place: &'t Value<'i>,
    pub(crate) entries: &'t DeTable<'i>,
}

/// All tables of one kind in a file, such as each `[[rule]]`.
pub(crate) trait ReadTables {
    /// What stands between the brackets.
    const NAME: &'static str;

    /// Reads the next table.
    fn add(&mut self, table: &Table<'_, '_>) -> Result<(), ParseError>;

    /// Reads the tables under a key of the file, if it is theirs. Whether it is.
    fn read(&mut self, key: &TomlKey<'_>, value: &Value<'_>) -> Result<bool, ParseError> {
        let what = Self::NAME;
        if key.get_ref() != what {
            return Ok(false);
        }
        let misused = |place| ParseError {
            offset: place,
            text: format!("{what}: stands for tables; write [[{what}]] before each"),
        };
        let DeValue::Array(items) = value.get_ref() else { return Err(misused(key.span().start)) };
        for item in items.iter() {
            let DeValue::Table(entries) = item.get_ref() else { return Err(misused(item.span().start)) };
            self.add(&Table { what, place: item, entries }).map_err(|ParseError { offset, text }| {
                ParseError { offset, text: format!("{what}: {text}") }
            })?;
        }
        Ok(true)
    }
}

impl<'t, 'i> Table<'t, 'i> {
    /// The values of these keys, as far as they are present. Any other key is an error.
    pub(crate) fn values<const N: usize>(
        &self,
        keys: [&str; N],
    ) -> Result<[Option<&'t Value<'i>>; N], ParseError> {
        let mut values = [None; N];
        for (key, value) in in_order(self.entries) {
            let name: &str = key.get_ref();
            match keys.iter().position(|known| *known == name) {
                Some(place) => values[place] = Some(value),
                None => {
                    let hint = match nearest(name, keys.into_iter()) {
                        Some(near) => format!("did you mean {near}?"),
                        None => format!("there are {}", keys.join(", ")),
                    };
                    return Err(at(key, format!("{}: there is no such key; {hint}", name.escape_debug())));
                }
            }
        }
        Ok(values)
    }

    pub(crate) fn name(&self, value: Option<&'t Value<'i>>) -> Result<(&'t Value<'i>, &'t str), ParseError> {
        let value = value.ok_or_else(|| at(self.place, format!("a [[{}]] needs a name", self.what)))?;
        text("name", value).map(|name| (value, name))
    }
}

pub(crate) fn text<'t>(key: &str, value: &'t Value<'_>) -> Result<&'t str, ParseError> {
    match value.get_ref() {
        DeValue::String(text) => Ok(text),
        other => Err(at(value, format!("{key}: {}", wrong_type(other, "a string is")))),
    }
}

pub(crate) fn duration(key: &'static str, value: &Value<'_>) -> Result<Duration, ParseError> {
    let duration = grace(key, value)?;
    check_duration(key, duration).map_err(|error| at(value, error))?;
    Ok(duration)
}

/// A duration of any length, also zero; its range is for the caller to check.
pub(crate) fn grace(key: &'static str, value: &Value<'_>) -> Result<Duration, ParseError> {
    let text = text(key, value)?;
    parse_duration(text).map_err(|error| at(value, format!("{key}: `{}`: {error}", text.escape_debug())))
}

/// A TOML datetime, or a string that holds one.
pub(crate) fn moment(key: &'static str, value: &Value<'_>) -> Result<SystemTime, ParseError> {
    let text = match value.get_ref() {
        DeValue::Datetime(written) => Cow::Owned(written.to_string()),
        _ => Cow::Borrowed(text(key, value)?),
    };
    parse_moment(&text).ok_or_else(|| at(value, format!("{key}: `{}` {NOT_A_MOMENT}", text.escape_debug())))
}
