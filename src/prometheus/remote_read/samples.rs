//! Sampled answers, from servers that cannot stream: read whole, within the memory that there is.
//!
//! Memory is asked for before it is taken: for what comes in, for the same decompressed, and for what a decoder makes of
//! it, which may be many times as much. Dropped, it ends the answer; nothing is kept.

use bytes::{Bytes, BytesMut};
use prost::Message as _;

use super::{Pieces, ReadErrorKind};
use crate::{
    model::fields::{Holds, Known, Malformed, walk},
    pb::prometheus::{BucketSpan, Exemplar, Histogram, Label, QueryResult, ReadResponse, Sample, TimeSeries},
};

/// What a part of an answer takes once it is decoded.
#[derive(Debug)]
enum Cost {
    /// So many bytes for each.
    Each(usize),
    /// As many bytes as it has.
    Own,
}

/// Room for a value of a list, which has up to twice the room that it needs.
const fn listed<T>() -> Cost {
    Cost::Each(2 * size_of::<T>())
}

const fn field(number: u64, what: Cost, holds: Holds<Cost>) -> Known<Cost> {
    Known { number, what, holds }
}

static RESPONSE: &[Known<Cost>] = &[field(1, listed::<QueryResult>(), Holds::Message(RESULT))];
static RESULT: &[Known<Cost>] = &[field(1, listed::<TimeSeries>(), Holds::Message(SERIES))];
static SERIES: &[Known<Cost>] = &[
    field(1, listed::<Label>(), Holds::Message(LABEL)),
    field(2, listed::<Sample>(), Holds::Message(&[])),
    field(3, listed::<Exemplar>(), Holds::Message(EXEMPLAR)),
    field(4, listed::<Histogram>(), Holds::Message(HISTOGRAM)),
];
static LABEL: &[Known<Cost>] = &[field(1, Cost::Own, Holds::Bytes), field(2, Cost::Own, Holds::Bytes)];
static EXEMPLAR: &[Known<Cost>] = &[field(1, listed::<Label>(), Holds::Message(LABEL))];
static HISTOGRAM: &[Known<Cost>] = &[
    field(8, listed::<BucketSpan>(), Holds::Message(&[])),
    field(9, listed::<i64>(), Holds::Varints),
    field(10, listed::<f64>(), Holds::Fixed64),
    field(11, listed::<BucketSpan>(), Holds::Message(&[])),
    field(12, listed::<i64>(), Holds::Varints),
    field(13, listed::<f64>(), Holds::Fixed64),
    field(16, listed::<f64>(), Holds::Fixed64),
];

/// The most memory that an encoded `ReadResponse` takes once it is decoded, in bytes.
fn decoded_size(response: &[u8]) -> Result<usize, Malformed> {
    let mut size = 0_usize;
    walk(response, RESPONSE, &mut |cost, values, bytes| {
        size = size.saturating_add(match cost {
            Cost::Each(each) => values.saturating_mul(*each),
            Cost::Own => bytes,
        });
        Ok::<_, Malformed>(())
    })?;
    Ok(size)
}

/// Reads the whole body and decodes it. Memory is asked of `room`, in bytes.
///
/// # Errors
/// Those of the body; no room; a body that is no answer.
pub(super) async fn read(
    pieces: &mut Pieces,
    room: &mut (dyn FnMut(usize) -> bool + Send),
) -> Result<ReadResponse, ReadErrorKind> {
    let mut body = BytesMut::new();
    while let Some(piece) = pieces.next().await {
        let piece = piece?;
        if !room(piece.len()) {
            return Err(ReadErrorKind::NoRoom(body.len() + piece.len()));
        }
        body.extend_from_slice(&piece);
    }
    let unreadable = |what: &str, error: String| ReadErrorKind::Samples(format!("{what}: {error}"));
    let length = snap::raw::decompress_len(&body).map_err(|error| unreadable("snappy", error.to_string()))?;
    if !room(length) {
        return Err(ReadErrorKind::NoRoom(length));
    }
    let plain = snap::raw::Decoder::new().decompress_vec(&body);
    let plain = plain.map_err(|error| unreadable("snappy", error.to_string()))?;
    drop(body);
    let size = decoded_size(&plain).map_err(|error| unreadable("protobuf", error.to_string()))?;
    if !room(size) {
        return Err(ReadErrorKind::NoRoom(size));
    }
    ReadResponse::decode(Bytes::from(plain)).map_err(|error| unreadable("protobuf", error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pb::prometheus::histogram::{Count, ZeroCount};

    fn series() -> TimeSeries {
        let label = Label {
            name: "name".to_owned(),
            value: "value".to_owned(),
        };
        let span = BucketSpan { offset: 1, length: 2 };
        let histogram = Histogram {
            count: Some(Count::CountInt(3)),
            zero_count: Some(ZeroCount::ZeroCountInt(1)),
            negative_spans: vec![span; 3],
            negative_deltas: vec![-1; 3],
            negative_counts: vec![1.0; 3],
            positive_spans: vec![span; 3],
            positive_deltas: vec![300; 3],
            positive_counts: vec![1.0; 3],
            custom_values: vec![1.0; 3],
            ..Histogram::default()
        };
        TimeSeries {
            labels: vec![label.clone(); 3],
            samples: vec![Sample::default(); 100],
            exemplars: vec![
                Exemplar {
                    labels: vec![label],
                    ..Exemplar::default()
                };
                3
            ],
            histograms: vec![histogram; 3],
        }
    }

    /// Memory that the lists of these values have.
    fn of<T>(list: &[T]) -> usize {
        size_of_val(list)
    }

    fn held(response: &ReadResponse) -> usize {
        let labels = |labels: &[Label]| {
            let texts = labels.iter().map(|label| label.name.len() + label.value.len());
            of(labels) + texts.sum::<usize>()
        };
        let histogram = |histogram: &Histogram| {
            of(&histogram.negative_spans)
                + of(&histogram.negative_deltas)
                + of(&histogram.negative_counts)
                + of(&histogram.positive_spans)
                + of(&histogram.positive_deltas)
                + of(&histogram.positive_counts)
                + of(&histogram.custom_values)
        };
        let series = |series: &TimeSeries| {
            let exemplars = series.exemplars.iter().map(|exemplar| labels(&exemplar.labels));
            labels(&series.labels)
                + of(&series.samples)
                + of(&series.exemplars)
                + exemplars.sum::<usize>()
                + of(&series.histograms)
                + series.histograms.iter().map(histogram).sum::<usize>()
        };
        let result =
            |result: &QueryResult| of(&result.timeseries) + result.timeseries.iter().map(series).sum::<usize>();
        of(&response.results) + response.results.iter().map(result).sum::<usize>()
    }

    #[test]
    fn every_part_of_an_answer_is_counted_with_what_it_takes() {
        let response = ReadResponse {
            results: vec![
                QueryResult {
                    timeseries: vec![series(); 2]
                };
                2
            ],
        };
        let (size, held) = (decoded_size(&response.encode_to_vec()).unwrap(), held(&response));
        assert!(
            (held..=2 * held).contains(&size),
            "{held} bytes are held, {size} asked for"
        );
        // Of texts no more is asked than there is, of all else twice.
        let texts = 2 * 2 * (3 + 3) * "namevalue".len();
        assert_eq!(size, 2 * (held - texts) + texts);
    }

    #[test]
    fn small_answers_that_become_large_ones_are_seen() {
        let series = [0x0a, 0].repeat(1_000_000);
        let mut response = vec![0x0a];
        prost::encode_length_delimiter(series.len(), &mut response).unwrap();
        response.extend(series);
        assert!(decoded_size(&response).unwrap() > 180_000_000);
        assert_eq!(decoded_size(&[0x0a, 9]), Err(Malformed));
    }
}
