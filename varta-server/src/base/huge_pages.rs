//! Huge pages, by madvise(2).
//!
//! A beat of one of a million agents touches two cache lines somewhere in 80 MB. With pages of 4 KiB that
//! costs TLB misses whose page tables are not cached either.
#![allow(unsafe_code, reason = "madvise(2) is called through libc")]

/// Advises the kernel to back a vector with huge pages, its unused capacity included. Without effect where
/// huge pages are not available.
pub(crate) fn prefer_huge_pages<T>(list: &Vec<T>) {
    const PAGE: usize = 4096;
    let start = list.as_ptr().addr().next_multiple_of(PAGE);
    let end = (list.as_ptr().addr() + list.capacity() * size_of::<T>()) / PAGE * PAGE;
    if start < end {
        // The call fails on kernels without huge pages, which changes nothing.
        // SAFETY: whole pages of the vector's own allocation; the advice does not change their content.
        let _ = unsafe {
            libc::madvise(std::ptr::without_provenance_mut(start), end - start, libc::MADV_HUGEPAGE)
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_in_a_list_stays_as_it_is() {
        for count in [0, 1, 1_000, 1_000_000] {
            let mut list: Vec<u64> = Vec::with_capacity(2 * count);
            list.extend(0..count as u64);
            prefer_huge_pages(&list);
            list.extend(0..count as u64);
            assert!(list.iter().copied().eq((0..count as u64).chain(0..count as u64)));
        }
    }
}
