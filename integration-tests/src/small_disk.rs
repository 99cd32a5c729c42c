//! A file system that is as large as it is.

use std::path::Path;
use std::process::Command;

/// A file system of 512 KiB. It is unmounted when this is dropped.
#[derive(Debug)]
pub struct SmallDisk<'d>(&'d Path);

impl<'d> SmallDisk<'d> {
    /// Mounts one; `None` where nothing may be mounted.
    #[must_use]
    pub fn mount(at: &'d Path) -> Option<Self> {
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=512k,mode=0700", "none"]).arg(at);
        mount.output().is_ok_and(|output| output.status.success()).then_some(SmallDisk(at))
    }
}

impl Drop for SmallDisk<'_> {
    fn drop(&mut self) {
        // What cannot be unmounted any more goes with the machine.
        let _ = Command::new("umount").arg("--lazy").arg(self.0).status();
    }
}
