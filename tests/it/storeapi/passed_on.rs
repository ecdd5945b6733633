//! Targets, metadata, exemplars and the storage's numbers against what Prometheus itself says.

use std::collections::BTreeMap;

use narthex::pb::thanos::{
    ActiveTarget, DroppedTarget, Exemplar, ExemplarData, ExemplarsRequest, Meta, MetricMetadataRequest, Statistic,
    TargetDiscovery, TargetsRequest, TsdbStatisticsEntry, TsdbStatisticsRequest, exemplars_client::ExemplarsClient,
    exemplars_response, label_matcher::Type, metadata_client::MetadataClient, metric_metadata_response,
    status_client::StatusClient, targets_client::TargetsClient, targets_request::State, targets_response,
    tsdb_statistics_response,
};
use serde_json::Value;
use tonic::{Code, Status};

use super::{
    label_calls::matcher,
    rules::time,
    stage::{EXTERNAL, Scene, all, labels, stages, steady},
};

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap().to_owned()
}

/// The one message that there must be.
fn only<T>(messages: Vec<T>) -> T {
    let count = messages.len();
    let mut messages = messages.into_iter();
    messages
        .next()
        .filter(|_| count == 1)
        .unwrap_or_else(|| panic!("{count} messages"))
}

async fn targets(scene: &Scene, state: State) -> TargetDiscovery {
    let request = TargetsRequest {
        state: state.into(),
        ..TargetsRequest::default()
    };
    let answer = TargetsClient::new(scene.channel.clone()).targets(request).await;
    match only(all(answer).await.unwrap()).result {
        Some(targets_response::Result::Targets(targets)) => targets,
        other => panic!("no targets: {other:?}"),
    }
}

fn active(json: &Value) -> ActiveTarget {
    let health = ["down", "up", "unknown"];
    ActiveTarget {
        discovered_labels: labels(&json["discoveredLabels"], &EXTERNAL),
        labels: labels(&json["labels"], &EXTERNAL),
        scrape_pool: text(&json["scrapePool"]),
        scrape_url: text(&json["scrapeUrl"]),
        global_url: text(&json["globalUrl"]),
        last_error: text(&json["lastError"]),
        last_scrape: time(&json["lastScrape"]),
        last_scrape_duration: json["lastScrapeDuration"].as_f64().unwrap(),
        health: health.iter().position(|health| json["health"] == *health).unwrap() as i32,
    }
}

#[tokio::test]
async fn targets_are_those_of_prometheus_with_external_labels() {
    for stage in stages().await {
        let scene = stage.scene().await;
        for (state, query, counts) in [
            (State::Any, "", (1, 1)),
            (State::Active, "?state=active", (1, 0)),
            (State::Dropped, "?state=dropped", (0, 1)),
        ] {
            let path = format!("/api/v1/targets{query}");
            let (theirs, ours) = steady(async || stage.data(&path).await, async || targets(&scene, state).await).await;
            let dropped = list(&theirs["droppedTargets"]).map(|json| DroppedTarget {
                discovered_labels: labels(&json["discoveredLabels"], &EXTERNAL),
            });
            let want = TargetDiscovery {
                active_targets: list(&theirs["activeTargets"]).map(active).collect(),
                dropped_targets: dropped.collect(),
            };
            assert_eq!((ours.active_targets.len(), ours.dropped_targets.len()), counts);
            assert_eq!(ours, want, "{theirs:#}");
        }
    }
}

async fn metadata(scene: &Scene, metric: &str, limit: i32) -> BTreeMap<String, Vec<Meta>> {
    let request = MetricMetadataRequest {
        metric: metric.into(),
        limit,
        ..MetricMetadataRequest::default()
    };
    let answer = MetadataClient::new(scene.channel.clone())
        .metric_metadata(request)
        .await;
    let found = match only(all(answer).await.unwrap()).result {
        Some(metric_metadata_response::Result::Metadata(metadata)) => metadata.metadata.into_iter(),
        other => panic!("no metadata: {other:?}"),
    };
    found.map(|(metric, entry)| (metric, entry.metas)).collect()
}

#[tokio::test]
async fn metadata_is_that_of_prometheus_and_a_limit_of_0_is_one() {
    for stage in stages().await {
        let scene = stage.scene().await;
        let theirs = stage.data("/api/v1/metadata").await;
        let meta = |json: &Value| Meta {
            r#type: text(&json["type"]),
            help: text(&json["help"]),
            unit: text(&json["unit"]),
        };
        let theirs = theirs.as_object().unwrap().iter();
        let theirs: BTreeMap<String, Vec<Meta>> = theirs
            .map(|(metric, metas)| (metric.clone(), list(metas).map(meta).collect()))
            .collect();
        assert_eq!(metadata(&scene, "", -1).await, theirs);
        assert!(metadata(&scene, "", 0).await.is_empty());
        assert_eq!(metadata(&scene, "", 2).await.len(), 2);
        let one = metadata(&scene, "rig_seconds", -1).await;
        let want = Meta {
            r#type: "histogram".into(),
            help: "How long.".into(),
            unit: "seconds".into(),
        };
        assert_eq!(one, BTreeMap::from([("rig_seconds".to_owned(), vec![want])]));
        assert!(metadata(&scene, "nothing", -1).await.is_empty());
    }
}

async fn exemplars(scene: &Scene, query: &str, start: i64, end: i64) -> Result<Vec<ExemplarData>, Status> {
    let request = ExemplarsRequest {
        query: query.into(),
        start,
        end,
        ..ExemplarsRequest::default()
    };
    let answer = ExemplarsClient::new(scene.channel.clone()).exemplars(request).await;
    let messages = all(answer).await?.into_iter();
    let data = messages.map(|message| match message.result {
        Some(exemplars_response::Result::Data(data)) => data,
        other => panic!("no exemplars: {other:?}"),
    });
    Ok(data.collect())
}

#[tokio::test]
async fn exemplars_are_those_of_prometheus_with_external_labels_on_the_series() {
    for stage in stages().await {
        let scene = stage.scene().await;
        let path = "/api/v1/query_exemplars?query=rig_seconds_bucket&start=0&end=9000000000";
        let ask = async || {
            exemplars(&scene, "rig_seconds_bucket", i64::MIN, i64::MAX)
                .await
                .unwrap()
        };
        let (theirs, ours) = steady(async || stage.data(path).await, ask).await;
        let exemplar = |json: &Value| Exemplar {
            labels: labels(&json["labels"], &[]),
            value: text(&json["value"]).parse().unwrap(),
            ts: (json["timestamp"].as_f64().unwrap() * 1000.0).round() as i64,
        };
        let series = |json: &Value| ExemplarData {
            series_labels: labels(&json["seriesLabels"], &EXTERNAL),
            exemplars: list(&json["exemplars"]).map(exemplar).collect(),
        };
        let want: Vec<ExemplarData> = list(&theirs).map(series).collect();
        assert_eq!(ours, want, "{theirs:#}");
        assert_eq!(ours.len(), 2);
        assert!(ours.iter().any(|data| data.exemplars[0].value == 7.25));

        // An expression without a selector has none.
        assert!(exemplars(&scene, "1", 0, i64::MAX).await.unwrap().is_empty());
        assert!(
            exemplars(&scene, "rig_seconds_bucket", 0, 1000)
                .await
                .unwrap()
                .is_empty()
        );
        for (query, start, end) in [("rig_seconds_bucket", 1000, 0), ("{", 0, 1)] {
            let error = exemplars(&scene, query, start, end).await.unwrap_err();
            assert_eq!(error.code(), Code::InvalidArgument, "{error}");
        }
    }
}

async fn status(scene: &Scene, request: TsdbStatisticsRequest) -> Result<Option<TsdbStatisticsEntry>, Status> {
    let answer = StatusClient::new(scene.channel.clone()).tsdb_statistics(request).await;
    let mut found = match only(all(answer).await?).result {
        Some(tsdb_statistics_response::Result::Statistics(statistics)) => statistics.statistics,
        other => panic!("no statistics: {other:?}"),
    };
    let entry = found.remove("");
    assert!(found.is_empty(), "other tenants: {found:?}");
    Ok(entry)
}

#[tokio::test]
async fn the_numbers_of_the_storage_are_those_of_prometheus() {
    for stage in stages().await {
        let scene = stage.scene().await;
        for limit in [0, 3] {
            let path = format!("/api/v1/status/tsdb{}", if limit > 0 { "?limit=3" } else { "" });
            let request = TsdbStatisticsRequest {
                limit,
                matchers: vec![matcher(Type::Eq, "cluster", "rig"), matcher(Type::Eq, "nothing", "")],
                ..TsdbStatisticsRequest::default()
            };
            let ask = async || status(&scene, request.clone()).await.unwrap().unwrap();
            let (theirs, ours) = steady(async || stage.data(&path).await, ask).await;
            let statistics = |key: &str| -> Vec<Statistic> {
                let statistic = |json: &Value| Statistic {
                    name: text(&json["name"]),
                    value: json["value"].as_u64().unwrap(),
                };
                let most = if limit > 0 { limit as usize } else { usize::MAX };
                list(&theirs[key]).take(most).map(statistic).collect()
            };
            let by_value = |mut list: Vec<Statistic>| {
                // Prometheus gives equal ones in any order.
                list.sort_by(|a, b| (b.value, &a.name).cmp(&(a.value, &b.name)));
                list.into_iter().map(|statistic| statistic.value).collect::<Vec<_>>()
            };
            for (ours, key) in [
                (&ours.series_count_by_metric_name, "seriesCountByMetricName"),
                (&ours.label_value_count_by_label_name, "labelValueCountByLabelName"),
                (&ours.memory_in_bytes_by_label_name, "memoryInBytesByLabelName"),
                (&ours.series_count_by_label_value_pair, "seriesCountByLabelValuePair"),
            ] {
                assert!(!ours.is_empty(), "{key}");
                assert_eq!(by_value(ours.clone()), by_value(statistics(key)), "{key}");
            }
            let head = ours.head_statistics.unwrap();
            let number = |key: &str| theirs["headStats"][key].as_i64().unwrap();
            assert_eq!(head.num_series as i64, number("numSeries"));
            assert_eq!(head.num_label_pairs, number("numLabelPairs"));
            assert_eq!(head.chunk_count, number("chunkCount"));
            assert_eq!((head.min_time, head.max_time), (number("minTime"), number("maxTime")));
            assert!(head.chunk_count > 0);
        }
    }
}

#[tokio::test]
#[expect(deprecated, reason = "older readers may still ask for a tenant")]
async fn the_numbers_of_the_storage_are_asked_for_only_if_they_are_wanted() {
    let scene = stages().await[0].scene().await;
    let other = TsdbStatisticsRequest {
        matchers: vec![matcher(Type::Eq, "cluster", "other")],
        ..TsdbStatisticsRequest::default()
    };
    assert_eq!(status(&scene, other).await.unwrap(), None);
    let tenant = TsdbStatisticsRequest {
        tenant: "someone".into(),
        ..TsdbStatisticsRequest::default()
    };
    assert_eq!(status(&scene, tenant).await.unwrap(), None);
    scene.ready.set(Err("for a test".to_owned()));
    let error = status(&scene, TsdbStatisticsRequest::default()).await.unwrap_err();
    assert_eq!((error.code(), error.message()), (Code::Unknown, "not ready"));
}
