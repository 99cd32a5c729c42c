//! The version of the server, and the commit it was built from.

/// This server's version.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
/// The commit of the build; `unknown` when it was not built from a repository.
pub const COMMIT: &str = env!("VARTA_COMMIT");
/// Both, as `--version` prints them.
pub const VERSION_AND_COMMIT: &str = concat!(env!("CARGO_PKG_VERSION"), " (", env!("VARTA_COMMIT"), ")");
