//! The whole picture on a laptop: services, volumes and files that are named are there, and Prometheus takes its configuration.

use std::collections::BTreeSet;

use fs_err as fs;
use narthex::objstore;
use serde_json::Value;

use super::{deploy, document, read};
use crate::rig::{Tools, tools::temp_dir};

fn services() -> serde_json::Map<String, Value> {
    document("compose/compose.yaml")["services"]
        .as_object()
        .unwrap()
        .clone()
}

fn listed(value: &Value) -> Vec<String> {
    let items = value.as_array().into_iter().flatten();
    items.map(|item| item.as_str().unwrap().to_owned()).collect()
}

#[test]
fn what_a_service_names_is_there() {
    let compose = document("compose/compose.yaml");
    let volumes: BTreeSet<&String> = compose["volumes"].as_object().unwrap().keys().collect();
    let services = services();
    let (mut mounted, mut used) = (BTreeSet::new(), BTreeSet::new());
    for (name, service) in &services {
        for other in listed(&service["depends_on"]) {
            assert!(services.contains_key(&other), "{name} depends on {other}");
        }
        for mount in listed(&service["volumes"]) {
            let source = mount.split(':').next().unwrap().to_owned();
            if source.starts_with('.') {
                assert!(deploy("compose").join(&source).is_file(), "{name}: no file {source}");
                mounted.insert(source.trim_start_matches("./").to_owned());
            } else {
                assert!(volumes.contains(&source), "{name}: no volume {source}");
                used.insert(source);
            }
        }
    }
    assert_eq!(used.iter().collect::<BTreeSet<_>>(), volumes);
    for file in fs::read_dir(deploy("compose")).unwrap() {
        let file = file.unwrap().file_name().into_string().unwrap();
        assert!(
            file == "compose.yaml" || mounted.contains(&file),
            "nobody mounts {file}"
        );
    }
}

#[test]
fn hosts_that_are_named_are_services() {
    let services = services();
    let mut texts: Vec<String> = services
        .values()
        .flat_map(|service| listed(&service["command"]))
        .collect();
    texts.extend(
        ["prometheus-a.yml", "grafana-datasource.yaml", "bucket.yaml"].map(|name| read(&format!("compose/{name}"))),
    );
    let mut seen = BTreeSet::new();
    for text in &texts {
        for word in text.split(|char: char| !(char.is_ascii_alphanumeric() || "-:.".contains(char))) {
            let Some((host, port)) = word.trim_start_matches('-').split_once(':') else {
                continue;
            };
            if port.parse::<u16>().is_ok() && host != "0.0.0.0" {
                assert!(services.contains_key(host), "{word}: no service {host}");
                seen.insert(host.to_owned());
            }
        }
    }
    let expected = [
        "narthex-a",
        "narthex-b",
        "prometheus-a",
        "prometheus-b",
        "query",
        "s3",
        "store",
    ];
    assert_eq!(seen.iter().map(String::as_str).collect::<Vec<_>>(), expected);
}

#[test]
fn the_bucket_is_the_one_that_is_made_and_its_keys_are_those_of_the_server() {
    let text = read("compose/bucket.yaml");
    let config = objstore::config::parse(&text).unwrap();
    assert!(config.warnings.is_empty(), "{:?}", config.warnings);
    let bucket = document("compose/bucket.yaml");
    let made = listed(&services()["bucket"]["command"]).remove(0);
    let name = bucket["config"]["bucket"].as_str().unwrap();
    assert!(made.contains(&format!("-name {name};")), "{made}");
    let server: Value = serde_json::from_str(&read("compose/s3.json")).unwrap();
    let keys = &server["identities"][0]["credentials"][0];
    assert_eq!(
        (&keys["accessKey"], &keys["secretKey"]),
        (&bucket["config"]["access_key"], &bucket["config"]["secret_key"])
    );
}

#[test]
fn prometheus_takes_its_configuration_and_the_replicas_differ_in_one_label() {
    let dir = temp_dir("compose");
    let leg = Tools::newest();
    fs::copy(deploy("alerts.yaml"), dir.path().join("alerts.yaml")).unwrap();
    let mut labels = Vec::new();
    for name in ["prometheus-a.yml", "prometheus-b.yml"] {
        let path = dir.path().join(name);
        fs::copy(deploy("compose").join(name), &path).unwrap();
        leg.assert_configuration(&path, name);
        labels.push(document(&format!("compose/{name}"))["global"]["external_labels"].clone());
    }
    assert_eq!(labels[0]["cluster"], labels[1]["cluster"]);
    assert_ne!(labels[0]["replica"], labels[1]["replica"]);
    let query = listed(&services()["query"]["command"]);
    assert!(query.contains(&"--query.replica-label=replica".to_owned()), "{query:?}");
}
