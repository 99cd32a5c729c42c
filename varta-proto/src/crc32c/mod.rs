//! CRC-32C, the checksum of every frame: the Castagnoli polynomial, reflected, with initial value and final
//! XOR of all ones.
//!
//! Most processors have an instruction for it: SSE4.2 on x86-64, the CRC extension on aarch64. Elsewhere a
//! table gives the same result more slowly.

mod hardware;
mod table;

use hardware::Crc32cInstruction;

/// The initial value of the register, and the final XOR.
const ONES: u32 = u32::MAX;

/// Computes the CRC-32C of `bytes`.
///
/// ```
/// assert_eq!(varta_proto::crc32c::checksum(b"123456789"), 0xe306_9283);
/// ```
pub fn checksum(bytes: &[u8]) -> u32 {
    ONES ^ match Crc32cInstruction::detect() {
        Some(instruction) => instruction.fold(ONES, bytes),
        None => table::fold(ONES, bytes),
    }
}

/// Computes the CRC-32C of the part of a frame that its checksum covers: three little-endian words and a half
/// word.
///
/// Four numbers and not an array, because an array of this size would be passed through memory.
#[inline]
pub(crate) fn checksum_28(a: u64, b: u64, c: u64, half: u32) -> u32 {
    ONES ^ match Crc32cInstruction::detect() {
        Some(instruction) => instruction.fold_28(ONES, a, b, c, half),
        None => table::fold_28(ONES, a, b, c, half),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::vec::Vec;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(512))]

        #[test]
        fn table_and_instruction_agree_with_an_independent_implementation(bytes: Vec<u8>) {
            let oracle = ::crc32c::crc32c(&bytes);
            prop_assert_eq!(checksum(&bytes), oracle);
            prop_assert_eq!(ONES ^ table::fold(ONES, &bytes), oracle);
            if let Some(instruction) = Crc32cInstruction::detect() {
                prop_assert_eq!(ONES ^ instruction.fold(ONES, &bytes), oracle);
            }
        }

        #[test]
        fn words_and_bytes_have_the_same_checksum(a: u64, b: u64, c: u64, half: u32) {
            let mut bytes = [a, b, c].map(u64::to_le_bytes).as_flattened().to_vec();
            bytes.extend(half.to_le_bytes());
            let oracle = ::crc32c::crc32c(&bytes);
            prop_assert_eq!(checksum_28(a, b, c, half), oracle);
            prop_assert_eq!(ONES ^ table::fold_28(ONES, a, b, c, half), oracle);
            if let Some(instruction) = Crc32cInstruction::detect() {
                prop_assert_eq!(ONES ^ instruction.fold_28(ONES, a, b, c, half), oracle);
            }
        }
    }
}
