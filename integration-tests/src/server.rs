//! A running server: the real program, in a directory of its own, on a port of its own.

use std::ffi::{OsStr, OsString};
use std::fs::{self, Permissions};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus, Stdio};
use std::thread;
use std::time::Duration;

use crate::agent_process::AgentProcess;
use crate::expect::{Agent, Expectation, agent, metric, story};
use crate::http::{self, Response};
use crate::log::{Log, Transition, transitions};
use crate::programs::{await_exit, into_pid_namespace, server_command};
use crate::retry::{LIMIT, or_fail, wait_for, wait_until};
use crate::route::{Network, Route, Secret};
use crate::scrape::Scrape;
use crate::scratch::Scratch;
use crate::sys::{self, Signal};

/// What a server's first line about metrics begins with.
const METRICS: &str = "metrics on ";
/// What its first line about a socket begins with.
const LISTENING: &str = "listening on ";

/// The options of a server. Without more than [`Options::new`] it has its socket in a directory of its own,
/// serves metrics on a port that the kernel picks, and has its defaults otherwise.
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

    /// Puts the socket at this path.
    #[must_use]
    pub fn socket(mut self, path: &Path) -> Self {
        self.socket = Some(path.to_path_buf());
        self
    }

    /// Adds an option whose value is a path.
    #[must_use]
    pub fn path(self, option: &str, path: &Path) -> Self {
        self.args([Path::new(option), path])
    }

    /// Puts the socket where the server before it had its own, and reads and keeps state there.
    #[must_use]
    pub fn in_scratch(self, scratch: &Scratch) -> Self {
        self.socket(&scratch.socket()).path("--state-dir", &scratch.state())
    }

    /// Writes this text into a file, and has it read as the configuration's file.
    #[must_use]
    #[track_caller]
    pub fn config(self, scratch: &Scratch, text: &str) -> Self {
        let path = scratch.write("varta.toml", text);
        self.path("--config", &path)
    }

    /// Gives it no option for a socket: by its defaults it comes to `path`.
    #[must_use]
    pub fn finds_its_socket_at(mut self, path: &Path) -> Self {
        self.has_no_socket_argument = true;
        self.socket(path)
    }

    /// Has it listen on UDP only, where an option says so.
    #[must_use]
    pub fn without_unix_socket(mut self) -> Self {
        self.has_no_socket_argument = true;
        self.args(["--socket", "none"])
    }

    /// Has it listen for plaintext on this address too; on port 0 the kernel picks one, see
    /// [`Server::udp_address`].
    #[must_use]
    pub fn udp(self, address: &str) -> Self {
        self.args(["--udp", address])
    }

    /// Has it listen for sealed beats on this address too, as [`udp`](Options::udp) does for others. It needs
    /// a key.
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

    /// Has it listen for beats of a network on these addresses, with the key for them. [`Server::route`]
    /// leads there.
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

    /// Puts it into a PID namespace of its own, where it cannot see the processes outside. [`Server::pid`] is
    /// then that of its parent outside.
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

    /// Waits until an expectation holds, and gives what was found.
    ///
    /// # Panics
    ///
    /// It does not hold in time. What was seen instead is in the message: see [`expect`](crate::expect).
    #[track_caller]
    pub fn expect<E: Expectation>(&self, expectation: E) -> E::Found {
        or_fail(expectation.wait(self))
    }

    /// Waits until so many verdicts on an agent are there, and checks that they are these: as
    /// [`history`](Server::history) gives them, with any cause where a look at the process [came too
    /// late](Transition::has_no_look).
    #[track_caller]
    pub fn expect_history(&self, agent: impl Into<Agent>, expected: &[&str]) {
        let agent = agent.into();
        let is_own = |change: &&Transition| agent.is(change) && !change.is_observer_gap();
        let are_there = self.log.wait_for(
            LIMIT,
            |lines| (transitions(lines).filter(is_own).count() >= expected.len()).then_some(()),
            |lines| {
                format!(
                    "not within {LIMIT:?}: {agent} has the history {expected:?}\n{}",
                    story(lines, &agent)
                )
            },
        );
        or_fail(are_there);
        let own = self.changes_of(&agent);
        let fits = |(change, wanted): (&Transition, &&str)| {
            summary(change) == **wanted || (change.has_no_look() && wanted.starts_with("stalled: "))
        };
        let history: Vec<_> = own.iter().map(summary).collect();
        let is_expected = own.len() == expected.len() && own.iter().zip(expected).all(fits);
        assert!(is_expected, "{agent} has the history {history:?}, and not {expected:?}");
    }

    /// All verdicts on an agent up to now with their causes, such as `down: killed`, each of which begins
    /// where the one before ended. [Gaps of the observer](Transition::is_observer_gap) are left out.
    #[must_use]
    #[track_caller]
    pub fn history(&self, agent: impl Into<Agent>) -> Vec<String> {
        self.changes_of(&agent.into()).iter().map(summary).collect()
    }

    /// All changes of verdict of an agent up to now but [gaps of the observer](Transition::is_observer_gap).
    /// Each change begins where the one before ended.
    #[track_caller]
    fn changes_of(&self, agent: &Agent) -> Vec<Transition> {
        let mut own = self.all_transitions();
        own.retain(|change| agent.is(change));
        for pair in own.windows(2) {
            assert_eq!(
                pair[1].from, pair[0].to,
                "a change that does not begin where the one before ended: {own:#?}"
            );
        }
        own.retain(|change| !change.is_observer_gap());
        own
    }

    /// All changes of verdict up to now without [gaps of the observer](Transition::is_observer_gap): as many
    /// as the metrics count, so that no line is still on its way.
    #[must_use]
    #[track_caller]
    pub fn transitions(&self) -> Vec<Transition> {
        let mut changes = self.all_transitions();
        changes.retain(|change| !change.is_observer_gap());
        changes
    }

    /// All changes of verdict up to now, gaps of the observer among them.
    #[must_use]
    #[track_caller]
    pub fn all_transitions(&self) -> Vec<Transition> {
        let counted = self.scrape().sum("varta_transitions_total", &[]);
        let changes = self.log.wait_for(
            LIMIT,
            |lines| {
                let changes: Vec<_> = transitions(lines).cloned().collect();
                (changes.len() as f64 >= counted).then_some(changes)
            },
            |lines| {
                let story = story(lines, &Agent::default());
                format!("{counted} changes are counted, and not so many are in the log: {story}")
            },
        );
        or_fail(changes)
    }

    /// Reads its metrics again and again until they are as expected, and once more: the rows of one reading
    /// may be of different moments, those of the second are of none before the first. `what` is the condition
    /// in words.
    #[track_caller]
    pub fn await_scrape(&self, what: &str, expected: impl FnMut(&Scrape) -> bool) -> Scrape {
        or_fail(self.wait_for_scrape(what, expected))
    }

    pub(crate) fn wait_for_scrape(
        &self,
        what: &str,
        mut expected: impl FnMut(&Scrape) -> bool,
    ) -> Result<Scrape, String> {
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
        found.ok_or_else(|| format!("not within {LIMIT:?}: {what}\nthe last scrape is\n{last}"))
    }

    /// Waits until so many datagrams are accounted for.
    #[track_caller]
    pub fn await_datagrams(&self, count: f64) -> Scrape {
        self.await_scrape(&format!("{count} datagrams are accounted for"), |scrape| {
            scrape.datagrams() >= count
        })
    }

    /// Waits until so many agents are in a state.
    #[track_caller]
    pub fn await_agents(&self, state: &str, count: usize) -> Scrape {
        self.expect(metric("varta_agents").with("state", state).is(count as f64))
    }

    /// Waits until each of these agents has sent `more` beats from now on.
    #[track_caller]
    pub fn await_beats(&self, pids: &[u32], more: u32) -> Scrape {
        self.await_beats_and_seconds(pids, more, 0.0)
    }

    /// Waits until each of these agents has sent `more` beats from now on, and `seconds` have passed by the
    /// server's own clock.
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

/// A change of verdict in short, such as `down: killed`.
fn summary(change: &Transition) -> String {
    format!("{}: {}", change.to, change.cause)
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
