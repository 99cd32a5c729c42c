//! A small Tokio service that beats as long as its work makes progress.
//!
//! `it-service --socket PATH` has a heartbeat of 150 ms, a task that works, and a guard that ties the one to
//! the other. It prints `ready` after the first beat. Commands are lines on standard input, and each is
//! answered with a line: `wedge` (the work makes no progress any more), `work` (it does again), `alive` (a
//! task of the same runtime answers, after it has waited for a timer), `stop` (the heartbeat is stopped). It
//! ends when its standard input does.

#![allow(clippy::print_stdout, reason = "this is how it answers")]

use std::env;
use std::error::Error;
use std::io;
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use tokio::runtime;
use tokio::sync::{mpsc, watch};
use tokio::time;
use varta_agent::{Guard, Varta};
use varta_integration_tests::Route;

/// Not a fraction of a second: a look at the process that comes a whole second after a beat comes between two
/// of its ticks.
const INTERVAL: Duration = Duration::from_millis(150);
/// How long one piece of work takes, and how long it may take.
const WORK: Duration = Duration::from_millis(20);
const LIMIT: Duration = Duration::from_millis(400);

fn main() -> ExitCode {
    let runtime = runtime::Builder::new_current_thread().enable_time().build();
    match runtime.map_err(Into::into).and_then(|runtime| runtime.block_on(run())) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("error {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run() -> Result<(), Box<dyn Error>> {
    let Some(Route::Unix(path)) = Route::take_from(&mut env::args_os().skip(1).collect())? else {
        return Err("it takes a Unix socket only".into());
    };
    let mut heartbeat = Some(Varta::connect(path)?.spawn_heartbeat(INTERVAL)?);
    while heartbeat.as_ref().is_some_and(|heartbeat| heartbeat.beats_sent() == 0) {
        time::sleep(WORK).await;
    }
    let (may_work, gate) = watch::channel(true);
    if let Some(heartbeat) = &heartbeat {
        tokio::spawn(work(heartbeat.guard("work", LIMIT), gate));
    }
    println!("ready");
    let mut commands = commands();
    while let Some(command) = commands.recv().await {
        match command.as_str() {
            "wedge" => {
                may_work.send_replace(false);
            }
            "work" => {
                may_work.send_replace(true);
            }
            "alive" => tokio::spawn(time::sleep(WORK)).await?,
            "stop" => {
                if let Some(heartbeat) = heartbeat.take() {
                    heartbeat.stop().await;
                }
            }
            _ => return Err(format!("what is {command}?").into()),
        }
        println!("ok");
    }
    Ok(())
}

/// Works as long as the gate is open, and waits for that.
async fn work(guard: Guard, mut gate: watch::Receiver<bool>) {
    while gate.wait_for(|is_open| *is_open).await.is_ok() {
        time::sleep(WORK).await;
        guard.tick();
    }
}

/// The lines of standard input, which are read in a thread outside the runtime.
fn commands() -> mpsc::UnboundedReceiver<String> {
    let (sender, receiver) = mpsc::unbounded_channel();
    thread::spawn(move || {
        for line in io::stdin().lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    receiver
}
