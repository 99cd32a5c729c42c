//! A file system that is soon full.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::foreign::skip;
use crate::scratch::Scratch;

/// The length of the file that takes all the room.
const BALLAST: usize = 1 << 20;

/// A file system of 512 KiB. It is unmounted when this is dropped, which must be before its scratch directory
/// is.
#[derive(Debug)]
pub struct SmallDisk(PathBuf);

impl SmallDisk {
    /// Mounts one in a scratch directory; `None` where nothing may be mounted. The test is skipped then, and
    /// this prints so.
    #[must_use]
    #[track_caller]
    pub fn mount(scratch: &Scratch) -> Option<Self> {
        let at = scratch.path("disk");
        fs::create_dir(&at).unwrap_or_else(|error| panic!("{}: {error}", at.display()));
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=512k,mode=0700", "none"]).arg(&at);
        if !mount.output().is_ok_and(|output| output.status.success()) {
            skip("nothing can be mounted here");
            return None;
        }
        Some(SmallDisk(at))
    }

    /// The path of a file on it.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Takes all the room that is left.
    pub fn fill(&self) {
        // It ends with an error when the disk is full.
        let _ = fs::write(self.ballast(), vec![0; BALLAST]);
    }

    /// Gives back the room that [`fill`](SmallDisk::fill) took.
    #[track_caller]
    pub fn make_room(&self) {
        fs::remove_file(self.ballast()).unwrap_or_else(|error| panic!("{}: {error}", self.0.display()));
    }

    fn ballast(&self) -> PathBuf {
        self.path("ballast")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let at: &Path = &self.0;
        // What cannot be unmounted any more goes with the machine.
        let _ = Command::new("umount").arg("--lazy").arg(at).status();
    }
}
