//! A float by its difference to the float before it: the XOR of the two, of which zeros at both ends are left out.

use super::bits::{AT_ONCE, End, Reader, Writer};

/// The leading zeros are counted in five bits.
const MOST_LEADING: u32 = 31;

/// Which bits of the difference are written.
#[derive(Clone, Copy, Debug)]
pub(super) struct Window {
    leading: u32,
    /// 1 to 64.
    width: u32,
    inside: u64,
}

impl Window {
    /// How many bits its bounds take.
    const BOUNDS: u32 = 11;

    /// What a reader takes it for before any was written.
    const WHOLE: Self = Self {
        leading: 0,
        width: 64,
        inside: u64::MAX,
    };

    /// What a writer takes it for: it holds nothing.
    const NONE: Self = Self {
        inside: 0,
        ..Self::WHOLE
    };

    /// The narrowest around a difference that is not 0.
    fn of(difference: u64) -> Self {
        let leading = difference.leading_zeros().min(MOST_LEADING);
        let trailing = difference.trailing_zeros();
        Self {
            leading,
            width: 64 - leading - trailing,
            inside: u64::MAX >> leading & u64::MAX << trailing,
        }
    }

    /// Its bounds as they are written.
    fn bounds(self) -> u32 {
        self.leading << 6 | self.width & 63
    }

    /// The one with these bounds; none if they overlap.
    fn of_bounds(bounds: u32) -> Option<Self> {
        let leading = bounds >> 6;
        let width = match bounds & 63 {
            // 64 does not fit into six bits.
            0 => 64,
            width => width,
        };
        let trailing = 64_u32.checked_sub(leading + width)?;
        Some(Self {
            leading,
            width,
            inside: u64::MAX >> leading & u64::MAX << trailing,
        })
    }

    /// The difference of which these bits, from the highest on, lie in the window; what is behind them does not matter.
    #[inline(always)]
    fn difference(self, bits: u64) -> u64 {
        bits >> self.leading & self.inside
    }

    /// Writes a few zeros (at most 32), and a difference that is not 0: by this window if it holds it, or else by a new one.
    #[inline(always)]
    pub(super) fn write(&mut self, writer: &mut Writer, zeros: u32, difference: u64) {
        let (mut head, mut length) = (0b10 << 62, zeros + 2);
        if difference & !self.inside != 0 {
            *self = Self::of(difference);
            head = 0b11 << 62 | u64::from(self.bounds()) << (62 - Self::BOUNDS);
            length += Self::BOUNDS;
        }
        let (tail, all) = (difference << self.leading, length + self.width);
        let first = head >> zeros | tail >> length;
        if all <= AT_ONCE {
            writer.put_top(first, all);
        } else {
            writer.put_top(first & !0 << (64 - AT_ONCE), AT_ONCE);
            writer.put_top(tail << (AT_ONCE - length), all - AT_ONCE);
        }
    }
}

/// How differences go from the window in which they are read to another one in which they are written, without a look at
/// them. Both times they stand behind a prefix.
#[derive(Clone, Copy, Debug)]
pub(super) struct Passage {
    /// The bits of a word that belong to the difference.
    inside: u64,
    /// Those of them that the other window does not hold.
    outside: u64,
    /// How far to the left they are turned to stand where they are written.
    turn: u32,
    /// How many bits of a float stand before them.
    leading: u32,
    prefix: u32,
    /// How many bits are read, those of the prefix among them.
    pub(super) read: u32,
    /// How many bits are written, those of the prefix among them.
    pub(super) written: u32,
}

impl Passage {
    /// Behind a prefix of so many bits; none if one of the windows is too wide for a single word.
    #[inline(always)]
    pub(super) fn between(from: Window, to: Window, prefix: u32) -> Option<Self> {
        let (read, written) = (prefix + from.width, prefix + to.width);
        if read > AT_ONCE || written > AT_ONCE {
            return None;
        }
        let inside = from.inside << from.leading >> prefix;
        Some(Self {
            inside,
            outside: inside & !(to.inside << from.leading >> prefix),
            turn: to.leading.wrapping_sub(from.leading) % 64,
            leading: from.leading,
            prefix,
            read,
            written,
        })
    }

    /// The bits of the difference that is behind the prefix of a word, unless it is 0 or needs a new window.
    #[inline(always)]
    pub(super) fn take(&self, word: u64) -> Option<u64> {
        let bits = word & self.inside;
        (bits != 0 && bits & self.outside == 0).then_some(bits)
    }

    /// Those bits where they are written.
    #[inline(always)]
    pub(super) fn turned(&self, bits: u64) -> u64 {
        bits.rotate_left(self.turn)
    }

    /// The difference that those bits are.
    #[inline(always)]
    pub(super) fn difference(&self, bits: u64) -> u64 {
        bits << self.prefix >> self.leading
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
        Self::behind(first.to_bits(), Window::NONE)
    }

    /// Behind a float that was written by this window or another one.
    pub(super) fn behind(bits: u64, window: Window) -> Self {
        Self { bits, window }
    }

    /// The window that is known.
    pub(super) fn window(&self) -> Window {
        self.window
    }

    pub(super) fn write(&mut self, writer: &mut Writer, value: f64) {
        self.write_behind(writer, 0, value.to_bits());
    }

    /// Writes a few zeros and then the float with these bits.
    pub(super) fn write_behind(&mut self, writer: &mut Writer, zeros: u32, bits: u64) {
        let difference = bits ^ self.bits;
        self.bits = bits;
        match difference {
            0 => writer.put(0, zeros + 1),
            _ => self.window.write(writer, zeros, difference),
        }
    }
}

/// One float after another, on the reading side.
#[derive(Clone, Copy, Debug)]
pub(super) struct Decoder {
    pub(super) bits: u64,
    window: Window,
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

    /// The window that is known.
    #[inline(always)]
    pub(super) fn window(&self) -> Window {
        self.window
    }

    /// Whether a window of at least so many bits was read, and no more than can be seen at once.
    pub(super) fn knows_window(&self, least: u32) -> bool {
        (least..AT_ONCE).contains(&self.window.width)
    }

    /// The difference by the window that is there.
    pub(super) fn same_window(&mut self, reader: &mut Reader<'_>) -> Result<(), End> {
        let width = self.window.width;
        let bits = reader.bits(width)?;
        self.bits ^= self.window.difference(bits << (64 - width));
        Ok(())
    }

    /// A new window and the difference by it; `Ok(false)` if the window is none.
    pub(super) fn new_window(&mut self, reader: &mut Reader<'_>) -> Result<bool, End> {
        let Some(window) = Window::of_bounds(reader.bits(Window::BOUNDS)? as u32) else {
            return Ok(false);
        };
        self.window = window;
        self.same_window(reader)?;
        Ok(true)
    }

    /// The next difference, by a new window or the last one. It begins so many bits behind the reader, of which `word` has
    /// the first `sure` ones; what is behind the end is zeros (see [`Reader::skip`]). Returns it, unless the
    /// window is none.
    #[inline(always)]
    pub(super) fn take_behind(
        &mut self,
        reader: &mut Reader<'_>,
        new: bool,
        behind: u32,
        (word, sure): (u64, u32),
    ) -> Option<u64> {
        let mut behind = behind;
        if new {
            self.window = Window::of_bounds((word << behind >> (64 - Window::BOUNDS)) as u32)?;
            behind += Window::BOUNDS;
        }
        let end = behind + self.window.width;
        let bits = match end <= sure {
            true => word << behind,
            false => reader.peek_whole(behind),
        };
        reader.skip(end);
        let difference = self.window.difference(bits);
        self.bits ^= difference;
        Some(difference)
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
