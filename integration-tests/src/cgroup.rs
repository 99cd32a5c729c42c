//! Cgroups of a test's own, in which processes can be frozen, or have little memory.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::retry::wait_for;

/// A version of cgroups, which a host may have at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CgroupVersion {
    /// With a hierarchy for each controller.
    One,
    /// With one hierarchy.
    Two,
}

/// Makes a cgroup: in the hierarchy of version 2 next to the test's own, or in it; or at the top of that of
/// version 1 with this controller.
fn make(version: CgroupVersion, controller: &str) -> io::Result<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts")?;
    let top = mounts.lines().find_map(|line| match (version, &*line.split(' ').collect::<Vec<_>>()) {
        (CgroupVersion::Two, [_, mounted_at, "cgroup2", ..]) => Some(PathBuf::from(mounted_at)),
        (CgroupVersion::One, [_, mounted_at, "cgroup", options, ..])
            if options.split(',').any(|option| option == controller) =>
        {
            Some(PathBuf::from(mounted_at))
        }
        _ => None,
    });
    let top = top.ok_or(io::ErrorKind::NotFound)?;
    let own = fs::read_to_string("/proc/self/cgroup")?;
    let own = own.lines().find_map(|line| line.strip_prefix("0::/"));
    let own = own.filter(|_| version == CgroupVersion::Two).unwrap_or_default();
    static MADE: AtomicU32 = AtomicU32::new(0);
    let number = MADE.fetch_add(1, Ordering::Relaxed);
    let path = top.join(own).join(format!("varta-it-{}-{number}", std::process::id()));
    fs::create_dir(&path)?;
    Ok(path)
}

/// A program that moves itself into a cgroup before it runs another; it ends at once where this user may not do
/// that.
fn command_in(cgroup: &Path, program: &Command) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", "echo $$ > \"$0\"/cgroup.procs && exec \"$@\""]).arg(cgroup);
    command.arg(program.get_program()).args(program.get_args());
    command
}

/// A cgroup, empty at first. When it is dropped, what is in it is thawed, and it is removed as soon as
/// nothing is in it: agents that are put into it have to be dropped before.
#[derive(Debug)]
pub struct Freezer {
    path: PathBuf,
    version: CgroupVersion,
}

impl Freezer {
    /// Makes one next to the test's own cgroup, or in it.
    ///
    /// # Errors
    ///
    /// There is no hierarchy of this version here, or this user may not make cgroups in it.
    pub fn make(version: CgroupVersion) -> io::Result<Self> {
        Ok(Freezer { path: make(version, "freezer")?, version })
    }

    /// Moves a process into it.
    ///
    /// # Errors
    ///
    /// The error of the kernel: not every user may.
    pub fn take_in(&self, pid: u32) -> io::Result<()> {
        fs::write(self.path.join("cgroup.procs"), pid.to_string())
    }

    /// Has a program run in it from its beginning.
    #[must_use]
    pub fn command(&self, program: &Command) -> Command {
        command_in(&self.path, program)
    }

    /// Stops all that is in it.
    ///
    /// # Errors
    ///
    /// The error of the kernel.
    pub fn freeze(&self) -> io::Result<()> {
        self.set("1", "FROZEN")
    }

    /// Lets all that is in it go on.
    ///
    /// # Errors
    ///
    /// The error of the kernel.
    pub fn thaw(&self) -> io::Result<()> {
        self.set("0", "THAWED")
    }

    fn set(&self, by_version_2: &str, by_version_1: &str) -> io::Result<()> {
        match self.version {
            CgroupVersion::One => fs::write(self.path.join("freezer.state"), by_version_1),
            CgroupVersion::Two => fs::write(self.path.join("cgroup.freeze"), by_version_2),
        }
    }
}

impl Drop for Freezer {
    fn drop(&mut self) {
        let _ = self.thaw();
        // One that stays does no harm but to the eye.
        wait_for(|| fs::remove_dir(&self.path).ok());
    }
}

/// A cgroup whose processes have little memory. It is removed as [`Freezer`] is.
#[derive(Debug)]
pub struct LittleMemory(PathBuf);

impl LittleMemory {
    /// Makes one with a limit in bytes, in the version that limits memory on this host.
    ///
    /// # Errors
    ///
    /// No version limits memory here, or this user may not make cgroups.
    pub fn make(bytes: u64) -> io::Result<Self> {
        let version_1 = make(CgroupVersion::One, "memory").map(LittleMemory).and_then(|cgroup| {
            cgroup.limit("memory.limit_in_bytes", bytes)?;
            // Swap counts too where it is counted.
            let _ = cgroup.limit("memory.memsw.limit_in_bytes", bytes);
            Ok(cgroup)
        });
        version_1.or_else(|_| {
            let cgroup = LittleMemory(make(CgroupVersion::Two, "memory")?);
            cgroup.limit("memory.max", bytes)?;
            let _ = cgroup.limit("memory.swap.max", 0);
            Ok(cgroup)
        })
    }

    fn limit(&self, file: &str, bytes: u64) -> io::Result<()> {
        // Opened and not made: without the controller there is no such file.
        let mut file = fs::OpenOptions::new().write(true).open(self.0.join(file))?;
        io::Write::write_all(&mut file, bytes.to_string().as_bytes())
    }

    /// Has a program run in it from its beginning.
    #[must_use]
    pub fn command(&self, program: &Command) -> Command {
        command_in(&self.0, program)
    }

    /// The last part of its path.
    #[must_use]
    pub fn name(&self) -> &str {
        self.0.file_name().and_then(|name| name.to_str()).unwrap_or_default()
    }
}

impl Drop for LittleMemory {
    fn drop(&mut self) {
        wait_for(|| fs::remove_dir(&self.0).ok());
    }
}
