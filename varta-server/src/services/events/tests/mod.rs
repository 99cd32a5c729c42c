//! Tests of the events file: lines, rotation, failures, and other servers.

use std::fs;
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

use serde_json::Value;
use tempfile::TempDir;
use tokio::runtime::Builder;
use varta_proto::Status;

use crate::base::clock::Clock;
use crate::base::files::append_log::{numbered, rotated};
use crate::base::time::MonoTime;
use crate::domain::tracker::Transition;
use crate::domain::tracker::tests::sample;
use crate::domain::tracker::{Cause, Verdict};
use crate::engine::Feed;
use crate::metrics::Registry;
use crate::services::context::Context;
use crate::services::events::event_record::add_line;
use crate::services::events::metrics::{EventsMetrics, SINK};
use crate::services::events::options::EventsOptions;
use crate::services::events::service::{Events, EventsFile};
use crate::services::events::writer::Writer;

fn change(pid: u32, to: Verdict, cause: Cause) -> Transition {
    sample::transition("billing").pid(pid).to(to, cause).silence(Duration::from_millis(5_001)).last(
        Status::Degraded,
        7,
        812,
    )
}

fn line_of(transition: &Transition) -> String {
    let mut lines = Vec::new();
    add_line(transition, UNIX_EPOCH + Duration::from_millis(1_700_000_000_123), "db1", &mut lines);
    String::from_utf8(lines).unwrap()
}

#[test]
fn a_change_is_one_line_and_what_there_is_not_is_left_out() {
    let killed = line_of(&change(4242, Verdict::Down, Cause::Killed { signal: 9 }));
    let expected = r#"{"at":"2023-11-14T22:13:20.123Z","agent":"billing","pid":4242,"host":"db1","transport":"unix","from":"up","#
        .to_owned()
        + r#""to":"down","status":"degraded","cause":"killed","signal":9,"silence_ms":5001,"stall_after_ms":5000,"#
        + r#""payload":7,"beats":812}"#
        + "\n";
    assert_eq!(killed, expected);
}

#[test]
fn a_change_tells_all_that_there_is() {
    let expected = concat!(
        r#"{"at":"2023-11-14T22:13:20.123Z","agent":"a\n\"b\\"#,
        "\u{7f}\u{2028}",
        r#"é","pid":7,"twin":2,"host":"10.0.0.7","transport":"secure_udp","from":"up","to":"gone","#,
        r#""status":"degraded","cause":"goodbye","reason":"restart","silence_ms":5001,"stall_after_ms":5000,"#,
        r#""latency_us":1234,"mistake_ms":2000,"payload":7,"beats":812,"labels":{"team":"a\n\"b\\"#,
        "\u{7f}\u{2028}",
        r#"é","zone":"b"},"unit":"billing.service","incident":1,"#,
        r#""oom_cgroup":"/batch","dossier":"idle: it sleeps; main thread sleeping; 1 thread; 1.2 s of CPU since it started"}"#,
        "\n"
    );
    assert_eq!(line_of(&sample::complete()), expected);
    let first =
        line_of(&Transition { from: None, ..change(7, Verdict::Down, Cause::Exited { code: Some(3) }) });
    assert!(first.contains("\"cause\":\"exited\",\"exit_code\":3,") && !first.contains("from"), "{first}");
    assert!(!line_of(&change(7, Verdict::Down, Cause::Exited { code: None })).contains("exit_code"));
    assert!(!line_of(&change(7, Verdict::Gone, Cause::Goodbye { reason: None })).contains("reason"));
}

/// A directory, the options of a file in it, and the metrics.
struct Place {
    directory: TempDir,
    options: EventsOptions,
    registry: Registry,
}

impl Place {
    fn new(keep: u32) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("events.json");
        let options = EventsOptions { path, limit: EventsOptions::SMALLEST_LIMIT, keep };
        Place { directory, options, registry: Registry::for_test() }
    }

    fn path(&self) -> &Path {
        &self.options.path
    }

    /// A writer without its thread, and the queue to it.
    fn writer(&self) -> (Feed, Writer) {
        let (feed, queue) = Feed::new(&self.registry, SINK);
        let file = EventsFile::open(self.options.clone()).unwrap();
        let metrics = EventsMetrics::new(&self.registry);
        (feed, Writer::new(file, Clock::start(), &"db1".into(), metrics, queue))
    }

    fn counted(&self, name: &str) -> u64 {
        counted(&self.registry.handle().render(), name)
    }
}

/// The value of the first row of this family.
fn counted(metrics: &str, name: &str) -> u64 {
    let row = metrics.lines().find(|line| line.starts_with(name)).unwrap();
    row.rsplit_once(' ').unwrap().1.parse().unwrap()
}

/// The pids in a file.
fn pids(path: &Path) -> Vec<u64> {
    let text = fs::read_to_string(path).unwrap();
    let pid = |line: &str| serde_json::from_str::<Value>(line).unwrap()["pid"].as_u64().unwrap();
    text.lines().map(pid).collect()
}

fn stalled(pid: u32) -> Transition {
    change(pid, Verdict::Stalled, Cause::Silent)
}

#[tokio::test]
async fn what_was_put_there_is_in_the_files_when_the_thread_ends() {
    let place = Place::new(0);
    let (mut context, _queries) = Context::for_test();
    let metrics = context.registry.handle();
    Events::open(Some(place.options.clone())).unwrap().start(&mut context).unwrap();
    let feeds = context.take_subscribers();
    for pid in 1..=200 {
        feeds[0].put(&stalled(pid), false);
    }
    drop(feeds);
    context.run_until(std::future::ready(())).await.unwrap();
    let older = rotated(place.path()).unwrap();
    let files = older.iter().rev().map(|(_, path)| path.as_path()).chain([place.path()]);
    let files: Vec<_> = files.map(|path| (fs::metadata(path).unwrap().len(), pids(path))).collect();
    assert!(files.iter().all(|(length, _)| *length <= EventsOptions::SMALLEST_LIMIT), "{files:?}");
    let all: Vec<u64> = files.into_iter().flat_map(|(_, pids)| pids).collect();
    assert_eq!(all, (1..=200).collect::<Vec<_>>());
    let metrics = metrics.render();
    let counts =
        ["varta_events_write_errors_total", "varta_sink_dropped_total"].map(|name| counted(&metrics, name));
    assert_eq!(counts, [0, 0]);
    let mode = std::os::unix::fs::PermissionsExt::mode(&fs::metadata(place.path()).unwrap().permissions());
    assert_eq!(mode & 0o137, 0, "nobody but its group may read it, and nobody else write to it");
}

#[test]
fn no_more_files_are_kept_than_are_asked_for() {
    let place = Place::new(2);
    let (_feed, mut writer) = place.writer();
    for pid in 1..=100 {
        writer.add(&stalled(pid));
        assert!(writer.write(MonoTime::START));
    }
    assert_eq!(pids(place.path()).last(), Some(&100));
    assert!(numbered(place.path(), 2).exists() && !numbered(place.path(), 3).exists());
}

#[test]
fn a_file_that_was_moved_away_is_followed_by_another_within_a_second() {
    let place = Place::new(0);
    let (_feed, mut writer) = place.writer();
    let moved = place.directory.path().join("moved");
    let now = MonoTime::from_secs(100);
    for (pid, at) in
        [(1, now), (2, now), (3, now + Duration::from_millis(999)), (4, now + Duration::from_secs(1))]
    {
        writer.add(&stalled(pid));
        assert!(writer.write(at));
        if pid == 1 {
            fs::rename(place.path(), &moved).unwrap();
        }
    }
    assert_eq!((pids(&moved), pids(place.path())), (vec![1, 2, 3], vec![4]));
}

#[test]
fn a_line_that_another_server_did_not_finish_is_ended() {
    let place = Place::new(0);
    fs::write(place.path(), "{\"at\":\"20").unwrap();
    let (_feed, mut writer) = place.writer();
    writer.add(&stalled(1));
    assert!(writer.write(MonoTime::START));
    let text = fs::read_to_string(place.path()).unwrap();
    assert!(text.starts_with("{\"at\":\"20\n{") && text.lines().count() == 2, "{text}");
}

#[test]
fn what_cannot_be_written_is_kept_and_tried_again() {
    let place = Place::new(1);
    let (_feed, mut writer) = place.writer();
    // The rotation is due, and fails.
    let obstacle = numbered(place.path(), 1);
    fs::create_dir(&obstacle).unwrap();
    fs::write(place.path(), vec![b'\n'; 4_096]).unwrap();
    let now = MonoTime::from_secs(100);
    writer.add(&stalled(1));
    assert!(!writer.write(now));
    assert!(!writer.write(now + Duration::from_millis(999)), "it is too early");
    assert_eq!(place.counted("varta_events_write_errors_total"), 1);
    assert!(!writer.write(now + Duration::from_secs(1)));
    assert!(!writer.write(now + Duration::from_millis(2_999)), "it waits longer each time");
    assert_eq!(place.counted("varta_events_write_errors_total"), 2);
    fs::remove_dir(&obstacle).unwrap();
    assert!(writer.write(now + Duration::from_secs(3)));
    assert_eq!(pids(place.path()), [1]);
}

#[test]
fn what_cannot_be_written_when_the_server_ends_is_counted() {
    let place = Place::new(1);
    fs::create_dir(numbered(place.path(), 1)).unwrap();
    fs::write(place.path(), vec![b'\n'; 4_096]).unwrap();
    let (feed, writer) = place.writer();
    for pid in 1..=100 {
        feed.put(&stalled(pid), false);
    }
    drop(feed);
    Builder::new_current_thread().enable_time().build().unwrap().block_on(writer.run());
    assert_eq!(place.counted("varta_sink_dropped_total"), 100);
}

#[test]
fn what_is_no_file_of_its_own_is_refused_by_name() {
    let place = Place::new(0);
    std::os::unix::fs::symlink("elsewhere", place.path()).unwrap();
    let refused = EventsFile::open(place.options.clone()).unwrap_err();
    assert_eq!(refused.exit_status(), 1);
    let said = refused.to_string();
    assert!(said.starts_with(place.path().to_str().unwrap()) && said.contains("symlink"), "{said}");
}

#[test]
fn two_servers_cannot_write_one_file_also_after_it_was_renamed() {
    let place = Place::new(1);
    let (_feed, mut writer) = place.writer();
    let refused = || EventsFile::open(place.options.clone()).unwrap_err().to_string();
    assert!(refused().contains("another server writes to this file; stop it"), "{}", refused());
    for pid in 1..=20 {
        writer.add(&stalled(pid));
        assert!(writer.write(MonoTime::START));
    }
    assert!(numbered(place.path(), 1).exists());
    refused();
    drop(writer);
    EventsFile::open(place.options.clone()).unwrap();
}

#[test]
fn a_file_that_another_server_has_taken_meanwhile_is_not_written_to() {
    let place = Place::new(0);
    let (_feed, mut writer) = place.writer();
    fs::rename(place.path(), place.directory.path().join("moved")).unwrap();
    let theirs = EventsFile::open(place.options.clone()).unwrap();
    let later = MonoTime::from_secs(100);
    writer.add(&stalled(1));
    assert!(!writer.write(later));
    assert_eq!(fs::metadata(place.path()).unwrap().len(), 0);
    drop(theirs);
    assert!(writer.write(later + Duration::from_secs(1)));
    assert_eq!(pids(place.path()), [1]);
}
