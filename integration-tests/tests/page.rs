//! The page at `/`, in a real browser: what it shows without a reload, how it is used, and what it never does.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

use std::net::SocketAddr;

use serde_json::{Value, json};
use varta_integration_tests::{
    AgentProcess, Browser, Look, Options, Receiver, Scratch, Server, Signal, agent, http, write_secret,
};

const READING: &str = "the-token-that-reads";
/// Of the password `secret`, by crypt(3) of libxcrypt.
const SECRET_HASH: &str = "$2y$04$abcdefghijklmnopqrstuu2r9OfJnfCsdneAXAGHnS4UpFFP8WIrW";
const ACTING: &str = "the-token-that-acts-0";

/// A server whose agents are missed soon, and whose deaths count at once.
fn server() -> Server {
    Server::start(["--stall-after", "1s", "--replaced-within", "0s"])
}

/// A browser that shows the page of this server, whose list has been read.
fn browser_at(server: &Server, path: &str, look: Look) -> Option<Browser> {
    let mut browser = Browser::start()?;
    browser.open(server.address(), path, look);
    browser.await_text("#link", "live");
    Some(browser)
}

/// The row of an agent in the list: the state that it shows.
fn row(name: &str) -> String {
    format!(
        "[...document.querySelectorAll('#rows .row')].find((row) => row.querySelector('.name').innerText === {})\
         ?.querySelector('.cell.state').innerText.trim()",
        json!(name)
    )
}

#[track_caller]
fn await_row(browser: &mut Browser, name: &str, state: &str) {
    browser.await_js(&format!("{} === {}", row(name), json!(state)));
}

#[test]
fn an_agent_that_is_stopped_goes_on_or_is_killed_is_shown_without_a_reload() {
    let server = server();
    let mut agents = ["first", "second"].map(|name| server.start_agent(&["--name", name]));
    let Some(mut browser) = browser_at(&server, "/", Look::DESK) else { return };
    browser.await_text("#headline", "None of 2 agents is in alarm.");
    browser.js("window.isTheSame = true");
    let [first, second] = &mut agents;

    first.signal(Signal::Stop);
    await_row(&mut browser, "first", "stalled");
    browser.await_text("#alarms li", "first");
    // On a busy machine a look at its process may come too late for the verdict.
    browser.await_js(
        "['stopped by a signal', 'stalled · silent'].some((cause) => \
         document.querySelector('#alarms li').innerText.includes(cause))",
    );
    browser.await_text("#headline", "1 of 2 agents is in alarm.");
    browser.await_js("document.title.startsWith('(1) ')");

    first.signal(Signal::Continue);
    await_row(&mut browser, "first", "up");
    browser.await_text("#headline", "None of 2 agents is in alarm.");

    second.signal(Signal::Kill);
    second.wait();
    await_row(&mut browser, "second", "down");
    browser.await_text("#alarms li", "killed by a signal");
    // The worst comes first.
    browser
        .await_js("document.querySelector('#rows .row[aria-rowindex=\"2\"] .name').innerText === 'second'");
    assert_eq!(browser.js("window.isTheSame"), true);
    browser.assert_clean(&[server.address()]);
}

#[test]
fn an_agent_is_paused_from_the_page_by_who_has_the_token_that_acts_and_it_stays_in_the_tab() {
    let scratch = Scratch::make();
    let token = write_secret(scratch.directory(), "acting", ACTING);
    let server = Server::start(Options::new().path("--api-token-file", &token));
    let _agent = server.start_agent(&["--name", "billing"]);
    let Some(mut browser) = browser_at(&server, "/", Look::DESK) else { return };
    await_row(&mut browser, "billing", "up");
    browser.press(&["g", "Enter"]);
    browser.await_text("dialog .title", "billing");
    browser.await_text("dialog .facts", "unix");

    browser.press(&["p"]);
    browser.await_text("dialog .title", "Pause");
    browser.type_text("10m");
    browser.press(&["Tab"]);
    browser.type_text("<b>moving house</b>");
    browser.press(&["Enter"]);
    browser.await_text("dialog .title", "A token is needed to act");
    browser.type_text("a-token-that-is-wrong");
    browser.press(&["Enter"]);
    browser.await_text("dialog .refused", "did not accept");
    browser.type_text(ACTING);
    browser.press(&["Enter"]);
    browser.await_text("dialog .done", "1 agent paused until");
    browser.press(&["Enter"]);
    browser.await_text("dialog .pauses", "<b>moving house</b>");
    let pauses: Value = serde_json::from_str(&server.get("/api/v1/pauses").body).unwrap();
    assert_eq!(pauses["pauses"][0]["pattern"], "billing");
    assert_eq!(pauses["pauses"][0]["reason"], "<b>moving house</b>");

    let kept = browser.js("[Object.values(sessionStorage), Object.values(localStorage), document.cookie]");
    assert_eq!(kept, json!([[format!("Bearer {ACTING}")], [], ""]));
    browser.click("dialog .pauses button");
    browser.await_js("!document.querySelector('dialog .pauses')");
    browser.press(&["Escape"]);
    browser.await_js("!document.querySelector('dialog')");
    browser.assert_clean(&[server.address()]);
}

#[test]
fn the_page_says_that_the_server_is_lost_and_goes_on_with_the_next_one_and_what_changed_meanwhile() {
    let scratch = Scratch::make();
    let options = |address: &str| {
        Options::new().in_scratch(&scratch).args([
            "--stall-after",
            "1s",
            "--replaced-within",
            "0s",
            "--metrics-addr",
            address,
        ])
    };
    let mut server = Server::start(options("127.0.0.1:0"));
    let address = server.address();
    let mut agents = ["kept", "lost"].map(|name| server.start_agent(&["--name", name]));
    let Some(mut browser) = browser_at(&server, "/", Look::DESK) else { return };
    await_row(&mut browser, "lost", "up");

    server.stop();
    browser.await_text("#lost", "The server is lost.");
    browser.await_text("#lost", "What is shown is");
    assert_eq!(browser.js("document.querySelector('#lost').role"), "alert");
    let [kept, lost] = &mut agents;
    lost.signal(Signal::Kill);
    lost.wait();

    let server = Server::start(options(&address.to_string()));
    server.expect(agent(&*kept).up());
    browser.await_js("document.querySelector('#lost').hidden");
    await_row(&mut browser, "kept", "up");
    await_row(&mut browser, "lost", "down");
    browser.assert_clean(&[address]);
}

#[test]
fn the_keyboard_alone_finds_an_agent_opens_it_and_comes_back() {
    let server = server();
    let _agents = ["billing-1", "billing-2", "mailer"].map(|name| server.start_agent(&["--name", name]));
    let Some(mut browser) = browser_at(&server, "/", Look::DESK) else { return };
    await_row(&mut browser, "mailer", "up");
    browser.press(&["/"]);
    browser.type_text("billing");
    browser.await_text("#matched", "2 matches");
    browser.press(&["Escape"]);
    browser.await_js("document.querySelector('#matched').innerText === ''");
    browser.press(&["/"]);
    browser.type_text("name:billing-*");
    browser.await_text("#matched", "2 matches");
    browser.await_js("location.hash === '#search=name%3Abilling-*'");
    // From the search over the order to the list, as everybody goes who does not know the keys.
    browser.press(&["Tab", "Tab", "ArrowDown"]);
    let active = "document.getElementById(document.activeElement.getAttribute('aria-activedescendant'))?.querySelector('.name').innerText";
    browser.await_js(&format!("{active} === 'billing-2'"));
    browser.press(&["Enter"]);
    browser.await_text("dialog .title", "billing-2");
    browser.await_text("dialog .timeline", "first beat");
    browser.press(&["Escape"]);
    browser.await_js("!document.querySelector('dialog') && document.activeElement.id === 'grid'");
    browser.press(&["?"]);
    browser.await_text("dialog .title", "Keys");
    browser.press(&["Escape"]);
    browser.await_js("!document.querySelector('dialog')");
    browser.press(&["s"]);
    browser.await_text("dialog .facts", "Version");
    browser.press(&["Escape"]);
    browser.await_js("!document.querySelector('dialog')");
    // The list as it was is one step back.
    browser.js("history.back()");
    browser.await_text("dialog .title", "server");
    browser.assert_clean(&[server.address()]);
}

#[test]
fn who_reads_with_a_token_or_a_password_is_asked_for_it_and_asked_again_when_it_is_wrong() {
    let scratch = Scratch::make();
    let token = write_secret(scratch.directory(), "reading", READING);
    let users = write_secret(scratch.directory(), "users", &format!("name:{SECRET_HASH}"));
    let options =
        Options::new().path("--metrics-token-file", &token).path("--metrics-basic-auth-file", &users);
    let server = Server::start(options);
    let Some(mut browser) = Browser::start() else { return };
    browser.open(server.address(), "/", Look::DESK);
    browser.await_text("dialog .title", "This server wants to know who reads");
    browser.type_text("not the token");
    browser.press(&["Enter"]);
    browser.await_text("dialog .refused", "did not accept that");
    browser.type_text(READING);
    browser.press(&["Enter"]);
    browser.await_text("#headline", "No agents yet.");
    browser.await_text("#link", "live");

    browser.open(server.address(), "/", Look::DESK);
    browser.await_text("dialog .title", "This server wants to know who reads");
    browser.type_text("secret");
    browser.press(&["Tab"]);
    browser.type_text("name");
    browser.press(&["Enter"]);
    browser.await_text("#headline", "No agents yet.");
    browser.await_text("#link", "live");
    browser.assert_clean(&[server.address()]);
}

#[test]
fn a_filter_that_the_server_refuses_is_told_with_its_reason() {
    let server = server();
    let _agent = server.start_agent(&["--name", "one"]);
    let Some(mut browser) = browser_at(&server, "/", Look::DESK) else { return };
    await_row(&mut browser, "one", "up");
    browser.press(&["/"]);
    browser.type_text("label:nothing");
    browser.await_text("#refused", "label");
    browser.press(&["Escape"]);
    browser.await_js("document.querySelector('#refused').hidden");
    browser.press(&["/"]);
    browser.type_text("nobody");
    browser.await_text("#empty", "No agent fits.");
    browser.click("#empty button");
    await_row(&mut browser, "one", "up");
    browser.assert_clean(&[server.address()]);
}

/// The answer of `agents` with rows of these names.
fn faked(names: &[&str]) -> Value {
    let now = "2026-11-30T12:00:00.000Z";
    let rows: Vec<Value> = names
        .iter()
        .enumerate()
        .map(|(pid, name)| {
            json!({
                "id": format!("{name}[{pid}]@host"), "name": name, "pid": pid, "host": name, "transport": "udp", "state": "stalled",
                "status": "ok", "problem": "stalled", "cause": name, "since": now, "last_beat": now, "silence_ms": 9000,
                "stall_after_ms": 5000, "payload": 1, "beats": 1, "lost": 0, "stalls": 1, "unit": name, "labels": { *name: name },
                "paused": false, "summary": name,
            })
        })
        .collect();
    let counts =
        json!({ "up": 0, "stalled": names.len(), "down": 0, "gone": 0, "unknown": 0, "expected": 0 });
    json!({
        "revision": "1-1", "now": now, "total": names.len(), "matched": names.len(), "counts": counts, "agents": rows,
        "next": null, "offset": 0,
    })
}

#[test]
fn names_that_are_markup_or_too_long_or_turn_the_text_around_are_texts() {
    let server = server();
    let Some(mut browser) = Browser::start() else { return };
    let long = "x".repeat(4000);
    let names = [
        "<img src=x onerror=\"document.title='broken'\">",
        "\"><script>document.title='broken'</script>",
        &long,
        "a\u{202e}cba\u{202c}\u{2066}",
        "a\u{0}b\u{1b}[31m\u{9b}c\r\n",
        "\u{5e9}\u{5dc}\u{5d5}\u{5dd}",
        "javascript:document.title='broken'",
    ];
    browser.open(server.address(), "/", Look::PHONE);
    browser.fake("**/api/v1/agents?*", &faked(&names));
    let alarms: Vec<_> = names.iter().map(|name| {
        json!({
            "agent": name, "pid": 1, "host": name, "transport": "udp", "to": "stalled", "problem": "stalled", "cause": name,
            "since": "2026-11-30T12:00:00.000Z", "summary": name, "paused": false, "acknowledged": false,
        })
    }).collect();
    browser
        .fake("**/api/v1/alarms?*", &json!({ "revision": "1-1", "now": "", "total": 7, "alarms": alarms }));
    browser.await_text("#headline", "7 of 7 agents are in alarm.");
    let shown = browser.js("[...document.querySelectorAll('#rows .name')].map((name) => name.textContent)");
    let expected = [
        names[0],
        names[1],
        &long,
        "a\\u{202e}cba\\u{202c}\\u{2066}",
        "a\u{2400}b\u{241b}[31m\\u{9b}c\u{240d}\u{240a}",
        names[5],
        names[6],
    ];
    let mut sorted: Vec<_> = shown.as_array().unwrap().iter().map(|name| name.as_str().unwrap()).collect();
    sorted.sort_unstable();
    let mut all = expected.to_vec();
    all.sort_unstable();
    assert_eq!(sorted, all);
    // Nothing of it became an element, and the page is not wider than the window.
    assert_eq!(browser.js("document.querySelectorAll('main img, main script').length"), 0);
    assert_eq!(browser.js("document.documentElement.scrollWidth"), 360);
    browser.await_js("document.title.startsWith('(7) Varta')");
    browser.assert_clean(&[server.address()]);
}

#[test]
fn of_many_agents_only_those_in_sight_are_in_the_document_and_the_last_one_is_reached() {
    let server = server();
    let Some(mut browser) = Browser::start() else { return };
    let names: Vec<String> = (0..500).map(|number| format!("agent-{number:03}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    browser.open(server.address(), "/", Look::DESK);
    browser.fake("**/api/v1/agents?*", &faked(&names));
    browser.await_js("document.querySelector('#grid').ariaRowCount === '501'");
    browser.press(&["g", "End"]);
    browser.await_js(
        "document.getElementById(document.activeElement.getAttribute('aria-activedescendant')).ariaRowIndex === '501'",
    );
    browser.await_js(
        "((row) => row.top >= 0 && row.bottom <= innerHeight + 1)(document.querySelector('.row.active').getBoundingClientRect())",
    );
    browser.await_text(".row.active .name", "agent-499");
    assert_eq!(browser.js("document.querySelectorAll('#rows .row').length < 50"), true);
    browser.press(&["Home"]);
    browser.await_text(".row.active .name", "agent-000");
    browser.assert_clean(&[server.address()]);
}

#[test]
fn what_the_services_do_is_shown_of_all_agents_and_of_one() {
    let webhook = Receiver::start([]);
    let options =
        ["--stall-after", "1s", "--recovery-exec", "/bin/true {name}", "--recovery-budget", "100/1s"];
    let server = Server::start(Options::from(options).args(["--webhook".to_owned(), webhook.url("/hook")]));
    let workers = server.start_agents(12, &["--name", "worker"]);
    server.await_agents("up", 12);
    let Some(mut browser) = browser_at(&server, "/", Look::DESK) else { return };
    browser.press(&["i"]);
    browser.await_text("dialog", "Nothing was done.");
    for worker in &workers {
        worker.signal(Signal::Stop);
    }
    browser.await_text("dialog", "12 agents stalled");
    browser.await_text("dialog", "12 still in alarm");
    browser.await_text("dialog", "VartaAgentsStalled");
    browser.await_text("dialog", ": taken");
    browser.await_text("dialog", "run /bin/true worker");
    let details = "document.querySelector('dialog details')";
    browser
        .await_js(&format!("({details}.open = true) && {details}.querySelectorAll('ol li').length === 12"));
    assert_eq!(browser.axe(), json!([]));

    browser.js("document.querySelector('dialog details .follow').click()");
    browser.await_text("dialog.sheet", "Recovery");
    browser.await_text("dialog.sheet", "step 1 of 1, attempt 1, for stalled:");
    browser.await_js("location.hash.includes('agent=worker')");
    assert_eq!(browser.axe(), json!([]));
    browser.press(&["Escape", "i"]);
    for worker in &workers {
        worker.signal(Signal::Continue);
    }
    browser.await_text("dialog", "over after");
    browser.assert_clean(&[server.address()]);
}

#[test]
fn axe_finds_nothing_serious_in_either_theme_or_on_a_phone() {
    let server = server();
    let mut agents: Vec<AgentProcess> =
        ["fine", "stopped", "killed"].iter().map(|name| server.start_agent(&["--name", name])).collect();
    agents[1].signal(Signal::Stop);
    agents[2].signal(Signal::Kill);
    agents[2].wait();
    server.expect(agent(&agents[1]).stalled());
    let Some(mut browser) = Browser::start() else { return };
    for look in [Look::DESK, Look { is_dark: true, ..Look::PHONE }] {
        for (path, sign, text) in [
            ("/", "#alarms", "stopped"),
            ("/#problem=any&sort=name", "#matched", "2 matches"),
            ("/#search=nobody", "#empty", "No agent fits."),
            ("/#view=keys", "dialog", "search"),
            ("/#view=server", "dialog", "Version"),
            ("/#view=pauses", "dialog", "No pauses."),
            ("/#view=incidents", "dialog", "Nothing was done."),
        ] {
            browser.open(server.address(), path, look);
            browser.await_text(sign, text);
            browser.await_text("#link", "live");
            assert_eq!(browser.axe(), json!([]), "{path} {look:?}");
        }
        browser.open(server.address(), "/", look);
        browser.await_text("#alarms", "killed");
        browser.click("#alarms button");
        browser.await_text("dialog .timeline", "down");
        assert_eq!(browser.axe(), json!([]), "an agent, {look:?}");
        browser.press(&["p"]);
        browser.await_text("dialog.small .title", "Pause");
        assert_eq!(browser.axe(), json!([]), "a pause, {look:?}");
    }
    // That it looks at all.
    browser.js("document.querySelector('dialog.small').append(document.createElement('img'))");
    assert_ne!(browser.axe(), json!([]));
}

#[test]
fn numbers_times_and_days_are_written_as_they_should_be() {
    let server = server();
    let Some(mut browser) = browser_at(&server, "/", Look::DESK) else { return };
    let written = browser.js(
        "import('/assets/format.js').then((f) => [
            [0, 340, 9949, 9951, 59400, 61000, 599000, 3600000, 7265000, 172800000, 180000000].map(f.duration),
            [250, 1000, 5000, 90000].map(f.bound),
            [1, 0.99999, 0.995, 0.5, 0].map(f.percent),
            f.reason({ summary: 'a[1] went from up to down: its process was killed: twice. much', dossier: 'much' }),
            f.reason({ summary: 'something else' }), f.reason({ summary: null }),
        ])",
    );
    let expected = json!([
        [
            "0.0 s",
            "0.3 s",
            "9.9 s",
            "10 s",
            "59 s",
            "1 min 1 s",
            "9 min 59 s",
            "1 h",
            "2 h 1 min",
            "2 d",
            "2 d 2 h"
        ],
        ["250 ms", "1 s", "5 s", "1 min 30 s"],
        ["100 %", "99.99 %", "99.50 %", "50.0 %", "0.0 %"],
        "its process was killed: twice",
        "something else",
        "",
    ]);
    assert_eq!(written, expected);
    // Of each tenth of a minute the worst state is kept, however short it was.
    let slots = browser.js(
        "import('/assets/days.js').then(({ slots }) => {
            const found = slots([{ from_ms: 43200000, state: 'up' }, { from_ms: 50000000, state: 'down' }, { from_ms: 50000001, state: 'up' }]);
            return [found.length, found[71], found[72], found[83], found[84], found.filter((state) => state === 'down').length];
        })",
    );
    assert_eq!(slots, json!([144, "unseen", "up", "down", "up", 1]));
}

#[test]
fn an_event_of_the_stream_is_whole_wherever_its_pieces_are_cut() {
    let server = server();
    let Some(mut browser) = browser_at(&server, "/", Look::DESK) else { return };
    let read = browser.js(
        "import('/assets/stream.js').then(async ({ events }) => {
            const text = ':\\n\\nid: 1-2\\nevent: change\\ndata: {\"a\":\"\u{e9}\"}\\n\\ndata: x\\r\\ndata: y\\r\\n\\r\\nevent: half';
            const bytes = new TextEncoder().encode(text), all = [];
            for (const size of [1, 2, 3, 7, 1000]) {
                const body = new ReadableStream({ start(to) {
                    for (let at = 0; at < bytes.length; at += size) to.enqueue(bytes.slice(at, at + size));
                    to.close();
                } });
                const found = [];
                for await (const event of events(body, () => {})) found.push(event);
                all.push(JSON.stringify(found));
            }
            return [new Set(all).size, JSON.parse(all[0])];
        })",
    );
    let expected = json!([1, [
        { "id": "1-2", "event": "change", "data": "{\"a\":\"\u{e9}\"}" },
        { "id": "1-2", "event": "message", "data": "x\ny" },
    ]]);
    assert_eq!(read, expected);
}

fn asked(address: SocketAddr, path: &str, headers: &[(&str, &str)]) -> http::Response {
    http::get(address, path, headers).unwrap()
}

#[test]
fn the_page_and_its_files_need_no_token_come_under_a_strict_policy_and_are_sent_once() {
    let scratch = Scratch::make();
    let token = write_secret(scratch.directory(), "reading", READING);
    let server = Server::start(Options::new().path("--metrics-token-file", &token));
    let page = server.get("/");
    assert_eq!(page.status, 200);
    let policy = page.header("content-security-policy").unwrap();
    assert!(policy.starts_with("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
    assert_eq!(page.header("x-content-type-options"), Some("nosniff"));
    assert_eq!(page.header("access-control-allow-origin"), None);
    assert!(
        !page.body.contains("<style") && !page.body.contains("style=") && !page.body.contains(" onclick")
    );
    let files: Vec<&str> = page
        .body
        .split(['"', '\''])
        .filter(|part| part.starts_with("assets/") && part.contains('.'))
        .collect();
    assert!(files.len() > 10, "{files:?}");
    for file in files {
        let path = format!("/{file}");
        let first = server.get(&path);
        assert_eq!(first.status, 200, "{path}");
        let tag = first.header("etag").unwrap();
        let again = asked(server.address(), &path, &[("If-None-Match", tag)]);
        assert_eq!((again.status, again.bytes.len()), (304, 0), "{path}");
    }
    assert_eq!(server.get("/api/v1/agents").status, 401);
}
