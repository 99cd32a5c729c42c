//! Typed access to the tables of the configuration file, with errors that carry their position.

use std::borrow::Cow;
use std::fmt::Display;
use std::time::{Duration, SystemTime};

use toml::Spanned;
use toml::de::{DeInteger, DeTable, DeValue};

use crate::base::limits::check_duration;
use crate::base::options::duration::parse_duration;
use crate::base::options::nearest::nearest;
use crate::base::options::table_key::TableKey;
use crate::base::options::timestamp::{NOT_A_MOMENT, parse_moment};

/// What is wrong with the file, and the position in bytes.
#[derive(Debug)]
pub(crate) struct ParseError {
    pub(crate) offset: usize,
    pub(crate) text: String,
}

/// The faults of a file, of which the first [`ParseErrors::MAX`] are kept.
#[derive(Debug, Default)]
pub(crate) struct ParseErrors {
    first: Vec<ParseError>,
    more: usize,
}

impl ParseErrors {
    /// As many are told; a file with more is another file, and not one with mistakes.
    pub(crate) const MAX: usize = 20;

    pub(crate) fn push(&mut self, error: ParseError) {
        if self.first.len() < Self::MAX {
            self.first.push(error);
        } else {
            self.more += 1;
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.first.is_empty()
    }

    /// Whether further faults are only counted.
    pub(crate) fn is_full(&self) -> bool {
        self.first.len() == Self::MAX
    }

    /// The faults in the order of the file, and how many more there are.
    pub(crate) fn in_order(mut self) -> (Vec<ParseError>, usize) {
        self.first.sort_by_key(|error| error.offset);
        (self.first, self.more)
    }
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

/// The entries of a table in the order of the file, in which errors are reported.
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

/// What was left out of a table.
enum LeftOut {
    /// An entry whose key is unknown: without it the table is as it was meant to be.
    Unknown,
    /// A value of the table or list that begins at `of`.
    Value { of: usize },
}

/// Leaves out the innermost entry or item that has a position. `None` if no entry has it. `place` is where the table
/// begins.
fn leave_out(entries: &mut DeTable<'_>, place: usize, position: usize) -> Option<LeftOut> {
    let has_it = |(key, value): &(&TomlKey<'_>, &Value<'_>)| {
        [key.span(), value.span()].iter().any(|span| span.contains(&position))
    };
    let key = entries.iter().find(has_it).map(|(key, _)| key.clone())?;
    if key.span().contains(&position) {
        entries.remove(&key);
        return Some(LeftOut::Unknown);
    }
    let value = entries.get_mut(&key)?;
    let inner = leave_out_inside(value, position);
    Some(inner.unwrap_or_else(|| {
        entries.remove(&key);
        LeftOut::Value { of: place }
    }))
}

/// The same inside a value; `None` if it is the value itself that has the position.
fn leave_out_inside(value: &mut Value<'_>, position: usize) -> Option<LeftOut> {
    let place = value.span().start;
    match value.get_mut() {
        DeValue::Table(entries) => leave_out(entries, place, position),
        DeValue::Array(items) => {
            let index = items.iter().position(|item| item.span().contains(&position))?;
            let inner = leave_out_inside(items.get_mut(index)?, position);
            Some(inner.unwrap_or_else(|| {
                let others = items.iter().enumerate().filter(|(other, _)| *other != index);
                *items = others.map(|(_, item)| item.clone()).collect();
                LeftOut::Value { of: place }
            }))
        }
        _ => None,
    }
}

// Tables.

/// One table of an array, as of `[[rule]]`.
pub(crate) struct Table<'t, 'i> {
    pub(crate) what: &'static str,
    pub(crate) place: &'t Value<'i>,
    pub(crate) entries: &'t DeTable<'i>,
}

/// What tables of one kind are.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TableDefinition {
    /// What stands between the brackets.
    pub(crate) name: &'static str,
    pub(crate) about: &'static str,
    pub(crate) keys: &'static [TableKey],
}

/// All tables of one kind in a file, such as each `[[rule]]`.
pub(crate) trait ReadTables: Clone {
    /// What stands between the brackets.
    const NAME: &'static str;
    /// What such a table is, for people: a line.
    const ABOUT: &'static str;
    /// All of its keys.
    const KEYS: &'static [TableKey];
    /// The keys without which a table is none, each with a value that is right in any of them.
    const REQUIRED: &'static [(&'static str, &'static str)] = &[("name", "a")];

    /// Its definition.
    fn definition() -> TableDefinition {
        TableDefinition { name: Self::NAME, about: Self::ABOUT, keys: Self::KEYS }
    }

    /// Reads the next table.
    fn add(&mut self, table: &Table<'_, '_>) -> Result<(), ParseError>;

    /// Reads the tables under a key of the file, if it is theirs. Whether it is.
    fn read(&mut self, key: &TomlKey<'_>, value: &Value<'_>, faults: &mut ParseErrors) -> bool {
        let what = Self::NAME;
        if key.get_ref() != what {
            return false;
        }
        let misused = |place| ParseError {
            offset: place,
            text: format!("{what}: stands for tables; write [[{what}]] before each"),
        };
        let DeValue::Array(items) = value.get_ref() else {
            faults.push(misused(key.span().start));
            return true;
        };
        for item in items.iter() {
            let DeValue::Table(entries) = item.get_ref() else {
                faults.push(misused(item.span().start));
                continue;
            };
            let table = Table { what, place: item, entries };
            if let Err(first) = self.add(&table) {
                // A look for more takes a copy of all tables before.
                if faults.is_full() {
                    faults.push(first);
                    continue;
                }
                let all = table.all_faults::<Self>(first, |table| self.clone().add(table));
                for ParseError { offset, text } in all {
                    faults.push(ParseError { offset, text: format!("{what}: {text}") });
                }
            }
        }
        true
    }
}

impl<'t, 'i> Table<'t, 'i> {
    /// The faults of the table: the first one, and those that come to light when what has it is left out, or made
    /// right if the table needs it. `read` reads the table. At most [`ParseErrors::MAX`].
    fn all_faults<T: ReadTables>(
        &self,
        first: ParseError,
        read: impl Fn(&Table<'_, 'i>) -> Result<(), ParseError>,
    ) -> Vec<ParseError> {
        let place = self.place.span().start;
        let mut entries = self.entries.clone();
        let supply = |entries: &mut DeTable<'i>, (key, value): (&'static str, &'static str)| {
            // Spans that hold no position: faults there are not those of an entry.
            let value = DeValue::String(Cow::Borrowed(value));
            entries.insert(Spanned::new(place..place, key.into()), Spanned::new(place..place, value));
        };
        let mut faults = Vec::new();
        // Where the tables and lists begin from which something was left out that they may need.
        let mut incomplete: Vec<usize> = Vec::new();
        let mut next = Some(first);
        for _ in 0..ParseErrors::MAX {
            let Some(fault) = next.take() else { break };
            let missing: Vec<_> =
                T::REQUIRED.iter().filter(|(name, _)| !entries.contains_key(*name)).collect();
            // That something is missing is a fault of the file only if nothing was left out there.
            let is_told = !incomplete.contains(&fault.offset);
            match leave_out(&mut entries, place, fault.offset) {
                Some(LeftOut::Unknown) => {}
                Some(LeftOut::Value { of }) => {
                    incomplete.push(of);
                    for required in T::REQUIRED {
                        if !entries.contains_key(required.0) && !missing.contains(&required) {
                            supply(&mut entries, *required);
                        }
                    }
                }
                None if missing.is_empty() => {
                    faults.extend(is_told.then_some(fault));
                    break;
                }
                None => {
                    missing.into_iter().for_each(|required| supply(&mut entries, *required));
                    incomplete.push(place);
                }
            }
            faults.extend(is_told.then_some(fault));
            next = read(&Table { what: self.what, place: self.place, entries: &entries }).err();
        }
        faults
    }

    /// The values of these keys, as far as they are present. Any other key is an error.
    pub(crate) fn values<const N: usize>(
        &self,
        keys: &[TableKey; N],
    ) -> Result<[Option<&'t Value<'i>>; N], ParseError> {
        let mut values = [None; N];
        for (key, value) in in_order(self.entries) {
            let name: &str = key.get_ref();
            match keys.iter().position(|known| known.name == name) {
                Some(place) => values[place] = Some(value),
                None => {
                    let names = keys.each_ref().map(|key| key.name);
                    let hint = match nearest(name, names.into_iter()) {
                        Some(near) => format!("did you mean {near}?"),
                        None => format!("there are {}", names.join(", ")),
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
