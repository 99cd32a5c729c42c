//! A loop that sends a beat with each job: no thread, no timer, no runtime.
//!
//! It shows how a worker finds its server, how a beat carries the status of the work, and a use of the
//! [`BeatOutcome`]: reporting that beats are being lost. The work goes on either way.
//!
//! ```text
//! cargo run -p varta-examples --bin sync_worker                  # until Ctrl-C
//! cargo run -p varta-examples --bin sync_worker -- 20            # 20 jobs
//! cargo run -p varta-examples --bin sync_worker -- 20 SOCKET     # for the server that listens at SOCKET
//! ```

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "it shows what it does")]

use std::env;
use std::error::Error;
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use varta_agent::{BeatOutcome, Status, Varta};

/// The duration of a job.
const JOB: Duration = Duration::from_millis(100);

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("sync_worker: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Box<dyn Error>> {
    let mut arguments = env::args().skip(1);
    let jobs = match arguments.next() {
        Some(jobs) => jobs.parse().map_err(|_| format!("{jobs} is no number of jobs"))?,
        None => u32::MAX,
    };
    let mut agent = match arguments.next() {
        Some(socket) => Varta::builder().socket(socket).connect()?,
        None => Varta::connect_default()?,
    };
    let mut failed_in_a_row = 0;
    let mut shown = None;
    for job in 1..=jobs {
        failed_in_a_row = if work(job) { 0 } else { failed_in_a_row + 1 };
        let status = match failed_in_a_row {
            0 => Status::Ok,
            1 | 2 => Status::Degraded,
            _ => Status::Critical,
        };
        let outcome: BeatOutcome = agent.beat(status, job);
        // Only a change of status or outcome is printed.
        if shown != Some((status, outcome)) {
            println!("job {job}: {status}, beat {outcome}");
            shown = Some((status, outcome));
        }
    }
    Ok(())
}

/// Does a job and returns whether it succeeded; three in a row of every twenty fail.
fn work(job: u32) -> bool {
    thread::sleep(JOB);
    !matches!(job % 20, 4..=6)
}
