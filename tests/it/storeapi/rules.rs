//! Rules against what Prometheus itself says.

use narthex::pb::thanos::{
    Alert, AlertInstance, RecordingRule, Rule, RuleGroup, RulesRequest, ZLabelSet, rule, rules_client::RulesClient,
    rules_request::Type, rules_response,
};
use prost_types::Timestamp;
use serde_json::Value;

use super::stage::{EXTERNAL, Scene, all, labels, stages, steady};

async fn ours(scene: &Scene, kind: Type) -> Vec<RuleGroup> {
    let request = RulesRequest {
        r#type: kind.into(),
        ..RulesRequest::default()
    };
    let answer = RulesClient::new(scene.channel.clone()).rules(request).await;
    let messages = all(answer).await.unwrap().into_iter();
    let groups = messages.map(|message| match message.result {
        Some(rules_response::Result::Group(group)) => group,
        other => panic!("no group: {other:?}"),
    });
    groups.collect()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_default()
}

pub(super) fn time(value: &Value) -> Option<Timestamp> {
    let time: std::time::SystemTime = value.as_str()?.parse::<jiff::Timestamp>().unwrap().into();
    Some(time.into())
}

fn state(value: &Value) -> i32 {
    let states = ["unknown", "inactive", "pending", "firing"];
    states.iter().position(|state| value == state).unwrap() as i32
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn group(json: &Value) -> RuleGroup {
    RuleGroup {
        name: text(&json["name"]),
        file: text(&json["file"]),
        rules: list(&json["rules"]).map(rule).collect(),
        interval: number(&json["interval"]),
        evaluation_duration_seconds: number(&json["evaluationTime"]),
        last_evaluation: time(&json["lastEvaluation"]),
        partial_response_strategy: 1,
        limit: json["limit"].as_i64().unwrap_or_default(),
    }
}

fn rule(json: &Value) -> Rule {
    let set = labels(json.get("labels").unwrap_or(&serde_json::json!({})), &EXTERNAL);
    let result = match json["type"].as_str().unwrap() {
        "recording" => rule::Result::Recording(RecordingRule {
            name: text(&json["name"]),
            query: text(&json["query"]),
            labels: set,
            health: text(&json["health"]),
            last_error: text(&json["lastError"]),
            evaluation_duration_seconds: number(&json["evaluationTime"]),
            last_evaluation: time(&json["lastEvaluation"]),
        }),
        _ => rule::Result::Alert(Alert {
            state: state(&json["state"]),
            name: text(&json["name"]),
            query: text(&json["query"]),
            duration_seconds: number(&json["duration"]),
            labels: set,
            annotations: labels(&json["annotations"], &[]),
            alerts: list(&json["alerts"]).map(instance).collect(),
            health: text(&json["health"]),
            last_error: text(&json["lastError"]),
            evaluation_duration_seconds: number(&json["evaluationTime"]),
            last_evaluation: time(&json["lastEvaluation"]),
            keep_firing_for_seconds: number(&json["keepFiringFor"]),
        }),
    };
    Rule { result: Some(result) }
}

/// The labels of an alert with the external ones under them.
fn under(own: &Value) -> Option<ZLabelSet> {
    let mut all = own.clone();
    for (name, value) in EXTERNAL {
        all.as_object_mut().unwrap().entry(name).or_insert(value.into());
    }
    labels(&all, &[])
}

fn instance(json: &Value) -> AlertInstance {
    AlertInstance {
        labels: under(&json["labels"]),
        annotations: labels(&json["annotations"], &[]),
        state: state(&json["state"]),
        active_at: time(&json["activeAt"]),
        value: text(&json["value"]),
        partial_response_strategy: 0,
    }
}

/// Prometheus gives the alerts of a rule in any order.
fn in_order(mut groups: Vec<RuleGroup>) -> Vec<RuleGroup> {
    for rule in groups.iter_mut().flat_map(|group| &mut group.rules) {
        if let Some(rule::Result::Alert(alert)) = &mut rule.result {
            alert.alerts.sort_by_key(|alert| format!("{:?}", alert.labels));
        }
    }
    groups
}

#[tokio::test]
async fn groups_are_those_of_prometheus_with_external_labels_on_their_rules() {
    for stage in stages().await {
        let scene = stage.scene().await;
        for (kind, query) in [
            (Type::All, ""),
            (Type::Alert, "?type=alert"),
            (Type::Record, "?type=record"),
        ] {
            let path = format!("/api/v1/rules{query}");
            let (theirs, ours) = steady(async || stage.data(&path).await, async || ours(&scene, kind).await).await;
            let want = list(&theirs["groups"]).map(group).collect();
            let ours = in_order(ours);
            assert_eq!(ours, in_order(want), "{theirs:#}");
            if kind == Type::All {
                as_it_should_be(&ours);
            }
        }
    }
}

/// That the comparison above is one of something.
fn as_it_should_be(groups: &[RuleGroup]) {
    let names: Vec<_> = groups
        .iter()
        .map(|group| (&*group.name, group.rules.len(), group.limit))
        .collect();
    assert_eq!(names, [("busy", 5, 50), ("idle", 1, 0)]);
    let rules: Vec<_> = groups[0]
        .rules
        .iter()
        .map(|rule| rule.result.as_ref().unwrap())
        .collect();
    let [
        rule::Result::Recording(sum),
        rule::Result::Alert(firing),
        rule::Result::Alert(pending),
        rule::Result::Alert(inactive),
        rule::Result::Recording(broken),
    ] = rules[..]
    else {
        panic!("other rules: {rules:?}");
    };
    let set = sum.labels.as_ref().unwrap().labels.iter();
    let set: Vec<_> = set.map(|label| format!("{}={}", label.name, label.value)).collect();
    assert_eq!(set, ["cluster=rig", "replica=0", "team=a"]);
    assert_eq!([firing.state, pending.state, inactive.state], [3, 2, 1]);
    assert_eq!((firing.alerts.len(), pending.alerts.len()), (2, 1));
    let set = |alert: &AlertInstance| -> Vec<String> {
        let set = alert.labels.as_ref().unwrap().labels.iter();
        set.map(|label| format!("{}={}", label.name, label.value)).collect()
    };
    let all = ["alertname=Pending", "cluster=alerts", "replica=0"];
    assert_eq!(set(&pending.alerts[0]), all, "labels of its own stay");
    assert!(set(&firing.alerts[0]).contains(&"cluster=rig".to_owned()));
    assert!(
        firing.alerts[0]
            .active_at
            .is_some_and(|time| time.seconds > 1_700_000_000)
    );
    assert_eq!(
        (pending.duration_seconds, pending.keep_firing_for_seconds),
        (3600.0, 300.0)
    );
    assert!(broken.health == "err" && !broken.last_error.is_empty(), "{broken:?}");
    let never = groups[1].last_evaluation.unwrap();
    assert_eq!((never.seconds, never.nanos), (-62_135_596_800, 0));
}
