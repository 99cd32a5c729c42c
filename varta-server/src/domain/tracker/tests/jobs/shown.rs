//! How jobs are shown to a person.

use super::*;

#[test]
fn jobs_that_are_late_are_shown_first_and_then_those_that_are_due_next() {
    let mut policy = policy(job("0 4 * * *"));
    for (of, schedule) in [("soon", "0 2 * * *"), ("also-soon", "0 2 * * *"), ("never", "2020-01-01 00:00")] {
        policy.jobs.add(Job { name: name(of), ..job(schedule) }).unwrap();
    }
    let mut office = Office::with(policy);
    office.pass(10);
    let shown = |office: &Office| -> Vec<_> {
        office.world.tracker.job_statuses().iter().map(|job| job.name.to_string()).collect()
    };
    assert_eq!(shown(&office), ["also-soon", "soon", "backup", "never"]);
    office.say(ReportEvent::Started, 4 * HOUR);
    let jobs = office.world.tracker.job_statuses();
    assert_eq!(shown(&office), ["also-soon", "soon", "backup", "never"]);
    assert_eq!((jobs[0].late_since, jobs[0].next_due), (Some(wall(2 * HOUR)), Some(wall(DAY + 2 * HOUR))));
    assert_eq!((&jobs[2].running_since[..], jobs[2].late_since), (&[wall(4 * HOUR)][..], None));
    assert_eq!((jobs[3].next_due, jobs[3].last_end), (None, None));
}
