//! Glob patterns for agent names, as rules and pauses have them.

use std::str::Chars;

use crate::base::limits::EntryError;

/// A glob pattern: `*` matches any characters or none, `?` matches one, and every other character itself.
///
/// ```
/// use varta_server::config::Glob;
///
/// let glob = Glob::parse("billing-*")?;
/// assert!(glob.matches("billing-worker") && !glob.matches("mail"));
/// # Ok::<(), varta_server::config::EntryError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Glob(Box<str>);

impl Glob {
    /// The most characters of a pattern.
    pub const MAX_LEN: usize = 128;

    /// Parses a pattern. It may contain characters that no agent can choose for its name, because an agent
    /// without a name has the kernel's name for its process, which may hold anything.
    ///
    /// # Errors
    ///
    /// [`EntryError::NotAPattern`] for a text that is empty, too long, or has a control character.
    pub fn parse(text: &str) -> Result<Self, EntryError> {
        let length = text.chars().take(Self::MAX_LEN + 1).count();
        if length == 0 || length > Self::MAX_LEN || text.chars().any(char::is_control) {
            return Err(EntryError::NotAPattern { most: Self::MAX_LEN });
        }
        Ok(Glob(text.into()))
    }

    /// The pattern that matches every name.
    #[must_use]
    pub fn any() -> Self {
        Glob("*".into())
    }

    /// The pattern as it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether the pattern matches the whole `name`, in at most as many steps as the product of both lengths.
    #[must_use]
    pub fn matches(&self, name: &str) -> bool {
        let (mut pattern, mut name) = (self.0.chars(), name.chars());
        // The pattern after the last star, and the rest of the name at which it was last tried.
        let mut star: Option<(Chars<'_>, Chars<'_>)> = None;
        loop {
            let (mut after, mut rest) = (pattern.clone(), name.clone());
            match (after.next(), rest.next()) {
                (None, None) => return true,
                (Some('*'), _) => {
                    star = Some((after.clone(), name.clone()));
                    pattern = after;
                }
                (Some(wanted), Some(found)) if wanted == '?' || wanted == found => {
                    (pattern, name) = (after, rest);
                }
                // Only the last star needs another try: a longer match of an earlier one leaves it less to
                // choose from.
                (Some(_) | None, Some(_) | None) => {
                    let Some((after_star, tried)) = &mut star else { return false };
                    if tried.next().is_none() {
                        return false;
                    }
                    (pattern, name) = (after_star.clone(), tried.clone());
                }
            }
        }
    }
}
