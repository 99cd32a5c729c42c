//! Which processes remain of a program that was started: those of its process group, and its descendants.

use std::collections::HashMap;
use std::fs;

use crate::observe::stat::Stat;

/// The most ancestors of a process that are looked at.
const MAX_GENERATIONS: usize = 1_000;

/// The pids of the live processes of a group, as far as they are visible.
pub(crate) fn members_of_group(group: u32) -> Vec<u32> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(|pid| Stat::of_process(*pid).is_some_and(|stat| stat.group == group && !stat.is_dead()))
        .collect()
}

/// The live descendants of a process, as far as they are visible, in no order.
pub(crate) fn descendants(of: u32) -> Vec<u32> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
    let stats = pids.filter_map(|pid| Some((pid, Stat::of_process(pid)?)));
    let parents: HashMap<u32, (u32, bool)> =
        stats.map(|(pid, stat)| (pid, (stat.parent, stat.is_dead()))).collect();
    let lives = |pid: &u32| parents.get(pid).is_some_and(|(_, is_dead)| !is_dead);
    let parent = |pid: u32| parents.get(&pid).map(|(parent, _)| *parent);
    parents.keys().copied().filter(lives).filter(|pid| has_ancestor(*pid, of, parent)).collect()
}

/// Whether a process descends from another, as far as its ancestors are visible.
pub(crate) fn is_descendant(pid: u32, of: u32) -> bool {
    has_ancestor(pid, of, |pid| Some(Stat::of_process(pid)?.parent))
}

/// Walks from a process to its parents. The walk is bounded: parents that are read one after the other may come
/// from different times, and then lead in a circle.
fn has_ancestor(mut pid: u32, wanted: u32, parent: impl Fn(u32) -> Option<u32>) -> bool {
    for _ in 0..MAX_GENERATIONS {
        match parent(pid) {
            Some(found) if found == wanted => return true,
            Some(found) if found > 0 => pid = found,
            Some(_) | None => return false,
        }
    }
    false
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
    fn descendants_are_found_whatever_group_they_are_in() {
        let mut parent = Command::new("sh")
            .args(["-c", "setsid sleep 1000 & read line"])
            .process_group(0)
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        let (own, parent_pid) = (std::process::id(), parent.id());
        await_that("the child of the shell is there", || descendants(parent_pid).len() == 1);
        let child = descendants(parent_pid)[0];
        let all = descendants(own);
        assert!(all.contains(&child) && all.contains(&parent_pid) && !all.contains(&own));
        assert!(is_descendant(child, own) && is_descendant(child, parent_pid));
        assert!(!is_descendant(own, parent_pid) && !is_descendant(child, child));
        let child = nix::unistd::Pid::from_raw(i32::try_from(child).unwrap());
        nix::sys::signal::kill(child, nix::sys::signal::Signal::SIGKILL).unwrap();
        await_that("it has ended", || descendants(parent_pid).is_empty());
        drop(parent.stdin.take());
        parent.wait().unwrap();
    }

    #[test]
    fn parents_that_lead_in_a_circle_are_left() {
        assert!(!has_ancestor(2, 9, |pid| Some(if pid == 2 { 3 } else { 2 })));
        assert!(has_ancestor(2, 9, |pid| (pid == 2).then_some(9)));
    }

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
