//! The labels of one agent.

use core::fmt;

use super::Label;
use super::wire::{MAX_CONTROL_LEN, MAX_HELLO_FIELDS_LEN, MIN_CONTROL_LEN, split_entry, tag};

/// The maximum number of labels of an agent.
pub const MAX_LABELS: usize = 8;

/// The labels of one agent, ready to send: at most [`MAX_LABELS`], and no two with one key.
///
/// The set stores its labels as encoded entries, within the room that a [`Hello`](super::Hello) has left when
/// all its other entries are set. So every `LabelSet` can be sent, and labels that are too many or too long
/// are an error when the agent is configured.
///
/// ```
/// use varta_proto::control::{Label, LabelSet, LabelSetError};
///
/// let mut labels = LabelSet::new();
/// labels.push(Label::new("team", "payments")?)?;
/// assert_eq!(labels.push(Label::new("team", "search")?), Err(LabelSetError::RepeatedKey));
/// assert_eq!(labels.iter().count(), 1);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct LabelSet {
    entries: [u8; Self::ROOM],
    len: usize,
    count: usize,
}

impl LabelSet {
    /// The maximum length of all labels together, in bytes; each label takes two bytes more than its text.
    pub const ROOM: usize = MAX_CONTROL_LEN - MIN_CONTROL_LEN - MAX_HELLO_FIELDS_LEN;

    /// Creates an empty set.
    ///
    /// ```
    /// const NONE: varta_proto::control::LabelSet = varta_proto::control::LabelSet::new();
    /// assert_eq!(NONE.iter().next(), None);
    /// ```
    pub const fn new() -> Self {
        Self { entries: [0; Self::ROOM], len: 0, count: 0 }
    }

    /// Appends a label.
    ///
    /// ```
    /// use varta_proto::control::{Label, LabelSet, LabelSetError};
    ///
    /// let mut labels = LabelSet::new();
    /// for key in ["a", "b", "c", "d", "e", "f", "g", "h"] {
    ///     labels.push(Label::new(key, "1")?)?;
    /// }
    /// assert_eq!(labels.push(Label::new("i", "1")?), Err(LabelSetError::TooMany));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`LabelSetError`]; the set is unchanged then.
    pub fn push(&mut self, label: Label<'_>) -> Result<(), LabelSetError> {
        let (key, value) = (label.key(), label.value());
        if self.count == MAX_LABELS {
            return Err(LabelSetError::TooMany);
        }
        if self.iter().contains_key(key) {
            return Err(LabelSetError::RepeatedKey);
        }
        let len = key.len() + "=".len() + value.len();
        let slot = self.entries[self.len..].get_mut(..2 + len).ok_or(LabelSetError::NoRoom)?;
        slot[0] = tag::LABEL;
        slot[1] = u8::try_from(len).map_err(|_| LabelSetError::NoRoom)?;
        let (left, right) = slot[2..].split_at_mut(key.len());
        left.copy_from_slice(key.as_bytes());
        right[0] = b'=';
        right[1..].copy_from_slice(value.as_bytes());
        self.len += slot.len();
        self.count += 1;
        Ok(())
    }

    /// Returns the labels in the order of [`push`](Self::push).
    ///
    /// ```
    /// use varta_proto::control::{Label, LabelSet};
    ///
    /// let mut labels = LabelSet::new();
    /// labels.push(Label::new("zone", "a")?)?;
    /// assert_eq!(labels.iter().map(|label| label.to_string()).collect::<Vec<_>>(), ["zone=a"]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn iter(&self) -> Labels<'_> {
        Labels::in_entries(self.as_entries())
    }

    /// Returns the labels as entries of a body.
    pub(super) fn as_entries(&self) -> &[u8] {
        &self.entries[..self.len]
    }
}

impl Default for LabelSet {
    fn default() -> Self {
        Self::new()
    }
}

impl<'a> IntoIterator for &'a LabelSet {
    type Item = Label<'a>;
    type IntoIter = Labels<'a>;

    fn into_iter(self) -> Labels<'a> {
        self.iter()
    }
}

/// Two sets are equal if they have the same labels in the same order.
impl PartialEq for LabelSet {
    fn eq(&self, other: &Self) -> bool {
        self.as_entries() == other.as_entries()
    }
}

impl Eq for LabelSet {}

impl fmt::Debug for LabelSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.iter().fmt(f)
    }
}

/// Why a label cannot be added to a set.
///
/// ```
/// use varta_proto::control::LabelSetError;
///
/// assert_eq!(LabelSetError::TooMany.to_string(), "an agent has at most 8 labels");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LabelSetError {
    /// The set has [`MAX_LABELS`] labels already.
    TooMany,
    /// The set has a label with this key already.
    RepeatedKey,
    /// All labels together would be longer than [`LabelSet::ROOM`].
    NoRoom,
}

impl fmt::Display for LabelSetError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooMany => write!(f, "an agent has at most {MAX_LABELS} labels"),
            Self::RepeatedKey => f.write_str("an agent has no two labels with one key"),
            Self::NoRoom => {
                write!(f, "an agent's labels have at most {} bytes, and take two more each", LabelSet::ROOM)
            }
        }
    }
}

impl core::error::Error for LabelSetError {}

/// The labels of a [`LabelSet`] or a [`Control`](super::Control), in order.
///
/// ```
/// use varta_proto::control::{Label, LabelSet};
///
/// let mut set = LabelSet::new();
/// set.push(Label::new("zone", "a")?)?;
/// let mut labels = set.iter();
/// assert_eq!(labels.next(), Some(Label::new("zone", "a")?));
/// assert_eq!(labels.next(), None);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Labels<'a> {
    /// Entries of a body, which may have other tags too.
    rest: &'a [u8],
}

impl<'a> Labels<'a> {
    /// Iterates over entries whose labels have been checked.
    pub(super) const fn in_entries(entries: &'a [u8]) -> Self {
        Self { rest: entries }
    }

    /// Returns whether one of the labels has this key.
    pub(super) fn contains_key(mut self, key: &str) -> bool {
        self.any(|label| label.key() == key)
    }
}

impl<'a> Iterator for Labels<'a> {
    type Item = Label<'a>;

    fn next(&mut self) -> Option<Label<'a>> {
        while let Some((tag, value, rest)) = split_entry(self.rest) {
            self.rest = rest;
            if tag == tag::LABEL {
                return Label::from_wire(value);
            }
        }
        None
    }
}

impl core::iter::FusedIterator for Labels<'_> {}

/// Shows the remaining labels as a map.
impl fmt::Debug for Labels<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.clone().map(|label| (label.key(), label.value()))).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::string::ToString;

    #[test]
    fn a_refused_label_changes_nothing() {
        let long = "x".repeat(240);
        let mut labels = LabelSet::new();
        labels.push(Label::new("a", &long).unwrap()).unwrap();
        let before = labels.clone();
        assert_eq!(labels.push(Label::new("a", "").unwrap()), Err(LabelSetError::RepeatedKey));
        assert_eq!(labels.push(Label::new("b", &long).unwrap()), Err(LabelSetError::NoRoom));
        assert_eq!(labels, before);
        assert_eq!(
            LabelSetError::NoRoom.to_string(),
            "an agent's labels have at most 362 bytes, and take two more each"
        );
    }

    #[test]
    fn the_room_can_be_filled_to_the_last_byte() {
        let mut labels = LabelSet::new();
        labels.push(Label::new("a", &"x".repeat(200)).unwrap()).unwrap();
        let left = LabelSet::ROOM - 204 - 4;
        labels.push(Label::new("b", &"x".repeat(left)).unwrap()).unwrap();
        assert_eq!(labels.as_entries().len(), LabelSet::ROOM);
        assert_eq!(labels.iter().count(), 2);
    }
}
