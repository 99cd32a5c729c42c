//! Does one job: finds out whether it is still to be done, writes down that it is, and does it.
//!
//! The order is what makes it safe. First the process is held by a descriptor, so that its pid cannot become another's
//! unnoticed; then the tracker is asked, which has taken by then whatever the agent has sent; then the deed is on the
//! disk; and because that took a moment, the tracker is asked once more.

use std::borrow::Cow;
use std::env;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use nix::sys::signal::Signal;
use serde_json::{Map, Value, json};
use tokio::sync::{mpsc, oneshot};

use super::command::{CommandLine, NotFilled, Place};
use super::metrics::{RecoveryMetrics, Result as Came};
use super::planner::{Job, Outcome, Refusal};
use super::rule::{Action, BadState};
use super::runner::{self, End, Kept, Program, Ran};
use super::trail::Trail;
use crate::actor::{NamedSlice, Query};
use crate::beat::Origin;
use crate::maintenance::Pauses;
use crate::process::{self, Pidfd};
use crate::time::millis;
use crate::tracker::{Named, Standing, Transition, Twin, Verdict};

/// The `PATH` of commands when the server has none.
const USUAL_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What every job needs.
pub(crate) struct Doer {
    pub(crate) queries: mpsc::Sender<Query>,
    pub(crate) pauses: Pauses,
    pub(crate) trail: Trail,
    pub(crate) metrics: RecoveryMetrics,
    /// The name of this host.
    pub(crate) host: String,
    pub(crate) environment: Vec<(String, String)>,
    pub(crate) is_dry_run: bool,
    pub(crate) allows_remote: bool,
    pub(crate) goes_on_without_trail: bool,
}

/// The process of an agent, at the moment of acting.
enum Target {
    /// Held: a signal reaches it and nobody else.
    Lives(Pidfd),
    /// It has ended, and nobody has its pid.
    Ended,
    /// It has ended, and its pid is another's.
    Replaced,
    /// Of another host, or not known.
    None,
}

impl Doer {
    /// Does a job. Commands are told to end when the keeper of `kept` goes.
    pub(super) async fn act(&self, job: &Job, kept: &Kept) -> Outcome {
        let outcome = self.try_to_act(job, kept).await;
        match outcome {
            Err(outcome @ (Outcome::Skipped | Outcome::Withdrawn)) => {
                let came = if outcome == Outcome::Skipped { Came::Skipped } else { Came::Withdrawn };
                self.metrics.action(job.action(), came);
                outcome
            }
            Ok(()) => Outcome::Done,
            Err(outcome) => outcome,
        }
    }

    async fn try_to_act(&self, job: &Job, kept: &Kept) -> Result<(), Outcome> {
        let action = job.action();
        self.check_may(job)?;
        let target = target_of(&job.transition);
        let standing = self.check_still(job).await?;
        let fact = json!(standing.silence.as_secs_f64());
        let deed = match action {
            Action::Notify => return self.notify(job),
            Action::Signal(signal) => match target {
                Target::Lives(pidfd) => Deed::Signal(pidfd, *signal),
                Target::Ended | Target::Replaced | Target::None => return Err(Outcome::Skipped),
            },
            Action::Command(command, timeout) => {
                if matches!(target, Target::Replaced) && command.has(Place::Pid) {
                    return Err(Outcome::Refused(Refusal::PidReused));
                }
                let arguments = fill(command, &job.transition, standing.silence).map_err(|fault| {
                    let (NotFilled::Unknown(place) | NotFilled::Unsafe(place)) = fault;
                    let why = match fault {
                        NotFilled::Unknown(_) => "nothing is known for it",
                        NotFilled::Unsafe(_) => {
                            "what is known might be taken for an option, or is not for a command line"
                        }
                    };
                    tracing::warn!(
                        target: "varta::recovery",
                        agent = %job.transition.agent,
                        "`{command}` is not run for {}: {{{}}}: {why}",
                        job.transition.agent,
                        place.as_str()
                    );
                    Outcome::Refused(Refusal::Argument)
                })?;
                Deed::Command { command: command.clone(), arguments, timeout: *timeout }
            }
        };
        self.check_others(job, standing).await?;
        let mut facts = facts_of(job, &self.host);
        facts.insert("silent_s".to_owned(), fact);
        deed.describe(&mut facts);
        if self.is_dry_run {
            tracing::warn!(target: "varta::recovery", agent = %job.transition.agent, "would {deed} for {}", why(job));
            self.metrics.action(action, Came::DryRun);
            self.trail.record("dry_run", facts).await;
            return Ok(());
        }
        if !self.trail.record("fired", facts.clone()).await && !self.goes_on_without_trail {
            return Err(Outcome::Refused(Refusal::NoTrail));
        }
        if let Err(outcome) = self.check_still(job).await {
            self.trail.record("withdrawn", facts).await;
            return Err(outcome);
        }
        let (came, result) = self.do_it(job, deed, kept).await;
        self.metrics.action(action, came);
        facts.insert("result".to_owned(), json!(came.as_str()));
        facts.extend(result);
        self.trail.record("outcome", facts).await;
        Ok(())
    }

    /// Whether such an agent may be acted on at all.
    fn check_may(&self, job: &Job) -> Result<(), Outcome> {
        let Transition { agent, process, to, .. } = &*job.transition;
        let refuse = |refusal| Err(Outcome::Refused(refusal));
        if self.pauses.is_paused(&agent.name, SystemTime::now()) {
            return refuse(Refusal::Paused);
        }
        let is_signal = matches!(job.action(), Action::Signal(_));
        match (job.action(), agent.origin) {
            (Action::Notify, _) => Ok(()),
            (_, Origin::Udp(_) | Origin::SecureUdp(_)) if is_signal || !self.allows_remote => {
                refuse(Refusal::Remote)
            }
            (_, Origin::Udp(_) | Origin::SecureUdp(_)) => Ok(()),
            // One that has never come has no process; its name stands in the configuration.
            (_, Origin::Local) if process.is_some() || *to == Verdict::Expected && agent.pid == 0 => Ok(()),
            (_, Origin::Local) => refuse(Refusal::NotAttested),
        }
    }

    /// Whether the agent is still in a bad state, and still the same.
    async fn check_still(&self, job: &Job) -> Result<Standing, Outcome> {
        let Transition { agent, process, .. } = &*job.transition;
        let (answer, answered) = oneshot::channel();
        let query = Query::Standing { agent: agent.clone(), answer };
        self.queries.send(query).await.map_err(|_| Outcome::Withdrawn)?;
        let standing = answered.await.ok().flatten().ok_or(Outcome::Withdrawn)?;
        let has_obeyed = standing.verdict == Verdict::Gone && job.was_signalled;
        if BadState::of(standing.verdict).is_none() && !has_obeyed || standing.process != *process {
            return Err(Outcome::Withdrawn);
        }
        if !standing.is_seen && !matches!(job.action(), Action::Notify) {
            return Err(Outcome::Refused(Refusal::Blind));
        }
        Ok(standing)
    }

    /// Whether enough others of the same name are up.
    async fn check_others(&self, job: &Job, standing: Standing) -> Result<(), Outcome> {
        let is_up = matches!(standing.verdict, Verdict::Up(_));
        let keep_up = job.rule.keep_up.unwrap_or(u32::from(is_up));
        if keep_up == 0 {
            return Ok(());
        }
        let mut named = Named::default();
        let mut next = Some(0);
        while let Some(from) = next {
            let (answer, answered) = oneshot::channel();
            let name = Arc::clone(&job.transition.agent.name);
            let query = Query::Named { name, from, answer };
            self.queries.send(query).await.map_err(|_| Outcome::Withdrawn)?;
            let slice: NamedSlice = answered.await.map_err(|_| Outcome::Withdrawn)?;
            named += slice.named;
            next = slice.next;
        }
        let others_up = named.up - usize::from(is_up && named.up > 0);
        let is_alone = named.all <= 1;
        if is_alone || others_up >= keep_up as usize {
            Ok(())
        } else {
            Err(Outcome::Refused(Refusal::LastOneStanding))
        }
    }

    fn notify(&self, job: &Job) -> Result<(), Outcome> {
        tracing::warn!(
            target: "varta::recovery",
            agent = %job.transition.agent,
            attempt = job.attempt,
            "attention: {}",
            why(job)
        );
        self.metrics.action(job.action(), Came::Done);
        Ok(())
    }

    async fn do_it(&self, job: &Job, deed: Deed, kept: &Kept) -> (Came, Map<String, Value>) {
        let agent = &job.transition.agent;
        match deed {
            Deed::Signal(pidfd, signal) => match pidfd.send_signal(signal) {
                Ok(()) => {
                    tracing::warn!(target: "varta::recovery", agent = %agent, "sent {signal} to {agent}: {}", why(job));
                    (Came::Done, Map::new())
                }
                Err(error) => {
                    tracing::error!(
                        target: "varta::recovery",
                        agent = %agent,
                        "{signal} cannot be sent to {agent}: {error}"
                    );
                    (Came::Failed, facts([("error", json!(error.to_string()))]))
                }
            },
            Deed::Command { command, arguments, timeout } => {
                let ran = self.run(job, &command, arguments, timeout, kept).await;
                log_command(job, &command, ran)
            }
        }
    }

    /// Runs a command on a thread that may wait.
    async fn run(
        &self,
        job: &Job,
        command: &CommandLine,
        arguments: Vec<String>,
        timeout: Duration,
        kept: &Kept,
    ) -> std::io::Result<Ran> {
        let environment = self.environment_of(job);
        let search = environment.iter().rfind(|(name, _)| name == "PATH").map(|(_, path)| path.as_str());
        let path = find_program(command.program(), search.unwrap_or(USUAL_PATH))?;
        let program = Program { path, arguments, environment, timeout, term_to_kill: Program::TERM_TO_KILL };
        let kept = kept.try_clone()?;
        self.metrics.running.increment(1);
        let ran = tokio::task::spawn_blocking(move || runner::run(&program, &kept)).await;
        self.metrics.running.decrement(1);
        ran.unwrap_or_else(|error| Err(std::io::Error::other(error)))
    }

    /// What a command finds in its environment, what the operator has said last.
    fn environment_of(&self, job: &Job) -> Vec<(String, String)> {
        let Transition { agent, to, cause, silence, unit, labels, incident, .. } = &*job.transition;
        let own_path = env::var("PATH").unwrap_or_else(|_| USUAL_PATH.to_owned());
        let host = agent.origin.address().map_or_else(|| self.host.clone(), |address| address.to_string());
        let mut variables = vec![
            ("PATH".to_owned(), own_path),
            ("VARTA_AGENT".to_owned(), agent.name.to_string()),
            ("VARTA_PID".to_owned(), agent.pid.to_string()),
            ("VARTA_HOST".to_owned(), host),
            ("VARTA_TRANSPORT".to_owned(), agent.origin.transport().as_str().to_owned()),
            ("VARTA_STATE".to_owned(), state(*to).to_owned()),
            ("VARTA_CAUSE".to_owned(), cause.as_str().to_owned()),
            ("VARTA_SILENCE_MS".to_owned(), millis(*silence).to_string()),
            ("VARTA_ATTEMPT".to_owned(), job.attempt.to_string()),
        ];
        if let Some(unit) = unit {
            variables.push(("VARTA_UNIT".to_owned(), unit.to_string()));
        }
        if let Some(incident) = incident {
            variables.push(("VARTA_INCIDENT".to_owned(), incident.number.to_string()));
        }
        let labels = labels.iter().map(|(key, value)| (format!("VARTA_LABEL_{key}"), value.to_owned()));
        variables.extend(labels);
        // A name that the kernel tells may hold anything, but not that.
        for (_, value) in &mut variables {
            value.retain(|letter| letter != '\0');
        }
        variables.extend(self.environment.iter().cloned());
        variables
    }
}

/// What is about to be done.
enum Deed {
    Signal(Pidfd, Signal),
    Command { command: CommandLine, arguments: Vec<String>, timeout: Duration },
}

impl Deed {
    fn describe(&self, facts: &mut Map<String, Value>) {
        match self {
            Deed::Signal(_, signal) => {
                facts.insert("signal".to_owned(), json!(signal.as_str()));
            }
            Deed::Command { command, arguments, .. } => {
                let words: Vec<&str> =
                    std::iter::once(command.program()).chain(arguments.iter().map(String::as_str)).collect();
                facts.insert("command".to_owned(), json!(words));
            }
        }
    }
}

impl std::fmt::Display for Deed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Deed::Signal(_, signal) => write!(f, "send {signal}"),
            Deed::Command { command, arguments, .. } => {
                let words = std::iter::once(command.program()).chain(arguments.iter().map(String::as_str));
                match shlex::try_join(words) {
                    Ok(line) => write!(f, "run {}", line.escape_debug()),
                    Err(_) => write!(f, "run `{command}`"),
                }
            }
        }
    }
}

/// Takes hold of the process of an agent.
fn target_of(transition: &Transition) -> Target {
    let Some(process) = transition.process.filter(|_| transition.agent.origin == Origin::Local) else {
        return Target::None;
    };
    let held = Pidfd::open(process.pid);
    match (held, process::start_time(process.pid)) {
        (Ok(pidfd), Some(started)) if started == process.start_time => {
            if pidfd.has_ended() {
                Target::Ended
            } else {
                Target::Lives(pidfd)
            }
        }
        (_, Some(started)) if started != process.start_time => Target::Replaced,
        // Of one that cannot be held nothing is known that would make it safe to send a signal.
        (_, _) => Target::Ended,
    }
}

/// What an agent's state is called: a critical one is more than `up`.
pub(super) fn state(verdict: Verdict) -> &'static str {
    BadState::of(verdict).map_or(verdict.as_str(), BadState::as_str)
}

fn fill(command: &CommandLine, transition: &Transition, silence: Duration) -> Result<Vec<String>, NotFilled> {
    let Transition { agent, unit, to, cause, .. } = transition;
    command.fill(|place| match place {
        Place::Pid => (agent.pid != 0).then(|| Cow::Owned(agent.pid.to_string())),
        Place::Name => Some(Cow::Borrowed(&*agent.name)),
        Place::Unit => unit.as_deref().map(Cow::Borrowed),
        Place::State => Some(Cow::Borrowed(state(*to))),
        Place::Cause => Some(Cow::Borrowed(cause.as_str())),
        Place::Silence => Some(Cow::Owned(format!("{:.3}s", silence.as_secs_f64()))),
    })
}

/// Where a program is, as a shell would find it.
pub(super) fn find_program(program: &str, search: &str) -> std::io::Result<PathBuf> {
    if program.contains('/') {
        return Ok(PathBuf::from(program));
    }
    let is_executable = |path: &Path| {
        path.metadata().is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
    };
    // A relative directory would mean another one each time.
    let directories = env::split_paths(search).filter(|directory| directory.is_absolute());
    directories.map(|directory| directory.join(program)).find(|path| is_executable(path)).ok_or_else(|| {
        std::io::Error::new(std::io::ErrorKind::NotFound, format!("`{program}` is not in the PATH {search}"))
    })
}

/// Why something is done, for people.
fn why(job: &Job) -> String {
    let Transition { agent, to, cause, silence, .. } = &*job.transition;
    let (step, steps, attempt) = (job.step + 1, job.rule.steps.len(), job.attempt);
    format!(
        "{agent} is {to} ({cause}) after {silence:.3?} of silence; step {step} of {steps}, attempt {attempt}"
    )
}

/// What a record says of whom it is about.
pub(super) fn facts_of_agent(transition: &Transition, host: &str) -> Map<String, Value> {
    let Transition { agent, process, to, cause, silence, unit, labels, incident, .. } = transition;
    let mut facts = facts([
        ("agent", json!(&*agent.name)),
        ("pid", json!(agent.pid)),
        (
            "host",
            json!(agent.origin.address().map_or_else(|| host.to_owned(), |address| address.to_string())),
        ),
        ("transport", json!(agent.origin.transport().as_str())),
        ("state", json!(state(*to))),
        ("cause", json!(cause.as_str())),
        ("silence_ms", json!(millis(*silence))),
    ]);
    let optional = [
        ("twin", (agent.twin != Twin::FIRST).then(|| json!(agent.twin.number()))),
        ("start_time", process.map(|process| json!(process.start_time.get()))),
        ("unit", unit.as_deref().map(|unit| json!(unit))),
        ("incident", incident.map(|incident| json!(incident.number.get()))),
    ];
    for (key, value) in optional {
        if let Some(value) = value {
            facts.insert(key.to_owned(), value);
        }
    }
    if !labels.is_empty() {
        let labels: Map<String, Value> =
            labels.iter().map(|(key, value)| (key.to_owned(), json!(value))).collect();
        facts.insert("labels".to_owned(), Value::Object(labels));
    }
    facts
}

fn facts_of(job: &Job, host: &str) -> Map<String, Value> {
    let mut all = facts_of_agent(&job.transition, host);
    all.extend(facts([
        ("action", json!(job.number)),
        ("rule", json!(job.rule.name.as_str())),
        ("step", json!(job.step + 1)),
        ("attempt", json!(job.attempt)),
    ]));
    all
}

fn facts<const N: usize>(entries: [(&str, Value); N]) -> Map<String, Value> {
    entries.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
}

/// Tells how a command went.
fn log_command(job: &Job, command: &CommandLine, ran: std::io::Result<Ran>) -> (Came, Map<String, Value>) {
    let agent = &job.transition.agent;
    let Ran { end, lasted, output, killed } = match ran {
        Ok(ran) => ran,
        Err(error) => {
            tracing::error!(
                target: "varta::recovery",
                agent = %agent,
                "`{command}` for {agent} cannot be started: {error}"
            );
            return (Came::Failed, facts([("error", json!(error.to_string()))]));
        }
    };
    let (came, how) = match end {
        End::Exited(0) => (Came::Done, "exited with status 0".to_owned()),
        End::Exited(code) => (Came::Failed, format!("exited with status {code}")),
        End::Signalled(signal) => (Came::Failed, format!("was killed by signal {signal}")),
        End::TimedOut => (Came::TimedOut, "took too long and was ended".to_owned()),
        End::Unkillable => {
            (Came::TimedOut, "took too long and cannot be killed: it waits in the kernel".to_owned())
        }
    };
    let text = output.text();
    let left = if killed > 0 {
        format!("; {killed} processes that it left behind were ended")
    } else {
        String::new()
    };
    macro_rules! line {
        ($level:ident) => {
            tracing::$level!(
                target: "varta::recovery",
                agent = %agent,
                duration_ms = millis(lasted),
                output = %text.escape_debug(),
                "`{command}` {how} after {lasted:.3?}{left}: {}",
                why(job)
            )
        };
    }
    if came == Came::Done {
        line!(warn);
    } else {
        line!(error);
    }
    let mut result = facts([
        ("duration_ms", json!(millis(lasted))),
        ("output", json!(text)),
        ("output_bytes", json!(output.length)),
        ("left_behind", json!(killed)),
    ]);
    let (key, value) = match end {
        End::Exited(code) => ("exit_code", json!(code)),
        End::Signalled(signal) => ("exit_signal", json!(signal)),
        End::TimedOut | End::Unkillable => ("ended", json!(how)),
    };
    result.insert(key.to_owned(), value);
    (came, result)
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU64;

    use super::*;
    use crate::process::testing::{Child, await_that};
    use crate::recovery::planner::testing::transition;
    use crate::tracker::{AgentId, Cause, ProcessId};

    fn of_process(pid: u32, start_time: NonZeroU64) -> Transition {
        let process = Some(ProcessId { pid, start_time });
        Transition { process, ..transition(pid, Verdict::Stalled, Cause::Stopped) }
    }

    #[test]
    fn only_the_process_that_fell_silent_is_taken_hold_of() {
        let mut child = Child::shell("read line");
        let started = process::start_time(child.pid()).unwrap();
        let fallen = of_process(child.pid(), started);
        assert!(matches!(target_of(&fallen), Target::Lives(_)));
        let before = NonZeroU64::new(started.get() - 1).unwrap();
        assert!(matches!(target_of(&of_process(child.pid(), before)), Target::Replaced));
        child.close_input();
        await_that("it is dead", || !matches!(target_of(&fallen), Target::Lives(_)));
        assert!(matches!(target_of(&fallen), Target::Ended), "a zombie has its pid yet");
        child.reap();
        assert!(matches!(target_of(&fallen), Target::Ended));
        let remote = AgentId { origin: Origin::Udp([10, 0, 0, 1].into()), ..fallen.agent.clone() };
        assert!(matches!(target_of(&Transition { agent: remote, ..fallen }), Target::None));
    }

    #[test]
    fn a_program_is_found_as_a_shell_finds_it() {
        let found = find_program("sh", "/nowhere:relative:/bin:/usr/bin").unwrap();
        assert!(found.is_absolute() && found.ends_with("sh"));
        assert_eq!(find_program("./sh", "").unwrap(), Path::new("./sh"));
        let fault = find_program("no-such-program", "/bin").unwrap_err().to_string();
        assert!(fault.contains("no-such-program") && fault.contains("/bin"), "{fault}");
    }

    #[test]
    fn a_critical_agent_is_called_that() {
        use varta_proto::Status;
        assert_eq!(state(Verdict::Up(Status::Critical)), "critical");
        assert_eq!(state(Verdict::Down), "down");
    }
}
