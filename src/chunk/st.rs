//! Start timestamps, which stand behind the samples of the newer encodings. No reader of ours wants them: they are read
//! only to find what comes behind.

use super::{
    bits::{End, Reader},
    varbit,
};

/// A start timestamp that no 64 bits hold.
pub(super) const WIDE_START: &str = "its start timestamp takes more than 64 bits";

/// Which samples have a start timestamp, from the header's byte.
#[derive(Clone, Copy, Debug)]
pub(super) struct Starts {
    /// The first has one.
    first: bool,
    /// The sample from which on every one has one; 0 if there is none.
    from: u16,
}

impl Starts {
    pub(super) fn new(header: u8) -> Self {
        Self {
            first: header & 0x80 != 0,
            from: u16::from(header & 0x7f),
        }
    }

    /// Reads what stands behind a sample; `Ok(false)` if it cannot be a time.
    pub(super) fn skip(self, reader: &mut Reader<'_>, sample: u16) -> Result<bool, End> {
        if sample == 0 {
            return Ok(!self.first || reader.varint()?.is_some());
        }
        if self.from > 0 && sample >= self.from {
            varbit::read_signed(reader)?;
        }
        Ok(true)
    }
}
