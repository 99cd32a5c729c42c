//! What recovery has done, over a restart of the server: `recovery.json` in the directory of `--state-dir`. Without it a
//! server that is started again and again would begin each time with full budgets and no attempts.

use std::future::pending;
use std::io;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::base::clock::Clock;
use crate::base::error::Error;
use crate::base::files::bounded_read::Owner;
use crate::base::files::coalescing_writer::{CoalescingWriter, Written};
use crate::base::files::private_json::{Fault, PrivateJson};
use crate::base::files::state_dir::StateDir;
use crate::observe::Boot;
use crate::services::recovery::planner::estate::PlannerEstate;

const NAME: &str = "recovery.json";
/// The version of the file's format.
const VERSION: u32 = 1;
/// The limit of the file's length in bytes. The server writes less: some hundred bytes for each agent in recovery.
const MAX_LEN: u64 = 64 << 20;
/// The shortest time between two writes of the file.
const SAVE_EVERY: Duration = Duration::from_secs(1);

/// The content of the file.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Content {
    version: u32,
    /// The boot of the host, within which pids and times mean the same.
    boot: String,
    /// `CLOCK_MONOTONIC` at the start of the server's clock, in nanoseconds.
    clock_start: u64,
    estate: PlannerEstate,
}

/// The path of the file, which need not exist.
#[derive(Clone, Debug)]
pub(super) struct RecoveryFile {
    file: PrivateJson,
    /// Holds the lock of the directory until the last write has ended.
    _directory: StateDir,
}

impl RecoveryFile {
    /// The file in a state directory.
    ///
    /// # Errors
    ///
    /// A newer server wrote it. It is unchanged.
    pub(super) fn open(directory: &StateDir) -> Result<Self, Error> {
        let path = directory.path().join(NAME);
        let file = PrivateJson::new(path, u64::from(VERSION), MAX_LEN, Owner::Anybody);
        file.refuse_newer()?;
        Ok(RecoveryFile { file, _directory: directory.clone() })
    }

    /// What the server before this one has left, by this one's clock; nothing after another boot of the host, whose
    /// processes were others. A file that cannot be read is logged, and one that is broken is moved aside.
    pub(super) fn read(&self, clock: Clock) -> PlannerEstate {
        let path = self.file.path().display();
        let content = match self.file.read(parse) {
            Ok(content) => content,
            Err(Fault::Broken(fault)) => {
                let moved = self.file.move_aside();
                tracing::warn!(
                    target: "varta::recovery",
                    "{path}: is broken ({fault}); {moved}, and recovery begins with full budgets and no attempts"
                );
                None
            }
            Err(Fault::Unreadable(error)) => {
                tracing::warn!(
                    target: "varta::recovery",
                    "{path}: {error}; recovery begins with full budgets and no attempts"
                );
                None
            }
        };
        let is_of_this_boot = |content: &Content| is_same_boot(&content.boot, &this_boot());
        let Some(Content { clock_start, mut estate, .. }) = content.filter(is_of_this_boot) else {
            return PlannerEstate::default();
        };
        estate.shift(clock_start, clock.host_start());
        estate
    }

    fn write(&self, content: &Content) -> io::Result<()> {
        self.file.write(&serde_json::to_vec(content)?)
    }
}

fn this_boot() -> String {
    Boot::this().map_or_else(String::new, |boot| boot.to_string())
}

/// Whether pids and times of one boot mean the same in the other.
fn is_same_boot(one: &str, other: &str) -> bool {
    let [one, other] = [one, other].map(|text| Boot::parse(text).map(|boot| (boot.id, boot.namespace)));
    one.is_some() && one == other
}

fn parse(content: &[u8]) -> Result<Content, String> {
    let content: Content = serde_json::from_slice(content).map_err(|error| error.to_string())?;
    match content.version {
        VERSION => Ok(content),
        other => Err(format!("its form has version {other}, and this server knows {VERSION}")),
    }
}

/// The pending write of the file.
pub(super) struct Saving {
    file: Option<(RecoveryFile, CoalescingWriter<Content>)>,
    boot: String,
    is_due: bool,
    not_before: Instant,
    writing: Option<Written>,
    is_failing: bool,
}

impl Saving {
    pub(super) fn new(file: Option<RecoveryFile>) -> Self {
        let file = file.map(|file| {
            let to_write = file.clone();
            (file, CoalescingWriter::new(move |content: &Content| to_write.write(content)))
        });
        let (boot, not_before) = (this_boot(), Instant::now());
        Saving { file, boot, is_due: false, not_before, writing: None, is_failing: false }
    }

    /// What the server before this one has left, if there is a file.
    pub(super) fn read(&self, clock: Clock) -> Option<PlannerEstate> {
        self.file.as_ref().map(|(file, _)| file.read(clock))
    }

    /// Notes that something has changed.
    pub(super) fn change(&mut self) {
        self.is_due = self.file.is_some();
    }

    /// When to start a write; `None` if there is nothing to write or a write is running.
    pub(super) fn next_at(&self) -> Option<Instant> {
        (self.is_due && self.writing.is_none()).then_some(self.not_before)
    }

    /// Begins a write.
    pub(super) fn begin(&mut self, estate: impl FnOnce() -> PlannerEstate, clock: Clock) {
        let Some((_, writer)) = &self.file else { return };
        self.is_due = false;
        self.not_before = Instant::now() + SAVE_EVERY;
        let (boot, clock_start) = (self.boot.clone(), clock.host_start());
        self.writing = Some(writer.put(|| Content { version: VERSION, boot, clock_start, estate: estate() }));
    }

    /// Resolves with the result of the write that goes on; never without one.
    pub(super) async fn written(&mut self) -> Result<(), String> {
        match &mut self.writing {
            Some(writing) => writing.await,
            None => pending().await,
        }
    }

    /// Handles the result of a write; a failed one is repeated.
    pub(super) fn finish(&mut self, written: Result<(), String>) {
        self.writing = None;
        let Some((file, _)) = &self.file else { return };
        let path = file.file.path().display();
        match written {
            Ok(()) if std::mem::take(&mut self.is_failing) => {
                tracing::info!(target: "varta::recovery", "{path}: recovery is written down again");
            }
            Ok(()) => {}
            Err(error) => {
                if !std::mem::replace(&mut self.is_failing, true) {
                    tracing::error!(target: "varta::recovery", "{path}: cannot be written: {error}; trying again");
                }
                self.is_due = true;
            }
        }
    }

    /// Writes what is still to be written, at the end of the server.
    pub(super) async fn end(&mut self, estate: impl FnOnce() -> PlannerEstate, clock: Clock) {
        if let Some(writing) = self.writing.take() {
            self.finish(writing.await);
        }
        self.begin(estate, clock);
        if let Some(writing) = self.writing.take() {
            self.finish(writing.await);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn content(boot: String) -> Content {
        Content { version: VERSION, boot, clock_start: 5, estate: PlannerEstate::default() }
    }

    #[test]
    fn what_is_written_is_read_within_the_same_boot() {
        let directory = tempfile::tempdir().unwrap();
        let file = RecoveryFile::open(&StateDir::open(directory.path()).unwrap()).unwrap();
        let estate: PlannerEstate =
            serde_json::from_str(r#"{"spent":7000000000,"groups":[["a",9]],"records":[],"episodes":[]}"#)
                .unwrap();
        let clock = Clock::start();
        let text = |estate: &PlannerEstate| serde_json::to_string(estate).unwrap();
        assert_eq!(text(&file.read(clock)), text(&PlannerEstate::default()));
        let clock_start = clock.host_start().saturating_sub(2_000_000_000);
        file.write(&Content { estate, clock_start, ..content(this_boot()) }).unwrap();
        // This clock has started two seconds later, and what is over is at its start.
        assert_eq!(
            text(&file.read(clock)),
            r#"{"spent":5000000000,"groups":[["a",0]],"records":[],"episodes":[]}"#
        );
        file.write(&content("another pid:[1] 0".to_owned())).unwrap();
        assert_eq!(text(&file.read(clock)), text(&PlannerEstate::default()));
    }

    #[test]
    fn a_broken_file_is_moved_aside_and_one_of_a_newer_server_refused() {
        let directory = tempfile::tempdir().unwrap();
        let place = StateDir::open(directory.path()).unwrap();
        let file = RecoveryFile::open(&place).unwrap();
        for broken in ["", "{", r#"{"version":0}"#, r#"{"version":1,"boot":"","clock_start":0,"estate":{}}"#]
        {
            fs::write(file.file.path(), broken).unwrap();
            file.read(Clock::start());
            assert!(!file.file.path().exists(), "{broken}");
        }
        fs::write(file.file.path(), r#"{"version":2,"more":[]}"#).unwrap();
        assert!(matches!(RecoveryFile::open(&place), Err(Error::NewerState { version: 2, .. })));
    }
}
