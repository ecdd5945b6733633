//! Requests that look at labels: nothing selected, labels only, shards, a limit.

use std::collections::{BTreeMap, BTreeSet};

use narthex::pb::thanos::{SeriesRequest, ShardInfo, label_matcher::Type};
use tonic::Code;

use super::{
    ask::{Set, matcher},
    stage::{Stage, Written, api, labels, prometheus, start_ms, write},
};
use crate::rig::{Prometheus, Tools};

const EXTERNAL: [(&str, &str); 2] = [("cluster", "eu"), ("replica", "a")];

/// Sixty series; every fifth carries a stored `replica`, every seventh a stored `cluster`.
fn stored() -> Vec<BTreeMap<String, String>> {
    let one = |at: usize| {
        let mut set = labels(&[
            ("__name__", "m"),
            ("job", ["x", "y"][at % 2]),
            ("n", &format!("{at:02}")),
        ]);
        if at.is_multiple_of(5) {
            set.insert("replica".to_owned(), format!("r{at}"));
        }
        if at.is_multiple_of(7) {
            set.insert("cluster".to_owned(), "stored".to_owned());
        }
        set
    };
    (0..60).map(one).collect()
}

async fn scene() -> (Prometheus, Stage, SeriesRequest) {
    let prometheus = prometheus(&Tools::oldest(), &EXTERNAL, &[]).await;
    let start = start_ms();
    let written: Vec<Written> = stored()
        .into_iter()
        .map(|labels| Written {
            labels,
            floats: vec![(start, 1.0), (start + 15_000, 2.0)],
            ..Default::default()
        })
        .collect();
    write(&prometheus, &written).await;
    let stage = Stage::start(&prometheus, &[]).await;
    let request = SeriesRequest {
        min_time: start,
        max_time: start + 60_000,
        matchers: vec![matcher(Type::Eq, "__name__", "m")],
        ..Default::default()
    };
    (prometheus, stage, request)
}

/// By the contract: external labels win, replica labels go.
fn wanted(without: &[&str]) -> BTreeSet<Set> {
    let change = |mut set: BTreeMap<String, String>| {
        set.extend(labels(&EXTERNAL));
        set.retain(|name, _| !without.contains(&name.as_str()));
        set.into_iter().collect()
    };
    stored().into_iter().map(change).collect()
}

#[tokio::test]
async fn matchers_on_external_labels_decide_whether_there_is_an_answer() {
    let (_prometheus, stage, request) = scene().await;
    let with = |more| SeriesRequest {
        matchers: [request.matchers.clone(), vec![more]].concat(),
        ..request.clone()
    };
    for (op, value, some) in [
        (Type::Eq, "eu", true),
        (Type::Eq, "us", false),
        (Type::Neq, "us", true),
        (Type::Neq, "eu", false),
        (Type::Re, "e.", true),
        (Type::Re, "e", false),
        (Type::Nre, "u.*", true),
        (Type::Nre, ".*", false),
        (Type::Eq, "", false),
        // What is stored under the name is not seen.
        (Type::Eq, "stored", false),
    ] {
        let got = stage.series(with(matcher(op, "cluster", value))).await;
        assert_eq!(got.series.len(), if some { 60 } else { 0 }, "{op:?} {value}");
    }
    let only = SeriesRequest {
        matchers: vec![matcher(Type::Eq, "cluster", "eu")],
        ..request.clone()
    };
    let error = stage.try_series(only).await.unwrap_err();
    assert_eq!(error.code(), Code::InvalidArgument);
    assert_eq!(error.message(), "no matchers specified (excluding external labels)");
    let error = stage
        .try_series(with(matcher(Type::Re, "job", "x(")))
        .await
        .unwrap_err();
    assert_eq!(error.code(), Code::InvalidArgument, "{error}");
    assert!(error.message().contains("error parsing regexp"), "{error}");
}

#[tokio::test]
async fn labels_alone_are_those_of_the_whole_answer() {
    let (prometheus, stage, request) = scene().await;
    // An empty name is that of no label.
    for without in [&[][..], &["replica"], &["replica", "n"], &[""]] {
        let request = SeriesRequest {
            without_replica_labels: without.iter().map(|&name| name.to_owned()).collect(),
            ..request.clone()
        };
        let whole = stage.series(request.clone()).await;
        let mut sets = whole.sets();
        sets.dedup();
        assert_eq!(sets, wanted(without).into_iter().collect::<Vec<_>>());
        let bare = stage
            .series(SeriesRequest {
                skip_chunks: true,
                response_batch_size: 7,
                ..request
            })
            .await;
        assert_eq!(bare.sets(), sets, "each set once, sorted");
        assert!(bare.series.iter().all(|series| series.chunks.is_empty()));
        assert!(bare.messages.iter().all(|size| size.is_some_and(|size| size <= 7)));
    }
    // What was written is what Prometheus knows.
    let data = api(&prometheus, "series", &[("match[]", "m")]).await;
    assert_eq!(data.as_array().unwrap().len(), 60);
    let empty = SeriesRequest {
        skip_chunks: true,
        matchers: vec![matcher(Type::Re, "job", ".*")],
        ..request
    };
    let error = stage.try_series(empty).await.unwrap_err();
    assert_eq!(error.code(), Code::InvalidArgument);
    assert!(
        error.message().contains("must contain at least one non-empty matcher"),
        "{error}"
    );
}

#[tokio::test]
async fn each_series_is_in_exactly_one_shard_in_every_path() {
    let (_prometheus, stage, request) = scene().await;
    for skip_chunks in [false, true] {
        for (by, names) in [(true, &["n"][..]), (false, &["job"]), (true, &[]), (false, &[])] {
            let mut found = Vec::new();
            for index in 0..3 {
                let shard = ShardInfo {
                    shard_index: index,
                    total_shards: 3,
                    by,
                    labels: names.iter().map(|&name| name.to_owned()).collect(),
                };
                let got = stage
                    .series(SeriesRequest {
                        skip_chunks,
                        shard_info: Some(shard),
                        ..request.clone()
                    })
                    .await;
                found.extend(got.sets());
            }
            found.sort();
            assert_eq!(found, wanted(&[]).into_iter().collect::<Vec<_>>(), "{by} {names:?}");
        }
    }
}

#[tokio::test]
async fn a_limit_gives_the_first_series() {
    let (_prometheus, stage, request) = scene().await;
    let all: Vec<Set> = wanted(&[]).into_iter().collect();
    for limit in [1, 7, 60, 61] {
        let got = stage
            .series(SeriesRequest {
                limit,
                ..request.clone()
            })
            .await;
        assert_eq!(got.sets(), all[..all.len().min(limit as usize)]);
        let labels = SeriesRequest {
            limit,
            skip_chunks: true,
            ..request.clone()
        };
        assert_eq!(stage.series(labels).await.series.len(), all.len().min(limit as usize));
    }
}

#[tokio::test]
async fn what_is_cut_away_does_not_count_against_the_limits_of_the_flags() {
    let (prometheus, _, request) = scene().await;
    let stage = Stage::start(&prometheus, &["--store.limits.request-series=10"]).await;
    // Prometheus cuts at ten, and without `n` those become few: others are asked for.
    for (without, wanted_here) in [(&[][..], 10), (&["n", "replica"], 2)] {
        let got = stage
            .series(SeriesRequest {
                limit: 10,
                skip_chunks: true,
                without_replica_labels: without.iter().map(|&name| name.to_owned()).collect(),
                ..request.clone()
            })
            .await;
        assert_eq!(got.series.len(), wanted_here, "{without:?}");
    }
}

#[tokio::test]
async fn limits_of_the_flags_end_a_call_with_the_counts() {
    let (prometheus, _, request) = scene().await;
    for (flag, text) in [
        (
            "--store.limits.request-series=59",
            "failed to send series: limit 59 violated (got 60)",
        ),
        (
            "--store.limits.request-samples=7000",
            "failed to send samples: limit 7000 violated (got 7080)",
        ),
    ] {
        let stage = Stage::start(&prometheus, &[flag]).await;
        let error = stage.try_series(request.clone()).await.unwrap_err();
        assert_eq!(error.code(), Code::ResourceExhausted);
        assert!(error.message().starts_with(text), "{error}");
        let fewer = SeriesRequest {
            matchers: vec![matcher(Type::Eq, "__name__", "m"), matcher(Type::Eq, "job", "x")],
            ..request.clone()
        };
        assert_eq!(stage.series(fewer).await.series.len(), 30);
        let metrics = stage.sidecar.metrics().await.unwrap();
        let dropped: f64 = ["series", "chunks"]
            .iter()
            .filter_map(|reason| metrics.value("thanos_store_selects_dropped_total", &[("reason", reason)]))
            .sum();
        assert_eq!(dropped, 1.0);
    }
}

#[tokio::test]
async fn nothing_older_than_the_min_time_is_served() {
    let (prometheus, _, request) = scene().await;
    let stage = Stage::start(&prometheus, &["--min-time=-10m"]).await;
    assert!(stage.series(request.clone()).await.series.is_empty());
    let labels = SeriesRequest {
        skip_chunks: true,
        ..request
    };
    assert!(stage.series(labels).await.series.is_empty());
}
