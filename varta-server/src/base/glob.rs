use std::str::Chars;

use crate::base::limits::EntryError;

/// A pattern for names: `*` stands for any characters or none, `?` for one, everything else for itself.
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
    /// The length of the longest pattern, in characters.
    pub const MAX_LEN: usize = 128;

    /// Checks a text and makes it a pattern. It may have characters that no agent can give itself in a name: the
    /// kernel's names for processes, which others go by, may hold anything.
    ///
    /// # Errors
    ///
    /// [`EntryError::NotAPattern`] when it is empty or too long, or has a control character.
    pub fn parse(text: &str) -> Result<Self, EntryError> {
        let length = text.chars().take(Self::MAX_LEN + 1).count();
        if length == 0 || length > Self::MAX_LEN || text.chars().any(char::is_control) {
            return Err(EntryError::NotAPattern { most: Self::MAX_LEN });
        }
        Ok(Glob(text.into()))
    }

    /// The pattern that fits every name.
    #[must_use]
    pub fn any() -> Self {
        Glob("*".into())
    }

    /// The pattern as it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether the whole of `name` fits. Takes no more steps than the product of both lengths.
    #[must_use]
    pub fn matches(&self, name: &str) -> bool {
        let (mut pattern, mut name) = (self.0.chars(), name.chars());
        // What comes after the last star, and the part of the name at which that was tried.
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
                // The last star alone need be tried anew: an earlier one could only give it less to choose from.
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
