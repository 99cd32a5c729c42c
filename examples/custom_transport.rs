//! A custom transport, which prints each beat on its way to the server, the Hello with the agent's name before the
//! first, and the goodbye after the last.
//!
//! It shows how small a [`BeatTransport`] is, and that a handle treats it like a socket. A transport of this
//! shape records beats in a test, or sends them over a serial line.
//!
//! ```text
//! cargo run -p varta-examples --bin custom_transport                 # until Ctrl-C
//! cargo run -p varta-examples --bin custom_transport -- 3            # 3 beats
//! cargo run -p varta-examples --bin custom_transport -- 3 SOCKET     # to the server that listens at SOCKET
//! ```

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "it shows what it does")]

use std::env;
use std::error::Error;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use varta_agent::{
    BeatTransport, Control, EncodedControl, Frame, GoodbyeReason, Status, UdsTransport, Varta,
};

const BEAT_EVERY: Duration = Duration::from_millis(500);

/// Prints what goes through it.
struct Tee<T, W> {
    server: T,
    output: W,
}

impl<T: BeatTransport, W: Write + Send + 'static> BeatTransport for Tee<T, W> {
    fn send(&mut self, frame: &[u8; 32]) -> io::Result<usize> {
        let sent = self.server.send(frame);
        // A failed write to the terminal does not affect the beat.
        let _ = match Frame::decode(frame) {
            Ok(Frame { status, nonce, payload, .. }) => {
                writeln!(self.output, "{} beat {nonce}: {status}, payload {payload}", hex(frame))
            }
            Err(error) => writeln!(self.output, "{} {error}", hex(frame)),
        };
        sent
    }

    fn reconnect(&mut self) -> io::Result<()> {
        let _ = writeln!(self.output, "reconnecting");
        self.server.reconnect()
    }

    // Without this method only beats would reach the server.
    fn send_control(&mut self, datagram: EncodedControl<'_>) -> io::Result<usize> {
        let sent = self.server.send_control(datagram);
        let _ = match Control::decode(&datagram) {
            Ok(control) => writeln!(self.output, "{:?}, {} bytes", control.kind(), datagram.len()),
            Err(error) => writeln!(self.output, "{error}"),
        };
        sent
    }

    // For `Varta::check`, and for a heartbeat, which checks by itself.
    fn server_path(&self) -> Option<PathBuf> {
        self.server.server_path()
    }
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("custom_transport: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Box<dyn Error>> {
    let mut arguments = env::args().skip(1);
    let beats = match arguments.next() {
        Some(beats) => beats.parse().map_err(|_| format!("{beats} is no number of beats"))?,
        None => u32::MAX,
    };
    let socket = match arguments.next() {
        Some(socket) => socket.into(),
        None => varta_agent::default_socket_path(),
    };
    let tee = Tee { server: UdsTransport::connect(socket)?, output: io::stdout() };
    let mut agent = Varta::builder().name("custom_transport").transport(tee).connect()?;
    for beat in 1..=beats {
        let outcome = agent.beat(Status::Ok, beat * 100);
        if !outcome.is_sent() {
            println!("{outcome}");
        }
        thread::sleep(BEAT_EVERY);
    }
    let _ = agent.close(GoodbyeReason::Shutdown);
    Ok(())
}

/// Formats bytes in groups of eight.
fn hex(bytes: &[u8]) -> String {
    let groups = bytes.chunks(8).map(|group| group.iter().map(|byte| format!("{byte:02x}")).collect());
    groups.collect::<Vec<String>>().join(" ")
}
