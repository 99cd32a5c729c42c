//! Jobs that processes declare.

use super::*;
use crate::domain::job::DeclaredJob;

fn declared(schedule: &str) -> DeclaredJob {
    let schedule = schedule.into();
    let grace = Some(Duration::from_secs(60));
    DeclaredJob { schedule, timezone: None, grace, longest_run: None, alarm_on_overlap: false }
}

pub(super) fn declaration(text: &str, schedule: &str) -> Report {
    Report { declared: Some(declared(schedule)), ..Report::new(name(text), ReportEvent::Declared) }
}

#[test]
fn a_job_is_declared_by_its_user_and_changed_by_no_other() {
    let mut office = Office::new(job("0 4 * * *"));
    let accepted = FrameOutcome::Accepted;
    assert_eq!(office.report(UID, declaration("own", "every 1h"), 10), accepted);
    assert_eq!(office.report(UID + 1, declaration("own", "every 9h"), 20), FrameOutcome::NameTaken);
    let started = Report::new(name("own"), ReportEvent::Started);
    assert_eq!(office.report(UID + 1, started, 20), FrameOutcome::NameTaken);
    // What the configuration says is not changed by anybody.
    assert_eq!(office.report(UID, declaration("backup", "every 1h"), 30), accepted);
    assert_eq!(office.due(), Some(wall(4 * HOUR)));
    office.pass(HOUR + 70);
    assert_eq!(office.told(), [LATE]);
    assert_eq!(office.report(UID, declaration("own", "every 2h"), HOUR + 80), accepted);
    assert_eq!(office.world.tracker.missing().count(), 0, "another schedule begins anew");
    for wrong in ["61 * * * *", "soon", "every", ""] {
        let outcome = office.report(UID, declaration("wrong", wrong), HOUR + 90);
        assert_eq!(outcome, FrameOutcome::ScheduleRefused, "{wrong}");
    }
    assert_eq!(office.world.tracker.jobs().count(), 2);
}

#[test]
fn a_declared_job_that_is_late_and_forgotten_is_no_more() {
    let mut office = Office::new(job("0 4 * * *"));
    office.report(UID, declaration("own", "every 1h"), 10);
    office.pass(HOUR + 70);
    let agent = office.world.tracker.poll_transition().unwrap().agent;
    assert!(office.world.tracker.handle_forget(&agent));
    assert_eq!(office.world.tracker.jobs().count(), 1);
}

#[test]
fn declared_jobs_are_bounded_for_each_user_and_in_all() {
    let mut office = Office::new(job("0 4 * * *"));
    let mut refused = [0; 6];
    for user in 0..6_u32 {
        for number in 0..300 {
            let report = declaration(&format!("n{user}-{number}"), "every 1h");
            refused[user as usize] +=
                u32::from(office.report(UID + user, report, 10) == FrameOutcome::SourceLimit);
        }
    }
    assert_eq!(refused, [44, 44, 44, 44, 300, 300]);
}
