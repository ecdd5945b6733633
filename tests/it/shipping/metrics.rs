//! What `/metrics` tells after blocks were shipped, held against what lies on the disk and in the bucket, and against
//! the list of what Thanos' sidecar has.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::Write,
    path::Path,
    process::{Command, Stdio},
    time::SystemTime,
};

use fs_err as fs;

use super::{
    scene::{PATIENCE, by_time, json},
    versions::Stand,
};
use crate::rig::{Metrics, Prometheus, Tools, http, prometheus::sealed};

/// Families with their types, as Thanos' sidecar has them; without those of gRPC, the StoreAPI, the reloader and Go.
const OF_THANOS: [(&str, &str); 44] = [
    ("grpc_req_panics_recovered_total", "counter"),
    ("grpc_server_handled_total", "counter"),
    ("grpc_server_handling_seconds", "histogram"),
    ("grpc_server_msg_received_total", "counter"),
    ("grpc_server_msg_sent_total", "counter"),
    ("grpc_server_started_total", "counter"),
    ("prometheus_store_received_frames", "histogram"),
    ("thanos_store_selects_dropped_total", "counter"),
    ("thanos_store_server_chunks_requested", "histogram"),
    ("thanos_store_server_pending_series_requests", "gauge"),
    ("thanos_store_server_series_requested", "histogram"),
    ("thanos_sidecar_prometheus_up", "gauge"),
    (
        "thanos_sidecar_reloader_config_apply_operations_failed_total",
        "counter",
    ),
    ("thanos_sidecar_reloader_config_apply_operations_total", "counter"),
    (
        "thanos_sidecar_reloader_config_environment_variable_expansion_errors",
        "gauge",
    ),
    ("thanos_sidecar_reloader_info", "gauge"),
    ("thanos_sidecar_reloader_last_reload_success_timestamp_seconds", "gauge"),
    ("thanos_sidecar_reloader_last_reload_successful", "gauge"),
    ("thanos_sidecar_reloader_reloads_failed_total", "counter"),
    ("thanos_sidecar_reloader_reloads_total", "counter"),
    ("thanos_sidecar_reloader_watch_errors_total", "counter"),
    ("thanos_sidecar_reloader_watch_events_total", "counter"),
    ("thanos_sidecar_reloader_watches", "gauge"),
    ("thanos_status", "gauge"),
    ("thanos_build_info", "gauge"),
    ("thanos_shipper_dir_syncs_total", "counter"),
    ("thanos_shipper_dir_sync_failures_total", "counter"),
    ("thanos_shipper_uploads_total", "counter"),
    ("thanos_shipper_upload_failures_total", "counter"),
    ("thanos_shipper_corrupted_blocks_total", "counter"),
    ("thanos_shipper_upload_compacted_done", "gauge"),
    ("thanos_objstore_bucket_operations_total", "counter"),
    ("thanos_objstore_bucket_operation_failures_total", "counter"),
    ("thanos_objstore_bucket_operation_fetched_bytes_total", "counter"),
    ("thanos_objstore_bucket_operation_transferred_bytes", "histogram"),
    ("thanos_objstore_bucket_operation_duration_seconds", "histogram"),
    ("thanos_objstore_bucket_last_successful_upload_time", "gauge"),
    ("process_cpu_seconds_total", "counter"),
    ("process_open_fds", "gauge"),
    ("process_max_fds", "gauge"),
    ("process_virtual_memory_bytes", "gauge"),
    ("process_virtual_memory_max_bytes", "gauge"),
    ("process_resident_memory_bytes", "gauge"),
    ("process_start_time_seconds", "gauge"),
];

const OPERATIONS: [&str; 7] = ["attributes", "delete", "exists", "get", "get_range", "iter", "upload"];

/// The page says that Prometheus is there.
pub(super) async fn tell_that_prometheus_is_up(stand: &Stand) {
    let up = async || {
        let metrics = stand.sidecar.metrics().await?;
        let status = |check| metrics.value("thanos_status", &[("component", "sidecar"), ("check", check)]);
        let all = [
            status("ready"),
            status("healthy"),
            metrics.value("thanos_sidecar_prometheus_up", &[]),
        ];
        (all == [Some(1.0); 3]).then_some(())
    };
    stand.sidecar.wait_until(PATIENCE, "Prometheus is up", up).await;
}

/// Compares the page with the blocks when all of them are shipped. Prometheus must have ended: it would seal the next one.
pub(super) async fn tell_what_was_shipped(stand: &Stand, prometheus: &Prometheus) {
    let data = prometheus.data();
    let look = async || {
        let before = sealed(data);
        let (_, page) = http::get(&format!("{}/metrics", stand.sidecar.url())).await?;
        let page = String::from_utf8(page.to_vec()).expect("the page is text");
        let metrics = Metrics::parse(&page);
        let uploads = metrics.value("thanos_shipper_uploads_total", &[])?;
        // Set one after the other: the last block may be uploaded, and not off the list yet.
        let left = metrics.value("narthex_unuploaded_blocks", &[])?;
        let age = metrics.value("narthex_oldest_unuploaded_block_age_seconds", &[])?;
        let until = metrics.value("narthex_durable_until_timestamp_seconds", &[])?;
        let settled = left == 0.0 && age == 0.0 && until == durable_until(data);
        (uploads as usize == before.len() && settled && sealed(data) == before).then_some((page, before))
    };
    let (page, blocks) = stand.sidecar.wait_until(PATIENCE, "all blocks are shipped", look).await;
    let metrics = Metrics::parse(&page);
    shipper(&metrics, data, blocks.len(), stand.early);
    store(&metrics, data, &blocks, &stand.name);
    process(&metrics);
    names(&page);
    promtool_accepts(&page);
}

fn value(metrics: &Metrics, name: &str, labels: &[(&str, &str)]) -> f64 {
    metrics
        .value(name, labels)
        .unwrap_or_else(|| panic!("there is no {name} {labels:?}"))
}

fn shipper(metrics: &Metrics, data: &Path, blocks: usize, early: usize) {
    assert!(value(metrics, "thanos_shipper_dir_syncs_total", &[]) >= 1.0);
    for (name, expected) in [
        ("thanos_shipper_dir_sync_failures_total", 0.0),
        ("thanos_shipper_upload_failures_total", 0.0),
        ("thanos_shipper_corrupted_blocks_total", 0.0),
        ("thanos_shipper_upload_compacted_done", 0.0),
        ("narthex_unuploaded_blocks", 0.0),
        ("narthex_oldest_unuploaded_block_age_seconds", 0.0),
        ("narthex_vanished_blocks_total", 0.0),
        ("narthex_ledger_write_failures_total", 0.0),
    ] {
        assert_eq!(value(metrics, name, &[]), expected, "{name}");
    }
    assert_eq!(
        value(metrics, "narthex_durable_until_timestamp_seconds", &[]),
        durable_until(data)
    );
    // Of a block that was sealed before it was watched for, nobody knows when that was.
    let timed = value(metrics, "narthex_seal_to_durable_seconds_count", &[]) as usize;
    assert!(
        (blocks - early..=blocks).contains(&timed),
        "{timed} of {blocks} blocks, {early} early"
    );
}

/// The end of the newest block, in seconds since 1970.
fn durable_until(data: &Path) -> f64 {
    let newest = by_time(data).pop().expect("there are blocks");
    let until = json(&data.join(newest).join("meta.json"))["maxTime"].as_i64().unwrap();
    until as f64 / 1000.0
}

fn store(metrics: &Metrics, data: &Path, blocks: &[String], bucket: &str) {
    let files = |id: &String| fs::read_dir(data.join(id).join("chunks")).unwrap().count() + 2;
    let objects: usize = blocks.iter().map(files).sum();
    for operation in OPERATIONS {
        let labels = [("bucket", bucket), ("operation", operation)];
        let (done, failed) = (
            value(metrics, "thanos_objstore_bucket_operations_total", &labels),
            value(metrics, "thanos_objstore_bucket_operation_failures_total", &labels),
        );
        assert_eq!(failed, 0.0, "{operation}");
        match operation {
            "upload" => assert_eq!(done as usize, objects),
            "delete" => assert_eq!(done, 0.0),
            _ => {}
        }
        let timed = value(
            metrics,
            "thanos_objstore_bucket_operation_duration_seconds_count",
            &labels,
        );
        assert_eq!(timed, done, "{operation}");
    }
    let last = value(
        metrics,
        "thanos_objstore_bucket_last_successful_upload_time",
        &[("bucket", bucket)],
    );
    let seconds = |time: SystemTime| time.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs_f64();
    let newest = blocks
        .iter()
        .map(|id| fs::metadata(data.join(id).join("index")).unwrap().modified().unwrap())
        .max();
    assert!(
        last >= seconds(newest.unwrap()).floor() && last <= seconds(SystemTime::now()),
        "{last}"
    );
}

fn process(metrics: &Metrics) {
    let info = metrics
        .samples
        .iter()
        .find(|sample| sample.name == "thanos_build_info")
        .unwrap();
    assert_eq!(info.value, 1.0);
    let labels: Vec<&str> = info.labels.keys().map(String::as_str).collect();
    assert_eq!(
        labels,
        ["branch", "goarch", "goos", "goversion", "revision", "tags", "version"]
    );
    assert!(value(metrics, "process_resident_memory_bytes", &[]) > 1e6);
    assert!(value(metrics, "process_open_fds", &[]) < value(metrics, "process_max_fds", &[]));
}

/// The families with their types.
fn families(page: &str) -> BTreeMap<String, String> {
    let lines = page
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '));
    lines.map(|(name, kind)| (name.to_owned(), kind.to_owned())).collect()
}

/// All that Thanos has is there, under the same type; whatever else there is cannot be taken for something of Thanos'.
fn names(page: &str) {
    let families = families(page);
    for (name, kind) in OF_THANOS {
        assert_eq!(families.get(name).map(String::as_str), Some(kind), "{name}");
    }
    let known: BTreeSet<&str> = OF_THANOS.iter().map(|(name, _)| *name).collect();
    let foreign: Vec<&String> = families
        .keys()
        .filter(|name| {
            !known.contains(name.as_str()) && !["narthex_", "process_"].iter().any(|own| name.starts_with(own))
        })
        .collect();
    assert!(foreign.is_empty(), "{foreign:?}");
}

/// Prometheus' own tool reads the page. It exits with 1 when it cannot; its style rules (3) are not for the names that
/// Thanos has given.
fn promtool_accepts(page: &str) {
    for leg in Tools::find().legs {
        let mut child = Command::new(&leg.promtool)
            .args(["check", "metrics"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(page.as_bytes()).unwrap();
        let done = child.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&done.stderr) + String::from_utf8_lossy(&done.stdout);
        let ours: Vec<&str> = said.lines().filter(|line| line.starts_with("narthex_")).collect();
        assert!(
            matches!(done.status.code(), Some(0 | 3)) && ours.is_empty(),
            "{}: {said}",
            leg.version
        );
    }
}
