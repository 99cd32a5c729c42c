//! Where a process runs, in the words of the kernel.

use serde::{Deserialize, Serialize};

/// The cgroup of a process and the container that it belongs to.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ProcessPlace {
    /// The path of the cgroup, cut to 256 bytes; never the root, which says nothing.
    pub cgroup: Box<str>,
    /// The innermost container in that path: the first 12 digits of its id, or its name.
    pub container: Option<Box<str>>,
}
