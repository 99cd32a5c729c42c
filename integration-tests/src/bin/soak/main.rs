//! Runs a server among many agents for a long time, and holds it to everything that was done to them.
//!
//! `it-soak [--agents N] [--for TIME] [--seed N] [--pace PART] [--upgrade-every TIME] [--keep DIR]` starts a server and so many processes that beat: most through
//! its Unix socket, some through pages of shared memory, some sealed over UDP. By chance, which the seed
//! repeats, they are killed, stopped, exit, abort, hang, say goodbye, report that they are critical, send what
//! nobody may send, and are started again. Meanwhile the server is scraped, its configuration is changed and
//! broken, its agents are paused and acknowledged, and the Alertmanager goes away and comes back.
//!
//! It fails unless each verdict is that of what was done, and no other was given; each datagram is accounted for;
//! no counter falls; each alert has ended when its agent is well or forgotten; and memory and descriptors are as
//! they were.

#![allow(clippy::print_stdout, reason = "this is how it reports")]

mod agent;
mod chance;
mod disturbances;
mod events;
mod nursery;
mod slots;
mod world;

use std::collections::BTreeMap;
use std::env;
use std::error::Error;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use indicatif::{ProgressBar, ProgressStyle};
use varta_integration_tests::{
    Network, Options, Receiver, Route, Scrape, Scratch, Server, Signal, exit_code, http, run_server, sys,
    wait_for, wait_until,
};

use crate::agent::Way;
use crate::disturbances::{Requests, Told, Usage};
use crate::events::Events;
use crate::nursery::Nursery;
use crate::slots::{Bad, Slots};
use crate::world::{Faults, STALL_AFTER, World};

/// The pause between two turns.
const TURN: Duration = Duration::from_millis(20);
/// How long all may take at the end until everything that has to be said of them was said.
const SETTLING: Duration = Duration::from_secs(120);
/// What memory may grow by beside its use in the first half, which caches and the allocator take: a part of it, and
/// bytes.
const GROWTH: (f64, f64) = (0.10, 8_388_608.0);

/// The last lines of the server's log that are shown after a fault.
const LOG_LINES: usize = 40;

fn main() -> ExitCode {
    exit_code(run())
}

/// What is asked for.
struct Plan {
    agents: usize,
    duration: Duration,
    seed: u64,
    /// The part of all agents to which something happens in a second.
    pace: f64,
    /// From one upgrade to the next.
    upgrade_every: Duration,
    /// The directory in which the files of a run with faults are kept.
    keep: Option<PathBuf>,
}

impl Plan {
    fn read() -> Result<Self, Box<dyn Error>> {
        let mut plan = Plan {
            agents: 2_000,
            duration: Duration::from_secs(30 * 60),
            seed: 1,
            pace: 0.01,
            upgrade_every: Duration::from_secs(17),
            keep: None,
        };
        let mut arguments = env::args().skip(1);
        while let Some(option) = arguments.next() {
            let value = arguments.next().ok_or_else(|| format!("{option} takes a value"))?;
            match option.as_str() {
                "--agents" => plan.agents = value.parse()?,
                "--for" => plan.duration = humantime::parse_duration(&value)?,
                "--seed" => plan.seed = value.parse()?,
                "--pace" => plan.pace = value.parse()?,
                "--upgrade-every" => plan.upgrade_every = humantime::parse_duration(&value)?,
                "--keep" => plan.keep = Some(value.into()),
                _ => return Err(format!("there is no option {option}").into()),
            }
        }
        Ok(plan)
    }
}

fn run() -> Result<(), Box<dyn Error>> {
    let Plan { agents, duration, seed, pace, upgrade_every, keep } = Plan::read()?;
    println!("{agents} agents for {}, seed {seed}", humantime::format_duration(duration));
    // Forked first of all, while this process has one thread.
    let slots = Slots::make(agents)?;
    let nursery = Nursery::fork(slots)?;
    let scratch = Scratch::make();
    let alertmanager = Receiver::start([]);
    let [events, audit] = ["events.json", "audit.log"].map(|name| scratch.path(name));
    let server = Server::start(
        Options::new()
            .in_scratch(&scratch)
            .config(&scratch, &disturbances::configuration(0))
            .on(Network::SharedKey, &[[127, 0, 0, 1].into()])
            .path("--events-file", &events)
            .path("--audit-log", &audit)
            .args(["--events-limit", "4G", "--alertmanager", &alertmanager.url("")])
            .args(["--recovery-exec", "/bin/true", "--max-shm-agents", "1000", "--flap-limit", "0"]),
    );
    let before = server.scrape();
    let socket = server.socket().to_path_buf();
    let Route::SharedKey(address, key) = server.route(Network::SharedKey, 0) else {
        return Err("the route of a shared key is another".into());
    };
    let ways = [Way::Unix(socket.clone()), Way::Shm(socket), Way::SecureUdp(address, key)];
    let mut world = World::new(slots, nursery, seed, &ways);
    let mut events = Events::open(&events)?;

    let (is_over, is_told) = (AtomicBool::new(false), AtomicBool::new(false));
    let config = scratch.path("varta.toml");
    let asked = Requests { server: &server, file: &config, pid: Mutex::new(server.pid()) };
    let (ended, scrapes, reloads, upgrades, requests, told) = thread::scope(|scope| {
        let scrapes = scope.spawn(|| disturbances::scrape(&server, &is_over));
        let reloads = scope.spawn(|| disturbances::reload(&asked, &is_over));
        let upgrades = scope.spawn(|| disturbances::upgrade(&asked, upgrade_every, &is_over));
        let requests = scope.spawn(|| disturbances::maintain(&asked, seed, &is_over));
        let told = scope.spawn(|| {
            disturbances::run_alertmanager(alertmanager, seed, &is_over, || is_told.load(Ordering::SeqCst))
        });
        let ended = let_live(&mut world, &mut events, pace, duration);
        is_over.store(true, Ordering::SeqCst);
        let settled = ended.and_then(|()| {
            await_the_end(&mut world, &mut events)?;
            await_nothing(&mut world, &server);
            Ok(())
        });
        is_told.store(true, Ordering::SeqCst);
        let [reloads, upgrades, requests] =
            [reloads, upgrades, requests].map(|thread| thread.join().expect("it does not panic"));
        let scrapes = scrapes.join().expect("it does not panic");
        (settled, scrapes, reloads, upgrades, requests, told.join().expect("it does not panic"))
    });
    ended?;
    world.heed(events.read()?)?;
    let exposition = http::get(server.address(), "/metrics", &[])?.body;
    let after = Scrape::parse(&exposition)?;

    report(&world, &scrapes.usage, &told);
    println!(
        "reloads {}, upgrades {}, rounds of requests {}, scrapes {}",
        reloads.0,
        upgrades.0,
        requests.0,
        scrapes.usage.len()
    );
    let mut faults = vec![world.faults.clone(), scrapes.faults, reloads.1, upgrades.1, requests.1];
    faults.push(books(&world, &after, events.count));
    faults.push(remains(&before, &after, &scrapes.usage, &told));
    stop(&asked)?;
    let verified = run_server(["audit".as_ref(), "verify".as_ref(), audit.as_os_str()]);
    if !verified.status.success() {
        let mut of_audit = Faults::default();
        of_audit.add(|| format!("the audit log: {verified:?}"));
        faults.push(of_audit);
    }
    let count: u64 = faults.iter().map(|faults| faults.count).sum();
    for fault in faults.iter().flat_map(|faults| &faults.kept) {
        println!("FAULT {fault}");
    }
    if count > 0 {
        let lines = server.log().lines();
        if let Some(directory) = keep {
            fs::create_dir_all(&directory)?;
            fs::copy(scratch.path("events.json"), directory.join("events.json"))?;
            fs::write(directory.join("metrics.txt"), &exposition)?;
            fs::write(directory.join("server.log"), lines.join("\n"))?;
        }
        for line in &lines[lines.len().saturating_sub(LOG_LINES)..] {
            println!("LOG {line}");
        }
    }
    println!("{count} faults");
    if count > 0 { Err("the server is not what it should be".into()) } else { Ok(()) }
}

/// Stops the server, which upgrades may have replaced, in order.
fn stop(asked: &Requests<'_>) -> io::Result<()> {
    let pid = *asked.pid.lock().unwrap_or_else(PoisonError::into_inner);
    sys::send_signal(pid, Signal::Terminate)?;
    wait_until("the last server has ended", || {
        let status = fs::read_to_string(format!("/proc/{pid}/status"));
        // Its own child ends as a zombie.
        status.is_ok_and(|status| status.contains("State:\tZ"))
            || !Path::new(&format!("/proc/{pid}")).exists()
    });
    Ok(())
}

/// The agents come and go for this long.
fn let_live(
    world: &mut World,
    events: &mut Events,
    pace: f64,
    duration: Duration,
) -> Result<(), Box<dyn Error>> {
    let began = Instant::now();
    let (mut owed, mut said) = (0.0, Instant::now());
    let mut last = Instant::now();
    // On a terminal alone; in the midst of the lines below it comes and goes.
    let style =
        ProgressStyle::with_template("[{bar:30}] {elapsed} of {msg}, {prefix}")?.progress_chars("=> ");
    let bar = ProgressBar::new(duration.as_secs())
        .with_style(style)
        .with_message(humantime::format_duration(duration).to_string());
    while began.elapsed() < duration {
        world.heed(events.read()?)?;
        bar.set_position(began.elapsed().as_secs());
        bar.set_prefix(format!("{} faults", world.faults.count));
        owed += pace * as_number(world.count() as u64) * last.elapsed().as_secs_f64();
        last = Instant::now();
        let mut actions = 0;
        while owed >= 1.0 {
            owed -= 1.0;
            actions += 1;
        }
        world.turn(actions)?;
        if said.elapsed() >= Duration::from_secs(60) {
            bar.suspend(|| {
                println!(
                    "{} s: {} processes, {} faults",
                    began.elapsed().as_secs(),
                    world.processes,
                    world.faults.count
                );
                io::stdout().flush()
            })?;
            said = Instant::now();
        }
        thread::sleep(TURN);
    }
    bar.finish_and_clear();
    Ok(())
}

/// Nothing more happens, all say goodbye, and everything is said that has to be said.
fn await_the_end(world: &mut World, events: &mut Events) -> io::Result<()> {
    world.calm_down();
    for _ in 0..2 {
        let began = Instant::now();
        while !world.is_settled() && began.elapsed() < SETTLING {
            world.heed(events.read()?)?;
            world.turn(0)?;
            thread::sleep(TURN);
        }
        world.dismiss_all()?;
    }
    if !world.is_settled() {
        let missing = world.count() - world.settled();
        world.faults.add(|| format!("{missing} agents are not settled after {SETTLING:?}"));
    }
    Ok(())
}

/// Waits until all agents are forgotten and all alerts have ended.
fn await_nothing(world: &mut World, server: &Server) {
    let mut left = Vec::new();
    let nothing = wait_for(|| {
        let response = http::get(server.address(), "/metrics", &[]).ok()?;
        let scrape = Scrape::parse(&response.body).ok()?;
        let counts = scrape.samples.into_iter().filter(|sample| {
            ["varta_agents", "varta_alerts_firing", "varta_agent_up"].contains(&sample.name.as_str())
        });
        left = counts.filter(|sample| sample.value > 0.0 || sample.name == "varta_agent_up").collect();
        left.is_empty().then_some(())
    });
    if nothing.is_none() {
        left.truncate(20);
        world.faults.add(|| format!("not everything ends: {left:?}"));
    }
}

fn report(world: &World, usage: &[Usage], told: &Told) {
    println!("processes started: {}", world.processes);
    for (fate, count) in &world.done {
        println!("  {fate:?}: {count}");
    }
    println!(
        "slowest verdict: {:?} (deadlines are {STALL_AFTER:?}); starved agents: {}; verdicts unknown: {}; introduced \
         late: {}",
        world.slowest, world.starved, world.unknown, world.late
    );
    println!(
        "Alertmanager: {} outages, {} requests, {} alerts",
        told.outages,
        told.requests,
        told.alerts.len()
    );
    println!(
        "resident memory grew by {:.1} KiB an hour, over the second half",
        slope(usage) * 3600.0 / 1024.0
    );
}

/// The datagrams of a transport, by outcome.
fn outcomes(scrape: &Scrape, transport: &str) -> BTreeMap<String, f64> {
    let rows = scrape.samples.iter().filter(|sample| {
        sample.name == "varta_frames_total"
            && sample.labels.get("transport").is_some_and(|its| its == transport)
    });
    rows.filter_map(|row| Some((row.labels.get("outcome")?.clone(), row.value))).collect()
}

/// Every datagram is in the row of what was done with it, and every event is a transition.
fn books(world: &World, after: &Scrape, events: u64) -> Faults {
    let mut faults = Faults::default();
    let transitions = after.sum("varta_transitions_total", &[]);
    let dropped = after.sum("varta_sink_dropped_total", &[("sink", "events")]);
    println!("transitions: {transitions}, events: {events}, events dropped: {dropped}");
    if transitions != as_number(events - world.uncounted) + dropped {
        faults.add(|| format!("{transitions} transitions are not {events} events and {dropped} dropped"));
    }
    for (label, of_way) in [
        ("unix", (|way: &Way| matches!(way, Way::Unix(_))) as fn(&Way) -> bool),
        ("secure_udp", |way: &Way| matches!(way, Way::SecureUdp(..))),
    ] {
        let sent = world.beats(of_way);
        let rows = outcomes(after, label);
        let accepted = rows.get("accepted").copied().unwrap_or_default();
        let dropped = after.sum("varta_kernel_drops_total", &[("transport", label)]);
        println!(
            "{label}: {} beats begun, {} taken by the kernel, which dropped {dropped}; received {rows:?}",
            sent.attempted, sent.taken
        );
        // Introductions are accepted as well as beats.
        if accepted + dropped < as_number(sent.taken) {
            faults.add(|| format!("{label}: beats are missing"));
        }
        for (outcome, count) in rows.into_iter().filter(|(outcome, _)| outcome != "accepted") {
            let bad = Bad::ALL.into_iter().find(|bad| label == "unix" && bad.outcome() == outcome);
            let sent = bad.map(|bad| world.bad(bad)).unwrap_or_default();
            let (least, most) = (as_number(sent.taken), as_number(sent.attempted));
            if count + dropped < least || count > most {
                faults.add(|| {
                    format!("{label}: {count} were refused as {outcome}, and {least} to {most} were to be")
                });
            }
        }
    }
    faults
}

/// What stays behind when all are gone.
fn remains(before: &Scrape, after: &Scrape, usage: &[Usage], told: &Told) -> Faults {
    let mut faults = Faults::default();
    let descriptors = |scrape: &Scrape| scrape.value("process_open_fds", &[]);
    println!("descriptors: {} before, {} after", descriptors(before), descriptors(after));
    if descriptors(after) > descriptors(before) {
        faults.add(|| "descriptors were left open".to_owned());
    }
    let highest = |usage: &[Usage]| usage.iter().map(|usage| usage.resident).fold(0.0, f64::max);
    let (first, second) = usage.split_at(usage.len() / 2);
    let (first, second) = (highest(first), highest(second));
    println!(
        "resident memory: {:.1} MiB at most in the first half, {:.1} in the second",
        mib(first),
        mib(second)
    );
    if second > first * (1.0 + GROWTH.0) + GROWTH.1 {
        faults.add(|| "memory grows".to_owned());
    }
    let now = humantime::format_rfc3339_millis(SystemTime::now()).to_string();
    for alert in told.open(&now) {
        faults.add(|| format!("the Alertmanager does not know that this has ended: {alert}"));
    }
    faults
}

/// By how many bytes a second memory grew in the second half: the slope of the line of least squares.
fn slope(usage: &[Usage]) -> f64 {
    let usage = &usage[usage.len() / 2..];
    let count = as_number(usage.len() as u64);
    let mean = |of: fn(&Usage) -> f64| usage.iter().map(of).sum::<f64>() / count;
    let (time, memory) = (mean(|usage| usage.at.as_secs_f64()), mean(|usage| usage.resident));
    let (mut above, mut below) = (0.0, 0.0);
    for point in usage {
        let from_mean = point.at.as_secs_f64() - time;
        above += from_mean * (point.resident - memory);
        below += from_mean * from_mean;
    }
    if below > 0.0 { above / below } else { 0.0 }
}

fn mib(bytes: f64) -> f64 {
    bytes / 1_048_576.0
}

#[allow(clippy::cast_precision_loss, reason = "no count of a run comes near 2^53")]
fn as_number(count: u64) -> f64 {
    count as f64
}
