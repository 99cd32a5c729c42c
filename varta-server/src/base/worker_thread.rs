//! Threads that are never joined: a disk that hangs must not keep the program from ending.

use std::future::Future;
use std::{io, thread};

use tokio::runtime::Builder;
use tokio::sync::oneshot;

/// What a worker thread sends when its work is done. A thread that panics drops the sender without a word.
pub(crate) type Ended = oneshot::Receiver<()>;

/// Starts a thread.
///
/// # Errors
///
/// When the system has no thread for it.
pub(crate) fn start(name: &str, work: impl FnOnce() + Send + 'static) -> io::Result<Ended> {
    let (ended, end) = oneshot::channel();
    thread::Builder::new().name(name.to_owned()).spawn(move || {
        work();
        // The receiver may have given up waiting.
        let _ = ended.send(());
    })?;
    Ok(end)
}

/// Starts a thread with a runtime of its own, which has timers and nothing else.
///
/// # Errors
///
/// When the system has no thread or no runtime for it.
pub(crate) fn start_async(name: &str, work: impl Future<Output = ()> + Send + 'static) -> io::Result<Ended> {
    let runtime = Builder::new_current_thread().enable_time().build()?;
    start(name, move || runtime.block_on(work))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn its_end_is_known_and_so_is_a_panic() {
        assert_eq!(start("done", || {}).unwrap().await, Ok(()));
        assert_eq!(start_async("done", async {}).unwrap().await, Ok(()));
        let panics = || std::panic::resume_unwind(Box::new("no message"));
        assert!(start("panics", panics).unwrap().await.is_err());
    }

    #[tokio::test]
    async fn it_works_on_when_its_end_is_of_no_interest() {
        let (worked, has_worked) = oneshot::channel();
        let (go_on, may_go_on) = std::sync::mpsc::channel::<()>();
        let end = start("worker", move || {
            assert!(may_go_on.recv().is_err());
            let _ = worked.send(());
        });
        drop(end.unwrap());
        drop(go_on);
        assert_eq!(has_worked.await, Ok(()));
    }
}
