//! Programs of other projects, which `scripts/test` fetches into `foreign` in Cargo's target directory.

use std::env;
use std::path::PathBuf;
use std::process::Command;

use crate::programs::{isolated, target_directory};

/// A command for a foreign program, by its path below `foreign`. Where it was not fetched the test has
/// nothing to show: it prints so and returns, except in continuous integration, where that is a failure.
#[must_use]
pub fn command(program: &str) -> Option<Command> {
    let path: PathBuf = target_directory().join("foreign").join(program);
    if path.exists() {
        return Some(isolated(&path));
    }
    skip_or_fail(&format!("{} is not there; scripts/test puts it there", path.display()));
    None
}

/// Prints why a test has nothing to show here, and fails it in continuous integration.
///
/// # Panics
///
/// There.
#[track_caller]
pub fn skip_or_fail(missing: &str) {
    assert!(env::var_os("CI").is_none_or(|value| value != "true"), "{missing}");
    skip(missing);
}

/// The directory of foreign programs.
#[must_use]
pub fn directory() -> PathBuf {
    target_directory().join("foreign")
}

/// The same for one that may also be installed on this host, by its name.
#[must_use]
pub fn installed(program: &str) -> Option<Command> {
    let directories = env::var_os("PATH").unwrap_or_default();
    let found =
        env::split_paths(&directories).map(|directory| directory.join(program)).find(|path| path.is_file());
    match found {
        Some(path) if !target_directory().join("foreign/bin").join(program).exists() => Some(isolated(&path)),
        Some(_) | None => command(&format!("bin/{program}")),
    }
}

/// Prints why a test has nothing to show here.
pub fn skip(reason: &str) {
    #[expect(clippy::print_stdout, reason = "shows what was not tested")]
    {
        println!("skipped: {reason}");
    }
}
