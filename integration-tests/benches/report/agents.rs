//! What fifty agents that beat once a second cost the server, beside the peer, at the same time.

use std::thread;
use std::time::Duration;

use varta_agent::{Status, Varta};

use crate::programs::{self, Process, Server, cpu_time};
use crate::{Fallible, Row};

const AGENTS: usize = 50;
const SETTLE: Duration = Duration::from_secs(3);
const MEASURED: Duration = Duration::from_secs(30);

pub(crate) fn measure() -> Fallible<Vec<Row>> {
    let directory = tempfile::tempdir()?;
    let (path, peer_path) = (directory.path().join("varta.sock"), directory.path().join("peer.sock"));
    let server = Server::start(&path)?;
    let Some(peer) = programs::peer(&peer_path)? else {
        println!("(agents: the peer is not installed, so there is nothing to compare with)");
        return Ok(Vec::new());
    };
    while !peer_path.exists() {
        thread::yield_now();
    }
    let agents: Vec<Process> = (0..AGENTS)
        .map(|_| {
            Ok(Process(
                programs::role(&["role-agent", &path.to_string_lossy(), &peer_path.to_string_lossy()])
                    .spawn()?,
            ))
        })
        .collect::<Fallible<_>>()?;
    thread::sleep(SETTLE);
    let used = || Ok::<_, Box<dyn std::error::Error>>((cpu_time(server.pid())?, cpu_time(peer.0.id())?));
    let before = used()?;
    thread::sleep(MEASURED);
    let after = used()?;
    if server.sample("varta_agents{state=\"up\"}")? != AGENTS as u64 {
        return Err("not all agents are up".into());
    }
    drop(agents);
    let share = |time: Duration| time.as_secs_f64() / MEASURED.as_secs_f64();
    let (ours, peers) = (share(after.0 - before.0), share(after.1 - before.1));
    Ok(vec![Row {
        work: "CPU with 50 agents at 1 Hz".to_owned(),
        ours: format!("{:.3} %", ours * 100.0),
        yardstick: format!("the peer {:.3} %", peers * 100.0),
        ratio: ours / peers,
        reach: "< 1",
        reached: ours < peers,
    }])
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
