//! A small agent of the published client crate: `it-foreign --socket PATH`, or another way as `it-worker`
//! goes it, and then the commands `second` (opens one more handle, and beats with all), `recreate` (closes
//! all and opens one), `status ok|degraded|critical`, `count` (the payload is one more) and `panic`, each on a line of standard input.

#![allow(clippy::print_stdout, reason = "this is how it answers")]

use std::env;
use std::error::Error;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use varta_client::{BeatOutcome, BeatTransport, Status, Varta};
use varta_integration_tests::{Commands, ReceivedCommand, Route, exit_code};
use varta_vlp::crypto::Key;

const INTERVAL: Duration = Duration::from_millis(100);

type Fallible<T> = Result<T, Box<dyn Error>>;

/// A handle, whatever its transport: it beats when it is called.
type Handle = Box<dyn FnMut(Status, u32) -> BeatOutcome>;

fn main() -> ExitCode {
    exit_code(run())
}

fn run() -> Fallible<()> {
    let mut arguments = env::args_os().skip(1).collect();
    let route = Route::take_from(&mut arguments)?.ok_or("beat where to?")?;
    install_panic_handler(&route)?;
    let mut handles = vec![connect(&route)?];
    let mut commands = Commands::from_stdin()?;
    let (mut status, mut payload) = (Status::Ok, 7);
    let mut due = Instant::now();
    println!("ready {}", std::process::id());
    loop {
        match commands.next(due.saturating_duration_since(Instant::now()))? {
            ReceivedCommand::End => return Ok(()),
            ReceivedCommand::Nothing if Instant::now() < due => {}
            ReceivedCommand::Nothing => {
                for handle in &mut handles {
                    // A beat that is lost is followed by another.
                    let _ = handle(status, payload);
                }
                due = Instant::now() + INTERVAL;
            }
            ReceivedCommand::Line(command) => {
                match command.as_str() {
                    "second" => handles.push(connect(&route)?),
                    "recreate" => {
                        handles.clear();
                        handles.push(connect(&route)?);
                    }
                    "count" => payload += 1,
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

fn connect(route: &Route) -> Fallible<Handle> {
    Ok(match route {
        Route::Unix(path) => handle(Varta::connect(path)?),
        Route::Udp(address) => handle(Varta::connect_udp(*address)?),
        Route::SharedKey(address, key) => handle(Varta::connect_secure_udp(*address, Key::from_file(key)?)?),
        Route::MasterKey(address, key) => {
            handle(Varta::connect_secure_udp_with_master(*address, Key::from_file(key)?)?)
        }
    })
}

fn handle<T: BeatTransport + 'static>(mut agent: Varta<T>) -> Handle {
    Box::new(move |status, payload| agent.beat(status, payload))
}

fn install_panic_handler(route: &Route) -> Fallible<()> {
    match route {
        Route::Unix(path) => varta_client::install_panic_handler(path)?,
        Route::Udp(address) => varta_client::install_panic_handler_udp(*address)?,
        Route::SharedKey(address, key) => {
            varta_client::install_panic_handler_secure_udp(*address, Key::from_file(key)?)?;
        }
        // The crate has no hook for a master key.
        Route::MasterKey(..) => {}
    }
    Ok(())
}

#[expect(clippy::panic, reason = "what a server makes of it is the question")]
fn panic_on_request() {
    panic!("as the test wished");
}
