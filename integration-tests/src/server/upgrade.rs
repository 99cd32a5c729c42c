//! One server takes the place of another.

use crate::programs::{run_to_its_end, server_command};
use crate::server::Server;
use crate::sys::{self, Signal};

/// A server that has taken over. It is killed when this is dropped.
#[derive(Debug)]
pub struct Successor(u32);

impl Successor {
    /// The server with this pid.
    #[must_use]
    pub const fn with_pid(pid: u32) -> Self {
        Successor(pid)
    }

    /// Its pid.
    #[must_use]
    pub const fn pid(&self) -> u32 {
        self.0
    }
}

impl Drop for Successor {
    fn drop(&mut self) {
        // It may have handed over in turn.
        let _ = sys::send_signal(self.0, Signal::Kill);
    }
}

impl Server {
    /// Has it upgraded by `varta-server upgrade`, and gives the one that is there then. Its sockets, its log and its metrics
    /// are those of this one.
    #[must_use]
    #[track_caller]
    pub fn upgrade(&self) -> Successor {
        let mut command = server_command();
        command.arg("upgrade").arg("--control-socket").arg(self.control_socket());
        let ended = run_to_its_end(command);
        assert!(ended.status.success(), "{}", ended.stderr);
        let pid = ended.stdout.strip_prefix("the server has pid ").and_then(|rest| rest.split(' ').next());
        Successor(pid.and_then(|pid| pid.parse().ok()).unwrap_or_else(|| panic!("{}", ended.stdout)))
    }
}
