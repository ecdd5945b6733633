//! The reloader, on real Prometheus servers: what is edited is loaded, once, and what is broken is not.

mod edits;
mod stage;
mod troubles;

use fs_err as fs;

use self::stage::{PATIENCE, Stage, Start};
use crate::rig::{Prometheus, Sidecar, Tools, prometheus::Options, tools::temp_dir, wait_until};

#[tokio::test]
async fn the_first_look_writes_the_configuration_and_has_it_loaded() {
    for leg in Tools::find().legs {
        let stage = Stage::start(Start {
            leg,
            ..Start::default()
        })
        .await;
        stage.wait_for_label("cluster", "from the environment").await;
        stage.wait_for_reloads(1).await;
        let metrics = stage.sidecar.metrics().await.unwrap();
        for (name, expected) in [
            ("reloads_total", 1.0),
            ("reloads_failed_total", 0.0),
            ("last_reload_successful", 1.0),
            ("config_apply_operations_total", 0.0),
            ("config_apply_operations_failed_total", 0.0),
            ("config_environment_variable_expansion_errors", 0.0),
            ("watch_errors_total", 0.0),
        ] {
            let name = format!("thanos_sidecar_reloader_{name}");
            assert_eq!(metrics.value(&name, &[]), Some(expected), "{name}");
        }
        let info = metrics.value("thanos_sidecar_reloader_info", &[("method", "http")]);
        assert_eq!(info, Some(1.0));
        let at = metrics.value("thanos_sidecar_reloader_last_reload_success_timestamp_seconds", &[]);
        assert!(at > Some(1.7e9), "{at:?}");
        // The configuration's file and its directory; links and their ends make more.
        assert!(metrics.value("thanos_sidecar_reloader_watches", &[]) >= Some(3.0));
    }
}

#[tokio::test]
async fn labels_that_a_reload_changes_are_known_at_once() {
    let stage = Stage::start(Start {
        // The heartbeat would come too late.
        flags: vec!["--prometheus.get_config_interval=1h".to_owned()],
        ..Start::default()
    })
    .await;
    let line = || {
        stage
            .sidecar
            .log()
            .lines()
            .any(|line| line.contains("from the environment"))
    };
    stage.wait_for_label("cluster", "from the environment").await;
    stage.write_config("later");
    let known = async || line().then_some(());
    stage
        .sidecar
        .wait_until(PATIENCE, "the new labels are logged", known)
        .await;
}

#[tokio::test]
async fn without_anything_to_follow_all_metrics_are_there() {
    let prometheus = Prometheus::start(&Tools::oldest(), Options::default()).await;
    let sidecar = Sidecar::start(vec![format!("--prometheus.url={}", prometheus.url())]);
    sidecar.wait_ready(PATIENCE).await;
    let metrics = sidecar.metrics().await.unwrap();
    for name in [
        "reloads_total",
        "reloads_failed_total",
        "last_reload_successful",
        "last_reload_success_timestamp_seconds",
        "config_apply_operations_total",
        "config_apply_operations_failed_total",
        "config_environment_variable_expansion_errors",
        "watches",
        "watch_events_total",
        "watch_errors_total",
    ] {
        let name = format!("thanos_sidecar_reloader_{name}");
        assert_eq!(metrics.value(&name, &[]), Some(0.0), "{name}");
    }
    assert_eq!(
        metrics.value("thanos_sidecar_reloader_info", &[("method", "http")]),
        Some(1.0)
    );
    assert_eq!(prometheus.loads(), 1);
}

#[tokio::test]
async fn with_an_interval_of_0_the_configuration_is_written_once_and_the_process_goes_on() {
    let stage = Stage::start(Start {
        flags: vec!["--reloader.watch-interval=0s".to_owned()],
        ..Start::default()
    })
    .await;
    stage.wait_for_log(&["--reloader.watch-interval is 0"]).await;
    let written = fs::read_to_string(stage.prometheus.config_file()).unwrap();
    assert!(written.contains("cluster: from the environment"), "{written}");
    stage.write_config("later");
    stage.sidecar.wait_ready(PATIENCE).await;
    assert_eq!(stage.prometheus.loads(), 1);
    let now = fs::read_to_string(stage.prometheus.config_file()).unwrap();
    assert_eq!(now, written);
    assert_eq!(
        stage.sidecar.metric("thanos_sidecar_reloader_reloads_total").await,
        Some(0.0)
    );
    assert!(stage.sidecar.stop().await.success());
}

#[tokio::test]
async fn a_file_that_prometheus_reads_itself_is_followed_also_where_it_is_written_under_another_name() {
    let prometheus = Prometheus::start(&Tools::oldest(), Options::default()).await;
    let config = prometheus.config_file();
    // As with a file that a container has mounted: no event comes in its directory.
    let other = temp_dir("other");
    let linked = other.path().join("prometheus.yml");
    fs::hard_link(&config, &linked).unwrap();
    let sidecar = Sidecar::start(vec![
        format!("--prometheus.url={}", prometheus.url()),
        format!("--reloader.config-file={}", config.display()),
        "--reloader.watch-interval=1h".to_owned(),
    ]);
    let loads = async |count| {
        let loaded = async || (prometheus.loads() == count).then_some(());
        sidecar.wait_until(PATIENCE, format!("{count} loads"), loaded).await;
        let told = async || {
            (sidecar.metric("thanos_sidecar_reloader_reloads_total").await? == count as f64 - 1.0).then_some(())
        };
        sidecar.wait_until(PATIENCE, "they are counted", told).await;
    };
    loads(2).await;
    let text = fs::read_to_string(&config).unwrap();
    fs::write(&linked, format!("{text}# edited\n")).unwrap();
    loads(3).await;
    fs::write(other.path().join("new.yml"), format!("{text}# edited again\n")).unwrap();
    fs::copy(other.path().join("new.yml"), config.with_extension("new")).unwrap();
    fs::rename(config.with_extension("new"), &config).unwrap();
    loads(4).await;
    fs::write(&config, format!("{text}# and again\n")).unwrap();
    loads(5).await;
}

#[tokio::test]
async fn prometheus_may_come_later() {
    let mut stage = Stage::start(Start::default()).await;
    stage.wait_for_label("cluster", "from the environment").await;
    stage.prometheus.stop().await;
    stage.write_config("while it was away");
    let failed = async || {
        (stage
            .sidecar
            .metric("thanos_sidecar_reloader_reloads_failed_total")
            .await?
            >= 2.0)
            .then_some(())
    };
    stage.sidecar.wait_until(PATIENCE, "attempts", failed).await;
    stage.prometheus.start_again().await;
    let successful = async || {
        (stage
            .sidecar
            .metric("thanos_sidecar_reloader_last_reload_successful")
            .await?
            == 1.0)
            .then_some(())
    };
    stage.sidecar.wait_until(PATIENCE, "a reload", successful).await;
    stage.wait_for_label("edit", "while it was away").await;
}

#[tokio::test]
async fn by_signal_the_process_of_that_name_is_told_and_its_answer_is_found_out() {
    // The kernel cuts names to 15 bytes, and other tests have their own Prometheus.
    let name = format!("prom-{}-told-by-signal", std::process::id());
    let dir = temp_dir("program");
    for mut leg in Tools::find().legs {
        let program = dir.path().join(&name);
        let _ = fs::remove_file(&program);
        fs::os::unix::fs::symlink(&leg.prometheus, &program).unwrap();
        leg.prometheus = program;
        let stage = Stage::start(Start {
            leg,
            flags: vec![
                "--reloader.method=signal".to_owned(),
                format!("--reloader.process-name={name}"),
            ],
            lifecycle: false,
        })
        .await;
        stage.wait_for_label("cluster", "from the environment").await;
        stage.wait_for_reloads(1).await;
        stage.write_config("by signal");
        stage.wait_for_label("edit", "by signal").await;
        stage.wait_for_reloads(2).await;
        stage.write_raw("global: {no_such_key: 1}\n");
        stage
            .wait_for_log(&["level=warn", "it refuses the files; its log says why"])
            .await;
        stage.write_config("mended");
        stage.wait_for_label("edit", "mended").await;
        let metrics = stage.sidecar.metrics().await.unwrap();
        assert_eq!(
            metrics.value("thanos_sidecar_reloader_info", &[("method", "signal")]),
            Some(1.0)
        );
    }
}

#[tokio::test]
async fn a_signal_that_reaches_nobody_is_told_with_what_to_do() {
    let stage = Stage::start(Start {
        flags: vec![
            "--reloader.method=signal".to_owned(),
            "--reloader.process-name=nobody-at-all".to_owned(),
        ],
        ..Start::default()
    })
    .await;
    stage
        .wait_for_log(&[
            "level=warn",
            "no process with the name",
            "nobody-at-all",
            "shareProcessNamespace: true",
        ])
        .await;
    let loads = stage.prometheus.loads();
    wait_until(PATIENCE, "a second attempt", async || {
        (stage
            .sidecar
            .metric("thanos_sidecar_reloader_reloads_failed_total")
            .await?
            >= 2.0)
            .then_some(())
    })
    .await;
    assert_eq!(stage.prometheus.loads(), loads);
}
