//! A Tokio service whose heartbeat runs beside its work.
//!
//! It shows `spawn_heartbeat`, which is all that a service needs to be watched; how the work changes what the heartbeat says,
//! here by how many jobs wait; and the orderly end after Ctrl-C: the job in hand is finished, then the heartbeat says goodbye.
//!
//! ```text
//! cargo run -p varta-examples --bin tokio_service                # until Ctrl-C
//! cargo run -p varta-examples --bin tokio_service -- 16          # 16 jobs
//! cargo run -p varta-examples --bin tokio_service -- 16 SOCKET   # for the server that listens at SOCKET
//! ```

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "it shows what it does")]

use std::env;
use std::error::Error;
use std::pin::pin;
use std::process::ExitCode;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time;
use varta_agent::{Status, Varta};

/// The server's `--stall-after` is 5 s unless it is told otherwise: two beats in a row may be lost without harm.
const BEAT_EVERY: Duration = Duration::from_millis(1500);
/// Jobs that may wait; who has one more waits as well.
const QUEUE: usize = 16;
/// When more jobs than these wait the service is not what it should be.
const MANY: usize = 4;
/// Jobs come in bursts, of so many and with so much time in between.
const BURST: u32 = 8;
const BURST_EVERY: Duration = Duration::from_secs(1);
/// How long a job takes.
const JOB: Duration = Duration::from_millis(50);

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("tokio_service: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run() -> Result<(), Box<dyn Error>> {
    let mut arguments = env::args().skip(1);
    let jobs = match arguments.next() {
        Some(jobs) => jobs.parse().map_err(|_| format!("{jobs} is no number of jobs"))?,
        None => u32::MAX,
    };
    // Lazy: the service starts whether or not its server is there yet.
    let builder = Varta::builder().lazy();
    let agent = match arguments.next() {
        Some(socket) => builder.socket(socket).connect()?,
        None => builder.connect()?,
    };
    let heartbeat = agent.spawn_heartbeat(BEAT_EVERY)?;

    let (queue, mut waiting) = mpsc::channel(QUEUE);
    tokio::spawn(order(queue, jobs));
    // One future for the whole run, so that a Ctrl-C in the middle of a job is seen after it.
    let mut interrupted = pin!(tokio::signal::ctrl_c());
    let mut done = 0;
    loop {
        let job = tokio::select! {
            biased;
            signal = &mut interrupted => {
                signal?;
                println!("interrupted");
                break;
            }
            job = waiting.recv() => match job {
                Some(job) => job,
                None => break,
            },
        };
        work(job).await;
        done += 1;
        heartbeat.set_payload(done);
        let status = if waiting.len() > MANY { Status::Degraded } else { Status::Ok };
        if status != heartbeat.status() {
            // A change is beaten at once; what stays the same has time until the next beat.
            heartbeat.set_status(status)?;
            println!("job {job} is done and {} wait: {status}", waiting.len());
        }
    }
    println!("stopping after {done} jobs");
    heartbeat.stop().await;
    println!("stopped");
    Ok(())
}

/// Brings jobs, as long as somebody takes them.
async fn order(queue: mpsc::Sender<u32>, jobs: u32) {
    for job in 1..=jobs {
        if queue.send(job).await.is_err() {
            return;
        }
        if job % BURST == 0 && job < jobs {
            time::sleep(BURST_EVERY).await;
        }
    }
}

/// Does a job.
async fn work(_job: u32) {
    time::sleep(JOB).await;
}
