//! Jobs: runs that do not begin, take too long, fail or overlap.

mod declared;
mod overlaps;
mod shown;

use std::sync::Arc;

use varta_proto::control::{AgentName, ReportEvent};

use super::*;
use crate::base::time::WallTime;
use crate::base::time_zone::TimeZone;
use crate::domain::beat::{ControlMessage, Hello};
use crate::domain::job::{Job, Jobs};
use crate::domain::process::ProcessId;
use crate::domain::report::Report;
use crate::domain::schedule::Schedule;

const HOUR: u64 = 3_600;
const DAY: u64 = 24 * HOUR;
const UID: u32 = 1_000;

/// The wall clock at the start of the server: midnight of 2026-11-30, in UTC.
fn midnight() -> WallTime {
    WallTime::parse("2026-11-30T00:00:00Z").unwrap()
}

fn wall(seconds: u64) -> WallTime {
    midnight().after(Duration::from_secs(seconds))
}

fn name(text: &str) -> AgentName {
    AgentName::parse(text).unwrap()
}

/// A job with a grace of an hour.
fn job(schedule: &str) -> Job {
    let schedule = Schedule::parse(schedule, &TimeZone::utc(), |_| None).unwrap();
    let grace = Duration::from_secs(HOUR);
    Job { name: name("backup"), schedule, grace, longest_run: None, alarm_on_overlap: false, uid: None }
}

fn policy(job: Job) -> Policy {
    let mut jobs = Jobs::default();
    jobs.add(job).unwrap();
    Policy { stall_after: STALL_AFTER, max_beat_rate: 0, jobs, ..Policy::default() }
}

/// A world with a job, whose clocks are not set.
struct Office {
    world: World,
    /// How far the wall clock is ahead of what it would be had nobody set it.
    ahead: Duration,
    /// How far it is behind.
    behind: Duration,
    /// The time of the last turn.
    now: MonoTime,
}

impl Office {
    fn new(job: Job) -> Self {
        Office::with(policy(job))
    }

    fn with(policy: Policy) -> Self {
        let world = World::with(policy);
        let (ahead, behind, now) = (Duration::ZERO, Duration::ZERO, at(0));
        let mut office = Office { world, ahead, behind, now };
        office.turn(at(0));
        office
    }

    /// One turn of the engine.
    fn turn(&mut self, now: MonoTime) {
        let now = now.max(self.now);
        self.now = now;
        let wall = midnight().after(now.since(MonoTime::START) + self.ahead).before(self.behind);
        self.world.tracker.handle_wall_clock(wall, now);
        self.world.tracker.handle_timeout(now);
        self.world.refuse_looks(now);
    }

    /// Takes a turn whenever the tracker asks for one, up to `seconds`.
    fn pass(&mut self, seconds: u64) {
        for _ in 0..1_000_000 {
            match self.world.tracker.poll_timeout() {
                Some(due) if due <= at(seconds) => self.turn(due),
                _ => return self.turn(at(seconds)),
            }
        }
        panic!("it asks to be woken without end");
    }

    /// Says something of the job at this second.
    fn say(&mut self, event: ReportEvent, seconds: u64) -> FrameOutcome {
        self.report(UID, Report::new(name("backup"), event), seconds)
    }

    fn report(&mut self, uid: u32, report: Report, seconds: u64) -> FrameOutcome {
        self.pass(seconds);
        let control = ReceivedControl {
            received_at: at(seconds),
            sender: Sender::named(uid),
            said: ControlMessage::Report(report),
        };
        self.world.handle_control(&control)
    }

    fn run(&mut self, from: u64, to: u64) {
        self.say(ReportEvent::Started, from);
        self.say(ReportEvent::Ended, to);
    }

    fn told(&mut self) -> Vec<(Verdict, Cause)> {
        std::iter::from_fn(|| self.world.tracker.poll_transition())
            .map(|transition| (transition.to, transition.cause))
            .collect()
    }

    /// Whether the job is called late, and how often it was.
    fn missed(&self) -> (bool, u64) {
        let job = self.world.tracker.jobs().next().unwrap();
        (job.state.is_late, job.state.missed)
    }

    fn due(&self) -> Option<WallTime> {
        self.world.tracker.jobs().next().unwrap().state.due
    }
}

const LATE: (Verdict, Cause) = (Verdict::Expected, Cause::Late);
const STARTED: (Verdict, Cause) = (UP, Cause::FirstBeat);
const AGAIN: (Verdict, Cause) = (UP, Cause::Recovered);
const ENDED: (Verdict, Cause) = (Verdict::Gone, Cause::Goodbye { reason: None });

#[test]
fn a_run_that_does_not_begin_is_late_when_its_grace_is_over_once_and_until_one_begins() {
    let mut office = Office::new(job("0 4 * * *"));
    office.pass(5 * HOUR - 1);
    assert_eq!((office.told(), office.due()), (vec![], Some(wall(4 * HOUR))));
    office.pass(5 * HOUR);
    let late = office.world.tracker.poll_transition().unwrap();
    assert_eq!((late.to, late.cause, late.agent.pid), (Verdict::Expected, Cause::Late, 0));
    assert_eq!((late.silence, late.stall_after), (Duration::from_secs(HOUR), Duration::from_secs(HOUR)));
    let missing: Vec<_> = office.world.tracker.missing().cloned().collect();
    assert_eq!(missing, [Arc::from("backup")]);
    assert_eq!(office.world.tracker.population()[Verdict::EXPECTED], 1);
    office.pass(2 * DAY);
    assert_eq!(
        (office.told(), office.missed()),
        (vec![], (true, 2)),
        "each due time counts, and one is told"
    );
    office.say(ReportEvent::Started, 2 * DAY);
    assert_eq!((office.told(), office.missed()), (vec![STARTED], (false, 2)));
    assert_eq!(office.world.tracker.missing().count(), 0);
}

#[test]
fn who_runs_as_it_is_due_is_never_late() {
    let mut office = Office::new(job("30 4 * * *"));
    for day in 0..20 {
        office.run(day * DAY + 4 * HOUR + 1_800, day * DAY + 6 * HOUR);
    }
    assert!(!office.told().contains(&LATE));
    let job = office.world.tracker.jobs().next().unwrap();
    assert_eq!((job.state.succeeded, job.state.missed, job.state.overlaps), (20, 0, 0));
    assert_eq!(job.state.last_duration, Some(Duration::from_secs(5_400)));
}

#[test]
fn an_interval_is_from_the_start_of_a_run_to_that_of_the_next() {
    let mut office = Office::new(job("every 1d"));
    office.run(10 * HOUR, 11 * HOUR);
    office.pass(10 * HOUR + DAY + HOUR - 1);
    assert_eq!(office.missed(), (false, 0));
    office.pass(10 * HOUR + DAY + HOUR);
    assert_eq!(office.missed(), (true, 1));
}

#[test]
fn a_run_that_is_going_on_when_the_next_is_due_is_not_late() {
    let mut office = Office::new(job("0 * * * *"));
    office.run(HOUR / 2, 5 * HOUR + 60);
    office.pass(6 * HOUR);
    assert!(!office.told().contains(&LATE), "it ended after the run of five was due");
    office.pass(7 * HOUR + 60);
    assert_eq!(office.told(), [LATE], "that of six");
}

#[test]
fn a_failure_is_told_by_the_agent_and_not_a_second_time() {
    let mut office = Office::new(job("0 4 * * *"));
    office.say(ReportEvent::Started, 4 * HOUR);
    office.say(ReportEvent::Failed { status: Some(3) }, 4 * HOUR + 60);
    let failed = (Verdict::Down, Cause::Failed { status: Some(3) });
    office.pass(20 * HOUR);
    assert_eq!(office.told(), [STARTED, failed]);
    office.say(ReportEvent::Failed { status: Some(3) }, DAY + 4 * HOUR);
    office.pass(DAY + 10 * HOUR);
    assert_eq!(office.told(), [failed], "it has run, and not well");
    let job = office.world.tracker.jobs().next().unwrap();
    assert_eq!((job.state.succeeded, job.state.failed, job.state.missed), (0, 2, 0));
}

#[test]
fn a_plain_word_on_a_job_is_a_run_that_has_ended_well() {
    let mut office = Office::new(job("0 4 * * *"));
    office.say(ReportEvent::Beat, 4 * HOUR + 60);
    assert_eq!(office.told(), [STARTED, ENDED]);
    assert_eq!(office.due(), Some(wall(DAY + 4 * HOUR)));
    office.say(ReportEvent::Beat, DAY + 4 * HOUR + 60);
    assert_eq!(office.world.tracker.jobs().next().unwrap().state.succeeded, 2);
}

#[test]
fn a_run_that_takes_longer_than_it_may_is_stalled_until_it_ends_whatever_is_said_meanwhile() {
    let longest = Some(Duration::from_secs(2 * HOUR));
    let mut office = Office::new(Job { longest_run: longest, ..job("0 4 * * *") });
    office.say(ReportEvent::Started, 4 * HOUR);
    office.pass(6 * HOUR - 1);
    assert_eq!(office.told(), [STARTED]);
    office.pass(6 * HOUR);
    let overran = office.world.tracker.poll_transition().unwrap();
    assert_eq!((overran.to, overran.cause), (Verdict::Stalled, Cause::Overran));
    assert_eq!(overran.silence, Duration::from_secs(2 * HOUR));
    let report = Report {
        stall_after: Some(Duration::from_secs(9)),
        ..Report::new(name("backup"), ReportEvent::Beat)
    };
    office.report(UID, report, 6 * HOUR + 1);
    office.pass(DAY + 3 * HOUR);
    assert_eq!(office.told(), []);
    office.say(ReportEvent::Ended, DAY + 3 * HOUR);
    assert_eq!(office.told(), [ENDED]);
    assert_eq!(office.world.tracker.jobs().next().unwrap().state.overruns, 1);
}

#[test]
fn beats_of_a_process_whose_run_takes_too_long_do_not_end_that_and_its_end_does() {
    let longest = Some(Duration::from_secs(60));
    let mut office = Office::new(Job { longest_run: longest, ..job("0 4 * * *") });
    let mut handle = Handle::connect(PID, at(10));
    office.world.spawn_in("backup", PID, 100);
    for second in 10..200 {
        office.pass(second);
        office.world.hear(handle.next(at(second), Status::Ok));
    }
    assert_eq!(office.told(), [STARTED, (Verdict::Stalled, Cause::Overran)]);
    let process = ProcessId { pid: PID, start_time: NonZeroU64::new(100).unwrap(), tag: PidfdTag::UNKNOWN };
    let death = ExitStatus::Exited { code: 0 };
    office.world.tracker.handle_exit(process, death, Lineage::default(), at(200), at(200));
    assert_eq!(office.told(), [(Verdict::Gone, Cause::Exited { code: Some(0) })]);
    let job = office.world.tracker.jobs().next().unwrap();
    assert_eq!((job.state.succeeded, job.state.last_duration), (1, Some(Duration::from_secs(190))));
}

#[test]
fn who_says_its_name_after_its_first_beat_has_begun_a_run() {
    let mut office = Office::new(job("0 4 * * *"));
    office.pass(5 * HOUR);
    assert_eq!(office.told(), [LATE]);
    office.world.hear(Handle::connect(PID, at(5 * HOUR)).next(at(5 * HOUR), Status::Ok));
    let hello = Hello { name: Some(name("backup")), ..Hello::default() };
    let said = ControlMessage::Hello(hello);
    office.world.handle_control(&ReceivedControl {
        received_at: at(5 * HOUR),
        sender: Sender::local(PID),
        said,
    });
    assert_eq!(office.missed(), (false, 1));
}

#[test]
fn what_another_user_does_is_no_run_of_a_job_that_names_its_user() {
    let mut office = Office::new(Job { uid: Some(UID), ..job("0 4 * * *") });
    let report = |event| Report::new(name("backup"), event);
    assert_eq!(office.report(UID + 1, report(ReportEvent::Ended), 4 * HOUR), FrameOutcome::NameTaken);
    let of = |uid, second| {
        let hello = Hello { name: Some(name("backup")), uid: Some(uid), ..Hello::default() };
        let said = ControlMessage::Hello(hello);
        ReceivedControl { received_at: at(second), sender: Sender::local(PID + uid - UID), said }
    };
    for (uid, second, late) in [(UID + 1, 5 * HOUR, true), (UID, 6 * HOUR, false)] {
        office.pass(second);
        let pid = PID + uid - UID;
        office.world.spawn(pid, "worker", u64::from(uid));
        office.world.handle_control(&of(uid, second));
        office.world.hear(Handle::connect(pid, at(second)).next(at(second), Status::Ok));
        assert_eq!(office.missed().0, late, "{uid}");
    }
}

#[test]
fn time_in_which_nobody_could_see_a_run_begin_does_not_count() {
    let mut office = Office::new(job("0 4 * * *"));
    office.pass(4 * HOUR + 1_000);
    office.world.tracker.handle_observer_gap(at(4 * HOUR + 1_000), at(4 * HOUR + 3_000));
    office.pass(5 * HOUR + 1_999);
    assert_eq!(office.told(), []);
    office.pass(5 * HOUR + 2_000);
    assert_eq!(office.told(), [LATE]);
}

#[test]
fn a_clock_that_is_set_ahead_makes_nobody_late_and_one_that_is_set_back_makes_no_run_due_twice() {
    let mut ahead = Office::new(job("0 4 * * *"));
    ahead.pass(HOUR);
    ahead.ahead = Duration::from_secs(9 * HOUR);
    ahead.pass(HOUR + 3_599);
    assert_eq!(ahead.told(), [], "it was due in the time that was left out, and has its grace");
    ahead.pass(2 * HOUR + 60);
    assert_eq!(ahead.told(), [LATE]);

    let mut back = Office::new(job("0 4 * * *"));
    back.run(4 * HOUR, 4 * HOUR + 10);
    back.behind = Duration::from_secs(2 * HOUR);
    back.pass(DAY + 6 * HOUR - 60);
    assert!(!back.told().contains(&LATE));
    assert_eq!(back.due(), Some(wall(DAY + 4 * HOUR)));
    back.pass(DAY + 7 * HOUR + 60);
    assert_eq!(back.told(), [LATE]);

    let mut wrong = Office::new(job("0 4 * * *"));
    wrong.ahead = Duration::from_secs(4_000 * DAY);
    wrong.run(4 * HOUR, 4 * HOUR + 10);
    wrong.ahead = Duration::ZERO;
    wrong.pass(5 * HOUR);
    wrong.told();
    wrong.pass(DAY + 5 * HOUR + 60);
    assert_eq!(wrong.told(), [LATE], "a due time ten years ahead is not waited for");
}

#[test]
fn the_durations_of_the_last_runs_are_learned() {
    let mut office = Office::new(job("every 1h"));
    for run in 0..50 {
        office.run(run * HOUR, run * HOUR + if run < 18 { 1_000 } else { run });
    }
    let job = office.world.tracker.jobs().next().unwrap();
    let seconds = |percent| job.state.duration_at(percent).unwrap().as_secs();
    assert_eq!((seconds(50), seconds(95), seconds(100)), (33, 48, 49), "of the last 32: 18 to 49 seconds");
}

#[test]
fn a_user_has_a_late_job_forgotten_until_its_next_run() {
    let mut office = Office::new(job("0 4 * * *"));
    office.pass(5 * HOUR);
    let agent = office.world.tracker.poll_transition().unwrap().agent;
    assert!(office.world.tracker.handle_forget(&agent));
    assert_eq!((office.missed().0, office.due()), (false, None));
    office.pass(3 * DAY);
    assert_eq!(office.told(), []);
    office.run(3 * DAY, 3 * DAY + 1);
    assert_eq!(office.due(), Some(wall(3 * DAY + 4 * HOUR)));
}

#[test]
fn another_tracker_and_the_next_server_go_on_with_what_is_awaited() {
    let longest_run = Some(Duration::from_secs(10 * HOUR));
    let configured = || policy(Job { longest_run, ..job("0 4 * * *") });
    let mut office = Office::new(Job { longest_run, ..job("0 4 * * *") });
    office.report(UID, declared::declaration("own", "0 4 * * *"), 10);
    office.say(ReportEvent::Started, 3 * HOUR);
    office.told();

    let bytes = postcard::to_allocvec(&office.world.tracker.state()).unwrap();
    let state = postcard::from_bytes(&bytes).unwrap();
    office.world.tracker = Tracker::resume(configured(), state, at(3 * HOUR + 1)).unwrap();
    office.pass(4 * HOUR + 60);
    assert_eq!(office.told(), [LATE], "that which was declared; the other is under way");

    // The server is away from five to half past six.
    office.pass(5 * HOUR);
    let jobs = serde_json::to_string(&office.world.tracker.job_snapshots()).unwrap();
    let agents: Vec<_> = office.world.tracker.snapshot(0..usize::MAX).collect();
    let mut next = Office::new(Job { longest_run, ..job("0 4 * * *") });
    next.ahead = Duration::from_secs(6 * HOUR + 1_800);
    next.world.tracker = Tracker::new(configured());
    for agent in &agents {
        next.world.tracker.restore(agent, Fate::Lives, at(0));
    }
    let unseen = Some((wall(5 * HOUR), wall(6 * HOUR + 1_800)));
    next.world.tracker.restore_jobs(serde_json::from_str(&jobs).unwrap(), unseen);
    next.pass(60);
    assert_eq!(next.told(), []);
    let missing: Vec<_> = next.world.tracker.missing().cloned().collect();
    assert_eq!(missing, [Arc::from("own")], "it is late as before, and not told again");
    next.pass(6 * HOUR + 1_800 + 1);
    assert_eq!(next.told(), [(Verdict::Stalled, Cause::Overran)], "ten hours from three o'clock on");
    assert_eq!(next.say(ReportEvent::Ended, 7 * HOUR), FrameOutcome::Accepted);
    assert_eq!(next.told(), [ENDED]);
}

#[test]
fn a_due_time_that_passed_without_a_server_has_its_grace_from_the_start_on() {
    let mut office = Office::new(job("0 4 * * *"));
    office.run(4 * HOUR - DAY.min(4 * HOUR), 60);
    office.pass(3 * HOUR);
    let jobs = office.world.tracker.job_snapshots();
    let mut next = Office::new(job("0 4 * * *"));
    next.ahead = Duration::from_secs(8 * HOUR);
    next.world.tracker = Tracker::new(policy(job("0 4 * * *")));
    next.world.tracker.restore_jobs(jobs, Some((wall(3 * HOUR), wall(8 * HOUR))));
    next.pass(HOUR - 1);
    assert_eq!(next.told(), []);
    next.pass(HOUR + 60);
    assert_eq!(next.told(), [LATE]);
}

#[test]
fn a_reload_keeps_what_is_known_of_a_job_and_awaits_another_schedule_anew() {
    let mut office = Office::new(job("0 4 * * *"));
    office.pass(5 * HOUR);
    assert_eq!(office.told(), [LATE]);
    let longer = Job { grace: Duration::from_secs(60), ..job("0 4 * * *") };
    office.world.tracker.handle_policy(policy(longer), at(5 * HOUR));
    assert_eq!(office.missed(), (true, 1));
    office.world.tracker.handle_policy(policy(job("0 7 * * *")), at(5 * HOUR));
    office.turn(at(5 * HOUR + 1));
    assert_eq!((office.missed(), office.due()), ((false, 1), Some(wall(7 * HOUR))));
    office.world.tracker.handle_policy(Policy::default(), at(5 * HOUR + 2));
    assert!(!office.world.tracker.has_jobs());
}

#[test]
fn without_jobs_the_clock_is_not_looked_at() {
    let world = World::new();
    assert!(!world.tracker.has_jobs());
    assert_eq!(world.tracker.poll_timeout(), None);
}
