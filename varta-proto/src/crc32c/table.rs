//! CRC-32C with a table, for processors without the instruction.
//!
//! One byte at a time with a table of one kilobyte: such a processor is small, and so are its caches.

/// The Castagnoli polynomial, reflected.
const POLYNOMIAL: u32 = 0x82f6_3b78;

/// The remainder of each byte.
static REMAINDERS: [u32; 256] = {
    let mut table = [0; 256];
    let mut byte = 0_u8;
    loop {
        table[byte as usize] = remainder(byte);
        if byte == u8::MAX {
            break table;
        }
        byte += 1;
    }
};

const fn remainder(byte: u8) -> u32 {
    let mut register = byte as u32;
    let mut bit = 0;
    while bit < 8 {
        register = if register & 1 == 1 { register >> 1 ^ POLYNOMIAL } else { register >> 1 };
        bit += 1;
    }
    register
}

/// Updates `register` with `bytes`.
pub(super) fn fold(register: u32, bytes: &[u8]) -> u32 {
    bytes.iter().fold(register, |register, &byte| {
        let [low, ..] = register.to_le_bytes();
        register >> 8 ^ REMAINDERS[usize::from(low ^ byte)]
    })
}

/// Updates `register` with three little-endian words and a half word.
#[cold]
pub(super) fn fold_28(register: u32, a: u64, b: u64, c: u64, half: u32) -> u32 {
    let register = fold(register, [a, b, c].map(u64::to_le_bytes).as_flattened());
    fold(register, &half.to_le_bytes())
}
