//! Integers in the fewer bits the nearer they are to zero: one to eight ones and a zero choose the width (the eighth one
//! stands without its zero).

use super::bits::{End, Reader, Writer};

/// The widths, by the number of ones before them.
const WIDTHS: [u32; 9] = [0, 3, 6, 9, 12, 18, 25, 56, 64];

/// Whether an integer fits, in a range that reaches one further up than down.
pub(super) fn fits(value: i64, width: u32) -> bool {
    width >= 64 || (-(1 << (width - 1)) < value && value <= 1 << (width - 1))
}

fn prefix(writer: &mut Writer, ones: usize) {
    // Eight ones at most: all ones but the last bit, which the widest goes without.
    match ones {
        8 => writer.bits(0xff, 8),
        _ => writer.bits((1 << (ones + 1)) - 2, ones as u32 + 1),
    }
}

/// Writes an unsigned integer.
pub(super) fn write_unsigned(writer: &mut Writer, value: u64) {
    let needed = 64 - value.leading_zeros();
    let ones = WIDTHS.iter().position(|width| needed <= *width).unwrap_or(8);
    prefix(writer, ones);
    writer.bits(value, WIDTHS[ones]);
}

/// Writes a signed integer.
pub(super) fn write_signed(writer: &mut Writer, value: i64) {
    let ones = match value {
        0 => 0,
        _ => 1 + WIDTHS[1..].iter().position(|width| fits(value, *width)).unwrap_or(7),
    };
    prefix(writer, ones);
    writer.bits(value as u64, WIDTHS[ones]);
}

/// Reads an unsigned integer.
pub(super) fn read_unsigned(reader: &mut Reader<'_>) -> Result<u64, End> {
    let ones = reader.ones(8)?;
    reader.bits(WIDTHS[ones as usize])
}

/// Reads a signed integer.
pub(super) fn read_signed(reader: &mut Reader<'_>) -> Result<i64, End> {
    let ones = reader.ones(8)?;
    read_width(reader, WIDTHS[ones as usize])
}

/// Reads a signed integer of a width, in the range of [`fits`].
pub(super) fn read_width(reader: &mut Reader<'_>, width: u32) -> Result<i64, End> {
    Ok(signed(reader.bits(width)?, width))
}

/// Reads a signed integer, with zeros behind the end (see [`Reader::skip`]).
#[inline(always)]
pub(super) fn take_signed(reader: &mut Reader<'_>) -> i64 {
    let ones = reader.peek().leading_ones().min(8);
    reader.skip((ones + 1).min(8));
    match WIDTHS[ones as usize] {
        0 => 0,
        width => signed(reader.take(width), width),
    }
}

/// What the bits of a width stand for.
#[inline]
fn signed(bits: u64, width: u32) -> i64 {
    if width == 0 || width >= 64 || bits <= 1 << (width - 1) {
        bits as i64
    } else {
        bits.wrapping_sub(1 << width) as i64
    }
}
