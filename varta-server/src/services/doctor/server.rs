//! The checks of what the server says of itself and its agents.

use crate::services::doctor::check::Check;
use crate::services::doctor::facts::Facts;
use crate::services::doctor::samples::{Samples, label};
use crate::services::maintenance::{Examination, Told};

/// The beats that the queue of a socket should hold.
const WANTED_QUEUE: f64 = 512.0;
/// The bytes that the queue of a UDP socket should hold.
const WANTED_BUFFER: f64 = 1_048_576.0;

/// The checks that need a server.
const NAMES: [&str; 11] = [
    "faults",
    "reload",
    "queue-length",
    "receive-buffer",
    "kernel-drops",
    "refused-beats",
    "capacity",
    "blindness",
    "deadlines",
    "lost-beats",
    "log",
];

/// All of them; the first is whether the server is there.
pub(super) fn checks(facts: &Facts) -> Vec<Check> {
    let server = match &facts.server {
        Ok(server) => server,
        Err(fault) => {
            let advice = "start it, or say with --control-socket or --socket where it is; only its own user and root may ask it";
            let rest = NAMES.into_iter().map(|name| Check::skipped(name, "no server was reached"));
            return std::iter::once(Check::failed("server", fault.as_str(), advice)).chain(rest).collect();
        }
    };
    let samples = Samples(&server.metrics);
    let checks = [
        faults(server),
        reload(samples),
        queue_length(facts, samples),
        receive_buffer(facts, samples),
        kernel_drops(samples),
        refused_beats(samples),
        capacity(samples),
        blindness(samples),
        deadlines(server),
        lost_beats(server),
        log(samples),
    ];
    std::iter::once(present(server)).chain(checks).collect()
}

fn present(server: &Examination) -> Check {
    let Examination { version, host, pid, uid, ready, .. } = server;
    let seen = format!("varta-server {version} on {host}, pid {pid}, uid {uid}");
    match ready {
        true => Check::ok("server", seen),
        false => Check::failed("server", format!("{seen}: not ready"), "see the check `faults`"),
    }
}

fn faults(server: &Examination) -> Check {
    match server.faults.as_slice() {
        [] => Check::ok("faults", "every part of the server works"),
        faults => Check::failed("faults", faults.join("; "), "as it says; docs/TROUBLESHOOTING.md has each"),
    }
}

fn reload(samples: Samples<'_>) -> Check {
    Check::warning_if(
        samples.only("varta_config_last_reload_successful") == Some(0.0),
        "reload",
        match samples.only("varta_config_last_reload_successful") {
            Some(0.0) => "the last reload failed, and the configuration before it counts",
            _ => "the configuration that was read last counts",
        },
        "`varta-server reload` says what is wrong with the files",
    )
}

fn queue_length(facts: &Facts, samples: Samples<'_>) -> Check {
    const NAME: &str = "queue-length";
    let Some(length) = samples.only("varta_unix_max_dgram_qlen") else {
        return Check::skipped(NAME, "the server has no Unix socket");
    };
    let host = facts
        .max_dgram_qlen
        .map(|length| format!(" (net.unix.max_dgram_qlen is {length})"))
        .unwrap_or_default();
    Check::warning_if(
        length + 1.0 < WANTED_QUEUE,
        NAME,
        format!("the shortest queue of a socket holds {} beats{host}", length + 1.0),
        "give the server CAP_SYS_ADMIN for --socket-queue, or raise net.unix.max_dgram_qlen (deploy/systemd/sysctl.conf) and start \
         it again",
    )
}

fn receive_buffer(facts: &Facts, samples: Samples<'_>) -> Check {
    const NAME: &str = "receive-buffer";
    let smallest =
        samples.of("varta_udp_receive_buffer_bytes").min_by(|one, other| one.1.total_cmp(&other.1));
    let Some((labels, bytes)) = smallest else { return Check::skipped(NAME, "the server has no UDP socket") };
    let host = facts.rmem_max.map(|bytes| format!(" (net.core.rmem_max is {bytes})")).unwrap_or_default();
    let address = label(labels, "address").unwrap_or("a socket");
    Check::warning_if(
        bytes < WANTED_BUFFER,
        NAME,
        format!("{bytes} bytes of datagrams fit the queue of {address}{host}"),
        "give the server CAP_NET_ADMIN, or raise net.core.rmem_max (deploy/systemd/sysctl.conf) and start it again; or raise \
         --udp-receive-buffer",
    )
}

fn kernel_drops(samples: Samples<'_>) -> Check {
    const NAME: &str = "kernel-drops";
    let full = samples.sum("varta_unix_queue_full_total");
    let dropped = samples.sum("varta_kernel_drops_total");
    Check::warning_if(
        full > 0.0 || dropped > 0.0,
        NAME,
        match full > 0.0 || dropped > 0.0 {
            true => format!(
                "since its start {dropped} datagrams were thrown away, and a queue was full {full} times"
            ),
            false => "no queue of a socket was ever full".to_owned(),
        },
        "make the queues longer (--socket-queue, --udp-receive-buffer), let agents beat less often, or give the server more CPU",
    )
}

fn refused_beats(samples: Samples<'_>) -> Check {
    const NAME: &str = "refused-beats";
    let mut refused: Vec<_> = samples
        .of("varta_frames_total")
        .filter(|(labels, count)| *count > 0.0 && label(labels, "outcome") != Some("accepted"))
        .map(|(labels, count)| {
            let (outcome, transport) = (label(labels, "outcome"), label(labels, "transport"));
            format!("{count} by {} as {}", transport.unwrap_or("?"), outcome.unwrap_or("?"))
        })
        .collect();
    refused.truncate(6);
    Check::warning_if(
        !refused.is_empty(),
        NAME,
        if refused.is_empty() {
            "all were taken".to_owned()
        } else {
            format!("since its start {}", refused.join(", "))
        },
        "docs/METRICS.md explains each outcome; `Varta::check` in the program of an agent says what to do about it",
    )
}

fn capacity(samples: Samples<'_>) -> Check {
    let [agents, most, refused, sources] = [
        "varta_watch_pids_tracked",
        "varta_tracker_capacity",
        "varta_tracker_capacity_exceeded_total",
        "varta_source_limited_total",
    ]
    .map(|family| samples.sum(family));
    Check::warning_if(
        refused > 0.0 || sources > 0.0 || agents > most * 0.9,
        "capacity",
        format!(
            "{agents} of {most} agents; {} beats of new ones were refused for want of room",
            refused + sources
        ),
        "raise --max-agents or --max-agents-per-source, or find out who makes up agents",
    )
}

fn blindness(samples: Samples<'_>) -> Check {
    let periods = samples.sum("varta_blind_periods_total");
    Check::warning_if(
        periods > 0.0,
        "blindness",
        match periods > 0.0 {
            true => format!("{periods} times since its start this server could not see for a while"),
            false => "the server saw all the time".to_owned(),
        },
        "nothing, if it or the host was suspended. Else the host is overloaded: give the server a higher CPUWeight= or Nice=",
    )
}

fn deadlines(server: &Examination) -> Check {
    let shown = server.seldom.first.iter().map(|agent| {
        format!(
            "{} beats every {} ms and may be silent for {} ms",
            agent.agent, agent.interval_ms, agent.stall_after_ms
        )
    });
    agents(
        "deadlines",
        &server.seldom,
        shown.collect(),
        "every agent has time for a lost beat",
        "one lost or late beat makes it stalled: let it beat three times within its timeout, or give it a longer one (stall_after, a \
         [[rule]])",
    )
}

fn lost_beats(server: &Examination) -> Check {
    let shown =
        server.lossy.first.iter().map(|agent| {
            format!("{} has lost {} beats, and {} arrived", agent.agent, agent.lost, agent.beats)
        });
    agents(
        "lost-beats",
        &server.lossy,
        shown.collect(),
        "no agent loses one in a hundred beats",
        "see the checks `kernel-drops` and `receive-buffer`; of other hosts, look at the network",
    )
}

fn agents<T>(name: &'static str, told: &Told<T>, mut shown: Vec<String>, well: &str, advice: &str) -> Check {
    let more = told.count.saturating_sub(told.first.len() as u64);
    if more > 0 {
        shown.push(format!("and {more} more"));
    }
    Check::warning_if(
        told.count > 0,
        name,
        if told.count > 0 { shown.join("; ") } else { well.to_owned() },
        advice,
    )
}

fn log(samples: Samples<'_>) -> Check {
    let dropped = samples.sum("varta_log_lines_dropped_total");
    Check::warning_if(
        dropped > 0.0,
        "log",
        match dropped > 0.0 {
            true => format!("{dropped} lines were dropped since its start: standard error was too slow"),
            false => "no line was dropped".to_owned(),
        },
        "look at what reads the server's standard error",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::services::doctor::check::Outcome;
    use crate::services::doctor::facts::ClockFacts;
    use crate::services::maintenance::{Lossy, Seldom};

    const WELL: &str = "varta_unix_max_dgram_qlen 1023\nvarta_frames_total{transport=\"unix\",outcome=\"accepted\"} 9\n\
        varta_tracker_capacity 100\nvarta_watch_pids_tracked 7\nvarta_config_last_reload_successful 1\n\
        varta_udp_receive_buffer_bytes{address=\"[::]:1\"} 8388608\n";

    fn facts(metrics: &str) -> Facts {
        let server =
            Examination { metrics: format!("{metrics}{WELL}"), ready: true, ..Examination::default() };
        Facts {
            server: Ok(server),
            sockets: Vec::new(),
            clock: ClockFacts { now: std::time::UNIX_EPOCH, program_from: None, is_synchronised: None },
            rmem_max: Some(212_992),
            max_dgram_qlen: Some(10),
            descriptors: None,
            cgroup: None,
            state: None,
            receivers: Vec::new(),
            configuration: None,
        }
    }

    fn wrong(facts: &Facts) -> Vec<&'static str> {
        checks(facts).into_iter().filter(Check::is_wrong).map(|check| check.name).collect()
    }

    #[test]
    fn each_fault_is_named_by_its_check_and_by_no_other() {
        assert_eq!(wrong(&facts("")), [""; 0]);
        for (metrics, name) in [
            ("varta_config_last_reload_successful 0\n", "reload"),
            ("varta_unix_max_dgram_qlen 10\n", "queue-length"),
            ("varta_udp_receive_buffer_bytes{address=\"[::]:2\"} 4096\n", "receive-buffer"),
            ("varta_kernel_drops_total{transport=\"udp\"} 2\n", "kernel-drops"),
            ("varta_unix_queue_full_total 1\n", "kernel-drops"),
            ("varta_frames_total{transport=\"unix\",outcome=\"uid_refused\"} 1\n", "refused-beats"),
            ("varta_tracker_capacity_exceeded_total 1\n", "capacity"),
            ("varta_source_limited_total 1\n", "capacity"),
            ("varta_watch_pids_tracked 90\n", "capacity"),
            ("varta_blind_periods_total 1\n", "blindness"),
            ("varta_log_lines_dropped_total 1\n", "log"),
        ] {
            assert_eq!(wrong(&facts(metrics)), [name], "{metrics}");
        }
        let change = |change: fn(&mut Examination)| {
            let mut facts = facts("");
            change(facts.server.as_mut().unwrap());
            wrong(&facts)
        };
        assert_eq!(change(|server| server.faults.push("audit: no room".to_owned())), ["faults"]);
        assert_eq!(change(|server| server.ready = false), ["server"]);
        let seldom = |server: &mut Examination| {
            let first = vec![Seldom { agent: "a[1]".to_owned(), interval_ms: 900, stall_after_ms: 1_000 }];
            server.seldom = Told { count: 3, first };
        };
        assert_eq!(change(seldom), ["deadlines"]);
        let lossy = |server: &mut Examination| {
            server.lossy =
                Told { count: 1, first: vec![Lossy { agent: "a[1]".to_owned(), lost: 9, beats: 90 }] };
        };
        assert_eq!(change(lossy), ["lost-beats"]);
    }

    #[test]
    fn without_a_server_that_is_the_fault_and_all_that_needs_one_is_skipped() {
        let facts = Facts { server: Err("no server answers here".to_owned()), ..facts("") };
        let checks = checks(&facts);
        assert_eq!((checks[0].name, checks[0].outcome), ("server", Outcome::Failed));
        assert!(checks[1..].iter().all(|check| check.outcome == Outcome::Skipped));
        let names: Vec<_> = checks[1..].iter().map(|check| check.name).collect();
        assert_eq!(names, NAMES);
    }
}
