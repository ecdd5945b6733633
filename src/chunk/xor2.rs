//! The XOR2 encoding (Prometheus 3.11 and later, when asked for): floats, their times, perhaps start timestamps. One
//! prefix says both how the time goes on and whether the value changed; marks of a series' end have codes of their own
//! and leave the value that the next one is compared with as it was. The header is XOR's with a byte for the start
//! timestamps behind it.

mod transcode;

use super::{
    Error, STALE_NAN,
    bits::{End, Reader},
    st::{Starts, WIDE_START},
    value,
    xor::{BAD_WINDOW, Samples, WIDE_TIME},
};

pub use transcode::transcode_into;

/// Bytes before the first sample.
const HEADER: usize = 3;

/// Reads the samples of a chunk: (Unix milliseconds, value). Start timestamps are passed over. The iterator ends after
/// its first error; the errors are those of [`xor::decode`](super::xor::decode).
pub fn decode(data: &[u8]) -> Decoder<'_> {
    Decoder {
        samples: Samples::new(data, HEADER),
        starts: Starts::new(data.get(HEADER - 1).copied().unwrap_or_default()),
        time: 0,
        delta: 0,
        value: value::Decoder::new(0),
        stale: false,
    }
}

/// The samples of an XOR2 chunk; see [`decode`].
#[derive(Clone, Debug)]
pub struct Decoder<'a> {
    samples: Samples<'a>,
    starts: Starts,
    time: i64,
    delta: u64,
    /// The last value that was no mark of the series' end.
    value: value::Decoder,
    stale: bool,
}

impl Decoder<'_> {
    fn sample(&mut self, index: u16) -> Result<Option<&'static str>, End> {
        let before = self.time;
        let problem = match index {
            0 => self.first()?,
            1 => match self.samples.reader.uvarint()? {
                Some(delta) => {
                    self.delta = delta;
                    self.move_on();
                    self.changed()?
                }
                None => Some(WIDE_TIME),
            },
            _ => self.later()?,
        };
        if problem.is_some() {
            return Ok(problem);
        }
        let good = self.starts.read(&mut self.samples.reader, index, before, self.time)?;
        Ok((!good).then_some(WIDE_START))
    }

    fn first(&mut self) -> Result<Option<&'static str>, End> {
        let reader = &mut self.samples.reader;
        let Some(time) = reader.varint()? else {
            return Ok(Some(WIDE_TIME));
        };
        self.time = time;
        let bits = reader.bits(64)?;
        self.stale = bits == STALE_NAN;
        if !self.stale {
            self.value.bits = bits;
        }
        Ok(None)
    }

    /// From the third sample on.
    fn later(&mut self) -> Result<Option<&'static str>, End> {
        let reader = &mut self.samples.reader;
        let width = match reader.ones(5)? {
            // As far from the last as that from the one before, and ...
            0 => {
                // ... the same value.
                self.stale = false;
                self.move_on();
                return Ok(None);
            }
            1 => {
                // ... another value.
                self.stale = false;
                let good = match reader.bit()? {
                    true => self.value.new_window(reader)?,
                    false => self.value.same_window(reader).map(|()| true)?,
                };
                self.move_on();
                return Ok((!good).then_some(BAD_WINDOW));
            }
            5 => {
                // ... the end of the series.
                self.stale = true;
                self.move_on();
                return Ok(None);
            }
            2 => 13,
            3 => 20,
            _ => 64,
        };
        let difference = two_s_complement(reader, width)?;
        self.delta = self.delta.wrapping_add(difference as u64);
        self.move_on();
        self.changed()
    }

    /// A value with a prefix of its own.
    fn changed(&mut self) -> Result<Option<&'static str>, End> {
        let reader = &mut self.samples.reader;
        let ones = reader.ones(3)?;
        self.stale = ones == 3;
        let good = match ones {
            0 | 3 => true,
            1 => self.value.same_window(reader).map(|()| true)?,
            _ => self.value.new_window(reader)?,
        };
        Ok((!good).then_some(BAD_WINDOW))
    }

    fn move_on(&mut self) {
        self.time = self.time.wrapping_add(self.delta as i64);
    }
}

/// The range is the usual one, unlike XOR's.
fn two_s_complement(reader: &mut Reader<'_>, width: u32) -> Result<i64, End> {
    let unused = 64 - width;
    Ok((reader.bits(width)? << unused) as i64 >> unused)
}

impl Iterator for Decoder<'_> {
    type Item = Result<(i64, f64), Error>;

    fn next(&mut self) -> Option<Self::Item> {
        let index = match self.samples.begin()? {
            Ok(index) => index,
            Err(error) => return Some(Err(error)),
        };
        let read = self.sample(index);
        let value = if self.stale {
            f64::from_bits(STALE_NAN)
        } else {
            self.value.value()
        };
        Some(self.samples.end(index, read).map(|()| (self.time, value)))
    }
}
