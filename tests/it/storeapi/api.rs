//! What a real Prometheus does not show on demand: old versions, odd answers, refusals, answers without an end.

use std::{ops::ControlFlow, time::Duration};

use narthex::{
    model::Matcher,
    model::matcher::Op,
    pb::thanos::{
        ExemplarsRequest, LabelNamesRequest, LabelValuesRequest, MetricMetadataRequest, RulesRequest, TargetsRequest,
        TsdbStatisticsRequest, exemplars_client::ExemplarsClient, label_matcher::Type, metadata_client::MetadataClient,
        rules_client::RulesClient, status_client::StatusClient, store_client::StoreClient,
        targets_client::TargetsClient,
    },
    prometheus::{
        ErrorKind,
        api::{RequestOptions, SeriesFilter},
    },
};
use serde_json::json;
use tonic::{Code, Status};

use super::{
    label_calls::matcher,
    stage::{PATIENCE, Scene, all},
};
use crate::{
    prometheus::fake::{Answer, Fake, prometheus},
    rig::wait_until,
};

pub(super) const YAML: &str = "global:\n  external_labels:\n    cluster: eu\n    replica: \"0\"\n";

/// Answers the heartbeat well and says that it is of this version; all else is answered with `answer`.
pub(super) fn fake(version: &'static str, answer: impl Fn(&str) -> Answer + Send + 'static) -> Fake {
    Fake::start(move |path| match path {
        "/api/v1/status/buildinfo" => success(json!({ "version": version })),
        "/metrics" | "/api/v1/status/config" | "/api/v1/status/flags" => prometheus(path, YAML, "2h", "2h"),
        path => answer(path),
    })
}

pub(super) fn success(data: serde_json::Value) -> Answer {
    text(
        200,
        &json!({"status": "success", "data": data, "warnings": ["none of ours"]}).to_string(),
    )
}

pub(super) fn text(status: u16, body: &str) -> Answer {
    Answer::Http(status, body.into())
}

/// With time enough.
fn soon() -> RequestOptions {
    RequestOptions::until(tokio::time::Instant::now() + PATIENCE)
}

/// The last path with its parameters that was asked for.
pub(super) fn asked(fake: &Fake) -> String {
    fake.last_head().split(' ').nth(1).unwrap().to_owned()
}

const LIMITS: (i64, i64) = (1_700_000_000_123, 1_700_000_300_000);

pub(super) fn names(scene: &Scene, metric: &str) -> impl Future<Output = Result<Vec<String>, Status>> + use<> {
    let mut client = StoreClient::new(scene.channel.clone());
    let request = LabelNamesRequest {
        start: LIMITS.0,
        end: LIMITS.1,
        matchers: vec![matcher(Type::Eq, "__name__", metric)],
        limit: 3,
        ..LabelNamesRequest::default()
    };
    async move { Ok(client.label_names(request).await?.into_inner().names) }
}

fn values(scene: &Scene, label: &str) -> impl Future<Output = Result<Vec<String>, Status>> + use<> {
    let mut client = StoreClient::new(scene.channel.clone());
    let request = LabelValuesRequest {
        label: label.into(),
        start: LIMITS.0,
        end: LIMITS.1,
        matchers: vec![matcher(Type::Re, "a", "b c")],
        ..LabelValuesRequest::default()
    };
    async move { Ok(client.label_values(request).await?.into_inner().values) }
}

#[tokio::test]
async fn requests_are_written_as_prometheus_reads_them() {
    let fake = fake("3.5.0", |path| match path {
        path if path.starts_with("/api/v1/series") => success(json!([{"a": "b"}])),
        _ => success(json!(["x", "y"])),
    });
    let scene = Scene::before(fake.url().as_str()).await;
    assert_eq!(names(&scene, "up").await.unwrap(), ["cluster", "replica", "x"]);
    assert_eq!(
        asked(&fake),
        "/api/v1/labels?end=1700000300&limit=3&match%5B%5D=%7B__name__%3D%22up%22%7D&start=1700000000.123"
    );
    assert_eq!(values(&scene, "a/b").await.unwrap(), ["x", "y"]);
    assert_eq!(
        asked(&fake),
        "/api/v1/label/U__a_2f_b/values?end=1700000300&match%5B%5D=%7Ba%3D%7E%22b+c%22%7D&start=1700000000.123"
    );
    assert_eq!(values(&scene, "cluster").await.unwrap(), ["eu"]);
    assert_eq!(
        asked(&fake),
        "/api/v1/series?end=1700000300&limit=1&match%5B%5D=%7Ba%3D%7E%22b+c%22%7D&start=1700000000.123"
    );
    let head = fake.last_head().to_lowercase();
    assert!(
        head.starts_with("get /") && head.contains("user-agent: narthex/"),
        "{head}"
    );
}

#[tokio::test]
async fn the_prefix_and_the_query_of_the_address_are_kept() {
    let fake = Fake::start(|path| {
        let path = path.strip_prefix("/pre").expect(path);
        match path.strip_suffix("?x=y") {
            Some(path) => prometheus(path, YAML, "2h", "2h"),
            None => success(json!(["x"])),
        }
    });
    let scene = Scene::before(&format!("{}pre/?x=y", fake.url())).await;
    assert_eq!(names(&scene, "up").await.unwrap(), ["cluster", "replica", "x"]);
    let asked = asked(&fake);
    assert!(
        asked.starts_with("/pre/api/v1/labels?x=y&end=1700000300&limit=3&match%5B%5D="),
        "{asked}"
    );
}

#[tokio::test]
async fn a_request_may_be_long_but_not_too_long() {
    let fake = fake("2.42.0", |_| success(json!(["x"])));
    let scene = Scene::before(fake.url().as_str()).await;
    let long = "x".repeat(64_000);
    assert!(names(&scene, &long).await.is_ok());
    assert!(asked(&fake).contains(&long));
    let error = names(&scene, &long.repeat(2)).await.unwrap_err();
    assert_eq!(error.code(), Code::InvalidArgument);
    assert!(error.message().contains("use fewer or shorter matchers"), "{error}");
}

#[tokio::test]
async fn an_old_prometheus_is_asked_for_series_instead() {
    for version in ["2.23.0", "2.24.0-rc.0", "0"] {
        let fake = fake(version, |path| match path {
            path if path.starts_with("/api/v1/series?") => {
                success(json!([{"z": "2", "__name__": "up"}, {"z": "1", "__name__": "up", "replica": "9"}, {"z": "1"}]))
            }
            path if path.starts_with("/api/v1/labels?") => success(json!(["plain"])),
            _ => text(404, "404 page not found"),
        });
        let scene = Scene::before(fake.url().as_str()).await;
        assert_eq!(names(&scene, "up").await.unwrap(), ["__name__", "cluster", "replica"]);
        assert_eq!(values(&scene, "z").await.unwrap(), ["1", "2"]);
        let all = LabelNamesRequest {
            end: LIMITS.1,
            ..LabelNamesRequest::default()
        };
        let all = StoreClient::new(scene.channel.clone())
            .label_names(all)
            .await
            .unwrap()
            .into_inner();
        assert_eq!(
            all.names,
            ["cluster", "plain", "replica"],
            "without matchers it can be asked"
        );
    }
}

/// What each service says: how many messages, or why not.
pub(super) async fn every_service(scene: &Scene) -> Vec<(&'static str, Result<usize, Status>)> {
    let channel = || scene.channel.clone();
    let exemplars = ExemplarsRequest {
        query: "up".into(),
        ..ExemplarsRequest::default()
    };
    let metadata = MetricMetadataRequest::default();
    let status = TsdbStatisticsRequest::default();
    vec![
        ("names", names(scene, "up").await.map(|names| names.len())),
        ("values", values(scene, "z").await.map(|values| values.len())),
        ("any series", values(scene, "cluster").await.map(|values| values.len())),
        (
            "rules",
            all(RulesClient::new(channel()).rules(RulesRequest::default()).await)
                .await
                .map(|all| all.len()),
        ),
        (
            "targets",
            all(TargetsClient::new(channel()).targets(TargetsRequest::default()).await)
                .await
                .map(|all| all.len()),
        ),
        (
            "metadata",
            all(MetadataClient::new(channel()).metric_metadata(metadata).await)
                .await
                .map(|all| all.len()),
        ),
        (
            "exemplars",
            all(ExemplarsClient::new(channel()).exemplars(exemplars).await)
                .await
                .map(|all| all.len()),
        ),
        (
            "status",
            all(StatusClient::new(channel()).tsdb_statistics(status).await)
                .await
                .map(|all| all.len()),
        ),
    ]
}

#[tokio::test]
async fn an_answer_without_data_is_an_empty_one() {
    for answer in [
        text(204, ""),
        text(200, r#"{"status":"success","data":null}"#),
        text(200, r#"{"status":"success"}"#),
    ] {
        let fake = fake("2.42.0", move |_| answer.clone());
        let scene = Scene::before(fake.url().as_str()).await;
        for (service, found) in every_service(&scene).await {
            match service {
                "targets" | "metadata" => assert_eq!(found.unwrap(), 1, "{service}"),
                "status" => {
                    let error = found.unwrap_err();
                    assert_eq!(error.code(), Code::Unknown);
                    assert_eq!(
                        error.message(),
                        "failed to get tsdb status from prometheus: empty data field in TSDB status response"
                    );
                }
                _ => assert_eq!(found.unwrap(), 0, "{service}"),
            }
        }
    }
}

#[tokio::test]
async fn a_refusal_has_its_code_and_the_words_of_prometheus() {
    let refused = r#"{"status":"error","errorType":"bad_data","error":"these \"words\""}"#;
    for (answer, code, words) in [
        (
            text(400, refused),
            Code::InvalidArgument,
            r#"status 400 (these "words")"#,
        ),
        (
            text(404, "404 page not found"),
            Code::NotFound,
            "status 404 (404 page not found)",
        ),
        (text(422, refused), Code::Internal, r#"status 422 (these "words")"#),
        (text(500, ""), Code::Internal, "status 500"),
        (
            text(503, "Service Unavailable"),
            Code::Unavailable,
            "status 503 (Service Unavailable)",
        ),
        (
            text(200, refused),
            Code::Internal,
            r#"reports an error (these "words")"#,
        ),
        (text(200, "<html>"), Code::Internal, "not JSON"),
        (
            text(200, r#"{"status":"success","data":"x"}"#),
            Code::Internal,
            "not understood",
        ),
        (text(200, r#"{"status":"success","data":[1]"#), Code::Internal, "not"),
        (Answer::Raw(Vec::new()), Code::Internal, "cannot connect"),
        (
            Answer::Raw(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{\"status\":\"success\",\"data\":[".to_vec()),
            Code::Internal,
            "cut short",
        ),
    ] {
        let shown = format!("{answer:?}");
        let fake = fake("2.42.0", move |_| answer.clone());
        let url = format!("http://user:hunter2@{}", fake.address);
        let scene = Scene::before(&url).await;
        for (service, found) in every_service(&scene).await {
            let error = found.expect_err(service);
            assert_eq!(error.code(), code, "{service}, {shown}: {error}");
            assert!(error.message().contains(words), "{service}, {shown}: {error}");
            assert!(
                error
                    .message()
                    .contains(&format!("GET http://{}/api/v1/", fake.address)),
                "{error}"
            );
            assert!(!error.message().contains("hunter2"), "{error}");
        }
    }
}

#[tokio::test]
async fn without_a_prometheus_it_is_unavailable() {
    let fake = fake("2.42.0", |_| Answer::Stall);
    let scene = Scene::before(fake.url().as_str()).await;
    let client = scene.context.client.clone();
    drop(fake);
    wait_until(PATIENCE, "connections are refused", async || {
        (client.alive().await == narthex::prometheus::Alive::Gone).then_some(())
    })
    .await;
    for (service, found) in every_service(&scene).await {
        assert_eq!(found.expect_err(service).code(), Code::Unavailable, "{service}");
    }
}

#[tokio::test]
async fn a_call_that_is_dropped_drops_its_request() {
    let begun = b"HTTP/1.1 200 OK\r\nContent-Length: 99999\r\n\r\n{\"status\":\"success\",\"data\":[".to_vec();
    for answer in [Answer::Stall, Answer::Endless(begun, Duration::from_millis(20))] {
        let fake = fake("2.42.0", move |_| answer.clone());
        let scene = Scene::before(fake.url().as_str()).await;
        let closed = fake.closed();
        let call = tokio::spawn(names(&scene, "up"));
        wait_until(PATIENCE, "the request", async || {
            asked(&fake).starts_with("/api/v1/labels?").then_some(())
        })
        .await;
        call.abort();
        wait_until(PATIENCE, "the connection is closed", async || {
            (fake.closed() > closed).then_some(())
        })
        .await;
    }
}

fn everything() -> SeriesFilter<'static> {
    SeriesFilter {
        matchers: &[],
        start_ms: 0,
        end_ms: 1,
        limit: 0,
    }
}

#[tokio::test]
async fn series_are_label_sets_and_no_more_than_wanted() {
    let fake = fake("2.42.0", |_| {
        text(
            200,
            r#"{"status":"success","data":[{"job":"\u00e9","__name__":"up","void":""},{},{"a":"1","a":"2"}]}"#,
        )
    });
    let scene = Scene::before(fake.url().as_str()).await;
    let client = &scene.context.client;
    let matchers = [Matcher::new(Op::NotEqual, "a.b", "")];
    let filter = SeriesFilter {
        matchers: &matchers,
        limit: 7,
        ..everything()
    };
    let mut sets = Vec::new();
    let all = |set| {
        sets.push(set);
        ControlFlow::Continue(())
    };
    client.each_series(&filter, &soon(), all, &mut |_| true).await.unwrap();
    let bytes: Vec<&[u8]> = sets.iter().map(|set| &set.as_bytes()[..]).collect();
    let want: [&[u8]; 3] = [
        b"\x0a\x0e\x0a\x08__name__\x12\x02up\x0a\x09\x0a\x03job\x12\x02\xc3\xa9",
        b"",
        b"\x0a\x06\x0a\x01a\x12\x012",
    ];
    assert_eq!(bytes, want);
    assert_eq!(
        asked(&fake),
        "/api/v1/series?end=0.001&limit=7&match%5B%5D=%7B%22a.b%22%21%3D%22%22%7D&start=0"
    );
    let mut count = 0;
    let two = |_| {
        count += 1;
        match count {
            2 => ControlFlow::Break(()),
            _ => ControlFlow::Continue(()),
        }
    };
    client.each_series(&filter, &soon(), two, &mut |_| true).await.unwrap();
    assert_eq!(count, 2);
}

#[tokio::test]
async fn an_answer_without_an_end_is_not_held() {
    for begin in ["{\"status\":\"", "{\"data\":null,\"x\":\""] {
        let head = format!("HTTP/1.1 200 OK\r\n\r\n{begin}");
        let fake = fake("2.42.0", move |_| Answer::Endless(head.clone().into(), Duration::ZERO));
        let scene = Scene::before(fake.url().as_str()).await;
        let all = |_| ControlFlow::Continue(());
        let error = scene
            .context
            .client
            .each_series(&everything(), &soon(), all, &mut |_| true)
            .await
            .unwrap_err();
        assert!(matches!(error.kind, ErrorKind::TooLarge { .. }), "{error}");
    }
}

#[tokio::test]
async fn any_series_is_seen_before_the_answer_is_over() {
    let head = b"HTTP/1.1 200 OK\r\n\r\n{\"status\":\"success\",\"data\":[{\"a\":\"b\"},".to_vec();
    let fake = fake("2.42.0", move |_| {
        Answer::Endless(head.clone(), Duration::from_millis(20))
    });
    let scene = Scene::before(fake.url().as_str()).await;
    let ask = soon();
    let client = &scene.context.client;
    assert!(client.any_series(&everything(), &ask, &mut |_| true).await.unwrap());
}
