//! A process that speaks sd_notify(3) by a crate that others use: `it-notify-crates sd-notify` or `it-notify-crates libsystemd`.
//!
//! It prints `ready`, and answers each line on standard input with `ok`, after it has sent what the line says: `ready`,
//! `keep-alive`, `reloading`, `stopping`, `deadline MICROSECONDS`, `status TEXT`, `nothing`.

#![allow(clippy::print_stdout, reason = "this is how it answers")]

use std::env;
use std::error::Error;
use std::io;
use std::process::ExitCode;

use varta_integration_tests::exit_code;

type Result = std::result::Result<(), Box<dyn Error>>;

fn main() -> ExitCode {
    exit_code(run())
}

fn run() -> Result {
    let say = match env::args().nth(1).as_deref() {
        Some("sd-notify") => by_sd_notify,
        Some("libsystemd") => by_libsystemd,
        other => return Err(format!("{other:?}: there is no such crate").into()),
    };
    println!("ready");
    for line in io::stdin().lines() {
        let line = line?;
        let (word, rest) = line.split_once(' ').unwrap_or((&line, ""));
        say(word, rest)?;
        println!("ok");
    }
    Ok(())
}

fn by_sd_notify(word: &str, rest: &str) -> Result {
    use sd_notify::{NotifyState, notify};
    match word {
        "ready" => notify(&[NotifyState::Ready, NotifyState::Status("serving")])?,
        "keep-alive" => notify(&[NotifyState::Watchdog])?,
        "reloading" => notify(&[NotifyState::Reloading, NotifyState::monotonic_usec_now()?])?,
        "stopping" => notify(&[NotifyState::Stopping])?,
        "deadline" => notify(&[NotifyState::WatchdogUsec(rest.parse()?)])?,
        "status" => notify(&[NotifyState::Status(rest)])?,
        "nothing" => notify(&[])?,
        other => return Err(format!("{other}: there is no such word").into()),
    }
    Ok(())
}

fn by_libsystemd(word: &str, rest: &str) -> Result {
    use libsystemd::daemon::{NotifyState, notify};
    let states = match word {
        "ready" => vec![NotifyState::Ready, NotifyState::Status("serving".to_owned())],
        "keep-alive" => vec![NotifyState::Watchdog],
        "reloading" => vec![NotifyState::Reloading],
        "stopping" => vec![NotifyState::Stopping],
        "deadline" => vec![NotifyState::WatchdogUsec(rest.parse()?)],
        "status" => vec![NotifyState::Status(rest.to_owned())],
        "nothing" => Vec::new(),
        other => return Err(format!("{other}: there is no such word").into()),
    };
    if notify(false, &states)? { Ok(()) } else { Err("there is no NOTIFY_SOCKET".into()) }
}
