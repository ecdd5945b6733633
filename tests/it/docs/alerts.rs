//! `deploy/alerts.yaml`: the rules are good, and fire when they should.

use std::process::Command;

use fs_err as fs;
use serde_json::Value;

use super::{newest, root};

fn rules() -> Vec<Value> {
    let text = fs::read_to_string(root().join("deploy/alerts.yaml")).unwrap();
    let file: Value = serde_saphyr::from_str(&text).unwrap();
    let groups = file["groups"].as_array().unwrap();
    groups
        .iter()
        .flat_map(|group| group["rules"].as_array().unwrap().clone())
        .collect()
}

#[test]
fn they_are_good_rules_and_fire_when_they_should() {
    let leg = newest();
    for words in [
        ["check", "rules", "deploy/alerts.yaml"],
        ["test", "rules", "deploy/alerts.test.yaml"],
    ] {
        let done = Command::new(&leg.promtool)
            .args(words)
            .current_dir(root())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&done.stdout) + String::from_utf8_lossy(&done.stderr);
        assert!(
            done.status.success(),
            "promtool {} {}: {said}",
            leg.version,
            words.join(" ")
        );
    }
    let tests = fs::read_to_string(root().join("deploy/alerts.test.yaml")).unwrap();
    let names = rules()
        .into_iter()
        .map(|rule| rule["alert"].as_str().unwrap().to_owned());
    let untested: Vec<String> = names
        .filter(|name| !tests.contains(&format!("alertname=\"{name}\"")))
        .collect();
    assert!(untested.is_empty(), "alerts that no test lets fire: {untested:?}");
}
