//! Cgroups of a test's own, in which processes can be frozen, or have little memory.

use std::ffi::OsStr;
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

/// A program that moves itself into a cgroup before it runs another, its further arguments; it ends at once where
/// this user may not do that.
fn starter_in(cgroup: &Path) -> [&OsStr; 4] {
    let script = "echo $$ > \"$0\"/cgroup.procs && exec \"$@\"";
    [OsStr::new("sh"), OsStr::new("-c"), OsStr::new(script), cgroup.as_os_str()]
}

fn command_in(cgroup: &Path, program: &Command) -> Command {
    let [sh, arguments @ ..] = starter_in(cgroup);
    let mut command = Command::new(sh);
    command.args(arguments).arg(program.get_program()).args(program.get_args());
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
pub struct LittleMemory {
    directory: PathBuf,
    bytes: u64,
}

impl LittleMemory {
    /// Makes one with a limit in bytes, in the version that limits memory on this host.
    ///
    /// # Errors
    ///
    /// No version limits memory here, or this user may not make cgroups.
    pub fn make(bytes: u64) -> io::Result<Self> {
        let make = |version| {
            let cgroup = LittleMemory { directory: make(version, "memory")?, bytes };
            cgroup.set_limits()?;
            Ok(cgroup)
        };
        make(CgroupVersion::One).or_else(|_: io::Error| make(CgroupVersion::Two))
    }

    /// Removes it and makes another with the same path and limit. All processes of it must have ended or left.
    ///
    /// # Errors
    ///
    /// It is not removed, or cannot be made.
    pub fn make_again(&self) -> io::Result<()> {
        wait_for(|| fs::remove_dir(&self.directory).ok()).ok_or(io::ErrorKind::ResourceBusy)?;
        fs::create_dir(&self.directory)?;
        self.set_limits()
    }

    /// Moves a process of it to the cgroup above.
    ///
    /// # Errors
    ///
    /// It has ended.
    pub fn release(&self, pid: u32) -> io::Result<()> {
        let above = self.directory.parent().ok_or(io::ErrorKind::NotFound)?;
        fs::write(above.join("cgroup.procs"), pid.to_string())
    }

    fn set_limits(&self) -> io::Result<()> {
        if self.limit("memory.limit_in_bytes", self.bytes).is_ok() {
            // Swap counts too where it is counted.
            let _ = self.limit("memory.memsw.limit_in_bytes", self.bytes);
            return Ok(());
        }
        self.limit("memory.max", self.bytes)?;
        let _ = self.limit("memory.swap.max", 0);
        Ok(())
    }

    fn limit(&self, file: &str, bytes: u64) -> io::Result<()> {
        // Opened and not made: without the controller there is no such file.
        let mut file = fs::OpenOptions::new().write(true).open(self.directory.join(file))?;
        io::Write::write_all(&mut file, bytes.to_string().as_bytes())
    }

    /// Leaves its processes no more than they use at present and so many bytes.
    ///
    /// # Errors
    ///
    /// The error of the kernel.
    pub fn leave(&mut self, bytes: u64) -> io::Result<()> {
        let used = ["memory.usage_in_bytes", "memory.current"]
            .iter()
            .find_map(|file| fs::read_to_string(self.directory.join(file)).ok()?.trim().parse::<u64>().ok());
        let used = used.ok_or(io::ErrorKind::NotFound)?;
        self.bytes = used + bytes;
        self.set_limits()
    }

    /// Has a program run in it from its beginning.
    #[must_use]
    pub fn command(&self, program: &Command) -> Command {
        command_in(&self.directory, program)
    }

    /// The words of a program that has another, its further arguments, run in it.
    #[must_use]
    pub fn starter(&self) -> [&OsStr; 4] {
        starter_in(&self.directory)
    }

    /// The last part of its path.
    #[must_use]
    pub fn name(&self) -> &str {
        self.directory.file_name().and_then(|name| name.to_str()).unwrap_or_default()
    }
}

impl Drop for LittleMemory {
    fn drop(&mut self) {
        wait_for(|| fs::remove_dir(&self.directory).ok());
    }
}
