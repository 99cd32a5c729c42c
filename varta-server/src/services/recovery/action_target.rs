//! The target of an action at the time of acting: the process behind a pidfd, the program of a command and
//! its arguments.

use std::borrow::Cow;
use std::env;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::json;
use serde_json::{Map, Value};

use crate::domain::tracker::Transition;
use crate::observe::{Pidfd, identify};
use crate::services::recovery::audit_fields::state;
use crate::services::recovery::command::{CommandLine, NotFilled, Placeholder};
use crate::services::recovery::signal_target::SignalTarget;

/// The `PATH` of commands when the server has none.
const USUAL_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The process of an agent at the time of acting.
pub(super) enum TargetProcess {
    /// Alive, and held by a pidfd: a signal cannot reach another process.
    Lives(Pidfd),
    /// Alive without a pidfd: the server is out of descriptors, or the kernel is too old.
    NotHeld,
    /// Ended; no process has its pid.
    Ended,
    /// Ended; another process has its pid.
    Replaced,
    /// On another host, or not known.
    None,
}

/// Opens a pidfd for the process of an agent.
pub(super) fn target_of(transition: &Transition) -> TargetProcess {
    let Some(process) = transition.process.filter(|_| transition.agent.origin.is_local()) else {
        return TargetProcess::None;
    };
    let held = Pidfd::open(process.pid);
    match (held, identify::start_time(process.pid)) {
        (Ok(pidfd), Some(started)) if started == process.start_time => {
            if pidfd.has_ended() {
                TargetProcess::Ended
            } else {
                TargetProcess::Lives(pidfd)
            }
        }
        (_, Some(started)) if started != process.start_time => TargetProcess::Replaced,
        (Err(error), Some(_)) if error.raw_os_error() != Some(libc::ESRCH) => TargetProcess::NotHeld,
        (_, _) => TargetProcess::Ended,
    }
}

/// An action that is ready to be executed.
pub(super) enum PreparedAction {
    Signal(SignalTarget, Signal),
    Command { command: CommandLine, arguments: Vec<String>, timeout: Duration },
}

impl PreparedAction {
    /// Adds the action to the fields of an audit record.
    pub(super) fn describe(&self, facts: &mut Map<String, Value>) {
        match self {
            PreparedAction::Signal(target, signal) => {
                facts.insert("signal".to_owned(), json!(signal.as_str()));
                target.describe(facts);
            }
            PreparedAction::Command { command, arguments, .. } => {
                let words: Vec<&str> =
                    std::iter::once(command.program()).chain(arguments.iter().map(String::as_str)).collect();
                facts.insert("command".to_owned(), json!(words));
            }
        }
    }
}

impl std::fmt::Display for PreparedAction {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            PreparedAction::Signal(target, signal) => match target.to_string().as_str() {
                "" => write!(f, "send {signal}"),
                others => write!(f, "send {signal} to {}", others.trim_end_matches(" of ")),
            },
            PreparedAction::Command { command, arguments, .. } => {
                let words = std::iter::once(command.program()).chain(arguments.iter().map(String::as_str));
                match shlex::try_join(words) {
                    Ok(line) => write!(f, "run {}", line.escape_debug()),
                    Err(_) => write!(f, "run `{command}`"),
                }
            }
        }
    }
}

/// Fills in the placeholders of a command's arguments.
pub(super) fn fill(
    command: &CommandLine,
    transition: &Transition,
    silence: Duration,
) -> Result<Vec<String>, NotFilled> {
    let Transition { agent, unit, to, cause, .. } = transition;
    command.fill(|place| match place {
        Placeholder::Pid => agent.shown_pid().map(|pid| Cow::Owned(pid.to_string())),
        Placeholder::Name => Some(Cow::Borrowed(&*agent.name)),
        Placeholder::Unit => unit.as_deref().map(Cow::Borrowed),
        Placeholder::State => Some(Cow::Borrowed(state(*to))),
        Placeholder::Cause => Some(Cow::Borrowed(cause.as_str())),
        Placeholder::Silence => Some(Cow::Owned(format!("{:.3}s", silence.as_secs_f64()))),
    })
}

/// The variables that a command may find in its environment, but for those of labels.
const VARIABLES: [&str; 10] = [
    "VARTA_AGENT",
    "VARTA_HOST",
    "VARTA_TRANSPORT",
    "VARTA_STATE",
    "VARTA_CAUSE",
    "VARTA_SILENCE_MS",
    "VARTA_ATTEMPT",
    "VARTA_PID",
    "VARTA_UNIT",
    "VARTA_INCIDENT",
];
/// What the names of those of labels begin with.
const LABEL: &str = "VARTA_LABEL_";

/// Whether a variable of the environment is one that recovery gives its commands.
pub(crate) fn is_variable_of_commands(name: &str) -> bool {
    VARIABLES.contains(&name) || name.starts_with(LABEL)
}

/// What a command finds of the agent in its environment. `host` is the name of this host.
pub(super) fn variables_of(transition: &Transition, attempt: u32, host: &str) -> Vec<(String, String)> {
    let agent = &transition.agent;
    let fields = transition.fields();
    let mut variables = vec![
        ("VARTA_AGENT".to_owned(), fields.agent.to_owned()),
        ("VARTA_HOST".to_owned(), agent.origin.host(host)),
        ("VARTA_TRANSPORT".to_owned(), fields.transport.to_owned()),
        ("VARTA_STATE".to_owned(), state(transition.to).to_owned()),
        ("VARTA_CAUSE".to_owned(), fields.cause.to_owned()),
        ("VARTA_SILENCE_MS".to_owned(), fields.silence_ms.to_string()),
        ("VARTA_ATTEMPT".to_owned(), attempt.to_string()),
    ];
    // What a script may send a signal to.
    let has_pid = agent.origin.is_local()
        && agent.pid != 0
        && !matches!(target_of(transition), TargetProcess::Replaced);
    let optional = [
        ("VARTA_PID", has_pid.then(|| agent.pid.to_string())),
        ("VARTA_UNIT", fields.unit.map(str::to_owned)),
        ("VARTA_INCIDENT", fields.incident.map(|incident| incident.to_string())),
    ];
    variables.extend(optional.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))));
    let labels = fields.labels.iter().map(|(key, value)| (format!("{LABEL}{key}"), value.to_owned()));
    variables.extend(labels);
    // A name that the kernel tells may hold anything, but not that.
    for (_, value) in &mut variables {
        value.retain(|letter| letter != '\0');
    }
    variables
}

/// The search path of commands without a slash: the operator's `PATH` for commands, or else the server's.
pub(super) fn search_path(environment: &[(String, String)]) -> String {
    let given = environment.iter().rfind(|(name, _)| name == "PATH").map(|(_, path)| path.clone());
    given.or_else(|| env::var("PATH").ok()).unwrap_or_else(|| USUAL_PATH.to_owned())
}

/// Finds a program as a shell does. One with a slash is in the working directory of the server, and not in that
/// of the command.
pub(super) fn find_program(program: &str, search: &str) -> std::io::Result<PathBuf> {
    let is_executable = |path: &Path| {
        path.metadata().is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
    };
    if program.contains('/') {
        let path = std::path::absolute(program)?;
        let shown = if path == Path::new(program) { String::new() } else { format!(", {}", path.display()) };
        let fault = || {
            let fault = format!("`{program}`{shown}: is no file that can be run");
            std::io::Error::new(std::io::ErrorKind::NotFound, fault)
        };
        return if is_executable(&path) { Ok(path) } else { Err(fault()) };
    }
    // A relative directory would depend on the working directory.
    let directories = env::split_paths(search).filter(|directory| directory.is_absolute());
    directories.map(|directory| directory.join(program)).find(|path| is_executable(path)).ok_or_else(|| {
        std::io::Error::new(std::io::ErrorKind::NotFound, format!("`{program}` is not in the PATH {search}"))
    })
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU64;

    use super::*;
    use crate::domain::beat::Origin;
    use crate::domain::process::ProcessId;
    use crate::domain::tracker::tests::sample;
    use crate::domain::tracker::{AgentId, Cause, Verdict};
    use crate::observe::identify;
    use crate::observe::testing::{Child, await_that};
    use crate::services::recovery::planner::testing::transition;

    #[test]
    fn a_command_finds_this_of_the_agent_in_its_environment() {
        let variables = |transition: &Transition| {
            let variables = variables_of(transition, 2, "db1").into_iter();
            variables.map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>()
        };
        let mut agent = sample::transition("a\0b").pid(u32::MAX);
        agent.labels = [("zone", "b")].into_iter().collect();
        let expected = [
            "VARTA_AGENT=ab",
            "VARTA_HOST=db1",
            "VARTA_TRANSPORT=unix",
            "VARTA_STATE=stalled",
            "VARTA_CAUSE=silent",
            "VARTA_SILENCE_MS=5000",
            "VARTA_ATTEMPT=2",
            "VARTA_PID=4294967295",
            "VARTA_LABEL_zone=b",
        ];
        assert_eq!(variables(&agent), expected);
        let complete = variables(&sample::complete());
        let expected = ["VARTA_HOST=10.0.0.7", "VARTA_UNIT=billing.service", "VARTA_INCIDENT=1"];
        assert!(expected.iter().all(|variable| complete.iter().any(|one| one == variable)), "{complete:?}");
        assert!(!complete.iter().any(|variable| variable.starts_with("VARTA_PID=")), "{complete:?}");
        let all =
            variables_of(&agent, 2, "db1").into_iter().chain(variables_of(&sample::complete(), 2, "db1"));
        assert!(all.into_iter().all(|(name, _)| is_variable_of_commands(&name)));
    }

    fn of_process(pid: u32, start_time: NonZeroU64) -> Transition {
        let process = Some(ProcessId::new(pid, start_time));
        Transition { process, ..transition(pid, Verdict::Stalled, Cause::Stopped) }
    }

    #[test]
    fn only_the_process_that_fell_silent_is_taken_hold_of() {
        let mut child = Child::shell("read line");
        let started = identify::start_time(child.pid()).unwrap();
        let fallen = of_process(child.pid(), started);
        assert!(matches!(target_of(&fallen), TargetProcess::Lives(_)));
        let before = NonZeroU64::new(started.get() - 1).unwrap();
        assert!(matches!(target_of(&of_process(child.pid(), before)), TargetProcess::Replaced));
        child.close_input();
        await_that("it is dead", || !matches!(target_of(&fallen), TargetProcess::Lives(_)));
        assert!(matches!(target_of(&fallen), TargetProcess::Ended), "a zombie has its pid yet");
        child.reap();
        assert!(matches!(target_of(&fallen), TargetProcess::Ended));
        let remote = AgentId { origin: Origin::Udp([10, 0, 0, 1].into()), ..fallen.agent.clone() };
        assert!(matches!(target_of(&Transition { agent: remote, ..fallen }), TargetProcess::None));
    }

    #[test]
    fn a_program_is_found_as_a_shell_finds_it() {
        let found = find_program("sh", "/nowhere:relative:/bin:/usr/bin").unwrap();
        assert!(found.is_absolute() && found.ends_with("sh"));
        assert_eq!(find_program("/bin/sh", "").unwrap(), Path::new("/bin/sh"));
        assert!(find_program("/etc/passwd", "").is_err());
        // The working directory of the tests is that of the package.
        let here = std::env::current_dir().unwrap();
        let fault = find_program("./no-such-script.sh", "").unwrap_err().to_string();
        assert!(fault.contains("./no-such-script.sh") && fault.contains(here.to_str().unwrap()), "{fault}");
        let fault = find_program("no-such-program", "/bin").unwrap_err().to_string();
        assert!(fault.contains("no-such-program") && fault.contains("/bin"), "{fault}");
    }
}
