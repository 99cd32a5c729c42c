//! A running server: the real program, in a directory of its own, on a port of its own.

mod options;
mod scrapes;
mod upgrade;
mod verdicts;

use std::fs::{self, Permissions};
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus, Stdio};
use std::thread;
use std::time::Duration;

pub use self::options::Options;
pub use self::upgrade::Successor;
use crate::agent_process::AgentProcess;
use crate::expect::agent;
use crate::http::{self, Response};
use crate::log::Log;
use crate::programs::{
    Ended, await_exit, into_pid_namespace, into_time_namespace, run_server, server_command, through,
};
use crate::retry::{LIMIT, or_fail, wait_until};
use crate::route::{Network, Route};
use crate::scrape::Scrape;
use crate::scratch::Scratch;
use crate::sys::{self, Signal};

/// What a server's first line about metrics begins with.
const METRICS: &str = "metrics on ";
/// What its first line about a socket begins with.
const LISTENING: &str = "listening on ";

/// A running server. It is killed when this is dropped; a test that fails shows its log.
#[derive(Debug)]
pub struct Server {
    child: Child,
    log: Log,
    address: SocketAddr,
    socket: PathBuf,
    /// Removed last.
    scratch: Scratch,
}

impl Server {
    /// Starts a server and waits until it serves.
    #[must_use]
    pub fn start(options: impl Into<Options>) -> Self {
        let options = options.into();
        let scratch = Scratch::make();
        let directory = scratch.directory();
        if options.is_open_to_all {
            fs::set_permissions(directory, Permissions::from_mode(0o711))
                .expect("a directory's owner may open it to others");
        }
        let socket = options.socket.unwrap_or_else(|| scratch.socket());
        let mut command = server_command();
        // In the environment, where a test's own arguments go before them.
        command.env("VARTA_METRICS_ADDR", "127.0.0.1:0").env("VARTA_LOG_FORMAT", "json");
        if !options.has_no_socket_argument {
            command.arg("--socket").arg(&socket);
        }
        command.args(&options.arguments).envs(options.environment);
        for secret in options.secrets {
            secret.give(&mut command, directory);
        }
        if !options.starter.is_empty() {
            command = through(&options.starter, &command);
        }
        if options.is_in_a_container {
            command = into_pid_namespace(&command);
        }
        if let Some(inside) = options.boot_clock_ahead.and_then(|ahead| into_time_namespace(ahead, &command))
        {
            command = inside;
        }
        let mut child = command
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{command:?} cannot be started: {error}"));
        let stderr = child.stderr.take().expect("standard error is a pipe");
        let enough =
            if options.log_is_left_unread { |line: &str| line.contains(METRICS) } else { |_: &str| false };
        let mut log = Log::read(stderr, enough);
        // The log of a server that does not start is complete when it has ended.
        let address = log.wait_for(
            LIMIT,
            |lines| {
                lines.iter().find(|line| line.message().starts_with(METRICS))?.fields["address"]
                    .as_str()?
                    .parse()
                    .ok()
            },
            |_| (),
        );
        let Ok(address) = address else {
            let _ = child.kill();
            let status = child.wait();
            log.finish();
            panic!("{command:?} does not serve: {status:?}, and its log is\n{}", log.lines().join("\n"));
        };
        Server { child, log, address, socket, scratch }
    }

    /// Its pid.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Where its socket is.
    #[must_use]
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Where its `n`th socket for plaintext is, counted from 0 in the order of its log.
    #[must_use]
    #[track_caller]
    pub fn udp_address(&self, n: usize) -> SocketAddr {
        self.listening_address("udp", n)
    }

    /// Where its `n`th socket for sealed beats is.
    #[must_use]
    #[track_caller]
    pub fn secure_udp_address(&self, n: usize) -> SocketAddr {
        self.listening_address("secure_udp", n)
    }

    /// The route for an agent to its `n`th socket for such beats.
    #[must_use]
    #[track_caller]
    pub fn route(&self, network: Network, n: usize) -> Route {
        network.route(self.listening_address(network.label(), n), self.directory())
    }

    /// The path of its control socket, unless an option gives another.
    #[must_use]
    pub fn control_socket(&self) -> PathBuf {
        let mut path = self.socket.as_os_str().to_owned();
        path.push(".control");
        path.into()
    }

    /// Runs `varta-server reload` for it.
    #[must_use]
    pub fn reload(&self) -> Ended {
        run_server([Path::new("reload"), Path::new("--control-socket"), &self.control_socket()])
    }

    /// A directory that goes when the server does.
    #[must_use]
    pub fn directory(&self) -> &Path {
        self.scratch.directory()
    }

    /// Where it serves metrics.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its log.
    #[must_use]
    pub fn log(&self) -> &Log {
        &self.log
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        sys::send_signal(self.pid(), signal).expect("a child that was not waited for can be signalled");
    }

    /// Stops it with SIGSTOP and waits until none of its threads runs any more.
    #[track_caller]
    pub fn pause(&self) {
        self.signal(Signal::Stop);
        let is_stopped = |thread: io::Result<fs::DirEntry>| {
            let status = fs::read_to_string(thread?.path().join("status"))?;
            Ok(status.lines().any(|line| line.starts_with("State:\tT")))
        };
        wait_until("all threads of the server are stopped", || {
            let Ok(threads) = fs::read_dir(format!("/proc/{}/task", self.pid())) else { return false };
            let stopped: io::Result<Vec<bool>> = threads.map(is_stopped).collect();
            stopped.is_ok_and(|stopped| stopped.into_iter().all(|stopped| stopped))
        });
    }

    /// Stops it for this time, and lets it go on. This is no wait for a condition: that the server does not
    /// run is what happens to it.
    #[track_caller]
    pub fn pause_for(&self, time: Duration) {
        self.pause();
        thread::sleep(time);
        self.resume();
    }

    /// Lets it go on after [`pause`](Server::pause).
    pub fn resume(&self) {
        self.signal(Signal::Continue);
    }

    /// Stops it in order with SIGTERM: waits until it has ended with success, and for the last line of its
    /// log.
    #[track_caller]
    pub fn stop(&mut self) {
        self.signal(Signal::Terminate);
        let status = self.wait();
        assert!(status.success(), "the server has ended with {status}");
    }

    /// Kills it with SIGKILL, and waits as [`stop`](Server::stop) does.
    #[track_caller]
    pub fn kill(&mut self) {
        self.signal(Signal::Kill);
        let status = self.wait();
        assert!(!status.success(), "the server has ended with {status}");
    }

    /// Waits until it has ended, and for the last line of its log.
    #[track_caller]
    pub fn wait(&mut self) -> ExitStatus {
        let status = await_exit(&mut self.child);
        let status = or_fail(status.ok_or_else(|| format!("the server has not ended within {LIMIT:?}")));
        self.log.finish();
        status
    }

    /// Takes away the reader of its log, which must be one that was [left unread](Options::leave_log_unread).
    pub fn close_log(&mut self) {
        self.log.finish();
    }

    /// Asks it for a path over HTTP.
    #[must_use]
    #[track_caller]
    pub fn get(&self, path: &str) -> Response {
        or_fail(self.try_get(path).map_err(|error| format!("GET {path}: {error}")))
    }

    /// Reads its metrics.
    #[must_use]
    #[track_caller]
    pub fn scrape(&self) -> Scrape {
        let response = self.get("/metrics");
        assert_eq!(response.status, 200, "{}", response.body);
        or_fail(Scrape::parse(&response.body).map_err(|fault| format!("{fault}, in\n{}", response.body)))
    }

    /// Starts an agent of ours that beats to its socket, and waits until it is known.
    #[must_use]
    #[track_caller]
    pub fn start_agent(&self, arguments: &[&str]) -> AgentProcess {
        let process = AgentProcess::start(self.socket(), arguments);
        self.expect(agent(&process).up());
        process
    }

    /// Starts so many agents of ours that beat to its socket, and waits until all of them are known.
    #[must_use]
    #[track_caller]
    pub fn start_agents(&self, count: usize, arguments: &[&str]) -> Vec<AgentProcess> {
        let processes: Vec<_> = (0..count).map(|_| AgentProcess::start(self.socket(), arguments)).collect();
        for process in &processes {
            self.expect(agent(process).up());
        }
        processes
    }

    #[track_caller]
    fn listening_address(&self, transport: &str, n: usize) -> SocketAddr {
        let address = self.log.wait_for(
            LIMIT,
            |lines| {
                let mut lines = lines.iter().filter(|line| line.message().starts_with(LISTENING));
                let line = lines.by_ref().filter(|line| line.fields["transport"] == transport).nth(n)?;
                Some(line.fields["address"].as_str()?.parse().expect("it says where it listens"))
            },
            |_| format!("it does not say within {LIMIT:?} where {transport} {n} is"),
        );
        or_fail(address)
    }

    fn try_get(&self, path: &str) -> io::Result<Response> {
        http::get(self.address, path, &[])
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended already; a failure here has no consequence.
        let _ = self.child.kill();
        let _ = self.child.wait();
        self.log.finish();
        if thread::panicking() {
            #[expect(clippy::print_stderr, reason = "shown by the test that fails")]
            {
                eprintln!("the server's log:\n{}", self.log.lines().join("\n"));
            }
        }
    }
}
