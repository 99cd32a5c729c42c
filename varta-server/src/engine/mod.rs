//! The engine: the task that owns the tracker, and what surrounds it: process monitoring, queries,
//! subscribers, recording.

mod debugging;
mod detector_options;
mod feed;
mod forget;
pub(crate) mod handover;
mod job_table;
pub(crate) mod metrics;
pub(crate) mod options;
mod process_monitor;
pub(crate) mod query;
mod record;
mod records;
pub(crate) mod reload;
pub(crate) mod review;
mod shm_reads;
mod standstill;
pub(crate) mod state_queue;
pub(crate) mod subscribers;
pub(crate) mod tap;
pub(crate) mod task;
pub(crate) mod thread;

pub use self::detector_options::{Detector, DetectorArgs};
pub(crate) use self::feed::{BoundedQueue, Feed};
pub use self::options::{EngineArgs, EngineTables};
pub(crate) use self::process_monitor::ProcessMonitor;
pub(crate) use self::record::InputRecord;
pub(crate) use self::tap::Recorder;
