//! A Tokio task that sends beats.
//!
//! The task owns the [`Varta`](crate::Varta), and the rest of the program has a [`Heartbeat`] that sets what
//! the next beat carries. A watch channel connects the two, because only the latest values count and because
//! its end is the end of the task.

mod admission;
mod handle;
mod task;

pub use handle::Heartbeat;
