//! The benchmark program: each piece of work beside its yardstick in the same run, as a table.
//!
//! `cargo bench -p varta-integration-tests --bench report` runs everything in about twelve minutes; a word after `--` runs
//! only what has it in its name, as in `-- ingest`. The figures that count are the ratios: yardstick and work take turns,
//! so that whatever else the machine does hits both, and the median of the turns is taken.

#![allow(clippy::print_stdout, reason = "a program that prints a table")]

mod agents;
mod beat;
mod codec;
mod crowd;
mod exec;
mod expiry;
mod flow;
mod forgery;
mod ingest;
mod load;
mod memory;
mod notify;
mod paced;
mod plot;
mod programs;
mod recovery;
mod scrape;
mod secure;
mod shm;
mod size;
mod start;
mod statistics;
mod sys;
mod table;
mod tracker;
mod udp;
mod upgrade;
mod verdicts;

use std::process::ExitCode;

use crate::table::Row;

type Fallible<T> = Result<T, Box<dyn std::error::Error>>;
type Benchmark = fn() -> Fallible<Vec<Row>>;

const BENCHMARKS: [(&str, Benchmark); 22] = [
    ("codec", codec::measure),
    ("beat", beat::measure),
    ("shm", shm::measure),
    ("remote-beat", beat::measure_remote),
    ("tracker", plot::measure),
    ("notify", notify::measure),
    ("ingest", ingest::measure),
    ("crowd", crowd::measure),
    ("udp", udp::measure),
    ("secure", secure::measure),
    ("forgery", forgery::measure),
    ("scrape", scrape::measure),
    ("expiry", expiry::measure),
    ("memory", memory::measure),
    ("size", size::measure),
    ("start", start::measure),
    ("exec", exec::measure),
    ("agents", agents::measure),
    ("death", verdicts::measure_deaths),
    ("deadline", verdicts::measure_deadlines),
    ("recovery", recovery::measure),
    ("upgrade", upgrade::measure),
];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    // The program is also the processes that it starts.
    let role = arguments.first().map(String::as_str);
    let outcome = match role {
        Some("role-send") => ingest::send(&arguments[1..]),
        Some("role-receive") => ingest::receive(&arguments[1..]),
        Some("role-send-crowd") => crowd::send(&arguments[1..]),
        Some("role-receive-crowd") => crowd::receive(&arguments[1..]),
        Some("role-probe") => expiry::probe(&arguments[1..]),
        Some("role-send-udp") => load::send(&arguments[1..]),
        Some("role-receive-udp") => flow::receive(&arguments[1..]),
        Some("role-await-death") => verdicts::await_deaths(),
        Some("role-timers") => verdicts::ring_timers(),
        Some("role-agent") => agents::beat_for_ever(&arguments[1..]),
        _ => run(&arguments),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("{}: {error}", role.unwrap_or("report"));
            ExitCode::FAILURE
        }
    }
}

fn run(words: &[String]) -> Fallible<()> {
    println!("machine: {}", programs::machine());
    println!();
    println!("| work | ours | yardstick | ratio | reach |");
    println!("|---|---|---|---|---|");
    for (name, measure) in BENCHMARKS {
        if !words.is_empty() && !words.iter().any(|word| name.contains(word.as_str())) {
            continue;
        }
        for row in measure()? {
            println!("{row}");
        }
    }
    Ok(())
}
