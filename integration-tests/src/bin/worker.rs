//! A small agent that obeys the commands of a test.
//!
//! `it-worker --socket PATH` beats and says `ready`. It goes other ways with `--udp ADDRESS`, with
//! `--secure-udp ADDRESS --key-file FILE` and with `--secure-udp ADDRESS --master-key-file FILE`. Further
//! arguments:
//!
//! | argument | what it does |
//! |---|---|
//! | `--interval-ms N` | beats every `N` ms, 100 if not given |
//! | `--default-socket` | looks for the server by itself, and needs none of these |
//! | `--panic-hook` | installs the panic hook of the SDK |
//! | `--handle-per-beat` | makes a new handle for each beat |
//! | `--user UID` | becomes another user first |
//! | `--group GID` | is in this supplementary group and in no other, and in the primary group of nobody |
//! | `--plain` | sends frames by itself, with its own pid, without the SDK |
//! | `--beats N` | ends after `N` beats that the kernel took |
//! | `--exit-code N` | the exit status of that end |
//! | `--name NAME` | gives the agent a name, through a Unix socket |
//! | `--lazy` | with a name: needs no server at first |
//! | `--shm` | beats through a page of memory as well as the Unix socket, and reconnects |
//! | `--on-the-tick` | beats when the wall clock is a multiple of the interval, as all others with this do |
//! | `--counts` | its payload is a counter of its progress, while its status is ok; it reconnects |
//! | `--attempts N` | tries a beat that meets a full queue so often, 20 times if not given |
//!
//! Commands are lines on standard input, and each is answered with a line: `status ok|degraded|critical` and
//! `payload N` (both beat at once), `second` (opens one more handle, and beats with all), `drop-first`
//! (closes the oldest handle), `recreate` (closes all and opens one), `exec` (replaces itself by itself; the
//! answer is `ready` again), `exec PROGRAM` (by another), `fork` (has a child that beats on with the
//! inherited handles; the answer is its pid), `panic`, `panic-in-thread`, `dropped` (the answer is how many
//! beats the kernel did not take), `rest` (beats no more, and lives), `goodbye` (sends a goodbye, and beats no
//! more). It ends when its standard input does.
//!
//! Of some it does not come back. To `exit N`, `abort`, `crash` and `panic-and-abort` it answers first and
//! ends then; to `spin`, `lock` and `block PATH` it answers, and then it runs for ever, waits for a lock for
//! ever, or shares its memory with a process that waits for a writer at the pipe PATH. To `end-main-thread` it
//! answers and goes on with another thread only, and to `eat` with more and more memory, up to 256 MiB.

#![allow(clippy::print_stdout, reason = "this is how it answers")]

use std::env;
use std::error::Error;
use std::ffi::{CString, OsString};
use std::io::{self, Write};
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::CommandExt;
use std::panic;
use std::path::{Path, PathBuf};
use std::process::{self, Command, ExitCode};
use std::sync::{Barrier, Mutex};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use nix::fcntl::OFlag;
use nix::spawn::{PosixSpawnAttr, PosixSpawnFileActions, posix_spawn};
use nix::sys::stat::Mode;
use varta_agent::{BeatOutcome, BeatTransport, DropReason, GoodbyeReason, Key, Status, Varta};
use varta_integration_tests::sys::{self, Forked};
use varta_integration_tests::{Commands, ReceivedCommand, Route};
use varta_proto::Frame;

/// How often a beat is tried that meets a full queue, and how long after.
const ATTEMPTS: u32 = 20;
const PAUSE: Duration = Duration::from_millis(1);
/// How long one rests that beats no more: longer than any test takes.
const REST: Duration = Duration::from_secs(3600);

type Fallible<T> = Result<T, Box<dyn Error>>;

/// A handle, whatever its transport.
trait Handle {
    fn beat(&mut self, status: Status, payload: u32) -> BeatOutcome;
    fn close(self: Box<Self>) -> BeatOutcome;
}

impl<T: BeatTransport> Handle for Varta<T> {
    fn beat(&mut self, status: Status, payload: u32) -> BeatOutcome {
        Varta::beat(self, status, payload)
    }

    fn close(self: Box<Self>) -> BeatOutcome {
        Varta::close(*self, GoodbyeReason::Shutdown)
    }
}

/// A handle whose payload counts what it does.
struct Counting(Varta);

impl Handle for Counting {
    fn beat(&mut self, status: Status, payload: u32) -> BeatOutcome {
        match status {
            Status::Ok => self.0.progress(payload.into()),
            _ => self.0.beat(status, payload),
        }
    }

    fn close(self: Box<Self>) -> BeatOutcome {
        self.0.close(GoodbyeReason::Shutdown)
    }
}

/// A sender of frames without the SDK, as other clients are. It counts a beat that was refused, too.
struct Plain {
    socket: UnixDatagram,
    connected_at: Instant,
    nonce: u64,
}

impl Plain {
    fn connect(path: &Path) -> io::Result<Self> {
        let socket = UnixDatagram::unbound()?;
        socket.connect(path)?;
        socket.set_nonblocking(true)?;
        Ok(Plain { socket, connected_at: Instant::now(), nonce: 0 })
    }
}

impl Handle for Plain {
    fn beat(&mut self, status: Status, payload: u32) -> BeatOutcome {
        self.nonce += 1;
        let timestamp = u64::try_from(self.connected_at.elapsed().as_nanos()).unwrap_or(u64::MAX - 1);
        let frame = Frame::new(status, process::id(), timestamp, self.nonce, payload);
        match self.socket.send(&frame.to_bytes()) {
            Ok(_) => BeatOutcome::Sent,
            Err(error) => varta_agent::classify_send_error(&error),
        }
    }

    fn close(self: Box<Self>) -> BeatOutcome {
        BeatOutcome::Sent
    }
}

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
    if let Some(group) = options.group {
        sys::become_member(group)?;
    }
    if let Some(user) = options.user {
        sys::become_user(user)?;
    }
    if options.panic_hook {
        install_panic_handler(options.route.as_ref().ok_or("--panic-hook needs a route")?)?;
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
    group: Option<u32>,
    plain: bool,
    beats: Option<u64>,
    exit_code: u8,
    name: Option<OsString>,
    lazy: bool,
    shm: bool,
    on_the_tick: bool,
    counts: bool,
    attempts: u32,
}

impl Options {
    fn from_arguments(mut arguments: Vec<OsString>) -> Fallible<Self> {
        let route = Route::take_from(&mut arguments)?;
        let interval = Duration::from_millis(100);
        let mut options = Options { route, interval, attempts: ATTEMPTS, ..Options::default() };
        let mut arguments = arguments.into_iter();
        while let Some(argument) = arguments.next() {
            let mut value = || arguments.next().ok_or("a value is missing");
            match argument.to_str().unwrap_or_default() {
                "--default-socket" => options.route = None,
                "--interval-ms" => options.interval = Duration::from_millis(number(&value()?)?),
                "--panic-hook" => options.panic_hook = true,
                "--handle-per-beat" => options.handle_per_beat = true,
                "--user" => options.user = Some(number(&value()?)?),
                "--group" => options.group = Some(number(&value()?)?),
                "--plain" => options.plain = true,
                "--beats" => options.beats = Some(number(&value()?)?),
                "--exit-code" => options.exit_code = number(&value()?)?,
                "--shm" => options.shm = true,
                "--name" => options.name = Some(value()?),
                "--lazy" => options.lazy = true,
                "--counts" => options.counts = true,
                "--on-the-tick" => options.on_the_tick = true,
                "--attempts" => options.attempts = number(&value()?)?,
                _ => return Err(format!("what is {}?", argument.display()).into()),
            }
        }
        Ok(options)
    }

    /// When the beat after one of this moment is due.
    fn next_due(&self) -> Instant {
        let now = Instant::now();
        if !self.on_the_tick {
            return now + self.interval;
        }
        let of_wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
        let past = of_wall.checked_rem(self.interval.as_nanos()).unwrap_or(0);
        now + self.interval - Duration::from_nanos(u64::try_from(past).unwrap_or(0))
    }

    fn connect(&self) -> Fallible<Box<dyn Handle>> {
        if self.plain {
            let Some(Route::Unix(path)) = &self.route else {
                return Err("--plain goes with --socket".into());
            };
            return Ok(Box::new(Plain::connect(path)?));
        }
        if self.shm || self.name.is_some() {
            let Some(Route::Unix(path)) = &self.route else {
                return Err("--name and --shm go with --socket".into());
            };
            let mut builder = Varta::builder().socket(path);
            if let Some(name) = &self.name {
                builder = builder.name(name.to_string_lossy());
            }
            builder = if self.lazy { builder.lazy() } else { builder.eager() };
            return Ok(if self.shm {
                Box::new(builder.shm().connect()?)
            } else {
                Box::new(builder.connect()?)
            });
        }
        Ok(match &self.route {
            None => Box::new(Varta::connect_default()?),
            Some(Route::Unix(path)) if self.counts => {
                Box::new(Counting(Varta::builder().socket(path).reconnect_after(1).connect()?))
            }
            Some(Route::Unix(path)) => Box::new(Varta::connect(path)?),
            Some(Route::Udp(address)) => Box::new(Varta::connect_udp(*address)?),
            Some(Route::SharedKey(address, key)) => {
                Box::new(Varta::connect_secure_udp(*address, Key::from_file(key)?)?)
            }
            Some(Route::MasterKey(address, key)) => {
                Box::new(Varta::connect_secure_udp_with_master(*address, Key::from_file(key)?)?)
            }
        })
    }
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
    handles: Vec<Box<dyn Handle>>,
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
            if self.sent == 0 {
                thread::sleep(PAUSE);
            }
        }
        answer(&format!("ready {}", process::id()));
        let mut due = self.options.next_due();
        loop {
            if self.options.beats.is_some_and(|beats| self.sent >= beats) {
                return Ok(self.options.exit_code);
            }
            match self.commands.next(due.saturating_duration_since(Instant::now()))? {
                ReceivedCommand::End => return Ok(0),
                ReceivedCommand::Line(command) if command == "rest" => {
                    self.options.interval = REST;
                    due = self.options.next_due();
                    answer("ok");
                }
                ReceivedCommand::Line(command) => self.obey(&command)?,
                ReceivedCommand::Nothing if Instant::now() < due => {}
                ReceivedCommand::Nothing => {
                    self.beat()?;
                    due = self.options.next_due();
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
            for _ in 0..self.options.attempts {
                let outcome = handle.beat(self.status, self.payload);
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
                let program = if operand.is_empty() { env::current_exe()? } else { PathBuf::from(operand) };
                return Err(Command::new(program).args(env::args_os().skip(1)).exec().into());
            }
            "fork" => match sys::fork()? {
                Forked::Parent(child) => {
                    answer(&format!("ok {child}"));
                    return Ok(());
                }
                Forked::Child => {
                    self.commands.stop_reading();
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
            "goodbye" => {
                for handle in self.handles.drain(..) {
                    if !handle.close().is_sent() {
                        return Err("nobody took the goodbye".into());
                    }
                }
            }
            _ => {
                let fate = Fate::parse(command, operand)?;
                answer("ok");
                return fate.meet();
            }
        }
        answer("ok");
        Ok(())
    }
}

/// What a process does not come back from, or not by itself.
enum Fate {
    Exit(i32),
    Abort,
    Crash,
    PanicAndAbort,
    Spin,
    Lock,
    Block(CString),
    EndMainThread,
    Eat,
}

impl Fate {
    fn parse(command: &str, operand: &str) -> Fallible<Self> {
        Ok(match command {
            "exit" => Fate::Exit(operand.parse()?),
            "abort" => Fate::Abort,
            "crash" => Fate::Crash,
            "panic-and-abort" => Fate::PanicAndAbort,
            "spin" => Fate::Spin,
            "lock" => Fate::Lock,
            "block" => Fate::Block(CString::new(operand)?),
            "end-main-thread" => Fate::EndMainThread,
            "eat" => Fate::Eat,
            _ => return Err(format!("what is {command}?").into()),
        })
    }

    fn meet(self) -> Fallible<()> {
        match self {
            Fate::Exit(code) => process::exit(code),
            Fate::Abort => process::abort(),
            Fate::Crash => Ok(sys::crash()?),
            Fate::PanicAndAbort => {
                // As in a program that is built to abort on panics: the hook runs, and then it is over.
                let _ = panic::catch_unwind(panic_on_request);
                process::abort()
            }
            Fate::Spin => loop {
                std::hint::spin_loop();
            },
            Fate::Lock => wait_for_a_lock_for_ever(),
            Fate::Block(pipe) => wait_for_a_process_at(&pipe),
            Fate::EndMainThread => {
                thread::spawn(|| {
                    loop {
                        thread::park();
                    }
                });
                sys::end_this_thread()
            }
            Fate::Eat => {
                let eaten: Vec<Vec<u8>> = (0..256).map(|_| vec![1; 1 << 20]).collect();
                Err(format!("there is too much memory: {} MiB are eaten", eaten.len()).into())
            }
        }
    }
}

fn wait_for_a_lock_for_ever() -> ! {
    let (lock, is_held) = (Mutex::new(()), Barrier::new(2));
    thread::scope(|scope| {
        scope.spawn(|| {
            let _held = lock.lock();
            is_held.wait();
            loop {
                thread::park();
            }
        });
        is_held.wait();
        let _never = lock.lock();
        process::abort()
    })
}

/// Starts a process that opens a pipe before it runs its program. Until it does that it has this one's
/// memory, and the kernel does not let this one go on, whatever signal comes.
fn wait_for_a_process_at(pipe: &CString) -> Fallible<()> {
    let mut actions = PosixSpawnFileActions::init()?;
    actions.add_open(0, pipe.as_c_str(), OFlag::O_RDONLY, Mode::empty())?;
    let (program, none): (_, [CString; 0]) = (c"/bin/true", []);
    posix_spawn(program, &actions, &PosixSpawnAttr::init()?, &[program], &none)?;
    Ok(())
}

#[expect(clippy::panic, reason = "what a server makes of it is the question")]
fn panic_on_request() {
    panic!("as the test wished");
}

/// Writes a line to standard output; that no reader is left is no error.
fn answer(line: &str) {
    println!("{line}");
    let _ = io::stdout().flush();
}
