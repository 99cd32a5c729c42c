//! Memory shared with a server: creating, sealing, mapping and unmapping it.

#![allow(unsafe_code, reason = "memory is made and mapped through libc")]

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::ptr::{self, NonNull};

use varta_proto::page::BeatPage;

use crate::fork::ProcessLife;

/// A page that this process writes. It is not mapped in children.
pub(crate) struct Page {
    memory: NonNull<BeatPage>,
    length: usize,
    /// The process in which it is mapped.
    process_life: ProcessLife,
}

// SAFETY: the memory belongs to no thread, and all access to it is to atomic words.
unsafe impl Send for Page {}

impl Page {
    /// Creates a page whose size is sealed, and returns it with its descriptor, to hand over and close. It
    /// does not allocate on the heap.
    ///
    /// # Errors
    ///
    /// There is no memory or no descriptor left, the kernel or a seccomp filter denies a call, or the kernel
    /// does not zero the fork marker of this process: a child that does not detect its fork would write to
    /// unmapped memory.
    pub(crate) fn create() -> io::Result<(Self, OwnedFd)> {
        let process_life = ProcessLife::current();
        if !process_life.is_wiped_by_kernel() {
            return Err(io::ErrorKind::Unsupported.into());
        }
        let descriptor = memory_file()?;
        // SAFETY: the call takes a number and changes nothing.
        let length = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
        let page = usize::try_from(length).map_err(|_| io::Error::last_os_error())?;
        // The memory is allocated now: without memory this call fails, where a write to the page would kill
        // the process.
        // SAFETY: the descriptor is ours, and the call reads no memory.
        check(unsafe { libc::fallocate(descriptor.as_raw_fd(), 0, 0, length) })?;
        let seals = libc::F_SEAL_SHRINK | libc::F_SEAL_GROW | libc::F_SEAL_SEAL;
        // SAFETY: the same.
        check(unsafe { libc::fcntl(descriptor.as_raw_fd(), libc::F_ADD_SEALS, seals) })?;
        Ok((Self { memory: map(&descriptor, page)?, length: page, process_life }, descriptor))
    }

    /// Returns the page; `None` in a child of the process that created it.
    #[inline]
    pub(crate) fn get(&self) -> Option<&BeatPage> {
        if !self.process_life.is_current() {
            return None;
        }
        // SAFETY: in the process in which it was mapped it stays mapped as long as `self` lives, is aligned
        // to a page and longer than a `BeatPage`, whose words are atomic and may have any value.
        Some(unsafe { self.memory.as_ref() })
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        // In a child this address is unmapped, or mapped to something else.
        if let Some(page) = self.get() {
            page.leave();
            // SAFETY: the range is the mapping made for `self`, to which no reference is left.
            unsafe { libc::munmap(self.memory.as_ptr().cast(), self.length) };
        }
    }
}

/// Creates a file in memory that can be sealed, and is not executable if the kernel supports that.
fn memory_file() -> io::Result<OwnedFd> {
    let flags = libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING;
    let create = |flags| {
        // SAFETY: the name is a static string.
        let descriptor = unsafe { libc::memfd_create(c"varta".as_ptr(), flags) };
        check(descriptor)?;
        // SAFETY: the kernel has just returned it, and nothing else owns it.
        Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
    };
    create(flags | libc::MFD_NOEXEC_SEAL).or_else(|error: io::Error| match error.raw_os_error() {
        // Before Linux 6.3.
        Some(libc::EINVAL) => create(flags),
        _ => Err(error),
    })
}

/// Maps a file of this length into this process, and not into its children.
fn map(file: &OwnedFd, length: usize) -> io::Result<NonNull<BeatPage>> {
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    let flags = libc::MAP_SHARED | libc::MAP_POPULATE;
    // SAFETY: a new mapping at an address of the kernel's choice touches no memory that exists.
    let memory = unsafe { libc::mmap(ptr::null_mut(), length, protection, flags, file.as_raw_fd(), 0) };
    let Some(mapped) = NonNull::new(memory).filter(|_| memory != libc::MAP_FAILED) else {
        return Err(io::Error::last_os_error());
    };
    // SAFETY: the range is the mapping made above, to which no reference exists yet.
    if let Err(error) = check(unsafe { libc::madvise(memory, length, libc::MADV_DONTFORK) }) {
        // SAFETY: the same.
        unsafe { libc::munmap(memory, length) };
        return Err(error);
    }
    Ok(mapped.cast())
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use varta_proto::page::{Glance, Writer};

    use super::*;

    #[test]
    fn both_sides_see_the_same_memory() {
        let (page, descriptor) = Page::create().unwrap();
        Writer::new().write(page.get().unwrap(), &[7; 32]);
        let other = map(&descriptor, page.length).unwrap();
        // SAFETY: it has just been mapped, and stays mapped.
        let other: &BeatPage = unsafe { other.as_ref() };
        assert_eq!(other.glance(0, u64::MAX), Glance::Beat { sequence: 2, frame: [7; 32] });
        assert!(!other.was_left());
        drop(page);
        assert!(other.was_left());
    }

    #[test]
    fn its_length_and_its_seals_cannot_be_changed() {
        let (page, descriptor) = Page::create().unwrap();
        let file = File::from(descriptor.try_clone().unwrap());
        let length = u64::try_from(page.length).unwrap();
        assert_eq!(file.metadata().unwrap().len(), length);
        for other in [0, length - 1, length + 1] {
            assert_eq!(file.set_len(other).unwrap_err().kind(), io::ErrorKind::PermissionDenied);
        }
        // SAFETY: the descriptor is ours, and the call reads no memory.
        let sealed = unsafe { libc::fcntl(descriptor.as_raw_fd(), libc::F_ADD_SEALS, libc::F_SEAL_WRITE) };
        assert_eq!(check(sealed).unwrap_err().kind(), io::ErrorKind::PermissionDenied);
    }

    #[test]
    fn after_a_fork_there_is_no_page() {
        let (mut page, _) = Page::create().unwrap();
        page.process_life.invalidate();
        assert!(page.get().is_none());
    }
}
