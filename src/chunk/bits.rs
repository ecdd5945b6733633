//! Streams of bits, the most significant bit of each byte first.

/// The data ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct End;

/// How many bits [`Reader::peek`] shows at least, and [`Writer::put`] takes at most: with the bits of a byte that was begun
/// they fit into a word.
pub(super) const AT_ONCE: u32 = 56;

/// Bits, written one after another.
#[derive(Debug)]
pub(super) struct Writer {
    /// What is written, and room behind it that is filled with anything.
    bytes: Vec<u8>,
    /// How many bytes of it are full.
    at: usize,
    /// The bits behind those, at the top; all others are zeros.
    word: u64,
    /// How many they are: fewer than 8.
    used: u32,
}

impl Writer {
    /// Goes on behind whole bytes.
    pub(super) fn new(bytes: Vec<u8>) -> Self {
        Self {
            at: bytes.len(),
            bytes,
            word: 0,
            used: 0,
        }
    }

    /// The lowest `count` (at most 64) bits of `value`.
    #[inline]
    pub(super) fn bits(&mut self, value: u64, count: u32) {
        let low = count.min(32);
        if count > low {
            let high = (count - low).min(32);
            self.put((value >> 32) & (u64::MAX >> (64 - high)), high);
        }
        if low > 0 {
            self.put(value & (u64::MAX >> (64 - low)), low);
        }
    }

    /// The lowest `count` (at most [`AT_ONCE`]) bits of `value`, which has no others.
    #[inline]
    pub(super) fn put(&mut self, value: u64, count: u32) {
        let end = self.at + 8;
        if end > self.bytes.len() {
            self.grow(end);
        }
        let filled = self.used + count;
        // With no bits at all any shift does.
        let word = self.word | value << (64_u32.wrapping_sub(filled) & 63);
        // A whole word is written each time: what is behind its bits is written again.
        self.bytes[self.at..end].copy_from_slice(&word.to_be_bytes());
        let whole = filled / 8;
        self.at += whole as usize;
        self.word = word << (whole * 8);
        self.used = filled % 8;
    }

    #[cold]
    fn grow(&mut self, least: usize) {
        self.bytes.resize(least.max(self.bytes.len() * 2).max(64), 0);
    }

    pub(super) fn bit(&mut self, set: bool) {
        self.put(u64::from(set), 1);
    }

    /// So many zeros.
    #[inline]
    pub(super) fn zeros(&mut self, mut count: u32) {
        while count > AT_ONCE {
            self.put(0, AT_ONCE);
            count -= AT_ONCE;
        }
        self.put(0, count);
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
    pub(super) fn into_bytes(mut self) -> Vec<u8> {
        self.bytes.truncate(self.at + usize::from(self.used > 0));
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
        (self.bytes.len() * 8).saturating_sub(self.at)
    }

    /// The next bits, at the top of a word: [`AT_ONCE`] at least, zeros behind the end. None are read.
    #[inline]
    pub(super) fn peek(&self) -> u64 {
        let rest = self.bytes.get(self.at / 8..).unwrap_or_default();
        let word = match rest.first_chunk() {
            Some(word) => u64::from_be_bytes(*word),
            None => {
                let mut word = [0; 8];
                word[..rest.len()].copy_from_slice(rest);
                u64::from_be_bytes(word)
            }
        };
        // At most 7 bits are skipped, so that 57 are left in the word.
        word << (self.at % 8)
    }

    /// Passes over bits that were seen. Whoever does so may pass the end, and asks [`Self::is_over`] before long.
    #[inline]
    pub(super) fn skip(&mut self, count: u32) {
        self.at += count as usize;
    }

    /// Whether more was skipped than there is.
    #[inline]
    pub(super) fn is_over(&self) -> bool {
        self.at > self.bytes.len() * 8
    }

    /// How many bits were skipped that are not there.
    pub(super) fn beyond(&self) -> usize {
        self.at.saturating_sub(self.bytes.len() * 8)
    }

    /// The next `count` (1 to 64) bits, with zeros behind the end; see [`Self::skip`].
    #[inline]
    pub(super) fn take(&mut self, count: u32) -> u64 {
        if count <= AT_ONCE {
            let value = self.peek() >> (64 - count);
            self.skip(count);
            return value;
        }
        let low = count - 32;
        let high = self.take(32);
        high << low | self.take(low)
    }

    /// The next `count` (at most 64) bits.
    #[inline]
    pub(super) fn bits(&mut self, count: u32) -> Result<u64, End> {
        if count as usize > self.left() {
            return Err(End);
        }
        Ok(match count {
            0 => 0,
            _ => self.take(count),
        })
    }

    /// How many ones come, at most `most` (fewer than 32); the zero behind fewer is read as well.
    #[inline]
    pub(super) fn ones(&mut self, most: u32) -> Result<u32, End> {
        let ones = self.peek().leading_ones().min(most);
        let length = (ones + 1).min(most);
        if length as usize > self.left() {
            return Err(End);
        }
        self.skip(length);
        Ok(ones)
    }

    pub(super) fn bit(&mut self) -> Result<bool, End> {
        Ok(self.bits(1)? == 1)
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
