//! A timer on the wall clock.
//!
//! The runtime's own sleep counts monotonic time. A pause ends at a wall-clock time, also if the clock is set
//! or the host is suspended meanwhile; the kernel's timerfd handles both.
#![allow(unsafe_code, reason = "the runtime has no safe way to watch a descriptor")]

use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Fires once at the time for which it is set.
#[derive(Debug)]
pub(super) struct WallTimer(AsyncFd<Timer>);

/// The kernel's timer as a descriptor for the runtime.
#[derive(Debug)]
struct Timer(TimerFd);

impl AsRawFd for Timer {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

impl WallTimer {
    /// Creates a timer that is not set. Must be called within a runtime with I/O enabled.
    ///
    /// # Errors
    ///
    /// No descriptor is left.
    pub(super) fn new() -> io::Result<Self> {
        let timer =
            TimerFd::new(ClockId::CLOCK_REALTIME, TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC)?;
        // SAFETY: the timer is owned by the returned value, keeps the same descriptor for its whole life, and
        // nothing closes that earlier.
        let watched = unsafe { AsyncFd::register_with_interest(Timer(timer), Interest::READABLE)? };
        Ok(WallTimer(watched))
    }

    /// Sets the timer to this time, which may be past, in place of any other; `None` stops it.
    pub(super) fn set(&self, at: Option<SystemTime>) -> io::Result<()> {
        let Timer(timer) = self.0.get_ref();
        let Some(at) = at else { return Ok(timer.unset()?) };
        // A time of zero would stop the timer.
        let since = at.duration_since(UNIX_EPOCH).unwrap_or_default().max(Duration::from_nanos(1));
        let moment = Expiration::OneShot(TimeSpec::from_duration(since));
        Ok(timer.set(moment, TimerSetTimeFlags::TFD_TIMER_ABSTIME)?)
    }

    /// Waits until the timer fires.
    pub(super) async fn rings(&self) -> io::Result<()> {
        loop {
            let mut ready = self.0.readable().await?;
            match ready.try_io(|timer| timer.get_ref().0.wait().map_err(io::Error::from)) {
                Ok(rang) => return rang,
                // The readiness was left by an earlier setting.
                Err(_would_block) => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::clock::wall_now;

    #[tokio::test]
    async fn it_rings_at_its_moment_and_at_no_other() {
        let alarm = WallTimer::new().unwrap();
        alarm.set(Some(UNIX_EPOCH)).unwrap();
        alarm.rings().await.unwrap();
        let soon = wall_now() + Duration::from_millis(20);
        alarm.set(Some(soon)).unwrap();
        alarm.rings().await.unwrap();
        assert!(wall_now() >= soon);
        // It has fired, and the event was not read.
        alarm.set(Some(UNIX_EPOCH)).unwrap();
        alarm.0.readable().await.unwrap().retain_ready();
        alarm.set(None).unwrap();
        let polled = tokio::select! {
            biased;
            _ = alarm.rings() => true,
            () = async { for _ in 0..100 { tokio::task::yield_now().await } } => false,
        };
        assert!(!polled);
    }
}
