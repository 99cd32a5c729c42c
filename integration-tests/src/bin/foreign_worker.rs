//! A small agent of the published client crate: `it-foreign SOCKET`, and then the commands `second` (opens one more
//! handle, and beats with all), `status ok|degraded|critical` and `panic`, each on a line of standard input.

#![allow(clippy::print_stdout, reason = "this is how it answers")]

use std::env;
use std::error::Error;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use varta_client::{Status, Varta};
use varta_integration_tests::{Commands, Heard};

const INTERVAL: Duration = Duration::from_millis(100);

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("error {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Box<dyn Error>> {
    let socket = env::args_os().nth(1).ok_or("which socket?")?;
    varta_client::install_panic_handler(&socket)?;
    let mut handles = vec![Varta::connect(&socket)?];
    let mut commands = Commands::from_stdin()?;
    let mut status = Status::Ok;
    let mut due = Instant::now();
    println!("ready {}", std::process::id());
    loop {
        match commands.next(due.saturating_duration_since(Instant::now()))? {
            Heard::End => return Ok(()),
            Heard::Nothing if Instant::now() < due => {}
            Heard::Nothing => {
                for handle in &mut handles {
                    // A beat that is lost is followed by another.
                    let _ = handle.beat(status, 7);
                }
                due = Instant::now() + INTERVAL;
            }
            Heard::Line(command) => {
                match command.as_str() {
                    "second" => handles.push(Varta::connect(&socket)?),
                    "status ok" => status = Status::Ok,
                    "status degraded" => status = Status::Degraded,
                    "status critical" => status = Status::Critical,
                    "panic" => {
                        println!("ok");
                        panic_on_request();
                    }
                    _ => return Err(format!("what is {command}?").into()),
                }
                println!("ok");
            }
        }
    }
}

#[expect(clippy::panic, reason = "what a server makes of it is the question")]
fn panic_on_request() {
    panic!("as the test wished");
}
