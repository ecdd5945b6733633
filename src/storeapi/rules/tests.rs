use prost::Message as _;
use prost_types::Timestamp;

use super::*;
use crate::{
    pb::thanos::{self, RulesResponse, rule, rules_response},
    prometheus::api::testing,
    storeapi::{
        budget::Budget,
        respond::testing::{bytes, messages},
    },
};

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

fn groups(json: &str) -> Vec<RuleGroup> {
    let groups = Groups::new(external(), Answer::new(Budget::new(1 << 20).reservation()));
    let groups = testing::rules(&format!(r#"{{"groups": [{json}]}}"#), groups).unwrap();
    let messages: Vec<RulesResponse> = messages(groups.answer);
    let group = |message: RulesResponse| match message.result {
        Some(rules_response::Result::Group(group)) => group,
        other => panic!("no group: {other:?}"),
    };
    messages.into_iter().map(group).collect()
}

fn rules() -> Vec<rule::Result> {
    let group = groups(GROUP).pop().unwrap();
    group.rules.into_iter().map(|rule| rule.result.unwrap()).collect()
}

#[test]
fn a_group_keeps_its_own_and_its_rules_get_external_labels() {
    let found = groups(GROUP).pop().unwrap();
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
fn alerts_carry_the_external_labels_under_their_own() {
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
            instance(&[("alertname", "Down"), ("cluster", "eu")], 0, "", None),
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
    let group = groups(r#"{"name":"g","file":"f","interval":15,"rules":[]}"#)
        .pop()
        .unwrap();
    let hex: String = group.encode_to_vec().iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(hex, "0a0167120166210000000000002e40320b088092b8c398feffffff014001");
}

#[test]
fn what_is_in_a_group_stays_in_it_and_everything_has_the_bytes_of_one_message() {
    let found = groups(&format!(r#"{GROUP}, {{"name": "none"}}, {GROUP}"#));
    let rules: Vec<usize> = found.iter().map(|group| group.rules.len()).collect();
    assert_eq!(rules, [3, 0, 3]);
    assert_eq!(found[0], found[2]);
    let groups = Groups::new(external(), Answer::new(Budget::new(1 << 20).reservation()));
    let groups = testing::rules(&format!(r#"{{"groups": [{GROUP}]}}"#), groups).unwrap();
    let want = RulesResponse {
        result: Some(rules_response::Result::Group(found[0].clone())),
    };
    assert_eq!(bytes(groups.answer)[5..], want.encode_to_vec());
}

#[test]
fn a_list_that_is_hidden_from_the_scanner_is_an_error() {
    for json in [
        r#"{"r\u0075les": [{"type": "alerting"}]}"#,
        r#"{"rules": [{"al\u0065rts": [{}]}]}"#,
    ] {
        let groups = Groups::new(external(), Answer::new(Budget::new(1 << 20).reservation()));
        let error = testing::rules(&format!(r#"{{"groups": [{json}]}}"#), groups).unwrap_err();
        assert!(error.to_string().contains("expected groups of rules"), "{error}");
    }
}
