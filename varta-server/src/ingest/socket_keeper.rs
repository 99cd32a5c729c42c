//! Reads the Unix socket of one path, and those that take its place when its file is removed or moved.
//!
//! Who is connected to a former socket does not notice, so it is read on. The number of sockets is bounded: beyond
//! it the oldest is closed, and an agent that is still connected to that one finds the present one.

use std::collections::VecDeque;
use std::pin::pin;
use std::sync::Arc;

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::base::SocketOptions;
use crate::base::error::Error;
use crate::ingest::held_socket::HeldSocket;
use crate::ingest::listener::Intake;
use crate::ingest::listeners::reader::Reader;
use crate::ingest::queue_probe::Probe;
use crate::ingest::socket_place::PlaceKeeper;

/// The most sockets of one path that are read at once.
const MAX_SOCKETS: usize = 4;

/// What binds the socket of one path again.
pub(crate) struct SocketKeeper {
    pub(crate) file: HeldSocket,
    pub(crate) probe: Arc<Probe>,
    pub(crate) place: PlaceKeeper,
    /// Binds one that takes its place, by these options.
    pub(crate) bind: Arc<dyn Fn(SocketOptions) -> Result<Reader, Error> + Send + Sync>,
}

/// The sockets that are read.
struct Readers {
    intake: Intake,
    tasks: JoinSet<Result<(), Error>>,
    /// One to end each of them, the oldest first.
    stops: VecDeque<CancellationToken>,
}

impl Readers {
    fn begin(&mut self, listener: Reader) {
        let stop = self.intake.stop.child_token();
        self.stops.push_back(stop.clone());
        self.tasks.spawn(listener.run(Intake { stop, ..self.intake.clone() }));
    }

    /// Waits for the end of a reader, and returns whether the others go on.
    async fn next_end(&mut self) -> Result<bool, Error> {
        match self.tasks.join_next().await {
            Some(Ok(result)) => result?,
            Some(Err(error)) => return Err(Error::TaskEnded { task: "listener", fault: error.to_string() }),
            None => return Ok(false),
        }
        Ok(!self.intake.inbox.is_closed())
    }
}

impl SocketKeeper {
    /// Reads the socket, and those that take its place, until the server stops.
    ///
    /// # Errors
    ///
    /// A socket cannot be read. One that cannot be bound again is a fault, and no error.
    pub(crate) async fn run(self, first: Reader, intake: Intake) -> Result<(), Error> {
        let stop = intake.stop.clone();
        let mut readers = Readers { intake, tasks: JoinSet::new(), stops: VecDeque::new() };
        readers.begin(first);
        loop {
            let held = self.file.place();
            let (file, bind) = (self.file.clone(), Arc::clone(&self.bind));
            let bind = move || bind(file.options());
            let mut replaced = pin!(self.place.replacement(&held, bind, &stop));
            let next = loop {
                tokio::select! {
                    next = replaced.as_mut() => break next,
                    goes_on = readers.next_end() => if !goes_on? {
                        return Ok(());
                    }
                }
            };
            let Some(listener) = next else { break };
            self.take(listener, &mut readers)?;
        }
        while readers.next_end().await? {}
        self.place.forget(self.file.place().path());
        Ok(())
    }

    /// Reads one more socket, and lets go of the oldest if there are too many.
    fn take(&self, listener: Reader, readers: &mut Readers) -> Result<(), Error> {
        let is_full = readers.stops.len() >= MAX_SOCKETS;
        self.probe.add(listener.duplicate()?, is_full);
        if let Some(file) = listener.file() {
            self.file.is_replaced(file.place());
        }
        readers.begin(listener);
        if is_full && let Some(oldest) = readers.stops.pop_front() {
            oldest.cancel();
        }
        Ok(())
    }
}
