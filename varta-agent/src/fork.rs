//! How a handle learns that its process is a fork of the one it was connected in, without a system call.
//!
//! Asking for the pid on every beat would tell, and costs a tenth of the beat. Instead there is one page of memory that
//! the kernel hands to every child as zeroes (`MADV_WIPEONFORK`), with a number in it that each handle remembers: a
//! beat compares the two. The first handle that finds the number gone writes a new one, so that every other handle of
//! the child sees a stranger there too, and so do the handles of a grandchild.
//!
//! Where the kernel has no such page, a handler that `fork` runs in the child wipes the number. A raw `clone` system
//! call goes past that handler, and nothing here can see a child that shares its parent's memory (`vfork`, `CLONE_VM`).

#![allow(unsafe_code, reason = "the page is mapped, and the fork handler registered, through libc")]

use std::process;
use std::ptr;
use std::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64, Ordering};

use crate::entropy;

/// What a fork wipes.
///
/// All access is relaxed: the words carry nothing but themselves, and a child begins with one thread, whose memory is
/// in order.
struct ForkMarker {
    /// Which process life this is, among the relatives that share [`LAST_GENERATION`]; 0 after a fork, until somebody
    /// claims it.
    generation: AtomicU64,
    /// The pid that this process puts into frames, or 0 as long as nobody has asked. It stands on the page and not in
    /// each handle alone, so that all handles of process 1, and its panic hook, go by the same substitute.
    pid: AtomicU32,
}

impl ForkMarker {
    const fn wiped() -> Self {
        Self { generation: AtomicU64::new(0), pid: AtomicU32::new(0) }
    }

    /// Reads the generation, and begins a new one if a fork has wiped it.
    fn generation(&self) -> u64 {
        match self.generation.load(Ordering::Relaxed) {
            0 => {
                let fresh = LAST_GENERATION.fetch_add(1, Ordering::Relaxed) + 1;
                let claim = self.generation.compare_exchange(0, fresh, Ordering::Relaxed, Ordering::Relaxed);
                claim.map_or_else(|first| first, |_| fresh)
            }
            generation => generation,
        }
    }

    /// Reads the pid to send, and asks for it if a fork has wiped it.
    fn pid(&self) -> u32 {
        match self.pid.load(Ordering::Relaxed) {
            0 => {
                let fresh = wire_pid(process::id(), entropy::random);
                let claim = self.pid.compare_exchange(0, fresh, Ordering::Relaxed, Ordering::Relaxed);
                claim.map_or_else(|first| first, |_| fresh)
            }
            pid => pid,
        }
    }
}

/// The last generation that anybody claimed. It is ordinary memory, which a child inherits: its claims are above all of
/// its parent's, so no inherited handle can take a new generation for its own.
static LAST_GENERATION: AtomicU64 = AtomicU64::new(0);

/// The notice of this process, null before the first handle.
///
/// A pointer and not a `OnceLock`: a fork in the middle of another thread's initialisation would leave the child
/// waiting for a thread that it does not have. It is released and acquired, so that whoever finds it finds the notice
/// behind it as it was made.
static MARKER: AtomicPtr<ForkMarker> = AtomicPtr::new(ptr::null_mut());

/// The notice where there is no page, wiped by [`wipe_in_child`].
static FALLBACK_MARKER: ForkMarker = ForkMarker::wiped();

/// The process life that a handle belongs to.
#[derive(Clone, Copy)]
pub(crate) struct ProcessLife {
    marker: &'static ForkMarker,
    generation: u64,
    pid: u32,
}

impl ProcessLife {
    /// Tells which process life this is. The first call sets up the notice; no call allocates or waits.
    pub(crate) fn current() -> Self {
        let marker = marker();
        Self { marker, generation: marker.generation(), pid: marker.pid() }
    }

    /// A value for handles that never ask.
    pub(crate) const fn none() -> Self {
        Self { marker: &FALLBACK_MARKER, generation: 0, pid: 0 }
    }

    /// Tells whether the process is still the one that this value was made in. One read of memory.
    #[inline]
    pub(crate) fn is_current(&self) -> bool {
        self.marker.generation.load(Ordering::Relaxed) == self.generation
    }

    /// Gives the pid for frames: the process's own, or a substitute where that may not be sent.
    #[inline]
    pub(crate) const fn pid(&self) -> u32 {
        self.pid
    }

    /// Tells whether every child of this process is told, also one that the fork handler does not see.
    #[cfg(all(feature = "shm", target_os = "linux"))]
    pub(crate) fn is_wiped_by_kernel(&self) -> bool {
        !ptr::eq(self.marker, &FALLBACK_MARKER)
    }

    /// Makes the next [`is_current`](Self::is_current) say no, as after a fork.
    #[cfg(any(test, feature = "test-hooks"))]
    pub(crate) const fn invalidate(&mut self) {
        self.generation = 0;
    }
}

/// Turns a process id into one that the protocol allows to send.
///
/// Process 1 of a container would be one agent with process 1 of every other, so it takes a random number with the top
/// bit set, which no kernel gives to a process.
fn wire_pid(pid: u32, random: impl FnOnce() -> u64) -> u32 {
    let [a, b, c, d, ..] = match pid {
        0 | 1 => random().to_ne_bytes(),
        _ => return pid,
    };
    u32::from_ne_bytes([a, b, c, d]) | 1 << 31
}

/// Finds the notice, or sets it up. Two threads that are first together may both map a page; the one that comes second
/// is left unused.
fn marker() -> &'static ForkMarker {
    let known = MARKER.load(Ordering::Acquire);
    // SAFETY: the pointer is null or comes from the reference to a `ForkMarker` that is never freed.
    if let Some(marker) = unsafe { known.as_ref() } {
        return marker;
    }
    let fresh = map_wiped_page().unwrap_or_else(fallback_marker);
    let claim = MARKER.compare_exchange(
        ptr::null_mut(),
        ptr::from_ref(fresh).cast_mut(),
        Ordering::AcqRel,
        Ordering::Acquire,
    );
    let first = claim.err().unwrap_or(ptr::null_mut());
    // SAFETY: as above; null means that the exchange put `fresh` in place.
    unsafe { first.as_ref() }.unwrap_or(fresh)
}

/// Maps the page that the kernel wipes in every child.
#[cfg(any(target_os = "linux", target_os = "android"))]
fn map_wiped_page() -> Option<&'static ForkMarker> {
    const LEN: usize = size_of::<ForkMarker>();
    /// No kernel knows this advice. An emulator that nods at it nods at everything, and would not wipe the page.
    const UNKNOWN_ADVICE: libc::c_int = -1;

    #[cfg(any(test, feature = "test-hooks"))]
    if hooks::page_is_refused() {
        return None;
    }
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    // SAFETY: a new mapping at an address of the kernel's choice touches no memory that exists.
    let page = unsafe { libc::mmap(ptr::null_mut(), LEN, protection, flags, -1, 0) };
    if page == libc::MAP_FAILED {
        return None;
    }
    // SAFETY: the range is the mapping made above, and this advice changes nothing.
    let accepts_anything = unsafe { libc::madvise(page, LEN, UNKNOWN_ADVICE) } == 0;
    // SAFETY: the range is the mapping made above, which nobody else knows yet.
    let advised = unsafe { libc::madvise(page, LEN, libc::MADV_WIPEONFORK) } == 0;
    if accepts_anything || !advised {
        // SAFETY: the range is the mapping made above, and no reference to it was made.
        unsafe { libc::munmap(page, LEN) };
        return None;
    }
    // SAFETY: the page is aligned for anything, stays mapped for ever, and its zeroes are a `ForkMarker`.
    Some(unsafe { &*page.cast::<ForkMarker>() })
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn map_wiped_page() -> Option<&'static ForkMarker> {
    None
}

/// Has `fork` wipe the inherited notice in every child.
///
/// Registration fails only for want of memory. Then forks go unnoticed, which is no reason to refuse to beat.
fn fallback_marker() -> &'static ForkMarker {
    // The libc crate does not declare it for every system that has it.
    unsafe extern "C" {
        fn pthread_atfork(
            prepare: Option<unsafe extern "C" fn()>,
            parent: Option<unsafe extern "C" fn()>,
            child: Option<unsafe extern "C" fn()>,
        ) -> libc::c_int;
    }
    // SAFETY: the handler is a function of this program and does nothing but two atomic stores, as a child may.
    let _ = unsafe { pthread_atfork(None, None, Some(wipe_in_child)) };
    &FALLBACK_MARKER
}

/// Does to [`FALLBACK_MARKER`] what the kernel does to the page.
extern "C" fn wipe_in_child() {
    FALLBACK_MARKER.generation.store(0, Ordering::Relaxed);
    FALLBACK_MARKER.pid.store(0, Ordering::Relaxed);
}

/// What tests of the fork handler need.
#[cfg(any(test, feature = "test-hooks"))]
pub(crate) mod hooks {
    use std::sync::atomic::{AtomicBool, Ordering};

    static PAGE_IS_REFUSED: AtomicBool = AtomicBool::new(false);

    #[cfg(feature = "test-hooks")]
    pub(crate) fn refuse_page() {
        PAGE_IS_REFUSED.store(true, Ordering::Relaxed);
    }

    #[cfg(any(target_os = "linux", target_os = "android"))]
    pub(super) fn page_is_refused() -> bool {
        PAGE_IS_REFUSED.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ordinary_pid_is_sent_as_it_is() {
        assert_eq!(wire_pid(2, || unreachable!()), 2);
        assert_eq!(wire_pid(4_194_304, || unreachable!()), 4_194_304);
    }

    #[test]
    fn process_1_sends_a_random_number_with_the_top_bit_set() {
        for random in [0, u64::MAX, 0x1234_5678_9abc_def0] {
            assert!(wire_pid(1, || random) >= 1 << 31);
        }
        assert_ne!(wire_pid(1, entropy::random), wire_pid(1, entropy::random));
    }

    #[test]
    fn without_a_fork_every_handle_is_of_the_same_life() {
        let (one, other) = (ProcessLife::current(), ProcessLife::current());
        assert_eq!((one.generation, one.pid), (other.generation, process::id()));
        assert!(one.is_current() && other.is_current());
    }

    #[test]
    fn a_wiped_notice_is_a_stranger_to_every_handle() {
        static MARKER: ForkMarker = ForkMarker::wiped();
        let handle = || ProcessLife { marker: &MARKER, generation: MARKER.generation(), pid: MARKER.pid() };
        let (first, second) = (handle(), handle());
        MARKER.generation.store(0, Ordering::Relaxed);
        assert!(!first.is_current());

        // The first to notice claims a new generation; to the second that is as strange as none.
        let first = handle();
        assert!(first.is_current());
        assert!(!second.is_current());
    }
}
