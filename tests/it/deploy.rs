//! What stands below `deploy/` can be used as it is written: Kubernetes and the operator take the objects, what they name is
//! there, and the arguments of each way to run narthex start one that ships.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics, also in its helpers")]

mod arguments;
mod compose;
mod objects;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use fs_err as fs;
use serde_json::{Value, json};

/// The version that the files name the image by.
const VERSION: &str = env!("CARGO_PKG_VERSION");

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn deploy(name: &str) -> PathBuf {
    root().join("deploy").join(name)
}

fn read(name: &str) -> String {
    fs::read_to_string(deploy(name)).unwrap()
}

/// The YAML files below `deploy/`, by their paths from there.
fn files() -> Vec<String> {
    let (mut found, mut dirs) = (Vec::new(), vec![deploy("")]);
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(deploy("")).unwrap().display().to_string();
            if path.is_dir() {
                dirs.push(path);
            } else if name.ends_with(".yaml") || name.ends_with(".yml") {
                found.push(name);
            }
        }
    }
    found.sort();
    found
}

/// The documents of a file, none of which is empty.
fn documents(name: &str) -> Vec<Value> {
    let text = read(name);
    let parse = |document: &str| {
        let value: Value = serde_saphyr::from_str(document).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert!(value.is_object(), "{name}: a document is no mapping");
        value
    };
    text.split("\n---\n").map(parse).collect()
}

/// The only document of a file.
fn document(name: &str) -> Value {
    let mut all = documents(name);
    assert_eq!(all.len(), 1, "{name}");
    all.remove(0)
}

/// The objects for Kubernetes of a file: those that are written down, or what the chart or the patch makes of it.
fn objects(name: &str) -> Vec<Value> {
    let mut all = documents(name);
    if name == "kubernetes/kube-prometheus.patch.yaml" {
        all = vec![prometheus("k8s", all[0]["spec"].clone())];
    } else if name == "kubernetes/kube-prometheus-stack.values.yaml" {
        all = vec![prometheus("kps", of_the_stack(&all[0]["prometheus"]["prometheusSpec"]))];
    } else if name == "kubernetes/bitnami-kube-prometheus.values.yaml" {
        let extra = all[0]["extraDeploy"].as_array().unwrap().clone();
        all = vec![prometheus("kp", of_bitnami(&all[0]["prometheus"]))];
        all.extend(extra);
    }
    all.retain(|document| document.get("kind").is_some());
    all
}

fn prometheus(name: &str, spec: Value) -> Value {
    json!({"apiVersion": "monitoring.coreos.com/v1", "kind": "Prometheus", "metadata": {"name": name}, "spec": spec})
}

/// What the chart kube-prometheus-stack 88.5 makes of its `prometheusSpec`: it passes on what is used here as it is, and
/// names two fields differently.
fn of_the_stack(spec: &Value) -> Value {
    let mut spec = spec.clone();
    spec["storage"] = spec["storageSpec"].take();
    spec.as_object_mut().unwrap().remove("storageSpec");
    let storage = spec["thanos"]["objectStorageConfig"]["existingSecret"].take();
    spec["thanos"]["objectStorageConfig"] = storage;
    spec
}

/// What the chart kube-prometheus 11.3 of Bitnami makes of `prometheus`, as far as it matters here. The container of the
/// sidecar is the chart's own.
fn of_bitnami(values: &Value) -> Value {
    let (thanos, image) = (&values["thanos"], &values["thanos"]["image"]);
    assert_eq!(
        (&thanos["create"], &values["persistence"]["enabled"]),
        (&json!(true), &json!(true))
    );
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let image = [&image["registry"], &image["repository"], &image["tag"]].map(text);
    json!({
        "replicas": values["replicaCount"],
        "externalLabels": values["externalLabels"],
        "disableCompaction": values["disableCompaction"],
        "retention": values["retention"],
        "resources": values["resources"],
        "storage": {"volumeClaimTemplate": {"spec": {
            "accessModes": ["ReadWriteOnce"],
            "storageClassName": values["persistence"]["storageClass"],
            "resources": {"requests": {"storage": values["persistence"]["size"]}},
        }}},
        "containers": [{
            "name": "thanos-sidecar",
            "image": format!("{}/{}:{}", image[0], image[1], image[2]),
            "args": arguments::of_bitnami(thanos),
            "env": [{"name": "OBJSTORE_CONFIG", "valueFrom": {"secretKeyRef": {
                "name": thanos["objectStorageConfig"]["secretName"],
                "key": thanos["objectStorageConfig"]["secretKey"],
            }}}],
            "resources": thanos["resources"],
            "ports": [{"name": "grpc", "containerPort": 10901}, {"name": "http", "containerPort": 10902}],
        }],
    })
}

/// Every value under `key`, wherever it is.
fn under<'a>(value: &'a Value, key: &str, found: &mut Vec<&'a Value>) {
    match value {
        Value::Array(list) => list.iter().for_each(|value| under(value, key, found)),
        Value::Object(map) => {
            found.extend(map.get(key));
            map.values().for_each(|value| under(value, key, found));
        }
        _ => {}
    }
}

/// All images that are named, without their tags, and by which tags.
fn images() -> BTreeMap<String, BTreeSet<String>> {
    let mut tags: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for name in files() {
        let mut all = documents(&name);
        all.extend(objects(&name));
        for value in &all {
            let mut found = Vec::new();
            under(value, "image", &mut found);
            for image in found.into_iter().filter_map(Value::as_str) {
                let (image, tag) = image
                    .rsplit_once(':')
                    .unwrap_or_else(|| panic!("{name}: {image} has no tag"));
                let short = image.rsplit('/').next().unwrap().to_owned();
                tags.entry(short).or_default().insert(tag.to_owned());
            }
        }
    }
    tags
}

#[test]
fn each_image_has_one_version_in_all_files() {
    let images = images();
    let names: Vec<&str> = images.keys().map(String::as_str).collect();
    assert_eq!(names, ["grafana", "narthex", "prometheus", "seaweedfs", "thanos"]);
    for (image, tags) in &images {
        assert!(tags.len() == 1 && !tags.contains("latest"), "{image}: {tags:?}");
    }
    assert!(images["narthex"].contains(VERSION), "{:?}", images["narthex"]);
    // What the operator chooses flags by is the version of the image, or of the Thanos that narthex stands for.
    for name in files() {
        for object in objects(&name).iter().filter(|object| object["kind"] == "Prometheus") {
            for (version, image) in [("/spec/version", "prometheus"), ("/spec/thanos/version", "thanos")] {
                let version = object.pointer(version).and_then(Value::as_str);
                assert!(
                    version.is_none_or(|version| images[image].contains(version)),
                    "{name}: {version:?}"
                );
            }
        }
    }
}

#[test]
fn each_file_is_of_a_known_kind() {
    let known = |name: &str| {
        name.starts_with("kubernetes/") && !objects(name).is_empty()
            || name.starts_with("compose/") && documents(name).len() == 1
            || ["alerts.yaml", "alerts.test.yaml"].contains(&name)
    };
    let files = files();
    let unknown: Vec<_> = files.iter().filter(|name| !known(name)).collect();
    assert!(files.len() >= 15 && unknown.is_empty(), "{unknown:?} of {files:?}");
}
