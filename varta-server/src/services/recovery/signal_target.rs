//! Whom a signal reaches: one process, the process group that it leads, or its cgroup. Groups and cgroups are
//! checked before, so that a signal reaches nobody who only happens to be near.

use std::fmt;
use std::fs;
use std::io;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::{Pid, getpgrp};
use serde_json::{Map, Value, json};

use crate::domain::process::ProcessId;
use crate::observe::hierarchy::Hierarchies;
use crate::observe::{OwnCgroup, Pidfd, leads_group, members_of_group};
use crate::services::recovery::job::Refusal;
use crate::services::recovery::rule::SignalScope;

/// How often the processes of a cgroup are listed anew for SIGKILL, as some may have started others meanwhile.
const KILL_ROUNDS: usize = 8;

/// The receivers of a signal. The process is held by its pidfd.
pub(super) struct SignalTarget {
    pidfd: Pidfd,
    pid: u32,
    reach: Reach,
}

enum Reach {
    Process,
    Group,
    Cgroup(OwnCgroup),
}

impl SignalTarget {
    /// The receivers for an agent's process, which lives and is held by `pidfd`.
    ///
    /// # Errors
    ///
    /// The reason why a group or a cgroup is not its own. Reads files of `/proc`.
    pub(super) fn find(pidfd: Pidfd, process: ProcessId, scope: SignalScope) -> Result<Self, Refusal> {
        let pid = process.pid;
        let reach = match scope {
            SignalScope::Process => Reach::Process,
            SignalScope::Group if !leads_group(pid) || is_own_group(pid) => return Err(Refusal::SharedGroup),
            SignalScope::Group => Reach::Group,
            SignalScope::Cgroup => {
                let cgroup = OwnCgroup::of_process(pid, &Hierarchies::find());
                Reach::Cgroup(cgroup.ok_or(Refusal::SharedCgroup)?)
            }
        };
        Ok(SignalTarget { pidfd, pid, reach })
    }

    /// Sends the signal, and returns the number of processes that it was sent to, as far as known.
    ///
    /// # Errors
    ///
    /// The signal reached nobody, or not the agent's process.
    pub(super) fn send(&self, signal: Signal) -> io::Result<usize> {
        match &self.reach {
            Reach::Process => self.pidfd.send_signal(signal).map(|()| 1),
            Reach::Group => self.send_to_group(signal),
            Reach::Cgroup(cgroup) => self.send_to_cgroup(cgroup, signal),
        }
    }

    fn send_to_group(&self, signal: Signal) -> io::Result<usize> {
        let members = members_of_group(self.pid).len();
        match self.pidfd.send_signal_to_group(signal) {
            // A kernel before Linux 6.9. While the leader is not reaped, no other group has its number.
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) && !self.pidfd.has_ended() => {
                let group = i32::try_from(self.pid).map_err(io::Error::other)?;
                killpg(Pid::from_raw(group), signal)?;
            }
            result => result?,
        }
        Ok(members)
    }

    fn send_to_cgroup(&self, cgroup: &OwnCgroup, signal: Signal) -> io::Result<usize> {
        if self.pidfd.has_ended() || !cgroup.contains(self.pid) {
            return Err(io::Error::other("its process has left the cgroup"));
        }
        if signal == Signal::SIGKILL {
            let members = cgroup.processes().len();
            // From Linux 5.14 on: no process can escape by starting others. Opened and not made.
            let file = fs::OpenOptions::new().write(true).open(cgroup.directory.join("cgroup.kill"));
            if file.and_then(|mut file| io::Write::write_all(&mut file, b"1")).is_ok() {
                return Ok(members);
            }
        }
        let rounds = if signal == Signal::SIGKILL { KILL_ROUNDS } else { 1 };
        let mut reached = 0;
        for _ in 0..rounds {
            let sent = cgroup.processes().into_iter().filter(|pid| send_within(cgroup, *pid, signal)).count();
            reached += sent;
            if sent == 0 {
                break;
            }
        }
        // The others alone are not what was meant.
        if reached == 0 { self.pidfd.send_signal(signal).map(|()| 1) } else { Ok(reached) }
    }

    /// Adds the receivers to the fields of an audit record.
    pub(super) fn describe(&self, facts: &mut Map<String, Value>) {
        facts.insert("to".to_owned(), json!(self.scope().as_str()));
        if let Reach::Cgroup(cgroup) = &self.reach {
            facts.insert("cgroup".to_owned(), json!(cgroup.path));
        }
    }

    fn scope(&self) -> SignalScope {
        match self.reach {
            Reach::Process => SignalScope::Process,
            Reach::Group => SignalScope::Group,
            Reach::Cgroup(_) => SignalScope::Cgroup,
        }
    }
}

/// Whom the signal is sent to besides the agent: nothing for its process alone.
impl fmt::Display for SignalTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.reach {
            Reach::Process => Ok(()),
            Reach::Group => f.write_str("the process group of "),
            Reach::Cgroup(cgroup) => write!(f, "cgroup {} of ", cgroup.path.escape_debug()),
        }
    }
}

/// Whether this server is in this process group.
fn is_own_group(group: u32) -> bool {
    u32::try_from(getpgrp().as_raw()) == Ok(group)
}

/// Sends a signal to one process of a cgroup, held so that it is that process, and returns whether it lived.
fn send_within(cgroup: &OwnCgroup, pid: u32, signal: Signal) -> bool {
    let Ok(pidfd) = Pidfd::open(pid) else { return false };
    // Asked after the pidfd was opened: it is still the process that was listed, or another of this cgroup.
    pid != std::process::id()
        && !pidfd.has_ended()
        && cgroup.contains(pid)
        && pidfd.send_signal(signal).is_ok()
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::CommandExt;
    use std::process::Command;

    use super::*;
    use crate::observe::testing::{Child, await_that};

    fn target(child: &Child, scope: SignalScope) -> Result<SignalTarget, Refusal> {
        let process = ProcessId::new(child.pid(), child.start_time());
        SignalTarget::find(Pidfd::open(child.pid()).unwrap(), process, scope)
    }

    #[test]
    fn a_group_is_reached_as_a_whole_if_the_process_leads_it() {
        let mut leader = Command::new("sh");
        leader.args(["-c", "sleep 1000 & read line"]).process_group(0);
        let leader = Child::start(&mut leader);
        await_that("both are there", || members_of_group(leader.pid()).len() == 2);
        let target = target(&leader, SignalScope::Group).unwrap();
        assert_eq!(target.send(Signal::SIGTERM).unwrap(), 2);
        await_that("nobody is left", || members_of_group(leader.pid()).is_empty());
    }

    #[test]
    fn a_process_in_the_group_of_another_reaches_itself_and_no_group() {
        let child = Child::asleep();
        assert_eq!(target(&child, SignalScope::Group).err(), Some(Refusal::SharedGroup));
        let own = ProcessId::new(std::process::id(), child.start_time());
        let pidfd = Pidfd::open(own.pid).unwrap();
        // Whether or not this test leads its group.
        assert_eq!(SignalTarget::find(pidfd, own, SignalScope::Group).err(), Some(Refusal::SharedGroup));
        let alone = target(&child, SignalScope::Process).unwrap();
        assert_eq!(alone.send(Signal::SIGKILL).unwrap(), 1);
        await_that("it has ended", || alone.pidfd.has_ended());
    }

    #[test]
    fn a_cgroup_that_this_program_shares_is_not_reached() {
        // Started by this test, it is in the same cgroup.
        let child = Child::asleep();
        assert_eq!(target(&child, SignalScope::Cgroup).err(), Some(Refusal::SharedCgroup));
    }

    #[test]
    fn it_reads_as_whom_it_reaches() {
        let child = Child::asleep();
        let mut target = target(&child, SignalScope::Process).unwrap();
        let mut facts = Map::new();
        target.describe(&mut facts);
        assert_eq!((target.to_string().as_str(), &facts["to"]), ("", &json!("process")));
        target.reach = Reach::Group;
        target.describe(&mut facts);
        assert_eq!((target.to_string().as_str(), &facts["to"]), ("the process group of ", &json!("group")));
    }
}
