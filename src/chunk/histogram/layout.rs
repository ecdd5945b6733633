//! The layout of the buckets, which the first sample of a chunk dictates.

use super::{super::varbit, Histogram, Span, buckets};
use crate::chunk::bits::{End, Reader, Writer};

/// The schema of histograms with bounds of their own.
pub(super) const CUSTOM: i32 = -53;

/// What no layout can have.
pub(super) const BAD_LAYOUT: &str = "the layout of its buckets has numbers out of range";

/// Says where buckets are.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Layout {
    pub(super) schema: i32,
    pub(super) zero_threshold: f64,
    pub(super) positive: Vec<Span>,
    pub(super) negative: Vec<Span>,
    pub(super) custom_values: Vec<f64>,
}

impl Layout {
    pub(super) fn of(histogram: &Histogram) -> Self {
        Self {
            schema: histogram.schema,
            zero_threshold: histogram.zero_threshold,
            positive: histogram.positive_spans.clone(),
            negative: histogram.negative_spans.clone(),
            custom_values: histogram.custom_values.clone(),
        }
    }

    /// How many positive buckets, and how many of both sides.
    pub(super) fn buckets(&self) -> (u64, u64) {
        let positive = buckets::covered(&self.positive);
        (positive, positive.saturating_add(buckets::covered(&self.negative)))
    }

    pub(super) fn write(&self, writer: &mut Writer) {
        write_threshold(writer, self.zero_threshold);
        varbit::write_signed(writer, self.schema.into());
        for spans in [&self.positive, &self.negative] {
            varbit::write_unsigned(writer, spans.len() as u64);
            for span in spans {
                varbit::write_unsigned(writer, span.length.into());
                varbit::write_signed(writer, span.offset.into());
            }
        }
        if self.schema == CUSTOM {
            varbit::write_unsigned(writer, self.custom_values.len() as u64);
            for bound in &self.custom_values {
                write_bound(writer, *bound);
            }
        }
    }

    /// `Ok(None)` if a number is out of range.
    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Option<Self>, End> {
        let zero_threshold = read_threshold(reader)?;
        let Ok(schema) = i32::try_from(varbit::read_signed(reader)?) else {
            return Ok(None);
        };
        let Some(positive) = read_spans(reader)? else {
            return Ok(None);
        };
        let Some(negative) = read_spans(reader)? else {
            return Ok(None);
        };
        let mut custom_values = Vec::new();
        if schema == CUSTOM {
            // The vector grows with what is there, not with what is announced.
            for _ in 0..varbit::read_unsigned(reader)? {
                custom_values.push(read_bound(reader)?);
            }
        }
        Ok(Some(Self {
            schema,
            zero_threshold,
            positive,
            negative,
            custom_values,
        }))
    }
}

/// The most spans on one side that are read: a span takes far more memory than bits.
const SPANS_MAX: u64 = 1 << 16;

fn read_spans(reader: &mut Reader<'_>) -> Result<Option<Vec<Span>>, End> {
    let mut spans = Vec::new();
    let count = varbit::read_unsigned(reader)?;
    if count > SPANS_MAX {
        return Ok(None);
    }
    for _ in 0..count {
        let length = varbit::read_unsigned(reader)?;
        let offset = varbit::read_signed(reader)?;
        match (u32::try_from(length), i32::try_from(offset)) {
            (Ok(length), Ok(offset)) => spans.push(Span { offset, length }),
            _ => return Ok(None),
        }
    }
    Ok(Some(spans))
}

/// Powers of two from 2^-243 to 2^10 take one byte, 0 as well; the rest nine.
fn write_threshold(writer: &mut Writer, threshold: f64) {
    if threshold == 0.0 {
        writer.bits(0, 8);
        return;
    }
    let bits = threshold.to_bits();
    // Sign and exponent; the fraction of a power of two is 0.
    let (exponent, fraction) = ((bits >> 52) as i32, bits << 12);
    let short = exponent - 779;
    if fraction == 0 && (1..=254).contains(&short) {
        writer.bits(short as u64, 8);
    } else {
        writer.bits(255, 8);
        writer.bits(bits, 64);
    }
}

fn read_threshold(reader: &mut Reader<'_>) -> Result<f64, End> {
    Ok(match reader.bits(8)? {
        0 => 0.0,
        255 => f64::from_bits(reader.bits(64)?),
        short => f64::from_bits((short + 779) << 52),
    })
}

/// Thousandths up to 33554.430 are written as integers, one more than they are: 0 stands before any other float.
fn write_bound(writer: &mut Writer, bound: f64) {
    let thousandths = bound * 1000.0;
    let whole = (0.0..=33_554_430.0).contains(&thousandths) && thousandths.round() / 1000.0 == bound;
    if whole {
        varbit::write_unsigned(writer, thousandths.round() as u64 + 1);
    } else {
        writer.bit(false);
        writer.bits(bound.to_bits(), 64);
    }
}

fn read_bound(reader: &mut Reader<'_>) -> Result<f64, End> {
    Ok(match varbit::read_unsigned(reader)? {
        0 => f64::from_bits(reader.bits(64)?),
        more => (more - 1) as f64 / 1000.0,
    })
}
