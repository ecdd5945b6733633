//! Hundreds of thousands of series in one answer: whole, in order, and in a few MiB.

use futures_util::{StreamExt as _, stream};
use narthex::pb::thanos::{SeriesRequest, label_matcher::Type, series_response::Result as Answer};

use super::{
    ask::{self, matcher, set},
    stage::{Stage, Written, labels, prometheus, start_ms, write},
};
use crate::rig::{Tools, limit::turn};

/// Enough that the answer is twice as large as what the process may hold; each thousand takes a core a tenth of a second.
const SERIES: usize = 400_000;
/// Series in one request to write: fewer requests are faster.
const PART: usize = 5_000;
/// What the process may hold at once, in bytes; the answer has more than 40 MB.
const MEMORY: u64 = 20 << 20;

#[tokio::test]
async fn hundreds_of_thousands_of_series_take_no_memory() {
    let _turn = turn().await;
    let start = start_ms();
    let prometheus = prometheus(&Tools::oldest(), &[("cluster", "eu"), ("replica", "a")], &[]).await;
    let parts = stream::iter(0..SERIES / PART).map(|part| {
        let series: Vec<Written> = (part * PART..(part + 1) * PART)
            .map(|at| Written {
                labels: labels(&[("__name__", "big"), ("n", &format!("{at:07}"))]),
                floats: vec![(start, at as f64)],
                ..Default::default()
            })
            .collect();
        let prometheus = &prometheus;
        async move { write(prometheus, &series).await }
    });
    parts.buffer_unordered(2).collect::<()>().await;
    // The client of a busy machine lags: what is read ahead for it is not what is looked at here.
    let stage = Stage::start(&prometheus, &["--store.read-ahead=0", "--store.max-client-lag=1h"]).await;
    let mut store = ask::store(&stage.sidecar.grpc_url()).await;
    let request = SeriesRequest {
        min_time: start,
        max_time: start + 60_000,
        matchers: vec![matcher(Type::Eq, "__name__", "big")],
        without_replica_labels: vec!["replica".to_owned()],
        response_batch_size: 64,
        ..Default::default()
    };
    let mut stream = store.series(request).await.unwrap().into_inner();
    let mut count = 0;
    while let Some(message) = stream.message().await.unwrap() {
        let series = match message.result.unwrap() {
            Answer::Series(series) => vec![series],
            Answer::Batch(batch) => batch.series,
            other => panic!("{other:?}"),
        };
        for series in series {
            let number = format!("{count:07}");
            let wanted = [("__name__", "big"), ("cluster", "eu"), ("n", &*number)];
            let found = set(&series);
            let found: Vec<(&str, &str)> = found.iter().map(|(name, value)| (&**name, &**value)).collect();
            assert_eq!(found, wanted);
            let chunk = series.chunks[0].raw.as_ref().unwrap();
            assert_eq!(ask::floats(chunk), [(start, (count as f64).to_bits())]);
            count += 1;
        }
    }
    assert_eq!(count, SERIES);
    let peak = stage.sidecar.peak_memory();
    assert!(peak < MEMORY, "{peak} bytes");
}
