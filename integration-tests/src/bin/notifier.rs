//! A process that speaks sd_notify(3) to the socket of `NOTIFY_SOCKET`, as one connection for all its life.
//!
//! It prints `ready`, and obeys lines on standard input, each of which it answers with a line. In a message `\n` stands
//! for a line break. `say MESSAGE` sends it; `carry N MESSAGE` sends it with N descriptors of one pipe; `barrier` sends
//! `BARRIER=1` with the end of a pipe, and answers when all others have closed it; `big N` sends N bytes; `tool MESSAGE`
//! has a child send it, which then ends; `beneath MESSAGE` has a child send it that stays, and answers with its pid;
//! `exit N` ends it. `it-notifier --once MESSAGE` sends, waits for a barrier as systemd-notify does, and ends;
//! `it-notifier --stay MESSAGE` sends and stays.

#![allow(clippy::print_stdout, reason = "this is how it answers")]

use std::env;
use std::error::Error;
use std::io::{self, BufRead, BufReader, IoSlice, Read, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::process::{self, Child, Command, ExitCode, Stdio};
use std::thread;

use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use varta_integration_tests::{LIMIT, exit_code};

fn main() -> ExitCode {
    exit_code(run())
}

fn run() -> Result<(), Box<dyn Error>> {
    let address = env::var("NOTIFY_SOCKET")?;
    let socket = UnixDatagram::unbound()?;
    match address.strip_prefix('@') {
        Some(name) => socket.connect_addr(&SocketAddr::from_abstract_name(name)?)?,
        None => socket.connect(&address)?,
    }
    let arguments: Vec<_> = env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["--once", message] => {
            send(&socket, message, &[])?;
            return barrier(&socket);
        }
        ["--stay", message] => {
            send(&socket, message, &[])?;
            println!("ready");
            // It outlives its parent, and a test that forgets it.
            thread::sleep(2 * LIMIT);
            return Ok(());
        }
        _ => {}
    }
    println!("ready");
    let mut children = Vec::new();
    for line in io::stdin().lines() {
        let line = line?;
        let (command, rest) = line.split_once(' ').unwrap_or((&line, ""));
        let answer = obey(&socket, command, rest, &mut children)?;
        println!("ok {answer}");
    }
    Ok(())
}

fn obey(
    socket: &UnixDatagram,
    command: &str,
    rest: &str,
    children: &mut Vec<Child>,
) -> Result<String, Box<dyn Error>> {
    match command {
        "say" => send(socket, rest, &[])?,
        "carry" => {
            let (count, message) = rest.split_once(' ').ok_or("carry what?")?;
            let (reader, _writer) = io::pipe()?;
            send(socket, message, &vec![reader.as_raw_fd(); count.parse()?])?;
        }
        "barrier" => {
            barrier(socket)?;
        }
        "big" => {
            let size: usize = rest.parse()?;
            socket2::SockRef::from(socket).set_send_buffer_size(2 * size)?;
            send(socket, &"x".repeat(size), &[])?;
        }
        "tool" => {
            let ended = Command::new(env::current_exe()?).args(["--once", rest]).status()?;
            if !ended.success() {
                return Err(ended.to_string().into());
            }
        }
        "beneath" => {
            let mut child = Command::new(env::current_exe()?)
                .args(["--stay", rest])
                .stdin(Stdio::null())
                .stdout(Stdio::piped())
                .spawn()?;
            let stdout = child.stdout.take().ok_or("no output")?;
            let mut first = String::new();
            BufReader::new(stdout).read_line(&mut first)?;
            let pid = child.id();
            children.push(child);
            return Ok(pid.to_string());
        }
        "exit" => {
            println!("ok");
            io::stdout().flush()?;
            process::exit(rest.parse()?);
        }
        other => return Err(format!("{other} is no command").into()),
    }
    Ok(String::new())
}

/// Waits until all that was sent before has been read, as systemd-notify does.
fn barrier(socket: &UnixDatagram) -> Result<(), Box<dyn Error>> {
    let (mut reader, writer) = io::pipe()?;
    send(socket, "BARRIER=1", &[writer.as_raw_fd()])?;
    drop(writer);
    reader.read_to_end(&mut Vec::new())?;
    Ok(())
}

fn send(socket: &UnixDatagram, message: &str, descriptors: &[RawFd]) -> io::Result<()> {
    let message = message.replace("\\n", "\n");
    let rights = [ControlMessage::ScmRights(descriptors)];
    let rights = if descriptors.is_empty() { &[][..] } else { &rights[..] };
    sendmsg::<()>(socket.as_raw_fd(), &[IoSlice::new(message.as_bytes())], rights, MsgFlags::empty(), None)?;
    Ok(())
}
