//! What a person sees when an expectation on a server fails.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::panic::{self, AssertUnwindSafe};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use varta_integration_tests::{LIMIT, Server, agent, line, metric};

/// Where something panics, and with which message.
#[track_caller]
fn failure<T>(fails: impl FnOnce() -> T) -> (String, String) {
    let place = Arc::new(Mutex::new(String::new()));
    let seen = Arc::clone(&place);
    let hook = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        *seen.lock().unwrap() = info.location().map(ToString::to_string).unwrap_or_default();
    }));
    let outcome = panic::catch_unwind(AssertUnwindSafe(fails));
    panic::set_hook(hook);
    let message = outcome.err().expect("it fails").downcast::<String>().expect("its message is formatted");
    (place.lock().unwrap().clone(), *message)
}

// One test, because there is one panic hook.
#[test]
fn a_failed_expectation_points_at_the_test_and_shows_what_was_seen() {
    let mut server = Server::start(["--stall-after", "1h"]);
    let worker = server.start_agent(&["--name", "billing"]);
    let pid = worker.pid();
    server.start_agent(&["--name", "mail"]).ask("goodbye");
    server.expect(agent("mail").gone());
    // The log is complete with this, so that what is not in it is not waited for.
    server.stop();

    let stalled = agent("billing").stalled().within(Duration::from_secs(1));
    let here = line!() + 1;
    let (place, message) = failure(|| server.expect(stalled));
    assert!(place.starts_with(&format!("{}:{here}:", file!())), "{place}");
    let mut lines = message.lines();
    let limit = LIMIT + Duration::from_secs(1);
    assert_eq!(lines.next().unwrap(), format!("not within {limit:?}: billing becomes stalled"));
    assert_eq!(lines.next(), Some("3 changes of verdict were seen, in this order:"));
    let events: Vec<_> = lines.map(|line| line.split_once("Z ").unwrap()).collect();
    let is_marked: Vec<_> = events.iter().map(|(mark, _)| mark.starts_with('>')).collect();
    assert_eq!(is_marked, [true, false, false], "{message}");
    let first = format!("billing[{pid}] by unix: none to up: first_beat; silent for 0 ms, ok, payload 0");
    assert_eq!(events[0].1, first);
    assert!(events[2].1.contains(" by unix: up to gone: goodbye; silent for "), "{message}");

    let (_, message) = failure(|| server.expect(line("no such line")));
    assert!(
        message.starts_with(&format!(
            "not within {LIMIT:?}: a line of the log that begins with \"no such line\"\n"
        )),
        "{message}"
    );
    assert!(message.contains("listening on unix:"), "{message}");

    let (_, message) = failure(|| server.expect_history(&worker, &["up: first_beat", "down: killed"]));
    assert!(
        message.contains(&format!("[{pid}] has the history [\"up: first_beat\", \"down: killed\"]")),
        "{message}"
    );
    assert!(message.contains("up to gone: goodbye"), "{message}");
}

#[test]
fn a_sample_that_is_expected_is_the_scrape_in_which_it_was_found() {
    let server = Server::start(["--stall-after", "1h"]);
    let worker = server.start_agent(&[]);
    let scrape = server.expect(metric("varta_beats_total").with("pid", worker.pid()).at_least(3.0));
    assert!(scrape.of_agent("varta_beats_total", worker.pid()) >= 3.0);
    let scrape = server.expect(metric("varta_agents").with("state", "up").is(1.0));
    assert_eq!(scrape.value("varta_agents", &[("state", "up")]), 1.0);
}
