//! What looks like a block and is none, and blocks that are not for the bucket.

use std::{os::unix::fs::symlink, path::Path};

use fs_err as fs;
use serde_json::{Value, json};

use super::stage::{Stage, copy, edit_meta, log_line, seal, sound};
use crate::rig::tools::temp_dir;

#[tokio::test]
async fn what_is_not_a_block_is_ignored_without_complaint() {
    let stage = Stage::start(&[]).await;
    let (data, elsewhere) = (stage.dir(), temp_dir("elsewhere"));
    // Each is a whole block behind a name that Prometheus itself does not take for one.
    let mut ignored = Vec::new();
    for name in [
        "01k4abcdefghjkmnpqrstvwxyz",
        "01K4ABCDEFGHJKMNPQRSTVWXYI",
        "8ZZZZZZZZZZZZZZZZZZZZZZZZZ",
        "backup-before-the-upgrade1",
        "01K4ABCDEFGHJKMNPQRSTVWXY0.tmp-for-creation",
        "01K4ABCDEFGHJKMNPQRSTVWXY1.tmp-for-deletion",
        "01K4ABCDEFGHJKMNPQRSTVWXY2.tmp",
        "thanos/upload/01K4ABCDEFGHJKMNPQRSTVWXY3",
        "snapshots/20260101T000000Z-0/01K4ABCDEFGHJKMNPQRSTVWXY4",
    ] {
        let id = name
            .split(['/', '.'])
            .find(|part| part.starts_with("01K4"))
            .unwrap_or(name);
        copy(&sound(1), &data.join(name), id);
        ignored.push(id.to_owned());
    }
    let linked = seal(&sound(1), elsewhere.path(), |_| {});
    symlink(elsewhere.path().join(&linked), data.join(&linked)).unwrap();
    fs::write(data.join("01K4ABCDEFGHJKMNPQRSTVWXY5"), "a file").unwrap();
    symlink("/nowhere", data.join("01K4ABCDEFGHJKMNPQRSTVWXY6")).unwrap();
    ignored.extend([
        linked,
        "01K4ABCDEFGHJKMNPQRSTVWXY5".into(),
        "01K4ABCDEFGHJKMNPQRSTVWXY6".into(),
    ]);
    let older = seal(&sound(0), data, |_| {});
    let newer = seal(&sound(2), data, |_| {});

    stage.wait_for_ledger(&[&older, &newer]).await;
    stage.assert_shipped(&[&older, &newer]).await;
    for name in ignored {
        assert_eq!(log_line(&stage.sidecar, &[&name]), None);
    }
    for name in ["thanos_shipper_corrupted_blocks_total", "narthex_unuploaded_blocks"] {
        assert_eq!(stage.metric(name).await, 0.0, "{name}");
    }
}

#[tokio::test]
async fn what_lies_beside_the_files_of_a_block_is_left_where_it_is() {
    let stage = Stage::start(&[]).await;
    let id = seal(&sound(0), stage.dir(), |dir| {
        for stray in [
            "chunks/000001.tmp",
            "chunks/.nfs0000000000000001",
            "index_tmp_p",
            "notes.txt",
        ] {
            fs::write(dir.join(stray), "x").unwrap();
        }
    });
    stage.wait_for_ledger(&[&id]).await;
    let keys: Vec<String> = stage.bucket.list().await.into_keys().collect();
    let expected = ["chunks/000001", "index", "meta.json"].map(|name| format!("{id}/{name}"));
    assert_eq!(keys, expected);
}

fn level(level: u64) -> impl Fn(&mut Value) {
    move |meta| meta["compaction"]["level"] = level.into()
}

#[tokio::test]
async fn blocks_without_samples_and_compacted_ones_are_skipped() {
    let stage = Stage::start(&[]).await;
    let data = stage.dir();
    let older = seal(&sound(0), data, |_| {});
    // It has series, whatever it says of samples.
    let odd = seal(&sound(1), data, |dir| {
        edit_meta(dir, |meta| meta["stats"]["numSamples"] = 0.into());
    });
    // That is how Prometheus writes a block without samples. It is listed, so that Prometheus does not wait for it.
    let empty = seal(&sound(1), data, |dir| edit_meta(dir, |meta| meta["stats"] = json!({})));
    let open = [2, 3].map(|compacted| seal(&sound(1), data, |dir| edit_meta(dir, level(compacted))));
    let newer = seal(&sound(2), data, |_| {});
    stage.wait_for_ledger(&[&older, &odd, &empty, &newer]).await;
    stage.assert_shipped(&[&older, &odd, &newer]).await;
    let unproven = "not known to be in the bucket";
    for id in &open {
        let told = ["level=error", unproven, id, "--shipper.upload-compacted"];
        stage.wait_for_log(&told).await;
    }
    let passes = stage.metric("thanos_shipper_dir_syncs_total").await;
    let merged = seal(&sound(0), data, |dir| {
        edit_meta(dir, |meta| {
            level(2)(meta);
            meta["compaction"]["sources"] = json!([older]);
        });
    });
    let last = seal(&sound(3), data, |_| {});
    stage.wait_for_ledger(&[&older, &odd, &empty, &newer, &last]).await;
    stage
        .wait_for_metric("thanos_shipper_dir_syncs_total", &[], |now| now > passes)
        .await;
    stage.assert_shipped(&[&older, &odd, &newer, &last]).await;
    // What is in the bucket as its source is no worry.
    assert_eq!(log_line(&stage.sidecar, &[unproven, &merged]), None);
    assert_eq!(stage.metric("narthex_unuploaded_blocks").await, 2.0);
    assert_eq!(stage.metric("thanos_shipper_corrupted_blocks_total").await, 0.0);
}

#[tokio::test]
async fn compacted_blocks_are_shipped_when_that_is_wanted() {
    let stage = Stage::start(&["--shipper.upload-compacted"]).await;
    let older = seal(&sound(0), stage.dir(), |_| {});
    let compacted = seal(&sound(1), stage.dir(), |dir| edit_meta(dir, level(3)));
    let empty = seal(&sound(1), stage.dir(), |dir| {
        edit_meta(dir, |meta| {
            level(2)(meta);
            meta["stats"] = json!({});
        });
    });
    let newer = seal(&sound(2), stage.dir(), |_| {});
    stage.wait_for_ledger(&[&older, &compacted, &newer]).await;
    stage.assert_shipped(&[&older, &compacted, &newer]).await;
    assert_eq!(log_line(&stage.sidecar, &[&empty]), None);
}

/// Puts the `meta.json` of a block that covers what `source` covers into the bucket, as another program would.
async fn in_the_bucket(stage: &Stage, source: &Path, change: impl FnOnce(&mut Value)) -> String {
    let id = ulid::Ulid::generate().to_string();
    let mut meta: Value = serde_json::from_slice(&fs::read(source.join("meta.json")).unwrap()).unwrap();
    meta["ulid"] = id.as_str().into();
    meta["compaction"] = json!({"level": 2, "sources": ["01K4ABCDEFGHJKMNPQRSTVWXYZ"]});
    meta["thanos"] = json!({
        "labels": {"cluster": "rig", "replica": "0"}, "downsample": {"resolution": 0}, "source": "compactor",
    });
    change(&mut meta);
    stage
        .bucket
        .put(&format!("{id}/meta.json"), meta.to_string().into_bytes())
        .await;
    id
}

#[tokio::test]
async fn a_compacted_block_that_overlaps_the_bucket_is_refused_by_name() {
    let stage = Stage::start(&["--shipper.upload-compacted"]).await;
    // These two overlap it by their labels and times; the second only by its last half.
    let first = in_the_bucket(&stage, &sound(1), |_| {}).await;
    let second = in_the_bucket(&stage, &sound(1), |meta| {
        let (min, max) = (meta["minTime"].as_i64().unwrap(), meta["maxTime"].as_i64().unwrap());
        meta["minTime"] = ((min + max) / 2).into();
    })
    .await;
    // What is in the way of the block in slot 3 only seems to be: other resolution, other labels, no commit, a range
    // that ends where the block begins.
    let mut others = vec![
        in_the_bucket(&stage, &sound(3), |meta| {
            meta["thanos"]["downsample"]["resolution"] = 300_000.into()
        })
        .await,
        in_the_bucket(&stage, &sound(3), |meta| {
            meta["thanos"]["labels"]["replica"] = "1".into()
        })
        .await,
        in_the_bucket(&stage, &sound(3), |meta| meta["thanos"]["labels"]["extra"] = "x".into()).await,
        in_the_bucket(&stage, &sound(3), |meta| {
            let min = meta["minTime"].clone();
            meta["minTime"] = (min.as_i64().unwrap() - 60_000).into();
            meta["maxTime"] = min;
        })
        .await,
    ];
    let partial = ulid::Ulid::generate().to_string();
    stage.bucket.put(&format!("{partial}/index"), vec![1; 100]).await;
    others.extend([first.clone(), second.clone()]);
    others.sort();

    let data = stage.dir();
    let older = seal(&sound(0), data, |_| {});
    let refused = seal(&sound(1), data, |dir| edit_meta(dir, level(2)));
    let compacted = seal(&sound(3), data, |dir| edit_meta(dir, level(2)));
    let newer = seal(&sound(4), data, |_| {});
    let line = stage
        .wait_for_log(&["level=error", "a block is left out", "reason=overlap", &refused])
        .await;
    for id in &others {
        assert_eq!(
            line.contains(id.as_str()),
            *id == first || *id == second,
            "{id}: {line}"
        );
    }
    stage.wait_for_ledger(&[&older, &compacted, &newer]).await;
    assert!(stage.bucket.list_below(&refused).await.is_empty());
    for id in [&older, &compacted, &newer] {
        stage.assert_same(id, &data.join(id)).await;
    }
    let mut visible = others.clone();
    visible.extend([older, compacted, newer]);
    visible.sort();
    assert_eq!(stage.bucket.visible().await, visible);
    assert_eq!(
        stage.bucket.list_below(&partial).await.len(),
        1,
        "the partial upload of somebody else stays"
    );
    stage
        .wait_for_metric("narthex_quarantined_blocks", &[("reason", "overlap")], |count| {
            count == 1.0
        })
        .await;
    assert!(stage.sidecar.ready().await);
}
