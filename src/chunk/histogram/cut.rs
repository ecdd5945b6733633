//! The samples of a chunk of histograms that lie in a range, as a chunk of their own: written as Prometheus writes them
//! when it cuts a chunk for a query. What the chunk said about a counter reset before its first sample is not said again.

use std::{mem, ops::RangeInclusive};

use super::{
    super::{Error, is_stale},
    Chunk, Header, Histogram, Kind, ResetHint, decode,
    write::Appender,
};

/// Behind the end of a series, Prometheus begins a new chunk; there is no other way to write such a sample.
const BEHIND_END: &str = "it stands behind the mark of the series' end";

/// Cuts a chunk of HISTOGRAM or FLOAT_HISTOGRAM to a range of Unix milliseconds; none if no sample is inside.
///
/// # Errors
/// Those of [`decode`], also for samples outside; [`Error::Garbled`] for a sample behind a mark of the series' end.
pub(in crate::chunk) fn cut(data: &[u8], kind: Kind, range: &RangeInclusive<i64>) -> Result<Option<Chunk>, Error> {
    let mut decoder = decode(data, kind);
    let mut open: Option<Appender> = None;
    let mut stale = false;
    while let Some(index) = decoder.advance() {
        let index = index?;
        if !range.contains(&decoder.time()) {
            continue;
        }
        let sample = decoder.histogram(index);
        let ended = mem::replace(&mut stale, is_stale(sample.sum));
        if ended && !stale {
            return Err(Error::Garbled {
                sample: index,
                what: BEHIND_END,
            });
        }
        match &mut open {
            // All samples of a chunk have its kind and layout; and they are no more than fitted into it.
            Some(appender) => appender.push(&sample),
            None => open = Some(Appender::new(header(&sample), &sample)),
        }
    }
    Ok(open.map(Appender::finish))
}

/// The header of a chunk that begins with a sample that was read. Whatever came before it may be somewhere else by now, so
/// that only a gauge is known for what it is, and not even that by a mark of the series' end.
fn header(first: &Histogram) -> Header {
    match first.hint {
        ResetHint::Gauge => Header::Gauge,
        ResetHint::Unknown | ResetHint::Reset | ResetHint::NoReset => Header::Unknown,
    }
}
