//! A Tokio task that beats.
//!
//! The task owns the handle, and what the rest of the program has is a [`Heartbeat`]: a few words that the next beat
//! carries. Between the two stands a watch channel, because only the latest words count and because its end is the end
//! of the task.

mod handle;
mod task;

pub use handle::Heartbeat;
