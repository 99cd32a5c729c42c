//! Has pauses written to the disk, and waits for that, but not for long.
//!
//! A disk may take its time, so a thread of the runtime's pool writes. One write goes on at a time, and one more may wait for
//! it: that looks at the list when its turn has come, and so writes what all have asked for who came meanwhile. So no older
//! list is written over a newer one, and a disk that hangs is not waited for by more than these two.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Mutex as AsyncMutex, watch};

use crate::services::maintenance::pause::Pause;
use crate::services::maintenance::pause_file::KeptFile;
use crate::services::maintenance::pauses::Pauses;

/// How long a write is waited for: less than who asks for a pause waits for an answer.
pub(super) const WRITTEN_WITHIN: Duration = Duration::from_secs(5);

/// What became of the pauses on the disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Kept {
    /// They are there.
    Written,
    /// There is no place for them.
    Nowhere,
    /// They are not there, and why.
    Failed(String),
}

/// The file, and who writes it.
#[derive(Clone, Debug)]
pub(super) struct Keeper(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    pauses: Pauses,
    /// `None` without `--state-dir`.
    file: Option<KeptFile>,
    /// Whoever writes has it until that is done, also when nobody waits any more.
    writing: AsyncMutex<()>,
    /// What will come of the write that has not looked at the list yet; `None` where none waits.
    next: Mutex<Option<Answer>>,
}

/// `None` until it is known.
type Answer = watch::Receiver<Option<Kept>>;

impl Keeper {
    pub(super) fn new(pauses: Pauses, file: Option<KeptFile>) -> Self {
        Keeper(Arc::new(Shared { pauses, file, writing: AsyncMutex::new(()), next: Mutex::new(None) }))
    }

    /// Whether there is a place on the disk.
    pub(super) fn has_place(&self) -> bool {
        self.0.file.is_some()
    }

    /// Has written what is asked for by now, and says what came of it. What takes too long is said to have failed, and is
    /// written when the disk takes it.
    pub(super) async fn keep(&self) -> Kept {
        let Some(file) = &self.0.file else { return Kept::Nowhere };
        let mut answer = self.next(file);
        let answered = tokio::time::timeout(WRITTEN_WITHIN, answer.wait_for(Option::is_some));
        let fault = match answered.await {
            Ok(Ok(kept)) => return kept.clone().expect("it is waited for until it is there"),
            Ok(Err(_)) => "nobody writes it any more".to_owned(),
            Err(_) => format!("the disk has not taken it for {WRITTEN_WITHIN:?}"),
        };
        Kept::Failed(tell(file, &fault))
    }

    /// The write that has not looked at the list yet.
    fn next(&self, file: &KeptFile) -> Answer {
        let mut next = self.0.next.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(answer) = &*next {
            return answer.clone();
        }
        let (tell_all, answer) = watch::channel(None);
        *next = Some(answer.clone());
        let (shared, file) = (Arc::clone(&self.0), file.clone());
        tokio::spawn(async move {
            let kept = shared.write(file).await;
            // Who asked may have given up waiting.
            let _ = tell_all.send(Some(kept));
        });
        answer
    }
}

impl Shared {
    async fn write(&self, file: KeptFile) -> Kept {
        let _writing = self.writing.lock().await;
        *self.next.lock().unwrap_or_else(PoisonError::into_inner) = None;
        let pauses: Vec<Pause> = self.pauses.look(|list| list.asked().cloned().collect());
        let writing = file.clone();
        let written = tokio::task::spawn_blocking(move || writing.write(&pauses)).await;
        match written.unwrap_or_else(|error| Err(io::Error::other(error))) {
            Ok(()) => Kept::Written,
            Err(error) => Kept::Failed(tell(&file, &error.to_string())),
        }
    }
}

/// Says in the log that the file is not what it should be.
fn tell(file: &KeptFile, fault: &str) -> String {
    let fault = format!("{}: cannot be written: {fault}", file.path().display());
    tracing::error!(
        target: "varta::maintenance",
        "{fault}; a restart goes by the pauses that were kept before"
    );
    fault
}
