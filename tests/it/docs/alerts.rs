//! `deploy/alerts.yaml`: the rules are good, fire when they should, and lead to what there is to do.

use std::{collections::BTreeSet, process::Command, thread};

use fs_err as fs;
use serde_json::Value;

use super::{anchors, pages, root};
use crate::rig::{Tools, tools::temp_dir};

/// Where the pages are, for those who have them nowhere else.
const PAGE: &str = "https://git.example.com/narthex/blob/main/docs/operations.md#";

fn rules() -> Vec<Value> {
    let text = fs::read_to_string(root().join("deploy/alerts.yaml")).unwrap();
    let file: Value = serde_saphyr::from_str(&text).unwrap();
    let groups = file["groups"].as_array().unwrap();
    groups
        .iter()
        .flat_map(|group| group["rules"].as_array().unwrap().clone())
        .collect()
}

/// Where a group of tests begins.
const GROUP: &str = "\n  - name: ";

/// Panics if promtool finds something wrong.
fn promtool(words: &[&str]) {
    let leg = Tools::newest();
    let mut command = Command::new(&leg.promtool);
    let done = command.args(words).current_dir(root()).output().unwrap();
    let said = String::from_utf8_lossy(&done.stdout) + String::from_utf8_lossy(&done.stderr);
    let words = words.join(" ");
    assert!(done.status.success(), "promtool {} {words}: {said}", leg.version);
}

#[test]
fn they_are_good_rules_and_fire_when_they_should() {
    promtool(&["check", "rules", "deploy/alerts.yaml"]);
    let tests = fs::read_to_string(root().join("deploy/alerts.test.yaml")).unwrap();
    // One group takes promtool a second of the processor, and all in one file would wait for each other.
    let mut parts = tests.split(GROUP);
    let path = root().join("deploy/alerts.yaml").display().to_string();
    let head = parts.next().unwrap().replace("- alerts.yaml", &format!("- {path}"));
    assert!(head.contains(&path), "{head}");
    let dir = temp_dir("alerts");
    let files = parts.enumerate().map(|(at, group)| {
        let path = dir.path().join(format!("{at}.yaml"));
        fs::write(&path, format!("{head}{GROUP}{group}")).unwrap();
        path.display().to_string()
    });
    let files: Vec<String> = files.collect();
    assert!(files.len() > 10, "{files:?}");
    thread::scope(|scope| {
        for path in &files {
            scope.spawn(move || promtool(&["test", "rules", path]));
        }
    });
}

#[test]
fn a_test_lets_each_fire() {
    let tests = fs::read_to_string(root().join("deploy/alerts.test.yaml")).unwrap();
    let names = rules()
        .into_iter()
        .map(|rule| rule["alert"].as_str().unwrap().to_owned());
    let untested: Vec<String> = names
        .filter(|name| !tests.contains(&format!("alertname=\"{name}\"")))
        .collect();
    assert!(untested.is_empty(), "alerts that no test lets fire: {untested:?}");
}

#[test]
fn each_leads_to_its_section_and_each_section_has_its_alert() {
    let page = &pages()["docs/operations.md"];
    let (anchors, mut named) = (anchors(page), BTreeSet::new());
    for rule in rules() {
        let name = rule["alert"].as_str().unwrap();
        let url = rule["annotations"]["runbook_url"].as_str().unwrap_or_default();
        let anchor = url
            .strip_prefix(PAGE)
            .unwrap_or_else(|| panic!("{name} leads to {url:?}"));
        assert_eq!(anchor, name.to_ascii_lowercase());
        assert!(anchors.contains(anchor), "there is no section for {name}");
        named.insert(name.to_owned());
    }
    let alerts = page.split("\n## Alerts\n").nth(1).unwrap();
    let sections: BTreeSet<String> = alerts
        .lines()
        .filter_map(|line| line.strip_prefix("### ").map(str::to_owned))
        .collect();
    assert_eq!(sections, named);
}
