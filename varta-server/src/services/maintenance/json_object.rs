//! A JSON object from outside, read key by key.

use serde_json::{Map, Value};

/// The keys of an object that are not read yet.
#[derive(Debug)]
pub(crate) struct JsonObject(Map<String, Value>);

impl JsonObject {
    /// Parses a text.
    ///
    /// # Errors
    ///
    /// The text is not JSON, or not an object.
    pub(crate) fn parse(text: &[u8]) -> Result<Self, String> {
        let value = serde_json::from_slice(text).map_err(|error| format!("is not JSON: {error}"))?;
        JsonObject::of(value)
    }

    /// Converts a value.
    ///
    /// # Errors
    ///
    /// The value is not an object.
    pub(crate) fn of(value: Value) -> Result<Self, String> {
        match value {
            Value::Object(fields) => Ok(JsonObject(fields)),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
                Err("is not a JSON object".to_owned())
            }
        }
    }

    /// Reads any value; `null` counts as absent.
    pub(crate) fn value(&mut self, key: &str) -> Option<Value> {
        self.take(key)
    }

    /// Removes a key, and returns its value; `null` counts as absent.
    fn take(&mut self, key: &str) -> Option<Value> {
        self.0.remove(key).filter(|value| !value.is_null())
    }

    /// Reads an optional string.
    pub(crate) fn text(&mut self, key: &str) -> Result<Option<String>, String> {
        match self.take(key) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(format!("{key}: is not a string")),
        }
    }

    /// Reads an optional integer that is not negative.
    pub(crate) fn number(&mut self, key: &str) -> Result<Option<u64>, String> {
        let wrong = || format!("{key}: is not a whole number from 0 to 18446744073709551615");
        self.take(key).map(|value| value.as_u64().ok_or_else(wrong)).transpose()
    }

    /// Reads a required string.
    pub(crate) fn need_text(&mut self, key: &str) -> Result<String, String> {
        self.text(key)?.ok_or_else(|| format!("{key}: is missing"))
    }

    /// Reads a required integer that is not negative.
    pub(crate) fn need_number(&mut self, key: &str) -> Result<u64, String> {
        self.number(key)?.ok_or_else(|| format!("{key}: is missing"))
    }

    /// Reads a list of strings; an absent one is empty.
    pub(crate) fn texts(&mut self, key: &str) -> Result<Vec<String>, String> {
        let text = |value| match value {
            Value::String(text) => Ok(text),
            _ => Err(format!("{key}: one is not a string")),
        };
        self.list(key)?.into_iter().map(text).collect()
    }

    /// Reads a list; an absent one is empty.
    pub(crate) fn list(&mut self, key: &str) -> Result<Vec<Value>, String> {
        match self.take(key) {
            None => Ok(Vec::new()),
            Some(Value::Array(list)) => Ok(list),
            Some(_) => Err(format!("{key}: is not a list")),
        }
    }

    /// Reads a boolean; an absent one is false.
    pub(crate) fn flag(&mut self, key: &str) -> Result<bool, String> {
        match self.take(key) {
            None => Ok(false),
            Some(Value::Bool(flag)) => Ok(flag),
            Some(_) => Err(format!("{key}: is neither true nor false")),
        }
    }

    /// Checks that all keys were read.
    ///
    /// # Errors
    ///
    /// A key is not known.
    pub(crate) fn end(self) -> Result<(), String> {
        match self.0.into_iter().next() {
            None => Ok(()),
            Some((key, _)) => Err(format!("{}: there is no such key here", key.escape_debug())),
        }
    }
}
