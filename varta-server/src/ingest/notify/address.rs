//! The address of a socket for notifications, as `NOTIFY_SOCKET` writes it.

use std::ffi::OsStr;
use std::fmt;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// The most bytes of an abstract name in `sockaddr_un`, without the zero before it.
const MAX_NAME_LEN: usize = 107;

/// The path of a file, or a name in the abstract namespace, which needs no file and can be reached from a `chroot`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum NotifyAddress {
    /// A path, which is absolute: services change their working directory.
    Path(PathBuf),
    /// A name of the network namespace, written as `@name`.
    Abstract(String),
}

impl NotifyAddress {
    /// The path; `None` for an abstract name.
    pub(crate) fn path(&self) -> Option<&Path> {
        match self {
            NotifyAddress::Path(path) => Some(path),
            NotifyAddress::Abstract(_) => None,
        }
    }

    /// The abstract name; `None` for a path.
    pub(crate) fn abstract_name(&self) -> Option<&str> {
        match self {
            NotifyAddress::Abstract(name) => Some(name),
            NotifyAddress::Path(_) => None,
        }
    }

    /// The address of an abstract name; `None` for a path.
    pub(crate) fn abstract_address(&self) -> Option<SocketAddr> {
        // A name that was parsed is short enough.
        SocketAddr::from_abstract_name(self.abstract_name()?).ok()
    }
}

impl FromStr for NotifyAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.strip_prefix('@') {
            Some(name) if name.is_empty() || name.len() > MAX_NAME_LEN => {
                Err(format!("a name after `@` has 1 to {MAX_NAME_LEN} bytes"))
            }
            Some(name) if name.chars().any(char::is_control) => {
                Err("a name after `@` has no control characters".to_owned())
            }
            Some(name) => Ok(NotifyAddress::Abstract(name.to_owned())),
            None if text.starts_with('/') => {
                Ok(NotifyAddress::Path(OsStr::from_bytes(text.as_bytes()).into()))
            }
            None => Err("is neither an absolute path nor `@` and a name".to_owned()),
        }
    }
}

/// As services find it in `NOTIFY_SOCKET`.
impl fmt::Display for NotifyAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NotifyAddress::Path(path) => path.display().fmt(f),
            NotifyAddress::Abstract(name) => write!(f, "@{name}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_an_absolute_path_or_a_name_and_is_written_as_it_was_read() {
        for text in ["/run/varta/notify", "@varta", "@varta/notify"] {
            assert_eq!(text.parse::<NotifyAddress>().unwrap().to_string(), text);
        }
        for wrong in ["", "notify", "./notify", "@", "@a\nb", &format!("@{}", "x".repeat(108))] {
            assert!(wrong.parse::<NotifyAddress>().is_err(), "{wrong:?}");
        }
        assert!("@x".parse::<NotifyAddress>().unwrap().abstract_address().is_some());
    }
}
