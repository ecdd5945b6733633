//! Start timestamps, which stand behind the samples of the newer encodings. No reader of ours wants them: they are read
//! only to find what comes behind, and to tell how many there were.

use super::{
    bits::{End, Reader},
    varbit,
};

/// A start timestamp that no 64 bits hold.
pub(super) const WIDE_START: &str = "its start timestamp takes more than 64 bits";

/// The start timestamps of a chunk while its samples are read, one by one from the first.
#[derive(Clone, Copy, Debug)]
pub(super) struct Starts {
    /// The first sample brings one.
    first: bool,
    /// The sample from which on every one brings one; 0 if there is none. Those before have the first one's.
    from: u16,
    /// That of the last sample (Unix milliseconds); 0 stands for none.
    start: i64,
    /// The time of the sample before the last, less `start`.
    distance: i64,
}

impl Starts {
    /// By the header's byte.
    pub(super) fn new(header: u8) -> Self {
        Self {
            first: header & 0x80 != 0,
            from: u16::from(header & 0x7f),
            start: 0,
            distance: 0,
        }
    }

    /// The sample before which none of the samples behind the first brings a start timestamp; all from there on do.
    #[inline(always)]
    pub(super) fn next(&self) -> u16 {
        match self.from {
            0 => u16::MAX,
            from => from,
        }
    }

    /// Whether the last sample has one.
    #[inline(always)]
    pub(super) fn is_set(&self) -> bool {
        self.start != 0
    }

    /// Reads what stands behind a sample at `time`, whose forerunner is at `before` (Unix milliseconds); `Ok(false)` if it
    /// cannot be a time.
    pub(super) fn read(&mut self, reader: &mut Reader<'_>, sample: u16, before: i64, time: i64) -> Result<bool, End> {
        if sample == 0 {
            if self.first {
                let Some(distance) = reader.varint()? else {
                    return Ok(false);
                };
                self.start = time.wrapping_sub(distance);
            }
            return Ok(true);
        }
        self.take(reader, sample, before);
        match reader.is_over() {
            true => Err(End),
            false => Ok(true),
        }
    }

    /// As [`Self::read`] behind any sample but the first, with zeros behind the end (see [`Reader::skip`]).
    #[inline(always)]
    pub(super) fn take(&mut self, reader: &mut Reader<'_>, sample: u16, before: i64) {
        if sample < self.next() {
            return;
        }
        let more = varbit::take_signed(reader);
        self.distance = match sample == self.from {
            true => more,
            false => self.distance.wrapping_add(more),
        };
        self.start = before.wrapping_sub(self.distance);
    }
}
