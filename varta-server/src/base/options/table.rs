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

// Tables.

/// One table of an array, as of `[[rule]]`.
pub(crate) struct Table<'t, 'i> {
    pub(crate) what: &'static str,
    pub(crate) place: &'t Value<'i>,
    pub(crate) entries: &'t DeTable<'i>,
}

/// All tables of one kind in a file, such as each `[[rule]]`.
pub(crate) trait ReadTables: Default {
    /// What stands between the brackets.
    const NAME: &'static str;
    /// The keys without which a table is none, each with a value that is right in any of them.
    const REQUIRED: &'static [(&'static str, &'static str)] = &[("name", "a")];

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
                for ParseError { offset, text } in table.all_faults::<Self>(first) {
                    faults.push(ParseError { offset, text: format!("{what}: {text}") });
                }
            }
        }
        true
    }
}

impl<'t, 'i> Table<'t, 'i> {
    /// The faults of the table: the first one, and those that come to light when the entry that has it is left
    /// out, or made right if the table needs it. At most [`ParseErrors::MAX`].
    fn all_faults<T: ReadTables>(&self, first: ParseError) -> Vec<ParseError> {
        let place = self.place.span().start;
        let mut entries = self.entries.clone();
        let supply = |entries: &mut DeTable<'i>, (key, value): (&'static str, &'static str)| {
            // Spans that hold no position: faults there are not those of an entry.
            let value = DeValue::String(Cow::Borrowed(value));
            entries.insert(Spanned::new(place..place, key.into()), Spanned::new(place..place, value));
        };
        let mut faults = Vec::new();
        let mut next = Some(first);
        let mut is_whole = true;
        for _ in 0..ParseErrors::MAX {
            let Some(fault) = next.take() else { break };
            let has_it = |(key, value): &(&TomlKey<'i>, &Value<'i>)| {
                [key.span(), value.span()].iter().any(|span| span.contains(&fault.offset))
            };
            let found = entries.iter().find(has_it).map(|(key, _)| key.clone());
            let mut is_told = true;
            if let Some(key) = found {
                // Without an unknown key the table is as it was meant to be.
                is_whole &= key.span().contains(&fault.offset);
                entries.remove(&key);
                let required = T::REQUIRED.iter().find(|(name, _)| *name == key.get_ref());
                required.into_iter().for_each(|required| supply(&mut entries, *required));
            } else {
                // Something is missing, which is a fault of the file only if nothing was left out here.
                is_told = is_whole;
                let missing: Vec<_> =
                    T::REQUIRED.iter().filter(|(name, _)| !entries.contains_key(*name)).collect();
                if missing.is_empty() {
                    faults.extend(is_told.then_some(fault));
                    break;
                }
                missing.into_iter().for_each(|required| supply(&mut entries, *required));
                is_whole = false;
            }
            faults.extend(is_told.then_some(fault));
            let rest = Table { what: self.what, place: self.place, entries: &entries };
            next = T::default().add(&rest).err();
        }
        faults
    }

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
