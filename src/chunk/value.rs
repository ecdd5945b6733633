//! A float by its difference to the float before it: the XOR of the two, of which zeros at both ends are left out.

use super::bits::{End, Reader, Writer};

/// The leading zeros are counted in five bits.
const MOST_LEADING: u32 = 31;

/// Which bits of the difference are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Window {
    leading: u32,
    trailing: u32,
}

impl Window {
    /// What a reader takes it for before any was written.
    pub(super) const WHOLE: Self = Self {
        leading: 0,
        trailing: 0,
    };

    fn of(difference: u64) -> Self {
        Self {
            leading: difference.leading_zeros().min(MOST_LEADING),
            trailing: difference.trailing_zeros(),
        }
    }

    fn holds(self, other: Self) -> bool {
        other.leading >= self.leading && other.trailing >= self.trailing
    }

    fn width(self) -> u32 {
        64 - self.leading - self.trailing
    }

    /// Reads a window's bounds; `Ok(None)` if they overlap.
    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Option<Self>, End> {
        let leading = reader.bits(5)? as u32;
        let width = match reader.bits(6)? as u32 {
            // 64 does not fit into six bits.
            0 => 64,
            width => width,
        };
        let trailing = 64_u32.checked_sub(leading + width);
        Ok(trailing.map(|trailing| Self { leading, trailing }))
    }

    /// Reads the bits of a difference that lie in the window.
    pub(super) fn difference(self, reader: &mut Reader<'_>) -> Result<u64, End> {
        Ok(reader.bits(self.width())? << self.trailing)
    }
}

/// One float after another, on the writing side.
#[derive(Clone, Copy, Debug)]
pub(super) struct Encoder {
    pub(super) bits: u64,
    /// None until the first was written.
    window: Option<Window>,
}

impl Encoder {
    pub(super) fn new(first: f64) -> Self {
        Self {
            bits: first.to_bits(),
            window: None,
        }
    }

    pub(super) fn write(&mut self, writer: &mut Writer, value: f64) {
        let difference = value.to_bits() ^ self.bits;
        self.bits = value.to_bits();
        if difference == 0 {
            writer.bit(false);
            return;
        }
        let needed = Window::of(difference);
        let window = match self.window.filter(|window| window.holds(needed)) {
            Some(window) => {
                writer.bits(0b10, 2);
                window
            }
            None => {
                writer.bits(0b11, 2);
                writer.bits(u64::from(needed.leading), 5);
                writer.bits(u64::from(needed.width()), 6);
                self.window = Some(needed);
                needed
            }
        };
        writer.bits(difference >> window.trailing, window.width());
    }
}

/// One float after another, on the reading side.
#[derive(Clone, Copy, Debug)]
pub(super) struct Decoder {
    pub(super) bits: u64,
    pub(super) window: Window,
}

impl Decoder {
    pub(super) fn new(first: u64) -> Self {
        Self {
            bits: first,
            window: Window::WHOLE,
        }
    }

    pub(super) fn value(&self) -> f64 {
        f64::from_bits(self.bits)
    }

    /// The difference by the window that is there.
    pub(super) fn same_window(&mut self, reader: &mut Reader<'_>) -> Result<(), End> {
        self.bits ^= self.window.difference(reader)?;
        Ok(())
    }

    /// A new window and the difference by it; `Ok(false)` if the window is none.
    pub(super) fn new_window(&mut self, reader: &mut Reader<'_>) -> Result<bool, End> {
        let Some(window) = Window::read(reader)? else {
            return Ok(false);
        };
        self.window = window;
        self.same_window(reader)?;
        Ok(true)
    }

    /// The next float; `Ok(false)` if its window is none.
    pub(super) fn read(&mut self, reader: &mut Reader<'_>) -> Result<bool, End> {
        match reader.ones(2)? {
            0 => Ok(true),
            1 => self.same_window(reader).map(|()| true),
            _ => self.new_window(reader),
        }
    }
}
