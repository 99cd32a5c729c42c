//! Where the programs under test are, and how they are run.

use std::env;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::thread;

use crate::foreign::skip;
use crate::retry::{LIMIT, wait_for};

/// Cargo's directory for everything that it builds: the one in which the running test lies.
pub(crate) fn target_directory() -> &'static Path {
    static FOUND: OnceLock<PathBuf> = OnceLock::new();
    FOUND.get_or_init(|| {
        let profile = profile_directory();
        // Cargo marks it. Between it and the profile's directory there may be one for the platform.
        let marked = profile.ancestors().find(|directory| directory.join("CACHEDIR.TAG").is_file());
        marked.or(profile.parent()).expect("a profile's directory lies in another").to_path_buf()
    })
}

/// The directory for programs of the profile with which the running test was built.
fn profile_directory() -> PathBuf {
    let test = env::current_exe().expect("a test knows its own path");
    let deps = test.parent().expect("a program lies in a directory");
    // A test lies in `deps`, the programs of this package one above.
    let own = if deps.ends_with("deps") { deps.parent() } else { Some(deps) };
    own.expect("`deps` lies in a profile's directory").to_path_buf()
}

/// The variable of the environment that names the server's program where it is built already, with all that
/// is tested.
const TESTED_SERVER: &str = "VARTA_TESTED_SERVER";

/// A command for the server as it is now: built on first use, with the profile of the running test. Its
/// environment is empty, so that no variable of the shell in which the tests run has an effect.
#[must_use]
pub fn server_command() -> Command {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    let program = BUILT.get_or_init(|| {
        if let Some(program) = env::var_os(TESTED_SERVER) {
            return program.into();
        }
        let profile_directory = profile_directory();
        once_in_a_run(&profile_directory, || build_server(&profile_directory));
        profile_directory.join("varta-server")
    });
    isolated(program)
}

/// Builds the server with the profile of the running test.
fn build_server(profile_directory: &Path) {
    let profile = match profile_directory.file_name().and_then(|name| name.to_str()) {
        Some("debug") | None => "dev",
        Some(name) => name,
    };
    let mut cargo = Command::new(env!("CARGO"));
    cargo
        .args(["build", "--quiet", "--package", "varta-server", "--bin", "varta-server"])
        .args(["--profile", profile, "--target-dir"])
        .arg(profile_directory.parent().expect("a profile's directory lies in another"))
        .current_dir(env!("CARGO_MANIFEST_DIR"));
    // The variables that Cargo sets for this test's own package would make build scripts run again that read
    // them, and after them most of the server be built again.
    for (name, _) in env::vars_os() {
        if ["CARGO_PKG_", "CARGO_MANIFEST_"].iter().any(|start| name.to_string_lossy().starts_with(start)) {
            cargo.env_remove(name);
        }
    }
    let built = cargo.status().expect("Cargo runs, for it has built this test");
    assert!(built.success(), "the server cannot be built: {built}");
}

/// Builds in the first of all processes of a run. `cargo nextest` runs each test in a process of its own, and
/// gives all of them the name of the run; other processes build for themselves.
fn once_in_a_run(directory: &Path, build: impl FnOnce()) {
    let Ok(run) = env::var("NEXTEST_RUN_ID") else { return build() };
    let path = directory.join("varta-server.run");
    let last = File::options().read(true).write(true).create(true).truncate(false).open(&path);
    let built_before = last.and_then(|mut last| {
        // Held until the file is closed: others wait for the server to be built.
        last.lock()?;
        let mut name = String::new();
        last.read_to_string(&mut name)?;
        if name != run {
            build();
            last.set_len(0)?;
            last.rewind()?;
            last.write_all(run.as_bytes())?;
        }
        Ok(())
    });
    built_before.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
}

/// A command for one of our agents: the program `it-worker` of this package, whose documentation lists its
/// options and commands.
#[must_use]
pub fn worker_command() -> Command {
    isolated(&profile_directory().join("it-worker"))
}

/// A command for a service that beats from Tokio: the program `it-service` of this package.
#[must_use]
pub fn service_command() -> Command {
    isolated(&profile_directory().join("it-service"))
}

/// The same by a crate that others use, `sd-notify` or `libsystemd`: the program `it-notify-crates` of this package.
#[must_use]
pub fn notify_crate_command(name: &str, address: &str) -> Command {
    let mut command = isolated(&profile_directory().join("it-notify-crates"));
    command.arg(name).env("NOTIFY_SOCKET", address);
    command
}

/// A command for a process that speaks sd_notify(3) to this address, a path or `@` and a name: the program `it-notifier`
/// of this package, whose documentation lists its commands.
#[must_use]
pub fn notifier_command(address: &str) -> Command {
    let mut command = isolated(&profile_directory().join("it-notifier"));
    command.env("NOTIFY_SOCKET", address);
    command
}

/// A command for an agent of the published client: the program `it-foreign` of this package.
#[must_use]
pub(crate) fn foreign_worker_command() -> Command {
    isolated(&profile_directory().join("it-foreign"))
}

pub(crate) fn isolated(program: &Path) -> Command {
    let mut command = Command::new(program);
    command.env_clear().stdin(Stdio::null());
    command
}

/// Whether a process can be put into a PID namespace of its own here. Where it cannot, the test is skipped,
/// and this prints so.
#[must_use]
pub fn pid_namespaces_work() -> bool {
    static WORK: OnceLock<bool> = OnceLock::new();
    let work = *WORK.get_or_init(|| {
        let mut trial = into_pid_namespace(&Command::new("true"));
        trial.stdout(Stdio::null()).stderr(Stdio::null());
        trial.status().is_ok_and(|status| status.success())
    });
    if !work {
        skip("no PID namespaces can be made here: that takes root, `unshare` and a kernel that allows it");
    }
    work
}

/// Has a program run as process 1 of a PID namespace of its own, as in a container. The process that is
/// started here is its parent outside, and takes it along when it is killed.
#[must_use]
pub fn into_pid_namespace(command: &Command) -> Command {
    let mut outside = isolated(Path::new("unshare"));
    outside.args(["--pid", "--fork", "--kill-child"]).arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        outside.env(name, value.unwrap_or_default());
    }
    outside
}

/// Has a program run in a time namespace of its own, whose boot clock is so many seconds ahead. `None` where
/// that is not possible; then the test is skipped, and this prints so.
#[must_use]
pub fn into_time_namespace(ahead: u32, command: &Command) -> Option<Command> {
    static WORK: OnceLock<bool> = OnceLock::new();
    let inside = |command: &Command| {
        let mut outside = isolated(Path::new("unshare"));
        outside.args(["--time", "--boottime", &ahead.to_string()]);
        outside.arg(command.get_program()).args(command.get_args());
        for (name, value) in command.get_envs() {
            outside.env(name, value.unwrap_or_default());
        }
        outside
    };
    let work = *WORK.get_or_init(|| {
        let mut trial = Command::new("cat");
        trial.arg("/proc/uptime");
        let text = inside(&trial).output().map(|output| output.stdout).unwrap_or_default();
        let uptime =
            String::from_utf8_lossy(&text).split('.').next().and_then(|text| text.parse::<u32>().ok());
        uptime.is_some_and(|uptime| uptime >= ahead)
    });
    if work {
        return Some(inside(command));
    }
    skip("no time namespaces can be made here: that takes root, `unshare` and a kernel that allows it");
    None
}

/// Has a program started by another, which gets its words as the last arguments.
#[must_use]
pub(crate) fn through(starter: &[OsString], command: &Command) -> Command {
    let mut outer = isolated(Path::new(&starter[0]));
    outer.args(&starter[1..]).arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        outer.env(name, value.unwrap_or_default());
    }
    outer
}

/// Has a program run under a pid of the test's choosing, which must be free: this happens by chance when pids
/// are used again. The process that is started here is its parent.
#[must_use]
pub fn as_pid(pid: u32, command: &Command) -> Command {
    let mut parent = isolated(&profile_directory().join("it-as-pid"));
    parent.arg(pid.to_string()).arg(command.get_program()).args(command.get_args());
    parent
}

/// A program that starts two agents one after the other that have the same pid and the same start time. It does
/// that each time when it is told `next`, kills the second of the time before, and answers with the pid.
#[must_use]
pub fn same_pid(socket: &Path) -> Command {
    let mut program = isolated(&profile_directory().join("it-same-pid"));
    program.arg(socket);
    program
}

/// Whether pids can be chosen here. Where they cannot, the test is skipped, and this prints so.
#[must_use]
pub fn pids_can_be_chosen() -> bool {
    static CAN: OnceLock<bool> = OnceLock::new();
    let can = *CAN.get_or_init(|| {
        let ended = Command::new("true").spawn().and_then(|mut child| child.wait().map(|_| child.id()));
        let Ok(free) = ended else { return false };
        let mut trial = as_pid(free, &Command::new("true"));
        // It ends with its input.
        trial.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        trial.status().is_ok_and(|status| status.success())
    });
    if !can {
        skip("no pid can be chosen here: that takes root and Linux 5.5");
    }
    can
}

/// The children of a process that has one thread.
#[must_use]
pub fn children(pid: u32) -> Vec<u32> {
    let listed = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    listed.split_whitespace().filter_map(|child| child.parse().ok()).collect()
}

/// How a program ended, and all that it printed.
#[derive(Clone, Debug)]
pub struct Ended {
    /// Its exit status.
    pub status: ExitStatus,
    /// What it wrote to standard output.
    pub stdout: String,
    /// What it wrote to standard error.
    pub stderr: String,
}

/// Runs a program that is expected to end by itself. It is killed and the test fails if it does not.
#[must_use]
pub fn run_to_its_end(mut command: Command) -> Ended {
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{command:?} cannot be started: {error}"));
    let stdout = read_aside(child.stdout.take());
    let stderr = read_aside(child.stderr.take());
    let status = await_exit(&mut child);
    if status.is_none() {
        let _ = child.kill();
        let _ = child.wait();
    }
    let [stdout, stderr] =
        [stdout, stderr].map(|reader| reader.join().expect("a thread that only reads does not panic"));
    let status = status.unwrap_or_else(|| {
        panic!("{command:?} has not ended within {LIMIT:?}; it wrote\n{stdout}\n{stderr}")
    });
    Ended { status, stdout, stderr }
}

/// Runs the server's program to its end, as for a command that answers and ends or with options that keep it
/// from starting.
#[must_use]
pub fn run_server<T: AsRef<OsStr>>(arguments: impl IntoIterator<Item = T>) -> Ended {
    let mut command = server_command();
    command.args(arguments);
    run_to_its_end(command)
}

/// Runs a server that ends with this exit status because it cannot start, and gives what it writes to
/// standard error.
#[track_caller]
pub fn refused_start<T: AsRef<OsStr>>(
    status: i32,
    socket: &Path,
    arguments: impl IntoIterator<Item = T>,
) -> String {
    let mut command = server_command();
    command.env("VARTA_METRICS_ADDR", "127.0.0.1:0").arg("--socket").arg(socket).args(arguments);
    let ended = run_to_its_end(command);
    assert_eq!(ended.status.code(), Some(status), "{}", ended.stderr);
    assert_eq!(ended.stdout, "", "what is wrong is said on standard error");
    ended.stderr
}

/// Waits until a process has ended; `None` when it has not.
pub(crate) fn await_exit(child: &mut Child) -> Option<ExitStatus> {
    wait_for(|| child.try_wait().expect("a child that nobody else waits for can be waited for"))
}

/// Reads a stream to its end in a thread of its own, so that the writer never blocks.
fn read_aside(stream: Option<impl Read + Send + 'static>) -> thread::JoinHandle<String> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut stream) = stream {
            // What came before an error is still worth showing.
            let _ = stream.read_to_end(&mut bytes);
        }
        String::from_utf8_lossy(&bytes).into_owned()
    })
}
