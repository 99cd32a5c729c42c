//! A worker that panics, and its terminal frame.
//!
//! It shows `install_panic_handler`: the server is notified of a panic at once, on this host or another, and
//! knows why the process ends after it. The panic message appears as usual, and the worker ends with status
//! 101.
//!
//! ```text
//! cargo run -p varta-examples --bin panicking_worker
//! cargo run -p varta-examples --bin panicking_worker -- SOCKET   # for the server that listens at SOCKET
//! ```

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "it shows what it does")]

use std::env;
use std::error::Error;
use std::process::ExitCode;

use varta_agent::{Status, Varta};

/// Orders, one of which the worker cannot parse.
const ORDERS: [&str; 3] = ["3 apples", "12 pears", "many plums"];

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("panicking_worker: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Box<dyn Error>> {
    let socket = match env::args().nth(1) {
        Some(socket) => socket.into(),
        None => varta_agent::default_socket_path(),
    };
    varta_agent::install_panic_handler(&socket)?;
    let mut agent = Varta::builder().name("panicking_worker").socket(&socket).connect()?;
    for (job, order) in (1..).zip(ORDERS) {
        let pieces = count(order);
        println!("job {job}: {pieces} pieces, beat {}", agent.beat(Status::Ok, job));
    }
    Ok(())
}

fn count(order: &str) -> u32 {
    let (count, _) = order.split_once(' ').unwrap_or((order, ""));
    count.parse().expect("an order begins with a number")
}
