//! Signals of recovery to the process group and to the cgroup of an agent: whom they reach, and whom not.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::fs;
use std::process::Command;

use varta_integration_tests::foreign::skip;
use varta_integration_tests::{
    AgentProcess, CgroupVersion, Freezer, Options, Scratch, Server, Signal, agent, line_with, metric,
    wait_until, worker_command,
};

/// A server that sends this signal to whoever is silent, and writes an audit log.
fn server(scratch: &Scratch, signal: &str) -> Server {
    let rules = format!("[[recovery]]\nstate = 'stalled'\nsteps = [{{ signal = {signal} }}]\n");
    let options = Options::from(["--stall-after", "1s"]).path("--audit-log", &scratch.path("audit.log"));
    Server::start(options.config(scratch, &rules))
}

/// A worker with a child of its own in the background, as the leader of a process group or not.
fn parent_command(server: &Server, leads: bool) -> Command {
    let mut worker = worker_command();
    worker.arg("--socket").arg(server.socket());
    let mut command = if leads { Command::new("setsid") } else { Command::new("env") };
    command.args(["sh", "-c", "sleep 1000 & exec \"$@\"", "parent"]);
    command.arg(worker.get_program()).args(worker.get_args());
    command
}

/// The live processes whose field `number` of `stat` is this: 4 is the parent, 5 the process group.
fn processes_with(number: usize, value: u32) -> Vec<u32> {
    let entries = fs::read_dir("/proc").unwrap().filter_map(Result::ok);
    let stats = entries.filter_map(|entry| fs::read_to_string(entry.path().join("stat")).ok());
    let parse = |stat: String| {
        let fields: Vec<&str> = stat.rsplit_once(") ")?.1.split(' ').collect();
        let is_it = fields[0] != "Z" && fields[number - 3].parse() == Ok(value);
        stat.split(' ').next()?.parse().ok().filter(|_| is_it)
    };
    stats.filter_map(parse).collect()
}

fn fired(scratch: &Scratch) -> serde_json::Value {
    let lines = scratch.lines("audit.log");
    let records = lines.iter().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    records.into_iter().find(|record| record["event"] == "fired").unwrap()
}

#[test]
fn a_signal_to_the_group_reaches_the_children_of_its_leader() {
    let scratch = Scratch::make();
    let server = server(&scratch, "{ name = 'KILL', to = 'group' }");
    let worker = AgentProcess::run(parent_command(&server, true));
    let group = worker.pid();
    wait_until("its child is there", || processes_with(5, group).len() == 2);
    worker.signal(Signal::Stop);
    server.expect(line_with("sent SIGKILL to the process group of it-worker"));
    wait_until("nobody is left", || processes_with(5, group).is_empty());
    server.expect(agent(group).down().signal(9));
    let record = fired(&scratch);
    assert_eq!((&record["signal"], &record["to"]), (&"SIGKILL".into(), &"group".into()), "{record}");
}

#[test]
fn a_group_that_the_agent_does_not_lead_and_a_cgroup_that_it_shares_are_not_reached() {
    for (to, reason) in [("group", "shared_group"), ("cgroup", "shared_cgroup")] {
        let scratch = Scratch::make();
        let server = server(&scratch, &format!("{{ name = 'KILL', to = '{to}' }}"));
        let worker = AgentProcess::run(parent_command(&server, false));
        worker.signal(Signal::Stop);
        server.expect(metric("varta_recovery_refused_total").with("reason", reason).at_least(1.0));
        server.expect(metric("varta_recovery_agents").is(0.0));
        assert_eq!(server.scrape().sum("varta_recovery_actions_total", &[]), 0.0);
        // Its child ends with nobody's help but this.
        for child in processes_with(4, worker.pid()) {
            varta_integration_tests::sys::send_signal(child, Signal::Kill).unwrap();
        }
    }
}

#[test]
fn a_signal_to_the_cgroup_reaches_all_that_is_in_it() {
    for (version, signal) in [
        (CgroupVersion::Two, "KILL"),
        (CgroupVersion::Two, "TERM"),
        (CgroupVersion::One, "KILL"),
        (CgroupVersion::One, "TERM"),
    ] {
        let cgroup = match Freezer::make(version) {
            Ok(cgroup) => cgroup,
            Err(error) => {
                skip(&format!("no cgroup of version {version:?} can be made here: {error}"));
                continue;
            }
        };
        let scratch = Scratch::make();
        let server = server(&scratch, &format!("{{ name = '{signal}', to = 'cgroup' }}"));
        let mut worker = AgentProcess::run(cgroup.command(&parent_command(&server, false)));
        let pid = worker.pid();
        wait_until("its child is there", || processes_with(4, pid).len() == 1);
        let child = processes_with(4, pid)[0];
        // It is silent, and obeys.
        worker.ask("lock");
        server.expect(line_with(&format!("sent SIG{signal} to cgroup /")));
        wait_until("both have ended", || {
            [pid, child].iter().all(|pid| {
                fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| stat.contains(") Z "))
                    || !std::path::Path::new(&format!("/proc/{pid}")).exists()
            })
        });
        let record = fired(&scratch);
        assert_eq!(&record["to"], "cgroup", "{record}");
        assert!(record["cgroup"].as_str().unwrap().contains("/varta-it-"), "{record}");
        drop(worker);
    }
}
