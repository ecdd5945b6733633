//! Streams of bits, the most significant bit of each byte first.

use std::mem;

/// The data ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct End;

/// How many bits [`Reader::peek`] shows at least, and [`Writer::put`] takes at most: with the bits of a byte that was begun
/// they fit into a word.
pub(super) const AT_ONCE: u32 = 56;

/// Bits, written one after another.
#[derive(Debug, Default)]
pub(super) struct Writer {
    /// What is written, and room behind it that is filled with anything.
    bytes: Vec<u8>,
    /// How many bits are written.
    at: usize,
    /// Those of the last byte, if it is not full, at the top; all others are zeros.
    word: u64,
}

impl Writer {
    /// Goes on behind whole bytes.
    pub(super) fn new(bytes: Vec<u8>) -> Self {
        Self {
            at: bytes.len() * 8,
            bytes,
            word: 0,
        }
    }

    /// Goes on behind whole bytes, with room for so many more.
    pub(super) fn with_room(mut bytes: Vec<u8>, room: usize) -> Self {
        let len = bytes.len();
        bytes.resize(len + room, 0);
        Self {
            bytes,
            at: len * 8,
            word: 0,
        }
    }

    /// The lowest `count` (at most 64) bits of `value`.
    #[inline]
    pub(super) fn bits(&mut self, value: u64, count: u32) {
        let low = count.min(32);
        if count > low {
            self.put(value >> 32, (count - low).min(32));
        }
        self.put(value, low);
    }

    /// The lowest `count` (at most [`AT_ONCE`]) bits of `value`.
    #[inline(always)]
    pub(super) fn put(&mut self, value: u64, count: u32) {
        if count > 0 {
            self.put_top(value << (64 - count), count);
        }
    }

    /// The highest `count` (at most [`AT_ONCE`]) bits of `value`, which has no others.
    #[inline(always)]
    pub(super) fn put_top(&mut self, value: u64, count: u32) {
        let (byte, used) = (self.at / 8, (self.at % 8) as u32);
        let word = self.word | value >> used;
        // A whole word is written each time: what is behind its bits is written again.
        match self.bytes.get_mut(byte..byte + 8) {
            Some(place) => place.copy_from_slice(&word.to_be_bytes()),
            // By value: a writer whose address is given away is kept in memory by the compiler.
            None => self.bytes = write_at_end(mem::take(&mut self.bytes), byte, word),
        }
        self.word = word << ((used + count) & !7);
        self.at += count as usize;
    }

    /// As [`Self::put_top`], if there is room for a word; `false`: nothing was written.
    #[inline(always)]
    pub(super) fn put_inside(&mut self, value: u64, count: u32) -> bool {
        let inside = self.at / 8 + 8 <= self.bytes.len();
        if inside {
            self.put_top(value, count);
        }
        inside
    }

    pub(super) fn bit(&mut self, set: bool) {
        self.put(u64::from(set), 1);
    }

    /// So many zeros.
    #[inline(always)]
    pub(super) fn zeros(&mut self, mut count: u32) {
        while count > AT_ONCE {
            self.put(0, AT_ONCE);
            count -= AT_ONCE;
        }
        self.put(0, count);
    }

    /// Seven bits a byte, the lowest first, the highest bit for more to come.
    pub(super) fn uvarint(&mut self, mut value: u64) {
        let (mut bytes, mut count) = (0, 0);
        while value >= 0x80 {
            bytes = bytes << 8 | value & 0x7f | 0x80;
            count += 8;
            value >>= 7;
            if count == AT_ONCE {
                self.put(mem::take(&mut bytes), mem::take(&mut count));
            }
        }
        self.put(bytes << 8 | value, count + 8);
    }

    /// A uvarint with the sign in its lowest bit.
    pub(super) fn varint(&mut self, value: i64) {
        self.uvarint(((value << 1) ^ (value >> 63)) as u64);
    }

    /// Everything written, filled up with zeros to a whole byte.
    pub(super) fn into_bytes(mut self) -> Vec<u8> {
        self.bytes.truncate(self.at.div_ceil(8));
        self.bytes
    }
}

/// Writes a word where there is no room for it, and makes more room than it needs.
#[cold]
#[inline(never)]
fn write_at_end(mut bytes: Vec<u8>, at: usize, word: u64) -> Vec<u8> {
    bytes.resize((at + 8).max(bytes.len() * 2).max(64), 0);
    bytes[at..at + 8].copy_from_slice(&word.to_be_bytes());
    bytes
}

/// The word that begins at a byte near the end or behind it, with zeros for what is not there.
#[cold]
#[inline(never)]
fn last_word(bytes: &[u8], at: usize) -> u64 {
    let rest = bytes.get(at..).unwrap_or_default();
    let mut word = [0; 8];
    word[..rest.len().min(8)].copy_from_slice(&rest[..rest.len().min(8)]);
    u64::from_be_bytes(word)
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
    #[inline(always)]
    pub(super) fn peek(&self) -> u64 {
        let at = self.at / 8;
        let word = match self.bytes.get(at..at + 8).and_then(<[u8]>::first_chunk) {
            Some(word) => u64::from_be_bytes(*word),
            None => last_word(self.bytes, at),
        };
        // At most 7 bits are skipped, so that 57 are left in the word.
        word << (self.at % 8)
    }

    /// As [`Self::peek`], if a whole word is left.
    #[inline(always)]
    pub(super) fn peek_inside(&self) -> Option<u64> {
        (self.at / 8 + 8 <= self.bytes.len()).then(|| self.peek())
    }

    /// The 64 bits that come so many bits later, with zeros behind the end.
    #[inline(always)]
    pub(super) fn peek_whole(&self, later: u32) -> u64 {
        let at = self.at + later as usize;
        let high = Reader { bytes: self.bytes, at }.peek();
        let last = self.bytes.get(at / 8 + 8).copied().unwrap_or_default();
        high | u64::from(last) >> (8 - at % 8)
    }

    /// Passes over all that is left, and beyond.
    pub(super) fn give_up(&mut self) {
        self.at = usize::MAX / 2;
    }

    /// Passes over bits that were seen. Whoever does so may pass the end, and asks [`Self::is_over`] before long.
    #[inline(always)]
    pub(super) fn skip(&mut self, count: u32) {
        self.at += count as usize;
    }

    /// Whether more was skipped than there is.
    #[inline(always)]
    pub(super) fn is_over(&self) -> bool {
        self.at > self.bytes.len() * 8
    }

    /// The next `count` (1 to 64) bits, with zeros behind the end; see [`Self::skip`].
    #[inline(always)]
    pub(super) fn take(&mut self, count: u32) -> u64 {
        if count <= AT_ONCE {
            let value = self.peek() >> (64 - count);
            self.skip(count);
            return value;
        }
        let low = count - 32;
        let high = self.peek() >> 32;
        self.skip(32);
        let value = high << low | self.peek() >> (64 - low);
        self.skip(low);
        value
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
        // Nearly all take fewer bytes than are in sight.
        let (mut word, mut value) = (self.peek(), 0);
        for index in 0..AT_ONCE / 8 {
            value |= (word >> 56 & 0x7f) << (7 * index);
            if word >> 63 == 0 {
                let length = 8 * (index + 1);
                if length as usize > self.left() {
                    return Err(End);
                }
                self.skip(length);
                return Ok(Some(value));
            }
            word <<= 8;
        }
        self.long_uvarint()
    }

    #[cold]
    fn long_uvarint(&mut self) -> Result<Option<u64>, End> {
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
