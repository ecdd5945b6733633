use proptest::prelude::*;
use prost::Message;

use super::*;
use crate::pb::prometheus as pb;

fn message(labels: &[(&str, &str)], query_index: i64) -> pb::ChunkedReadResponse {
    let label = |(name, value): &(&str, &str)| pb::Label {
        name: (*name).to_owned(),
        value: (*value).to_owned(),
    };
    pb::ChunkedReadResponse {
        chunked_series: vec![pb::ChunkedSeries {
            labels: labels.iter().map(label).collect(),
            chunks: vec![pb::Chunk {
                min_time_ms: -5,
                max_time_ms: 1_700_000_000_000,
                r#type: 9,
                data: Bytes::from_static(&[0, 1, 0, 0, 0]),
            }],
        }],
        query_index,
    }
}

fn pairs(labels: &LabelBytes) -> Vec<(String, String)> {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    labels.iter().map(|(name, value)| (text(name), text(value))).collect()
}

#[test]
fn a_frame_is_read_where_it_lies() {
    let payload = Bytes::from(message(&[("__name__", "up"), ("job", "node")], 2).encode_to_vec());
    let frame = parse(&payload).unwrap();
    assert_eq!(frame.query_index, 2);
    let [series] = &frame.series[..] else {
        panic!("{frame:?}")
    };
    assert_eq!(
        pairs(&series.labels),
        [("__name__".into(), "up".into()), ("job".into(), "node".into())]
    );
    let [chunk] = &series.chunks[..] else {
        panic!("{series:?}")
    };
    assert_eq!((chunk.min_ms, chunk.max_ms, chunk.encoding), (-5, 1_700_000_000_000, 9));
    let held = payload.as_ptr_range();
    assert!(held.contains(&chunk.data.as_ptr()) && held.contains(&series.labels.as_bytes().as_ptr()));
}

#[test]
fn labels_are_put_in_order_and_empty_ones_are_dropped() {
    let unusual = message(&[("job", "a"), ("__name__", "up"), ("gone", ""), ("job", "b")], 0);
    let frame = parse(&Bytes::from(unusual.encode_to_vec())).unwrap();
    assert_eq!(
        pairs(&frame.series[0].labels),
        [("__name__".into(), "up".into()), ("job".into(), "b".into())]
    );
}

#[test]
fn labels_behind_the_chunks_are_found() {
    let mut series = pb::ChunkedSeries::default().encode_to_vec();
    for part in [
        message(&[("a", "1")], 0).chunked_series[0].encode_to_vec(),
        message(&[("b", "2")], 0).chunked_series[0].encode_to_vec(),
    ] {
        series.extend(part);
    }
    let mut payload = vec![0x0a];
    prost::encode_length_delimiter(series.len(), &mut payload).unwrap();
    payload.extend(series);
    let frame = parse(&Bytes::from(payload)).unwrap();
    assert_eq!(
        pairs(&frame.series[0].labels),
        [("a".into(), "1".into()), ("b".into(), "2".into())]
    );
    assert_eq!(frame.series[0].chunks.len(), 2);
}

#[test]
fn the_order_is_by_pairs_and_not_by_encoded_bytes() {
    let labels =
        |pairs: &[(&str, &str)]| LabelBytes::from_sorted(pairs.iter().map(|(n, v)| (n.as_bytes(), v.as_bytes())));
    let sorted = [
        labels(&[]),
        labels(&[("a", "1")]),
        labels(&[("a", "1"), ("b", "1")]),
        labels(&[("a", "10")]),
        labels(&[("a", "2")]),
        labels(&[("aa", "0")]),
        labels(&[("b", "0")]),
    ];
    for (at, one) in sorted.iter().enumerate() {
        for (other_at, other) in sorted.iter().enumerate() {
            assert_eq!(one.cmp(other), at.cmp(&other_at), "{one:?} {other:?}");
        }
    }
}

#[test]
fn long_values_and_bytes_that_are_no_text_pass() {
    let value = vec![0xff; 300];
    let labels = LabelBytes::from_sorted([(&b"x"[..], &value[..])]);
    assert_eq!(labels.iter().collect::<Vec<_>>(), [(&b"x"[..], &value[..])]);
    let mut payload = vec![0x0a];
    prost::encode_length_delimiter(labels.as_bytes().len(), &mut payload).unwrap();
    payload.extend_from_slice(labels.as_bytes());
    assert_eq!(parse(&Bytes::from(payload)).unwrap().series[0].labels, labels);
}

/// `ChunkedReadResponse` with one series of so many times this field.
fn repeated(field: &[u8], times: usize) -> Bytes {
    let mut payload = vec![0x0a];
    prost::encode_length_delimiter(field.len() * times, &mut payload).unwrap();
    payload.extend(field.repeat(times));
    payload.into()
}

#[test]
fn a_chunk_without_data_is_refused() {
    for chunk in [&[0x12, 0][..], &[0x12, 2, 0x18, 1], &[0x12, 4, 0x18, 1, 0x22, 0]] {
        assert_eq!(parse(&repeated(chunk, 1)), Err(WireError::EmptyChunk));
    }
}

#[test]
fn what_would_take_many_times_the_memory_of_its_frame_is_refused() {
    let most = |what, limit, bytes| Err(WireError::TooMany { what, limit, bytes });
    let chunks = repeated(&[0x12, 3, 0x22, 1, 7], 1_000_000);
    let limit = 1024 + chunks.len() / 16;
    assert_eq!(parse(&chunks), most("series and chunks", limit, chunks.len()));
    let series = Bytes::from([0x0a, 0].repeat(1_000_000));
    assert_eq!(parse(&series), most("series and chunks", 1024 + 125_000, 2_000_000));
    let labels = repeated(&[0x0a, 0], 1_000_000);
    assert_eq!(parse(&labels), most("labels", 1024 + labels.len() / 8, labels.len()));
    let large = repeated(&[&[0x12, 40, 0x22, 38][..], &[7; 38]].concat(), 1_100_000);
    assert_eq!(parse(&large), most("series and chunks", 1 << 20, large.len()));
    let error = parse(&series).unwrap_err().to_string();
    assert!(
        error.starts_with("a frame of 2000000 bytes holds more than 126024 series and chunks"),
        "{error}"
    );
}

/// Frames as large as an operator can make them, of the smallest chunks and labels that there are.
#[test]
fn the_densest_frames_of_prometheus_pass() {
    let labels: Vec<_> = (0..20_000).map(|at| (format!("l{at:05}"), "v")).collect();
    let labels: Vec<_> = labels.iter().map(|(name, value)| (name.as_str(), *value)).collect();
    let mut message = message(&labels, 0);
    // One sample at the time 0: two bytes for its count, one for its time, eight for its value.
    let mut sample = message.chunked_series[0].chunks[0].clone();
    (sample.min_time_ms, sample.max_time_ms, sample.r#type) = (0, 0, 1);
    sample.data = vec![0; 11].into();
    message.chunked_series[0].chunks = vec![sample; 60_000];
    let frame = parse(&message.encode_to_vec().into()).unwrap();
    assert_eq!(frame.series[0].chunks.len(), 60_000);
    // 120 samples that never change, for half a century.
    let chunk = &mut message.chunked_series[0].chunks[0];
    (chunk.min_time_ms, chunk.max_time_ms, chunk.data) = (1_700_000_000_000, 1_700_001_800_000, vec![0; 46].into());
    message.chunked_series[0].chunks = vec![chunk.clone(); 700_000];
    let payload = Bytes::from(message.encode_to_vec());
    assert!(payload.len() > 45_000_000);
    assert_eq!(parse(&payload).unwrap().series[0].chunks.len(), 700_000);
}

proptest! {
    /// Whatever is in it, what is read takes a few times its bytes.
    #[test]
    fn what_is_read_is_not_much_larger_than_what_came(
        parts in proptest::collection::vec((0..6_usize, 1..20_000_usize), 1..5)
    ) {
        let fields: [&[u8]; 6] = [
            &[0x12, 3, 0x22, 1, 7], &[0x12, 4, 0x18, 1, 0x22, 0], &[0x0a, 0], &[0x0a, 3, 0x0a, 1, 7], &[0x10, 1], &[0x1b, 0x1c],
        ];
        let series: Vec<u8> = parts.iter().flat_map(|(field, times)| fields[*field].repeat(*times)).collect();
        let payload = repeated(&series, 1);
        if let Ok(frame) = parse(&payload) {
            let chunks = frame.series.iter().map(|series| series.chunks.capacity()).sum::<usize>() * size_of::<ReadChunk>();
            let series = frame.series.capacity() * size_of::<ReadSeries>();
            prop_assert!(chunks + series < 8 * payload.len() + (128 << 10), "{} of {}", chunks + series, payload.len());
        }
    }

    /// Against the generated decoder: what it reads, we read; what it refuses may only be text that is not UTF-8.
    #[test]
    fn reads_what_the_generated_code_reads(
        labels in proptest::collection::btree_map("[a-c]{1,3}", "[a-z]{1,200}", 0..6),
        chunks in proptest::collection::vec((any::<i64>(), any::<i64>(), 0..7_i32, proptest::collection::vec(any::<u8>(), 1..50)), 0..5),
        query_index in any::<i64>(),
    ) {
        let message = pb::ChunkedReadResponse {
            chunked_series: vec![pb::ChunkedSeries {
                labels: labels.iter().map(|(name, value)| pb::Label { name: name.clone(), value: value.clone() }).collect(),
                chunks: chunks.iter().map(|(min, max, encoding, data)| pb::Chunk {
                    min_time_ms: *min, max_time_ms: *max, r#type: *encoding, data: data.clone().into(),
                }).collect(),
            }],
            query_index,
        };
        let frame = parse(&message.encode_to_vec().into()).unwrap();
        prop_assert_eq!(frame.query_index, query_index);
        prop_assert_eq!(pairs(&frame.series[0].labels), labels.into_iter().collect::<Vec<_>>());
        let found: Vec<_> = frame.series[0].chunks.iter().map(|chunk| (chunk.min_ms, chunk.max_ms, chunk.encoding, chunk.data.to_vec())).collect();
        prop_assert_eq!(found, chunks);
    }

    #[test]
    fn nothing_that_arrives_makes_it_panic(payload in proptest::collection::vec(any::<u8>(), 0..200)) {
        if let Ok(frame) = parse(&payload.clone().into()) {
            for series in &frame.series {
                let _ = series.labels.iter().count();
            }
        } else if let Ok(message) = pb::ChunkedReadResponse::decode(&payload[..]) {
            let mut chunks = message.chunked_series.iter().flat_map(|series| &series.chunks);
            prop_assert!(chunks.any(|chunk| chunk.data.is_empty()));
        }
    }
}
