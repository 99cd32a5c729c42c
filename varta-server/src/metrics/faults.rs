//! Faults of the server itself that last: what does not work and is being repaired, or waits for somebody to
//! decide. `/readyz` and the metrics report them, and each part writes its own log lines.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use metrics::{Counter, Gauge};

use crate::metrics::Registry;
use crate::metrics::family::families;

families! {
    FAULTS = "varta_faults", "1 while this part of the server does not work; /readyz says what is wrong with it.";
    FILES_REPLACED = "varta_files_replaced_total", "Files and sockets that were removed, moved or cut off by others while this server used them.";
}

/// A part of the server that can fail while the rest works: the value of the label `part`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Part {
    Audit,
    CheckSocket,
    Configuration,
    ControlSocket,
    NotifySocket,
    Socket,
    State,
}

impl Part {
    const ALL: [Part; 7] = [
        Part::Audit,
        Part::CheckSocket,
        Part::Configuration,
        Part::ControlSocket,
        Part::NotifySocket,
        Part::Socket,
        Part::State,
    ];

    const fn as_str(self) -> &'static str {
        match self {
            Part::Audit => "audit",
            Part::CheckSocket => "check_socket",
            Part::Configuration => "configuration",
            Part::ControlSocket => "control_socket",
            Part::NotifySocket => "notify_socket",
            Part::Socket => "socket",
            Part::State => "state",
        }
    }

    /// What does not work without it, as a sentence.
    pub(crate) const fn loss(self) -> &'static str {
        match self {
            Part::Audit => "no action is taken",
            Part::CheckSocket => "agents cannot ask whether their beats are taken",
            Part::Configuration => "the former one counts",
            Part::ControlSocket => "nobody can ask for pauses and other changes",
            Part::NotifySocket => "services cannot reach this server by sd_notify(3)",
            Part::Socket => "nobody finds this server",
            Part::State => "nothing is kept for the next server",
        }
    }

    /// Whether others can take its file away while it is in use. The configuration is read, and not held.
    const fn is_held(self) -> bool {
        !matches!(self, Part::Configuration)
    }

    /// Whether the server is not ready without it. It is without the audit log, as it watches and acts on
    /// nothing, without a check socket, with which no beat has to do, and with a
    /// configuration that cannot be used, which leaves the former one.
    const fn is_needed(self) -> bool {
        match self {
            Part::ControlSocket | Part::NotifySocket | Part::Socket | Part::State => true,
            Part::Audit | Part::CheckSocket | Part::Configuration => false,
        }
    }
}

/// The faults of the server at present. Clones share them.
#[derive(Clone, Debug)]
pub(crate) struct Faults(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// By part and the file or socket.
    present: Mutex<BTreeMap<(Part, Box<Path>), String>>,
    /// One for each part.
    gauges: [Gauge; Part::ALL.len()],
    replaced: [Counter; Part::ALL.len()],
}

impl Faults {
    /// Registers the metrics. There is no fault.
    pub(crate) fn new(registry: &Registry) -> Self {
        let label = |part: Part| [("part", part.as_str())];
        Faults(Arc::new(Inner {
            present: Mutex::default(),
            gauges: Part::ALL.map(|part| registry.gauge(FAULTS, &label(part))),
            replaced: Part::ALL.map(|part| {
                if part.is_held() { registry.counter(FILES_REPLACED, &label(part)) } else { Counter::noop() }
            }),
        }))
    }

    /// Sets the fault of a file or socket, in the place of a former one.
    pub(crate) fn set(&self, part: Part, path: &Path, fault: impl Into<String>) {
        self.change(part, |present| _ = present.insert((part, path.into()), fault.into()));
    }

    /// A file or socket works, again or still.
    pub(crate) fn clear(&self, part: Part, path: &Path) {
        self.change(part, |present| _ = present.remove(&(part, path.into())));
    }

    fn change(&self, part: Part, change: impl FnOnce(&mut BTreeMap<(Part, Box<Path>), String>)) {
        let Inner { present, gauges, .. } = &*self.0;
        let mut present = present.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut present);
        let is_faulty = present.keys().any(|(faulty, _)| *faulty == part);
        gauges[part as usize].set(if is_faulty { 1.0 } else { 0.0 });
    }

    /// Counts a file or socket that another program removed, moved or cut off.
    pub(crate) fn count_replaced(&self, part: Part) {
        self.0.replaced[part as usize].increment(1);
    }

    /// Whether the server is ready in spite of its faults, and a line for each of them: with `details` the file
    /// and what is wrong with it, without only the part.
    pub(crate) fn report(&self, details: bool) -> (bool, String) {
        let present = self.0.present.lock().unwrap_or_else(PoisonError::into_inner);
        let is_ready = !present.keys().any(|(part, _)| part.is_needed());
        let line = |((part, path), fault): (&(Part, Box<Path>), &String)| match details {
            true => format!("{}: {}: {fault}\n", part.as_str(), path.display()),
            false => format!("{}\n", part.as_str()),
        };
        let lines = present.iter().map(line);
        (is_ready, lines.collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_is_faulty_until_all_of_its_files_work_again() {
        let registry = Registry::for_test();
        let handle = registry.handle();
        let counted = |row: &str| handle.render().lines().any(|line| line == row);
        let faults = Faults::new(&registry);
        assert_eq!(faults.report(true), (true, String::new()));
        assert!(counted("varta_faults{part=\"socket\"} 0"));
        let [one, other] = ["/run/one", "/run/other"].map(Path::new);
        faults.set(Part::Socket, one, "was removed");
        faults.set(Part::Socket, one, "is taken");
        faults.set(Part::Socket, other, "was removed");
        faults.count_replaced(Part::Socket);
        let lines = "socket: /run/one: is taken\nsocket: /run/other: was removed\n";
        assert_eq!(faults.report(true), (false, lines.to_owned()));
        assert_eq!(faults.report(false), (false, "socket\nsocket\n".to_owned()));
        assert!(counted("varta_faults{part=\"socket\"} 1"));
        assert!(counted("varta_files_replaced_total{part=\"socket\"} 1"));
        faults.clear(Part::Socket, one);
        assert!(counted("varta_faults{part=\"socket\"} 1"));
        faults.clear(Part::Socket, other);
        assert!(counted("varta_faults{part=\"socket\"} 0"));
        assert_eq!(faults.report(true), (true, String::new()));
    }

    #[test]
    fn without_its_audit_log_and_its_check_socket_the_server_is_ready_and_says_what_it_lacks() {
        let faults = Faults::new(&Registry::for_test());
        faults.set(Part::Audit, Path::new("audit.log"), "is broken");
        faults.set(Part::CheckSocket, Path::new("varta.sock.check"), "is taken");
        let lines = "audit: audit.log: is broken\ncheck_socket: varta.sock.check: is taken\n";
        assert_eq!(faults.report(true), (true, lines.to_owned()));
        assert!(Part::ALL.iter().enumerate().all(|(index, part)| index == *part as usize));
    }
}
