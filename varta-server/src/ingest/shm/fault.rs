//! A SIGBUS handler for reads of shared pages whose memory is gone.
//!
//! The agent can free a page's memory (`fallocate(2)` with a hole) while the server has it mapped; the next
//! read then needs a new page, and if the kernel has none it sends SIGBUS, which would end the server. The
//! handler maps an empty anonymous page in its place; the agent sees no further promises and falls back to
//! datagrams.
//!
//! Signal handlers belong to the process. This one handles only faults on the page that its thread is
//! reading, and leaves every other SIGBUS to the handler that was installed before it.
#![allow(unsafe_code, reason = "a signal handler is set and memory mapped through libc")]

use std::cell::Cell;
use std::io;
use std::mem;
use std::ptr;
use std::sync::OnceLock;
use std::sync::atomic::{Ordering, compiler_fence};

use varta_proto::page::BeatPage;

thread_local! {
    /// The address of the page that this thread read last; 0 for none.
    static LOOKED_AT: Cell<usize> = const { Cell::new(0) };
}

/// The previous handler; `None` if the installation failed.
static PREVIOUS: OnceLock<Option<libc::sigaction>> = OnceLock::new();

/// Installs the handler, once.
///
/// # Errors
///
/// The kernel refuses to install it.
pub(super) fn expect() -> io::Result<()> {
    match PREVIOUS.get_or_init(install) {
        Some(_) => Ok(()),
        None => Err(io::ErrorKind::Unsupported.into()),
    }
}

/// Installs the handler, and returns the previous one; `None` on failure.
fn install() -> Option<libc::sigaction> {
    // SAFETY: all zeroes is a valid value of it: no signals are masked.
    let mut action: libc::sigaction = unsafe { mem::zeroed() };
    action.sa_sigaction = on_bus_error as extern "C" fn(_, _, _) as usize;
    action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
    // SAFETY: all zeroes is a valid value of it.
    let mut previous: libc::sigaction = unsafe { mem::zeroed() };
    // SAFETY: both structures live, and the handler does nothing that it may not do in a signal.
    let installed = unsafe { libc::sigaction(libc::SIGBUS, &raw const action, &raw mut previous) };
    (installed == 0).then_some(previous)
}

/// Records the page that this thread reads from now on.
#[inline]
pub(super) fn look_at(page: usize) {
    LOOKED_AT.set(page);
    // The read must not be reordered before the store.
    compiler_fence(Ordering::SeqCst);
}

/// Clears the record of a page that is about to be unmapped.
pub(super) fn look_away_from(page: usize) {
    if LOOKED_AT.get() == page {
        LOOKED_AT.set(0);
    }
}

extern "C" fn on_bus_error(_: libc::c_int, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
    // SAFETY: with `SA_SIGINFO` the kernel gives a live structure.
    let info = unsafe { &*info };
    // SAFETY: for this signal it has an address.
    let address = unsafe { info.si_addr() } as usize;
    let page = LOOKED_AT.get();
    if page != 0 && address.wrapping_sub(page) < size_of::<BeatPage>() && replace(page) {
        return;
    }
    // The faulting instruction runs again after the return, and reaches the previous handler.
    if let Some(Some(previous)) = PREVIOUS.get() {
        // SAFETY: it is what the kernel gave as the action before.
        unsafe { libc::sigaction(libc::SIGBUS, previous, ptr::null_mut()) };
    }
}

/// Maps an empty page over one that is mapped, and returns whether that succeeded.
fn replace(page: usize) -> bool {
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED;
    let place = ptr::without_provenance_mut(page);
    // SAFETY: the range is the one-page mapping of a `Page`, whose contents no code relies on.
    let replaced = unsafe { libc::mmap(place, size_of::<BeatPage>(), protection, flags, -1, 0) };
    replaced != libc::MAP_FAILED
}
