//! CRC-32C with the processor's instruction.
//!
//! Executing the instruction on a processor without it kills the process. A [`Crc32cInstruction`] exists only
//! where detection has found the instruction, so holding one is the proof that the unsafe calls in this file
//! need.

#![allow(unsafe_code, reason = "what needs a processor feature is unsafe to call from what does not")]

#[cfg(target_arch = "aarch64")]
use aarch64 as arch;
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
use unsupported as arch;
#[cfg(target_arch = "x86_64")]
use x86_64 as arch;

/// The proof that this processor has the instruction.
#[derive(Clone, Copy, Debug)]
pub(super) struct Crc32cInstruction(());

impl Crc32cInstruction {
    /// Detects the instruction. After the first call it costs one relaxed load.
    #[inline]
    pub(super) fn detect() -> Option<Self> {
        arch::is_present().then_some(Self(()))
    }

    /// Updates `register` with `bytes`.
    #[inline]
    pub(super) fn fold(self, register: u32, bytes: &[u8]) -> u32 {
        // SAFETY: `detect` made `self`, so the processor has the feature that the function is compiled for.
        unsafe { arch::fold(register, bytes) }
    }

    /// Updates `register` with three little-endian words and a half word.
    #[inline]
    pub(super) fn fold_28(self, register: u32, a: u64, b: u64, c: u64, half: u32) -> u32 {
        // SAFETY: `detect` made `self`, so the processor has the feature that the function is compiled for.
        unsafe { arch::fold_28(register, a, b, c, half) }
    }
}

#[cfg(target_arch = "x86_64")]
mod x86_64 {
    use core::arch::asm;
    use core::arch::x86_64::{__cpuid, _mm_crc32_u8, _mm_crc32_u64};
    use core::sync::atomic::{AtomicU8, Ordering};

    const UNKNOWN: u8 = 0;
    const PRESENT: u8 = 1;
    const ABSENT: u8 = 2;

    /// The result of the detection. Relaxed, because it publishes nothing else: a thread that misses another
    /// thread's store repeats the detection with the same result.
    static SUPPORT: AtomicU8 = AtomicU8::new(UNKNOWN);

    #[inline]
    pub(super) fn is_present() -> bool {
        cfg!(target_feature = "sse4.2") || SUPPORT.load(Ordering::Relaxed) == PRESENT || query_cpuid()
    }

    /// Executes CPUID, unless the instruction is known to be absent.
    #[cold]
    #[inline(never)]
    fn query_cpuid() -> bool {
        const SSE4_2: u32 = 1 << 20;
        if SUPPORT.load(Ordering::Relaxed) == ABSENT {
            return false;
        }
        #[allow(unused_unsafe, reason = "calling it has become safe after the oldest supported release")]
        // SAFETY: every x86-64 processor has CPUID and its leaf 1.
        let features = unsafe { __cpuid(1) };
        let present = features.ecx & SSE4_2 != 0;
        SUPPORT.store(if present { PRESENT } else { ABSENT }, Ordering::Relaxed);
        present
    }

    #[target_feature(enable = "sse4.2")]
    pub(super) fn fold(register: u32, bytes: &[u8]) -> u32 {
        let (words, rest) = bytes.as_chunks();
        let register =
            words.iter().fold(register, |register, &word| step(register, u64::from_le_bytes(word)));
        rest.iter().fold(register, |register, &byte| _mm_crc32_u8(register, byte))
    }

    /// Assembly, because it is four instructions: a function compiled for the feature is never inlined into a
    /// caller without it, and the call with its register spills costs more than the instructions.
    #[inline]
    pub(super) unsafe fn fold_28(mut register: u32, a: u64, b: u64, c: u64, half: u32) -> u32 {
        // SAFETY: the caller guarantees SSE4.2. The instructions access only their operands.
        unsafe {
            // The 64-bit form ignores the upper half of its register, which is undefined here, and clears it.
            asm!(
                "crc32 {register:r}, {a}",
                "crc32 {register:r}, {b}",
                "crc32 {register:r}, {c}",
                "crc32 {register:e}, {half:e}",
                register = inout(reg) register,
                a = in(reg) a,
                b = in(reg) b,
                c = in(reg) c,
                half = in(reg) half,
                options(pure, nomem, nostack, preserves_flags),
            );
        }
        register
    }

    /// Updates `register` with one word.
    #[inline]
    #[target_feature(enable = "sse4.2")]
    #[expect(clippy::cast_possible_truncation, reason = "the upper half of the answer is always zero")]
    fn step(register: u32, word: u64) -> u32 {
        _mm_crc32_u64(u64::from(register), word) as u32
    }
}

#[cfg(target_arch = "aarch64")]
mod aarch64 {
    use core::arch::aarch64::{__crc32cb, __crc32cd, __crc32cw};

    /// The standard library queries the operating system once and caches the result.
    #[cfg(feature = "std")]
    #[inline]
    pub(super) fn is_present() -> bool {
        std::arch::is_aarch64_feature_detected!("crc")
    }

    /// Without the standard library the feature cannot be detected at run time, so only the compile-time
    /// target counts.
    #[cfg(not(feature = "std"))]
    #[inline]
    pub(super) fn is_present() -> bool {
        cfg!(target_feature = "crc")
    }

    #[target_feature(enable = "crc")]
    pub(super) fn fold(register: u32, bytes: &[u8]) -> u32 {
        let (words, rest) = bytes.as_chunks();
        let register =
            words.iter().fold(register, |register, &word| __crc32cd(register, u64::from_le_bytes(word)));
        rest.iter().fold(register, |register, &byte| __crc32cb(register, byte))
    }

    #[target_feature(enable = "crc")]
    pub(super) fn fold_28(register: u32, a: u64, b: u64, c: u64, half: u32) -> u32 {
        let register = __crc32cd(__crc32cd(__crc32cd(register, a), b), c);
        __crc32cw(register, half)
    }
}

/// The table-based checksum under the same interface, for processors without support in this file.
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
mod unsupported {
    use crate::crc32c::table;

    pub(super) fn is_present() -> bool {
        false
    }

    pub(super) unsafe fn fold(register: u32, bytes: &[u8]) -> u32 {
        table::fold(register, bytes)
    }

    pub(super) unsafe fn fold_28(register: u32, a: u64, b: u64, c: u64, half: u32) -> u32 {
        table::fold_28(register, a, b, c, half)
    }
}
