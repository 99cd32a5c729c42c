//! A reload changes what a running server is connected to: all of it or nothing, and without a gap.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use varta_integration_tests::{
    Datagrams, Ended, MailServer, Network, Options, ReceivedMail, Receiver, RemoteAgent, SHARED_KEY, Scratch,
    Server, Signal, agent, http, line, line_with, run_server, wait_until, write_secret,
};
use varta_proto::{Frame, Status};

/// A server with a file.
struct Reloaded {
    server: Server,
    path: PathBuf,
    scratch: Scratch,
}

impl Reloaded {
    /// The file has this text at first.
    fn start(text: &str, options: Options) -> Self {
        let scratch = Scratch::make();
        let path = scratch.write("varta.toml", text);
        Reloaded { server: Server::start(options.path("--config", &path)), path, scratch }
    }

    /// The file has the sockets of these names and this text. The first is the one that never goes.
    fn with_sockets(names: &[&str], text: &str) -> Self {
        let scratch = Scratch::make();
        let path = scratch.write("varta.toml", &sockets(&scratch, names, text));
        let first = scratch.path(names[0]);
        let options = Options::new().path("--config", &path).finds_its_socket_at(&first);
        Reloaded { server: Server::start(options), path, scratch }
    }

    /// The text of a file with the sockets of these names.
    fn sockets(&self, names: &[&str], text: &str) -> String {
        sockets(&self.scratch, names, text)
    }

    /// Has this text count.
    #[track_caller]
    fn take_over(&self, text: &str) -> String {
        fs::write(&self.path, text).unwrap();
        let Ended { status, stdout, stderr } = self.server.reload();
        assert!(status.success(), "{stderr}");
        assert_eq!(stderr, "", "nothing waits for a restart");
        stdout
    }

    /// Why this text does not count.
    #[track_caller]
    fn refuse(&self, text: &str) -> String {
        fs::write(&self.path, text).unwrap();
        let Ended { status, stderr, .. } = self.server.reload();
        assert_eq!(status.code(), Some(1), "{stderr}");
        stderr
    }
}

fn sockets(scratch: &Scratch, names: &[&str], text: &str) -> String {
    let paths: Vec<_> = names.iter().map(|name| format!("{:?}", scratch.path(name))).collect();
    format!("socket = [{}]\n{text}", paths.join(", "))
}

fn beat(nonce: u64) -> [u8; 32] {
    Frame::new(Status::Ok, process::id(), nonce, nonce, 0).to_bytes()
}

/// The descriptors of a process.
fn descriptors(pid: u32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count()
}

fn threads(pid: u32) -> usize {
    fs::read_dir(format!("/proc/{pid}/task")).unwrap().count()
}

/// Where metrics are served after so many changes of the address.
fn metrics_address(server: &Server, number: usize) -> SocketAddr {
    server.expect(line("metrics on "));
    let lines = server.log().find_all("metrics on ");
    lines[number]["address"].as_str().unwrap().parse().unwrap()
}

#[test]
fn metrics_move_to_another_address_by_a_reload_and_who_is_connected_is_served_to_the_end() {
    // An empty variable leaves the address to the file.
    let options = Options::new().env("VARTA_METRICS_ADDR", "");
    let reloaded = Reloaded::start("metrics-addr = \"127.0.0.1:0\"\n", options);
    let server = &reloaded.server;
    let first = server.address();
    let mut connected = TcpStream::connect(first).unwrap();
    reloaded.take_over("metrics-addr = \"127.0.0.2:0\"\n");
    let second = metrics_address(server, 1);
    assert_eq!(http::get(second, "/metrics", &[]).unwrap().status, 200);
    assert!(TcpStream::connect(first).is_err(), "the former address is closed");
    connected.write_all(b"GET /healthz HTTP/1.0\r\n\r\n").unwrap();
    let mut answer = String::new();
    connected.read_to_string(&mut answer).unwrap();
    assert!(answer.ends_with("ok\n"), "{answer}");

    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = other.local_addr().unwrap();
    let said = reloaded.refuse(&format!("metrics-addr = \"{taken}\"\nstall-after = \"9s\"\n"));
    assert!(said.contains(&format!("{taken}: cannot listen for metrics")), "{said}");
    assert_eq!(http::get(second, "/metrics", &[]).unwrap().status, 200, "all is as it was");

    reloaded.take_over("metrics-addr = \"none\"\n");
    server.expect(line("metrics are served nowhere"));
    assert!(TcpStream::connect(second).is_err());
    reloaded.take_over("metrics-addr = \"127.0.0.1:0\"\n");
    assert_eq!(http::get(metrics_address(server, 2), "/readyz", &[]).unwrap().status, 200);
}

#[test]
fn no_beat_is_lost_and_nobody_is_accused_while_listeners_come_and_go() {
    let reloaded = Reloaded::with_sockets(&["kept.sock"], "udp = [\"127.0.0.1:0\"]\nmax-beat-rate = 0\n");
    let server = &reloaded.server;
    let udp = server.udp_address(0);
    let more = "udp = [\"127.0.0.1:0\", \"127.0.0.2:0\"]\nmax-beat-rate = 0\n";
    let less = "udp = [\"127.0.0.1:0\"]\nmax-beat-rate = 0\n";
    let stop = AtomicBool::new(false);
    let sent = thread::scope(|scope| {
        let local = scope.spawn(|| {
            let mut datagrams = Datagrams::to(server.socket());
            for nonce in 1.. {
                datagrams.send(&beat(nonce));
                if stop.load(Ordering::Relaxed) {
                    break;
                }
                thread::yield_now();
            }
            datagrams.sent()
        });
        let remote = scope.spawn(|| {
            let mut remote = RemoteAgent::new(Network::Plain, udp, 4_242);
            while !stop.load(Ordering::Relaxed) {
                remote.beat();
                // The kernel drops what a UDP socket has no room for.
                thread::sleep(Duration::from_millis(1));
            }
            remote.beats() as f64
        });
        for _ in 0..10 {
            reloaded.take_over(&reloaded.sockets(&["kept.sock", "other.sock"], more));
            reloaded.take_over(&reloaded.sockets(&["kept.sock"], less));
        }
        stop.store(true, Ordering::Relaxed);
        local.join().unwrap() + remote.join().unwrap()
    });
    let scrape = server.await_scrape("all that was sent is there", |scrape| scrape.datagrams() >= sent);
    assert_eq!((scrape.datagrams(), scrape.outcome("accepted")), (sent, sent));
    assert_eq!(scrape.sum("varta_kernel_drops_total", &[]), 0.0);
    assert_eq!(scrape.sum("varta_stalls_total", &[]), 0.0);
}

#[test]
fn what_a_socket_holds_that_is_removed_is_read_first_and_who_beat_there_is_silent_then() {
    let text = "stall-after = \"1s\"\n";
    let reloaded = Reloaded::with_sockets(&["kept.sock", "other.sock"], text);
    let server = &reloaded.server;
    let other = reloaded.scratch.path("other.sock");
    let mut datagrams = Datagrams::to(&other);
    datagrams.send(&beat(1));
    server.expect(agent(process::id()).up());
    // The server does not run while these come, and finds them with the request to reload.
    fs::write(&reloaded.path, reloaded.sockets(&["kept.sock"], text)).unwrap();
    server.pause();
    for nonce in 2..10 {
        datagrams.send(&beat(nonce));
    }
    server.resume();
    assert!(server.reload().status.success());
    assert!(!other.exists() && !reloaded.scratch.path("other.sock.check").exists());
    server.expect(line_with("other.sock is closed"));
    assert!(datagrams.try_send(&beat(10)).is_err(), "its sender learns that nobody reads");
    assert_eq!(server.scrape().datagrams(), 9.0);
    server.expect(agent(process::id()).stalled());
    // It may come by the other one.
    Datagrams::to(server.socket()).send(&beat(11));
    server.expect(agent(process::id()).up());
}

#[test]
fn one_listener_that_cannot_be_had_leaves_all_as_they_were() {
    let reloaded = Reloaded::with_sockets(&["kept.sock"], "socket-mode = \"0600\"\n");
    let server = &reloaded.server;
    let mode = || fs::metadata(server.socket()).unwrap().permissions().mode() & 0o777;
    Datagrams::to(server.socket()).send(&beat(1));
    server.expect(agent(process::id()).up());
    server.expect(line("requests (pause, forget, ack, reload) are taken on "));
    server.await_ready();
    let before = descriptors(server.pid());
    let other = UdpSocket::bind("127.0.0.1:0").unwrap();
    let taken = other.local_addr().unwrap();
    let free = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let (new, kept) = (reloaded.scratch.path("new.sock"), ["kept.sock", "new.sock"]);
    reloaded.scratch.write("file", "");
    let text = format!("udp = [\"{free}\", \"{taken}\"]\nsocket-mode = \"0660\"\nstall-after = \"9s\"\n");
    let said = reloaded.refuse(&reloaded.sockets(&kept, &text));
    assert!(said.contains(&format!("--udp {taken}: cannot listen")), "{said}");
    let nowhere = ["kept.sock", "new.sock", "file/in-a-file.sock"];
    let said = reloaded.refuse(&reloaded.sockets(&nowhere, "socket-mode = \"0660\"\n"));
    assert!(said.contains("file: cannot make the socket's directory"), "{said}");
    let said = reloaded
        .refuse(&reloaded.sockets(&kept, "key-file = \"/nowhere/key\"\nsecure-udp = \"127.0.0.1:0\"\n"));
    assert!(said.contains("/nowhere/key"), "{said}");
    let mut many = String::from("udp = [");
    (0..64).for_each(|number| write!(many, "\"127.0.0.{number}:0\", ").unwrap());
    let said = reloaded.refuse(&reloaded.sockets(&["kept.sock"], &(many + "]\n")));
    assert!(said.contains("at most 64"), "{said}");

    assert!(!new.exists() && !reloaded.scratch.path("new.sock.check").exists());
    drop(UdpSocket::bind(free).unwrap());
    assert_eq!((mode(), server.log().find_all("listening on ").len()), (0o600, 1));
    assert_eq!(server.scrape().value("varta_config_last_reload_successful", &[]), 0.0);
    assert_eq!(server.scrape().of_agent("varta_agent_stall_after_seconds", process::id()), 5.0);
    Datagrams::to(server.socket()).send(&beat(2));
    wait_until("it is read as before", || server.scrape().datagrams() == 2.0);
    wait_until("nothing is left open", || descriptors(server.pid()) <= before);

    reloaded.take_over(&reloaded.sockets(&kept, "socket-mode = \"0660\"\n"));
    assert_eq!(mode(), 0o660);
    Datagrams::to(&new).send(&beat(3));
    wait_until("the new one is read", || server.scrape().datagrams() == 3.0);
}

#[test]
fn sealed_beats_come_and_go_with_their_keys_and_key_files_move() {
    let reloaded = Reloaded::with_sockets(&["kept.sock"], "");
    let server = &reloaded.server;
    let key = |name: &str, text: &str| write_secret(reloaded.scratch.directory(), name, text);
    let (first, second) = (key("first", &"01".repeat(32)), key("second", SHARED_KEY));
    let text = |key: &Path| {
        reloaded.sockets(&["kept.sock"], &format!("secure-udp = \"127.0.0.1:0\"\nkey-file = {key:?}\n"))
    };
    let said = reloaded.take_over(&text(&first));
    assert!(said.contains("1 keys open datagrams"), "{said}");
    let mut remote = RemoteAgent::new(Network::SharedKey, server.secure_udp_address(0), 4_242);
    remote.beat();
    wait_until("the key is another", || server.scrape().outcome("decrypt_failed") == 1.0);
    reloaded.take_over(&text(&second));
    let sealed = remote.beat();
    server.expect(agent(4_242).up());
    // The listener is gone and comes back, and knows what it has taken.
    reloaded.take_over(&reloaded.sockets(&["kept.sock"], ""));
    reloaded.take_over(&text(&second));
    remote.send_to(server.secure_udp_address(1));
    remote.send(&sealed);
    wait_until("a replay is refused", || server.scrape().outcome("replayed") == 1.0);
    remote.beat();
    wait_until("a new beat is taken", || server.scrape().outcome("accepted") == 2.0);
}

#[test]
fn a_hundred_reloads_leave_nothing_open_and_nothing_behind() {
    let small = "stall-after = \"9s\"\n";
    let reloaded = Reloaded::with_sockets(&["kept.sock"], small);
    let server = &reloaded.server;
    let key = write_secret(reloaded.scratch.directory(), "key", SHARED_KEY);
    let large = format!(
        "udp = [\"127.0.0.1:0\", \"127.0.0.1:0\"]\nsecure-udp = \"127.0.0.1:0\"\nkey-file = {key:?}\n"
    );
    let turn = || {
        reloaded.take_over(&reloaded.sockets(&["kept.sock", "a.sock", "b.sock"], &large));
        reloaded.take_over(&reloaded.sockets(&["kept.sock"], small));
    };
    // What the first one makes stays for the next: threads, a connection of the log.
    turn();
    let (before, running) = (descriptors(server.pid()), threads(server.pid()));
    (0..50).for_each(|_| turn());
    wait_until("the descriptors are as before", || descriptors(server.pid()) <= before);
    wait_until("the threads are as before", || threads(server.pid()) <= running);
    let mut files: Vec<_> =
        fs::read_dir(reloaded.scratch.directory()).unwrap().map(|file| file.unwrap().file_name()).collect();
    files.sort();
    assert_eq!(files, ["kept.sock", "kept.sock.check", "kept.sock.control", "key", "varta.toml"]);
    let scrape = server.scrape();
    assert_eq!(scrape.matching("varta_udp_receive_buffer_bytes", &[]).count(), 0);
    assert_eq!(scrape.value("varta_config_last_reload_successful", &[]), 1.0);
}

#[test]
fn new_receivers_of_alerts_are_told_what_fires_and_those_that_stay_hear_nothing_twice() {
    let [former, present, alertmanager] = [Receiver::start([]), Receiver::start([]), Receiver::start([])];
    let text = |webhook: &Receiver, more: &str| {
        format!("stall-after = \"700ms\"\nwebhook = {:?}\n{more}", webhook.url("/hook"))
    };
    let reloaded = Reloaded::start(&text(&former, ""), Options::new());
    let server = &reloaded.server;
    let worker = server.start_agent(&[]);
    worker.signal(Signal::Stop);
    let told = |receiver: &Receiver| -> Vec<String> {
        receiver
            .requests()
            .iter()
            .map(|request| request.json()["kind"].as_str().unwrap().to_owned())
            .collect()
    };
    former.await_requests(1);
    let more = format!("alertmanager = {:?}\n", alertmanager.url(""));
    reloaded.take_over(&text(&present, &more));
    let firing = present.await_requests(1)[0].json();
    assert_eq!((&firing["kind"], &firing["agent"]["pid"]), (&"firing".into(), &worker.pid().into()));
    alertmanager.await_requests(1);
    assert!(alertmanager.requests()[0].body.contains("VartaAgentStalled"));
    // Other settings of the same receivers.
    reloaded.take_over(&text(&present, &format!("{more}alert-give-up-after = \"5s\"\nflap-limit = 7\n")));
    worker.signal(Signal::Continue);
    present.await_requests(2);
    assert_eq!(told(&present), ["firing", "resolved"]);
    assert_eq!(told(&former), ["firing"], "who is gone hears nothing");
    alertmanager
        .await_that("the end", |requests| requests.iter().any(|request| request.body.contains("resolved")));
    assert_eq!(server.scrape().value("varta_alerts_firing", &[]), 0.0);

    // From none to one, and what nobody takes is counted when its receiver goes.
    reloaded.take_over("stall-after = \"700ms\"\n");
    worker.signal(Signal::Stop);
    server.expect(agent(&worker).stalled());
    let nowhere = format!("stall-after = \"700ms\"\nwebhook = \"http://{}/\"\n", Receiver::nowhere());
    reloaded.take_over(&nowhere);
    server.expect(line_with("does not take notices"));
    reloaded.take_over("stall-after = \"700ms\"\n");
    let given_up = [("destination", "webhook"), ("outcome", "given_up")];
    wait_until("it is counted", || server.scrape().value("varta_notifications_total", &given_up) == 1.0);
    worker.signal(Signal::Continue);
    let wrong = reloaded.refuse("webhook = \"http://localhost/\"\nwebhook-key-file = \"/nowhere/key\"\n");
    assert!(wrong.contains("/nowhere/key"), "{wrong}");
}

#[test]
fn a_mail_that_waits_goes_out_by_new_settings_and_a_new_relay_is_told_what_fires() {
    // More often than it is tried.
    let (former, present) = (MailServer::start(["451 not now"; 50]), MailServer::start([]));
    let text = |relay: &MailServer, from: &str| {
        format!(
            "stall-after = \"700ms\"\nmail-relay = {:?}\nmail-from = {from:?}\nmail-to = \"to@example.test\"\n",
            relay.url()
        )
    };
    let reloaded = Reloaded::start(&text(&former, "old@example.test"), Options::new());
    let server = &reloaded.server;
    let worker = server.start_agent(&[]);
    worker.signal(Signal::Stop);
    let put_off = former.await_mails(1).remove(0);
    assert!(put_off.commands.iter().any(|command| command.starts_with("MAIL FROM:<old@")), "{put_off:?}");

    reloaded.take_over(&text(&former, "new@example.test"));
    let is_new = |mail: &ReceivedMail| mail.commands.iter().any(|said| said.starts_with("MAIL FROM:<new@"));
    wait_until("it comes again, from another", || former.await_mails(1).iter().any(is_new));
    let ids: BTreeSet<_> =
        former.await_mails(1).iter().map(|mail| mail.header("Message-ID").to_owned()).collect();
    assert_eq!(ids.len(), 1, "it is the one that has waited: {ids:?}");

    reloaded.take_over(&text(&present, "new@example.test"));
    let subject = |mail: &ReceivedMail| mail.header("Subject").to_owned();
    assert!(subject(&present.await_mails(1)[0]).starts_with("firing: "));
    let given_up = [("destination", "mail"), ("outcome", "given_up")];
    wait_until("the former is given up", || {
        server.scrape().value("varta_notifications_total", &given_up) == 1.0
    });
    worker.signal(Signal::Continue);
    assert!(subject(&present.await_mails(2)[1]).starts_with("resolved: "));
    assert!(former.await_mails(1).iter().all(|mail| subject(mail).starts_with("firing: ")));
}

#[test]
fn an_expected_agent_that_was_forgotten_stays_so_after_a_reload_which_says_it() {
    let text = "[[expected]]\nname = \"nobody\"\ngrace = \"10ms\"\n";
    let reloaded = Reloaded::start(text, Options::new());
    let server = &reloaded.server;
    assert!(!reloaded.take_over(text).contains("forgotten"));
    let control = server.control_socket();
    let forgotten =
        run_server([Path::new("forget"), Path::new("nobody"), Path::new("--control-socket"), &control]);
    assert!(forgotten.status.success(), "{}", forgotten.stderr);
    let said = reloaded.take_over(&format!("stall-after = \"9s\"\n{text}"));
    assert!(
        said.contains("1 expected agents are not awaited, because they were forgotten by request"),
        "{said}"
    );
    server.await_agents("expected", 0);
}

#[test]
fn recovery_acts_from_the_reload_on_that_ends_its_dry_run() {
    let reloaded = Reloaded::start("recovery-dry-run = true\n", Options::new());
    let server = &reloaded.server;
    let text = |more: &str| {
        let to = reloaded.scratch.directory().display().to_string();
        format!("stall-after = \"700ms\"\nrecovery-exec = \"touch {to}/{{pid}}\"\n{more}")
    };
    reloaded.take_over(&text("recovery-dry-run = true\n"));
    let [first, second] = [server.start_agent(&[]), server.start_agent(&[])];
    first.signal(Signal::Stop);
    server.expect(line_with("would "));
    reloaded.take_over(&text(""));
    second.signal(Signal::Stop);
    let touched = |pid: u32| reloaded.scratch.path(&pid.to_string()).exists();
    wait_until("the command has run", || touched(second.pid()));
    assert!(!touched(first.pid()), "its first attempt was a dry one, and the next is a minute away");
    [first, second].iter().for_each(|worker| worker.signal(Signal::Continue));
}

#[test]
fn an_address_that_this_server_has_itself_is_named_with_who_has_it() {
    let reloaded = Reloaded::with_sockets(&["kept.sock"], "udp = \"127.0.0.1:0\"\n");
    let address = reloaded.server.udp_address(0);
    let key = write_secret(reloaded.scratch.directory(), "key", SHARED_KEY);
    let text = format!("secure-udp = \"{address}\"\nkey-file = {key:?}\n");
    let said = reloaded.refuse(&reloaded.sockets(&["kept.sock"], &text));
    assert!(said.contains(&format!("udp:{address} of this server has the port")), "{said}");
    reloaded.take_over(&reloaded.sockets(&["kept.sock"], ""));
    reloaded.take_over(&reloaded.sockets(&["kept.sock"], &text));
    assert_eq!(reloaded.server.secure_udp_address(0), address);
}
