//! A running server: the real program, in a directory of its own, on a port of its own.

use std::ffi::{OsStr, OsString};
use std::fs::{self, Permissions};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus, Stdio};

use tempfile::TempDir;

use crate::http::{self, Response};
use crate::log::{Log, Transition};
use crate::programs::{await_exit, into_pid_namespace, server_command};
use crate::retry::{LIMIT, wait_for};
use crate::route::{Network, Route, Secret};
use crate::scrape::Scrape;
use crate::sys::{self, Signal};

/// What a server's first line about metrics begins with.
const METRICS: &str = "metrics on ";
/// What its first line about a socket begins with.
const LISTENING: &str = "listening on ";

/// How a server is to be started. Without more than [`Options::new`] it has its socket in a directory of its own, serves
/// metrics on a port that the kernel picks, and has its defaults otherwise.
#[derive(Debug, Default)]
pub struct Options {
    arguments: Vec<OsString>,
    environment: Vec<(OsString, OsString)>,
    socket: Option<PathBuf>,
    has_no_socket_argument: bool,
    secrets: Vec<Secret>,
    is_open_to_all: bool,
    log_is_left_unread: bool,
    is_in_a_container: bool,
}

impl Options {
    /// A server with its defaults.
    #[must_use]
    pub fn new() -> Self {
        Options::default()
    }

    /// Adds an argument, or an option and its value.
    #[must_use]
    pub fn args<T: Into<OsString>>(mut self, arguments: impl IntoIterator<Item = T>) -> Self {
        self.arguments.extend(arguments.into_iter().map(Into::into));
        self
    }

    /// Adds a variable to its environment, which is empty otherwise.
    #[must_use]
    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.environment.push((name.into(), value.as_ref().to_owned()));
        self
    }

    /// Puts the socket where somebody else wants it.
    #[must_use]
    pub fn socket(mut self, path: &Path) -> Self {
        self.socket = Some(path.to_path_buf());
        self
    }

    /// Tells it nothing of a socket: it is expected to come to `path` by itself.
    #[must_use]
    pub fn finds_its_socket_at(mut self, path: &Path) -> Self {
        self.has_no_socket_argument = true;
        self.socket(path)
    }

    /// Has it listen on UDP only, if it is told to.
    #[must_use]
    pub fn without_unix_socket(mut self) -> Self {
        self.has_no_socket_argument = true;
        self.args(["--socket", "none"])
    }

    /// Has it listen for plaintext on this address too; on port 0 the kernel picks one, see [`Server::udp_address`].
    #[must_use]
    pub fn udp(self, address: &str) -> Self {
        self.args(["--udp", address])
    }

    /// Has it listen for sealed beats on this address too, as [`udp`](Options::udp) does for others. It needs a key.
    #[must_use]
    pub fn secure_udp(self, address: &str) -> Self {
        self.args(["--secure-udp", address])
    }

    /// Gives it the key of a network, in a file that only its owner can read.
    #[must_use]
    pub fn key_of(mut self, network: Network) -> Self {
        self.secrets.extend(network.secret());
        self
    }

    /// Gives it further keys that it accepts, one a line.
    #[must_use]
    pub fn accepted_keys(mut self, keys: &'static str) -> Self {
        self.secrets.push(Secret { option: "--accepted-key-file", file: "accepted.keys", text: keys });
        self
    }

    /// Has it listen for beats of a network on these addresses, with the key for them. [`Server::route`] leads there.
    #[must_use]
    pub fn on(self, network: Network, addresses: &[IpAddr]) -> Self {
        addresses.iter().fold(self.key_of(network), |options, address| {
            let address = SocketAddr::new(*address, 0).to_string();
            match network {
                Network::Plain => options.udp(&address),
                Network::SharedKey | Network::MasterKey => options.secure_udp(&address),
            }
        })
    }

    /// Lets every user of the host reach the socket.
    #[must_use]
    pub fn open_to_all(mut self) -> Self {
        self.is_open_to_all = true;
        self.args(["--socket-mode", "0666"])
    }

    /// Reads its standard error until it has started, and then never again.
    #[must_use]
    pub fn leave_log_unread(mut self) -> Self {
        self.log_is_left_unread = true;
        self
    }

    /// Puts it into a PID namespace of its own, where it cannot see who is outside. [`Server::pid`] is then that of its
    /// parent outside.
    #[must_use]
    pub fn in_a_container(mut self) -> Self {
        self.is_in_a_container = true;
        self
    }
}

/// Options that are only arguments.
impl<const N: usize> From<[&str; N]> for Options {
    fn from(arguments: [&str; N]) -> Self {
        Options::new().args(arguments)
    }
}

/// A running server. It is killed when this is dropped; a test that fails shows its log.
#[derive(Debug)]
pub struct Server {
    child: Child,
    log: Log,
    address: SocketAddr,
    socket: PathBuf,
    /// Removed last.
    directory: TempDir,
}

impl Server {
    /// Starts a server and waits until it serves.
    #[must_use]
    pub fn start(options: impl Into<Options>) -> Self {
        let options = options.into();
        let directory = tempfile::Builder::new()
            .prefix("varta-it-")
            .tempdir()
            .expect("there is a place for temporary directories");
        if options.is_open_to_all {
            fs::set_permissions(directory.path(), Permissions::from_mode(0o711))
                .expect("a directory's owner may open it to others");
        }
        let socket = options.socket.unwrap_or_else(|| directory.path().join("varta.sock"));
        let mut command = server_command();
        // In the environment, where a test's own arguments go before them.
        command.env("VARTA_METRICS_ADDR", "127.0.0.1:0").env("VARTA_LOG_FORMAT", "json");
        if !options.has_no_socket_argument {
            command.arg("--socket").arg(&socket);
        }
        command.args(&options.arguments).envs(options.environment);
        for secret in options.secrets {
            secret.give(&mut command, directory.path());
        }
        if options.is_in_a_container {
            command = into_pid_namespace(&command);
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
        let found = wait_for(|| match log.find(METRICS) {
            Some(line) => Some(line.get("address")?.as_str()?.parse().ok()),
            // It has ended, and will not serve.
            None => child.try_wait().ok().flatten().map(|_| None),
        });
        let Some(Some(address)) = found else {
            let _ = child.kill();
            let status = child.wait();
            log.finish();
            panic!("{command:?} does not serve: {status:?}, and its log is\n{}", log.lines().join("\n"));
        };
        Server { child, log, address, socket, directory }
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

    /// Where its `n`th socket for plaintext is, counted from 0 in the order in which it says so.
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

    /// A directory that goes when the server does.
    #[must_use]
    pub fn directory(&self) -> &Path {
        self.directory.path()
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
        let stopped = wait_for(|| {
            let threads = fs::read_dir(format!("/proc/{}/task", self.pid())).ok()?;
            let stopped: io::Result<Vec<bool>> = threads.map(is_stopped).collect();
            stopped.ok()?.into_iter().all(|stopped| stopped).then_some(())
        });
        assert!(stopped.is_some(), "the server still runs {LIMIT:?} after SIGSTOP");
    }

    /// Waits until it has ended, and for the last line of its log.
    #[track_caller]
    pub fn wait(&mut self) -> ExitStatus {
        let status = await_exit(&mut self.child);
        let status = status.unwrap_or_else(|| panic!("the server has not ended within {LIMIT:?}"));
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
        self.try_get(path).unwrap_or_else(|error| panic!("GET {path}: {error}"))
    }

    /// Reads its metrics.
    #[must_use]
    #[track_caller]
    pub fn scrape(&self) -> Scrape {
        let response = self.get("/metrics");
        assert_eq!(response.status, 200, "{}", response.body);
        Scrape::parse(&response.body).unwrap_or_else(|fault| panic!("{fault}, in\n{}", response.body))
    }

    /// Reads its metrics again and again until they are as expected, and once more: the rows of one reading may tell of
    /// different moments, those of the second tell of none before the first. `what` says in words what is expected.
    #[track_caller]
    pub fn await_scrape(&self, what: &str, mut expected: impl FnMut(&Scrape) -> bool) -> Scrape {
        let mut last = String::new();
        let found = wait_for(|| {
            let mut read = || {
                // A server that is busy may not answer in time, and be better the next time.
                last = self.try_get("/metrics").ok()?.body;
                Scrape::parse(&last).ok().filter(&mut expected)
            };
            read()?;
            read()
        });
        found.unwrap_or_else(|| panic!("not so within {LIMIT:?}: {what}. The last scrape is\n{last}"))
    }

    /// Waits until so many datagrams are accounted for.
    #[track_caller]
    pub fn await_datagrams(&self, count: f64) -> Scrape {
        self.await_scrape(&format!("{count} datagrams are accounted for"), |scrape| {
            scrape.datagrams() >= count
        })
    }

    /// Waits until the only sample with these labels is as expected, and gives its value.
    #[track_caller]
    pub fn await_sample(&self, name: &str, labels: &[(&str, &str)], expected: impl Fn(f64) -> bool) -> f64 {
        let what = format!("{name} {labels:?} is as expected");
        let scrape = self.await_scrape(&what, |scrape| scrape.get(name, labels).is_some_and(&expected));
        scrape.value(name, labels)
    }

    /// Waits until so many agents are in a state.
    #[track_caller]
    pub fn await_agents(&self, state: &str, count: usize) -> Scrape {
        self.await_scrape(&format!("{count} agents are {state}"), |scrape| {
            scrape.get("varta_agents", &[("state", state)]) == Some(count as f64)
        })
    }

    /// Waits until each of these agents has sent `more` beats from now on, and `seconds` have passed by the server's own
    /// clock.
    #[track_caller]
    pub fn await_beats_and_seconds(&self, pids: &[u32], more: u32, seconds: f64) -> Scrape {
        let now = self.await_scrape("the server answers, and knows the agents", |scrape| {
            pids.iter().all(|pid| scrape.get("varta_beats_total", &[("pid", &pid.to_string())]).is_some())
        });
        let uptime = |scrape: &Scrape| scrape.value("varta_watch_uptime_seconds", &[]);
        let beats = |scrape: &Scrape, pid: u32| scrape.of_agent("varta_beats_total", pid);
        let what = format!("{pids:?} have sent {more} beats more and {seconds} seconds have passed");
        self.await_scrape(&what, |scrape| {
            uptime(scrape) >= uptime(&now) + seconds
                && pids.iter().all(|pid| beats(scrape, *pid) >= beats(&now, *pid) + f64::from(more))
        })
    }

    /// Waits until the log tells of a change of verdict, and gives the first such line.
    #[track_caller]
    pub fn await_transition(&self, pid: u32, to: &str, cause: &str) -> Transition {
        let is_it = |line: &Transition| line.pid == pid && line.to == to && line.cause == cause;
        wait_for(|| self.log.transitions().into_iter().find(is_it))
            .unwrap_or_else(|| panic!("not in the log within {LIMIT:?}: {pid} becomes {to}, {cause}"))
    }

    /// Waits until the log tells that an agent is in a state, whatever for, and gives the first such line.
    #[track_caller]
    pub fn await_state(&self, pid: u32, to: &str) -> Transition {
        let is_it = |line: &Transition| line.pid == pid && line.to == to;
        wait_for(|| self.log.transitions().into_iter().find(is_it))
            .unwrap_or_else(|| panic!("not in the log within {LIMIT:?}: {pid} becomes {to}"))
    }

    /// All that was told of an agent up to now, such as `down: killed`; but not that the server could not see for a while,
    /// which accuses nobody and happens on a busy machine.
    #[must_use]
    #[track_caller]
    pub fn told(&self, pid: u32) -> Vec<String> {
        let of_it = self.transitions().into_iter().filter(|line| line.pid == pid && line.to != "unknown");
        of_it.map(|line| format!("{}: {}", line.to, line.cause)).collect()
    }

    /// All changes of verdict up to now: as many as the metrics count, so that no line is still on its way.
    #[must_use]
    #[track_caller]
    pub fn transitions(&self) -> Vec<Transition> {
        let counted = self.scrape().sum("varta_transitions_total", &[]);
        wait_for(|| Some(self.log.transitions()).filter(|lines| lines.len() as f64 >= counted))
            .unwrap_or_else(|| panic!("{counted} changes are counted, and not so many are in the log"))
    }

    #[track_caller]
    fn listening_address(&self, transport: &str, n: usize) -> SocketAddr {
        let address = wait_for(|| {
            let lines = self.log.find_all(LISTENING).into_iter();
            let line = lines.filter(|line| line["transport"] == transport).nth(n)?;
            Some(line.get("address")?.as_str()?.parse().expect("it says where it listens"))
        });
        address.unwrap_or_else(|| panic!("it does not say within {LIMIT:?} where {transport} {n} is"))
    }

    fn try_get(&self, path: &str) -> io::Result<Response> {
        http::get(self.address, path, &[])
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended already, and there is nobody to tell.
        let _ = self.child.kill();
        let _ = self.child.wait();
        self.log.finish();
        if std::thread::panicking() {
            #[expect(clippy::print_stderr, reason = "shown by the test that fails")]
            {
                eprintln!("the server's log:\n{}", self.log.lines().join("\n"));
            }
        }
    }
}
