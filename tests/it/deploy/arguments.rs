//! The arguments of each way to run narthex start one that gets ready and ships.

use std::{collections::BTreeMap, time::Duration};

use fs_err as fs;
use narthex::cli::{self, Command, Outcome, Sidecar as Flags};
use serde_json::Value;

use super::{documents, files, objects, read};
use crate::{
    bad_blocks::stage::{PATIENCE, prometheus, seal, sound},
    rig::{BucketView, Sidecar, http, tools::temp_dir},
};

/// What the operator v0.93 makes of `spec.thanos` with a secret for the bucket, beside a Prometheus of 3.9 or later: recorded
/// from its own function, before `logFormat` and `additionalArgs`.
const OPERATOR: [&str; 9] = [
    "sidecar",
    "--prometheus.url=http://localhost:9090/",
    "--grpc-address=:10901",
    "--http-address=:10902",
    "--objstore.config=$(OBJSTORE_CONFIG)",
    "--tsdb.path=/prometheus",
    "--shipper.meta-file-name=thanos.shipper.json",
    "--shipper.ignore-unequal-block-size",
    "--prometheus.http-client-file=/etc/thanos/config/prometheus.http-client-file.yaml",
];

/// What Bitnami's chart kube-prometheus 11.3.11 gives its container `thanos-sidecar`, as `helm template` shows it, before
/// `extraArgs`.
const BITNAMI: [&str; 6] = [
    "sidecar",
    "--prometheus.url=http://localhost:9090",
    "--grpc-address=0.0.0.0:10901",
    "--http-address=0.0.0.0:10902",
    "--tsdb.path=/prometheus/",
    "--objstore.config=$(OBJSTORE_CONFIG)",
];

/// How long the operator lets a pod take to stop; no chart changes it.
const OPERATOR_STOPS_AFTER: Duration = Duration::from_secs(600);

fn texts(list: &Value) -> Vec<String> {
    let items = list.as_array().into_iter().flatten();
    items.map(|item| item.as_str().unwrap().to_owned()).collect()
}

/// The arguments that the operator gives the sidecar.
fn of_the_operator(thanos: &Value) -> Vec<String> {
    let mut args: Vec<String> = OPERATOR.iter().map(|&arg| arg.to_owned()).collect();
    assert!(thanos["objectStorageConfig"]["name"].is_string(), "{thanos}");
    if let Some(format) = thanos["logFormat"].as_str() {
        args.push(format!("--log.format={format}"));
    }
    for arg in thanos["additionalArgs"].as_array().into_iter().flatten() {
        args.push(format!(
            "--{}={}",
            arg["name"].as_str().unwrap(),
            arg["value"].as_str().unwrap()
        ));
    }
    args
}

/// The arguments that Bitnami's chart gives the sidecar.
pub(super) fn of_bitnami(thanos: &Value) -> Vec<String> {
    let mut args: Vec<String> = BITNAMI.iter().map(|&arg| arg.to_owned()).collect();
    args.extend(texts(&thanos["extraArgs"]));
    args
}

/// One way to run narthex.
struct Way {
    args: Vec<String>,
    /// What a pod, container or unit has until it is killed.
    stops_after: Duration,
}

/// Every narthex that the files start, by file and container.
fn ways() -> BTreeMap<String, Way> {
    let mut ways = BTreeMap::new();
    for name in files().iter().filter(|name| name.starts_with("kubernetes/")) {
        for object in objects(name) {
            if let Some(thanos) = object.pointer("/spec/thanos") {
                let args = of_the_operator(thanos);
                ways.insert(
                    name.clone(),
                    Way {
                        args,
                        stops_after: OPERATOR_STOPS_AFTER,
                    },
                );
            }
            let pod = object.pointer("/spec/template/spec").unwrap_or(&object["spec"]);
            for container in pod["containers"].as_array().into_iter().flatten() {
                if container["image"]
                    .as_str()
                    .is_some_and(|image| image.contains("/narthex:"))
                {
                    let own = pod["terminationGracePeriodSeconds"].as_u64().map(Duration::from_secs);
                    let stops_after = own.unwrap_or(OPERATOR_STOPS_AFTER);
                    ways.insert(
                        name.clone(),
                        Way {
                            args: texts(&container["args"]),
                            stops_after,
                        },
                    );
                }
            }
        }
    }
    let compose = documents("compose/compose.yaml").remove(0);
    for (service, value) in compose["services"].as_object().unwrap() {
        if value["image"].as_str().unwrap().starts_with("narthex:") {
            let minutes = value["stop_grace_period"].as_str().unwrap().strip_suffix('m').unwrap();
            let way = Way {
                args: texts(&value["command"]),
                stops_after: Duration::from_secs(60 * minutes.parse::<u64>().unwrap()),
            };
            ways.insert(format!("compose {service}"), way);
        }
    }
    let unit = read("systemd/narthex.service").replace("\\\n", " ");
    let value = |key: &str| unit.lines().find_map(|line| line.strip_prefix(key)).unwrap();
    let args = value("ExecStart=/usr/local/bin/narthex ")
        .split_whitespace()
        .map(str::to_owned)
        .collect();
    let minutes: u64 = value("TimeoutStopSec=").strip_suffix("min").unwrap().parse().unwrap();
    ways.insert(
        "systemd".to_owned(),
        Way {
            args,
            stops_after: Duration::from_secs(60 * minutes),
        },
    );
    ways
}

fn flags(args: &[String]) -> Flags {
    match cli::parse(["narthex".to_owned()].iter().chain(args).map(Into::into)) {
        Outcome::Run(Command::Sidecar(flags)) => *flags,
        other => panic!("{args:?}: {other:?}"),
    }
}

#[test]
fn what_is_sealed_at_the_end_is_shipped_before_the_container_is_killed() {
    let ways = ways();
    assert_eq!(ways.len(), 8, "{:?}", ways.keys());
    for (name, way) in &ways {
        let flags = flags(&way.args);
        let latest = flags.shipper.grace_period.max(flags.grpc.grace_period);
        assert!(latest < way.stops_after, "{name}: {latest:?} of {:?}", way.stops_after);
    }
}

#[test]
fn the_unit_of_systemd_lets_it_write_its_ledger() {
    let unit = read("systemd/narthex.service");
    let writable = unit
        .lines()
        .find_map(|line| line.strip_prefix("ReadWritePaths="))
        .unwrap();
    assert!(
        flags(&ways()["systemd"].args).tsdb.path.starts_with(writable),
        "{writable}"
    );
}

/// The same arguments with the addresses, directories and files of a test.
fn moved(
    args: &[String],
    data: &std::path::Path,
    bucket: &BucketView,
    dir: &std::path::Path,
    url: &str,
) -> Vec<String> {
    let file = |name: &str, text: &str| {
        let path = dir.join(name);
        fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let moved = |arg: &String| {
        let (flag, value) = arg.split_once('=').unwrap_or((arg, ""));
        let value = match flag {
            "--prometheus.url" => url.to_owned(),
            "--grpc-address" => value.replace("10901", "PORT"),
            "--http-address" => value.replace("10902", "PORT"),
            "--tsdb.path" => data.display().to_string(),
            "--objstore.config" => bucket.config(),
            "--objstore.config-file" => file("bucket.yaml", &bucket.config()),
            // What the operator puts there for a Prometheus without TLS.
            "--prometheus.http-client-file" => file("client.yaml", "tls_config:\n  insecure_skip_verify: true\n"),
            "--reloader.config-file" => file("prometheus.yml", "global: {}\n"),
            _ => return arg.clone(),
        };
        format!("{flag}={value}")
    };
    args.iter().filter(|arg| *arg != "sidecar").map(moved).collect()
}

#[tokio::test]
async fn each_way_starts_a_sidecar_that_gets_ready_and_ships() {
    let prometheus = prometheus().await;
    let mut running = Vec::new();
    for (name, way) in ways() {
        let (data, store, dir) = (temp_dir("data"), temp_dir("bucket"), temp_dir("deploy"));
        let bucket = BucketView::dir(store.path());
        let args = moved(&way.args, data.path(), &bucket, dir.path(), &prometheus.url());
        running.push((name, Sidecar::start(args), data, bucket, (store, dir)));
    }
    // They work at the same time; here one is looked at after the other.
    let mut blocks = Vec::new();
    for (name, sidecar, data, ..) in &running {
        sidecar.wait_ready(PATIENCE).await;
        let answer = http::client()
            .get(format!("{}/-/ready", sidecar.url()))
            .send()
            .await
            .unwrap();
        assert_eq!(answer.headers()["x-narthex-shipping"], "on", "{name}");
        blocks.push(seal(&sound(0), data.path(), |_| {}));
    }
    for ((name, sidecar, data, bucket, _), block) in running.iter().zip(&blocks) {
        let visible = async || bucket.visible().await.contains(block).then_some(());
        sidecar
            .wait_until(PATIENCE, format!("{name}: the block"), visible)
            .await;
        assert!(data.path().join("thanos.shipper.json").is_file(), "{name}");
        assert!(sidecar.stop().await.success(), "{name}:\n{}", sidecar.log());
    }
}
