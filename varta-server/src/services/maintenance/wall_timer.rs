//! An alarm of the wall clock.
//!
//! Not the runtime's own sleep: that counts the time for which the host runs. A pause ends at a moment that people read
//! from a clock, also when that is set or the host was suspended meanwhile; the kernel sees to both.
#![allow(unsafe_code, reason = "the runtime has no safe way to watch a descriptor")]

use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Rings once at the moment for which it is set.
#[derive(Debug)]
pub(super) struct Alarm(AsyncFd<Timer>);

/// The kernel's timer, as the runtime wants it.
#[derive(Debug)]
struct Timer(TimerFd);

impl AsRawFd for Timer {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

impl Alarm {
    /// One that is not set. To be called within a runtime that has I/O enabled.
    ///
    /// # Errors
    ///
    /// When there is no descriptor left.
    pub(super) fn new() -> io::Result<Self> {
        let timer =
            TimerFd::new(ClockId::CLOCK_REALTIME, TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC)?;
        // SAFETY: the timer is owned by what is made here, gives the same descriptor for as long as it lives, and nothing
        // closes that before.
        let watched = unsafe { AsyncFd::register_with_interest(Timer(timer), Interest::READABLE)? };
        Ok(Alarm(watched))
    }

    /// Sets it to this moment, which may have passed, and to no other; or to none.
    pub(super) fn set(&self, at: Option<SystemTime>) -> io::Result<()> {
        let Timer(timer) = self.0.get_ref();
        let Some(at) = at else { return Ok(timer.unset()?) };
        // Zero would stand for none.
        let since = at.duration_since(UNIX_EPOCH).unwrap_or_default().max(Duration::from_nanos(1));
        let moment = Expiration::OneShot(TimeSpec::from_duration(since));
        Ok(timer.set(moment, TimerSetTimeFlags::TFD_TIMER_ABSTIME)?)
    }

    /// Returns when it rings.
    pub(super) async fn rings(&self) -> io::Result<()> {
        loop {
            let mut ready = self.0.readable().await?;
            match ready.try_io(|timer| timer.get_ref().0.wait().map_err(io::Error::from)) {
                Ok(rang) => return rang,
                // It rang for a moment for which it is not set any more.
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
        let alarm = Alarm::new().unwrap();
        alarm.set(Some(UNIX_EPOCH)).unwrap();
        alarm.rings().await.unwrap();
        let soon = wall_now() + Duration::from_millis(20);
        alarm.set(Some(soon)).unwrap();
        alarm.rings().await.unwrap();
        assert!(wall_now() >= soon);
        // It has rung already, and nobody has heard it.
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
