//! The checks of the host, and of what the server has of it.

use std::time::{Duration, UNIX_EPOCH};

use crate::observe::host_facts::Use;
use crate::services::doctor::check::Check;
use crate::services::doctor::facts::{ClockFacts, Facts, Place, Room};

/// The part of a limit, of a hundred, from which on it is nearly reached.
const NEARLY: u64 = 90;
/// The part of periods, of a hundred, in which a server may wait for the CPU.
const THROTTLED: u64 = 5;
/// The least room for the state.
const MIN_ROOM: u64 = 64 << 20;
/// By how much the clock of files may be ahead of this one.
const SLACK: Duration = Duration::from_secs(24 * 3_600);

const NO_SERVER: &str = "no server was reached";

/// All of them.
pub(super) fn checks(facts: &Facts) -> Vec<Check> {
    let has_server = facts.server.is_ok();
    let unknown = if has_server { "the kernel does not say" } else { NO_SERVER };
    vec![
        sockets(facts),
        clock(&facts.clock),
        descriptors(facts.descriptors, unknown),
        memory(facts, unknown),
        tasks(facts, unknown),
        cpu(facts, unknown),
        state(facts.state.as_ref(), has_server),
        alertmanagers(facts, has_server),
        configuration(facts),
    ]
}

fn sockets(facts: &Facts) -> Check {
    const NAME: &str = "sockets";
    let wrong = facts.sockets.iter().find_map(|socket| Some((&socket.path, socket.found.as_ref().err()?)));
    if let Some((path, fault)) = wrong {
        let advice = match facts.server.is_ok() {
            true => "look who removes or changes files there; the server makes the socket again by itself",
            false => {
                "start the server, say with --socket where its socket is, or run this as its user: whoever may beat there \
                 may connect (--socket-mode, --socket-group)"
            }
        };
        return Check::failed(NAME, format!("{path} {fault}"), advice);
    }
    let shown: Vec<_> = facts
        .sockets
        .iter()
        .filter_map(|socket| {
            let (uid, mode) = socket.found.as_ref().ok()?;
            Some(format!("{} (uid {uid}, mode {mode:04o})", socket.path))
        })
        .collect();
    match shown.is_empty() {
        true => Check::skipped(NAME, "the server has no Unix socket"),
        false => Check::ok(NAME, shown.join(", ")),
    }
}

fn clock(facts: &ClockFacts) -> Check {
    const NAME: &str = "clock";
    let ClockFacts { now, program_from, is_synchronised } = *facts;
    let before = program_from.unwrap_or(UNIX_EPOCH);
    if now.checked_add(SLACK).is_none_or(|now| now < before) || now < UNIX_EPOCH + Duration::from_secs(86_400)
    {
        return Check::failed(
            NAME,
            "it is behind the date of this program",
            "set the clock, and have it synchronised (chrony)",
        );
    }
    match is_synchronised {
        Some(true) => Check::ok(NAME, "synchronised, as the kernel has been told"),
        Some(false) => Check::warning(
            NAME,
            "nothing keeps it synchronised, as far as the kernel knows",
            "run chrony, systemd-timesyncd or another client of NTP: times in logs and alerts are of this clock; verdicts are not",
        ),
        None => Check::skipped(NAME, "the kernel does not say whether it is synchronised"),
    }
}

fn descriptors(found: Option<Use>, unknown: &str) -> Check {
    const NAME: &str = "descriptors";
    let Some(found) = found else { return Check::skipped(NAME, unknown) };
    Check::warning_if(
        is_nearly(found),
        NAME,
        format!("{} of {} are open", found.used, found.most),
        "raise LimitNOFILE= of the server's unit: each local agent takes one",
    )
}

fn memory(facts: &Facts, unknown: &str) -> Check {
    const NAME: &str = "memory";
    let Some(cgroup) = &facts.cgroup else { return Check::skipped(NAME, unknown) };
    let advice = "raise MemoryMax= of the server's unit, or lower --max-agents; docs/LIMITS.md says what an agent takes";
    if cgroup.oom_kills > 0 {
        let seen = format!(
            "the kernel has killed {} processes of the server's cgroup for want of memory",
            cgroup.oom_kills
        );
        return Check::warning(NAME, seen, advice);
    }
    match cgroup.memory {
        None => Check::ok(NAME, "no limit of a cgroup"),
        Some(found) => {
            let seen = format!("{} of {} MiB of the cgroup are used", found.used >> 20, found.most >> 20);
            Check::warning_if(is_nearly(found), NAME, seen, advice)
        }
    }
}

fn tasks(facts: &Facts, unknown: &str) -> Check {
    const NAME: &str = "tasks";
    let Some(cgroup) = &facts.cgroup else { return Check::skipped(NAME, unknown) };
    match cgroup.tasks {
        None => Check::ok(NAME, "no limit of a cgroup"),
        Some(found) => Check::warning_if(
            is_nearly(found),
            NAME,
            format!("{} of {} threads and processes of the cgroup are there", found.used, found.most),
            "raise TasksMax= of the server's unit: commands of recovery need some",
        ),
    }
}

fn cpu(facts: &Facts, unknown: &str) -> Check {
    const NAME: &str = "cpu";
    let Some(cgroup) = &facts.cgroup else { return Check::skipped(NAME, unknown) };
    match cgroup.throttled {
        None => Check::ok(NAME, "no limit of a cgroup"),
        Some(Use { used, most }) => Check::warning_if(
            used.saturating_mul(100) > most.saturating_mul(THROTTLED),
            NAME,
            format!("the server had to wait for its quota in {used} of {most} periods"),
            "raise CPUQuota= of the server's unit, or take it out: a server that waits is blind meanwhile",
        ),
    }
}

fn state(place: Option<&Place>, has_server: bool) -> Check {
    const NAME: &str = "state-directory";
    let Some(Place { path, found }) = place else {
        return Check::skipped(NAME, if has_server { "the server has no --state-dir" } else { NO_SERVER });
    };
    match found {
        Err(fault) => Check::failed(NAME, format!("{path} {fault}"), "mend its owner, mode or file system"),
        Ok(Room { bytes, files }) => {
            let left = bytes.most.saturating_sub(bytes.used);
            let lacks_files = files.is_some_and(|files| files.most.saturating_sub(files.used) < 100);
            let seen = match lacks_files {
                true => format!("{path}: the file system has no room for more files"),
                false => format!("{path}: {} MiB are free", left >> 20),
            };
            Check::warning_if(
                left < MIN_ROOM || lacks_files,
                NAME,
                seen,
                "make room there, or give --state-dir another place",
            )
        }
    }
}

fn alertmanagers(facts: &Facts, has_server: bool) -> Check {
    const NAME: &str = "alertmanagers";
    let wrong: Vec<_> = facts
        .receivers
        .iter()
        .filter_map(|(address, reached)| Some(format!("{address} {}", reached.as_ref().err()?)))
        .collect();
    if !wrong.is_empty() {
        let advice = "start it, or mend --alertmanager or what is in between; alerts are sent again until it takes them";
        return Check::failed(NAME, wrong.join("; "), advice);
    }
    match facts.receivers.as_slice() {
        [] => Check::skipped(NAME, if has_server { "the server has no --alertmanager" } else { NO_SERVER }),
        all => {
            let shown: Vec<_> = all.iter().map(|(address, _)| address.as_str()).collect();
            Check::ok(NAME, format!("{}: reached from here", shown.join(", ")))
        }
    }
}

fn configuration(facts: &Facts) -> Check {
    const NAME: &str = "configuration";
    match &facts.configuration {
        None => Check::skipped(NAME, "no file of --config is known here"),
        Some((file, Ok(()))) => Check::ok(NAME, format!("{}: a server can start with it", file.display())),
        Some((file, Err(fault))) => Check::failed(
            NAME,
            format!("{}: {fault}", file.display()),
            "mend the file: with it the server would not start again, and a reload is refused",
        ),
    }
}

/// Whether a limit is nearly reached.
fn is_nearly(found: Use) -> bool {
    found.used.saturating_mul(100) >= found.most.saturating_mul(NEARLY)
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;
    use crate::observe::host_facts::CgroupLimits;
    use crate::services::doctor::check::Outcome;
    use crate::services::doctor::facts::Socket;

    const GIB: u64 = 1 << 30;

    fn facts() -> Facts {
        Facts {
            server: Ok(Default::default()),
            sockets: vec![Socket { path: "/run/varta/varta.sock".to_owned(), found: Ok((7, 0o600)) }],
            clock: ClockFacts {
                now: SystemTime::now(),
                program_from: Some(UNIX_EPOCH + Duration::from_secs(86_400 * 365)),
                is_synchronised: Some(true),
            },
            rmem_max: None,
            max_dgram_qlen: None,
            descriptors: Some(Use { used: 30, most: 1_024 }),
            cgroup: Some(CgroupLimits::default()),
            state: Some(place(100 * GIB, GIB, 1_000)),
            receivers: vec![("a:9093".to_owned(), Ok(()))],
            configuration: Some(("/etc/varta/varta.toml".into(), Ok(()))),
        }
    }

    fn place(all: u64, free: u64, files: u64) -> Place {
        let bytes = Use { used: all - free, most: all };
        Place {
            path: "/s".to_owned(),
            found: Ok(Room { bytes, files: Some(Use { used: 10, most: 10 + files }) }),
        }
    }

    /// The names of the checks that are not well, with their outcomes.
    fn wrong(change: impl FnOnce(&mut Facts)) -> Vec<(&'static str, Outcome)> {
        let mut facts = facts();
        change(&mut facts);
        checks(&facts).into_iter().filter(Check::is_wrong).map(|check| (check.name, check.outcome)).collect()
    }

    #[test]
    fn each_fault_is_named_by_its_check_and_by_no_other() {
        use Outcome::{Failed, Warning};
        assert_eq!(wrong(|_| {}), []);
        assert_eq!(wrong(|facts| facts.sockets[0].found = Err("is no socket".into())), [("sockets", Failed)]);
        assert_eq!(wrong(|facts| facts.clock.is_synchronised = Some(false)), [("clock", Warning)]);
        assert_eq!(wrong(|facts| facts.clock.now = UNIX_EPOCH), [("clock", Failed)]);
        let most = Some(Use { used: 95, most: 100 });
        assert_eq!(wrong(|facts| facts.descriptors = most), [("descriptors", Warning)]);
        let cgroup = |limits: CgroupLimits| move |facts: &mut Facts| facts.cgroup = Some(limits);
        let base = CgroupLimits::default;
        assert_eq!(wrong(cgroup(CgroupLimits { memory: most, ..base() })), [("memory", Warning)]);
        assert_eq!(wrong(cgroup(CgroupLimits { oom_kills: 1, ..base() })), [("memory", Warning)]);
        assert_eq!(wrong(cgroup(CgroupLimits { tasks: most, ..base() })), [("tasks", Warning)]);
        assert_eq!(wrong(cgroup(CgroupLimits { throttled: most, ..base() })), [("cpu", Warning)]);
        assert_eq!(
            wrong(|facts| facts.state = Some(place(GIB, 1 << 20, 1_000))),
            [("state-directory", Warning)]
        );
        assert_eq!(wrong(|facts| facts.state = Some(place(GIB, GIB, 5))), [("state-directory", Warning)]);
        let unreached = Err("cannot be reached: refused".to_owned());
        assert_eq!(wrong(|facts| facts.receivers[0].1 = unreached), [("alertmanagers", Failed)]);
        let fault = Some(("f".into(), Err("line 1".to_owned())));
        assert_eq!(wrong(|facts| facts.configuration = fault), [("configuration", Failed)]);
    }

    #[test]
    fn what_cannot_be_told_is_skipped_and_not_guessed() {
        let mut facts = facts();
        facts.server = Err("no server answers here".to_owned());
        (facts.descriptors, facts.cgroup, facts.state, facts.configuration) = (None, None, None, None);
        facts.receivers.clear();
        let skipped: Vec<_> = checks(&facts)
            .into_iter()
            .filter(|check| check.outcome == Outcome::Skipped)
            .map(|check| check.name)
            .collect();
        let expected =
            ["descriptors", "memory", "tasks", "cpu", "state-directory", "alertmanagers", "configuration"];
        assert_eq!(skipped, expected);
    }
}
