//! The keys of tables of the configuration file: one list for their parser and for the schema of the file.

use std::time::Duration;

use crate::base::limits::{MAX_DURATION, MIN_STALL_AFTER};

/// A key of a table.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TableKey {
    pub(crate) name: &'static str,
    pub(crate) kind: KeyKind,
    pub(crate) need: Need,
    /// The value without the key, as it would be written; `None` if that is no single value.
    pub(crate) default: Option<&'static str>,
    /// What it is, for people: a line.
    pub(crate) about: &'static str,
}

/// Whether a table has a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Need {
    Optional,
    Required,
    /// A table has exactly one of the keys with this need.
    OneOf,
}

/// What values a key has.
#[derive(Clone, Copy, Debug)]
pub(crate) enum KeyKind {
    /// `true`, or left out.
    True,
    /// A string of 1 to so many characters.
    Text(usize),
    /// A string.
    AnyText,
    /// A duration in this range, such as `"1m"`.
    Duration(Duration, Duration),
    /// A date and time with an offset from UTC.
    Moment,
    /// A whole number in this range.
    Number(u32, u32),
    /// One of these strings.
    OneOf(fn() -> Vec<&'static str>),
    /// A value of one of these kinds.
    AnyOf(&'static [KeyKind]),
    /// A list.
    List(&'static KeyKind),
    /// A list of 1 to so many values.
    SomeOf(&'static KeyKind, usize),
    /// A table with these keys.
    Table(&'static [TableKey]),
}

impl KeyKind {
    /// A duration as [`table::duration`](crate::base::options::table::duration) takes it.
    pub(crate) const ANY_DURATION: Self = KeyKind::Duration(MIN_STALL_AFTER, MAX_DURATION);
}

impl TableKey {
    /// A key that may be left out.
    pub(crate) const fn optional(name: &'static str, kind: KeyKind, about: &'static str) -> Self {
        TableKey { name, kind, need: Need::Optional, default: None, about }
    }

    /// A key that each table has.
    pub(crate) const fn required(name: &'static str, kind: KeyKind, about: &'static str) -> Self {
        TableKey { need: Need::Required, ..Self::optional(name, kind, about) }
    }

    /// A key of those of which each table has exactly one.
    pub(crate) const fn one_of(name: &'static str, kind: KeyKind, about: &'static str) -> Self {
        TableKey { need: Need::OneOf, ..Self::optional(name, kind, about) }
    }

    /// The key with the value that it has without being given.
    pub(crate) const fn or(self, default: &'static str) -> Self {
        TableKey { default: Some(default), ..self }
    }
}
