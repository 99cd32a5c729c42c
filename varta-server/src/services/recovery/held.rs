//! Processes that recovery leaves alone: somebody has frozen or debugs them, the kernel writes their core dump, which a
//! signal would cut off, or the host is starved.

use crate::base::time::MonoTime;
use crate::domain::process::{ProcessId, classify};
use crate::domain::tracker::Transition;
use crate::observe::ProcReader;
use crate::services::recovery::job::{Job, Refusal};
use crate::services::recovery::pressure_limits::PressureLimits;
use crate::services::recovery::rule::Action;

/// The reason why a job is not executed at present; `None` when its process is in no such state, when the rule
/// names the state among its causes, and when a core dump has been waited for long enough.
///
/// Reads files of `/proc`, and may block as long as they do.
pub(super) fn refusal_of_held(processes: &ProcReader, job: &Job) -> Option<Refusal> {
    let Transition { agent, process, .. } = &*job.transition;
    if matches!(job.action(), Action::Notify) || !agent.origin.is_local() {
        return None;
    }
    let ProcessId { pid, start_time, .. } = (*process)?;
    let look = processes.look(pid, start_time, MonoTime::START)?;
    let refusal = Refusal::of_activity(classify(&look, None).activity)?;
    let is_named = job.rule.causes.contains(&refusal.as_str());
    let is_overdue = refusal == Refusal::DumpingCore && job.has_waited_for_dump;
    (!is_named && !is_overdue).then_some(refusal)
}

/// The reason why a job is not executed while the host is starved; `None` when it is not, and for what costs this host
/// nothing.
pub(super) fn refusal_of_starved(
    processes: &ProcReader,
    limits: PressureLimits,
    job: &Job,
) -> Option<Refusal> {
    if matches!(job.action(), Action::Notify) || !job.transition.agent.origin.is_local() {
        return None;
    }
    limits.refusal(&processes.host_pressure())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::num::NonZeroU64;
    use std::sync::Arc;
    use std::time::Duration;

    use nix::sys::signal::Signal;

    use super::*;
    use crate::domain::tracker::{Cause, Verdict};
    use crate::observe::hierarchy::Hierarchies;
    use crate::services::recovery::planner::testing::{self, transition};
    use crate::services::recovery::rule::SignalScope;

    /// A job for the process with pid 7, which started at 1, by a rule with these causes.
    fn job(action: Action, causes: &[&'static str]) -> Job {
        let transition = Transition {
            process: Some(ProcessId::new(7, NonZeroU64::MIN)),
            ..transition(7, Verdict::Stalled, Cause::Busy)
        };
        testing::job(transition, action, causes)
    }

    /// A tree that looks like `/proc` with one process, and like a hierarchy of cgroups with one that it is in.
    fn host(state: &str, status: &str, freeze: &str) -> (tempfile::TempDir, ProcReader) {
        let directory = tempfile::tempdir().unwrap();
        let at = directory.path();
        let stat = format!("7 (worker) {state} 1 7 7 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 1 0 0\n");
        for (file, text) in [
            ("proc/7/stat", &*stat),
            ("proc/7/task/7/stat", &stat),
            ("proc/7/task/7/status", status),
            ("proc/7/cgroup", "0::/web\n"),
            ("cgroups/web/cgroup.freeze", freeze),
        ] {
            fs::create_dir_all(at.join(file).parent().unwrap()).unwrap();
            fs::write(at.join(file), text).unwrap();
        }
        let mounts = format!("1 2 0:1 / {}/cgroups rw - cgroup2 cgroup2 rw\n", at.display());
        let reader = ProcReader::at(at.join("proc"), Hierarchies::parse(mounts.as_bytes()));
        (directory, reader)
    }

    #[test]
    fn who_is_frozen_traced_or_dumping_core_is_left_alone_unless_the_rule_names_that() {
        let kill = || Action::Signal(Signal::SIGKILL, SignalScope::Process);
        let table = [
            (host("S", "CoreDumping:\t0\n", "0\n"), None),
            (host("D", "CoreDumping:\t1\n", "0\n"), Some(Refusal::DumpingCore)),
            (host("S", "CoreDumping:\t0\n", "1\n"), Some(Refusal::Frozen)),
            (host("t", "CoreDumping:\t0\n", "0\n"), Some(Refusal::Traced)),
            (host("T", "CoreDumping:\t0\n", "0\n"), None),
        ];
        for ((_directory, reader), expected) in table {
            assert_eq!(refusal_of_held(&reader, &job(kill(), &[])), expected);
            assert_eq!(refusal_of_held(&reader, &job(kill(), &["busy", "idle"])), expected);
            let command = Action::Command("true {pid}".parse().unwrap(), Duration::from_secs(1));
            assert_eq!(refusal_of_held(&reader, &job(command, &[])), expected);
            assert_eq!(refusal_of_held(&reader, &job(Action::Notify, &[])), None);
            if let Some(refusal) = expected {
                assert_eq!(refusal_of_held(&reader, &job(kill(), &["busy", refusal.as_str()])), None);
            }
            let waited = Job { has_waited_for_dump: true, ..job(kill(), &[]) };
            let expected = expected.filter(|refusal| *refusal != Refusal::DumpingCore);
            assert_eq!(refusal_of_held(&reader, &waited), expected);
        }
    }

    #[test]
    fn a_process_that_cannot_be_seen_or_is_another_is_held_by_nobody() {
        let (_directory, reader) = host("S", "CoreDumping:\t1\n", "1\n");
        let mut other = job(Action::Signal(Signal::SIGKILL, SignalScope::Process), &[]);
        let transition = (*other.transition).clone();
        let process = Some(ProcessId::new(7, NonZeroU64::MAX));
        other.transition = Arc::new(Transition { process, ..transition.clone() });
        assert_eq!(refusal_of_held(&reader, &other), None);
        other.transition = Arc::new(Transition { process: None, ..transition });
        assert_eq!(refusal_of_held(&reader, &other), None);
    }
}
