//! A memory page shared with an agent: verification, mapping, unmapping.
//!
//! The only file with the unsafe code for it. The descriptor that an agent hands over may be any file. Only a
//! memfd of exactly one page is accepted that is sealed against shrinking: a read beyond the end of a file
//! raises SIGBUS.
#![allow(unsafe_code, reason = "memory is mapped through libc")]

use std::os::fd::{AsRawFd, OwnedFd};
use std::ptr::{self, NonNull};

use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::stat::fstat;
use nix::sys::statfs::{TMPFS_MAGIC, fstatfs};
use nix::unistd::{SysconfVar, sysconf};
use varta_proto::page::BeatPage;

use crate::ingest::shm::fault;

/// Why a page is refused; the metric label `reason`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::ingest) enum Refused {
    /// The datagram came without a descriptor, or there was no room to receive one.
    NoDescriptor,
    /// The descriptor is no memfd with seals.
    NotMemory,
    /// The memfd could shrink, or cannot be written to.
    WrongSeals,
    /// The memfd is not one page long.
    WrongSize,
    /// The table is full, or the process had its oldest page replaced a moment ago.
    NoRoom,
    /// Too many pages were attached in this second.
    TooFast,
    /// The kernel does not map it.
    Kernel,
}

impl Refused {
    /// Every reason, in the order of the declaration.
    pub(in crate::ingest) const ALL: [Refused; 7] = [
        Refused::NoDescriptor,
        Refused::NotMemory,
        Refused::WrongSeals,
        Refused::WrongSize,
        Refused::NoRoom,
        Refused::TooFast,
        Refused::Kernel,
    ];

    /// The value of the metric label `reason`.
    pub(in crate::ingest) const fn as_str(self) -> &'static str {
        match self {
            Refused::NoDescriptor => "no_descriptor",
            Refused::NotMemory => "not_memory",
            Refused::WrongSeals => "wrong_seals",
            Refused::WrongSize => "wrong_size",
            Refused::NoRoom => "no_room",
            Refused::TooFast => "too_fast",
            Refused::Kernel => "kernel",
        }
    }
}

/// The seals of a memfd; `None` for any other file. `F_GET_SEALS` is answered by the kernel from its own
/// memory, never by a FUSE file system, which need not answer.
pub(in crate::ingest) fn seals_of(descriptor: &OwnedFd) -> Option<SealFlag> {
    fcntl(descriptor, FcntlArg::F_GET_SEALS).ok().map(SealFlag::from_bits_retain)
}

/// A mapped page.
#[derive(Debug)]
pub(in crate::ingest) struct Page {
    memory: NonNull<BeatPage>,
    length: usize,
}

// SAFETY: the memory belongs to no thread, and all access to it is to atomic words.
unsafe impl Send for Page {}

impl Page {
    /// Verifies and maps the memfd of an agent. The descriptor may be closed afterwards.
    ///
    /// # Errors
    ///
    /// Why it is refused. Nothing is mapped.
    pub(in crate::ingest) fn map(descriptor: &OwnedFd) -> Result<Page, Refused> {
        let seals = seals_of(descriptor).ok_or(Refused::NotMemory)?;
        // Huge pages can be sealed too, but they are scarce.
        let is_ordinary = fstatfs(descriptor).is_ok_and(|status| status.filesystem_type() == TMPFS_MAGIC);
        if !is_ordinary {
            return Err(Refused::NotMemory);
        }
        let against_writing = SealFlag::F_SEAL_WRITE | SealFlag::from_bits_retain(libc::F_SEAL_FUTURE_WRITE);
        if !seals.contains(SealFlag::F_SEAL_SHRINK) || seals.intersects(against_writing) {
            return Err(Refused::WrongSeals);
        }
        let length = sysconf(SysconfVar::PAGE_SIZE).ok().flatten().ok_or(Refused::Kernel)?;
        let size = fstat(descriptor).map_err(|_| Refused::Kernel)?.st_size;
        let length = usize::try_from(length).ok().filter(|_| size == length).ok_or(Refused::WrongSize)?;
        Self::map_checked(descriptor, length)
    }

    fn map_checked(descriptor: &OwnedFd, length: usize) -> Result<Page, Refused> {
        fault::expect().map_err(|_| Refused::Kernel)?;
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_SHARED | libc::MAP_POPULATE;
        // SAFETY: a new mapping at an address of the kernel's choice touches no memory that exists.
        let memory =
            unsafe { libc::mmap(ptr::null_mut(), length, protection, flags, descriptor.as_raw_fd(), 0) };
        if memory == libc::MAP_FAILED {
            return Err(Refused::Kernel);
        }
        let memory = NonNull::new(memory.cast()).ok_or(Refused::Kernel)?;
        Ok(Page { memory, length })
    }

    /// The shared words.
    #[inline]
    pub(in crate::ingest) fn words(&self) -> &BeatPage {
        fault::look_at(self.memory.addr().get());
        // SAFETY: mapped as long as `self` lives, aligned to a page and no shorter than a `BeatPage`, whose
        // words are atomic and may have any value; memory that is gone is replaced by the SIGBUS handler.
        unsafe { self.memory.as_ref() }
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        // An agent that still has the page must not rely on further polls.
        self.words().promise(0);
        fault::look_away_from(self.memory.addr().get());
        // SAFETY: the range is the mapping made for `self`, to which no reference is left.
        unsafe { libc::munmap(self.memory.as_ptr().cast(), self.length) };
    }
}

#[cfg(test)]
pub(in crate::ingest) mod tests {
    use std::fs::File;
    use std::os::fd::FromRawFd;
    use std::sync::atomic::{AtomicU64, Ordering};

    use varta_proto::page::Glance;

    use super::*;

    impl Page {
        /// Stores to the first word, past the sequence lock.
        pub(in crate::ingest) fn scribble_sequence(&self, sequence: u64) {
            // SAFETY: the first word of the page is an atomic integer, and the page is mapped.
            unsafe { self.memory.cast::<AtomicU64>().as_ref() }.store(sequence, Ordering::Relaxed);
        }
    }

    const SEALED: i32 = libc::F_SEAL_SHRINK | libc::F_SEAL_GROW | libc::F_SEAL_SEAL;

    fn memory(flags: u32, length: u64, seals: i32) -> Option<OwnedFd> {
        // SAFETY: the name is a static string.
        let descriptor = unsafe { libc::memfd_create(c"test".as_ptr(), flags | libc::MFD_ALLOW_SEALING) };
        if descriptor < 0 {
            return None;
        }
        // SAFETY: the kernel has just opened the descriptor for this test.
        let descriptor = unsafe { OwnedFd::from_raw_fd(descriptor) };
        File::from(descriptor.try_clone().unwrap()).set_len(length).unwrap();
        fcntl(&descriptor, FcntlArg::F_ADD_SEALS(SealFlag::from_bits_retain(seals))).unwrap();
        Some(descriptor)
    }

    fn length() -> u64 {
        u64::try_from(sysconf(SysconfVar::PAGE_SIZE).unwrap().unwrap()).unwrap()
    }

    /// A page as an agent makes it.
    pub(in crate::ingest) fn sealed() -> OwnedFd {
        memory(0, length(), SEALED).unwrap()
    }

    fn refused(descriptor: &OwnedFd) -> Option<Refused> {
        Page::map(descriptor).err()
    }

    #[test]
    fn a_sealed_page_is_taken_and_both_sides_see_it() {
        let descriptor = sealed();
        let (one, other) = (Page::map(&descriptor).unwrap(), Page::map(&descriptor).unwrap());
        drop(descriptor);
        one.words().promise(7);
        assert!(other.words().is_read_at(7));
        drop(one);
        assert!(!other.words().is_read_at(7), "who takes no looks promises none");
    }

    #[test]
    fn what_could_shrink_or_cannot_be_written_to_is_refused() {
        let future_write = SEALED | libc::F_SEAL_FUTURE_WRITE;
        for seals in [0, libc::F_SEAL_GROW | libc::F_SEAL_SEAL, SEALED | libc::F_SEAL_WRITE, future_write] {
            let descriptor = memory(0, length(), seals).unwrap();
            assert_eq!(refused(&descriptor), Some(Refused::WrongSeals), "{seals:#x}");
        }
    }

    #[test]
    fn another_length_is_refused() {
        for other in [0, 1, length() - 1, length() + 1, 2 * length(), 1 << 40] {
            let descriptor = memory(0, other, SEALED).unwrap();
            assert_eq!(refused(&descriptor), Some(Refused::WrongSize), "{other}");
        }
    }

    #[test]
    fn what_is_no_memory_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let file = File::create(directory.path().join("file")).unwrap();
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        for descriptor in [file.into(), OwnedFd::from(socket), File::open("/dev/null").unwrap().into()] {
            // A file on tmpfs has seals, and is sealed against sealing alone.
            let said = refused(&descriptor);
            assert!(matches!(said, Some(Refused::NotMemory | Refused::WrongSeals)), "{said:?}");
        }
        // Only where huge pages are supported.
        if let Some(huge) = memory(libc::MFD_HUGETLB, 0, SEALED) {
            assert_eq!(refused(&huge), Some(Refused::NotMemory));
        }
    }

    #[test]
    fn a_page_for_which_there_is_no_memory_is_an_empty_one() {
        let descriptor = memory(0, length(), 0).unwrap();
        let page = Page::map_checked(&descriptor, usize::try_from(length()).unwrap()).unwrap();
        page.words().promise(7);
        page.scribble_sequence(2);
        // Beyond the end of the file there is no memory for a page.
        File::from(descriptor).set_len(0).unwrap();
        assert_eq!(page.words().glance(2, u64::MAX), Glance::Empty { sequence: 0 });
        page.words().promise(9);
        assert!(page.words().is_read_at(9));
        drop(page);
    }

    #[test]
    fn every_reason_has_a_name_of_its_own() {
        let names: std::collections::HashSet<_> = Refused::ALL.iter().map(|reason| reason.as_str()).collect();
        assert_eq!(names.len(), Refused::ALL.len());
    }
}
