//! Labels: key-value pairs by which operators sort agents. An agent sends its own in its Hello.

use std::fmt;
use std::sync::Arc;

use serde::{Serialize, Serializer};

/// An agent's labels, sorted by key. Most agents have none, which take no memory. Cheap to clone.
///
/// ```
/// use varta_server::labels::Labels;
///
/// let labels: Labels = [("zone", "a"), ("team", "payments")].into_iter().collect();
/// assert_eq!(labels.get("team"), Some("payments"));
/// assert_eq!(labels.to_string(), "team=payments, zone=a");
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Labels(Option<Arc<[Label]>>);

/// A key and its value.
type Label = (Box<str>, Box<str>);

impl Labels {
    /// Whether there are no labels.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// The value of the label with this key.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&str> {
        self.iter().find(|(known, _)| *known == key).map(|(_, value)| value)
    }

    /// Keys and values, in the order of the keys.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().flat_map(|labels| labels.iter()).map(|(key, value)| (&**key, &**value))
    }
}

/// Of several labels with the same key the first is kept.
impl<'l> FromIterator<(&'l str, &'l str)> for Labels {
    fn from_iter<I: IntoIterator<Item = (&'l str, &'l str)>>(labels: I) -> Self {
        let mut labels: Vec<Label> =
            labels.into_iter().map(|(key, value)| (key.into(), value.into())).collect();
        labels.sort_by(|(one, _), (other, _)| one.cmp(other));
        labels.dedup_by(|(later, _), (earlier, _)| later == earlier);
        Labels((!labels.is_empty()).then(|| labels.into()))
    }
}

/// A map, in the order of the keys.
impl Serialize for Labels {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.iter())
    }
}

/// `team=payments, zone=a`.
impl fmt::Display for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, (key, value)) in self.iter().enumerate() {
            write!(f, "{}{key}={value}", if place > 0 { ", " } else { "" })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn none_are_no_memory_and_the_first_of_a_key_counts() {
        assert!(Labels::from_iter([]).is_empty());
        assert_eq!(Labels::default(), Labels::from_iter([]));
        let labels: Labels = [("b", "1"), ("a", "2"), ("b", "3")].into_iter().collect();
        assert_eq!(labels.iter().collect::<Vec<_>>(), [("a", "2"), ("b", "1")]);
        assert_eq!(labels.get("c"), None);
    }
}
