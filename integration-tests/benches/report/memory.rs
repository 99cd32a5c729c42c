//! What the whole server takes of memory with very many agents, beside the budget for it.

use std::fs;

use crate::Fallible;
use crate::paced::{self, Paced};
use crate::programs::Server;
use crate::statistics::Comparison;
use crate::table::{Reach, Row};

/// For a million agents, in bytes; for fewer it is less in proportion.
const BUDGET: f64 = 256e6;
const BUDGETED_AGENTS: u32 = 1_000_000;

pub(crate) fn measure() -> Fallible<Vec<Row>> {
    let all = Reach { text: "≤ 1", holds: |compared| compared.ratio <= 1.0 };
    let row = |(agents, name, reach): (u32, &str, Reach)| {
        let budget = BUDGET * f64::from(agents) / f64::from(BUDGETED_AGENTS);
        let compared = Comparison::once(resident_with(agents)?, budget);
        let show = |bytes: f64| format!("{:.0} MB", bytes / 1e6);
        Ok(Row::new(format!("resident memory with {name} agents"), &compared, "the budget of", show, reach))
    };
    [(100_000, "100,000", Reach::NONE), (BUDGETED_AGENTS, "1,000,000", all)].into_iter().map(row).collect()
}

/// The resident memory of a server that tracks so many agents, in bytes.
fn resident_with(agents: u32) -> Fallible<f64> {
    let server = Server::start(paced::ARGUMENTS.iter().chain(&[
        "--socket",
        "none",
        "--max-agents",
        "1000000",
        "--agent-metrics",
        "off",
        "--stall-after",
        "1h",
    ]))?;
    let mut crowd = Paced::new(&server, agents)?;
    (0..agents).try_for_each(|agent| crowd.beat(agent))?;
    crowd.await_taken(&server)?;
    let tracked = server.scrape()?.sum("varta_agents", &[("state", "up")]);
    if tracked != f64::from(agents) {
        return Err(format!("{agents} have beaten, and {tracked} are tracked").into());
    }
    let status = fs::read_to_string(format!("/proc/{}/status", server.pid()))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or("no VmRSS")?;
    let kibibytes: f64 = line.trim_end_matches("kB").trim().parse()?;
    Ok(kibibytes * 1024.0)
}
