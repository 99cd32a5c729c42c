//! The dossier: a snapshot of a silent process and its explanation, which a transition carries and a person
//! reads.

use std::fmt;
use std::time::Duration;

use serde::{Serialize, Serializer};

use crate::domain::process::classify::{Explanation, classify};
use crate::domain::process::snapshot::{Details, ProcessSnapshot, SnapshotDelta};
use crate::domain::process::text::Escaped;

/// The findings about a silent process.
///
/// The size is bounded: a few hundred bytes inline, and at most [`Dossier::MAX_HEAP`] on the heap. The
/// displayed form is one line of at most [`Dossier::MAX_TEXT_LEN`] bytes, in which text from the process
/// cannot pass for text of this server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dossier {
    /// The newest snapshot.
    pub look: ProcessSnapshot,
    /// What changed since an earlier snapshot.
    pub change: Option<SnapshotDelta>,
    /// What the snapshots mean.
    pub explanation: Explanation,
    /// Whether the snapshots are of a child of the agent's process, which does the agent's work.
    pub is_of_child: bool,
}

impl Dossier {
    /// The maximum number of bytes on the heap.
    pub const MAX_HEAP: usize = 1536;
    /// The maximum number of bytes of the displayed form. Escaped text takes up to six times its length.
    pub const MAX_TEXT_LEN: usize = 6144;

    /// Makes a dossier of a snapshot of the agent's process, and an earlier one of the same process if there is one.
    #[must_use]
    pub fn new(look: ProcessSnapshot, earlier: Option<&ProcessSnapshot>) -> Self {
        let explanation = classify(&look, earlier);
        let change = earlier.and_then(|earlier| look.since(earlier));
        Dossier { look, change, explanation, is_of_child: false }
    }
}

/// The text that people read.
impl Serialize for Dossier {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// `idle: it sleeps and has hardly used the CPU; main thread sleeping in futex_do_wait (system call 202); 7
/// threads: 6 sleeping, 1 uninterruptible; 0 ms of CPU in 2.5 s; cgroup /system.slice/foo.service, not
/// frozen; …`
impl fmt::Display for Dossier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Dossier { look, change, explanation, is_of_child } = self;
        write!(f, "{}: ", explanation.activity)?;
        if *is_of_child {
            write!(f, "child {} ({}): ", look.pid, Escaped(&look.command))?;
        }
        write!(f, "{}", explanation.sentence)?;
        if let Some(death) = look.death {
            return write!(f, "; {death}");
        }
        match look.details.as_ref().and_then(|details| details.lead) {
            Some(lead) => write!(f, "; main thread ended; thread {lead} {}", look.state)?,
            None => write!(f, "; main thread {}", look.state)?,
        }
        if let Some(details) = &look.details {
            show_wait(details, f)?;
        }
        show_threads(look, f)?;
        match change {
            Some(change) => {
                write!(f, "; {} of CPU in {}", Span(change.cpu), Span(change.over))?;
                if let Some(delay) = change.run_delay.filter(|delay| *delay >= Span::MIN_DURATION) {
                    write!(f, ", waited {} for one", Span(delay))?;
                }
            }
            None => write!(f, "; {} of CPU since it started", Span(look.cpu))?,
        }
        look.details.as_ref().map_or(Ok(()), |details| show_surroundings(details, *change, f))
    }
}

fn show_wait(details: &Details, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    if let Some(channel) = &details.channel {
        write!(f, " in {}", Escaped(channel))?;
    }
    if let Some(call) = details.call {
        write!(f, " (system call {call})")?;
    }
    if let Some(child) = &details.awaits {
        write!(f, " for its child {}", child.pid)?;
        if let Some(channel) = &child.channel {
            write!(f, " (which is in {})", Escaped(channel))?;
        }
    }
    Ok(())
}

fn show_threads(look: &ProcessSnapshot, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let Some(details) = look.details.as_ref().filter(|_| look.threads > 1) else {
        return write!(f, "; {} thread{}", look.threads, if look.threads == 1 { "" } else { "s" });
    };
    let looked_at = details.states.total();
    write!(f, "; {} threads", look.threads)?;
    if looked_at < look.threads {
        write!(f, ", of the first {looked_at}")?;
    }
    write!(f, ": {}", details.states)?;
    let Some(stuck) = &details.stuck else { return Ok(()) };
    write!(f, " (thread {}", stuck.thread)?;
    if let Some(channel) = &stuck.channel {
        write!(f, " in {}", Escaped(channel))?;
    }
    f.write_str(")")
}

/// Cgroup, pressure, descriptors and memory: possible causes of the silence.
fn show_surroundings(
    details: &Details,
    change: Option<SnapshotDelta>,
    f: &mut fmt::Formatter<'_>,
) -> fmt::Result {
    if let Some(cgroup) = &details.cgroup {
        write!(f, "; cgroup {}", Escaped(&cgroup.path))?;
        match cgroup.frozen {
            Some(true) => match &cgroup.frozen_at {
                Some(above) => write!(f, ", frozen by {}", Escaped(above))?,
                None => f.write_str(", frozen")?,
            },
            Some(false) => f.write_str(", not frozen")?,
            None => {}
        }
        if let Some(throttled) = change.and_then(|change| change.throttled).filter(|some| some.periods > 0) {
            write!(
                f,
                ", held back by its CPU limit {} times for {}",
                throttled.periods,
                Span(throttled.time)
            )?;
        }
        if cgroup.pressure.is_known() {
            write!(f, ", under pressure: {}", cgroup.pressure)?;
        }
    }
    if details.host.is_known() {
        write!(f, "; host under pressure: {}", details.host)?;
    }
    if let Some(descriptors) = details.descriptors {
        write!(f, "; {}", descriptors.open)?;
        if let Some(limit) = descriptors.limit {
            write!(f, " of {limit}")?;
        }
        f.write_str(" descriptors")?;
    }
    if let Some(bytes) = details.resident_bytes {
        write!(f, "; {} MiB resident", bytes >> 20)?;
    }
    Ok(())
}

/// Displays a duration for people: `40 ms`, `2.5 s`.
struct Span(Duration);

impl Span {
    /// A shorter duration is displayed as 0.
    const MIN_DURATION: Duration = Duration::from_millis(1);
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 < Duration::from_secs(1) {
            write!(f, "{} ms", self.0.as_millis())
        } else {
            write!(f, "{:.1} s", self.0.as_secs_f64())
        }
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU64;

    use super::*;
    use crate::base::time::MonoTime;
    use crate::domain::process::cgroup::{Cgroup, Throttled};
    use crate::domain::process::exit::ExitStatus;
    use crate::domain::process::pressure::{Pressure, Stall};
    use crate::domain::process::snapshot::{AwaitedChild, BlockedThread, ContextSwitches, Descriptors};
    use crate::domain::process::state::{State, StateCounts};
    use crate::observe::cgroup::MAX_PATH_LEN;
    use crate::observe::procfs::MAX_COMMAND_LEN;
    use crate::observe::status::MAX_CHANNEL_LEN;

    fn look() -> ProcessSnapshot {
        let mut states = StateCounts::default();
        for letter in *b"SSSSSSD" {
            states.add(State::from_letter(letter));
        }
        let pressure = Pressure { memory: Some(Stall::default()), ..Pressure::default() };
        ProcessSnapshot {
            at: MonoTime::from_millis(12_500),
            pid: 7,
            start_time: NonZeroU64::MIN,
            command: "worker".into(),
            state: State::Sleeping,
            death: None,
            threads: 7,
            cpu: Duration::from_millis(1230),
            details: Some(Box::new(Details {
                states,
                channel: Some("futex_do_wait".into()),
                call: Some(202),
                lead: None,
                dumping_core: false,
                awaits: None,
                stuck: Some(BlockedThread { thread: 12, channel: Some("nfs_wait".into()) }),
                switches: Some(ContextSwitches::default()),
                run_delay: Some(Duration::from_millis(30)),
                resident_bytes: Some(50 << 20),
                descriptors: Some(Descriptors { open: 12, limit: Some(1024) }),
                cgroup: Some(Cgroup {
                    path: "/system.slice/foo.service".into(),
                    frozen: Some(false),
                    frozen_at: None,
                    throttled: Some(Throttled { periods: 3, time: Duration::from_millis(120) }),
                    pressure,
                }),
                host: pressure,
            })),
        }
    }

    #[test]
    fn it_reads_as_a_line_that_somebody_can_act_on() {
        let now = look();
        let mut earlier = now.clone();
        earlier.at = MonoTime::from_secs(10);
        let details = earlier.details.as_mut().unwrap();
        details.run_delay = Some(Duration::ZERO);
        details.cgroup.as_mut().unwrap().throttled = Some(Throttled::default());
        assert_eq!(
            Dossier::new(now, Some(&earlier)).to_string(),
            "blocked: one of its threads waits in the kernel for what no signal interrupts, such as a disk or a network \
             file system; main thread sleeping in futex_do_wait (system call 202); 7 threads: 6 sleeping, 1 \
             uninterruptible (thread 12 in nfs_wait); 0 ms of CPU in 2.5 s, waited 30 ms for one; cgroup \
             /system.slice/foo.service, not frozen, held back by its CPU limit 3 times for 120 ms, under pressure: \
             memory 0.0 %; host under pressure: memory 0.0 %; 12 of 1024 descriptors; 50 MiB resident"
        );
    }

    #[test]
    fn a_glance_reads_as_less() {
        let glance = ProcessSnapshot { details: None, threads: 1, ..look() };
        assert_eq!(
            Dossier::new(glance, None).to_string(),
            "idle: it sleeps; main thread sleeping; 1 thread; 1.2 s of CPU since it started"
        );
    }

    #[test]
    fn it_names_the_thread_that_leads_the_child_that_is_awaited_and_the_cgroup_that_freezes() {
        let mut now = look();
        let details = now.details.as_mut().unwrap();
        details.lead = Some(12);
        assert!(
            Dossier::new(now.clone(), None)
                .to_string()
                .contains("; main thread ended; thread 12 sleeping in")
        );
        let details = now.details.as_mut().unwrap();
        details.lead = None;
        details.channel = Some("kernel_clone".into());
        details.call = None;
        details.awaits = Some(AwaitedChild { pid: 99, channel: Some("wait_for_partner".into()) });
        let cgroup = details.cgroup.as_mut().unwrap();
        (cgroup.frozen, cgroup.frozen_at) = (Some(true), Some("/system.slice".into()));
        let text = Dossier::new(now, None).to_string();
        assert!(text.contains(" in kernel_clone for its child 99 (which is in wait_for_partner);"), "{text}");
        assert!(text.contains("; cgroup /system.slice/foo.service, frozen by /system.slice,"), "{text}");
    }

    #[test]
    fn a_zombie_is_shown_by_its_death() {
        let death = Some(ExitStatus::Exited { code: 3 });
        let zombie = ProcessSnapshot { state: State::Ended, threads: 1, death, ..look() };
        assert!(Dossier::new(zombie, None).to_string().ends_with("; exited with status 3"));
    }

    #[test]
    fn hostile_text_neither_ends_the_line_nor_outgrows_its_bound() {
        let mut now = look();
        let details = now.details.as_mut().unwrap();
        let hostile = |most: usize| -> Box<str> { "\n\u{7f}".repeat(most / 2).into() };
        details.channel = Some(hostile(MAX_CHANNEL_LEN));
        details.stuck = Some(BlockedThread { thread: u32::MAX, channel: Some(hostile(MAX_CHANNEL_LEN)) });
        details.awaits = Some(AwaitedChild { pid: u32::MAX, channel: Some(hostile(MAX_CHANNEL_LEN)) });
        details.lead = Some(u32::MAX);
        let cgroup = details.cgroup.as_mut().unwrap();
        cgroup.path = hostile(MAX_PATH_LEN);
        (cgroup.frozen, cgroup.frozen_at) = (Some(true), Some(hostile(MAX_PATH_LEN)));
        details.descriptors = Some(Descriptors { open: u64::MAX, limit: Some(u64::MAX) });
        details.resident_bytes = Some(u64::MAX);
        now.command = hostile(MAX_COMMAND_LEN);
        now.threads = u32::MAX;
        now.cpu = Duration::MAX;
        let mut earlier = now.clone();
        earlier.at = MonoTime::START;
        earlier.cpu = Duration::ZERO;
        let text = Dossier::new(now, Some(&earlier)).to_string();
        assert!(text.len() <= Dossier::MAX_TEXT_LEN, "{}", text.len());
        assert!(text.bytes().all(|byte| (b' '..=b'~').contains(&byte)), "{text}");
    }

    #[test]
    fn what_it_keeps_elsewhere_is_within_its_bound() {
        let text = MAX_COMMAND_LEN + 3 * MAX_CHANNEL_LEN + 2 * MAX_PATH_LEN;
        assert!(size_of::<Details>() + text <= Dossier::MAX_HEAP, "{}", size_of::<Details>());
    }
}
