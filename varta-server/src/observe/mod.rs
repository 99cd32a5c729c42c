//! Observation of the host's processes through the kernel: identity, exit, and what a process is doing.
//!
//! Everything here only reads. The process itself, which may hang, takes no part.

pub(crate) mod boot;
pub(crate) mod cgroup;
pub(crate) mod descriptor_limit;
pub(crate) mod environment;
pub(crate) mod exit_watcher;
mod group;
pub(crate) mod hierarchy;
pub(crate) mod host_facts;
pub(crate) mod identify;
mod kernel_file;
mod name;
pub(crate) mod oom;
mod own_cgroup;
pub(crate) mod own_process;
pub(crate) mod pidfd;
mod pressure;
pub(crate) mod procfs;
pub(crate) mod sampler;
pub(crate) mod stat;
pub(crate) mod status;
#[cfg(test)]
pub(crate) mod testing;

pub(crate) use self::boot::{Boot, Remains};
pub(crate) use self::group::{descendants, is_descendant, leads_group, members_of_group};
pub use self::name::ProcessName;
pub(crate) use self::own_cgroup::OwnCgroup;
pub(crate) use self::pidfd::Pidfd;
pub(crate) use self::procfs::user_and_groups;
pub use self::procfs::{ProcReader, namespace_pids};
