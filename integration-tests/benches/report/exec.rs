//! What `exec` costs the command that it runs, beside the command alone: its start, and the way of its output.

use std::ffi::OsStr;
use std::io::Read;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use crate::Fallible;
use crate::programs;
use crate::statistics::{Comparison, median};
use crate::table::{Reach, Row};

const STARTS: usize = 200;
const TURNS: usize = 15;
/// The bytes of one turn.
const LENGTH: usize = 1 << 28;
/// What the reader reads at once, as cat(1) does.
const ROOM: usize = 128 * 1024;

pub(crate) fn measure() -> Fallible<Vec<Row>> {
    let server = programs::server()?;
    let server = Path::new(&server);
    let start = compare(STARTS, |through_exec| {
        let mut command = command(server, through_exec, &["true"]);
        let start = Instant::now();
        let status = command.stdout(Stdio::null()).stderr(Stdio::null()).status()?;
        if status.success() { Ok(start.elapsed().as_secs_f64()) } else { Err(format!("{status}").into()) }
    })?;
    let length = LENGTH.to_string();
    let flow = compare(TURNS, |through_exec| {
        let mut command = command(server, through_exec, &["head", "-c", &length, "/dev/zero"]);
        let start = Instant::now();
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
        let mut output = child.stdout.take().ok_or("no output")?;
        let (mut room, mut left) = (vec![0; ROOM], LENGTH);
        while left > 0 {
            left -= match output.read(&mut room)? {
                0 => return Err("the output has ended".into()),
                length => length,
            };
        }
        let seconds = start.elapsed().as_secs_f64();
        child.wait()?;
        Ok(LENGTH as f64 / seconds)
    })?;
    let millis = |seconds: f64| format!("{:.2} ms", seconds * 1e3);
    let rate = |bytes: f64| format!("{:.2} GB/s", bytes / 1e9);
    let soon = Reach { text: "3 ms more", holds: |compared| compared.ours - compared.yardstick <= 0.003 };
    let fast = Reach { text: "≥ 0.95", holds: |compared| compared.ratio >= 0.95 };
    Ok(vec![
        Row::new("a command by exec, from start to end", &start, "the command alone", millis, soon),
        Row::new("its output through a pipe", &flow, "the command alone", rate, fast),
    ])
}

/// A command with nobody who takes the beats, which costs exec more than a server that does.
fn command(server: &Path, through_exec: bool, words: &[&str]) -> Command {
    if !through_exec {
        let mut command = Command::new(words[0]);
        command.args(&words[1..]);
        return command;
    }
    let mut command = Command::new(server);
    let options = ["exec", "--socket", "/nowhere/varta.sock", "--beat", "alive", "--"].map(OsStr::new);
    command.args(options).args(words);
    command
}

/// Measures with and without exec in turns, the first of which only warm up.
fn compare(turns: usize, mut measure: impl FnMut(bool) -> Fallible<f64>) -> Fallible<Comparison> {
    let (mut ours, mut bare) = (Vec::new(), Vec::new());
    for turn in 0..=turns {
        for place in 0..2 {
            let through_exec = (turn + place) % 2 == 0;
            let measured = measure(through_exec)?;
            if turn > 0 {
                if through_exec { &mut ours } else { &mut bare }.push(measured);
            }
        }
    }
    let of = |values: &mut [f64]| median(values).ok_or("no samples");
    Ok(Comparison::once(of(&mut ours)?, of(&mut bare)?))
}
