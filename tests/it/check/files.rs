//! Ports that are held, and files that flags name: certificates, YAML, directories. All mistakes are found in one run.

use std::{net::TcpListener, time::Duration};

use rcgen::{CertificateParams, KeyPair, date_time_ymd};
use tempfile::TempDir;

use super::scene::{Scene, file, finds, on_data};
use crate::rig::tools::temp_dir;

/// Writes `<name>.crt` and `<name>.key`, valid for so many days from now on, or expired.
pub(super) fn pair(dir: &TempDir, name: &str, days: i64) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(["localhost".to_owned()]).unwrap();
    params.not_before = date_time_ymd(2020, 1, 1);
    let now = std::time::SystemTime::now();
    let days_long = Duration::from_secs(86_400 * days.unsigned_abs());
    let until = if days < 0 { now - days_long } else { now + days_long };
    params.not_after = until.into();
    let certificate = params.self_signed(&key).unwrap();
    file(dir, &format!("{name}.crt"), &certificate.pem());
    file(dir, &format!("{name}.key"), &key.serialize_pem());
}

/// The flags of a run without Prometheus and bucket.
fn alone(scene: &Scene, more: &[String]) -> Vec<String> {
    let mut flags = on_data(scene.data.path());
    flags.push("--no-prometheus".to_owned());
    flags.extend(more.iter().cloned());
    flags
}

#[test]
fn a_port_that_another_one_holds_is_told_with_the_flag() {
    let scene = Scene::new();
    let held = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = held.local_addr().unwrap().to_string();
    for (flag, check) in [("--http-address", "http.port"), ("--grpc-address", "grpc.port")] {
        finds(
            &alone(&scene, &[]),
            &[&format!("{flag}={address}")],
            &[(check, "fail", &address)],
        );
    }
    drop(held);
    // Both at once on one port cannot be either.
    let [http, grpc] = ["http", "grpc"].map(|name| format!("--{name}-address={address}"));
    finds(
        &alone(&scene, &[]),
        &[&http, &grpc],
        &[("grpc.port", "fail", "another process holds this port")],
    );
}

#[test]
fn certificates_are_judged_by_their_time_and_their_key() {
    let (scene, dir) = (Scene::new(), temp_dir("certificates"));
    for (name, days) in [("good", 90), ("soon", 5), ("past", -2)] {
        pair(&dir, name, days);
    }
    let path = |name: &str| dir.path().join(name).display().to_string();
    let tls = |cert: &str, key: &str, ca: &str| {
        alone(
            &scene,
            &[
                format!("--grpc-server-tls-cert={}", path(cert)),
                format!("--grpc-server-tls-key={}", path(key)),
                format!("--grpc-server-tls-client-ca={}", path(ca)),
            ],
        )
    };
    finds(&tls("good.crt", "good.key", "good.crt"), &[], &[]);
    finds(
        &tls("soon.crt", "soon.key", "past.crt"),
        &[],
        &[
            ("grpc.certificate", "warn", "less than 30 days"),
            ("grpc.client-ca", "fail", "has expired"),
        ],
    );
    finds(
        &tls("past.crt", "past.key", "soon.crt"),
        &[],
        &[
            ("grpc.certificate", "fail", "has expired"),
            ("grpc.client-ca", "warn", "less than 30 days"),
        ],
    );
    finds(
        &tls("good.crt", "soon.key", "good.crt"),
        &[],
        &[("grpc.tls", "fail", "does not match")],
    );
    finds(
        &tls("good.crt", "good.key", "none.crt"),
        &[],
        &[("grpc.tls", "fail", "none.crt")],
    );
    for (cert, key, check, verdict, part) in [
        ("past", "past", "http.certificate", "fail", "has expired"),
        ("soon", "soon", "http.certificate", "warn", "less than 30 days"),
        ("good", "past", "http.config", "fail", "does not match"),
    ] {
        let text = format!("tls_server_config: {{cert_file: {cert}.crt, key_file: {key}.key}}\n");
        let web = file(&dir, "web.yml", &text);
        finds(
            &alone(&scene, &[format!("--http.config={web}")]),
            &[],
            &[(check, verdict, part)],
        );
    }
}

#[test]
fn every_mistake_in_the_files_is_found_in_one_run() {
    let (scene, dir) = (Scene::new(), temp_dir("files"));
    let web = file(
        &dir,
        "web.yml",
        "tls_server_config: {cert_file: none.crt, key_file: none.key}\n",
    );
    let rules = dir.path().join("rules").display().to_string();
    let broken = file(&dir, "prometheus.yml", "global: {\n");
    let flags = alone(
        &scene,
        &[
            format!("--http.config={web}"),
            "--request.logging-config=[".to_owned(),
            "--tracing.config={type: JAEGER}".to_owned(),
            format!("--store.spill-dir={broken}"),
            "--min-time-margin=6h".to_owned(),
            "--objstore.config=type: S3".to_owned(),
            "--prometheus.http-client=[".to_owned(),
        ],
    );
    let wanted = [
        ("http.config", "fail", "none.crt"),
        ("grpc.logging", "fail", "--request.logging-config"),
        ("tracing.config", "fail", "--tracing.config"),
        ("queries.spill-dir", "fail", "prometheus.yml"),
        ("queries.flags", "warn", "--min-time-margin"),
        ("bucket.config", "fail", "--objstore.config"),
        ("prometheus.client", "fail", "--prometheus.http-client"),
    ];
    for (flag, part) in [
        (format!("--reloader.config-file={broken}"), "this is no YAML"),
        (
            format!("--reloader.config-file={rules}"),
            "there is nothing at this path",
        ),
        (format!("--reloader.rule-dir={rules}"), "--reloader.rule-dir"),
    ] {
        let reloader = [("reloader.files", "fail", part)];
        finds(&flags, &[&flag], &[&wanted[..], &reloader].concat());
    }
    let good = file(&dir, "good.yml", "global: {}\n");
    finds(
        &alone(&scene, &[format!("--reloader.config-file={good}")]),
        &[&format!("--reloader.config-envsubst-file={rules}/out.yml")],
        &[("reloader.files", "fail", "--reloader.config-envsubst-file")],
    );
    let empty = file(&dir, "empty.yml", "");
    finds(
        &alone(&scene, &[format!("--tracing.config-file={empty}")]),
        &[],
        &[("tracing.config", "warn", "empty.yml")],
    );
}
