//! Detection of a fork, without a system call.
//!
//! Calling `getpid` on every beat would detect a fork, and costs a tenth of a beat. Instead there is one page
//! of memory that the kernel replaces with zeros in every child (`MADV_WIPEONFORK`). The page holds a
//! generation number, which each handle stores; a beat compares the two. The first handle of a child that
//! finds zero writes a new number, which differs from the number in every inherited handle, also in those of
//! a grandchild.
//!
//! Where the kernel does not support that, a handler that `fork` runs in the child zeroes the number. A raw
//! `clone` system call does not run the handler, and a child that shares its parent's memory (`vfork`,
//! `CLONE_VM`) is never detected.

#![allow(unsafe_code, reason = "the page is mapped, and the fork handler registered, through libc")]

use std::process;
use std::ptr;
use std::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64, Ordering};

use crate::entropy;

/// The words that a fork zeroes.
///
/// All access is relaxed: the words publish nothing else, and a child starts with one thread, which sees all
/// of the memory before the fork.
struct ForkMarker {
    /// The generation of this process, unique among the relatives that share [`LAST_GENERATION`]; 0 after a
    /// fork, until a handle writes a new one.
    generation: AtomicU64,
    /// The pid for the frames of this process, 0 until it is first needed. It is part of the marker and not
    /// only of each handle, so that all handles of process 1, and its panic hook, use the same substitute.
    pid: AtomicU32,
}

impl ForkMarker {
    const fn wiped() -> Self {
        Self { generation: AtomicU64::new(0), pid: AtomicU32::new(0) }
    }

    /// Returns the generation, and starts a new one if a fork has zeroed it.
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

    /// Returns the pid for frames, and determines it if a fork has zeroed it.
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

/// The last generation given out. It is ordinary memory, which a child inherits: a child's generations are
/// larger than all of its parent's, so no inherited handle has the generation of a child.
static LAST_GENERATION: AtomicU64 = AtomicU64::new(0);

/// The marker of this process, null before the first handle.
///
/// A pointer and not a `OnceLock`: if another thread is initialising a `OnceLock` during a fork, the child
/// would wait for a thread that it does not have. Release and acquire make the marker's initial words visible
/// with the pointer.
static MARKER: AtomicPtr<ForkMarker> = AtomicPtr::new(ptr::null_mut());

/// The marker of systems without such a page, zeroed by [`wipe_in_child`].
static FALLBACK_MARKER: ForkMarker = ForkMarker::wiped();

/// Identifies the process in which a handle was connected, and distinguishes it from its forks.
#[derive(Clone, Copy)]
pub(crate) struct ProcessLife {
    marker: &'static ForkMarker,
    generation: u64,
    pid: u32,
}

impl ProcessLife {
    /// Returns the value of this process. The first call sets up the marker; no call allocates or blocks.
    pub(crate) fn current() -> Self {
        let marker = marker();
        Self { marker, generation: marker.generation(), pid: marker.pid() }
    }

    /// Creates a value for handles that are never used.
    pub(crate) const fn none() -> Self {
        Self { marker: &FALLBACK_MARKER, generation: 0, pid: 0 }
    }

    /// Returns whether this process is still the one in which the value was created. It costs one load.
    #[inline]
    pub(crate) fn is_current(&self) -> bool {
        self.marker.generation.load(Ordering::Relaxed) == self.generation
    }

    /// Returns the pid for frames: the process's own, or a substitute if that is 0 or 1.
    #[inline]
    pub(crate) const fn pid(&self) -> u32 {
        self.pid
    }

    /// Returns whether the kernel zeroes the marker, which it does in every child, also without the fork
    /// handler.
    #[cfg(all(feature = "shm", target_os = "linux"))]
    pub(crate) fn is_wiped_by_kernel(&self) -> bool {
        !ptr::eq(self.marker, &FALLBACK_MARKER)
    }

    /// Makes [`is_current`](Self::is_current) return `false`, as after a fork.
    #[cfg(any(test, feature = "test-hooks"))]
    pub(crate) const fn invalidate(&mut self) {
        self.generation = 0;
    }
}

/// Converts a process id to one that the protocol allows.
///
/// Process 1 of a container has the same pid as process 1 of every other container, so its pid is replaced by
/// a random number with the top bit set, which no kernel assigns to a process.
fn wire_pid(pid: u32, random: impl FnOnce() -> u64) -> u32 {
    let [a, b, c, d, ..] = match pid {
        0 | 1 => random().to_ne_bytes(),
        _ => return pid,
    };
    u32::from_ne_bytes([a, b, c, d]) | 1 << 31
}

/// Returns the marker, and sets it up in the first call. If two threads are first at the same time, both may
/// map a page; one of them stays unused.
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

/// Maps a page that the kernel zeroes in every child.
#[cfg(any(target_os = "linux", target_os = "android"))]
fn map_wiped_page() -> Option<&'static ForkMarker> {
    const LEN: usize = size_of::<ForkMarker>();
    /// Advice that no kernel knows. An emulator that accepts it accepts any advice, and would not zero the
    /// page.
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
    // SAFETY: the range is the mapping made above, to which no reference exists yet.
    let advised = unsafe { libc::madvise(page, LEN, libc::MADV_WIPEONFORK) } == 0;
    if accepts_anything || !advised {
        // SAFETY: the range is the mapping made above, and no reference to it was made.
        unsafe { libc::munmap(page, LEN) };
        return None;
    }
    // SAFETY: the page is aligned for anything, stays mapped for ever, and its zeros are a valid
    // `ForkMarker`.
    Some(unsafe { &*page.cast::<ForkMarker>() })
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn map_wiped_page() -> Option<&'static ForkMarker> {
    None
}

/// Registers the handler that zeroes [`FALLBACK_MARKER`] in every child.
///
/// Registration fails only without memory. Forks are not detected then, and beats still work.
fn fallback_marker() -> &'static ForkMarker {
    // The libc crate does not declare it for every system that has it.
    unsafe extern "C" {
        fn pthread_atfork(
            prepare: Option<unsafe extern "C" fn()>,
            parent: Option<unsafe extern "C" fn()>,
            child: Option<unsafe extern "C" fn()>,
        ) -> libc::c_int;
    }
    // SAFETY: the handler is a function of this program and does nothing but two atomic stores, as a child
    // may.
    let _ = unsafe { pthread_atfork(None, None, Some(wipe_in_child)) };
    &FALLBACK_MARKER
}

/// Zeroes [`FALLBACK_MARKER`], as the kernel zeroes the page.
extern "C" fn wipe_in_child() {
    FALLBACK_MARKER.generation.store(0, Ordering::Relaxed);
    FALLBACK_MARKER.pid.store(0, Ordering::Relaxed);
}

/// Hooks for tests of the fork handler.
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
    fn a_wiped_marker_differs_from_every_handle() {
        static MARKER: ForkMarker = ForkMarker::wiped();
        let handle = || ProcessLife { marker: &MARKER, generation: MARKER.generation(), pid: MARKER.pid() };
        let (first, second) = (handle(), handle());
        MARKER.generation.store(0, Ordering::Relaxed);
        assert!(!first.is_current());

        // The first handle to detect the fork starts a new generation, which differs from the second handle's
        // as zero did.
        let first = handle();
        assert!(first.is_current());
        assert!(!second.is_current());
    }
}
