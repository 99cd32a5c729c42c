//! CRC-32C by the processor's own instruction.
//!
//! The instruction may be missing, and executing it then kills the process. An [`Crc32cInstruction`] can only be
//! had where it was found to exist, so that holding one is the proof which the unsafe calls in this file
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
    /// Looks for the instruction; it costs one relaxed load once the processor has been asked.
    #[inline]
    pub(super) fn detect() -> Option<Self> {
        arch::is_present().then_some(Self(()))
    }

    /// Takes `bytes` into `register`.
    #[inline]
    pub(super) fn fold(self, register: u32, bytes: &[u8]) -> u32 {
        // SAFETY: `detect` made `self`, so the processor has the feature that the function is compiled for.
        unsafe { arch::fold(register, bytes) }
    }

    /// Takes three little-endian words and a half into `register`.
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

    /// What the processor answered. Relaxed, because nothing else is published by it: a thread that misses
    /// another's answer asks again and hears the same.
    static SUPPORT: AtomicU8 = AtomicU8::new(UNKNOWN);

    #[inline]
    pub(super) fn is_present() -> bool {
        cfg!(target_feature = "sse4.2") || SUPPORT.load(Ordering::Relaxed) == PRESENT || query_cpuid()
    }

    /// Asks the processor, unless it has said no already.
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

    /// In assembly, because it is four instructions: a function compiled for the feature is never inlined
    /// into a caller that is not, and the call, with the registers that it spills, costs more than they do.
    #[inline]
    pub(super) unsafe fn fold_28(mut register: u32, a: u64, b: u64, c: u64, half: u32) -> u32 {
        // SAFETY: the caller vouches for SSE4.2. The instructions touch no more than their operands.
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

    /// Takes one word into `register`.
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

    /// The standard library asks the operating system once and keeps the answer.
    #[cfg(feature = "std")]
    #[inline]
    pub(super) fn is_present() -> bool {
        std::arch::is_aarch64_feature_detected!("crc")
    }

    /// A program may not ask the processor itself, so only what it was compiled for is known.
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

/// The table again, for processors where nobody ever gets an [`Crc32cInstruction`].
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
