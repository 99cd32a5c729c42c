//! How many instructions the steps of a beat's way take, counted by valgrind's callgrind: unlike time, they are the same on
//! a busy machine. More than the budget is a failure.
//!
//! `scripts/count-instructions` builds and runs it; what the instructions are for is in `docs/PERFORMANCE.md`. The program
//! runs itself under valgrind once for each step, which counts only inside of the function that does it.

#![allow(clippy::print_stdout, reason = "a program that prints a table")]

use std::hint::black_box;
use std::num::NonZeroU64;
use std::process::{Command, ExitCode};
use std::time::Duration;
use std::{env, io};

use varta_agent::{BeatTransport, Frame, Status, Varta};
use varta_server::beat::{ReceivedBeat, Sender};
use varta_server::outcome::OutcomeCounts;
use varta_server::time::MonoTime;
use varta_server::tracker::{Policy, ProcessIdentity, Processes, Tracker};

type Fallible<T> = Result<T, Box<dyn std::error::Error>>;

/// A step, the function that does it, how often, and how many instructions it may take each time: what it took when that was
/// last set, and a tenth more.
struct Step {
    name: &'static str,
    function: &'static str,
    rounds: u32,
    budget: f64,
    run: fn(u32) -> Fallible<()>,
}

const STEPS: [Step; 5] = [
    Step { name: "encode", function: "*do_encode*", rounds: 10_000, budget: 104.0, run: encode },
    Step { name: "decode", function: "*do_decode*", rounds: 10_000, budget: 95.0, run: decode },
    Step { name: "beat() without the send", function: "*do_beat*", rounds: 10_000, budget: 278.0, run: beat },
    Step {
        name: "tracker, a beat of 64 together",
        function: "*do_batch*",
        rounds: 64 * 200,
        budget: 375.0,
        run: track::<64>,
    },
    Step {
        name: "tracker, a beat alone",
        function: "*do_batch*",
        rounds: 10_000,
        budget: 488.0,
        run: track::<1>,
    },
];

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let outcome = match &arguments[..] {
        [role, step] if role == "role-step" => run_step(step),
        _ => count_all(),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("instructions: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run_step(name: &str) -> Fallible<()> {
    let step = STEPS.iter().find(|step| step.name == name).ok_or("no such step")?;
    (step.run)(step.rounds)
}

fn count_all() -> Fallible<()> {
    println!("| step | instructions | budget |");
    println!("|---|---|---|");
    let mut exceeded = Vec::new();
    for step in &STEPS {
        let each = count(step)?;
        let Step { name, budget, .. } = step;
        println!("| {name} | {each:.1} | {budget:.0} |");
        if each > *budget {
            exceeded.push(*name);
        }
    }
    if exceeded.is_empty() { Ok(()) } else { Err(format!("over budget: {}", exceeded.join(", ")).into()) }
}

/// Instructions for each time that a step is done.
fn count(step: &Step) -> Fallible<f64> {
    let directory = tempfile::tempdir()?;
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--collect-atstart=no"])
        .arg(format!("--toggle-collect={}", step.function))
        .arg(format!("--callgrind-out-file={}", directory.path().join("profile").display()))
        .arg(env::current_exe()?)
        .args(["role-step", step.name])
        .output()
        .map_err(|error| format!("valgrind cannot be started: {error}"))?;
    let told = String::from_utf8_lossy(&output.stderr);
    let collected =
        told.lines().find_map(|line| line.split_once("Collected : ")?.1.trim().parse::<u64>().ok());
    match collected {
        Some(collected) if output.status.success() && collected > 0 => {
            Ok(collected as f64 / f64::from(step.rounds))
        }
        _ => Err(format!("{}: valgrind counted nothing: {told}", step.name).into()),
    }
}

fn encode(rounds: u32) -> Fallible<()> {
    let mut wire = [0; 32];
    (0..rounds).for_each(|number| do_encode(number, &mut wire));
    Ok(())
}

#[inline(never)]
fn do_encode(number: u32, wire: &mut [u8; 32]) {
    black_box(Frame::new(Status::Ok, number | 2, 5, 7, number)).encode(black_box(wire));
}

fn decode(rounds: u32) -> Fallible<()> {
    let wire = Frame::new(Status::Ok, 42, 5, 7, 1).to_bytes();
    (0..rounds).for_each(|_| do_decode(&wire));
    Ok(())
}

#[inline(never)]
fn do_decode(wire: &[u8; 32]) {
    let _ = black_box(&Frame::decode(black_box(wire)));
}

/// Takes every frame and does nothing with it.
struct Nowhere;

impl BeatTransport for Nowhere {
    fn send(&mut self, frame: &[u8; 32]) -> io::Result<usize> {
        Ok(black_box(frame).len())
    }

    fn reconnect(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn beat(rounds: u32) -> Fallible<()> {
    let mut agent = Varta::builder().transport(Nowhere).connect()?;
    (0..rounds).for_each(|number| do_beat(&mut agent, number));
    Ok(())
}

#[inline(never)]
fn do_beat(agent: &mut Varta<Nowhere>, number: u32) {
    let _ = black_box(agent.beat(Status::Ok, number));
}

/// Everybody is a worker.
struct Workers;

impl Processes for Workers {
    fn identify(&mut self, _: u32) -> Option<ProcessIdentity> {
        Some(ProcessIdentity::of_command(NonZeroU64::MIN, "worker".to_owned()))
    }
}

/// A thousand agents that beat in turn, `TOGETHER` in each batch.
fn track<const TOGETHER: usize>(rounds: u32) -> Fallible<()> {
    const AGENTS: u32 = 1_000;
    let stall_after = Duration::from_secs(1_000_000);
    let mut tracker = Tracker::new(Policy { stall_after, max_beat_rate: 0, ..Policy::default() });
    let beat = |number: u32| {
        let pid = 2 + number % AGENTS;
        let received_at = MonoTime::from_nanos(1_000_000_000 + u64::from(number) * 1_000);
        let frame = Frame::new(Status::Ok, pid, received_at.as_nanos(), u64::from(1 + number / AGENTS), 0);
        ReceivedBeat { received_at, sender: Sender::local(pid), frame }
    };
    let first: Vec<_> = (0..AGENTS).map(beat).collect();
    tracker.handle_batch(&first, &mut Workers);
    while tracker.poll_transition().is_some() {}
    while tracker.poll_request().is_some() {}
    let beats: Vec<_> = (AGENTS..AGENTS + rounds).map(beat).collect();
    for batch in beats.chunks(TOGETHER) {
        black_box(do_batch(&mut tracker, batch));
    }
    Ok(())
}

#[inline(never)]
fn do_batch(tracker: &mut Tracker, batch: &[ReceivedBeat]) -> OutcomeCounts {
    tracker.handle_batch(batch, &mut Workers)
}
