//! The program itself, scraped by a real Prometheus.

use fs_err as fs;

use super::{SESAME, certificates::Ca};
use crate::{
    bad_blocks::stage::PATIENCE,
    rig::{Prometheus, Sidecar, Tools, http, process::free_port, prometheus::Options, tools::temp_dir, wait_until},
};

#[tokio::test]
async fn prometheus_scrapes_through_tls_with_a_password() {
    let (dir, ca) = (temp_dir("web"), Ca::new());
    ca.write_pair(dir.path());
    fs::write(dir.path().join("ca.crt"), ca.pem()).unwrap();
    let yaml =
        format!("tls_server_config: {{cert_file: tls.crt, key_file: tls.key}}\nbasic_auth_users: {{ali: {SESAME}}}\n");
    fs::write(dir.path().join("web.yml"), yaml).unwrap();
    for leg in Tools::find().legs {
        let port = free_port();
        let job = |name: &str, password: &str| {
            format!(
                "  - job_name: {name}\n    scheme: https\n    tls_config: {{ca_file: {}, server_name: localhost}}\n    \
                 basic_auth: {{username: ali, password: {password}}}\n    static_configs: [{{targets: ['127.0.0.1:{port}']}}]\n",
                dir.path().join("ca.crt").display()
            )
        };
        let options = Options {
            scrape: false,
            scrape_configs: job("right", "open sesame") + &job("wrong", "open barley"),
            ..Options::default()
        };
        let prometheus = Prometheus::start(&leg, options).await;
        let _sidecar = Sidecar::start(vec![
            format!("--prometheus.url={}", prometheus.url()),
            format!("--http.config={}", dir.path().join("web.yml").display()),
            format!("--http-address=127.0.0.1:{port}"),
        ]);
        let up = async |job: &str| {
            let url = format!("{}/api/v1/query?query=sum(up{{job=%22{job}%22}})", prometheus.url());
            let (_, body) = http::get(&url).await?;
            let answer: serde_json::Value = serde_json::from_slice(&body).ok()?;
            let value = answer["data"]["result"][0]["value"][1].as_str()?;
            Some(value.to_owned())
        };
        let scraped = async || (up("right").await? == "1" && up("wrong").await? == "0").then_some(());
        wait_until(PATIENCE, "a scrape", scraped).await;
        let query = format!("{}/api/v1/query?query=thanos_build_info", prometheus.url());
        let (_, body) = http::get(&query).await.unwrap();
        assert!(
            String::from_utf8_lossy(&body).contains("\"job\":\"right\""),
            "its metrics are there"
        );
    }
}
