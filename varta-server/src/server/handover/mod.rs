//! The hand-over from one server to the next, over a connection to the control socket.
//!
//! | who | what is sent | what holds then |
//! |---|---|---|
//! | new | the request, with the version of the form | |
//! | old | `WELCOME`: sockets, lock, clock | the old one serves as before |
//! | new | `PREPARED`, when configuration and keys are read and the sockets are taken | |
//! | old | `STATE`: all that it knows, after it has stopped reading | nobody reads; the queues of the kernel hold what comes |
//! | new | `TAKEN` | |
//! | old | `YOURS` | the new one reads; the old one never reads again |
//! | old | `RELEASED`, when its services have ended | the new one opens files and starts its services |
//! | new | `RUNNING` | the old one tells the service manager, and ends |
//!
//! Whoever fails before `YOURS` says so (`FAILED`), or its end closes the connection, and the old one reads on. A new
//! server that has sent `TAKEN` and finds the connection closed reads on by itself: the old one has ended.

mod giving;
mod message;
mod program;
mod taking;

pub(super) use self::giving::Giver;
pub use self::program::Program;
pub(super) use self::taking::{Predecessor, refuse};
