//! A server, six workers, four faults, and the server's verdict on each.
//!
//! One worker waits for a lock for ever, one is killed, one is stopped and continued, one panics, one comes
//! to the end of its work, and one keeps running. After each event the program waits until the server reports
//! the expected verdict, and shows how long that took. It ends after some two seconds, together with all
//! processes that it started. If the server reports any other verdict, or none, the exit status is 1.
//!
//! Server and workers are this same program with an argument that selects the role, each in a process of its
//! own. They run as long as their standard input is open, so none outlives the process that holds it.
//!
//! ```text
//! cargo run -p varta-examples --bin demo
//! ```

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "it shows what happens")]

use std::collections::BTreeSet;
use std::env;
use std::error::Error;
use std::ffi::OsStr;
use std::fmt;
use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{self, ExitCode, Stdio};
use std::sync::Mutex;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStderr, Command};
use tokio::{runtime, time};
use varta_agent::{Status, Varta};
use varta_server::cli::LogFormat;
use varta_server::config::Config;
use varta_server::{Server, logging};

/// The silence after which a worker is stalled.
const STALL_AFTER: Duration = Duration::from_secs(1);
const BEAT_EVERY: Duration = Duration::from_millis(100);
/// How long to wait for the server's next verdict.
const GIVE_UP: Duration = Duration::from_secs(15);

const WORKERS: [&str; 6] = ["worker-a", "worker-b", "worker-c", "worker-d", "worker-e", "worker-f"];

/// The roles of this program, and the commands that a worker takes.
const SERVER: &str = "server";
const WORKER: &str = "worker";
const DEADLOCK: &str = "deadlock";
const PANIC: &str = "panic";
const FINISH: &str = "finish";

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let result = match arguments[..] {
        [] => in_runtime(async {
            tokio::select! {
                result = run_demo() => result,
                _ = tokio::signal::ctrl_c() => Err("interrupted".into()),
            }
        }),
        [SERVER, socket] => in_runtime(serve(socket.into())),
        [WORKER, name, socket] => work(name, Path::new(socket)),
        _ => Err("takes no arguments".into()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("demo: {error}");
            ExitCode::FAILURE
        }
    }
}

fn in_runtime(role: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    runtime::Builder::new_current_thread().enable_all().build()?.block_on(role)
}

type Failure = Box<dyn Error>;

/// Runs the server, until standard input ends.
async fn serve(socket: PathBuf) -> Result<(), Failure> {
    let _log = logging::start(Some(LogFormat::Json), Some("info"))?;
    let mut config = Config::for_socket(socket);
    config.policy.stall_after = STALL_AFTER;
    let server = Server::bind(config)?;
    let input_ended = async {
        let _ = tokio::io::stdin().read_to_end(&mut Vec::new()).await;
    };
    Ok(server.run(input_ended).await?)
}

/// Runs a worker, until standard input ends.
fn work(name: &str, socket: &Path) -> Result<(), Failure> {
    // A stopped worker does not see the end of its input.
    set_pdeathsig(Signal::SIGKILL)?;
    varta_agent::install_panic_handler(socket)?;
    let mut agent = Varta::builder().name(name).socket(socket).connect()?;
    let (sender, orders) = mpsc::channel();
    thread::spawn(move || {
        for order in io::stdin().lines().map_while(Result::ok) {
            let _ = sender.send(order);
        }
        // Also ends a worker that waits for a lock for ever.
        process::exit(0);
    });
    for beats in 1.. {
        let _ = agent.beat(Status::Ok, beats);
        match orders.recv_timeout(BEAT_EVERY).as_deref() {
            Ok(DEADLOCK) => wait_for_ever(),
            #[expect(clippy::panic, reason = "the parent asked for it")]
            Ok(PANIC) => panic!("{name} was told to panic"),
            Ok(FINISH) | Err(RecvTimeoutError::Disconnected) => break,
            Ok(_) | Err(RecvTimeoutError::Timeout) => {}
        }
    }
    Ok(())
}

/// Waits for a thread that waits for a lock that this function holds.
fn wait_for_ever() {
    let lock = Mutex::new(());
    let _held = lock.lock();
    thread::scope(|scope| {
        scope.spawn(|| drop(lock.lock()));
    });
}

/// Starts server and workers, causes the events, and compares the server's verdicts with the expected ones.
async fn run_demo() -> Result<(), Failure> {
    let mut demo = Demo::start().await?;
    let Demo { log, workers: [_, deadlocked, killed, stopped, panics, finishes], .. } = &mut demo;

    log.event(&format!("{deadlocked} waits for a lock that it never gets"));
    deadlocked.order(DEADLOCK).await?;
    log.expect(deadlocked, "stalled", "idle").await?;

    log.event(&format!("{killed} is killed (SIGKILL)"));
    kill(killed.pid, Signal::SIGKILL)?;
    log.expect(killed, "down", "killed").await?;

    log.event(&format!("{stopped} is stopped (SIGSTOP)"));
    kill(stopped.pid, Signal::SIGSTOP)?;
    log.expect(stopped, "stalled", "stopped").await?;
    log.event(&format!("{stopped} is continued (SIGCONT)"));
    kill(stopped.pid, Signal::SIGCONT)?;
    log.expect(stopped, "up", "recovered").await?;

    log.event(&format!("{panics} panics"));
    panics.order(PANIC).await?;
    log.expect(panics, "up", "panicked").await?;
    log.expect(panics, "down", "panicked").await?;

    log.event(&format!("{finishes} has done its work and ends"));
    finishes.order(FINISH).await?;
    log.expect(finishes, "gone", "exited").await?;

    demo.shut_down().await
}

/// The processes of the demo. Dropping it ends them and removes the socket.
struct Demo {
    workers: [Worker; WORKERS.len()],
    server: Child,
    log: ServerLog,
    /// The directory of the socket.
    _dir: TempDir,
}

impl Demo {
    /// Starts server and workers, and waits until the server has heard from all of them.
    async fn start() -> Result<Self, Failure> {
        let dir = tempfile::tempdir()?;
        let socket = dir.path().join("varta.sock");
        let mut server = role_command(&[SERVER.as_ref(), socket.as_ref()])?.stderr(Stdio::piped()).spawn()?;
        let stderr = server.stderr.take().ok_or("the server has no log")?;
        let mut log = ServerLog::of(stderr);
        log.until_listening().await?;
        log.event(&format!(
            "a server is there that calls a worker stalled after {} s, and {} workers begin to beat",
            STALL_AFTER.as_secs(),
            WORKERS.len()
        ));
        let mut workers = Vec::new();
        for name in WORKERS {
            workers.push(Worker::start(name, &socket)?);
        }
        let mut not_up: BTreeSet<Pid> = workers.iter().map(|worker| worker.pid).collect();
        while !not_up.is_empty() {
            let verdict = log.next().await?;
            if !(not_up.remove(&verdict.pid) && verdict.to == "up") {
                return Err("the server must say that a worker is up, once for each".into());
            }
        }
        let workers = workers.try_into().map_err(|_| "a worker is missing")?;
        Ok(Demo { workers, server, log, _dir: dir })
    }

    /// Ends the server and then the workers, each in order.
    async fn shut_down(mut self) -> Result<(), Failure> {
        self.log.event("the server is ended, and then the workers");
        drop(self.server.stdin.take());
        while let Some(line) = self.log.line().await? {
            if is_verdict(&line) {
                return Err(format!("the server has no reason to say {line}").into());
            }
        }
        let ended = self.server.wait().await?;
        if !ended.success() {
            return Err(format!("the server ended with {ended}").into());
        }
        for mut worker in self.workers {
            drop(worker.process.stdin.take());
            time::timeout(GIVE_UP, worker.process.wait())
                .await
                .map_err(|_| format!("{worker} does not end"))??;
        }
        println!("Every conclusion was as it must be, and there was none about {}.", WORKERS[0]);
        Ok(())
    }
}

/// A worker's process.
struct Worker {
    name: &'static str,
    pid: Pid,
    process: Child,
}

impl Worker {
    fn start(name: &'static str, socket: &Path) -> Result<Self, Failure> {
        let process = role_command(&[WORKER.as_ref(), name.as_ref(), socket.as_ref()])?.spawn()?;
        let pid = process.id().ok_or("a worker has ended already")?;
        Ok(Worker { name, pid: Pid::from_raw(pid.try_into()?), process })
    }

    async fn order(&mut self, order: &str) -> Result<(), Failure> {
        let input = self.process.stdin.as_mut().ok_or("a worker takes no orders")?;
        Ok(input.write_all(format!("{order}\n").as_bytes()).await?)
    }
}

/// `name [pid]`
impl fmt::Display for Worker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} [{}]", self.name, self.pid)
    }
}

/// Returns the command for this program in the role that the arguments select.
fn role_command(arguments: &[&OsStr]) -> io::Result<Command> {
    let mut command = Command::new(env::current_exe()?);
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::null()).kill_on_drop(true);
    Ok(command)
}

/// The server's log, one JSON object a line.
struct ServerLog {
    lines: Lines<BufReader<ChildStderr>>,
    /// When the demo started.
    started: Instant,
    /// When the latest event was caused: the server's time counts from it.
    caused: Instant,
}

impl ServerLog {
    fn of(stderr: ChildStderr) -> Self {
        let started = Instant::now();
        ServerLog { lines: BufReader::new(stderr).lines(), started, caused: started }
    }

    /// Prints the next event.
    fn event(&mut self, event: &str) {
        self.caused = Instant::now();
        println!("{:5.1} s  {event}", (self.caused - self.started).as_secs_f64());
    }

    async fn until_listening(&mut self) -> Result<(), Failure> {
        while let Some(line) = self.line().await? {
            if line["message"].as_str().is_some_and(|message| message.starts_with("listening")) {
                return Ok(());
            }
        }
        Err("the server did not start".into())
    }

    /// Waits for the server's next verdict, and compares it with the expected one.
    async fn expect(&mut self, worker: &Worker, to: &str, cause: &str) -> Result<(), Failure> {
        let verdict = self.next().await?;
        if (verdict.pid, verdict.to.as_str(), verdict.cause.as_str()) != (worker.pid, to, cause) {
            return Err(format!("the server must say that {worker} is {to} ({cause})").into());
        }
        Ok(())
    }

    /// Waits for the server's next verdict, and prints it.
    async fn next(&mut self) -> Result<Verdict, Failure> {
        while let Some(line) = self.line().await? {
            if is_verdict(&line) {
                let verdict =
                    Verdict::read(&line).ok_or_else(|| format!("{line} is no conclusion as we know them"))?;
                println!("{:+15.3} s  {verdict}", self.caused.elapsed().as_secs_f64());
                return Ok(verdict);
            }
        }
        Err("the server has ended".into())
    }

    /// Waits for the next line; `None` when the server has ended.
    async fn line(&mut self) -> Result<Option<Value>, Failure> {
        let next = time::timeout(GIVE_UP, self.lines.next_line()).await;
        let line = next.map_err(|_| format!("the server has said nothing for {GIVE_UP:?}"))??;
        Ok(line.map(|line| {
            // A line that is not JSON comes from a server that failed before its log started.
            serde_json::from_str(&line).unwrap_or_else(|_| {
                eprintln!("{line}");
                Value::Null
            })
        }))
    }
}

/// Returns whether a line of the log is a verdict on an agent.
fn is_verdict(line: &Value) -> bool {
    line["target"] == "varta::agent"
}

/// A change of verdict.
struct Verdict {
    agent: String,
    pid: Pid,
    from: String,
    to: String,
    cause: String,
    /// The status in the worker's beats.
    status: String,
    silence: Duration,
}

impl Verdict {
    fn read(line: &Value) -> Option<Self> {
        let text = |field: &str| Some(line[field].as_str()?.to_owned());
        let silence = line["silence_ms"].to_string();
        Some(Verdict {
            agent: text("agent")?,
            pid: Pid::from_raw(line["pid"].as_i64()?.try_into().ok()?),
            from: text("from")?,
            to: text("to")?,
            cause: text("cause")?,
            status: text("status")?,
            silence: Duration::from_millis(silence.trim_matches('"').parse().ok()?),
        })
    }
}

/// `worker-b [4103]  up -> stalled: idle, after 1.001 s without a beat`
impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Verdict { agent, pid, from, to, cause, status, silence } = self;
        write!(f, "{agent} [{pid}]  ")?;
        if from != "none" {
            write!(f, "{from} -> ")?;
        }
        f.write_str(to)?;
        if to == "up" && status != "ok" {
            write!(f, " ({status})")?;
        }
        write!(f, ": {}", cause.replace('_', " "))?;
        if *silence >= STALL_AFTER {
            write!(f, ", after {:.3} s without a beat", silence.as_secs_f64())?;
        }
        Ok(())
    }
}
