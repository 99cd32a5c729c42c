//! Process groups: which processes remain of a program that was started, itself and its descendants in the
//! group.

use std::fs;

use crate::observe::stat::Stat;

/// The pids of the live processes of a group, as far as they are visible.
pub(crate) fn members_of_group(group: u32) -> Vec<u32> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(|pid| Stat::of_process(*pid).is_some_and(|stat| stat.group == group && !stat.is_dead()))
        .collect()
}

/// Whether a process leads the group that it is in.
pub(crate) fn leads_group(pid: u32) -> bool {
    Stat::of_process(pid).is_some_and(|stat| stat.group == pid)
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::CommandExt;
    use std::process::{Command, Stdio};

    use super::*;
    use crate::observe::testing::await_that;

    #[test]
    fn a_group_has_whom_its_leader_started_and_no_dead_ones() {
        let mut leader = Command::new("sh")
            .args(["-c", "sleep 1000 & read line"])
            .process_group(0)
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        let group = leader.id();
        await_that("both are there", || members_of_group(group).len() == 2);
        assert!(members_of_group(group).contains(&group));
        drop(leader.stdin.take());
        await_that("the leader has ended", || !members_of_group(group).contains(&group));
        assert_eq!(members_of_group(group).len(), 1);
        let whole = nix::unistd::Pid::from_raw(i32::try_from(group).unwrap());
        nix::sys::signal::killpg(whole, nix::sys::signal::Signal::SIGKILL).unwrap();
        await_that("nobody is left", || members_of_group(group).is_empty());
        leader.wait().unwrap();
    }
}
