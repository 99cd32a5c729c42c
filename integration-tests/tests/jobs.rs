//! `varta-server beat`: agents that are known by their names alone.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::fs;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::Duration;

use varta_integration_tests::foreign::skip;
use varta_integration_tests::sys::{self, NOBODY};
use varta_integration_tests::{
    Ended, ExecProcess, Options, Receiver, Scrape, Scratch, Server, Signal, agent, exec_command, line_with,
    metric, run_to_its_end, server_command, wait_until,
};

/// `varta-server beat` with these words.
fn beat(server: &Server, words: &[&str]) -> Ended {
    let mut command = server_command();
    command.arg("beat").arg("--socket").arg(server.socket()).args(words);
    run_to_its_end(command)
}

#[track_caller]
fn say(server: &Server, words: &[&str]) {
    let ended = beat(server, words);
    assert_eq!((ended.status.code(), &*ended.stdout, &*ended.stderr), (Some(0), "", ""));
}

#[test]
fn what_begins_ends_and_fails_is_up_gone_and_down_with_its_status() {
    let server = Server::start(["--stall-after", "1s"]);
    say(&server, &["backup", "--start"]);
    let first = server.expect(agent("backup").up().because("first_beat"));
    assert_eq!((first.pid, &*first.transport), (0, "unix"));
    say(&server, &["backup", "--ok"]);
    server.expect(agent("backup").gone().because("goodbye"));
    say(&server, &["backup", "--fail=3"]);
    server.expect(agent("backup").down().because("failed").exit_code(3));
    let labels = [("agent", "backup"), ("pid", ""), ("transport", "unix")];
    server.await_scrape("it is an alarm", |scrape| scrape.get("varta_agent_up", &labels) == Some(0.0));
    say(&server, &["backup", "--status", "0"]);
    let history = [
        "up: first_beat",
        "gone: goodbye",
        "up: recovered",
        "down: failed",
        "up: recovered",
        "gone: goodbye",
    ];
    server.expect_history("backup", &history);
}

#[test]
fn a_script_and_its_one_line_in_a_crontab_tell_how_it_went() {
    let server = Server::start(["--stall-after", "1s"]);
    let scratch = Scratch::make();
    let program = server_command();
    let directory = std::path::Path::new(program.get_program()).parent().unwrap().display().to_string();
    let script = scratch.path("backup.sh");
    fs::write(&script, "#!/bin/sh\nset -e\nvarta-server beat nightly --start\ntest \"$1\" = well\n").unwrap();
    let line = |how: &str| {
        // As cron runs it: by a shell, with next to nothing in its environment.
        let line = format!("sh {} {how}; varta-server beat nightly --status $?", script.display());
        let mut cron = Command::new("/bin/sh");
        cron.args(["-c", &line]).env_clear();
        cron.env("PATH", format!("{directory}:/usr/bin:/bin")).env("VARTA_SOCKET", server.socket());
        run_to_its_end(cron)
    };
    assert!(line("well").status.success());
    assert!(line("ill").status.success());
    let history = ["up: first_beat", "gone: goodbye", "up: recovered", "down: failed"];
    server.expect_history("nightly", &history);
}

#[test]
fn a_beat_has_to_be_followed_by_another_and_a_beginning_by_nothing_unless_a_time_is_given() {
    let server = Server::start(["--stall-after", "500ms"]);
    say(&server, &["quiet", "--start"]);
    say(&server, &["bounded", "--start", "--stall-after", "1s"]);
    say(&server, &["daily", "--stall-after", "1d"]);
    say(&server, &["often"]);
    server.expect(agent("often").stalled().because("silent").within(Duration::from_millis(500)));
    server.expect(agent("bounded").stalled().because("silent").within(Duration::from_secs(1)));
    for name in ["quiet", "daily"] {
        assert_eq!(server.history(name), ["up: first_beat"]);
    }
}

#[test]
fn without_a_server_it_says_so_and_ends_with_a_failure() {
    let scratch = Scratch::make();
    let mut command = server_command();
    command.args(["beat", "backup", "--socket"]).arg(scratch.path("none.sock"));
    let ended = run_to_its_end(command);
    assert_eq!(ended.status.code(), Some(1));
    assert!(ended.stderr.contains("none.sock: no server takes the report: "), "{}", ended.stderr);
}

#[test]
fn the_name_of_another_user_is_refused_counted_and_told() {
    if sys::user() != 0 {
        return skip("only root can report as another user");
    }
    let server = Server::start(Options::from(["--allow-uid", &NOBODY.to_string()]).open_to_all());
    say(&server, &["backup", "--start"]);
    server.expect(agent("backup").up());
    let mut other = server_command();
    other.args(["beat", "backup", "--fail", "--socket"]).arg(server.socket()).uid(NOBODY).gid(NOBODY);
    let ended = run_to_its_end(other);
    assert_eq!(ended.status.code(), Some(0), "{ended:?}");
    server.expect(line_with(&format!("what a process of uid {NOBODY} says of backup is refused")));
    server
        .expect(metric("varta_frames_total").with("outcome", "name_taken").with("transport", "unix").is(1.0));
    assert_eq!(server.history("backup"), ["up: first_beat"]);
}

#[test]
fn an_alert_fires_for_a_failure_and_ends_with_the_next_run() {
    let receiver = Receiver::start([]);
    let server = Server::start(Options::new().args(["--webhook".to_owned(), receiver.url("/hook")]));
    say(&server, &["backup", "--fail=75"]);
    let fired = receiver.await_requests(1)[0].json();
    assert_eq!((&fired["kind"], &fired["cause"]), (&"firing".into(), &"failed".into()), "{fired}");
    assert!(fired["summary"].as_str().unwrap().contains("failed with status 75"), "{fired}");
    assert_eq!(fired["agent"]["pid"], serde_json::Value::Null, "it has none: {fired}");
    say(&server, &["backup", "--ok"]);
    let ended = receiver.await_requests(2)[1].json();
    assert_eq!((&ended["kind"], &ended["agent"]["name"]), (&"resolved".into(), &"backup".into()), "{ended}");
}

#[test]
fn the_next_server_knows_what_has_begun_and_what_has_failed() {
    let scratch = Scratch::make();
    let options = || Options::from(["--stall-after", "2s"]).path("--state-dir", &scratch.path("state"));
    let mut server = Server::start(options());
    say(&server, &["begun", "--start"]);
    say(&server, &["failed", "--fail=3"]);
    server.expect(agent("failed").down());
    server.signal(Signal::Terminate);
    assert_eq!(server.wait().code(), Some(0));
    let server = Server::start(options());
    let row = |name| [("agent", name), ("transport", "unix")];
    server.await_scrape("both are known", |scrape| {
        scrape.get("varta_agent_up", &row("begun")) == Some(1.0)
            && scrape.get("varta_agent_up", &row("failed")) == Some(0.0)
    });
    say(&server, &["begun", "--ok"]);
    server.expect(agent("begun").gone().because("goodbye"));
}

/// A server with this job, in this directory.
fn with_job(scratch: &Scratch, job: &str) -> Options {
    let text = format!("[[job]]\nname = \"backup\"\n{job}\n");
    Options::from(["--stall-after", "1h"]).config(scratch, &text).path("--state-dir", &scratch.path("state"))
}

const LATE: [(&str, &str); 1] = [("agent", "backup")];

#[test]
fn a_job_that_does_not_run_is_late_and_the_next_server_knows_it() {
    let scratch = Scratch::make();
    let job = "every = \"1s\"\ngrace = \"1s\"";
    let mut server = Server::start(with_job(&scratch, job));
    let late =
        server.expect(agent("backup").becomes("expected").because("late").within(Duration::from_secs(2)));
    assert_eq!(late.pid, 0);
    server.await_scrape("it is shown", |scrape| {
        scrape.get("varta_job_late", &LATE) == Some(1.0)
            && scrape.get("varta_job_missed_total", &LATE) >= Some(1.0)
            && scrape.get("varta_agent_up", &[("agent", "backup"), ("pid", "")]) == Some(0.0)
    });
    server.kill();
    let server = Server::start(with_job(&scratch, "schedule = \"every 1s\"\ngrace = \"1s\""));
    server.await_scrape("it is late as before", |scrape| scrape.get("varta_job_late", &LATE) == Some(1.0));
    say(&server, &["backup", "--start"]);
    server.expect(agent("backup").up());
    server.await_scrape("it runs", |scrape| {
        scrape.get("varta_job_late", &LATE) == Some(0.0)
            && scrape.get("varta_job_running", &LATE) == Some(1.0)
    });
    say(&server, &["backup", "--ok"]);
    server.await_scrape("it has run", |scrape| {
        scrape.get("varta_job_runs_total", &[("agent", "backup"), ("outcome", "ok")]) == Some(1.0)
            && scrape.get("varta_job_last_success_timestamp_seconds", &LATE) > Some(1e9)
    });
}

#[test]
fn a_run_that_takes_too_long_is_stalled_until_it_ends_and_overlaps_are_counted() {
    let scratch = Scratch::make();
    let server = Server::start(with_job(&scratch, "schedule = \"yearly\"\nlongest-run = \"1s\""));
    say(&server, &["backup", "--start"]);
    server.expect(agent("backup").stalled().because("overran").within(Duration::from_secs(1)));
    say(&server, &["backup", "--start"]);
    server.expect(agent("backup").up());
    say(&server, &["backup", "--start"]);
    server.expect(agent("backup").up().from("up").because("overlapped"));
    say(&server, &["backup"]);
    server.expect(agent("backup").gone().because("goodbye"));
    server.await_scrape("both are counted", |scrape| {
        scrape.get("varta_job_overruns_total", &LATE) >= Some(1.0)
            && scrape.get("varta_job_overlaps_total", &LATE) >= Some(1.0)
    });
}

#[test]
fn an_overlap_is_an_alarm_where_the_job_says_so_until_the_later_run_ends() {
    let scratch = Scratch::make();
    let state = with_job(&scratch, "schedule = \"yearly\"\nalarm-on-overlap = true");
    let server = Server::start(state);
    say(&server, &["backup", "--start"]);
    say(&server, &["backup", "--start"]);
    server.expect(agent("backup").up().because("overlapped"));
    server.expect(agent("backup").stalled().from("up").because("overlapped"));
    // The next server knows of it, and what is said meanwhile does not end it.
    let _successor = server.upgrade();
    server.expect(metric("varta_agent_alarm").with("agent", "backup").is(1.0));
    say(&server, &["backup", "--ok"]);
    server.expect(agent("backup").gone().from("stalled"));
}

#[test]
fn the_status_of_a_server_shows_which_jobs_are_late_which_run_and_when_they_are_due() {
    let scratch = Scratch::make();
    let text = "[[job]]\nname = \"late\"\nevery = \"1s\"\ngrace = \"1s\"\n\
                [[job]]\nname = \"yearly\"\nschedule = \"*-01-01 00:00 UTC\"\n";
    let server = Server::start(Options::from(["--stall-after", "1h"]).config(&scratch, text));
    server.expect(agent("late").becomes("expected").because("late"));
    let status = |more: &[&str]| {
        let mut command = server_command();
        command.arg("status").args(more).arg("--socket").arg(server.socket());
        run_to_its_end(command)
    };
    wait_until("the alarm is listed", || status(&[]).stdout.contains("missing since"));
    let ended = status(&[]);
    let lines: Vec<_> = ended.stdout.lines().filter(|line| line.starts_with("job ")).collect();
    assert_eq!((ended.status.code(), lines.len()), (Some(1), 2), "{}", ended.stdout);
    assert!(
        lines[0].starts_with("job late: late since 20") && lines[0].contains(", next due 20"),
        "{lines:?}"
    );
    assert!(lines[1].starts_with("job yearly: next due 20"), "{lines:?}");
    assert!(lines[1].ends_with("-01-01T00:00:00.000Z, has not ended yet"), "{lines:?}");
    say(&server, &["late", "--start"]);
    wait_until("it runs", || status(&[]).stdout.contains("job late: running since 20"));
    say(&server, &["late", "--fail"]);
    wait_until("it has failed", || status(&[]).stdout.contains(", last ended with a failure 20"));
    let object: serde_json::Value = serde_json::from_str(&status(&["--json"]).stdout).unwrap();
    assert_eq!((&object["jobs_in_all"], &object["jobs"][0]["name"]), (&2.into(), &"late".into()), "{object}");
    assert!(
        object["jobs"][0]["last_end"].is_string() && object["jobs"][0]["last_success"].is_null(),
        "{object}"
    );
}

#[test]
fn what_exec_declares_is_awaited_when_exec_has_gone() {
    let scratch = Scratch::make();
    let server =
        Server::start(Options::from(["--stall-after", "1h"]).path("--state-dir", &scratch.path("state")));
    let run = |more: &[&str]| {
        let options = [&["--name=nightly", "--beat=alive"], more].concat();
        run_to_its_end(exec_command(server.socket(), &options, &["true"]))
    };
    assert!(run(&["--schedule=every 1s", "--grace=1s"]).status.success());
    server.expect(agent("nightly").gone());
    server.expect(agent("nightly").becomes("expected").because("late").within(Duration::from_secs(2)));
    assert!(run(&[]).status.success());
    let ran = [("agent", "nightly"), ("outcome", "ok")];
    server.await_scrape("two runs", |scrape| scrape.get("varta_job_runs_total", &ran) == Some(2.0));
    assert!(run(&["--schedule=61 * * * *"]).stderr.contains("minutes are 0 to 59"));
    assert_eq!(run(&["--grace=1s"]).status.code(), Some(2));
    assert_eq!(run(&["--alarm-on-overlap"]).status.code(), Some(2));
}

#[test]
fn an_overlap_of_commands_is_an_alarm_where_they_declare_it_so() {
    let server = Server::start(["--stall-after", "1h"]);
    let options = ["--name=nightly", "--beat=alive", "--schedule=yearly"];
    let start = |more: &[&str]| {
        ExecProcess::start(server.socket(), &[&options, more].concat(), "echo begun; exec sleep 1000")
    };
    let first = start(&[]);
    server.expect(agent(first.pid()).up());
    let second = start(&[]);
    server.expect(agent(second.pid()).up().because("overlapped"));
    let third = start(&["--alarm-on-overlap"]);
    server.expect(agent(third.pid()).stalled().because("overlapped"));
    server.expect(metric("varta_agent_alarm").with("pid", third.pid()).is(1.0));
    assert!(!server.history(second.pid()).iter().any(|change| change.starts_with("stalled")));
    third.signal(Signal::Terminate);
    server.expect(agent(third.pid()).gone().from("stalled"));
}

#[test]
fn a_job_that_is_late_at_a_hand_over_stays_so_is_told_once_and_ends_with_the_next_run() {
    let scratch = Scratch::make();
    let options = Options::from(["--stall-after", "1h"]);
    let server = Server::start(
        options.config(&scratch, "[[job]]\nname = \"backup\"\nevery = \"1s\"\ngrace = \"1s\"\n"),
    );
    // One that was declared passes on as well, without a state directory.
    let declare = ["--name=nightly", "--beat=alive", "--schedule=every 1s", "--grace=1s"];
    assert!(run_to_its_end(exec_command(server.socket(), &declare, &["true"])).status.success());
    let late = |name| agent(name).becomes("expected").because("late");
    server.expect(late("backup"));
    server.expect(late("nightly"));
    let missed = server.scrape().value("varta_job_missed_total", &LATE);
    let mut successors = Vec::new();
    for _ in 0..3 {
        successors.push(server.upgrade());
        server.expect(metric("varta_job_late").with("agent", "nightly").is(1.0));
        server.expect(metric("varta_job_late").with("agent", "backup").is(1.0));
    }
    // The schedule goes on, too.
    server.expect(metric("varta_job_missed_total").with("agent", "backup").at_least(missed + 1.0));
    say(&server, &["backup", "--start"]);
    server.expect(agent("backup").up());
    let is_late =
        |name| server.transitions().iter().filter(|it| it.agent == name && it.cause == "late").count();
    assert_eq!((is_late("backup"), is_late("nightly")), (1, 1));
}

#[test]
fn a_run_that_is_under_way_at_a_hand_over_ends_after_it_and_what_is_between_two_runs_is_not_late() {
    let scratch = Scratch::make();
    let text = "[[job]]\nname = \"backup\"\nschedule = \"yearly\"\n\
                [[job]]\nname = \"long\"\nschedule = \"yearly\"\nlongest-run = \"3s\"\n";
    let server = Server::start(Options::from(["--stall-after", "1h"]).config(&scratch, text));
    say(&server, &["backup", "--start"]);
    say(&server, &["backup", "--ok"]);
    server.expect(agent("backup").gone());
    let times = |scrape: &Scrape| {
        ["start", "end", "success"].map(|of| {
            let family = format!("varta_job_last_{of}_timestamp_seconds");
            scrape.value(&family, &LATE)
        })
    };
    let before = server.scrape();
    let first = server.upgrade();
    let after = server.scrape();
    assert_eq!(times(&before), times(&after));
    let due = |scrape: &Scrape| scrape.value("varta_job_next_due_timestamp_seconds", &LATE);
    assert_eq!(due(&before), due(&after));

    let long = [("agent", "long")];
    say(&server, &["backup", "--start"]);
    say(&server, &["long", "--start"]);
    server.expect(agent("long").up());
    let began = server.scrape().value("varta_job_last_start_timestamp_seconds", &long);
    let second = server.upgrade();
    server.expect(metric("varta_job_running").with("agent", "backup").is(1.0));
    server.expect(agent("long").stalled().because("overran"));
    for name in ["backup", "long"] {
        say(&server, &[name, "--ok"]);
        let runs = if name == "backup" { 2.0 } else { 1.0 };
        server.expect(metric("varta_job_runs_total").with("agent", name).with("outcome", "ok").is(runs));
    }
    let scrape = server.scrape();
    // It took as long as it did, and not only what came after the hand-over.
    let took = scrape.value("varta_job_last_duration_seconds", &long);
    let ended = scrape.value("varta_job_last_end_timestamp_seconds", &long);
    assert!(took >= 3.0 && (ended - began - took).abs() < 0.1, "{took}: from {began} to {ended}");
    assert_eq!(scrape.value("varta_job_overlaps_total", &LATE), 0.0);
    assert_eq!(scrape.value("varta_job_missed_total", &LATE), 0.0);
    drop((first, second));
}

#[test]
fn a_job_that_makes_no_sense_is_refused_with_its_line() {
    for (job, fault) in [
        ("schedule = \"61 4 * * *\"", "minutes are 0 to 59"),
        ("", "needs a schedule, or every"),
        ("schedule = \"daily\"\nevery = \"1d\"", "leave one of them out"),
        ("schedule = \"daily\"\ntimezone = \"Europe/Atlantis\"", "is no time zone"),
        ("every = \"1d\"\nalarm-on-overlap = false", "is true, or left out"),
        ("every = \"1d\"\nuid = -1", "is no id of a user"),
        ("every = \"1d\"\ngrace = \"1ms\"", "grace: "),
    ] {
        let scratch = Scratch::make();
        let path = scratch.path("varta.toml");
        fs::write(&path, format!("[[job]]\nname = \"backup\"\n{job}\n")).unwrap();
        let mut check = server_command();
        check.args(["config", "check"]).arg(&path);
        let ended = run_to_its_end(check);
        let said = ended.stdout + &ended.stderr;
        assert!(ended.status.code() == Some(2) && said.contains(fault), "{job}: {said}");
    }
}
