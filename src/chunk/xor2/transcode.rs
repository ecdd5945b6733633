//! XOR2 chunks rewritten as XOR chunks. Both encodings tell times by the same differences of differences and values by the
//! same kind of windows, so that a sample goes from bits to bits, and neither its time nor its value is looked at. Whole
//! blocks go through here: nothing is allocated, and where the bits end is asked once for each sample.

use std::mem;

use super::{
    super::{
        Error, STALE_NAN,
        bits::{AT_ONCE, End, Reader, Writer},
        st::{Starts, WIDE_START},
        value,
        xor::{self, BAD_WINDOW, WIDE_TIME},
    },
    HEADER,
};

/// Appends a chunk to `out` as an XOR chunk with the same samples, bit by bit, without the start timestamps; returns how
/// many of those there were.
///
/// # Errors
/// Those of [`xor::decode`](super::super::xor::decode); then `out` has some bytes more than before.
pub fn transcode_into(data: &[u8], out: &mut Vec<u8>) -> Result<u16, Error> {
    let (Some(count), Some(body)) = (data.first_chunk::<2>(), data.get(HEADER..)) else {
        return Err(Error::NoHeader);
    };
    let mut bytes = mem::take(out);
    bytes.extend(count);
    let mut transcoder = Transcoder {
        reader: Reader::new(body),
        writer: Writer::new(bytes),
        starts: Starts::new(data[HEADER - 1]),
        time: 0,
        delta: 0,
        read: value::Decoder::new(0),
        written: value::Encoder::new(0.0),
        stale: false,
    };
    let result = transcoder.all(u16::from_be_bytes(*count));
    *out = transcoder.writer.into_bytes();
    result
}

struct Transcoder<'a> {
    reader: Reader<'a>,
    writer: Writer,
    starts: Starts,
    /// Of the last sample; only start timestamps need it.
    time: i64,
    delta: u64,
    /// The last value that was no mark of the series' end.
    read: value::Decoder,
    /// The last value, mark or not.
    written: value::Encoder,
    /// Whether the last value is such a mark.
    stale: bool,
}

impl Transcoder<'_> {
    fn all(&mut self, announced: u16) -> Result<u16, Error> {
        let (mut sample, mut started) = (0, 0);
        while sample < announced {
            let cut = |read| Error::Cut { read, announced };
            let word = self.reader.peek();
            let run = self.unchanged(word, sample, announced);
            if run > 0 {
                if self.reader.is_over() {
                    return Err(cut(sample + self.overrun(run)));
                }
                started += if self.starts.is_set() { run } else { 0 };
                sample += run;
                continue;
            }
            let what = match self.sample(word, sample) {
                Ok(what) if !self.reader.is_over() => what,
                _ => return Err(cut(sample)),
            };
            if let Some(what) = what {
                return Err(Error::Garbled { sample, what });
            }
            started += u16::from(self.starts.is_set());
            sample += 1;
        }
        Ok(started)
    }

    /// Samples that are as far from the last as that from the one before, and have its value, take one bit here and two
    /// there. Rewrites those that begin here, if they have nothing else; returns how many they are.
    #[inline]
    fn unchanged(&mut self, word: u64, sample: u16, announced: u16) -> u16 {
        if sample < 2 || self.stale {
            return 0;
        }
        let most = announced.min(self.starts.next()).saturating_sub(sample);
        let run = word.leading_zeros().min(AT_ONCE).min(u32::from(most));
        if run > 0 {
            self.reader.skip(run);
            self.writer.zeros(2 * run);
            self.time = self.time.wrapping_add(self.delta.wrapping_mul(u64::from(run)) as i64);
        }
        // At most AT_ONCE.
        run as u16
    }

    /// How many samples of a run of single bits are there, if it goes beyond the end.
    #[cold]
    fn overrun(&self, run: u16) -> u16 {
        // The end is within the run.
        run - self.reader.beyond() as u16
    }

    /// One sample of any kind, which begins with the bits of `word`; what is wrong with it. `Err`, or a reader beyond the
    /// end: it is not there.
    #[inline]
    fn sample(&mut self, word: u64, sample: u16) -> Result<Option<&'static str>, End> {
        let before = self.time;
        let what = match sample {
            0 => self.first()?,
            1 => self.second()?,
            _ => self.later(word),
        };
        if what.is_some() {
            return Ok(what);
        }
        let good = self.starts.read(&mut self.reader, sample, before, self.time)?;
        Ok((!good).then_some(WIDE_START))
    }

    fn first(&mut self) -> Result<Option<&'static str>, End> {
        let Some(time) = self.reader.varint()? else {
            return Ok(Some(WIDE_TIME));
        };
        self.time = time;
        let bits = self.reader.bits(64)?;
        self.writer.varint(time);
        self.writer.bits(bits, 64);
        self.written = value::Encoder::new(f64::from_bits(bits));
        self.stale = bits == STALE_NAN;
        if !self.stale {
            self.read.bits = bits;
        }
        Ok(None)
    }

    fn second(&mut self) -> Result<Option<&'static str>, End> {
        let Some(delta) = self.reader.uvarint()? else {
            return Ok(Some(WIDE_TIME));
        };
        self.delta = delta;
        self.time = self.time.wrapping_add(delta as i64);
        self.writer.uvarint(delta);
        let good = self.value();
        let bits = self.bits();
        self.written.write_behind(&mut self.writer, 0, bits);
        Ok((!good).then_some(BAD_WINDOW))
    }

    /// From the third sample on.
    #[inline]
    fn later(&mut self, word: u64) -> Option<&'static str> {
        let (difference, good) = match word.leading_ones() {
            0 => {
                self.reader.skip(1);
                self.stale = false;
                (0, true)
            }
            1 => {
                self.reader.skip(3);
                self.stale = false;
                let new = word << 2 >> 63 == 1;
                (0, self.window(new))
            }
            2 => {
                self.reader.skip(3 + 13);
                ((word << 3) as i64 >> (64 - 13), self.value())
            }
            3 => {
                self.reader.skip(4 + 20);
                ((word << 4) as i64 >> (64 - 20), self.value())
            }
            4 => {
                self.reader.skip(5);
                let difference = self.reader.take(64) as i64;
                (difference, self.value())
            }
            _ => {
                self.reader.skip(5);
                self.stale = true;
                (0, true)
            }
        };
        self.delta = self.delta.wrapping_add(difference as u64);
        self.time = self.time.wrapping_add(self.delta as i64);
        let bits = self.bits();
        xor::write_later(&mut self.writer, &mut self.written, difference, bits);
        (!good).then_some(BAD_WINDOW)
    }

    /// The bits of the last value.
    #[inline]
    fn bits(&self) -> u64 {
        if self.stale { STALE_NAN } else { self.read.bits }
    }

    /// A value with a prefix of its own; whether it is one.
    fn value(&mut self) -> bool {
        let ones = self.reader.peek().leading_ones().min(3);
        self.reader.skip((ones + 1).min(3));
        self.stale = ones == 3;
        match ones {
            0 | 3 => true,
            _ => self.window(ones == 2),
        }
    }

    /// The difference to the last value by its window or a new one; whether that is one.
    #[inline]
    fn window(&mut self, new: bool) -> bool {
        if new {
            return self.read.take_new_window(&mut self.reader);
        }
        self.read.take_same_window(&mut self.reader);
        true
    }
}
