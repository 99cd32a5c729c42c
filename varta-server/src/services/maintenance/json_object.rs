//! A JSON object from outside, taken apart key by key.

use serde_json::{Map, Value};

/// What is left of an object.
#[derive(Debug)]
pub(crate) struct Fields(Map<String, Value>);

impl Fields {
    /// Reads a text.
    ///
    /// # Errors
    ///
    /// When it is no JSON, or no object.
    pub(crate) fn parse(text: &[u8]) -> Result<Self, String> {
        let value = serde_json::from_slice(text).map_err(|error| format!("is not JSON: {error}"))?;
        Fields::of(value)
    }

    /// Takes a value.
    ///
    /// # Errors
    ///
    /// When it is no object.
    pub(crate) fn of(value: Value) -> Result<Self, String> {
        match value {
            Value::Object(fields) => Ok(Fields(fields)),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
                Err("is not a JSON object".to_owned())
            }
        }
    }

    /// Takes a key's value; `null` is as good as nothing.
    fn take(&mut self, key: &str) -> Option<Value> {
        self.0.remove(key).filter(|value| !value.is_null())
    }

    /// Takes a text, if it is there.
    pub(crate) fn text(&mut self, key: &str) -> Result<Option<String>, String> {
        match self.take(key) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(format!("{key}: is not a string")),
        }
    }

    /// Takes a whole number that is not negative, if it is there.
    pub(crate) fn number(&mut self, key: &str) -> Result<Option<u64>, String> {
        let wrong = || format!("{key}: is not a whole number from 0 to 18446744073709551615");
        self.take(key).map(|value| value.as_u64().ok_or_else(wrong)).transpose()
    }

    /// Takes a text that must be there.
    pub(crate) fn need_text(&mut self, key: &str) -> Result<String, String> {
        self.text(key)?.ok_or_else(|| format!("{key}: is missing"))
    }

    /// Takes a number that must be there.
    pub(crate) fn need_number(&mut self, key: &str) -> Result<u64, String> {
        self.number(key)?.ok_or_else(|| format!("{key}: is missing"))
    }

    /// Takes a list; one that is not there is empty.
    pub(crate) fn list(&mut self, key: &str) -> Result<Vec<Value>, String> {
        match self.take(key) {
            None => Ok(Vec::new()),
            Some(Value::Array(list)) => Ok(list),
            Some(_) => Err(format!("{key}: is not a list")),
        }
    }

    /// Takes what is true or false; what is not there is false.
    pub(crate) fn flag(&mut self, key: &str) -> Result<bool, String> {
        match self.take(key) {
            None => Ok(false),
            Some(Value::Bool(flag)) => Ok(flag),
            Some(_) => Err(format!("{key}: is neither true nor false")),
        }
    }

    /// Sees to it that nothing is left.
    ///
    /// # Errors
    ///
    /// When there is a key that nobody has asked for.
    pub(crate) fn end(self) -> Result<(), String> {
        match self.0.into_iter().next() {
            None => Ok(()),
            Some((key, _)) => Err(format!("{}: there is no such key here", key.escape_debug())),
        }
    }
}
