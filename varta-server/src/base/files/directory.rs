//! The directory of a file: a name that must outlive a crash of the host is written out with it.

use std::fs::File;
use std::io;
use std::path::Path;

/// The directory in which a path's last name stands.
pub(crate) fn directory_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// Waits until the names in a file's directory are on the disk.
///
/// # Errors
///
/// What the kernel says.
pub(crate) fn sync_directory_of(path: &Path) -> io::Result<()> {
    File::open(directory_of(path))?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_alone_stands_in_the_working_directory() {
        assert_eq!(directory_of(Path::new("file")), Path::new("."));
        assert_eq!(directory_of(Path::new("/run/file")), Path::new("/run"));
        sync_directory_of(Path::new("file")).unwrap();
    }
}
