//! Accepting connections, a limited number at once.

use std::future::{Future, pending};
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
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

/// What gives up places for those who wait for one.
pub(crate) trait MakeRoom {
    /// Ends somebody who has a place, and waits for that; waits for ever where nobody is to be ended. It is asked again
    /// for as long as somebody waits.
    fn make_room(&self) -> impl Future<Output = ()> + Send;
}

/// Places that nobody gives up before the end.
pub(crate) struct NoRoom;

impl MakeRoom for NoRoom {
    async fn make_room(&self) {
        pending::<()>().await;
    }
}

/// Accepts connections until `stop` is cancelled, and serves each on a task of its own: at most `limit` at
/// once, the next waits, and more wait in the kernel's queue. While one waits, `room` makes room; one that waits when
/// `stop` is cancelled is served beyond the limit. The first failure to accept after a success goes to `warn`. Gives the
/// tasks that still run.
pub(crate) async fn accept<L: Listener, F>(
    listener: &L,
    limit: usize,
    stop: &CancellationToken,
    warn: impl Fn(&io::Error),
    room: &impl MakeRoom,
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
            biased;
            () = stop.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok(stream) => {
                is_failing = false;
                let place = tokio::select! {
                    biased;
                    place = take(&places, room) => Some(place),
                    () = stop.cancelled() => None,
                };
                let served = serve(stream);
                connections.spawn(async move {
                    served.await;
                    drop(place);
                });
            }
            Err(error) => {
                if !is_failing {
                    warn(&error);
                }
                is_failing = true;
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    connections.close();
    connections
}

/// Takes a place, as soon as there is one, for which `room` makes room.
pub(crate) async fn take(places: &Arc<Semaphore>, room: &impl MakeRoom) -> OwnedSemaphorePermit {
    let mut free = pin!(Arc::clone(places).acquire_owned());
    loop {
        tokio::select! {
            biased;
            place = &mut free => return place.expect("the semaphore is never closed"),
            () = room.make_room() => {}
        }
    }
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
                &NoRoom,
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
    async fn who_waits_for_a_place_at_the_stop_is_served() {
        let (stop, served) = (CancellationToken::new(), Arc::new(AtomicUsize::new(0)));
        let connections = accept(
            &Script::new((0..2).map(Ok)),
            1,
            &stop,
            |_| {},
            &NoRoom,
            |number| {
                let (served, stop) = (Arc::clone(&served), stop.clone());
                async move {
                    if number == 0 {
                        // The other has been accepted by then.
                        tokio::time::sleep(Duration::from_secs(1)).await;
                        stop.cancel();
                        tokio::time::sleep(Duration::from_secs(1)).await;
                    }
                    served.fetch_add(1, Ordering::Relaxed);
                }
            },
        )
        .await;
        connections.wait().await;
        assert_eq!(served.load(Ordering::Relaxed), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_failure_is_told_once_until_it_is_over_and_ends_nothing() {
        let no_descriptors = || Err(io::Error::from_raw_os_error(libc::EMFILE));
        let script = [no_descriptors(), no_descriptors(), Ok(1), no_descriptors(), Ok(2)];
        let stop = CancellationToken::new();
        let (warnings, served) = (AtomicUsize::new(0), Arc::new(AtomicUsize::new(0)));
        let warn = |_: &io::Error| _ = warnings.fetch_add(1, Ordering::Relaxed);
        let connections = accept(&Script::new(script), 1, &stop, warn, &NoRoom, |number| {
            let (served, stop) = (Arc::clone(&served), stop.clone());
            async move {
                served.fetch_add(1, Ordering::Relaxed);
                if number == 2 {
                    stop.cancel();
                }
            }
        })
        .await;
        connections.wait().await;
        assert_eq!((warnings.load(Ordering::Relaxed), served.load(Ordering::Relaxed)), (2, 2));
    }
}
