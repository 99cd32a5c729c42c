//! A Tokio service with a heartbeat.
//!
//! It shows `spawn_heartbeat`, which is all that a service needs to be monitored: a handle with a name, before or
//! after its server, and a log line of `tracing` if the server refuses its beats. It shows how the work changes
//! the status, here by the number of waiting jobs; and the orderly end after Ctrl-C: the current job is
//! finished, then the heartbeat says goodbye.
//!
//! ```text
//! cargo run -p varta-examples --bin tokio_service                # until Ctrl-C
//! cargo run -p varta-examples --bin tokio_service -- 16          # 16 jobs
//! cargo run -p varta-examples --bin tokio_service -- 16 SOCKET   # for the server that listens at SOCKET
//! ```

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "it shows what it does")]

use std::env;
use std::error::Error;
use std::io;
use std::pin::pin;
use std::process::ExitCode;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time;
use varta_agent::{Status, Varta};

/// The server's default `--stall-after` is 5 s: two beats in a row may be lost without harm.
const BEAT_EVERY: Duration = Duration::from_millis(1500);
/// The capacity of the queue of jobs; a sender waits when it is full.
const QUEUE_CAPACITY: usize = 16;
/// With more waiting jobs than these the service is degraded.
const DEGRADED_ABOVE: usize = 4;
/// Jobs come in bursts of this size at this interval.
const BURST: u32 = 8;
const BURST_EVERY: Duration = Duration::from_secs(1);
/// The duration of a job.
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
    // The heartbeat logs here that the server refuses its beats, and that work makes no progress.
    tracing_subscriber::fmt().with_writer(io::stderr).init();
    // The service can start before its server.
    let builder = Varta::builder().name("tokio_service");
    let agent = match arguments.next() {
        Some(socket) => builder.socket(socket).connect()?,
        None => builder.connect()?,
    };
    let heartbeat = agent.spawn_heartbeat(BEAT_EVERY)?;

    let (queue, mut waiting) = mpsc::channel(QUEUE_CAPACITY);
    tokio::spawn(produce(queue, jobs));
    // One future for the whole run, so that a Ctrl-C during a job is handled after it.
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
        let status = if waiting.len() > DEGRADED_ABOVE { Status::Degraded } else { Status::Ok };
        if status != heartbeat.status() {
            // A change of status is sent at once; an unchanged one with the next beat.
            heartbeat.set_status(status)?;
            println!("job {job} is done and {} wait: {status}", waiting.len());
        }
    }
    println!("stopping after {done} jobs");
    heartbeat.stop().await;
    println!("stopped");
    Ok(())
}

/// Sends jobs until the receiver is gone.
async fn produce(queue: mpsc::Sender<u32>, jobs: u32) {
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
