//! Runs that begin while another is under way.

use super::*;

#[test]
fn a_run_that_begins_while_another_is_under_way_overlaps() {
    let mut office = Office::new(job("0 4 * * *"));
    for (pid, second) in [(PID, 10), (PID + 1, 11)] {
        office.world.spawn_in("backup", pid, 100 + u64::from(pid));
        office.pass(second);
        office.world.hear(Handle::connect(pid, at(second)).next(at(second), Status::Ok));
    }
    assert_eq!(office.told(), [STARTED, (UP, Cause::Overlapped)]);
    let mut named = Office::new(job("0 4 * * *"));
    named.say(ReportEvent::Started, 10);
    named.say(ReportEvent::Started, 20);
    assert_eq!(named.told(), [STARTED, (UP, Cause::Overlapped)]);
    named.say(ReportEvent::Ended, 30);
    named.say(ReportEvent::Started, 40);
    assert_eq!(named.told(), [ENDED, AGAIN]);
}

#[test]
fn an_overlap_is_an_alarm_until_the_later_run_ends_where_the_job_says_so() {
    const OVERLAP: [(Verdict, Cause); 2] = [(UP, Cause::Overlapped), (Verdict::Stalled, Cause::Overlapped)];
    let alarming = || Job { alarm_on_overlap: true, ..job("0 4 * * *") };
    let mut office = Office::new(alarming());
    let mut handles = Vec::new();
    for (pid, second) in [(PID, 10), (PID + 1, 11)] {
        office.world.spawn_in("backup", pid, 100 + u64::from(pid));
        office.pass(second);
        handles.push(Handle::connect(pid, at(second)));
        let first = handles.last_mut().unwrap().next(at(second), Status::Ok);
        office.world.hear(first);
    }
    for second in 12..30 {
        office.pass(second);
        for handle in &mut handles {
            office.world.hear(handle.next(at(second), Status::Ok));
        }
    }
    assert_eq!(office.told(), [&[STARTED], &OVERLAP[..]].concat(), "and no beat ends it");
    let active: Vec<_> = office.world.tracker.alarms(0..9, at(30)).map(|alarm| alarm.cause).collect();
    assert_eq!(active, [Cause::Overlapped]);
    let pid = PID + 1;
    let process =
        ProcessId { pid, start_time: NonZeroU64::new(100 + u64::from(pid)).unwrap(), tag: PidfdTag::UNKNOWN };
    let death = ExitStatus::Exited { code: 0 };
    office.world.tracker.handle_exit(process, death, Lineage::default(), at(30), at(30));
    assert_eq!(office.told(), [(Verdict::Gone, Cause::Exited { code: Some(0) })]);
    assert_eq!(office.world.tracker.alarms(0..9, at(30)).count(), 0);

    let mut named = Office::new(alarming());
    named.say(ReportEvent::Started, 10);
    named.say(ReportEvent::Started, 20);
    named.pass(21);
    assert_eq!(named.told(), [&[STARTED], &OVERLAP[..]].concat());
    // It is told again of each further one.
    named.say(ReportEvent::Started, 30);
    named.pass(31);
    assert_eq!(named.told(), OVERLAP);
    named.say(ReportEvent::Ended, 40);
    assert_eq!(named.told(), [ENDED]);
}
