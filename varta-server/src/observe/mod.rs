//! What the kernel knows of a process of this host: who it is, that it has died and of what, and what it is doing.
//!
//! Everything here only looks. Nothing is asked of the process itself, which may be the one that cannot answer.

pub(crate) mod boot;
pub(crate) mod cgroup;
pub(crate) mod descriptor_limit;
pub(crate) mod exit_watcher;
mod group;
pub(crate) mod identify;
mod name;
mod pidfd;
mod pressure;
pub(crate) mod procfs;
mod read_bounded;
pub(crate) mod sampler;
mod stat;
pub(crate) mod status;
#[cfg(test)]
pub(crate) mod testing;

pub(crate) use self::boot::{Boot, is_there};
pub(crate) use self::group::members_of_group;
pub use self::name::ProcessName;
pub(crate) use self::pidfd::Pidfd;
pub use self::procfs::{Host, namespace_pids};
