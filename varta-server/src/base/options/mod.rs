//! Building blocks of a configuration section: tables of the file, values, timestamps, suggestions.

pub(crate) mod nearest;
pub(crate) mod table;
pub(crate) mod timestamp;
pub(crate) mod values;

pub(crate) use self::values::{Address, Mode};
