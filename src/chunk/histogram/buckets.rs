//! Buckets of two histograms, side by side.

use super::{Counts, Histogram, Span};

/// How many buckets the spans cover.
pub(super) fn covered(spans: &[Span]) -> u64 {
    spans.iter().map(|span| u64::from(span.length)).sum()
}

/// The indexes of the buckets that the spans cover.
pub(super) fn indexes(spans: &[Span]) -> impl Iterator<Item = i64> {
    let mut next = 0_i64;
    spans.iter().flat_map(move |span| {
        let first = next + i64::from(span.offset);
        next = first + i64::from(span.length);
        first..next
    })
}

/// Whether both have the same buckets, by whatever spans.
pub(super) fn same_layout(last: &Histogram, next: &Histogram) -> bool {
    let same = |a: &[Span], b: &[Span]| a == b || indexes(a).eq(indexes(b));
    same(&last.positive_spans, &next.positive_spans) && same(&last.negative_spans, &next.negative_spans)
}

/// Whether `next` counts fewer observations than `last`.
pub(super) fn fewer_observations(last: &Histogram, next: &Histogram) -> bool {
    match (&last.counts, &next.counts) {
        (Counts::Integer { count: last, .. }, Counts::Integer { count: next, .. }) => next < last,
        (Counts::Float { count: last, .. }, Counts::Float { count: next, .. }) => next < last,
        _ => false,
    }
}

/// Whether any bucket of `next` has fewer observations than in `last`, which has the same schema and bounds.
pub(super) fn reset(last: &Histogram, next: &Histogram) -> bool {
    match (&last.counts, &next.counts) {
        (
            Counts::Integer {
                zero: last_zero,
                positive: last_positive,
                negative: last_negative,
                ..
            },
            Counts::Integer {
                zero,
                positive,
                negative,
                ..
            },
        ) => {
            zero < last_zero
                || shrinks(
                    side(&last.positive_spans, sums(last_positive)),
                    side(&next.positive_spans, sums(positive)),
                )
                || shrinks(
                    side(&last.negative_spans, sums(last_negative)),
                    side(&next.negative_spans, sums(negative)),
                )
        }
        (
            Counts::Float {
                zero: last_zero,
                positive: last_positive,
                negative: last_negative,
                ..
            },
            Counts::Float {
                zero,
                positive,
                negative,
                ..
            },
        ) => {
            zero < last_zero
                || shrinks(
                    side(&last.positive_spans, last_positive.iter().copied()),
                    side(&next.positive_spans, positive.iter().copied()),
                )
                || shrinks(
                    side(&last.negative_spans, last_negative.iter().copied()),
                    side(&next.negative_spans, negative.iter().copied()),
                )
        }
        _ => false,
    }
}

/// The numbers of buckets that are given by their differences.
fn sums(differences: &[i64]) -> impl Iterator<Item = i64> {
    differences.iter().scan(0_i64, |sum, difference| {
        *sum = sum.wrapping_add(*difference);
        Some(*sum)
    })
}

/// Buckets by their indexes.
fn side<T>(spans: &[Span], numbers: impl Iterator<Item = T>) -> impl Iterator<Item = (i64, T)> {
    indexes(spans).zip(numbers)
}

/// Whether a bucket lost observations. Empty ones may go.
fn shrinks<T: PartialOrd + Default>(
    last: impl Iterator<Item = (i64, T)>,
    next: impl Iterator<Item = (i64, T)>,
) -> bool {
    let mut next = next.peekable();
    for (index, number) in last {
        while next.next_if(|(other, _)| *other < index).is_some() {}
        let shrunk = match next.next_if(|(other, _)| *other == index) {
            Some((_, now)) => now < number,
            None => number != T::default(),
        };
        if shrunk {
            return true;
        }
    }
    false
}
