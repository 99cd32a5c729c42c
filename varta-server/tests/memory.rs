//! What an agent costs in memory, by a counting allocator: the slot, what stands beside it, its place in the index and in
//! the timer wheel.

#![allow(unsafe_code, reason = "a global allocator is unsafe to implement; this one counts and hands on")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::num::NonZeroU64;
use std::sync::atomic::{AtomicIsize, Ordering};

use varta_proto::{Frame, Status};
use varta_server::beat::{ReceivedBeat, Sender};
use varta_server::time::MonoTime;
use varta_server::tracker::{Policy, ProcessIdentity, Processes, Tracker};

/// What an agent may cost, in bytes.
const BUDGET: usize = 128;

struct Counting;

static ALLOCATED: AtomicIsize = AtomicIsize::new(0);

fn count(bytes: usize) -> isize {
    isize::try_from(bytes).unwrap_or(isize::MAX)
}

// SAFETY: everything is handed on to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATED.fetch_add(count(layout.size()), Ordering::Relaxed);
        // SAFETY: the caller keeps the contract, which is the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        ALLOCATED.fetch_sub(count(layout.size()), Ordering::Relaxed);
        // SAFETY: the caller keeps the contract, which is the same.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Everybody is a worker.
struct Workers;

impl Processes for Workers {
    fn identify(&mut self, pid: u32) -> Option<ProcessIdentity> {
        let start_time = NonZeroU64::new(u64::from(pid))?;
        Some(ProcessIdentity::of_command(start_time, "worker".to_owned()))
    }
}

#[test]
fn an_agent_takes_no_more_than_its_budget_however_many_there_are() {
    for agents in [114_700, 300_000, 1_000_000] {
        let before = ALLOCATED.load(Ordering::Relaxed);
        let mut tracker =
            Tracker::new(Policy { max_beat_rate: 0, max_agents: agents as usize, ..Policy::default() });
        for pid in 2..agents + 2 {
            let frame = Frame::new(Status::Ok, pid, 1, 1, 0);
            let beat =
                ReceivedBeat { received_at: MonoTime::from_secs(1), sender: Sender::local(pid), frame };
            tracker.handle_batch(&[beat], &mut Workers);
            while tracker.poll_transition().is_some() {}
            while tracker.poll_request().is_some() {}
        }
        assert_eq!(tracker.len(), agents as usize);
        let taken = usize::try_from(ALLOCATED.load(Ordering::Relaxed) - before).unwrap();
        let each = taken.div_ceil(agents as usize);
        assert!(each <= BUDGET, "{agents} agents take {each} bytes each");
    }
}
