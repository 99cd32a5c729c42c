//! Access to the protocol's test vectors, for unit and integration tests.

#![allow(dead_code, reason = "not every test needs every helper")]
#![allow(clippy::panic, clippy::unwrap_used, reason = "the helpers of tests are tests too")]

use serde_json::Value;
use std::vec::Vec;

pub(crate) fn vectors() -> Value {
    serde_json::from_str(include_str!("../tests/data/vectors.json")).unwrap()
}

/// Runs `check` on every entry of a section, with the entry's id for its messages. An empty section fails the
/// test, because it would pass with any code.
pub(crate) fn for_each(section: &str, check: impl Fn(&str, &Value)) {
    let vectors = vectors();
    let entries = vectors[section].as_array().unwrap_or_else(|| panic!("no section {section}"));
    assert!(!entries.is_empty(), "section {section} is empty");
    for entry in entries {
        check(text(entry, "id"), entry);
    }
}

pub(crate) fn text<'a>(entry: &'a Value, key: &str) -> &'a str {
    entry[key].as_str().unwrap_or_else(|| panic!("{key} is no string in {entry}"))
}

/// Reads a number or a decimal string.
pub(crate) fn number<T: TryFrom<u64>>(entry: &Value, key: &str) -> T {
    let number = match &entry[key] {
        Value::String(digits) => digits.parse().unwrap(),
        number => number.as_u64().unwrap_or_else(|| panic!("{key} is no number in {entry}")),
    };
    T::try_from(number).unwrap_or_else(|_| panic!("{key} is out of range in {entry}"))
}

/// Reads a number as [`number`] does; `None` if the key is absent.
pub(crate) fn optional<T: TryFrom<u64>>(entry: &Value, key: &str) -> Option<T> {
    entry.get(key).map(|_| number(entry, key))
}

pub(crate) fn hex(entry: &Value, key: &str) -> Vec<u8> {
    let (pairs, []) = text(entry, key).as_bytes().as_chunks::<2>() else {
        panic!("{key} has an odd length in {entry}");
    };
    let byte = |pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    pairs.iter().map(|pair| byte(pair)).collect()
}
