//! A loop that sends a beat with each job: no thread, no timer, no runtime.
//!
//! It shows a handle for production: it has a name, needs no server at its start, and finds one with a beat, now
//! or later and after a restart. It shows how a worker learns that its beats are refused, how a beat carries the
//! status of the work, and a use of the [`BeatOutcome`]: reporting that beats are being lost. The work goes on in
//! any case.
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

use varta_agent::{Admission, BeatOutcome, Status, Varta};

/// The duration of a job.
const JOB: Duration = Duration::from_millis(100);
/// How long the server is waited for when it is asked whether it takes the beats.
const ANSWER_WITHIN: Duration = Duration::from_secs(1);

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
    let builder = Varta::builder().name("sync_worker");
    let mut agent = match arguments.next() {
        Some(socket) => builder.socket(socket).connect()?,
        None => builder.connect()?,
    };
    // A beat that the server refuses is sent all the same.
    match agent.check(ANSWER_WITHIN) {
        Ok(Admission::Refused { reason, advice }) => {
            eprintln!("nobody watches this worker ({reason}): {advice}");
        }
        // That there is no server shows in the beats.
        Ok(_) => {}
        Err(error) => eprintln!("it is not known whether somebody watches this worker: {error}"),
    }
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
