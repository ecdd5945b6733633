//! A client of the StoreAPI, and what is true of every answer whatever it holds.

use std::collections::BTreeMap;

use narthex::{
    chunk,
    pb::thanos::{
        Chunk, LabelMatcher, Series, SeriesRequest, label_matcher::Type, series_response::Result as Answer,
        store_client::StoreClient,
    },
};
use tonic::{Status, transport::Channel};
use twox_hash::XxHash64;

/// Names and values, sorted by name.
pub(super) type Set = Vec<(String, String)>;
/// Times in ms and the bits of the values: NaN is not equal to itself.
pub(super) type Floats = Vec<(i64, u64)>;

/// An answer.
#[derive(Debug)]
pub(super) struct Got {
    /// Series in each message; `None` for a message that is no batch.
    pub(super) messages: Vec<Option<usize>>,
    pub(super) series: Vec<Series>,
}

pub(super) async fn store(address: &str) -> StoreClient<Channel> {
    let client = StoreClient::connect(address.to_owned()).await.unwrap();
    client.max_decoding_message_size(usize::MAX)
}

/// Asks, and reads the answer to its end.
pub(super) async fn series(store: &mut StoreClient<Channel>, request: SeriesRequest) -> Result<Got, Status> {
    let mut stream = store.series(request).await?.into_inner();
    let mut got = Got {
        messages: Vec::new(),
        series: Vec::new(),
    };
    while let Some(message) = stream.message().await? {
        match message.result.expect("a message holds something") {
            Answer::Series(series) => {
                got.messages.push(None);
                got.series.push(series);
            }
            Answer::Batch(batch) => {
                got.messages.push(Some(batch.series.len()));
                got.series.extend(batch.series);
            }
            other => panic!("a sidecar sends series only: {other:?}"),
        }
    }
    Ok(got)
}

pub(super) fn matcher(op: Type, name: &str, value: &str) -> LabelMatcher {
    LabelMatcher {
        r#type: op.into(),
        name: name.into(),
        value: value.into(),
    }
}

impl Got {
    /// The label set of each part, in the order sent.
    pub(super) fn sets(&self) -> Vec<Set> {
        self.series.iter().map(set).collect()
    }

    /// The float samples by label set, each list sorted: several series can have become one.
    pub(super) fn floats(&self) -> BTreeMap<Set, Floats> {
        let mut found: BTreeMap<Set, Floats> = BTreeMap::new();
        for series in &self.series {
            let list = found.entry(set(series)).or_default();
            for (_, chunk) in raw(series) {
                if chunk.r#type == 0 {
                    list.extend(floats(chunk));
                }
            }
        }
        found.values_mut().for_each(|list| list.sort_unstable());
        found
    }
}

/// The labels of a series.
pub(super) fn set(series: &Series) -> Set {
    series
        .labels
        .iter()
        .map(|label| (label.name.clone(), label.value.clone()))
        .collect()
}

/// The chunks of a series with their times.
pub(super) fn raw(series: &Series) -> impl Iterator<Item = ((i64, i64), &Chunk)> {
    series.chunks.iter().map(|chunk| {
        let raw = chunk.raw.as_ref().expect("a sidecar sends raw chunks");
        ((chunk.min_time, chunk.max_time), raw)
    })
}

/// The samples of a float chunk.
pub(super) fn floats(chunk: &Chunk) -> Floats {
    let samples = chunk::xor::decode(&chunk.data).map(|sample| sample.expect("the chunk is whole"));
    samples.map(|(time, value)| (time, value.to_bits())).collect()
}

/// What the contract says of every answer: order, names, times, hashes.
pub(super) fn assert_well_formed(got: &Got) {
    let sets = got.sets();
    // Pair by pair, the shorter first: that is how vectors of pairs compare.
    for pair in sets.windows(2) {
        assert!(pair[0] <= pair[1], "out of order: {:?} before {:?}", pair[0], pair[1]);
    }
    for set in &sets {
        assert!(set.windows(2).all(|pair| pair[0].0 < pair[1].0), "names: {set:?}");
        assert!(
            set.iter().all(|(_, value)| !value.is_empty()),
            "an empty value: {set:?}"
        );
    }
    for series in &got.series {
        for ((min, max), chunk) in raw(series) {
            assert_eq!(chunk.hash, XxHash64::oneshot(0, &chunk.data), "{series:?}");
            assert!(!chunk.data.is_empty() && (0..3).contains(&chunk.r#type));
            if chunk.r#type == 0 {
                let samples = floats(chunk);
                let ends = (
                    samples.first().map(|sample| sample.0),
                    samples.last().map(|sample| sample.0),
                );
                assert_eq!(ends, (Some(min), Some(max)), "{series:?}");
            }
        }
    }
}
