//! Accepting connections, a limited number at once.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// The pause after a connection could not be accepted. Descriptors that have run out would be asked for again
/// at once otherwise, which only burns the CPU.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A socket that accepts connections.
pub(crate) trait Listener {
    type Stream;

    fn accept(&self) -> impl Future<Output = io::Result<Self::Stream>> + Send;

    /// The address of the other end, where it has one.
    fn peer(_stream: &Self::Stream) -> Option<SocketAddr> {
        None
    }
}

impl Listener for TcpListener {
    type Stream = TcpStream;

    async fn accept(&self) -> io::Result<TcpStream> {
        TcpListener::accept(self).await.map(|(stream, _)| stream)
    }

    fn peer(stream: &TcpStream) -> Option<SocketAddr> {
        stream.peer_addr().ok()
    }
}

impl Listener for UnixListener {
    type Stream = UnixStream;

    async fn accept(&self) -> io::Result<UnixStream> {
        UnixListener::accept(self).await.map(|(stream, _)| stream)
    }
}

/// Accepts connections until `stop` is cancelled, and serves each on a task of its own: at most `limit` at
/// once, more wait in the kernel's queue. When all places are taken `make_room` is called, which may end one of
/// those tasks, so that the next client finds a place. The first failure to accept after a success goes to
/// `warn`. Gives the tasks that still run.
pub(crate) async fn accept<L: Listener, F>(
    listener: &L,
    limit: usize,
    stop: &CancellationToken,
    warn: impl Fn(&io::Error),
    make_room: impl Fn(),
    serve: impl Fn(L::Stream) -> F,
) -> TaskTracker
where
    F: Future<Output = ()> + Send + 'static,
{
    let places = Arc::new(Semaphore::new(limit));
    let connections = TaskTracker::new();
    let mut is_failing = false;
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            accepted = async {
                if places.available_permits() == 0 {
                    make_room();
                }
                // The semaphore is never closed.
                let place = Arc::clone(&places).acquire_owned().await.ok()?;
                Some((place, listener.accept().await))
            } => accepted,
        };
        match accepted {
            Some((place, Ok(stream))) => {
                is_failing = false;
                let served = serve(stream);
                connections.spawn(async move {
                    served.await;
                    drop(place);
                });
            }
            Some((_, Err(error))) => {
                if !is_failing {
                    warn(&error);
                }
                is_failing = true;
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
            None => break,
        }
    }
    connections.close();
    connections
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    /// Gives these connections, and then none.
    struct Script(Mutex<VecDeque<io::Result<u32>>>);

    impl Script {
        fn new(results: impl IntoIterator<Item = io::Result<u32>>) -> Self {
            Script(Mutex::new(results.into_iter().collect()))
        }
    }

    impl Listener for Script {
        type Stream = u32;

        async fn accept(&self) -> io::Result<u32> {
            let next = self.0.lock().unwrap().pop_front();
            match next {
                Some(next) => next,
                None => std::future::pending().await,
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn no_more_are_served_at_once_than_the_limit() {
        let (running, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let served = Arc::new(AtomicUsize::new(0));
        let stop = CancellationToken::new();
        let connections = {
            let (running, most, served, stop) = (&running, &most, &served, &stop);
            accept(
                &Script::new((0..10).map(Ok)),
                3,
                stop,
                |_| {},
                || {},
                move |_| {
                    let (running, most, served) = (Arc::clone(running), Arc::clone(most), Arc::clone(served));
                    let stop = stop.clone();
                    async move {
                        most.fetch_max(running.fetch_add(1, Ordering::Relaxed) + 1, Ordering::Relaxed);
                        tokio::time::sleep(Duration::from_secs(1)).await;
                        running.fetch_sub(1, Ordering::Relaxed);
                        if served.fetch_add(1, Ordering::Relaxed) + 1 == 10 {
                            stop.cancel();
                        }
                    }
                },
            )
            .await
        };
        connections.wait().await;
        assert_eq!((most.load(Ordering::Relaxed), served.load(Ordering::Relaxed)), (3, 10));
    }

    #[tokio::test(start_paused = true)]
    async fn a_failure_is_told_once_until_it_is_over_and_ends_nothing() {
        let no_descriptors = || Err(io::Error::from_raw_os_error(libc::EMFILE));
        let script = [no_descriptors(), no_descriptors(), Ok(1), no_descriptors(), Ok(2)];
        let stop = CancellationToken::new();
        let (warnings, served) = (AtomicUsize::new(0), Arc::new(AtomicUsize::new(0)));
        let warn = |_: &io::Error| _ = warnings.fetch_add(1, Ordering::Relaxed);
        let connections = accept(
            &Script::new(script),
            1,
            &stop,
            warn,
            || {},
            |number| {
                let (served, stop) = (Arc::clone(&served), stop.clone());
                async move {
                    served.fetch_add(1, Ordering::Relaxed);
                    if number == 2 {
                        stop.cancel();
                    }
                }
            },
        )
        .await;
        connections.wait().await;
        assert_eq!((warnings.load(Ordering::Relaxed), served.load(Ordering::Relaxed)), (2, 2));
    }
}
