//! Files that are broken, and a Prometheus that will not.

use fs_err as fs;

use super::stage::{PATIENCE, Stage, Start, rule};

#[tokio::test]
async fn what_is_broken_is_told_and_not_passed_on_and_the_rules_are_all_the_same() {
    let stage = Stage::start(Start::default()).await;
    stage.wait_for_reloads(1).await;
    let written = fs::read(stage.prometheus.config_file()).unwrap();
    let loads = stage.prometheus.loads();
    let broken: [(&str, &[&str], f64); 3] = [
        (
            "global: {\nsecret: hunter2",
            &["line 1, column 9", "this is no YAML"],
            0.0,
        ),
        ("", &["the file is empty"], 0.0),
        (
            "global:\n  external_labels: {a: $(NOBODY), b: $(SETS_THIS)}\n",
            &["$(NOBODY), $(SETS_THIS)"],
            2.0,
        ),
    ];
    for (at, (text, parts, unset)) in broken.into_iter().enumerate() {
        let failed = stage.metric("config_apply_operations_failed_total").await;
        stage.write_raw(text);
        stage
            .wait_for_log(&[&["level=warn", "prometheus.yml"], parts].concat())
            .await;
        let counted = async || (stage.metric("config_apply_operations_failed_total").await > failed).then_some(());
        stage.sidecar.wait_until(PATIENCE, "it is counted", counted).await;
        assert_eq!(
            stage.metric("config_environment_variable_expansion_errors").await,
            unset
        );
        assert_eq!(fs::read(stage.prometheus.config_file()).unwrap(), written);
        assert_eq!(stage.prometheus.loads(), loads + at, "it was not told");
        let name = format!("meanwhile{at}");
        stage.rules.swap(&rule(&name));
        stage.wait_for_rule(&name).await;
        stage.wait_for_reloads(2 + at as u64).await;
    }
    assert!(!stage.sidecar.log().contains("hunter2"));
    stage.write_config("mended");
    stage.wait_for_label("edit", "mended").await;
    stage
        .wait_for_log(&["level=info", "Prometheus uses the current state of its files again"])
        .await;
    assert_eq!(stage.metric("config_environment_variable_expansion_errors").await, 0.0);
}

#[tokio::test]
async fn what_prometheus_refuses_is_told_in_its_words_and_tried_again() {
    let stage = Stage::start(Start::default()).await;
    stage.wait_for_reloads(1).await;
    stage.write_raw("global: {no_such_key: 1}\n");
    stage
        .wait_for_log(&["level=warn", "/-/reload", "status 500", "no_such_key"])
        .await;
    let again = async || (stage.metric("reloads_failed_total").await >= 3.0).then_some(());
    stage.sidecar.wait_until(PATIENCE, "three attempts", again).await;
    assert_eq!(stage.metric("last_reload_successful").await, 0.0);
    // It is said once.
    let said = stage.sidecar.log().matches("no_such_key").count();
    assert_eq!(said, 1);
    stage.write_config("mended");
    stage.wait_for_label("edit", "mended").await;
    let successful = async || (stage.metric("last_reload_successful").await == 1.0).then_some(());
    stage.sidecar.wait_until(PATIENCE, "it is shown", successful).await;
}

#[tokio::test]
async fn what_was_before_a_refused_change_is_passed_on_again() {
    let stage = Stage::start(Start::default()).await;
    stage.wait_for_reloads(1).await;
    // Prometheus takes the labels of this and refuses the rules, so that it has neither state.
    stage.write_config("refused");
    stage
        .rules
        .swap("groups: [{name: g, rules: [{record: a, expr: 'b('}]}]");
    stage.wait_for_log(&["level=warn", "/-/reload", "status 500"]).await;
    stage.rules.swap(&rule("first"));
    stage.write_config("first");
    let good = async || {
        let good = stage
            .prometheus
            .metric("prometheus_config_last_reload_successful")
            .await;
        (good == Some(1.0)).then_some(())
    };
    stage.sidecar.wait_until(PATIENCE, "Prometheus is content", good).await;
    stage.wait_for_label("edit", "first").await;
    stage.wait_for_rule("first").await;
    let successful = async || (stage.metric("last_reload_successful").await == 1.0).then_some(());
    stage.sidecar.wait_until(PATIENCE, "it is shown", successful).await;
}

#[tokio::test]
async fn rules_that_cannot_be_read_hold_up_nothing_else() {
    let stage = Stage::start(Start::default()).await;
    stage.wait_for_reloads(1).await;
    let dir = stage.rules.path().parent().unwrap().to_owned();
    fs::os::unix::fs::symlink("loop", dir.join("loop")).unwrap();
    stage
        .wait_for_log(&[
            "level=warn",
            "--reloader.rule-dir",
            "loop",
            "the rest is followed all the same",
        ])
        .await;
    stage.write_config("meanwhile");
    stage.wait_for_label("edit", "meanwhile").await;
}

#[tokio::test]
async fn what_is_broken_is_told_also_while_prometheus_is_away() {
    let stage = Stage::start(Start::default()).await;
    stage.wait_for_reloads(1).await;
    stage.prometheus.kill();
    stage.write_raw("global:\n  external_labels: {a: $(NOBODY)}\n");
    stage.rules.swap(&rule("unseen"));
    stage
        .wait_for_log(&[
            "level=warn",
            "$(NOBODY)",
            "besides, Prometheus was not reloaded",
            "connection refused",
        ])
        .await;
}

#[tokio::test]
async fn a_prometheus_that_may_not_be_reloaded_by_http_is_told_with_the_way_out() {
    let stage = Stage::start(Start {
        lifecycle: false,
        ..Start::default()
    })
    .await;
    stage
        .wait_for_log(&["level=warn", "--web.enable-lifecycle", "--reloader.method=signal"])
        .await;
    assert!(stage.metric("reloads_failed_total").await >= 1.0);
    assert!(stage.sidecar.exited().is_none());
}

#[tokio::test]
async fn what_is_missing_is_waited_for() {
    let stage = Stage::start(Start::default()).await;
    stage.wait_for_reloads(1).await;
    let (config, rules) = (stage.config.path(), stage.rules.path());
    fs::remove_file(&config).unwrap();
    stage
        .wait_for_log(&["prometheus.yml: there is nothing at this path (--reloader.config-file)"])
        .await;
    let dir = rules.parent().unwrap().to_owned();
    fs::rename(&dir, dir.with_extension("away")).unwrap();
    fs::write(&config, stage.config_text("anew")).unwrap();
    stage
        .wait_for_log(&["rules: there is nothing at this path (--reloader.rule-dir)"])
        .await;
    assert_eq!(
        stage.metric("reloads_total").await,
        1.0,
        "Prometheus would forget its rules"
    );
    fs::create_dir(&dir).unwrap();
    fs::write(&rules, rule("anew")).unwrap();
    stage.wait_for_rule("anew").await;
    stage.wait_for_label("edit", "anew").await;
}
