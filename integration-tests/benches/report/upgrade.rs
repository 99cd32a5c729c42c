//! For how long nobody reads while a server hands over to another, by the number of agents that it knows.

use std::net::UdpSocket;
use std::process::Command;
use std::time::Duration;

use varta_agent::{Frame, Status};
use varta_integration_tests::{Scrape, Signal, http, sys};

use crate::Fallible;
use crate::programs::{self, Server, wait_for};
use crate::statistics::median;
use crate::table::Row;

const NUMBERS: [u32; 3] = [1, 1_000, 100_000];
const UPGRADES: usize = 7;
const FIRST_PID: u32 = 10_000;
/// Frames that are sent at once: they fit the queue of the socket.
const AT_ONCE: u32 = 500;

pub(crate) fn measure() -> Fallible<Vec<Row>> {
    for agents in NUMBERS {
        let mut pauses = pauses(agents)?;
        let longest = pauses.iter().copied().fold(0.0, f64::max);
        let middle = median(&mut pauses).ok_or("no samples")?;
        println!(
            "upgrade with {agents} agents: nobody read for {:.2} ms in the median, {:.2} ms at most of {UPGRADES}",
            middle * 1e3,
            longest * 1e3
        );
    }
    Ok(Vec::new())
}

fn pauses(agents: u32) -> Fallible<Vec<f64>> {
    let directory = tempfile::tempdir()?;
    let [socket, control] = ["varta.sock", "control"].map(|name| directory.path().join(name));
    let (socket, control) = (socket.display().to_string(), control.display().to_string());
    let options = ["--socket", &socket, "--control-socket", &control, "--udp", "127.0.0.1:0"];
    let limits = ["--max-agents-per-source", "0", "--stall-after", "1h", "--agent-metrics", "off"];
    let server = Server::start(options.into_iter().chain(limits))?;
    let sender = UdpSocket::bind("127.0.0.1:0")?;
    sender.connect(server.udp()?)?;
    for (number, pid) in (1..).zip(FIRST_PID..FIRST_PID + agents) {
        sender.send(&Frame::new(Status::Ok, pid, 1_000, 1, 0).to_bytes())?;
        if number % AT_ONCE == 0 {
            std::thread::sleep(Duration::from_millis(10));
        }
    }
    wait_for("all agents are known", || {
        let response = http::get(server.metrics(), "/metrics", &[])?;
        let scrape = Scrape::parse(&response.body)?;
        Ok((scrape.value("varta_watch_pids_tracked", &[]) == f64::from(agents)).then_some(()))
    })?;
    let program = programs::server()?;
    let mut pauses = Vec::new();
    let mut present = None;
    for _ in 0..UPGRADES {
        let asked = Command::new(&program).args(["upgrade", "--control-socket", &control]).output()?;
        if !asked.status.success() {
            return Err(String::from_utf8_lossy(&asked.stderr).into_owned().into());
        }
        let said = String::from_utf8(asked.stdout)?;
        let pid = said.strip_prefix("the server has pid ").and_then(|rest| rest.split(' ').next());
        present = Some(pid.ok_or("no pid")?.parse::<u32>()?);
        let pause = loop {
            let line = server.line()?;
            if let Some((_, rest)) = line.split_once("\"pause_us\":") {
                break rest.split(|c: char| !c.is_ascii_digit()).next().unwrap_or_default().parse::<f64>()?;
            }
        };
        pauses.push(pause / 1e6);
    }
    if let Some(pid) = present {
        sys::send_signal(pid, Signal::Kill)?;
    }
    Ok(pauses)
}
