//! LabelNames and LabelValues against what Prometheus itself says, with labels that are stored under the names of external
//! ones.

use std::collections::BTreeSet;

use narthex::{
    model::duration::TimeOrDuration,
    pb::thanos::{LabelMatcher, LabelNamesRequest, LabelValuesRequest, label_matcher::Type, store_client::StoreClient},
    storeapi::min_time::MinTime,
};
use serde_json::Value;
use tonic::{Code, Status};

use super::stage::{Scene, Stage, stages};

pub(super) fn matcher(op: Type, name: &str, value: &str) -> LabelMatcher {
    LabelMatcher {
        r#type: op.into(),
        name: name.into(),
        value: value.into(),
    }
}

fn named(metric: &str) -> LabelMatcher {
    matcher(Type::Eq, "__name__", metric)
}

/// A request for all time, as a client writes it that knows no bounds.
fn names() -> LabelNamesRequest {
    LabelNamesRequest {
        start: i64::MIN,
        end: i64::MAX,
        ..LabelNamesRequest::default()
    }
}

fn values(label: &str) -> LabelValuesRequest {
    LabelValuesRequest {
        label: label.into(),
        start: i64::MIN,
        end: i64::MAX,
        ..LabelValuesRequest::default()
    }
}

impl Scene {
    async fn names(&self, request: LabelNamesRequest) -> Result<Vec<String>, Status> {
        let answer = StoreClient::new(self.channel.clone())
            .label_names(request)
            .await?
            .into_inner();
        assert!(answer.warnings.is_empty() && answer.hints.is_none(), "{answer:?}");
        Ok(answer.names)
    }

    async fn names_with(&self, matchers: &[LabelMatcher]) -> Result<Vec<String>, Status> {
        let matchers = matchers.to_vec();
        self.names(LabelNamesRequest { matchers, ..names() }).await
    }

    async fn values(&self, request: LabelValuesRequest) -> Result<Vec<String>, Status> {
        let answer = StoreClient::new(self.channel.clone())
            .label_values(request)
            .await?
            .into_inner();
        assert!(answer.warnings.is_empty() && answer.hints.is_none(), "{answer:?}");
        Ok(answer.values)
    }

    async fn values_with(&self, label: &str, matchers: &[LabelMatcher]) -> Result<Vec<String>, Status> {
        let matchers = matchers.to_vec();
        self.values(LabelValuesRequest {
            matchers,
            ..values(label)
        })
        .await
    }
}

/// A list of texts that Prometheus gives, as a set.
async fn theirs(stage: &Stage, path: &str) -> BTreeSet<String> {
    let Value::Array(texts) = stage.data(path).await else {
        panic!("{path} gives no list");
    };
    texts
        .into_iter()
        .map(|text| text.as_str().unwrap().to_owned())
        .collect()
}

fn sorted(texts: BTreeSet<String>) -> Vec<String> {
    texts.into_iter().collect()
}

#[tokio::test]
async fn names_are_those_of_prometheus_and_of_the_external_labels() {
    for stage in stages().await {
        let scene = stage.scene().await;
        let stored = theirs(stage, "/api/v1/labels").await;
        for name in ["cluster", "replica", "zone", "le", "text"] {
            assert!(stored.contains(name), "the rig stores {name}");
        }
        assert_eq!(stored.contains("a/b"), stage.is_3());
        assert_eq!(scene.names(names()).await.unwrap(), sorted(stored.clone()));

        let plain = scene.names_with(&[named("rig_plain")]).await.unwrap();
        assert_eq!(plain, ["__name__", "cluster", "instance", "job", "replica", "zone"]);
        let reached = [
            matcher(Type::Re, "cluster", "r.g"),
            matcher(Type::Neq, "replica", "1"),
            named("rig_plain"),
        ];
        assert_eq!(scene.names_with(&reached).await.unwrap(), plain);
        // One that would be true of what is stored.
        let contradicted = [matcher(Type::Eq, "cluster", "stored"), named("rig_stored")];
        assert!(scene.names_with(&contradicted).await.unwrap().is_empty());
        assert!(scene.names_with(&[named("nothing")]).await.unwrap().is_empty());

        let without_replica_labels = vec!["replica".to_owned(), "zone".to_owned()];
        let request = LabelNamesRequest {
            without_replica_labels,
            ..names()
        };
        let mut fewer = stored.clone();
        fewer.retain(|name| name != "replica" && name != "zone");
        assert_eq!(scene.names(request.clone()).await.unwrap(), sorted(fewer.clone()));
        for limit in 1..=stored.len() + 2 {
            let request = LabelNamesRequest {
                limit: limit as i64,
                ..request.clone()
            };
            let found = scene.names(request).await.unwrap();
            assert_eq!(
                found.len(),
                limit.min(fewer.len()),
                "{limit} on {} {stored:?}: {found:?}",
                stage.prometheus.version()
            );
            assert!(
                found.is_sorted() && found.iter().all(|name| fewer.contains(name)),
                "{found:?}"
            );
        }
    }
}

#[tokio::test]
async fn values_are_those_of_prometheus_unless_an_external_label_covers_them() {
    for stage in stages().await {
        let scene = stage.scene().await;
        for label in ["zone", "le", "job", "__name__", "text", "nothing"] {
            let stored = theirs(stage, &format!("/api/v1/label/{label}/values")).await;
            assert_eq!(
                scene.values(values(label)).await.unwrap(),
                sorted(stored.clone()),
                "{label}"
            );
            let limited = LabelValuesRequest {
                limit: 2,
                ..values(label)
            };
            let limited = scene.values(limited).await.unwrap();
            assert_eq!(limited.len(), stored.len().min(2), "{label}: {limited:?}");
        }
        assert_eq!(scene.values_with("zone", &[named("rig_stored")]).await.unwrap(), ["z3"]);
        assert!(theirs(stage, "/api/v1/label/cluster/values").await.contains("stored"));
        assert_eq!(scene.values(values("cluster")).await.unwrap(), ["rig"]);
        assert_eq!(
            scene.values_with("cluster", &[named("rig_stored")]).await.unwrap(),
            ["rig"]
        );
        assert!(
            scene
                .values_with("cluster", &[named("nothing")])
                .await
                .unwrap()
                .is_empty()
        );
        let own = [matcher(Type::Eq, "cluster", "rig")];
        assert_eq!(scene.values_with("cluster", &own).await.unwrap(), ["rig"]);
        assert_eq!(scene.values_with("zone", &own).await.unwrap(), ["z1", "z2", "z3"]);
        let other = [matcher(Type::Eq, "cluster", "stored")];
        assert!(scene.values_with("cluster", &other).await.unwrap().is_empty());
        assert!(scene.values_with("zone", &other).await.unwrap().is_empty());
        // Without a request to Prometheus, so that no time range counts.
        let long_ago = LabelValuesRequest {
            start: 0,
            end: 1,
            ..values("cluster")
        };
        assert_eq!(scene.values(long_ago).await.unwrap(), ["rig"]);
        let left_out = LabelValuesRequest {
            without_replica_labels: vec!["zone".to_owned()],
            ..values("zone")
        };
        assert!(scene.values(left_out).await.unwrap().is_empty());
    }
}

#[tokio::test]
async fn any_text_can_be_a_value_and_in_prometheus_3_a_name() {
    for stage in stages().await {
        let scene = stage.scene().await;
        let odd = matcher(Type::Eq, "text", "a\"b\\c\nd é \u{fffd}");
        assert_eq!(scene.values_with("__name__", &[odd]).await.unwrap(), ["rig_odd"]);
        let names = [("a/b", "slash"), ("dotted.name", "dot")];
        for (name, value) in names {
            let found = scene.values(values(name)).await;
            if stage.is_3() {
                assert_eq!(found.unwrap(), [value]);
                let by_name = [matcher(Type::Re, name, "...+"), named("rig.utf8")];
                assert_eq!(scene.values_with(name, &by_name).await.unwrap(), [value]);
                assert!(scene.names_with(&by_name).await.unwrap().contains(&name.to_owned()));
            } else {
                // It cannot have such a label, and most versions cannot even read the name.
                let empty = found.map_or_else(|error| error.code() == Code::InvalidArgument, |found| found.is_empty());
                assert!(empty, "{name}");
            }
        }
    }
}

#[tokio::test]
async fn what_is_wrong_with_a_request_is_said() {
    for stage in stages().await {
        let scene = stage.scene().await;
        let empty = [matcher(Type::Re, "zone", ".*")];
        for error in [
            scene.names_with(&empty).await.unwrap_err(),
            scene.values_with("zone", &empty).await.unwrap_err(),
            scene.values_with("cluster", &empty).await.unwrap_err(),
        ] {
            assert_eq!(error.code(), Code::InvalidArgument);
            assert!(
                error
                    .message()
                    .contains("match[] must contain at least one non-empty matcher"),
                "{error}"
            );
        }
        let error = scene.values(values("")).await.unwrap_err();
        assert_eq!(error.code(), Code::InvalidArgument);
        assert_eq!(error.message(), "label name parameter cannot be empty");
        let unknown = LabelMatcher {
            r#type: 7,
            ..matcher(Type::Eq, "a", "b")
        };
        let wrong = [matcher(Type::Eq, "cluster", "other"), unknown];
        for error in [
            scene.names_with(&wrong).await.unwrap_err(),
            scene.values_with("zone", &wrong).await.unwrap_err(),
        ] {
            assert_eq!(error.code(), Code::InvalidArgument);
        }
    }
}

#[tokio::test]
async fn nothing_older_than_the_min_time_is_served() {
    let scene = stages().await[0].scene().await;
    let up_to_now = LabelNamesRequest { end: now(), ..names() };
    let zones = LabelValuesRequest {
        end: now(),
        ..values("zone")
    };
    let hour = |ms| MinTime::Fixed(TimeOrDuration::FromNow(ms));
    let ahead = scene.but(|context| context.min_time = hour(3_600_000)).await;
    assert!(ahead.names(up_to_now.clone()).await.unwrap().is_empty());
    assert!(ahead.values(zones.clone()).await.unwrap().is_empty());
    let ago = scene.but(|context| context.min_time = hour(-3_600_000)).await;
    assert!(!ago.names(up_to_now).await.unwrap().is_empty());
    assert!(!ago.values(zones).await.unwrap().is_empty());
}

fn now() -> i64 {
    let since = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap();
    since.as_millis() as i64
}
