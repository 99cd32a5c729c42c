//! The files of the open database, to notice that others have removed or moved them: SQLite would go on writing to
//! files that no other program finds.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::services::state::schema::with_suffix;

/// Device and inode of the database and of its journal; `None` while one is not known to exist.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct DatabaseFiles([Option<(u64, u64)>; 2]);

impl DatabaseFiles {
    /// The files at this path.
    pub(super) fn of(path: &Path) -> Self {
        DatabaseFiles([identity_of(path), identity_of(&with_suffix(path, "-wal"))])
    }

    /// Adds those that did not exist before, as the journal before the first write. Whether there were any.
    pub(super) fn complete(&mut self, path: &Path) -> bool {
        let before = *self;
        if self.0.contains(&None) {
            let found = DatabaseFiles::of(path);
            self.0.iter_mut().zip(found.0).for_each(|(known, found)| *known = known.or(found));
        }
        *self != before
    }

    /// Whether the path names other files, or none.
    pub(super) fn have_gone(&self, path: &Path) -> bool {
        let found = DatabaseFiles::of(path);
        self.0.iter().zip(&found.0).any(|(known, found)| known.is_some() && known != found)
    }
}

fn identity_of(path: &Path) -> Option<(u64, u64)> {
    fs::symlink_metadata(path).ok().map(|found| (found.dev(), found.ino()))
}
