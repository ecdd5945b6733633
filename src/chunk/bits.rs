//! Streams of bits, the most significant bit of each byte first.

/// The data ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct End;

/// Bits, written one after another.
#[derive(Debug)]
pub(super) struct Writer {
    bytes: Vec<u8>,
    /// How many bits of the last byte are free.
    free: u32,
}

impl Writer {
    /// Goes on behind whole bytes.
    pub(super) fn new(bytes: Vec<u8>) -> Self {
        Self { bytes, free: 0 }
    }

    /// The lowest `count` (at most 64) bits of `value`.
    pub(super) fn bits(&mut self, value: u64, count: u32) {
        let mut left = count.min(64);
        while left > 0 {
            if self.free == 0 {
                self.bytes.push(0);
                self.free = 8;
            }
            let take = left.min(self.free);
            let part = (value >> (left - take)) & ((1 << take) - 1);
            if let Some(last) = self.bytes.last_mut() {
                // `part` has at most 8 bits.
                *last |= (part as u8) << (self.free - take);
            }
            self.free -= take;
            left -= take;
        }
    }

    pub(super) fn bit(&mut self, set: bool) {
        self.bits(u64::from(set), 1);
    }

    /// Seven bits a byte, the lowest first, the highest bit for more to come.
    pub(super) fn uvarint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.bits(value | 0x80, 8);
            value >>= 7;
        }
        self.bits(value, 8);
    }

    /// A uvarint with the sign in its lowest bit.
    pub(super) fn varint(&mut self, value: i64) {
        self.uvarint(((value << 1) ^ (value >> 63)) as u64);
    }

    /// Everything written, filled up with zeros to a whole byte.
    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }
}

/// Bits, read one after another.
#[derive(Clone, Debug)]
pub(super) struct Reader<'a> {
    bytes: &'a [u8],
    /// The next bit.
    at: usize,
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// How many bits were read.
    pub(super) fn position(&self) -> usize {
        self.at
    }

    /// How many bits are left.
    pub(super) fn left(&self) -> usize {
        self.bytes.len() * 8 - self.at
    }

    /// The next `count` (at most 64) bits.
    pub(super) fn bits(&mut self, count: u32) -> Result<u64, End> {
        if count > 56 {
            let high = self.bits(count - 32)?;
            return Ok(high << 32 | self.bits(32)?);
        }
        let wide = count as usize;
        if wide > self.left() {
            return Err(End);
        }
        if count == 0 {
            return Ok(0);
        }
        let rest = &self.bytes[self.at / 8..];
        let word = match rest.first_chunk() {
            Some(word) => u64::from_be_bytes(*word),
            None => {
                let mut word = [0; 8];
                word[..rest.len()].copy_from_slice(rest);
                u64::from_be_bytes(word)
            }
        };
        // At most 7 bits are skipped, so that 57 are left in the word.
        let value = word << (self.at % 8) >> (64 - count);
        self.at += wide;
        Ok(value)
    }

    pub(super) fn bit(&mut self) -> Result<bool, End> {
        Ok(self.bits(1)? == 1)
    }

    /// How many ones come, at most `most`; the zero behind fewer is read as well.
    pub(super) fn ones(&mut self, most: u32) -> Result<u32, End> {
        for ones in 0..most {
            if !self.bit()? {
                return Ok(ones);
            }
        }
        Ok(most)
    }

    /// Reads a uvarint; `Ok(None)` if it takes more than 64 bits.
    pub(super) fn uvarint(&mut self) -> Result<Option<u64>, End> {
        let mut value = 0;
        for index in 0..10 {
            let byte = self.bits(8)?;
            if index == 9 && byte > 1 {
                break;
            }
            value |= (byte & 0x7f) << (7 * index);
            if byte < 0x80 {
                return Ok(Some(value));
            }
        }
        Ok(None)
    }

    /// Reads a varint; `Ok(None)` if it takes more than 64 bits.
    pub(super) fn varint(&mut self) -> Result<Option<i64>, End> {
        let value = self.uvarint()?;
        Ok(value.map(|value| (value >> 1) as i64 ^ -((value & 1) as i64)))
    }
}
