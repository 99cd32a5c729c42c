//! The keys of the secure sockets, and the replay windows of what they have opened.
//!
//! All secure sockets share one keyring, so that a datagram recorded on one of them is a replay on every
//! other. Key files are read at the start and at each reload; a reload that fails leaves the keys as they
//! were.

#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use varta_proto::DecodeError;
use varta_proto::control::MAX_CONTROL_LEN;
use varta_proto::secure::{
    AgentKeys, Key, KeyFileError, MASTER_LEN, OpenError, Opened, OpenedControl, Opener, SHARED_LEN, open_any,
    open_control_any,
};

use crate::base::error::Error;
use crate::base::time::MonoTime;
use crate::domain::beat::{KeyId, Sender};
use crate::domain::outcome::FrameOutcome;
use crate::ingest::message::Message;
use crate::ingest::recvmmsg::Datagram;
use crate::ingest::replay::persisted::PersistedWindow;
use crate::ingest::replay::{ReplayTable, SealedHeader, SessionClock};

/// The most keys in one file. Each key costs every datagram of its form one trial decryption, genuine or not.
const MAX_KEYS: usize = 16;
/// The least time for which a session's replay window is protected after its last datagram. When the table is
/// full, a window that has been silent for longer than this and for longer than two deadlines may be
/// replaced.
const LIVE_FOR: Duration = Duration::from_secs(60);
/// Replay windows for each agent: that of its session, and that of the session before.
const SESSIONS_PER_AGENT: usize = 2;
/// The least capacity of the replay table.
const FEWEST_SESSIONS: usize = 65_536;

/// The key files of the secure sockets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyFiles {
    /// The one key that server and agents share.
    pub key: Option<PathBuf>,
    /// Further shared keys that are accepted: the old and the new key while keys are rotated.
    pub accepted: Option<PathBuf>,
    /// Master keys, from which each agent's own key is derived.
    pub master: Option<PathBuf>,
}

impl KeyFiles {
    /// The option that names the first of the given files.
    #[must_use]
    pub fn option(&self) -> Option<&'static str> {
        let given = [
            (&self.key, "--key-file"),
            (&self.accepted, "--accepted-key-file"),
            (&self.master, "--master-key-file"),
        ];
        given.into_iter().find_map(|(file, option)| file.as_ref().map(|_| option))
    }

    /// Whether no file is configured.
    #[must_use]
    pub fn are_none(&self) -> bool {
        *self == KeyFiles::default()
    }
}

/// The keys and the replay table, shared by all secure sockets; a clone refers to the same state.
#[derive(Clone, Debug)]
pub(crate) struct Keyring {
    content: Arc<Mutex<KeyringState>>,
    /// Notified when a replay window changes after all earlier changes were taken to be saved.
    news: Arc<Notify>,
}

/// The state of a keyring, behind its lock.
#[derive(Debug)]
pub(super) struct KeyringState {
    keys: Keys,
    known: KeyIndex,
    replays: ReplayTable,
    news: Arc<Notify>,
}

/// The keys that open datagrams, each with its id.
#[derive(Debug, Default)]
struct Keys {
    shared: Vec<(KeyId, Key)>,
    master: Vec<(KeyId, AgentKeys)>,
}

/// A decrypted datagram and the key that opened it.
struct Decrypted {
    key: KeyId,
    pid: u32,
    prefix: [u8; 8],
    counter: u32,
    nonce: u64,
    timestamp: u64,
    message: Message,
}

/// The fingerprints of all keys that were ever loaded, indexed by [`KeyId`]: a key that returns gets its old
/// id.
#[derive(Clone, Debug, Default)]
struct KeyIndex(Vec<u64>);

impl Keyring {
    /// Reads the key files, if there are any. `stall_after` is the longest timeout of an agent. `known` are the
    /// fingerprints of the server that this one takes over from, whose keys keep their ids.
    ///
    /// # Errors
    ///
    /// The first file that cannot be used.
    pub(crate) fn read(
        files: &KeyFiles,
        max_agents: usize,
        stall_after: Duration,
        known: Vec<u64>,
    ) -> Result<Self, Error> {
        let mut known = KeyIndex(known);
        let keys = Keys::read(files, &mut known)?;
        let most = max_agents.saturating_mul(SESSIONS_PER_AGENT).max(FEWEST_SESSIONS);
        let replays = ReplayTable::new(most, live_for(stall_after));
        let news = Arc::new(Notify::new());
        let content = KeyringState { keys, known, replays, news: Arc::clone(&news) };
        Ok(Keyring { content: Arc::new(Mutex::new(content)), news })
    }

    /// Reads other key files, or the same again. `stall_after` is the longest timeout of an agent. Nothing changes by
    /// it.
    ///
    /// # Errors
    ///
    /// The first file that cannot be used.
    pub(crate) fn stage(&self, files: &KeyFiles, stall_after: Duration) -> Result<StagedKeys, Error> {
        let mut known = self.open().known.clone();
        let keys = Keys::read(files, &mut known)?;
        Ok(StagedKeys { keyring: self.clone(), keys, known, live_for: live_for(stall_after) })
    }

    /// The fingerprints of all keys that were ever loaded, indexed by [`KeyId`].
    pub(crate) fn fingerprints(&self) -> Vec<u64> {
        self.open().known.0.clone()
    }

    /// The capacity of the replay table, in sessions.
    pub(crate) fn most_sessions(&self) -> usize {
        self.open().replays.most()
    }

    /// All replay windows, for the server that takes over.
    pub(crate) fn windows(&self) -> Vec<PersistedWindow> {
        let content = self.open();
        content.replays.windows(|key| content.known.0.get(usize::from(key.0)).copied())
    }

    /// Restores the replay windows that an earlier server saved.
    pub(crate) fn restore(&self, seals: &[PersistedWindow]) {
        let content = &mut *self.open();
        for seal in seals {
            // The ids are used up: windows of further keys cannot be told apart.
            let Some(key) = content.known.number_of(seal.key) else { continue };
            content.replays.restore(key, seal);
        }
    }

    /// Waits for a change that came after [`Keyring::unsaved_batch`] last began at slot 0.
    pub(crate) async fn changed(&self) {
        self.news.notified().await;
    }

    /// Takes a batch of changed replay windows from slot `from` on, and marks them as saved. Returns them
    /// with the slot to continue from; `None` at the end of the table.
    pub(crate) fn unsaved_batch(
        &self,
        from: usize,
        looks: usize,
        most: usize,
    ) -> (Vec<PersistedWindow>, Option<usize>) {
        let KeyringState { known, replays, .. } = &mut *self.open();
        replays.unsaved_batch(from, looks, most, |key| known.0.get(usize::from(key.0)).copied())
    }

    /// Marks every replay window as unsaved.
    pub(crate) fn mark_unsaved(&self) {
        self.open().replays.mark_unsaved();
        self.news.notify_one();
    }

    /// The id of the key with this fingerprint, even if it is not loaded now; `None` when the ids are used
    /// up.
    pub(crate) fn number_of(&self, fingerprint: u64) -> Option<KeyId> {
        self.open().known.number_of(fingerprint)
    }

    pub(super) fn open(&self) -> MutexGuard<'_, KeyringState> {
        // Every update leaves the state valid: a panic under the lock admits no datagram that is a replay.
        self.content.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The time for which the replay window of a session is protected where agents may be silent for so long.
fn live_for(stall_after: Duration) -> Duration {
    LIVE_FOR.max(2 * stall_after)
}

/// Keys that were read and do not count yet.
#[derive(Debug)]
pub(crate) struct StagedKeys {
    keyring: Keyring,
    keys: Keys,
    known: KeyIndex,
    live_for: Duration,
}

impl StagedKeys {
    /// Has the keys count from now on, and gives how many there are. What is remembered of datagrams stays.
    pub(crate) fn commit(self) -> usize {
        let StagedKeys { keyring, keys, known, live_for } = self;
        let mut content = keyring.open();
        content.replays.keep_for(live_for);
        content.keys = keys;
        content.known = known;
        content.keys.shared.len() + content.keys.master.len()
    }
}

impl KeyringState {
    /// Authenticates a datagram and checks it for replay. Returns sender and message, or why the datagram is
    /// refused.
    pub(super) fn authenticate(
        &mut self,
        datagram: &Datagram<'_>,
        at: MonoTime,
    ) -> Result<(Sender, Message), FrameOutcome> {
        let source = datagram.source.ok_or(FrameOutcome::Unattested)?;
        if datagram.truncated {
            return Err(FrameOutcome::Malformed(DecodeError::BadLength { actual: datagram.payload.len() }));
        }
        let Decrypted { key, pid, prefix, counter, nonce, timestamp, message } =
            self.keys.open(datagram.payload).map_err(outcome_of)?;
        let line = SessionClock::of(nonce, timestamp, at);
        let had_unsaved = self.replays.has_unsaved();
        self.replays.admit(&SealedHeader { key, pid, source, prefix, counter, line }, at)?;
        if !had_unsaved {
            self.news.notify_one();
        }
        Ok((Sender::secure_udp(source, pid, key), message))
    }
}

impl Keys {
    fn read(files: &KeyFiles, known: &mut KeyIndex) -> Result<Self, Error> {
        let mut keys = Keys::default();
        if let Some(path) = &files.key {
            let key = Key::from_file(path).map_err(|error| unusable(&error))?;
            keys.shared.push((known.number(&key, path)?, key));
        }
        if let Some(path) = &files.accepted {
            for key in read_several(path)? {
                let number = known.number(&key, path)?;
                add(&mut keys.shared, number, key, path)?;
            }
        }
        if let Some(path) = &files.master {
            for key in read_several(path)? {
                let number = known.number(&key, path)?;
                add(&mut keys.master, number, AgentKeys::new(&key), path)?;
            }
        }
        Ok(keys)
    }

    /// Opens a datagram with the key that fits it. All candidate keys are tried, whichever of them fits.
    #[inline]
    fn open(&self, datagram: &[u8]) -> Result<Decrypted, OpenError> {
        let shared = self.shared.iter().map(|(_, key)| Opener::Shared(key));
        let master = self.master.iter().map(|(_, keys)| Opener::Agents(keys));
        let openers = shared.chain(master);
        let (index, mut unsealed) = if matches!(datagram.len(), SHARED_LEN | MASTER_LEN) {
            let (index, Opened { frame, iv_random, iv_counter }) = open_any(openers, datagram)?;
            let unsealed = Decrypted {
                key: KeyId::default(),
                pid: frame.pid,
                prefix: iv_random,
                counter: iv_counter,
                nonce: frame.nonce,
                timestamp: frame.timestamp,
                message: Message::Beat(frame),
            };
            (index, unsealed)
        } else {
            let mut room = [0; MAX_CONTROL_LEN];
            let (index, opened) = open_control_any(openers, datagram, &mut room)?;
            let OpenedControl { control, iv_random, iv_counter } = opened;
            let unsealed = Decrypted {
                key: KeyId::default(),
                pid: control.pid(),
                prefix: iv_random,
                counter: iv_counter,
                nonce: control.nonce(),
                timestamp: control.timestamp(),
                message: Message::of(&control).map_err(OpenError::Frame)?,
            };
            (index, unsealed)
        };
        let mut numbers =
            self.shared.iter().map(|(number, _)| number).chain(self.master.iter().map(|(number, _)| number));
        unsealed.key = *numbers.nth(index).ok_or(OpenError::AuthFailed)?;
        Ok(unsealed)
    }
}

impl KeyIndex {
    fn number(&mut self, key: &Key, path: &Path) -> Result<KeyId, Error> {
        self.number_of(key.fingerprint()).ok_or_else(|| {
            Error::configuration_file(path, "is one key too many for this server's life; restart it")
        })
    }

    fn number_of(&mut self, fingerprint: u64) -> Option<KeyId> {
        let known = self.0.iter().position(|known| *known == fingerprint);
        let number = u16::try_from(known.unwrap_or(self.0.len())).ok()?;
        if known.is_none() {
            self.0.push(fingerprint);
        }
        Some(KeyId(number))
    }
}

/// Adds a key unless it is there already, so that no key is tried twice.
fn add<K>(keys: &mut Vec<(KeyId, K)>, number: KeyId, key: K, path: &Path) -> Result<(), Error> {
    if keys.iter().all(|(there, _)| *there != number) {
        keys.push((number, key));
    }
    if keys.len() > MAX_KEYS {
        let fault = format!("makes it more than {MAX_KEYS} keys, and each costs every datagram a trial");
        return Err(Error::configuration_file(path, fault));
    }
    Ok(())
}

fn read_several(path: &Path) -> Result<Vec<Key>, Error> {
    let keys = Key::all_from_file(path).map_err(|error| unusable(&error))?;
    if keys.len() > MAX_KEYS {
        let fault =
            format!("holds {} keys, and each costs every datagram a trial; at most {MAX_KEYS}", keys.len());
        return Err(Error::configuration_file(path, fault));
    }
    Ok(keys)
}

fn unusable(error: &KeyFileError) -> Error {
    Error::configuration_file(error.path(), error.fault().to_string())
}

fn outcome_of(error: OpenError) -> FrameOutcome {
    match error {
        OpenError::BadLength { actual } => FrameOutcome::Malformed(DecodeError::BadLength { actual }),
        OpenError::PidMismatch => FrameOutcome::PidMismatch,
        OpenError::Frame(error) => FrameOutcome::Malformed(error),
        // `OpenError` is non-exhaustive: an error that is unknown here did not decrypt.
        _ => FrameOutcome::DecryptFailed,
    }
}
