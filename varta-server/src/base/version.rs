//! Which build of the server this is.

/// This server's version.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
/// The commit from which it was built; `unknown` when it was not built from a repository.
pub const COMMIT: &str = env!("VARTA_COMMIT");
/// Both, as `--version` prints them.
pub const VERSION_AND_COMMIT: &str = concat!(env!("CARGO_PKG_VERSION"), " (", env!("VARTA_COMMIT"), ")");
