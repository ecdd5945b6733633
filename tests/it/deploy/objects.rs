//! The objects for Kubernetes: their fields, and that what one names another one is.

use std::{collections::BTreeSet, process::Command};

use fs_err as fs;
use serde_json::{Value, json};

use super::{VERSION, files, objects, root, under};
use crate::rig::{Tools, tools::temp_dir};

/// All objects, with the file of each.
fn all() -> Vec<(String, Value)> {
    let kubernetes = files().into_iter().filter(|name| name.starts_with("kubernetes/"));
    kubernetes
        .flat_map(|name| objects(&name).into_iter().map(move |object| (name.clone(), object)))
        .collect()
}

fn of_kind<'a>(all: &'a [(String, Value)], kind: &'a str) -> impl Iterator<Item = &'a Value> {
    all.iter()
        .map(|(_, object)| object)
        .filter(move |object| object["kind"] == kind)
}

/// What the schemas of Kubernetes and of the operator have against these objects.
fn mistakes(all: &[(String, Value)]) -> Vec<String> {
    let (node, models) = Tools::kubernetes_models();
    let dir = temp_dir("deploy");
    let listed: Vec<Value> = all
        .iter()
        .map(|(name, object)| {
            let mut object = object.clone();
            // These schemas take a claim for an object with a kind of its own; the operator's leave that open.
            if let Some(claim) = object.pointer_mut("/spec/storage/volumeClaimTemplate") {
                claim["apiVersion"] = json!("monitoring.coreos.com/v1");
                claim["kind"] = json!("EmbeddedPersistentVolumeClaim");
            }
            json!({"name": name, "object": object})
        })
        .collect();
    let file = dir.path().join("objects.json");
    fs::write(&file, Value::from(listed).to_string()).unwrap();
    let done = Command::new(node)
        .arg(root().join("tests/it/deploy/check.mjs"))
        .args([models, file])
        .output()
        .unwrap();
    let found: Vec<String> = String::from_utf8_lossy(&done.stdout)
        .lines()
        .map(str::to_owned)
        .collect();
    let stderr = String::from_utf8_lossy(&done.stderr);
    assert_eq!(done.status.success(), found.is_empty(), "{found:#?}\n{stderr}");
    found
}

#[test]
fn kubernetes_and_the_operator_know_every_field() {
    let all = all();
    assert!(all.len() >= 25, "only {}", all.len());
    let found = mistakes(&all);
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn a_field_that_is_misspelled_or_wrong_is_found() {
    let mut all = all();
    let mut spoil = |kind: &str, path: &str, value: Value| {
        let found = all.iter_mut().find_map(|(_, object)| match object["kind"] == kind {
            true => object.pointer_mut(path),
            false => None,
        });
        *found.unwrap_or_else(|| panic!("no {kind} with {path}")) = value;
    };
    spoil(
        "Deployment",
        "/spec/template/spec/containers/0/readinessProbe",
        json!({"httpget": {}}),
    );
    spoil("StatefulSet", "/spec/replicas", json!("two"));
    spoil("Service", "/spec/ports/0", json!({"name": "http"}));
    spoil("NetworkPolicy", "/spec/policyTypes", json!(["In"]));
    spoil(
        "Prometheus",
        "/spec/thanos/objectStorageConfig",
        json!({"existingSecret": {"name": "a", "key": "b"}}),
    );
    spoil("Prometheus", "/spec/retention", json!("3 days"));
    let found = mistakes(&all).join("\n");
    for part in [
        "httpget",
        "replicas",
        "port",
        "policyTypes",
        "existingSecret",
        "retention",
    ] {
        assert!(found.contains(part), "{part} was not found:\n{found}");
    }
}

/// Names of ports, of claims, of accounts: what is named must be there.
#[test]
fn what_an_object_names_is_in_the_same_file() {
    for file in files().iter().filter(|name| name.starts_with("kubernetes/")) {
        let all: Vec<_> = objects(file).into_iter().map(|object| (file.clone(), object)).collect();
        let workloads: Vec<&Value> = ["Deployment", "StatefulSet"]
            .iter()
            .flat_map(|kind| of_kind(&all, kind))
            .collect();
        for workload in &workloads {
            let labels = &workload["spec"]["template"]["metadata"]["labels"];
            assert_eq!(&workload["spec"]["selector"]["matchLabels"], labels, "{file}");
            mounts_are_volumes(file, workload);
            let account = &workload["spec"]["template"]["spec"]["serviceAccountName"];
            let found = of_kind(&all, "ServiceAccount").any(|object| &object["metadata"]["name"] == account);
            assert!(account.is_null() || found, "{file}: no account {account}");
        }
        for service in of_kind(&all, "Service") {
            let selector = &service["spec"]["selector"];
            let chosen = |workload: &&&Value| &workload["spec"]["template"]["metadata"]["labels"] == selector;
            // The pods of the operator and of charts are in no file.
            let Some(workload) = workloads.iter().find(chosen) else {
                let theirs = selector.get("operator.prometheus.io/name").is_some()
                    || selector.get("statefulset.kubernetes.io/pod-name").is_some();
                assert!(theirs, "{file}: nobody has the labels {selector}");
                continue;
            };
            let mut ports = Vec::new();
            under(workload, "ports", &mut ports);
            let names: BTreeSet<&str> = ports
                .iter()
                .flat_map(|ports| ports.as_array().unwrap())
                .filter_map(|port| port["name"].as_str())
                .collect();
            for port in service["spec"]["ports"].as_array().unwrap() {
                let target = port["targetPort"].as_str().unwrap();
                assert!(names.contains(target), "{file}: no port {target} in {names:?}");
            }
        }
        for set in of_kind(&all, "StatefulSet") {
            let name = &set["spec"]["serviceName"];
            let found = of_kind(&all, "Service").any(|service| &service["metadata"]["name"] == name);
            assert!(found, "{file}: no service {name}");
        }
    }
}

/// Each mount is a volume or a claim, and each ConfigMap that is mounted is there, or made as the file's first lines say.
fn mounts_are_volumes(file: &str, workload: &Value) {
    let spec = &workload["spec"];
    let listed = |value: &Value, path: &str| -> BTreeSet<String> {
        let items = value.as_array().into_iter().flatten();
        items
            .map(|item| item.pointer(path).unwrap().as_str().unwrap().to_owned())
            .collect()
    };
    let mut known = listed(&spec["template"]["spec"]["volumes"], "/name");
    known.extend(listed(&spec["volumeClaimTemplates"], "/metadata/name"));
    let mut mounts = Vec::new();
    under(&spec["template"], "volumeMounts", &mut mounts);
    for name in mounts.into_iter().flat_map(|mounts| listed(mounts, "/name")) {
        assert!(known.contains(&name), "{file}: there is no volume {name}");
    }
    let text = super::read(file);
    let objects = objects(file);
    for volume in spec["template"]["spec"]["volumes"].as_array().into_iter().flatten() {
        let (kind, name) = match (&volume["configMap"]["name"], &volume["secret"]["secretName"]) {
            (Value::String(name), _) => ("configmap", name),
            (_, Value::String(name)) => ("secret generic", name),
            _ => continue,
        };
        let here = objects.iter().any(|object| object["metadata"]["name"] == **name);
        assert!(
            here || text.contains(&format!("create {kind} {name} ")),
            "{file}: no {kind} {name}"
        );
    }
}

#[test]
fn query_looks_up_services_that_exist_and_takes_replicas_for_one() {
    let all = all();
    let query = of_kind(&all, "Deployment")
        .find(|object| object["metadata"]["name"] == "thanos-query")
        .unwrap();
    let args: Vec<&str> = query["spec"]["template"]["spec"]["containers"][0]["args"]
        .as_array()
        .unwrap()
        .iter()
        .map(|arg| arg.as_str().unwrap())
        .collect();
    let mut services: BTreeSet<String> = of_kind(&all, "Service")
        .flat_map(|service| {
            let metadata = &service["metadata"];
            let (name, space) = (
                metadata["name"].as_str().unwrap(),
                metadata["namespace"].as_str().unwrap(),
            );
            let ports = service["spec"]["ports"].as_array().unwrap().iter();
            let port = |port: &Value| format!("_{}._tcp.{name}.{space}.svc", port["name"].as_str().unwrap());
            ports.map(port).collect::<Vec<_>>()
        })
        .collect();
    // The operator makes this one for all its Prometheus objects of a namespace, with a port `grpc`.
    services.insert("_grpc._tcp.prometheus-operated.monitoring.svc".to_owned());
    let text = super::read("kubernetes/observing-cluster.yaml");
    let names = text
        .split(|char: char| char.is_whitespace() || char == '+')
        .map(|word| word.trim_end_matches('.'));
    let own: Vec<&str> = names
        .filter(|word| word.starts_with("_grpc._tcp.") && word.ends_with(".svc"))
        .collect();
    assert!(own.len() >= 3, "{own:?}");
    for name in own {
        assert!(services.contains(name), "no service for {name} in {services:?}");
    }
    let mut replicas = BTreeSet::from(["prometheus_replica"]);
    for prometheus in of_kind(&all, "Prometheus") {
        replicas.extend(prometheus["spec"]["replicaExternalLabelName"].as_str());
    }
    for label in replicas {
        assert!(
            args.contains(&format!("--query.replica-label={label}").as_str()),
            "{label}: {args:?}"
        );
    }
}

#[test]
fn each_prometheus_has_labels_two_replicas_and_a_disk_of_the_class_that_is_there() {
    let all = all();
    let class = of_kind(&all, "StorageClass").next().unwrap()["metadata"]["name"].clone();
    let mut seen = 0;
    for (file, object) in &all {
        let claims = match (
            object["kind"].as_str().unwrap(),
            object["metadata"]["name"].as_str().unwrap(),
        ) {
            ("Prometheus", _) => &object["spec"]["storage"]["volumeClaimTemplate"],
            ("StatefulSet", "prometheus") => &object["spec"]["volumeClaimTemplates"][0],
            _ => continue,
        };
        seen += 1;
        assert_eq!(claims["spec"]["storageClassName"], class, "{file}");
        // kube-prometheus has two by itself.
        let replicas = object["spec"].get("replicas").unwrap_or(&Value::Null);
        assert!(
            *replicas == json!(2) || file.ends_with(".patch.yaml"),
            "{file}: {replicas}"
        );
        let labelled =
            object["spec"]["externalLabels"]["cluster"].is_string() || super::read(file).contains("cluster: eu-1");
        assert!(labelled, "{file}");
        let text = super::read(file);
        assert!(
            text.contains(&format!("narthex:{VERSION}")) || text.contains(&format!("tag: {VERSION}")),
            "{file}"
        );
    }
    assert_eq!(seen, 5);
}
