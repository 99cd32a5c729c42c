//! How long it takes from the start of a server until it takes a beat, beside the peer.

use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use varta_agent::{Frame, Status};

use crate::Fallible;
use crate::programs::{self, LIMIT, Process};
use crate::statistics::{Comparison, median};
use crate::table::{Reach, Row};

const TURNS: usize = 20;
const POLL: Duration = Duration::from_micros(50);

pub(crate) fn measure() -> Fallible<Vec<Row>> {
    let Some(peer) = programs::peers_server()? else {
        println!("(start: the peer is not installed, so there is nothing to compare with)");
        return Ok(Vec::new());
    };
    let server = programs::server()?;
    let (mut ours, mut peers) = (Vec::new(), Vec::new());
    // A turn to warm up.
    for turn in 0..=TURNS {
        let mut times = [0.0; 2];
        for place in 0..2 {
            let who = (turn + place) % 2;
            times[who] = if who == 0 {
                start(Command::new(&server).args(["--metrics-addr", "127.0.0.1:0"]))?
            } else {
                start(Command::new(&peer).args(["--threshold-ms", "5000"]))?
            };
        }
        if turn > 0 {
            ours.push(times[0]);
            peers.push(times[1]);
        }
    }
    let of = |times: &mut [f64]| median(times).ok_or("no samples");
    let compared = Comparison::once(of(&mut ours)?, of(&mut peers)?);
    let show = |seconds: f64| format!("{:.2} ms", seconds * 1e3);
    let reach = Reach { text: "≤ 1.5", holds: |compared| compared.ratio <= 1.5 };
    Ok(vec![Row::new("start to first beat", &compared, "the peer", show, reach)])
}

/// Seconds from before the program is started until a beat to its socket was sent.
fn start(command: &mut Command) -> Fallible<f64> {
    let directory = tempfile::tempdir()?;
    let path = directory.path().join("start.sock");
    command.arg("--socket").arg(&path).stdout(Stdio::null()).stderr(Stdio::null());
    let start = Instant::now();
    let _process = Process::start(command)?;
    while !is_taken(&path) {
        if start.elapsed() > LIMIT {
            return Err(format!("{} takes no beat", path.display()).into());
        }
        std::thread::sleep(POLL);
    }
    Ok(start.elapsed().as_secs_f64())
}

fn is_taken(path: &Path) -> bool {
    let Ok(socket) = UnixDatagram::unbound() else { return false };
    let frame = Frame::new(Status::Ok, std::process::id(), 1, 1, 0).to_bytes();
    socket.connect(path).and_then(|()| socket.send(&frame)).is_ok()
}
