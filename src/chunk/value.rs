//! A float by its difference to the float before it: the XOR of the two, of which zeros at both ends are left out.

use super::bits::{AT_ONCE, End, Reader, Writer};

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

    /// What a writer takes it for before it has written any: it holds nothing.
    const NONE: Self = Self {
        leading: u32::MAX,
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

    /// How many bits its bounds take.
    const BOUNDS: u32 = 11;

    /// Reads a window's bounds, with zeros behind the end (see [`Reader::skip`]); none if they overlap.
    #[inline]
    fn take(reader: &mut Reader<'_>) -> Option<Self> {
        let bounds = reader.take(Self::BOUNDS) as u32;
        let leading = bounds >> 6;
        let width = match bounds & 63 {
            // 64 does not fit into six bits.
            0 => 64,
            width => width,
        };
        let trailing = 64_u32.checked_sub(leading + width)?;
        Some(Self { leading, trailing })
    }

    /// Reads a window's bounds; `Ok(None)` if they overlap.
    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Option<Self>, End> {
        match reader.left() < Self::BOUNDS as usize {
            true => Err(End),
            false => Ok(Self::take(reader)),
        }
    }

    /// Reads the bits of a difference that lie in the window.
    pub(super) fn difference(self, reader: &mut Reader<'_>) -> Result<u64, End> {
        Ok(reader.bits(self.width())? << self.trailing)
    }
}

/// One float after another, on the writing side.
#[derive(Clone, Copy, Debug)]
pub(super) struct Encoder {
    bits: u64,
    window: Window,
}

impl Encoder {
    pub(super) fn new(first: f64) -> Self {
        Self {
            bits: first.to_bits(),
            window: Window::NONE,
        }
    }

    pub(super) fn write(&mut self, writer: &mut Writer, value: f64) {
        self.write_behind(writer, 0, value.to_bits());
    }

    /// Writes a few zeros and then the float with these bits.
    #[inline]
    pub(super) fn write_behind(&mut self, writer: &mut Writer, zeros: u32, bits: u64) {
        let difference = bits ^ self.bits;
        self.bits = bits;
        if difference == 0 {
            writer.put(0, zeros + 1);
            return;
        }
        let needed = Window::of(difference);
        let (head, length) = match self.window.holds(needed) {
            true => (0b10, zeros + 2),
            false => {
                self.window = needed;
                let bounds = needed.leading << 6 | needed.width() & 63;
                (0b11 << Window::BOUNDS | u64::from(bounds), zeros + 2 + Window::BOUNDS)
            }
        };
        let (tail, width) = (difference >> self.window.trailing, self.window.width());
        if length + width <= AT_ONCE {
            writer.put(head << width | tail, length + width);
        } else {
            writer.put(head, length);
            writer.bits(tail, width);
        }
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

    /// As [`Self::same_window`], with zeros behind the end (see [`Reader::skip`]).
    #[inline]
    pub(super) fn take_same_window(&mut self, reader: &mut Reader<'_>) {
        self.bits ^= reader.take(self.window.width()) << self.window.trailing;
    }

    /// As [`Self::new_window`], with zeros behind the end (see [`Reader::skip`]).
    #[inline]
    pub(super) fn take_new_window(&mut self, reader: &mut Reader<'_>) -> bool {
        let Some(window) = Window::take(reader) else {
            return false;
        };
        self.window = window;
        self.take_same_window(reader);
        true
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
