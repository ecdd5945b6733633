//! Random edits.

use rand::{RngExt, SeedableRng, rngs::StdRng};

use super::stage::{Stage, Start, rule};

/// So many edits; each takes the quarter of a second for which files must be left alone, and a reload.
const EDITS: u64 = 100;

#[tokio::test]
async fn each_edit_is_loaded_exactly_once_however_it_is_made() {
    let seed: u64 = rand::random();
    let mut random = StdRng::seed_from_u64(seed);
    let stage = Stage::start(Start::default()).await;
    stage.wait_for_label("edit", "first").await;
    stage.wait_for_rule("first").await;
    stage.wait_for_reloads(1).await;
    let begun = stage.prometheus.loads() as u64;
    for edit in 1..=EDITS {
        let name = format!("n{edit}");
        let (mount, content) = match random.random_bool(0.5) {
            true => (&stage.config, stage.config_text(&name)),
            false => (&stage.rules, rule(&name)),
        };
        match random.random_range(0..3) {
            0 => mount.swap(&content),
            1 => mount.write(&content),
            _ => mount.rename(&content),
        }
        match std::ptr::eq(mount, &stage.config) {
            true => stage.wait_for_label("edit", &name).await,
            false => stage.wait_for_rule(&name).await,
        }
        // Prometheus shows it before its reload ends.
        stage.wait_for_reloads(edit + 1).await;
        let loads = stage.prometheus.loads() as u64;
        assert_eq!(loads, begun + edit, "edit {edit} of the seed {seed}");
    }
    assert_eq!(stage.metric("reloads_failed_total").await, 0.0);
    assert_eq!(stage.metric("watch_errors_total").await, 0.0);
}

#[tokio::test]
async fn what_is_touched_or_written_anew_as_it_was_is_not_loaded() {
    let stage = Stage::start(Start::default()).await;
    stage.wait_for_reloads(1).await;
    let loads = stage.prometheus.loads();
    let (config, rules) = (stage.config_text("first"), rule("first"));
    for (mount, content) in [(&stage.config, &config), (&stage.rules, &rules)] {
        let looks = stage.metric("config_apply_operations_total").await;
        mount.write(content);
        let looked = async || (stage.metric("config_apply_operations_total").await > looks).then_some(());
        stage.sidecar.wait_until(super::PATIENCE, "a look", looked).await;
        let looks = stage.metric("config_apply_operations_total").await;
        mount.swap(content);
        let looked = async || (stage.metric("config_apply_operations_total").await > looks).then_some(());
        stage.sidecar.wait_until(super::PATIENCE, "another look", looked).await;
    }
    assert_eq!(stage.metric("reloads_total").await, 1.0);
    assert_eq!(stage.prometheus.loads(), loads);
}
