//! Which blocks are restored, and when the program refuses to choose.

use serde_json::{Value, json};

use super::scene::{EU, Listed, Scene};

const US: &[(&str, &str)] = &[("cluster", "us")];

fn decisions(told: &Value) -> Vec<(String, String)> {
    let blocks = told["blocks"].as_array().unwrap().iter();
    let word = |block: &Value, key: &str| block[key].as_str().unwrap().to_owned();
    blocks
        .map(|block| (word(block, "ulid"), word(block, "decision")))
        .collect()
}

#[tokio::test]
async fn several_label_sets_are_refused_and_the_selectors_that_are_named_part_them() {
    let scene = Scene::local();
    let eu = scene.ship(0, EU, Listed::Hashed, |_| {}).await;
    let bare = scene.ship(1, US, Listed::Hashed, |_| {}).await;
    let ran = scene.restore(&[]);
    ran.assert(
        3,
        &[
            "several sets of external labels",
            r#"--selector '{cluster="eu", replica="0"}'"#,
            r#"--selector '{cluster="us", replica=""}'"#,
            "Nothing was restored.",
        ],
    );
    assert_eq!(scene.entries(), [""; 0]);
    let told = scene.restore(&["--output=json"]).json();
    let sets = told["refusal"]["label_sets"].as_array().unwrap();
    assert_eq!((&told["end"], sets.len()), (&json!("findings"), 2));
    for (set, id) in sets.iter().zip([eu, bare]) {
        assert_eq!(set["blocks"], 1);
        let ran = scene.restore(&["--output=json", "--selector", set["selector"].as_str().unwrap()]);
        assert_eq!(ran.json()["blocks"][0]["ulid"], Value::from(id), "{ran:?}");
        ran.assert(0, &[]);
    }
}

#[tokio::test]
async fn blocks_without_labels_are_those_of_a_prometheus_too() {
    let scene = Scene::local();
    let id = scene.ship(0, &[], Listed::Hashed, |_| {}).await;
    scene.restore(&[]).assert(0, &["to restore: 1 of 1 block of {}"]);
    scene.assert_same(&id).await;
}

#[tokio::test]
async fn nothing_selected_tells_what_there_is() {
    let scene = Scene::local();
    scene
        .restore(&[])
        .assert(3, &["no block in the bucket has labels that are selected"]);
    scene.ship(0, EU, Listed::Hashed, |_| {}).await;
    scene.restore(&["--selector", "{cluster=\"asia\"}"]).assert(
        3,
        &[
            "no block in the bucket has labels that are selected",
            r#"--selector '{cluster="eu", replica="0"}'"#,
        ],
    );
    scene.restore(&["--min-time=2026-02-01T00:00:00Z"]).assert(
        3,
        &[
            "no sample between --min-time and --max-time in 1 block whose labels are selected",
            "2026-01-01T00:00:00Z to 2026-01-01T01:59:30.001Z",
        ],
    );
    assert_eq!(scene.entries(), [""; 0]);
}

#[tokio::test]
async fn only_blocks_with_samples_in_the_time_range_are_restored() {
    let scene = Scene::local();
    let mut ids = Vec::new();
    for slot in 0..4 {
        ids.push(scene.ship(slot, EU, Listed::Hashed, |_| {}).await);
    }
    // The first block ends where the range begins, the last one begins a moment after its end.
    let range = ["--min-time=2026-01-01T02:00:00Z", "--max-time=2026-01-01T05:59:59.999Z"];
    scene.restore(&range).assert(0, &["2 of 2 blocks"]);
    let mut expected = ids[1..3].to_vec();
    expected.sort();
    assert_eq!(scene.entries(), expected);
}

#[tokio::test]
async fn what_was_merged_is_taken_once_and_what_is_to_go_still_counts() {
    let scene = Scene::local();
    let part = scene.ship(0, EU, Listed::Hashed, |_| {}).await;
    let lone = scene.ship(1, EU, Listed::Hashed, |_| {}).await;
    scene
        .bucket
        .put(&format!("{lone}/deletion-mark.json"), b"{}".to_vec())
        .await;
    let whole = "01KDTTTTTTTTTTTTTTTTTTTTTT";
    scene
        .ship(0, EU, Listed::Hashed, |meta| {
            meta["ulid"] = whole.into();
            meta["compaction"] = json!({ "level": 2, "sources": [part, "01KDTTTTTTTTTTTTTTTTTTTTT0"] });
        })
        .await;
    let ran = scene.restore(&["--output=json"]);
    ran.assert(0, &[]);
    let told = ran.json();
    let mut found = decisions(&told);
    found.sort();
    let row = |id: &str, word: &str| (id.to_owned(), word.to_owned());
    let mut expected = vec![row(&part, "leave_out"), row(&lone, "restore"), row(whole, "restore")];
    expected.sort();
    assert_eq!(found, expected);
    let note = |id: &str| {
        told["blocks"]
            .as_array()
            .unwrap()
            .iter()
            .find(|row| row["ulid"] == id)
            .unwrap()["note"]
            .clone()
    };
    assert_eq!(note(&part), format!("merged into {whole}"));
    assert_eq!(note(&lone), "marked for deletion");
    scene.assert_same(&lone).await;
}

#[tokio::test]
async fn downsampled_blocks_are_left_out_and_not_silently() {
    let scene = Scene::local();
    let raw = scene.ship(0, EU, Listed::Hashed, |_| {}).await;
    let coarse = scene
        .ship(1, EU, Listed::Hashed, |meta| {
            meta["thanos"]["downsample"]["resolution"] = 300_000.into()
        })
        .await;
    let ran = scene.restore(&[]);
    ran.assert(
        3,
        &[
            "downsampled to 300 s: Prometheus cannot read it",
            "2026-01-01T02:00:00Z to 2026-01-01T03:59:30.001Z",
            "--skip-downsampled",
        ],
    );
    assert_eq!(scene.entries(), [""; 0]);
    let told = scene.restore(&["--output=json"]).json();
    // promtool ends a block with its last sample.
    let from = 1_767_225_600_000_i64 + 2 * 3_600_000;
    assert_eq!(
        told["refusal"],
        json!({ "why": "only_downsampled", "ranges": [{ "min_time": from, "max_time": from + 7_170_001 }] })
    );
    let ran = scene.restore(&["--skip-downsampled"]);
    ran.assert(0, &[&coarse, "left out      1 block"]);
    assert_eq!(scene.entries(), [raw]);
}

#[tokio::test]
async fn what_is_no_block_is_passed_over_and_told() {
    let scene = Scene::local();
    let id = scene.ship(0, EU, Listed::Hashed, |_| {}).await;
    let odd = "01KDTTTTTTTTTTTTTTTTTTTTTT";
    scene
        .bucket
        .put(&format!("{odd}/meta.json"), b"{\"version\":2}".to_vec())
        .await;
    scene
        .bucket
        .put("01KDTTTTTTTTTTTTTTTTTTTTT0/index", b"x".to_vec())
        .await;
    scene.restore(&["--dry-run"]).assert(
        3,
        &["left out: 1 block whose meta.json cannot be used", "This was a dry run"],
    );
    scene.restore(&[]).assert(
        3,
        &[
            odd,
            "leaving out a block",
            "unreadable=1",
            "partial=1",
            "left out: 1 block whose meta.json cannot be used",
        ],
    );
    assert_eq!(scene.entries(), [id]);
}
