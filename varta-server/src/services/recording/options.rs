use std::path::PathBuf;

/// What is to be recorded, where, and how much of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordOptions {
    /// The file, which must not be there yet.
    pub path: PathBuf,
    /// The most that it may have, in bytes.
    pub limit: u64,
}

impl RecordOptions {
    /// The most that a recording has if nobody says otherwise: four million beats.
    pub const DEFAULT_LIMIT: u64 = 256 << 20;
    /// The least that it can be limited to.
    pub const SMALLEST_LIMIT: u64 = 4_096;
}
