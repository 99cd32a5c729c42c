//! What goes on around a server while agents come and go: scrapes, reloads, requests, and an Alertmanager that is
//! away now and then. Each is a thread that ends when `is_over`.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use varta_integration_tests::{
    Ended, LIMIT, Receiver, Sample, Scrape, Server, Signal, http, run_server, sys,
};

use crate::chance::Chance;
use crate::world::Faults;

/// The request for an upgrade.
const UPGRADE: &[&str] = &["upgrade"];
/// How long a thread sleeps before it looks again whether it is over, and whether something is due.
const TICK: Duration = Duration::from_millis(100);

/// Calls `act` at this pace until it is over.
fn at_pace(pace: Duration, is_over: &AtomicBool, mut act: impl FnMut()) {
    let mut due = Instant::now() + pace;
    while !is_over.load(Ordering::SeqCst) {
        if Instant::now() >= due {
            act();
            due = Instant::now() + pace;
        }
        thread::sleep(TICK);
    }
}

/// What the server's process used at one time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Usage {
    pub(crate) at: Duration,
    pub(crate) resident: f64,
}

#[derive(Debug, Default)]
pub(crate) struct Scrapes {
    pub(crate) usage: Vec<Usage>,
    pub(crate) faults: Faults,
}

/// Scrapes the server each second: it answers, and no counter falls.
pub(crate) fn scrape(server: &Server, is_over: &AtomicBool) -> Scrapes {
    let began = Instant::now();
    let mut scrapes = Scrapes::default();
    let mut before: Option<Scrape> = None;
    at_pace(Duration::from_secs(1), is_over, || {
        let response = match http::get(server.address(), "/metrics", &[]) {
            Ok(response) if response.status == 200 => response,
            other => {
                return scrapes.faults.add(|| format!("no scrape: {:?}", other.map(|answer| answer.status)));
            }
        };
        let scrape = match Scrape::parse(&response.body) {
            Ok(scrape) => scrape,
            Err(error) => return scrapes.faults.add(|| error),
        };
        if let Some(before) = &before {
            for fallen in fallen_counters(before, &scrape) {
                scrapes.faults.add(|| fallen);
            }
        }
        let value = |name: &str| scrape.get(name, &[]).unwrap_or(f64::NAN);
        scrapes.usage.push(Usage { at: began.elapsed(), resident: value("process_resident_memory_bytes") });
        before = Some(scrape);
    });
    scrapes
}

/// Counters of the server as a whole that are less than before. An agent's rows go with it.
fn fallen_counters(before: &Scrape, now: &Scrape) -> Vec<String> {
    let key = |sample: &Sample| (sample.name.clone(), sample.labels.clone());
    let counters = |scrape: &Scrape| -> BTreeMap<_, f64> {
        let of_server = scrape.samples.iter().filter(|sample| {
            // Those of the process begin anew with each upgrade.
            sample.name.ends_with("_total")
                && !sample.name.starts_with("process_")
                && !["pid", "agent"].iter().any(|label| sample.labels.contains_key(*label))
        });
        of_server.map(|sample| (key(sample), sample.value)).collect()
    };
    let former = counters(before);
    let fallen = counters(now).into_iter().filter_map(|(key, value)| {
        let before = *former.get(&key)?;
        (value < before).then(|| format!("{} {:?} fell from {before} to {value}", key.0, key.1))
    });
    fallen.collect()
}

/// The configuration of the server, which `round` varies.
pub(crate) fn configuration(round: u64) -> String {
    format!(
        "stall-after = \"5s\"\nlog-level = \"warn,varta::server=info\"\n\n\
         [[rule]]\nname = \"nobody-{round}\"\nstall-after = \"1m\"\n\n\
         [[rule]]\nname = \"*\"\nforget-after = {{ stalled = \"20s\", down = \"20s\", gone = \"5s\" }}\n"
    )
}

/// What is asked of the server by its control socket, one request at a time: an upgrade cuts others off.
#[derive(Debug)]
pub(crate) struct Requests<'s> {
    pub(crate) server: &'s Server,
    /// The file of `--config`.
    pub(crate) file: &'s Path,
    /// The pid of the server, which upgrades change.
    pub(crate) pid: Mutex<u32>,
}

impl Drop for Requests<'_> {
    /// Ends the server that upgrades have left: nobody else does.
    fn drop(&mut self) {
        let pid = *self.lock();
        if pid != self.server.pid() {
            // It may have been stopped already.
            let _ = sys::send_signal(pid, Signal::Kill);
        }
    }
}

/// What cannot be used as a configuration.
const BROKEN: &str = "stall-after = 5\n";

impl Requests<'_> {
    /// Asks while nobody else does.
    fn ask(&self, request: &[&str]) -> Ended {
        let _alone = self.lock();
        self.control(request)
    }

    /// Asks with a file that is broken, which is whole again afterwards, or with the file of another round.
    fn ask_with(&self, request: &[&str], is_broken: bool, round: u64) -> io::Result<Ended> {
        let mut pid = self.lock();
        let whole = configuration(round);
        fs::write(self.file, if is_broken { BROKEN } else { &whole })?;
        let ended = self.control(request);
        fs::write(self.file, whole)?;
        // "the server has pid 4242 from now on"
        if let Some(found) =
            ended.stdout.split(' ').find_map(|word| word.parse().ok()).filter(|_| request == UPGRADE)
        {
            *pid = found;
        }
        Ok(ended)
    }

    fn control(&self, request: &[&str]) -> Ended {
        let socket = self.server.control_socket().into_os_string();
        run_server(request.iter().map(Into::into).chain(["--control-socket".into(), socket]))
    }

    fn lock(&self) -> MutexGuard<'_, u32> {
        self.pid.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Asks at this pace with the configuration of each round, each third time with one that is broken, and then for the
/// opposite result.
fn with_configurations(
    requests: &Requests<'_>,
    request: &[&str],
    pace: Duration,
    is_over: &AtomicBool,
) -> (u64, Faults) {
    let (mut rounds, mut faults) = (0, Faults::default());
    at_pace(pace, is_over, || {
        rounds += 1;
        let is_broken = rounds % 3 == 0;
        match requests.ask_with(request, is_broken, rounds) {
            Ok(ended) if ended.status.code() == Some(i32::from(is_broken)) => {}
            other => faults.add(|| format!("{request:?} {rounds}, broken: {is_broken}: {other:?}")),
        }
    });
    (rounds, faults)
}

/// Reloads the configuration.
pub(crate) fn reload(requests: &Requests<'_>, is_over: &AtomicBool) -> (u64, Faults) {
    with_configurations(requests, &["reload"], Duration::from_secs(3), is_over)
}

/// Starts the server's program anew, which takes over.
pub(crate) fn upgrade(requests: &Requests<'_>, pace: Duration, is_over: &AtomicBool) -> (u64, Faults) {
    with_configurations(requests, UPGRADE, pace, is_over)
}

/// Pauses agents and lifts that again, acknowledges their alarms, and forgets who cannot be forgotten.
pub(crate) fn maintain(asked: &Requests<'_>, seed: u64, is_over: &AtomicBool) -> (u64, Faults) {
    let (mut rounds, mut faults, mut chance) = (0, Faults::default(), Chance::new(seed));
    at_pace(Duration::from_secs(4), is_over, || {
        rounds += 1;
        let name = format!("soak-{}*", chance.below(100));
        // An alarm is there or not.
        let requests: [(&[&str], &[i32]); 4] = [
            (&["pause", &name, "--for", "2s", "--reason", "soak"], &[0]),
            (&["ack", &name], &[0, 1]),
            (&["resume", &name], &[0, 1]),
            (&["forget", "nobody"], &[1]),
        ];
        for (request, expected) in requests {
            let ended = asked.ask(request);
            if !ended.status.code().is_some_and(|code| expected.contains(&code)) {
                faults.add(|| format!("{request:?}: {ended:?}"));
            }
        }
    });
    (rounds, faults)
}

/// The Alertmanager, with all that it was told of each alert.
#[derive(Debug, Default)]
pub(crate) struct Told {
    pub(crate) outages: u64,
    pub(crate) requests: u64,
    /// Those of the receiver that is there.
    taken: usize,
    /// The last `startsAt` and `endsAt` of each alert, by its labels.
    pub(crate) alerts: BTreeMap<String, (String, String)>,
}

impl Told {
    fn take(&mut self, receiver: &Receiver) {
        for request in receiver.requests().into_iter().skip(self.taken) {
            self.taken += 1;
            self.requests += 1;
            for alert in request.json().as_array().into_iter().flatten() {
                let text = |name: &str| alert[name].as_str().unwrap_or_default().to_owned();
                self.alerts.insert(alert["labels"].to_string(), (text("startsAt"), text("endsAt")));
            }
        }
    }

    /// Alerts of which nobody has told it that they have ended, at a time in RFC 3339.
    pub(crate) fn open(&self, now: &str) -> Vec<&str> {
        self.alerts
            .iter()
            .filter(|(_, (_, ends))| ends.as_str() > now)
            .map(|(labels, _)| labels.as_str())
            .collect()
    }
}

/// Runs the Alertmanager, which is away for some seconds now and then until it is over. From then on it is there:
/// until `is_told`, and until it knows the end of each alert.
pub(crate) fn run_alertmanager(
    first: Receiver,
    seed: u64,
    is_over: &AtomicBool,
    is_told: impl Fn() -> bool,
) -> Told {
    let (mut told, mut chance, address) = (Told::default(), Chance::new(seed), first.address());
    let mut receiver = Some(first);
    let mut due = Instant::now() + Duration::from_secs(5);
    while !is_over.load(Ordering::SeqCst) {
        if Instant::now() >= due {
            receiver = match receiver.take() {
                Some(present) => {
                    told.take(&present);
                    told.taken = 0;
                    told.outages += 1;
                    None
                }
                None => Some(Receiver::start_at(address, [])),
            };
            due = Instant::now() + Duration::from_secs(2) + chance.time(Duration::from_secs(8));
        }
        thread::sleep(TICK);
    }
    let receiver = receiver.unwrap_or_else(|| Receiver::start_at(address, []));
    while !is_told() {
        thread::sleep(TICK);
    }
    // The last ends are on their way.
    let deadline = Instant::now() + LIMIT;
    loop {
        told.take(&receiver);
        let now = humantime::format_rfc3339_millis(SystemTime::now()).to_string();
        if told.open(&now).is_empty() || Instant::now() >= deadline {
            break;
        }
        thread::sleep(TICK);
    }
    told
}
