//! What becomes of a look for which the kernel has no memory.
//!
//! The other side can give a page's memory back while we have it mapped, and then the next look has the kernel make it
//! anew. Where it has none left that ends a process (SIGBUS). It must not end this one: an empty page of our own is put in
//! that place, and the agent, which sees no more promises, goes on by datagrams.
//!
//! A handler is the process's, and this one keeps out of everybody's way: whatever is not a page that this thread is
//! looking at goes to the handler that was there before.
#![allow(unsafe_code, reason = "a signal handler is set and memory mapped through libc")]

use std::cell::Cell;
use std::io;
use std::mem;
use std::ptr;
use std::sync::OnceLock;
use std::sync::atomic::{Ordering, compiler_fence};

use varta_proto::page::BeatPage;

thread_local! {
    /// The page that this thread has looked at last; 0 for none.
    static LOOKED_AT: Cell<usize> = const { Cell::new(0) };
}

/// What was there before, or why there is no handler.
static PREVIOUS: OnceLock<Option<libc::sigaction>> = OnceLock::new();

/// Puts the handler in place, the first time.
///
/// # Errors
///
/// The kernel refuses, which it has no reason to.
pub(super) fn expect() -> io::Result<()> {
    match PREVIOUS.get_or_init(install) {
        Some(_) => Ok(()),
        None => Err(io::ErrorKind::Unsupported.into()),
    }
}

/// Gives the handler in whose place ours is now; `None` if it is not.
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

/// Says which page this thread looks at from now on.
#[inline]
pub(super) fn look_at(page: usize) {
    LOOKED_AT.set(page);
    // The look itself is not to come before it.
    compiler_fence(Ordering::SeqCst);
}

/// Says that a page is going to be unmapped.
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
    // What led here happens again, and is no business of ours then.
    if let Some(Some(previous)) = PREVIOUS.get() {
        // SAFETY: it is what the kernel gave as the action before.
        unsafe { libc::sigaction(libc::SIGBUS, previous, ptr::null_mut()) };
    }
}

/// Puts an empty page in the place of one that is mapped. Whether that was possible.
fn replace(page: usize) -> bool {
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED;
    let place = ptr::without_provenance_mut(page);
    // SAFETY: the place is that of a mapping of one page which a `Page` owns, and which nobody relies on to keep its
    // contents.
    let replaced = unsafe { libc::mmap(place, size_of::<BeatPage>(), protection, flags, -1, 0) };
    replaced != libc::MAP_FAILED
}
