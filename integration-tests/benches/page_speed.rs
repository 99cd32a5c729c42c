//! How fast the page is, measured in the browser: nothing is asserted. `scripts/page-speed` runs it with a server that is optimised.

#![allow(clippy::unwrap_used, reason = "a measurement that cannot go on has failed")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use serde_json::Value;
use varta_integration_tests::{
    Browser, Look, Network, Options, RemoteAgent, Server, Signal, loopback_socket, wait_until,
};

const AGENTS: u32 = 100_000;
const FIRST_PID: u32 = 10_000;
const LOADS: usize = 9;
const STOPS: usize = 15;
/// The beats of all agents are spread over this time.
const ROUND: Duration = Duration::from_secs(20);
/// So many are sent together, and then there is a pause.
const TOGETHER: u32 = 100;

/// From the beginning of the navigation until the first picture that has the answer of the server in it.
const FIRST_PAINT: &str = "new Promise((done) => {
    const look = () => document.querySelector('#headline').dataset.mood === 'none' ? requestAnimationFrame(look)
        : requestAnimationFrame(() => setTimeout(() => done(performance.now())));
    look();
})";

/// Frame times while something goes on for four seconds: median, 99th percentile, longest.
fn frames(each: &str) -> String {
    format!(
        "new Promise((done) => {{
            const times = [], end = performance.now() + 4000;
            let last = performance.now(), step = 0;
            const frame = (now) => {{
                times.push(now - last);
                last = now;
                step += 1;
                {each}
                if (now < end) return requestAnimationFrame(frame);
                times.sort((one, other) => one - other);
                done([0.5, 0.99, 1].map((part) => times[Math.ceil(times.length * part) - 1]));
            }};
            requestAnimationFrame(frame);
        }})"
    )
}

const SCROLL: &str = "scrollBy(0, step % 50 === 0 ? (step % 100 ? 900000 : -700000) : 400);";
/// A letter more every ninth frame, and after twelve of them none again.
const SEARCH: &str = "if (step % 9 === 0) {
    const search = document.querySelector('#search');
    search.value = '1'.repeat((step / 9) % 5) + ' 2'.repeat((step / 45) % 3);
    search.dispatchEvent(new Event('input'));
}";

/// Notes when an agent is first drawn as stalled.
const WATCH: &str = "(() => {
    window.drawn = null;
    const look = () => {
        const row = [...document.querySelectorAll('#rows .row')].find((row) => row.querySelector('.name').innerText === 'probe');
        if (window.drawn || row?.querySelector('.cell.state').innerText.trim() !== 'stalled') return;
        const seen = Date.now();
        window.drawn = seen;
    };
    window.watcher?.disconnect();
    window.watcher = new MutationObserver(look);
    window.watcher.observe(document.querySelector('#rows'), { subtree: true, childList: true, characterData: true });
})()";

/// From the verdict, as the server has it, until then.
const SINCE_VERDICT: &str = "(async () => {
    const id = new URLSearchParams(document.querySelector('#rows .name').hash.slice(1)).get('agent');
    const answer = await fetch(`/api/v1/agents/${encodeURIComponent(id)}`);
    return window.drawn - Date.parse((await answer.json()).change.at);
})()";

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

#[expect(clippy::print_stdout, reason = "this is what it is for")]
fn row(what: &str, value: &str) {
    println!("| {what} | {value} |");
}

fn first_paint(browser: &mut Browser, server: &Server) -> f64 {
    let load = |browser: &mut Browser| {
        browser.open(server.address(), "/", Look::DESK);
        browser.js(FIRST_PAINT).as_f64().unwrap()
    };
    median((0..LOADS).map(|_| load(browser)).collect())
}

fn frame_times(browser: &mut Browser, each: &str) -> String {
    let times = browser.js(&frames(each));
    let of = |index: usize| times[index].as_f64().unwrap();
    format!("{:.0} ms, {:.0} ms, {:.0} ms", of(0), of(1), of(2))
}

fn main() {
    let Some(mut browser) = Browser::start() else { return };
    let empty = Server::start(Options::new());
    let of_empty = first_paint(&mut browser, &empty);
    drop(empty);

    let options =
        Options::new().udp("127.0.0.1:0").args(["--stall-after", "90s", "--max-agents-per-source", "0"]);
    let server = Server::start(options);
    let address = server.udp_address(0);
    let socket = Arc::new(loopback_socket());
    let pids = FIRST_PID..FIRST_PID + AGENTS;
    let mut agents: Vec<_> =
        pids.map(|pid| RemoteAgent::on(Arc::clone(&socket), Network::Plain, address, pid)).collect();
    let is_over = Arc::new(AtomicBool::new(false));
    let stop = Arc::clone(&is_over);
    let beats = thread::spawn(move || {
        while !stop.load(Ordering::Relaxed) {
            for some in agents.chunks_mut(TOGETHER as usize) {
                for agent in some {
                    agent.beat();
                }
                thread::sleep(ROUND * TOGETHER / AGENTS);
            }
        }
    });
    wait_until("all agents are known", || {
        let list: Value =
            serde_json::from_str(&server.get("/api/v1/agents?limit=1").body).unwrap_or_default();
        list["total"] == AGENTS
    });
    row("first paint, a server without agents", &format!("{of_empty:.0} ms"));
    row("first paint, 100,000 agents", &format!("{:.0} ms", first_paint(&mut browser, &server)));
    row("frames at rest: median, 99 %, longest", &frame_times(&mut browser, ""));
    row("frames while scrolling", &frame_times(&mut browser, SCROLL));
    browser.js("scrollTo(0, 0)");
    row("frames while searching", &frame_times(&mut browser, SEARCH));
    is_over.store(true, Ordering::Relaxed);
    beats.join().unwrap();
    drop(server);

    let server = Server::start(["--stall-after", "500ms"]);
    let probe = server.start_agent(&["--name", "probe", "--interval-ms", "50"]);
    browser.open(server.address(), "/", Look::DESK);
    browser.await_text("#link", "live");
    let delays = (0..STOPS).map(|_| {
        browser.js(WATCH);
        probe.signal(Signal::Stop);
        browser.await_js("window.drawn !== null");
        let delay = browser.js(SINCE_VERDICT);
        probe.signal(Signal::Continue);
        browser.await_text("#headline", "None of 1 agent is in alarm.");
        delay.as_f64().unwrap()
    });
    let mut delays: Vec<f64> = delays.collect();
    delays.sort_by(f64::total_cmp);
    let text = format!("{:.0} ms, {:.0} ms", delays[STOPS / 2], delays[STOPS - 1]);
    row("from the verdict until it is in the document: median, longest of 15", &text);
}
