//! A real Prometheus in agent mode.

use std::{path::Path, process::Command};

use narthex::{
    pb::thanos::info::{InfoRequest, info_client::InfoClient},
    prometheus::version::at_least,
};

use super::LONG;
use crate::rig::{
    BucketView, Sidecar, Tools, http,
    process::{Process, free_port},
    tools::{Leg, temp_dir},
    wait_until,
};

/// Starts an agent that scrapes itself and sends to nobody.
pub(crate) async fn start(leg: &Leg, dir: &Path) -> (Process, String) {
    let port = free_port();
    let config = format!(
        "global:\n  scrape_interval: 1s\n  external_labels: {{cluster: rig}}\nremote_write:\n  - url: \
         http://127.0.0.1:1/\nscrape_configs:\n  - job_name: self\n    static_configs:\n      - targets: \
         ['127.0.0.1:{port}']\n"
    );
    fs_err::write(dir.join("prometheus.yml"), config).unwrap();
    let mut command = Command::new(&leg.prometheus);
    command
        .arg(if at_least(&leg.version, 3, 0) {
            "--agent"
        } else {
            "--enable-feature=agent"
        })
        .arg(format!("--config.file={}", dir.join("prometheus.yml").display()))
        .arg(format!("--storage.agent.path={}", dir.join("data").display()))
        .arg(format!("--web.listen-address=127.0.0.1:{port}"))
        .current_dir(dir);
    let process = Process::spawn("prometheus", &mut command, &dir.join("prometheus.log"), Some(dir));
    let url = format!("http://127.0.0.1:{port}");
    wait_until(LONG, "the agent is ready", async || {
        http::ok(&format!("{url}/-/ready")).await.then_some(())
    })
    .await;
    (process, url)
}

#[tokio::test]
async fn an_agent_is_recognised_and_only_what_it_has_is_offered() {
    for leg in Tools::find().legs {
        let dir = temp_dir("agent");
        let (_agent, url) = start(&leg, dir.path()).await;
        let (data, store) = (temp_dir("data"), temp_dir("bucket"));
        let sidecar = Sidecar::start(vec![
            format!("--prometheus.url={url}"),
            "--prometheus.get_config_interval=200ms".to_owned(),
            format!("--tsdb.path={}", data.path().display()),
            format!("--objstore.config={}", BucketView::dir(store.path()).config()),
        ]);
        sidecar.wait_ready(LONG).await;
        assert_eq!(sidecar.metric("thanos_sidecar_prometheus_up").await, Some(1.0));
        assert_eq!(sidecar.metric("narthex_configuration_errors").await, Some(0.0));

        let grpc = sidecar.grpc_url();
        let connect = async || InfoClient::connect(grpc.clone()).await.ok();
        let mut client = sidecar.wait_until(LONG, "a connection", connect).await;
        let info = client.info(InfoRequest {}).await.unwrap().into_inner();
        assert_eq!(info.label_sets.len(), 1);
        let offered = [
            ("/api/v1/series?match[]=up", info.store.is_some()),
            ("/api/v1/labels", info.store.is_some()),
            ("/api/v1/label/job/values", info.store.is_some()),
            ("/api/v1/rules", info.rules.is_some()),
            ("/api/v1/query_exemplars?query=up", info.exemplars.is_some()),
            ("/api/v1/status/tsdb", info.status.is_some()),
            ("/api/v1/targets", info.targets.is_some()),
            ("/api/v1/metadata", info.metric_metadata.is_some()),
        ];
        for (path, offered) in offered {
            let (status, body) = http::get(&format!("{url}{path}")).await.unwrap();
            let refused = String::from_utf8_lossy(&body).contains("unavailable with Prometheus Agent");
            assert_eq!(
                (status.is_success(), refused),
                (offered, !offered),
                "{path} {}",
                leg.version
            );
        }
        // Several heartbeats later it was said once, and nothing was looked up that an agent refuses.
        let beats = "narthex_prometheus_last_heartbeat_timestamp_seconds";
        let first = sidecar.metric(beats).await.unwrap();
        let later = async || (sidecar.metric(beats).await? > first + 1.0).then_some(());
        sidecar.wait_until(LONG, "more heartbeats", later).await;
        let log = sidecar.log();
        assert_eq!(log.matches("Prometheus runs in agent mode").count(), 1, "{log}");
    }
}
