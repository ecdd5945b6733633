//! The way of a series from Prometheus to the client, without the connections: frames, labels, order, messages. Figures, no
//! verdicts; run by `make bench`.

mod figures;

use std::hint::black_box;

use bytes::{BufMut, Bytes, BytesMut};
use criterion::{Criterion, Throughput};
use narthex::{
    model::Labels,
    pb::{
        prometheus::{Chunk, ChunkedReadResponse, ChunkedSeries, Label},
        thanos::ShardInfo,
    },
    prometheus::remote_read::{
        frames::FrameReader,
        wire::{self, Frame},
    },
    storeapi::series::{convert::Convert, encode::Batcher, relabel::Relabel, shard::Shard},
};
use prost::Message;

/// Series in the answer that is measured.
const SERIES: usize = 10_000;
/// Bytes that a connection hands over at once.
const PIECE: usize = 64 << 10;

fn main() {
    let mut criterion = figures::criterion();
    for (name, chunks, size) in [("short series", 1, 20), ("series of two hours", 5, 180)] {
        way(&mut criterion, name, &answer(chunks, size));
    }
    criterion.final_summary();
}

/// An answer as Prometheus sends it: its external labels are in it already.
fn answer(chunks: usize, size: usize) -> Bytes {
    let mut body = BytesMut::new();
    for at in 0..SERIES {
        let pairs = [
            ("__name__", "http_requests_total".to_owned()),
            ("cluster", "eu-1".to_owned()),
            ("instance", format!("10.0.0.1:{at:06}")),
            ("job", "node".to_owned()),
            ("replica", "a".to_owned()),
        ];
        let series = ChunkedSeries {
            labels: pairs
                .into_iter()
                .map(|(name, value)| Label {
                    name: name.to_owned(),
                    value,
                })
                .collect(),
            chunks: (0..chunks)
                .map(|chunk| Chunk {
                    min_time_ms: 1_700_000_000_000 + chunk as i64,
                    max_time_ms: 1_700_000_000_000 + chunk as i64,
                    r#type: 1,
                    data: vec![at as u8; size].into(),
                })
                .collect(),
        };
        let payload = ChunkedReadResponse {
            chunked_series: vec![series],
            query_index: 0,
        };
        let payload = payload.encode_to_vec();
        prost::encode_length_delimiter(payload.len(), &mut body).expect("a buffer grows");
        body.put_u32(crc32c::crc32c(&payload));
        body.put_slice(&payload);
    }
    body.freeze()
}

fn frames(body: &Bytes, mut take: impl FnMut(Frame)) {
    let (mut reader, mut rest) = (FrameReader::default(), body.clone());
    while !rest.is_empty() {
        reader.push(rest.split_to(PIECE.min(rest.len())));
        while let Some(payload) = reader.next().expect("the frames are whole") {
            take(wire::parse(&payload).expect("and hold messages"));
        }
    }
}

fn way(criterion: &mut Criterion, name: &str, body: &Bytes) {
    let mut group = criterion.benchmark_group(name);
    group.throughput(Throughput::Bytes(body.len() as u64));
    group.bench_function("frames read", |bencher| {
        bencher.iter(|| frames(body, |frame| drop(black_box(frame))));
    });
    let external = Labels::from_pairs([("cluster", "eu-1"), ("replica", "a")]);
    let shard = ShardInfo {
        shard_index: 0,
        total_shards: 2,
        by: true,
        labels: vec!["instance".to_owned()],
    };
    for (what, without, shard, batch) in [
        ("sent as it is", vec![], None, 1),
        (
            "sent in batches without the replica",
            vec!["replica".to_owned()],
            None,
            64,
        ),
        ("sent by half", vec![], Shard::new(Some(&shard)), 64),
    ] {
        let convert = Convert::new(Relabel::new(&external, &without), shard);
        group.bench_function(what, |bencher| {
            bencher.iter(|| send(body, convert.clone(), batch));
        });
    }
    group.finish();
}

/// All that happens to an answer, into a buffer that is emptied as a connection would.
fn send(body: &Bytes, mut convert: Convert, batch: usize) {
    let mut order = convert.order();
    let (mut batcher, mut out) = (Batcher::new(batch), BytesMut::new());
    frames(body, |frame| {
        for series in frame.series {
            if let Some(series) = convert.series(series).expect("plain chunks") {
                order.push(series).expect("in order");
            }
        }
        while let Some(placed) = order.next().expect("in order") {
            batcher.add(placed.series, &mut out);
        }
        if out.len() > 2 * PIECE {
            black_box(out.split());
        }
    });
    order.finish();
    while let Some(placed) = order.next().expect("in order") {
        batcher.add(placed.series, &mut out);
    }
    batcher.flush(&mut out);
    black_box(out);
}
