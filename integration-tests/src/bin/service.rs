//! A small Tokio service that beats as long as its work makes progress.
//!
//! `it-service --socket PATH [--user UID]` has a heartbeat of 150 ms, a task that works, and a guard that ties
//! the one to the other. It becomes the user first, needs no server, and prints `ready` after the first beat,
//! sent or not. Commands are lines on standard input, and each is answered with a line: `wedge` (the work makes
//! no progress any more), `work` (it does again), `alive` (a task of the same runtime answers, after it has
//! waited for a timer), `admission` and `check` (what the heartbeat knows, and what a new handle is told, of
//! whether its beats are taken), `log` (the lines that the SDK has logged), `stop` (the heartbeat is stopped).
//! It ends when its standard input does.

#![allow(clippy::print_stdout, reason = "this is how it answers")]

use std::env;
use std::error::Error;
use std::ffi::OsString;
use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use tokio::runtime;
use tokio::sync::{mpsc, watch};
use tokio::time;
use varta_agent::{Admission, Guard, Varta};
use varta_integration_tests::{LIMIT as PATIENCE, Route, exit_code, sys};

/// Not a fraction of a second: a look at the process that comes a whole second after a beat comes between two
/// of its ticks.
const INTERVAL: Duration = Duration::from_millis(150);
/// How long one piece of work takes, and how long it may take.
const WORK: Duration = Duration::from_millis(20);
const LIMIT: Duration = Duration::from_millis(400);

fn main() -> ExitCode {
    let runtime = runtime::Builder::new_current_thread().enable_time().build();
    exit_code(runtime.map_err(Into::into).and_then(|runtime| runtime.block_on(run())))
}

/// The log of the SDK.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Log {
    /// Begins it.
    fn start() -> Self {
        let log = Log::default();
        let writer = log.clone();
        let format = tracing_subscriber::fmt().with_ansi(false).without_time();
        format.with_writer(move || writer.clone()).init();
        log
    }

    fn text(&self) -> String {
        let bytes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&bytes).trim_end().replace('\n', "; ")
    }
}

/// Takes `--user` out of the arguments.
fn take_user(arguments: &mut Vec<OsString>) -> Result<Option<u32>, Box<dyn Error>> {
    let Some(place) = arguments.iter().position(|argument| argument == "--user") else { return Ok(None) };
    let uid =
        arguments.get(place + 1).and_then(|uid| uid.to_str()).ok_or("--user needs a number")?.parse()?;
    arguments.drain(place..=place + 1);
    Ok(Some(uid))
}

async fn run() -> Result<(), Box<dyn Error>> {
    let log = Log::start();
    let mut arguments = env::args_os().skip(1).collect();
    let user = take_user(&mut arguments)?;
    let Some(Route::Unix(path)) = Route::take_from(&mut arguments)? else {
        return Err("it takes a Unix socket only".into());
    };
    if let Some(user) = user {
        sys::become_user(user)?;
    }
    let mut heartbeat = Some(Varta::builder().socket(&path).connect()?.spawn_heartbeat(INTERVAL)?);
    while heartbeat.as_ref().is_some_and(|heartbeat| heartbeat.last_outcome().is_none()) {
        time::sleep(WORK).await;
    }
    let (may_work, gate) = watch::channel(true);
    if let Some(heartbeat) = &heartbeat {
        tokio::spawn(work(heartbeat.guard("work", LIMIT), gate));
    }
    println!("ready");
    let mut commands = commands();
    while let Some(command) = commands.recv().await {
        let mut answer = String::new();
        match command.as_str() {
            "admission" => {
                answer =
                    heartbeat.as_ref().map_or_else(String::new, |heartbeat| words(&heartbeat.admission()));
            }
            "check" => answer = words(&Varta::builder().socket(&path).connect()?.check(PATIENCE)?),
            "log" => answer = log.text(),
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
        println!("ok {answer}");
    }
    Ok(())
}

fn words(admission: &Admission) -> String {
    match admission {
        Admission::Accepted => "accepted".to_owned(),
        Admission::Refused { reason, advice } => format!("refused {reason} {advice}"),
        _ => "unknown".to_owned(),
    }
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
