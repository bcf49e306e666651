//! Bits, most significant first, as H.264 and FLAC write them.
//!
//! Owns: packing of fixed-width numbers, Exp-Golomb and unary codes into bytes.
//! Does not own: what the numbers mean, checksums, emulation prevention.

/// Packs numbers of any width into bytes.
#[derive(Debug, Default)]
pub(super) struct BitWriter {
    bytes: Vec<u8>,
    /// Bits that do not fill a byte yet, in the low end.
    pending: u64,
    /// How many bits are in `pending`: 0 to 7 between calls.
    pending_len: u32,
}

impl BitWriter {
    /// Appends the low `width` bits of `value` (`width` is at most 32).
    pub(super) fn put(&mut self, value: u32, width: u32) {
        debug_assert!(width <= 32);
        let mask = (1u64 << width) - 1;
        self.pending = (self.pending << width) | (u64::from(value) & mask);
        self.pending_len += width;
        while self.pending_len >= 8 {
            self.pending_len -= 8;
            self.bytes.push((self.pending >> self.pending_len) as u8);
        }
        self.pending &= (1 << self.pending_len) - 1;
    }

    /// Appends `value` as unsigned Exp-Golomb code: ue(v) of H.264, section 9.1.
    pub(super) fn put_ue(&mut self, value: u16) {
        let code = u32::from(value) + 1;
        let width = 32 - code.leading_zeros();
        self.put(0, width - 1);
        self.put(code, width);
    }

    /// Appends `zeros` zero bits and a one: FLAC's unary code.
    pub(super) fn put_unary(&mut self, zeros: u32) {
        for _ in 0..zeros / 32 {
            self.put(0, 32);
        }
        self.put(0, zeros % 32);
        self.put(1, 1);
    }

    /// Appends zero bits up to the next byte.
    pub(super) fn align(&mut self) {
        if self.pending_len > 0 {
            self.put(0, 8 - self.pending_len);
        }
    }

    /// Appends whole bytes. The writer has to be at a byte's start.
    pub(super) fn put_bytes(&mut self, bytes: &[u8]) {
        debug_assert_eq!(self.pending_len, 0);
        self.bytes.extend_from_slice(bytes);
    }

    /// The whole bytes so far.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The bytes, with zero bits up to the end of the last one.
    pub(super) fn into_bytes(mut self) -> Vec<u8> {
        self.align();
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_packed_most_significant_bit_first() {
        let mut writer = BitWriter::default();
        writer.put(0b101, 3);
        writer.put(0xffff_ffff, 32);
        writer.put(0, 5);
        assert_eq!(writer.into_bytes(), [0b1011_1111, 0xff, 0xff, 0xff, 0b1110_0000]);
    }

    #[test]
    fn exp_golomb_codes_are_those_of_the_standards_table() {
        let code = |value| {
            let mut writer = BitWriter::default();
            writer.put_ue(value);
            writer.into_bytes()
        };
        assert_eq!(code(0), [0b1000_0000]);
        assert_eq!(code(1), [0b0100_0000]);
        assert_eq!(code(2), [0b0110_0000]);
        assert_eq!(code(7), [0b0001_0000]);
        assert_eq!(code(25), [0b0000_1101, 0]);
    }

    #[test]
    fn a_long_unary_code_crosses_words() {
        let mut writer = BitWriter::default();
        writer.put_unary(71);
        assert_eq!(writer.into_bytes(), [0, 0, 0, 0, 0, 0, 0, 0, 1]);
    }

    #[test]
    fn align_at_a_bytes_start_adds_nothing() {
        let mut writer = BitWriter::default();
        writer.put(1, 8);
        writer.align();
        writer.put_bytes(&[2]);
        assert_eq!(writer.bytes(), [1, 2]);
    }
}
