//! What fifty agents that beat once a second cost the server, beside the peer, at the same time.

use std::thread;
use std::time::Duration;

use varta_agent::{Status, Varta};

use crate::Fallible;
use crate::programs::{self, Process, Server, cpu_time};
use crate::statistics::Comparison;
use crate::table::{Reach, Row};

const AGENTS: usize = 50;
const SETTLE: Duration = Duration::from_secs(3);
const MEASURED: Duration = Duration::from_secs(30);

pub(crate) fn measure() -> Fallible<Vec<Row>> {
    let directory = tempfile::tempdir()?;
    let (path, peer_path) = (directory.path().join("varta.sock"), directory.path().join("peer.sock"));
    let server = Server::start(["--socket".as_ref(), path.as_os_str()])?;
    let Some(peer) = programs::peer(&peer_path, ["--threshold-ms", "5000"])? else {
        println!("(agents: the peer is not installed, so there is nothing to compare with)");
        return Ok(Vec::new());
    };
    let agents: Vec<Process> = (0..AGENTS)
        .map(|_| {
            let arguments = ["role-agent".as_ref(), path.as_os_str(), peer_path.as_os_str()];
            Process::start(&mut programs::role(arguments))
        })
        .collect::<Fallible<_>>()?;
    thread::sleep(SETTLE);
    let used = || Ok::<_, Box<dyn std::error::Error>>((cpu_time(server.pid())?, cpu_time(peer.pid())?));
    let before = used()?;
    thread::sleep(MEASURED);
    let after = used()?;
    if server.scrape()?.sum("varta_agents", &[("state", "up")]) != AGENTS as f64 {
        return Err("not all agents are up".into());
    }
    drop(agents);
    let share = |time: Duration| time.as_secs_f64() / MEASURED.as_secs_f64();
    let compared = Comparison::once(share(after.0 - before.0), share(after.1 - before.1));
    let show = |share: f64| format!("{:.3} %", share * 100.0);
    let reach = Reach { text: "≤ 0.5", holds: |compared| compared.ratio <= 0.5 };
    Ok(vec![Row::new("CPU with 50 agents at 1 Hz", &compared, "the peer", show, reach)])
}

/// An agent's process: `PATH...`. Beats to each path once a second until it is killed.
pub(crate) fn beat_for_ever(paths: &[String]) -> Fallible<()> {
    let mut handles = paths.iter().map(Varta::connect).collect::<Result<Vec<_>, _>>()?;
    loop {
        for handle in &mut handles {
            // A beat that finds the queue full is made up for by the next.
            let _ = handle.beat(Status::Ok, 0);
        }
        thread::sleep(Duration::from_secs(1));
    }
}
