//! A ledger that is missing, damaged, hidden or of another bucket: it proves nothing, and nothing is sent twice for it.

use std::{
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::Path,
};

use fs_err as fs;
use serde_json::Value;
use tempfile::TempDir;

use crate::{
    bad_blocks::stage::{PATIENCE, Stage, args, copy, listed, prometheus, seal, sound, wait_for_log},
    rig::{BucketView, S3Server, Sidecar, bucket, tools::temp_dir, wait_until},
};

/// A sidecar that has shipped one block to a bucket which counts what is sent, and was killed then.
struct Shipped {
    data: TempDir,
    id: String,
    bucket: BucketView,
    server: S3Server,
    sidecar: Sidecar,
}

impl Shipped {
    async fn one_block() -> Shipped {
        let (data, server) = (temp_dir("data"), S3Server::start());
        let bucket = server.bucket("ledger");
        let sidecar = Sidecar::start(args(prometheus().await, data.path(), &bucket, &[]));
        let passed = async || (sidecar.metric("thanos_shipper_dir_syncs_total").await? >= 1.0).then_some(());
        sidecar.wait_until(PATIENCE, "a pass", passed).await;
        let id = seal(&sound(0), data.path(), |_| {});
        let shipped = Shipped {
            data,
            id,
            bucket,
            server,
            sidecar,
        };
        shipped.wait_for_ledger(&[&shipped.id]).await;
        shipped.sidecar.kill9();
        shipped
    }

    fn ledger(&self) -> std::path::PathBuf {
        self.data.path().join("thanos.shipper.json")
    }

    /// Waits for a ledger of ours that lists these blocks and that everybody can read.
    async fn wait_for_ledger(&self, ids: &[&str]) {
        let mut expected = ids.to_vec();
        expected.sort_unstable();
        let good = async || {
            let json: Value = serde_json::from_slice(&fs::read(self.ledger()).ok()?).ok()?;
            let mode = fs::metadata(self.ledger()).ok()?.mode();
            let ours = json.pointer("/narthex/bucket")?.as_str()?.ends_with("/ledger");
            (listed(&self.ledger())? == expected && ours && mode & 0o777 == 0o644).then_some(())
        };
        let what = format!("the ledger lists {ids:?} with mode 644");
        self.sidecar.wait_until(PATIENCE, what, good).await;
    }

    fn sent(&self) -> usize {
        self.server
            .seen()
            .iter()
            .filter(|seen| seen.method == "PUT" || seen.method == "POST")
            .count()
    }

    /// Starts it beside what is in the place of the ledger now, which `said` must tell.
    async fn again(&mut self, said: &[&str]) {
        let (sent, lines) = (self.sent(), self.sidecar.log().lines().count());
        self.sidecar.start_again();
        self.wait_for_ledger(&[&self.id]).await;
        let passed = async || (self.sidecar.metric("thanos_shipper_dir_syncs_total").await? >= 1.0).then_some(());
        self.sidecar.wait_until(PATIENCE, "a pass", passed).await;
        assert_eq!(self.sent(), sent, "{said:?}: something was sent again");
        let log: Vec<String> = self.sidecar.log().lines().skip(lines).map(str::to_owned).collect();
        let told = |line: &&String| said.iter().all(|part| line.contains(part));
        assert!(
            said.is_empty() || log.iter().any(|line| told(&line)),
            "{said:?}: {log:#?}"
        );
        self.sidecar.kill9();
    }
}

#[tokio::test]
async fn a_bad_ledger_is_made_good_from_the_bucket_and_nothing_is_sent_again() {
    let mut shipped = Shipped::one_block().await;
    let path = shipped.ledger();
    let ours = fs::read(&path).unwrap();
    let (id, dir) = (shipped.id.clone(), shipped.data.path().to_owned());
    let bad = ["level=error", "the ledger cannot be used"];

    fs::remove_file(&path).unwrap();
    shipped.again(&["level=info", "there is no ledger yet"]).await;
    for content in [
        Vec::new(),
        ours[..ours.len() / 2].to_vec(),
        vec![0; ours.len()],
        b"\x89PNG\r\n\x1a\n\xff\xfe".to_vec(),
        format!("{{\"version\": 2, \"uploaded\": [\"{id}\"]}}").into_bytes(),
        b"{\"version\": 1, \"uploaded\": {}, \"narthex\": {\"bucket\": \"x\"}}".to_vec(),
    ] {
        fs::write(&path, content).unwrap();
        shipped.again(&bad).await;
    }
    // As Thanos writes it, without a word about the bucket.
    for list in ["null".to_owned(), "[]".to_owned(), format!("[\"{id}\"]")] {
        fs::write(&path, format!("{{\n\t\"version\": 1,\n\t\"uploaded\": {list}\n}}\n")).unwrap();
        shipped.again(&["level=info", "does not say which bucket"]).await;
    }
    // Of another program's next version: what we know counts, the rest is no harm.
    let mut more: Value = serde_json::from_slice(&ours).unwrap();
    more["later"] = serde_json::json!({"x": [1, 2, null]});
    more["narthex"]["later"] = "y".into();
    fs::write(&path, more.to_string()).unwrap();
    shipped.again(&[]).await;
    // Half of a write that a crash cut.
    fs::write(dir.join("thanos.shipper.json.tmp"), "{\"vers").unwrap();
    fs::write(&path, &ours).unwrap();
    fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
    shipped.again(&[]).await;
    bucket::check(&shipped.bucket, &id, &dir.join(&id)).await.unwrap();
}

#[tokio::test]
async fn what_thanos_wrote_stays_until_the_bucket_can_be_asked() {
    let mut shipped = Shipped::one_block().await;
    let (id, path) = (shipped.id.clone(), shipped.ledger());
    let thanos = format!("{{\n\t\"version\": 1,\n\t\"uploaded\": [\n\t\t\"{id}\"\n\t]\n}}\n");
    fs::write(&path, &thanos).unwrap();
    shipped.server.down();
    shipped.sidecar.start_again();
    let failed =
        async || (shipped.sidecar.metric("thanos_shipper_dir_sync_failures_total").await? >= 2.0).then_some(());
    shipped.sidecar.wait_until(PATIENCE, "two passes fail", failed).await;
    assert_eq!(fs::read_to_string(&path).unwrap(), thanos);
    // As one that gives it up: it leaves nothing but what it found.
    shipped.sidecar.kill9();
    assert_eq!(fs::read_to_string(&path).unwrap(), thanos);
    let kept = path.with_file_name("thanos.shipper.json.before-narthex");
    assert!(!kept.try_exists().unwrap());
    shipped.server.up();
    shipped.again(&["level=info", "does not say which bucket"]).await;
    assert_eq!(fs::read_to_string(kept).unwrap(), thanos);
}

#[tokio::test]
async fn a_directory_in_place_of_the_ledger_is_told_until_it_is_gone() {
    let stage = Stage::start(&[]).await;
    let ledger = stage.dir().join("thanos.shipper.json");
    fs::remove_file(&ledger).unwrap();
    fs::create_dir(&ledger).unwrap();
    fs::write(ledger.join("in the way"), "").unwrap();
    let first = seal(&sound(0), stage.dir(), |_| {});
    stage
        .wait_for_log(&["level=error", "cannot write the ledger", "Is a directory"])
        .await;
    stage
        .wait_for_metric("thanos_shipper_uploads_total", &[], |uploads| uploads == 1.0)
        .await;
    stage.assert_shipped(&[&first]).await;
    stage
        .wait_for_metric("narthex_ledger_write_failures_total", &[], |count| count >= 1.0)
        .await;
    fs::remove_dir_all(&ledger).unwrap();
    let second = seal(&sound(1), stage.dir(), |_| {});
    stage.wait_for_ledger(&[&first, &second]).await;
    assert_eq!(stage.metric("thanos_shipper_uploads_total").await, 2.0);
}

#[tokio::test]
async fn a_directory_in_place_of_the_ledger_at_the_start_stops_no_block() {
    let data = temp_dir("data");
    fs::create_dir(data.path().join("thanos.shipper.json")).unwrap();
    let stage = Stage::open(data, &[], &[]).await;
    stage
        .wait_for_log(&["level=error", "the ledger cannot be used", "Is a directory"])
        .await;
    stage.wait_for_pass().await;
    let id = seal(&sound(0), stage.dir(), |_| {});
    stage
        .wait_for_metric("thanos_shipper_uploads_total", &[], |uploads| uploads == 1.0)
        .await;
    stage.assert_shipped(&[&id]).await;
}

#[tokio::test]
async fn a_ledger_that_somebody_removes_replaces_or_hides_comes_back() {
    let stage = Stage::start(&[]).await;
    let ledger = stage.dir().join("thanos.shipper.json");
    let mut ids: Vec<String> = Vec::new();
    let harms: [fn(&Path); 4] = [
        |ledger| fs::remove_file(ledger).unwrap(),
        |ledger| fs::write(ledger, "{\"version\": 1, \"uploaded\": null}").unwrap(),
        |ledger| fs::write(ledger, "").unwrap(),
        |ledger| fs::set_permissions(ledger, PermissionsExt::from_mode(0o600)).unwrap(),
    ];
    for (slot, harm) in (0..).zip(harms) {
        harm(&ledger);
        ids.push(seal(&sound(slot), stage.dir(), |_| {}));
        let expected: Vec<&str> = ids.iter().map(String::as_str).collect();
        stage.wait_for_ledger(&expected).await;
        let readable = async || (fs::metadata(&ledger).ok()?.mode() & 0o777 == 0o644).then_some(());
        wait_until(PATIENCE, "everybody can read the ledger", readable).await;
    }
}

#[tokio::test]
async fn a_ledger_of_another_bucket_does_not_count() {
    let shipped = Shipped::one_block().await;
    let (data, id) = (&shipped.data, &shipped.id);
    let store = temp_dir("bucket");
    let other = BucketView::dir(store.path());
    let sidecar = Sidecar::start(args(prometheus().await, data.path(), &other, &[]));
    let line = wait_for_log(&sidecar, &["level=warn", "the ledger belongs to another bucket"]).await;
    assert!(line.contains(&shipped.server.host()), "{line}");
    let visible = async || (other.visible().await == [id.as_str()]).then_some(());
    sidecar
        .wait_until(PATIENCE, "the block is in the other bucket", visible)
        .await;
    bucket::check(&other, id, &data.path().join(id)).await.unwrap();
    let recorded = async || (listed(&shipped.ledger())? == [id.as_str()]).then_some(());
    sidecar
        .wait_until(PATIENCE, "the ledger lists it again", recorded)
        .await;
    let ledger: Value = serde_json::from_slice(&fs::read(shipped.ledger()).unwrap()).unwrap();
    let bucket = ledger.pointer("/narthex/bucket").and_then(Value::as_str).unwrap();
    assert!(bucket.contains(&store.path().display().to_string()), "{bucket}");
}

#[tokio::test]
async fn a_block_that_the_compactor_has_merged_is_not_sent_again_when_the_ledger_is_lost() {
    let mut shipped = Shipped::one_block().await;
    // What the compactor does: one larger block with the sources in it, and the originals gone.
    let merged = ulid::Ulid::generate().to_string();
    let work = temp_dir("merged");
    copy(
        &shipped.data.path().join(&shipped.id),
        &work.path().join("block"),
        &merged,
    );
    let mut meta: Value = serde_json::from_slice(&fs::read(work.path().join("block/meta.json")).unwrap()).unwrap();
    meta["compaction"] =
        serde_json::json!({"level": 2, "sources": [shipped.id.as_str(), "01K4ABCDEFGHJKMNPQRSTVWXYZ"]});
    meta["thanos"] = serde_json::json!({"labels": {"cluster": "rig", "replica": "0"}, "source": "compactor"});
    for file in ["chunks/000001", "index"] {
        let bytes = fs::read(work.path().join("block").join(file)).unwrap();
        shipped.bucket.put(&format!("{merged}/{file}"), bytes).await;
    }
    shipped
        .bucket
        .put(&format!("{merged}/meta.json"), meta.to_string().into_bytes())
        .await;
    for key in shipped.bucket.list_below(&format!("{}/", shipped.id)).await.into_keys() {
        shipped.bucket.delete(&key).await;
    }
    fs::write(shipped.ledger(), "{\"version\": 1").unwrap();
    let said = [
        "other blocks in the bucket hold the samples of this block",
        merged.as_str(),
    ];
    shipped.again(&said).await;
    assert_eq!(shipped.bucket.visible().await, [merged]);
}
