//! A small agent that does what a test tells it.
//!
//! `it-worker --socket PATH` beats and says `ready`. It goes other ways with `--udp ADDRESS`, with `--secure-udp ADDRESS
//! --key-file FILE` and with `--secure-udp ADDRESS --master-key-file FILE`. Further arguments:
//!
//! | argument | what it does |
//! |---|---|
//! | `--interval-ms N` | beats every `N` ms, 100 if not given |
//! | `--default-socket` | looks for the server by itself, and needs none of these |
//! | `--panic-hook` | tells the server of a panic |
//! | `--handle-per-beat` | makes a new handle for each beat |
//! | `--user UID` | becomes another user first |
//! | `--beats N` | ends after `N` beats that the kernel took |
//! | `--exit-code N` | the exit status of that end |
//!
//! Commands are lines on standard input, and each is answered with a line: `status ok|degraded|critical` and `payload N`
//! (both beat at once), `second` (opens one more handle, and beats with all), `drop-first` (closes the oldest handle),
//! `recreate` (closes all and opens one), `exec` (replaces itself by itself; the answer is `ready` again), `fork` (has a
//! child that beats on with the inherited handles; the answer is its pid), `panic`, `panic-in-thread`, `dropped` (the answer
//! is how many beats the kernel did not take). It ends when its standard input does.

#![allow(clippy::print_stdout, reason = "this is how it answers")]

use std::env;
use std::error::Error;
use std::ffi::OsString;
use std::io::{self, Write};
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};
use std::thread;
use std::time::{Duration, Instant};

use varta_agent::{BeatOutcome, BeatTransport, DropReason, Key, Status, Varta};
use varta_integration_tests::sys::{self, Forked};
use varta_integration_tests::{Commands, Heard, Route};

/// How often a beat that met a full queue is tried again, and how long after.
const ATTEMPTS: u32 = 20;
const PAUSE: Duration = Duration::from_millis(1);

type Fallible<T> = Result<T, Box<dyn Error>>;

/// A handle, whatever its transport: it beats when it is called.
type Handle = Box<dyn FnMut(Status, u32) -> BeatOutcome>;

fn main() -> ExitCode {
    match Options::from_arguments(env::args_os().skip(1).collect()).and_then(run) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            answer(&format!("error {error}"));
            ExitCode::FAILURE
        }
    }
}

fn run(options: Options) -> Fallible<u8> {
    if let Some(user) = options.user {
        sys::become_user(user)?;
    }
    if options.panic_hook {
        install_panic_handler(options.route.as_ref().ok_or("--panic-hook needs to be told where to")?)?;
    }
    let handles = vec![options.connect()?];
    let commands = Commands::from_stdin()?;
    Worker { options, handles, commands, status: Status::Ok, payload: 0, sent: 0, dropped: 0 }.run()
}

#[derive(Default)]
struct Options {
    /// `None` to find it by itself.
    route: Option<Route>,
    interval: Duration,
    panic_hook: bool,
    handle_per_beat: bool,
    user: Option<u32>,
    beats: Option<u64>,
    exit_code: u8,
}

impl Options {
    fn from_arguments(mut arguments: Vec<OsString>) -> Fallible<Self> {
        let route = Route::take_from(&mut arguments)?;
        let mut options = Options { route, interval: Duration::from_millis(100), ..Options::default() };
        let mut arguments = arguments.into_iter();
        while let Some(argument) = arguments.next() {
            let mut value = || arguments.next().ok_or("a value is missing");
            match argument.to_str().unwrap_or_default() {
                "--default-socket" => options.route = None,
                "--interval-ms" => options.interval = Duration::from_millis(number(&value()?)?),
                "--panic-hook" => options.panic_hook = true,
                "--handle-per-beat" => options.handle_per_beat = true,
                "--user" => options.user = Some(number(&value()?)?),
                "--beats" => options.beats = Some(number(&value()?)?),
                "--exit-code" => options.exit_code = number(&value()?)?,
                _ => return Err(format!("what is {}?", argument.display()).into()),
            }
        }
        Ok(options)
    }

    fn connect(&self) -> Fallible<Handle> {
        Ok(match &self.route {
            None => handle(Varta::connect_default()?),
            Some(Route::Unix(path)) => handle(Varta::connect(path)?),
            Some(Route::Udp(address)) => handle(Varta::connect_udp(*address)?),
            Some(Route::SharedKey(address, key)) => {
                handle(Varta::connect_secure_udp(*address, Key::from_file(key)?)?)
            }
            Some(Route::MasterKey(address, key)) => {
                handle(Varta::connect_secure_udp_with_master(*address, Key::from_file(key)?)?)
            }
        })
    }
}

fn handle<T: BeatTransport>(mut agent: Varta<T>) -> Handle {
    Box::new(move |status, payload| agent.beat(status, payload))
}

fn install_panic_handler(route: &Route) -> Fallible<()> {
    match route {
        Route::Unix(path) => varta_agent::install_panic_handler(path)?,
        Route::Udp(address) => varta_agent::install_panic_handler_udp(*address)?,
        Route::SharedKey(address, key) => {
            varta_agent::install_panic_handler_secure_udp(*address, Key::from_file(key)?)?;
        }
        Route::MasterKey(address, key) => {
            varta_agent::install_panic_handler_secure_udp_with_master(*address, Key::from_file(key)?)?;
        }
    }
    Ok(())
}

fn number<T: std::str::FromStr<Err: Error + 'static>>(text: &OsString) -> Fallible<T> {
    Ok(text.to_str().unwrap_or_default().parse()?)
}

struct Worker {
    options: Options,
    handles: Vec<Handle>,
    commands: Commands,
    status: Status,
    payload: u32,
    /// Beats that the kernel took.
    sent: u64,
    /// Beats that it did not take.
    dropped: u64,
}

impl Worker {
    fn run(&mut self) -> Fallible<u8> {
        while self.sent == 0 {
            self.beat()?;
        }
        answer(&format!("ready {}", std::process::id()));
        let mut due = Instant::now() + self.options.interval;
        loop {
            if self.options.beats.is_some_and(|beats| self.sent >= beats) {
                return Ok(self.options.exit_code);
            }
            match self.commands.next(due.saturating_duration_since(Instant::now()))? {
                Heard::End => return Ok(0),
                Heard::Line(command) => self.obey(&command)?,
                Heard::Nothing if Instant::now() < due => {}
                Heard::Nothing => {
                    self.beat()?;
                    due = Instant::now() + self.options.interval;
                }
            }
        }
    }

    /// Beats with every handle.
    fn beat(&mut self) -> Fallible<()> {
        if self.options.handle_per_beat {
            self.handles = vec![self.options.connect()?];
        }
        for handle in &mut self.handles {
            for _ in 0..ATTEMPTS {
                let outcome = handle(self.status, self.payload);
                self.sent += u64::from(outcome.is_sent());
                self.dropped += u64::from(!outcome.is_sent());
                if outcome != BeatOutcome::Dropped(DropReason::KernelQueueFull) {
                    break;
                }
                thread::sleep(PAUSE);
            }
        }
        Ok(())
    }

    fn obey(&mut self, command: &str) -> Fallible<()> {
        let (command, operand) = command.split_once(' ').unwrap_or((command, ""));
        match command {
            "status" => {
                self.status = [Status::Ok, Status::Degraded, Status::Critical]
                    .into_iter()
                    .find(|status| status.as_str() == operand)
                    .ok_or("that is no status")?;
                self.beat()?;
            }
            "payload" => {
                self.payload = operand.parse()?;
                self.beat()?;
            }
            "second" => self.handles.push(self.options.connect()?),
            "drop-first" => drop(self.handles.remove(0)),
            "recreate" => {
                self.handles.clear();
                self.handles.push(self.options.connect()?);
            }
            "exec" => {
                let error = Command::new(env::current_exe()?).args(env::args_os().skip(1)).exec();
                return Err(error.into());
            }
            "fork" => match sys::fork()? {
                Forked::Parent(child) => {
                    answer(&format!("ok {child}"));
                    return Ok(());
                }
                Forked::Child => {
                    self.commands.grow_deaf();
                    return Ok(());
                }
            },
            "panic" => {
                answer("ok");
                panic_on_request();
            }
            "panic-in-thread" => drop(thread::spawn(panic_on_request).join()),
            "dropped" => {
                answer(&format!("ok {}", self.dropped));
                return Ok(());
            }
            _ => return Err(format!("what is {command}?").into()),
        }
        answer("ok");
        Ok(())
    }
}

#[expect(clippy::panic, reason = "what a server makes of it is the question")]
fn panic_on_request() {
    panic!("as the test wished");
}

/// Writes a line to standard output; nobody there to read it is nothing to talk about.
fn answer(line: &str) {
    println!("{line}");
    let _ = io::stdout().flush();
}
