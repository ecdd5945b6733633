//! The rig itself: what the other tests stand on does what it says.

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use crate::rig::{
    BucketView, Fault, Keeper, Metrics, Prometheus, Rule, S3Server, Sidecar, Tools, Weed, assert_all_shipped, blocks,
    blocks::Spec,
    limit,
    process::Process,
    prometheus::{Options, sealed},
    tools::temp_dir,
    wait_until,
};

/// How long anything may take; the rest is for busy machines.
const LONG: Duration = Duration::from_secs(60);

#[tokio::test]
async fn every_prometheus_seals_blocks_in_seconds_and_the_keeper_keeps_them() {
    let mut all = Vec::new();
    for leg in Tools::find().legs {
        // Retention is relative to the newest block, and looked at each time a block is sealed.
        let args = vec!["--storage.tsdb.retention.time=6s".to_owned()];
        let prometheus = Prometheus::start(
            &leg,
            Options {
                args,
                ..Options::default()
            },
        )
        .await;
        let keeper = Keeper::watch(prometheus.data());
        all.push((prometheus, keeper));
    }
    for (prometheus, keeper) in &all {
        let first = prometheus.wait_for_blocks(1, Duration::from_secs(60)).await.remove(0);
        let gone = async || (!prometheus.blocks().contains(&first)).then_some(());
        wait_until(LONG, "retention deletes the first block", gone).await;
        assert!(
            keeper
                .block(&first)
                .is_some_and(|copy| copy.join("chunks/000001").is_file())
        );
        assert!(prometheus.stop().await.success(), "{}", prometheus.version());
    }
}

/// Puts, reads, lists and removes through the rig's own client.
async fn store_and_look(bucket: BucketView) {
    let bucket = bucket.below("a b/ü");
    assert!(bucket.list().await.is_empty());
    let mut expected = std::collections::BTreeMap::new();
    for (key, size) in [("01A/index", 1 << 20), ("01A/meta.json", 2), ("x+y & <z>", 0)] {
        bucket.put(key, vec![b'7'; size]).await;
        expected.insert(key.to_owned(), size as u64);
    }
    assert_eq!(bucket.list().await, expected);
    assert_eq!(bucket.list_below("01A/").await.len(), 2);
    assert_eq!(bucket.read("01A/meta.json").await.as_deref(), Some(&b"77"[..]));
    assert_eq!(bucket.read("01A/none").await, None);

    let dir = temp_dir("same");
    let file = dir.path().join("file");
    for (size, differs, wrong) in [
        (1 << 20, None, None),
        ((1 << 20) + 1, None, Some("the file is longer")),
        ((1 << 20) - 1, None, Some("longer than the file")),
        (1 << 20, Some(70_000), Some("byte 70000 differs")),
    ] {
        let mut bytes = vec![b'7'; size];
        if let Some(at) = differs {
            bytes[at] = b'8';
        }
        fs_err::write(&file, bytes).expect("the directory can be written");
        match (bucket.same("01A/index", &file).await, wrong) {
            (Ok(()), None) => {}
            (Err(error), Some(wrong)) => assert!(error.contains(wrong), "{error}"),
            (other, _) => panic!("{other:?}, expected {wrong:?}"),
        }
    }
    bucket.delete("01A/index").await;
    assert_eq!(bucket.list().await.len(), 2);
}

#[tokio::test]
async fn looks_into_a_directory() {
    let dir = temp_dir("bucket");
    store_and_look(BucketView::dir(&dir.path().join("not yet there"))).await;
}

#[tokio::test]
async fn looks_into_seaweedfs() {
    let bucket = Weed::shared().await.bucket("look").await;
    assert!(bucket.open_uploads().await.is_empty());
    store_and_look(bucket).await;
}

#[tokio::test]
async fn looks_into_the_server_in_process() {
    let server = S3Server::start();
    store_and_look(server.bucket("look")).await;
}

#[tokio::test]
async fn faults_do_what_they_are_named_for() {
    let server = S3Server::start();
    let bucket = server.bucket("faults");
    let client = crate::rig::S3Client::new(format!("http://{}", server.host()), "faults");
    let body = || vec![1; 1 << 20];

    server.fault(Rule::on("PUT", "a/*", Fault::Answer(503, "SlowDown")).skip(1).times(1));
    client.put("a/1", body()).await.unwrap();
    let error = client.put("a/2", body()).await.unwrap_err();
    assert!(error.contains("503") && error.contains("SlowDown"), "{error}");
    client.put("a/3", body()).await.unwrap();

    for (key, fault, stored) in [
        ("b/cut", Fault::CutBody(1000), false),
        ("b/lose", Fault::LoseAnswer, true),
        ("b/done", Fault::DoneBut(500, "InternalError"), true),
    ] {
        server.fault(Rule::on("PUT", key, fault));
        client.put(key, body()).await.unwrap_err();
        assert_eq!(bucket.read(key).await.is_some(), stored, "{key}");
    }

    server.fault(Rule::on("PUT", "b/swallow", Fault::Swallow));
    client.put("b/swallow", body()).await.unwrap();
    assert_eq!(bucket.read("b/swallow").await, None);

    server.fault(Rule::on("GET", "a/1", Fault::CutAnswer(1000)).times(1));
    let mut answer = client.get("a/1").await.unwrap().unwrap();
    let mut seen = 0;
    while let Ok(Some(chunk)) = answer.chunk().await {
        seen += chunk.len();
    }
    assert_eq!(seen, 1000);
    assert_eq!(bucket.read("a/1").await, Some(body()));

    for (key, fault) in [("c/hang", Fault::Hang), ("c/stall", Fault::StallBody(1000))] {
        server.fault(Rule::on("PUT", key, fault));
        tokio::time::timeout(Duration::from_millis(300), client.put(key, body()))
            .await
            .unwrap_err();
    }
    server.heal();
    client.put("c/hang", body()).await.unwrap();

    server.down();
    let refused = async || client.put("d", Vec::new()).await.err();
    wait_until(LONG, "the server refuses", refused).await;
    server.up();
    let serves = async || client.put("d", Vec::new()).await.ok();
    wait_until(LONG, "the server serves again", serves).await;
    assert!(
        server
            .seen()
            .iter()
            .any(|seen| seen.key == "a/2" && seen.length == 1 << 20 && seen.fault.is_some())
    );
}

#[tokio::test]
async fn whole_blocks_pass_and_others_do_not() {
    let (data, store) = (temp_dir("data"), temp_dir("bucket"));
    let keeper = Keeper::watch(data.path());
    let block = blocks::generate(Spec::small(0));
    let ids = [
        blocks::place(&block, data.path()),
        blocks::place_anew(&block, data.path()),
    ];
    wait_until(LONG, "two blocks", async || (keeper.blocks().len() == 2).then_some(())).await;

    let bucket = BucketView::dir(store.path());
    for id in &ids {
        let source = data.path().join(id);
        let mut meta: serde_json::Value =
            serde_json::from_slice(&fs_err::read(source.join("meta.json")).unwrap()).unwrap();
        let mut files = Vec::new();
        for name in ["chunks/000001", "index"] {
            let bytes = fs_err::read(source.join(name)).unwrap();
            files.push(serde_json::json!({"rel_path": name, "size_bytes": bytes.len()}));
            bucket.put(&format!("{id}/{name}"), bytes).await;
        }
        files.push(serde_json::json!({"rel_path": "meta.json"}));
        meta["thanos"] = serde_json::json!({ "files": files });
        bucket
            .put(&format!("{id}/meta.json"), meta.to_string().into_bytes())
            .await;
    }
    assert_all_shipped(&bucket, &keeper).await;

    let mut index = bucket.read(&format!("{}/index", ids[0])).await.unwrap();
    index[1000] ^= 1;
    bucket.put(&format!("{}/index", ids[0]), index).await;
    let (view, checked) = (
        bucket.clone(),
        tokio::spawn(async move { assert_all_shipped(&bucket, &keeper).await }),
    );
    let panic = checked.await.unwrap_err().into_panic();
    let text = panic.downcast_ref::<String>().unwrap();
    assert!(text.contains("byte 1000 differs"), "{text}");
    assert_eq!(view.visible().await.len(), 2);
}

#[test]
fn a_sparse_block_is_legal_and_small_on_disk() {
    use std::os::unix::fs::MetadataExt;
    let (dir, block) = blocks::sparse(3 << 30);
    let files = fs_err::read_dir(block.join("chunks"))
        .unwrap()
        .map(|entry| entry.unwrap().metadata().unwrap());
    let (bytes, disk) = files.fold((0, 0), |(bytes, disk), file| {
        (bytes + file.len(), disk + file.blocks() * 512)
    });
    assert!(bytes > 3 << 30 && disk < 4 << 20, "{bytes} bytes take {disk}");
    // Prometheus' own tool opens the block and walks its index and chunks.
    let id = sealed(dir.path()).remove(0);
    let done = Command::new(Tools::oldest().promtool)
        .args(["tsdb", "analyze"])
        .arg(dir.path())
        .arg(id)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&done.stdout);
    assert!(done.status.success() && text.contains("\nSeries: 100\n"), "{done:?}");
}

/// Both S3 servers as narthex sees them: what the rig writes as its configuration is understood.
#[tokio::test]
async fn the_sidecar_ships_to_both_s3_servers() {
    let server = S3Server::start();
    for bucket in [
        server.bucket("ship").below("of/ours"),
        Weed::shared().await.bucket("ship").await,
    ] {
        let dir = temp_dir("ship");
        let data = dir.path().join("data");
        fs_err::create_dir_all(&data).unwrap();
        let keeper = Keeper::watch(&data);
        let options = Options {
            data: Some(data.clone()),
            scrape: false,
            ..Options::default()
        };
        let prometheus = Prometheus::start(&Tools::oldest(), options).await;
        for slot in 0..2 {
            blocks::place(&blocks::generate(Spec::small(slot)), &data);
        }
        let sidecar = Sidecar::start(Sidecar::flags(&prometheus, &bucket.config()));
        sidecar.wait_ready(Duration::from_secs(60)).await;
        let shipped = async || (bucket.visible().await.len() == 2).then_some(());
        sidecar.wait_until(LONG, "both blocks in the bucket", shipped).await;
        assert!(sidecar.stop().await.success(), "{}", sidecar.log());
        assert_all_shipped(&bucket, &keeper).await;
    }
}

/// Set for the processes that [`this_program_for`] starts: their directory.
const ORPHAN: &str = "NARTHEX_RIG_ORPHAN";

/// This very program once more, for one test of this module only, with a directory for what that test is to tell.
fn this_program_for(test: &str, dir: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", &format!("rig_test::{test}"), "--nocapture"])
        .env(ORPHAN, dir);
    command
}

/// Waits for the number of the process that [`becomes_a_parent`] and [`hangs`] start.
async fn child(dir: &Path) -> String {
    let told = async || fs_err::read_to_string(dir.join("id")).ok();
    wait_until(LONG, "the parent has a child", told).await
}

/// Waits until the process and its files are gone; the watchdog removes these a moment after it has killed that.
async fn is_gone(child: &str, dir: &Path) {
    let (process, files) = (PathBuf::from(format!("/proc/{child}")), dir.join("sweep"));
    let gone = async || (!process.is_dir() && !files.is_dir()).then_some(());
    wait_until(LONG, "the child and its files are gone", gone).await;
}

#[tokio::test]
async fn a_child_ends_with_the_process_that_started_it() {
    let dir = temp_dir("orphan");
    let mut command = this_program_for("becomes_a_parent", dir.path());
    let parent = Process::spawn("parent", &mut command, &dir.path().join("log"), None);
    let child = child(dir.path()).await;
    assert!(Path::new(&format!("/proc/{child}")).is_dir());
    parent.kill();
    is_gone(&child, dir.path()).await;
}

#[tokio::test]
async fn a_test_that_takes_too_long_ends_the_run_with_its_name_and_the_logs_of_its_programs() {
    let dir = temp_dir("limit");
    let mut command = this_program_for("hangs", dir.path());
    command.env(limit::VARIABLE, "2");
    let parent = Process::spawn("parent", &mut command, &dir.path().join("log"), None);
    let child = child(dir.path()).await;
    let status = parent.wait(LONG).await;
    assert!(!status.success(), "{status}");
    let log = parent.log();
    for told in [
        "the test rig_test::hangs has run for more than 2s",
        "end of the log of sleep",
        "a word",
    ] {
        assert!(log.contains(told), "{told}: {log}");
    }
    is_gone(&child, dir.path()).await;
}

/// Starts a program that does nothing for long, if this process is to be a parent; tells its number.
fn parent() -> Option<Process> {
    let dir = PathBuf::from(std::env::var_os(ORPHAN)?);
    let sweep = dir.join("sweep");
    fs_err::create_dir_all(&sweep).unwrap();
    let mut command = Command::new("sh");
    command.args(["-c", "echo a word; exec sleep 600"]);
    let child = Process::spawn("sleep", &mut command, &sweep.join("log"), Some(&sweep));
    fs_err::write(dir.join("half"), child.id().to_string()).unwrap();
    fs_err::rename(dir.join("half"), dir.join("id")).unwrap();
    Some(child)
}

#[test]
fn becomes_a_parent() {
    let Some(_child) = parent() else { return };
    std::thread::sleep(Duration::from_secs(600));
}

#[tokio::test]
async fn hangs() {
    let Some(_child) = parent() else { return };
    std::future::pending().await
}

#[test]
fn metrics_are_read() {
    let page = "# HELP a b\na 1\nb{x=\"1\",y=\"q\\\"u\\\\o\\nte,}\"} 2.5\nb{x=\"2\"} 1e3 1234\nc{le=\"+Inf\"} +Inf\n";
    let metrics = Metrics::parse(page);
    assert_eq!(metrics.value("a", &[]), Some(1.0));
    assert_eq!(metrics.value("b", &[]), Some(1002.5));
    assert_eq!(metrics.value("b", &[("y", "q\"u\\o\nte,}")]), Some(2.5));
    assert_eq!(metrics.value("c", &[("le", "+Inf")]), Some(f64::INFINITY));
    assert_eq!(metrics.value("d", &[]), None);
    assert!(metrics.has("b") && !metrics.has("e"));
}
