use prost::Message;
use prost_types::Timestamp;

use super::*;

/// As Prometheus answers it, but with odd values.
const GROUP: &str = r#"{
    "name": "g", "file": "/etc/rules.yml", "interval": 15, "limit": 7, "evaluationTime": 0.5,
    "lastEvaluation": "2023-11-14T22:13:20.000000001Z", "newKey": [1],
    "rules": [
        {"type": "Recording", "name": "a:b", "query": "sum(b)", "labels": {"cluster": "other", "x": "y"},
         "health": "ok", "evaluationTime": 0.25, "lastEvaluation": "0001-01-01T00:00:00Z"},
        {"type": "future", "name": "z"},
        {"type": "alerting", "name": "Down", "query": "up == 0", "duration": 60, "keepFiringFor": 30,
         "labels": null, "annotations": {"text": "{{ $value }}", "empty": ""}, "health": "err", "lastError": "no",
         "state": "firing", "evaluationTime": 1, "lastEvaluation": "2023-11-14T22:13:20Z", "alerts": [
            {"labels": {"alertname": "Down", "cluster": "other"}, "annotations": {}, "state": "firing",
             "activeAt": "2023-11-14T22:13:20Z", "keepFiringSince": "2023-11-14T22:13:20Z", "value": "1e+00"},
            {"labels": {"alertname": "Down"}, "annotations": null, "state": "dozing", "value": ""}
         ]},
        {"type": "alerting", "name": "Odd", "state": "", "alerts": null}
    ]
}"#;

fn external() -> Labels {
    Labels::from_pairs([("cluster", "eu")])
}

fn set(pairs: &[(&str, &str)]) -> Option<thanos::ZLabelSet> {
    Some(label_sets::external(&Labels::from_pairs(pairs.iter().copied())))
}

const YEAR_1: Option<Timestamp> = Some(Timestamp {
    seconds: -62_135_596_800,
    nanos: 0,
});

const AT: Option<Timestamp> = Some(Timestamp {
    seconds: 1_700_000_000,
    nanos: 0,
});

fn rules() -> Vec<rule::Result> {
    let group = group(serde_json::from_str(GROUP).unwrap(), &external());
    group.rules.into_iter().map(|rule| rule.result.unwrap()).collect()
}

#[test]
fn a_group_keeps_its_own_and_its_rules_get_external_labels() {
    let found = group(serde_json::from_str(GROUP).unwrap(), &external());
    let want = thanos::RuleGroup {
        name: "g".into(),
        file: "/etc/rules.yml".into(),
        rules: found.rules.clone(),
        interval: 15.0,
        evaluation_duration_seconds: 0.5,
        last_evaluation: Some(Timestamp {
            seconds: 1_700_000_000,
            nanos: 1,
        }),
        partial_response_strategy: 1,
        limit: 7,
    };
    assert_eq!(found, want);
    let recording = RecordingRule {
        name: "a:b".into(),
        query: "sum(b)".into(),
        labels: set(&[("cluster", "eu"), ("x", "y")]),
        health: "ok".into(),
        last_error: String::new(),
        evaluation_duration_seconds: 0.25,
        last_evaluation: YEAR_1,
    };
    assert_eq!(rules()[0], rule::Result::Recording(recording));
}

#[test]
fn an_alert_keeps_its_instances_without_external_labels() {
    let instance = |labels, state, value: &str, active_at| AlertInstance {
        labels: set(labels),
        annotations: set(&[]),
        state,
        active_at,
        value: value.into(),
        partial_response_strategy: 0,
    };
    let alert = thanos::Alert {
        state: 3,
        name: "Down".into(),
        query: "up == 0".into(),
        duration_seconds: 60.0,
        labels: set(&[("cluster", "eu")]),
        annotations: set(&[("empty", ""), ("text", "{{ $value }}")]),
        alerts: vec![
            instance(&[("alertname", "Down"), ("cluster", "other")], 3, "1e+00", AT),
            instance(&[("alertname", "Down")], 0, "", None),
        ],
        health: "err".into(),
        last_error: "no".into(),
        evaluation_duration_seconds: 1.0,
        last_evaluation: AT,
        keep_firing_for_seconds: 30.0,
    };
    assert_eq!(rules()[1], rule::Result::Alert(alert));
}

#[test]
fn what_is_not_known_costs_only_itself() {
    let rules = rules();
    assert_eq!(rules.len(), 3, "the rule of another kind is left out");
    let odd = thanos::Alert {
        name: "Odd".into(),
        labels: set(&[("cluster", "eu")]),
        annotations: set(&[]),
        last_evaluation: YEAR_1,
        ..thanos::Alert::default()
    };
    assert_eq!(rules[2], rule::Result::Alert(odd));
    for (text, want) in [
        ("inactive", AlertState::Inactive),
        ("Pending", AlertState::Pending),
        ("FIRING", AlertState::Firing),
        ("unknown", AlertState::Unknown),
        ("x", AlertState::Unknown),
    ] {
        assert_eq!(state(text), want, "{text}");
    }
}

#[test]
fn an_empty_group_has_the_bytes_of_the_wire() {
    let group = group(
        serde_json::from_str(r#"{"name":"g","file":"f","interval":15,"rules":[]}"#).unwrap(),
        &external(),
    );
    let hex: String = group.encode_to_vec().iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(hex, "0a0167120166210000000000002e40320b088092b8c398feffffff014001");
}
