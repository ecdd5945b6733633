//! XOR2 chunks rewritten as XOR chunks. Both encodings tell times by the same differences of differences and values by the
//! same kind of windows, so that a sample goes from bits to bits, and neither its time nor its value is looked at.
//!
//! Whole blocks go through here: nothing is allocated, and what is known between two samples stays in registers as long as
//! they are of the usual kinds ([`Transcoder::usual`]); the others are taken one by one. A chunk that is no good is reported by
//! an end or a window that is none, and read anew to find the error.

use std::mem;

use super::{
    super::{
        Error, STALE_NAN,
        bits::{AT_ONCE, Reader, Writer},
        st::Starts,
        value::{self, Passage},
        xor,
    },
    HEADER, decode,
};

/// So many unchanged samples at most are written together with what follows them.
const SHORT: u16 = 8;
/// How many bits of a word are left behind them.
const SURE: u32 = AT_ONCE - SHORT as u32;
/// How a sample begins that is as far from the last as that from the one before, and whose value stands in the last window:
/// here and there, both in so many bits.
const SAME_WINDOW: (u64, u64, u32) = (0b100, 0b010, 3);
/// From so many bits in the window on, most samples begin like that; where there are fewer, many are unchanged.
const WIDE: u32 = 24;

/// Appends a chunk to `out` as an XOR chunk with the same samples, bit by bit, without the start timestamps; returns how
/// many of those there were.
///
/// # Errors
/// Those of [`xor::decode`](super::super::xor::decode); then `out` has some bytes more than before.
pub fn transcode_into(data: &[u8], out: &mut Vec<u8>) -> Result<u16, Error> {
    let (Some(count), Some(body)) = (data.first_chunk::<2>(), data.get(HEADER..)) else {
        return Err(Error::NoHeader);
    };
    let announced = u16::from_be_bytes(*count);
    out.extend(count);
    let mut transcoder = Transcoder {
        reader: Reader::new(body),
        // Most chunks become no longer than that.
        writer: Writer::with_room(mem::take(out), data.len() + data.len() / 4 + 16),
        starts: Starts::new(data[HEADER - 1]),
        time: 0,
        delta: 0,
        read: value::Decoder::new(0),
        written: value::Encoder::new(0.0),
        stale: false,
        announced,
        sample: 0,
        started: 0,
    };
    let whole = transcoder.all();
    *out = transcoder.writer.into_bytes();
    match whole {
        Some(()) => Ok(transcoder.started),
        None => Err(error(data, announced)),
    }
}

/// What is wrong with a chunk.
#[cold]
fn error(data: &[u8], announced: u16) -> Error {
    let found = decode(data).find_map(Result::err);
    found.unwrap_or(Error::Cut { read: 0, announced })
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
    announced: u16,
    /// The next sample.
    sample: u16,
    /// How many samples before had start timestamps.
    started: u16,
}

impl Transcoder<'_> {
    /// `None`: it is no chunk.
    fn all(&mut self) -> Option<()> {
        for sample in 0..self.announced.min(2) {
            let before = self.time;
            match sample {
                0 => self.first()?,
                _ => self.second()?,
            }
            let read = self.starts.read(&mut self.reader, sample, before, self.time);
            read.ok().filter(|good| *good)?;
            self.end_sample()?;
        }
        while self.sample < self.announced {
            match (self.starts.next() < self.announced, self.read.knows_window(WIDE)) {
                (true, _) => self.usual::<true, false>(),
                (false, true) => self.usual::<false, true>(),
                (false, false) => self.usual::<false, false>(),
            }
            if self.sample < self.announced {
                self.any()?;
            }
        }
        (!self.reader.is_over()).then_some(())
    }

    fn end_sample(&mut self) -> Option<()> {
        self.started += u16::from(self.starts.is_set());
        self.sample += 1;
        (!self.reader.is_over()).then_some(())
    }

    fn first(&mut self) -> Option<()> {
        self.time = self.reader.varint().ok()??;
        let bits = self.reader.bits(64).ok()?;
        self.writer.varint(self.time);
        self.writer.bits(bits, 64);
        self.written = value::Encoder::new(f64::from_bits(bits));
        self.stale = bits == STALE_NAN;
        if !self.stale {
            self.read.bits = bits;
        }
        Some(())
    }

    fn second(&mut self) -> Option<()> {
        self.delta = self.reader.uvarint().ok()??;
        self.time = self.time.wrapping_add(self.delta as i64);
        self.writer.uvarint(self.delta);
        self.value()
    }

    /// The next sample, behind the second, of any kind.
    #[inline(never)]
    fn any(&mut self) -> Option<()> {
        let (before, word) = (self.time, self.reader.peek());
        let ones = word.leading_ones().min(5);
        match ones {
            // As far from the last as that from the one before.
            0 | 5 => {
                self.reader.skip((ones + 1).min(5));
                self.stale = ones == 5;
                self.write(1);
            }
            1 => {
                self.reader.skip(3);
                self.window(word << 2 >> 63 == 1)?;
                self.write(1);
            }
            _ => {
                self.reader.skip((ones + 1).min(5));
                let width = [13, 20, 64][ones as usize - 2];
                let difference = (self.reader.take(width) << (64 - width)) as i64 >> (64 - width);
                self.delta = self.delta.wrapping_add(difference as u64);
                match difference {
                    // Prometheus has a shorter way to say so.
                    0 => self.writer.bit(false),
                    _ => xor::write_difference(&mut self.writer, 0, difference),
                }
                self.value()?;
            }
        }
        self.time = self.time.wrapping_add(self.delta as i64);
        self.starts.take(&mut self.reader, self.sample, before);
        self.end_sample()
    }

    /// A value with a prefix of its own.
    fn value(&mut self) -> Option<()> {
        let ones = self.reader.peek().leading_ones().min(3);
        self.reader.skip((ones + 1).min(3));
        match ones {
            0 | 3 => self.stale = ones == 3,
            _ => self.window(ones == 2)?,
        }
        self.write(0);
        Some(())
    }

    /// The difference of a value, by a new window or the last one.
    fn window(&mut self, new: bool) -> Option<()> {
        self.stale = false;
        let word = self.reader.peek();
        self.read.take_behind(&mut self.reader, new, 0, (word, AT_ONCE))?;
        Some(())
    }

    /// Writes so many zeros and the last value.
    fn write(&mut self, zeros: u32) {
        let bits = if self.stale { STALE_NAN } else { self.read.bits };
        self.written.write_behind(&mut self.writer, zeros, bits);
    }

    /// The next samples, behind the second, as long as they are of the usual kinds: no marks, and at times that are not far
    /// off. Some of them bring start timestamps only if `STARTS` says so. `SAME` takes samples together by
    /// [`Usual::same_windows`], which pays where there are many of those. Behind the end come zeros, which are unchanged
    /// samples.
    #[inline(never)]
    fn usual<const STARTS: bool, const SAME: bool>(&mut self) {
        if self.stale {
            return;
        }
        let mut at = Usual {
            reader: self.reader.clone(),
            writer: mem::take(&mut self.writer),
            read: self.read,
            window: self.written.window(),
            difference: 0,
        };
        let (mut starts, mut time, mut delta) = (self.starts, self.time, self.delta);
        let (mut sample, mut started) = (self.sample, 0);
        let announced = self.announced;
        let last = if STARTS {
            announced.min(starts.next())
        } else {
            announced
        };
        while sample < announced {
            let (mut word, mut zeros) = (at.reader.peek(), 0);
            if SAME && word >> (64 - SAME_WINDOW.2) == SAME_WINDOW.0 {
                sample += at.same_windows(announced - sample);
                if sample == announced {
                    break;
                }
                word = at.reader.peek();
            }
            if word >> 63 == 0 {
                let run = at.unchanged(word, last.saturating_sub(sample));
                sample += run;
                if STARTS {
                    time = time.wrapping_add(delta.wrapping_mul(u64::from(run)) as i64);
                    started += if starts.is_set() { run } else { 0 };
                }
                word <<= run;
                zeros = 2 * u32::from(run);
                if run > SHORT || sample == announced {
                    at.writer.zeros(zeros);
                    continue;
                }
            }
            if !at.one(word, zeros) {
                at.writer.zeros(zeros);
                break;
            }
            if STARTS {
                delta = delta.wrapping_add(at.difference as u64);
                let before = time;
                time = time.wrapping_add(delta as i64);
                starts.take(&mut at.reader, sample, before);
                started += u16::from(starts.is_set());
            }
            sample += 1;
        }
        if !STARTS && starts.is_set() {
            started = sample - self.sample;
        }
        (self.reader, self.writer, self.read) = (at.reader, at.writer, at.read);
        self.written = value::Encoder::behind(at.read.bits, at.window);
        (self.starts, self.time, self.delta) = (starts, time, delta);
        self.sample = sample;
        self.started += started;
    }
}

/// What [`Transcoder::usual`] has at hand.
struct Usual<'a> {
    reader: Reader<'a>,
    writer: Writer,
    /// The last value, which was written, too.
    read: value::Decoder,
    /// The window by which it was written.
    window: value::Window,
    /// How much more time went by before the last sample than before the one before.
    difference: i64,
}

impl Usual<'_> {
    /// Samples that are as far from the last as that from the one before, and have its value, take one bit here and two
    /// zeros there. Passes over those that begin with the bits of `word`, at most `most`, and returns how many they are.
    #[inline(always)]
    fn unchanged(&mut self, word: u64, most: u16) -> u16 {
        let run = (word | 1).leading_zeros().min(AT_ONCE).min(u32::from(most));
        self.reader.skip(run);
        // At most AT_ONCE.
        run as u16
    }

    /// Samples that begin as [`SAME_WINDOW`] says, one after another, as long as the window in which they are written
    /// holds them, too: at most `most`, and none near the end of the data or of the room for them. Returns how many they
    /// are.
    #[inline(always)]
    fn same_windows(&mut self, most: u16) -> u16 {
        let (here, there, prefix) = SAME_WINDOW;
        let Some(passage) = Passage::between(self.read.window(), self.window, prefix) else {
            return 0;
        };
        let (mut reader, mut writer) = (self.reader.clone(), mem::take(&mut self.writer));
        let (mut changed, mut count) = (0, 0);
        while count < most {
            let word = reader.peek_inside().filter(|word| word >> (64 - prefix) == here);
            let Some(bits) = word.and_then(|word| passage.take(word)) else {
                break;
            };
            if !writer.put_inside(there << (64 - prefix) | passage.turned(bits), passage.written) {
                break;
            }
            reader.skip(passage.read);
            changed ^= bits;
            count += 1;
        }
        (self.reader, self.writer) = (reader, writer);
        self.read.bits ^= passage.difference(changed);
        count
    }

    /// One sample that begins with the bits of `word`, of which the first [`SURE`] are sure, behind so many zeros. `false`:
    /// nothing was done, since it is none of the usual ones.
    #[inline(always)]
    fn one(&mut self, word: u64, zeros: u32) -> bool {
        self.difference = 0;
        if word >> 62 == 0b10 {
            let new = word << 2 >> 63 == 1;
            self.changed((word, SURE), 3, new, zeros + 1);
            return true;
        }
        if word >> 63 == 0 {
            // It is followed by a start timestamp: no run.
            self.reader.skip(1);
            self.writer.put(0, zeros + 2);
            return true;
        }
        let (length, difference) = match word >> 60 {
            0b1100 | 0b1101 => (3 + 13, (word << 3) as i64 >> (64 - 13)),
            0b1110 => (4 + 20, (word << 4) as i64 >> (64 - 20)),
            _ => return false,
        };
        let word = self.reader.peek_whole(length);
        let ones = (word & !1).leading_ones();
        if difference == 0 || ones > 2 {
            return false;
        }
        self.difference = difference;
        self.reader.skip(length);
        xor::write_difference(&mut self.writer, zeros, difference);
        if ones == 0 {
            self.reader.skip(1);
            self.writer.put(0, 1);
        } else {
            self.changed((word, AT_ONCE), ones + 1, ones == 2, 0);
        }
        true
    }

    /// A value behind a prefix of so many bits, which begins with the bits of `word`: by a new window or the last one.
    #[inline(always)]
    fn changed(&mut self, word: (u64, u32), prefix: u32, new: bool, zeros: u32) {
        match self.read.take_behind(&mut self.reader, new, prefix, word) {
            // Prometheus has a shorter way to say so.
            Some(0) => self.writer.put(0, zeros + 1),
            Some(difference) => self.window.write(&mut self.writer, zeros, difference),
            None => self.reader.give_up(),
        }
    }
}
