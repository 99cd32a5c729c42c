use std::future::Future;

use tokio::task::{JoinError, JoinSet};

use crate::base::error::Error;

/// How a task ended, by the task's name.
pub(super) type Ended = (&'static str, Result<(), Error>);

/// Gives a name to a task that cannot fail.
pub(crate) async fn named(name: &'static str, task: impl Future<Output = ()>) -> Ended {
    task.await;
    (name, Ok(()))
}

/// Waits for every task; the first error found on the way is kept.
pub(crate) async fn join_all(tasks: &mut JoinSet<Ended>, result: &mut Result<(), Error>) {
    while let Some(ended) = tasks.join_next().await {
        let outcome = match ended {
            Ok((_, outcome)) => outcome,
            Err(_) => Err(ended_unasked(ended)),
        };
        if result.is_ok() {
            *result = outcome;
        }
    }
}

pub(crate) fn ended_unasked(ended: Result<Ended, JoinError>) -> Error {
    match ended {
        Ok((_, Err(error))) => error,
        Ok((task, Ok(()))) => Error::TaskEnded { task, fault: "it thought that it was done".to_owned() },
        Err(error) => Error::TaskEnded { task: "server", fault: error.to_string() },
    }
}

pub(crate) fn thread_panicked(task: &'static str) -> Error {
    Error::TaskEnded { task, fault: "it panicked".to_owned() }
}
