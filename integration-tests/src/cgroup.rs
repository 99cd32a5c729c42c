//! A cgroup of a test's own, in which processes can be frozen.

use std::fs;
use std::io;
use std::path::PathBuf;

use crate::retry::wait_for;

/// A cgroup, empty at first. When it is dropped, what is in it is thawed, and it is removed as soon as
/// nothing is in it: agents that are put into it have to be dropped before.
#[derive(Debug)]
pub struct Freezer(PathBuf);

impl Freezer {
    /// Makes one next to the test's own cgroup, or in it.
    ///
    /// # Errors
    ///
    /// There is no hierarchy of version 2 here, or this user may not make cgroups in it.
    pub fn make() -> io::Result<Self> {
        let mounts = fs::read_to_string("/proc/self/mounts")?;
        let of_version_2 = mounts.lines().find_map(|line| match *line.split(' ').collect::<Vec<_>>() {
            [_, mounted_at, "cgroup2", ..] => Some(PathBuf::from(mounted_at)),
            _ => None,
        });
        let top = of_version_2.ok_or(io::ErrorKind::NotFound)?;
        let own = fs::read_to_string("/proc/self/cgroup")?;
        let own = own.lines().find_map(|line| line.strip_prefix("0::/")).unwrap_or_default();
        let path = top.join(own).join(format!("varta-it-{}", std::process::id()));
        fs::create_dir(&path)?;
        Ok(Freezer(path))
    }

    /// Moves a process into it.
    ///
    /// # Errors
    ///
    /// The error of the kernel: not every user may.
    pub fn take_in(&self, pid: u32) -> io::Result<()> {
        fs::write(self.0.join("cgroup.procs"), pid.to_string())
    }

    /// Stops all that is in it.
    ///
    /// # Errors
    ///
    /// The error of the kernel.
    pub fn freeze(&self) -> io::Result<()> {
        fs::write(self.0.join("cgroup.freeze"), "1")
    }

    /// Lets all that is in it go on.
    ///
    /// # Errors
    ///
    /// The error of the kernel.
    pub fn thaw(&self) -> io::Result<()> {
        fs::write(self.0.join("cgroup.freeze"), "0")
    }
}

impl Drop for Freezer {
    fn drop(&mut self) {
        let _ = self.thaw();
        // One that stays does no harm but to the eye.
        wait_for(|| fs::remove_dir(&self.0).ok());
    }
}
