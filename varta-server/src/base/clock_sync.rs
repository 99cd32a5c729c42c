//! Whether the kernel's clock is synchronised.
#![allow(unsafe_code, reason = "the kernel is asked by adjtimex(2)")]

use std::mem::MaybeUninit;

/// Whether the clock of this host is kept by something that synchronises it, as the kernel has been told; `None` where
/// it does not say.
pub(crate) fn is_synchronised() -> Option<bool> {
    let mut timex = MaybeUninit::<libc::timex>::zeroed();
    // SAFETY: all bytes zero are a valid `timex`, which asks for nothing to be changed (`modes` is 0).
    let state = unsafe { libc::adjtimex(timex.as_mut_ptr()) };
    if state < 0 {
        return None;
    }
    // SAFETY: it was zeroed, and the kernel has written to it.
    let timex = unsafe { timex.assume_init() };
    Some(timex.status & libc::STA_UNSYNC == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_says_whether_its_clock_is_synchronised() {
        assert!(is_synchronised().is_some());
    }
}
