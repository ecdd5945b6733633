//! The XOR encoding: floats and their times. A header counts the samples in 16 bits, big-endian; then times as
//! differences of differences and values as in Facebook's Gorilla, in milliseconds and with wider steps.

use super::{
    Error,
    bits::{End, Reader, Writer},
    value, varbit,
};

/// Bytes before the first sample.
const HEADER: usize = 2;
/// The widths of a difference of differences, by the ones before it.
const WIDTHS: [u32; 5] = [0, 14, 17, 20, 64];

/// Writes samples (Unix milliseconds, value) as Prometheus does, byte for byte. Every value keeps its bits, also those of
/// a NaN. Where to cut a series into chunks is the caller's choice ([`SAMPLES_PER_CHUNK`](super::SAMPLES_PER_CHUNK)).
///
/// # Errors
/// [`Error::TooManySamples`]
pub fn encode(samples: impl IntoIterator<Item = (i64, f64)>) -> Result<Vec<u8>, Error> {
    let mut encoder = Encoder::new();
    for (time, value) in samples {
        encoder.push(time, value)?;
    }
    Ok(encoder.finish())
}

/// A chunk that is being written.
#[derive(Debug)]
pub(super) struct Encoder {
    writer: Writer,
    count: u16,
    time: i64,
    delta: u64,
    value: value::Encoder,
}

impl Encoder {
    pub(super) fn new() -> Self {
        let mut bytes = Vec::with_capacity(128);
        bytes.extend([0; HEADER]);
        Self {
            writer: Writer::new(bytes),
            count: 0,
            time: 0,
            delta: 0,
            value: value::Encoder::new(0.0),
        }
    }

    /// One more sample, at a time in Unix milliseconds.
    pub(super) fn push(&mut self, time: i64, value: f64) -> Result<(), Error> {
        let delta = time.wrapping_sub(self.time) as u64;
        match self.count {
            0 => {
                self.writer.varint(time);
                self.writer.bits(value.to_bits(), 64);
                self.value = value::Encoder::new(value);
            }
            1 => {
                self.writer.uvarint(delta);
                self.value.write(&mut self.writer, value);
                self.delta = delta;
            }
            u16::MAX => return Err(Error::TooManySamples),
            _ => {
                let difference = delta.wrapping_sub(self.delta) as i64;
                match difference {
                    0 => self.writer.bit(false),
                    _ => write_difference(&mut self.writer, 0, difference),
                }
                self.value.write(&mut self.writer, value);
                self.delta = delta;
            }
        }
        self.time = time;
        self.count += 1;
        Ok(())
    }

    pub(super) fn finish(self) -> Vec<u8> {
        let mut bytes = self.writer.into_bytes();
        bytes[..HEADER].copy_from_slice(&self.count.to_be_bytes());
        bytes
    }
}

/// Writes a few zeros, and how much more time than before the last sample went by before this one, if that is not as much
/// (then it would be one zero).
#[inline(always)]
pub(super) fn write_difference(writer: &mut Writer, zeros: u32, difference: i64) {
    let (prefix, length, width) = match difference {
        _ if varbit::fits(difference, 14) => (0b10, 2, 14),
        _ if varbit::fits(difference, 17) => (0b110, 3, 17),
        _ if varbit::fits(difference, 20) => (0b1110, 4, 20),
        _ => {
            writer.put(0b1111, zeros + 4);
            return writer.bits(difference as u64, 64);
        }
    };
    writer.put(
        prefix << width | difference as u64 & ((1 << width) - 1),
        zeros + length + width,
    );
}

/// Reads the samples of a chunk: (Unix milliseconds, value). The iterator ends after its first error.
///
/// Errors: [`Error::NoHeader`], [`Error::Cut`], [`Error::Garbled`].
pub fn decode(data: &[u8]) -> Decoder<'_> {
    Decoder {
        samples: Samples::new(data, HEADER),
        time: 0,
        delta: 0,
        value: value::Decoder::new(0),
    }
}

/// The samples of an XOR chunk; see [`decode`].
#[derive(Clone, Debug)]
pub struct Decoder<'a> {
    samples: Samples<'a>,
    time: i64,
    delta: u64,
    value: value::Decoder,
}

impl Decoder<'_> {
    fn sample(&mut self, index: u16) -> Result<Option<&'static str>, End> {
        let reader = &mut self.samples.reader;
        if index == 0 {
            let Some(time) = reader.varint()? else {
                return Ok(Some(WIDE_TIME));
            };
            self.time = time;
            self.value = value::Decoder::new(reader.bits(64)?);
            return Ok(None);
        }
        if index == 1 {
            let Some(delta) = reader.uvarint()? else {
                return Ok(Some(WIDE_TIME));
            };
            self.delta = delta;
        } else {
            let width = WIDTHS[reader.ones(4)? as usize];
            let difference = varbit::read_width(reader, width)?;
            self.delta = self.delta.wrapping_add(difference as u64);
        }
        self.time = self.time.wrapping_add(self.delta as i64);
        Ok((!self.value.read(reader)?).then_some(BAD_WINDOW))
    }
}

impl Iterator for Decoder<'_> {
    type Item = Result<(i64, f64), Error>;

    fn next(&mut self) -> Option<Self::Item> {
        let index = match self.samples.begin()? {
            Ok(index) => index,
            Err(error) => return Some(Err(error)),
        };
        let read = self.sample(index);
        Some(self.samples.end(index, read).map(|()| (self.time, self.value.value())))
    }
}

/// A time in more than 64 bits.
pub(super) const WIDE_TIME: &str = "its time takes more than 64 bits";
/// More zeros and bits than a float has.
pub(super) const BAD_WINDOW: &str = "the bits of a value do not fit into a float";

/// Counts the samples of a chunk of any encoding while they are read.
#[derive(Clone, Debug)]
pub(super) struct Samples<'a> {
    /// Behind the header.
    pub(super) reader: Reader<'a>,
    header: Result<u16, Error>,
    read: u16,
    done: bool,
}

impl<'a> Samples<'a> {
    /// Of a chunk that begins with its count in 16 bits.
    pub(super) fn new(data: &'a [u8], header: usize) -> Self {
        Self::counted(data, header, u16::MAX)
    }

    /// Of a chunk with flags in the highest bits of its count.
    pub(super) fn counted(data: &'a [u8], header: usize, mask: u16) -> Self {
        let (count, body) = match data.get(header..) {
            Some(body) => (Ok(u16::from_be_bytes([data[0], data[1]]) & mask), body),
            None => (Err(Error::NoHeader), &[][..]),
        };
        Self {
            reader: Reader::new(body),
            header: count,
            read: 0,
            done: false,
        }
    }

    /// How many samples the chunk announces; none without a header.
    pub(super) fn announced(&self) -> u16 {
        *self.header.as_ref().unwrap_or(&0)
    }

    /// The index of the next sample.
    pub(super) fn begin(&mut self) -> Option<Result<u16, Error>> {
        if self.done {
            return None;
        }
        let announced = match &self.header {
            Ok(announced) => *announced,
            Err(error) => {
                self.done = true;
                return Some(Err(error.clone()));
            }
        };
        if self.read < announced {
            return Some(Ok(self.read));
        }
        // What follows is not looked at: chunks of Prometheus' head end with a spare byte now and then.
        self.done = true;
        None
    }

    /// What reading a sample came to.
    pub(super) fn end(&mut self, sample: u16, read: Result<Option<&'static str>, End>) -> Result<(), Error> {
        match read {
            Ok(None) => {
                self.read += 1;
                Ok(())
            }
            Ok(Some(what)) => {
                self.done = true;
                Err(Error::Garbled { sample, what })
            }
            Err(End) => {
                self.done = true;
                let announced = self.announced();
                Err(Error::Cut {
                    read: sample,
                    announced,
                })
            }
        }
    }
}
