//! Several tabs of one browser that show the page at `/`: they share a stream, and each shows every change.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use serde_json::json;
use varta_integration_tests::{Browser, Look, Options, Scratch, Server, Signal, agent};

/// More than the connections that a browser opens to one address.
const TABS: usize = 8;
const IS_LIVE: &str = "document.querySelector('#link').innerText === 'live'";

fn headline(text: &str) -> String {
    format!("document.querySelector('#headline').innerText === {}", json!(text))
}

#[test]
fn eight_tabs_share_one_stream_and_all_go_on_when_the_one_that_has_it_is_closed_or_hidden() {
    let server = Server::start(["--stall-after", "1s", "--replaced-within", "0s"]);
    let [first, second] = ["first", "second"].map(|name| server.start_agent(&["--name", name]));
    server.await_agents("up", 2);
    let Some(mut browser) = Browser::start() else { return };
    browser.open(server.address(), "/", Look::DESK);
    for _ in 1..TABS {
        browser.open_tab(server.address(), "/");
    }
    browser.await_in_all(TABS, 1, IS_LIVE);
    browser.await_in_all(TABS, 1, &headline("None of 2 agents is in alarm."));

    first.signal(Signal::Stop);
    browser.await_in_all(TABS, 1, &headline("1 of 2 agents is in alarm."));
    // The tab that was opened last has the stream.
    browser.close_tab();
    first.signal(Signal::Continue);
    browser.await_in_all(TABS - 1, 1, &headline("None of 2 agents is in alarm."));

    // All are hidden one after the other: whichever is left is a tab that nobody looks at.
    let hide = "Object.defineProperty(document, 'visibilityState', { value: 'hidden', configurable: true }) \
                     && document.dispatchEvent(new Event('visibilitychange'))";
    browser.await_in_all(TABS - 1, 1, hide);
    second.signal(Signal::Stop);
    browser.await_in_all(TABS - 1, 1, &headline("1 of 2 agents is in alarm."));
    second.signal(Signal::Continue);
    browser.assert_clean(&[server.address()]);
}

#[test]
fn tabs_that_share_a_stream_show_that_the_server_is_lost_and_go_on_with_the_next() {
    let scratch = Scratch::make();
    let options = |address: &str| Options::from(["--metrics-addr", address]).in_scratch(&scratch);
    let mut server = Server::start(options("127.0.0.1:0"));
    let address = server.address();
    let kept = server.start_agent(&["--name", "kept"]);
    server.expect(agent(&kept).up());
    let Some(mut browser) = Browser::start() else { return };
    browser.open(address, "/", Look::DESK);
    for _ in 1..3 {
        browser.open_tab(address, "/");
    }
    browser.await_in_all(3, 1, IS_LIVE);
    server.stop();
    browser.await_in_all(3, 0, "document.querySelector('#lost').innerText.includes('The server is lost.')");
    let server = Server::start(options(&address.to_string()));
    server.expect(agent(&kept).up());
    browser.await_in_all(3, 1, IS_LIVE);
    browser.await_in_all(3, 1, &headline("None of 1 agent is in alarm."));
    browser.assert_clean(&[address]);
}
