//! A file that is written often: one write goes on at a time, and what is put meanwhile is written once after
//! it.
//!
//! A disk may take its time, so a thread of the runtime's pool writes. Of the contents that are put while it
//! does, only the last is written: no older one is written over a newer one, and a disk that hangs holds up
//! two writes and no more.

use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{Mutex as AsyncMutex, watch};

/// Resolves when a content, or a later one, is written, or with what went wrong.
pub(crate) type Written = Pin<Box<dyn Future<Output = Result<(), String>> + Send>>;

type Write<T> = Box<dyn Fn(&T) -> io::Result<()> + Send + Sync>;
/// `None` until the write is over.
type Outcome = watch::Receiver<Option<Result<(), String>>>;

/// Writes contents to a file.
pub(crate) struct CoalescingWriter<T>(Arc<Inner<T>>);

struct Inner<T> {
    write: Write<T>,
    /// Held during a write, also when its requester no longer waits.
    writing: AsyncMutex<()>,
    next: Mutex<Option<Next<T>>>,
}

/// The write that has not begun yet.
struct Next<T> {
    content: T,
    outcome: Outcome,
}

impl<T: Send + 'static> CoalescingWriter<T> {
    /// Writes by this function, which may block.
    pub(crate) fn new(write: impl Fn(&T) -> io::Result<()> + Send + Sync + 'static) -> Self {
        let (writing, next) = (AsyncMutex::new(()), Mutex::new(None));
        CoalescingWriter(Arc::new(Inner { write: Box::new(write), writing, next }))
    }

    /// Has a content written, also if the result is dropped. No other is taken between the call of `content`
    /// and its place in the order.
    pub(crate) fn put(&self, content: impl FnOnce() -> T) -> Written {
        let mut outcome = self.next(content);
        Box::pin(async move {
            match outcome.wait_for(Option::is_some).await {
                Ok(outcome) => outcome.clone().unwrap_or(Ok(())),
                Err(_) => Err("nobody writes it any more".to_owned()),
            }
        })
    }

    fn next(&self, content: impl FnOnce() -> T) -> Outcome {
        let mut next = self.0.next.lock().unwrap_or_else(PoisonError::into_inner);
        let content = content();
        if let Some(next) = &mut *next {
            next.content = content;
            return next.outcome.clone();
        }
        let (to_all, outcome) = watch::channel(None);
        *next = Some(Next { content, outcome: outcome.clone() });
        let inner = Arc::clone(&self.0);
        tokio::spawn(async move {
            if let Some(written) = inner.write_next().await {
                // Those that asked may have given up waiting.
                let _ = to_all.send(Some(written));
            }
        });
        outcome
    }
}

impl<T: Send + 'static> Inner<T> {
    /// Writes what is there when the write before this one is over; `None` when nothing is.
    async fn write_next(self: Arc<Self>) -> Option<Result<(), String>> {
        let _writing = self.writing.lock().await;
        let Next { content, .. } = self.next.lock().unwrap_or_else(PoisonError::into_inner).take()?;
        let writer = Arc::clone(&self);
        let written = tokio::task::spawn_blocking(move || (writer.write)(&content)).await;
        let written = written.unwrap_or_else(|error| Err(io::Error::other(error)));
        Some(written.map_err(|error| error.to_string()))
    }
}

impl<T> fmt::Debug for CoalescingWriter<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CoalescingWriter").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

    use super::*;

    /// A writer that writes the next content when it is let, and what it has written.
    fn writer() -> (CoalescingWriter<u32>, mpsc::Sender<io::Result<()>>, UnboundedReceiver<u32>) {
        let (result, results) = mpsc::channel::<io::Result<()>>();
        let (content, contents) = unbounded_channel();
        let results = Mutex::new(results);
        let writer = CoalescingWriter::new(move |number: &u32| {
            content.send(*number).unwrap();
            results.lock().unwrap().recv().unwrap()
        });
        (writer, result, contents)
    }

    #[tokio::test]
    async fn what_comes_while_one_is_written_is_written_once() {
        let (writer, go_on, mut written) = writer();
        let first = writer.put(|| 1);
        assert_eq!(written.recv().await, Some(1), "it has begun");
        let more = [2, 3, 4].map(|number| writer.put(|| number));
        go_on.send(Ok(())).unwrap();
        assert_eq!(first.await, Ok(()));
        assert_eq!(written.recv().await, Some(4));
        go_on.send(Ok(())).unwrap();
        for outcome in more {
            assert_eq!(outcome.await, Ok(()));
        }
        drop(writer);
        assert_eq!(written.recv().await, None, "nothing else was written");
    }

    #[tokio::test]
    async fn a_failure_is_told_to_those_whose_content_it_was_and_ends_nothing() {
        let (writer, go_on, mut written) = writer();
        let fails = writer.put(|| 1);
        assert_eq!(written.recv().await, Some(1));
        let succeeds = writer.put(|| 2);
        go_on.send(Err(io::Error::other("no room"))).unwrap();
        go_on.send(Ok(())).unwrap();
        assert_eq!((fails.await, succeeds.await), (Err("no room".to_owned()), Ok(())));
    }

    #[tokio::test]
    async fn it_is_written_though_nobody_waits() {
        let (writer, go_on, mut written) = writer();
        go_on.send(Ok(())).unwrap();
        drop(writer.put(|| 1));
        drop(writer);
        assert_eq!(written.recv().await, Some(1));
    }
}
