//! A real store that does not know us, or not the bucket.

use std::{
    path::Path,
    sync::{Arc, Mutex},
};

use fs_err as fs;
use s3s::{
    S3Result,
    auth::{S3Auth, SecretKey},
    s3_error,
};

use super::{PATIENCE, seal, sound};
use crate::{
    bad_blocks::stage::{Stage, args_for, listed, prometheus, wait_for_log},
    objstore::{s3_server_for, s3_yaml},
    rig::{
        BucketView, S3Client, Sidecar, Weed,
        tools::temp_dir,
        weed::{ACCESS_KEY, SECRET_KEY},
    },
};

/// A key that nobody has.
const WRONG: &str = "wrong-wrong-wrong";

/// A bucket of this name at the real store, made or not.
async fn bucket(name: &str) -> S3Client {
    S3Client::new(format!("http://{}", Weed::shared().await.host()), name)
}

/// The log line of a block whose upload to this bucket fails.
fn held_up<'a>(place: &'a str, id: &'a str) -> [&'a str; 4] {
    ["level=warn", "upload failed, retrying", place, id]
}

/// Writes a shared credentials file by a rename, as whoever rotates keys does.
fn write_keys(path: &Path, key: &str, secret: &str) {
    let half = path.with_extension("half");
    let text = format!("[default]\naws_access_key_id = {key}\naws_secret_access_key = {secret}\n");
    fs::write(&half, text).unwrap();
    fs::rename(half, path).unwrap();
}

/// Wrong keys come from a file; the file is mended, and nobody restarts narthex.
async fn wrong_then_mended(name: &str, key: &str, secret: &str, said: &[&str]) {
    let client = bucket(name).await;
    client.create_bucket().await.unwrap();
    let place = format!("s3://{}/{name}/", client.host());
    let (data, keys) = (temp_dir("data"), temp_dir("keys"));
    let file = keys.path().join("credentials");
    write_keys(&file, key, secret);
    let view = BucketView::s3(client);
    let config: String = view
        .config()
        .split_inclusive('\n')
        .filter(|line| !line.contains("_key:"))
        .collect();
    let env = vec![("AWS_SHARED_CREDENTIALS_FILE".to_owned(), file.display().to_string())];
    let sidecar = Sidecar::start_in(args_for(prometheus().await, data.path(), &config, &[]), env);
    let stage = Stage::of(data, view, sidecar);
    stage.wait_for_pass().await;
    let id = seal(&sound(0), stage.dir(), |_| {});
    let line = stage.wait_for_log(&[&held_up(&place, &id), said].concat()).await;
    write_keys(&file, ACCESS_KEY, SECRET_KEY);
    assert!(!line.contains(secret) && !line.contains("Signature="), "{line}");
    stage.wait_for_ledger(&[&id]).await;
    stage.assert_shipped(&[&id]).await;
    stage
        .wait_for_metric("thanos_shipper_upload_failures_total", &[], |count| count >= 1.0)
        .await;
}

#[tokio::test]
async fn wrong_keys_are_told_and_mended_where_they_come_from() {
    tokio::join!(
        wrong_then_mended(
            "wrong-key",
            WRONG,
            SECRET_KEY,
            &["403 InvalidAccessKeyId", "check the access key"]
        ),
        wrong_then_mended(
            "wrong-secret",
            ACCESS_KEY,
            WRONG,
            &[
                "403 SignatureDoesNotMatch",
                "the secret key does not fit the access key"
            ],
        ),
    );
}

#[tokio::test]
async fn wrong_keys_of_the_configuration_are_told_and_nothing_is_sent() {
    let client = bucket("wrong-config").await;
    client.create_bucket().await.unwrap();
    let view = BucketView::s3(client);
    let data = temp_dir("data");
    for (from, said) in [
        (ACCESS_KEY, ["403 InvalidAccessKeyId", "check the access key"]),
        (SECRET_KEY, ["403 SignatureDoesNotMatch", "the secret key does not fit"]),
    ] {
        let config = view.config().replace(from, WRONG);
        let sidecar = Sidecar::start(args_for(prometheus().await, data.path(), &config, &[]));
        sidecar.wait_ready(PATIENCE).await;
        let id = seal(&sound(0), data.path(), |_| {});
        // The first one to be looked for may be another of the data directory's blocks.
        wait_for_log(
            &sidecar,
            &[&["level=warn", "upload failed, retrying", "/wrong-config"], &said[..]].concat(),
        )
        .await;
        assert!(
            !sidecar.log().contains(SECRET_KEY) && !sidecar.log().contains(WRONG),
            "{}",
            sidecar.log()
        );
        assert!(view.list().await.is_empty(), "{id}");
        assert_eq!(listed(&data.path().join("thanos.shipper.json")).unwrap(), [""; 0]);
        assert!(sidecar.ready().await && sidecar.exited().is_none());
        let failures = async || (sidecar.metric("thanos_shipper_dir_sync_failures_total").await? >= 1.0).then_some(());
        sidecar.wait_until(PATIENCE, "a failure is counted", failures).await;
    }
}

#[tokio::test]
async fn a_bucket_that_is_missing_is_told_and_may_come_later() {
    let client = bucket("not-there").await;
    let place = format!("s3://{}/not-there/", client.host());
    let view = BucketView::s3(client.clone());
    let data = temp_dir("data");
    let sidecar = Sidecar::start(args_for(prometheus().await, data.path(), &view.config(), &[]));
    let stage = Stage::of(data, view, sidecar);
    stage.wait_for_pass().await;
    let id = seal(&sound(0), stage.dir(), |_| {});
    let said = [
        "404 NoSuchBucket",
        "create the bucket, or correct `bucket` and `endpoint`",
    ];
    stage.wait_for_log(&[&held_up(&place, &id), &said[..]].concat()).await;
    assert!(client.list("").await.is_err(), "narthex makes no bucket");
    assert!(stage.sidecar.ready().await);
    for (name, labels) in [
        ("thanos_shipper_upload_failures_total", &[][..]),
        (
            "thanos_objstore_bucket_operation_failures_total",
            &[("operation", "upload")][..],
        ),
    ] {
        stage.wait_for_metric(name, labels, |count| count >= 1.0).await;
    }
    // Each answer of this store has a number of its own; that is no news.
    stage
        .wait_for_metric("thanos_shipper_dir_sync_failures_total", &[], |count| count >= 3.0)
        .await;
    let log = stage.sidecar.log();
    assert_eq!(log.matches("upload failed, retrying").count(), 1, "{log}");
    client.create_bucket().await.unwrap();
    stage.wait_for_ledger(&[&id]).await;
    stage.assert_shipped(&[&id]).await;
}

#[tokio::test]
async fn a_log_at_debug_shows_no_credentials() {
    let client = bucket("debug-log").await;
    client.create_bucket().await.unwrap();
    let (data, keys) = (temp_dir("data"), temp_dir("keys"));
    let file = keys.path().join("credentials");
    write_keys(&file, ACCESS_KEY, SECRET_KEY);
    let customer_key = keys.path().join("sse.key");
    fs::write(&customer_key, [b'k'; 32]).unwrap();
    let view = BucketView::s3(client);
    let more = format!(
        "trace: {{enable: true}}\nsse_config: {{type: SSE-C, encryption_key: {}}}\n",
        customer_key.display()
    );
    let config = view.config_with(&more);
    // Once from a file, by the longest way through the SDK, and once from the configuration.
    let from_file: String = config
        .split_inclusive('\n')
        .filter(|line| !line.contains("_key: rig"))
        .collect();
    for config in [from_file, config] {
        let env = vec![("AWS_SHARED_CREDENTIALS_FILE".to_owned(), file.display().to_string())];
        let args = args_for(prometheus().await, data.path(), &config, &["--log.level=debug"]);
        let sidecar = Sidecar::start_in(args, env);
        sidecar.wait_ready(PATIENCE).await;
        let id = seal(&sound(0), data.path(), |_| {});
        let ledger = data.path().join("thanos.shipper.json");
        let shipped = async || listed(&ledger)?.contains(&id).then_some(());
        sidecar
            .wait_until(PATIENCE, "the block is in the ledger", shipped)
            .await;
        assert!(sidecar.stop().await.success());
        let log = sidecar.log();
        assert!(log.contains("S3 request: PUT"), "requests are logged: {log}");
        // The last is the customer's key as it travels.
        for secret in [ACCESS_KEY, SECRET_KEY, "Signature=", "a2tra2tra2tra2tra2tr"] {
            let line = log.lines().find(|line| line.contains(secret));
            assert_eq!(line, None, "{secret}");
        }
    }
}

/// A store that knows one pair of keys at a time.
#[derive(Clone)]
struct OneKey(Arc<Mutex<(String, String)>>);

#[async_trait::async_trait]
impl S3Auth for OneKey {
    async fn get_secret_key(&self, access_key: &str) -> S3Result<SecretKey> {
        let known = self.0.lock().unwrap();
        match access_key == known.0 {
            true => Ok(known.1.as_str().into()),
            false => Err(s3_error!(InvalidAccessKeyId)),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_that_are_rotated_are_used_without_a_restart() {
    let (root, data, dir) = (temp_dir("bucket"), temp_dir("data"), temp_dir("config"));
    fs::create_dir(root.path().join("thanos")).unwrap();
    let keys = OneKey(Arc::new(Mutex::new(("old".to_owned(), "old-secret".to_owned()))));
    let host = s3_server_for(root.path(), keys.clone()).await;
    let file = dir.path().join("bucket.yml");
    let write = |key: &str| {
        let yaml = s3_yaml(&host, "thanos", &[]);
        let kept: String = yaml
            .split_inclusive('\n')
            .filter(|line| !line.contains("_key:"))
            .collect();
        let half = file.with_extension("half");
        fs::write(
            &half,
            format!("{kept}  access_key: {key}\n  secret_key: {key}-secret\n"),
        )
        .unwrap();
        fs::rename(half, &file).unwrap();
    };
    write("old");
    let sidecar = Sidecar::start(vec![
        format!("--prometheus.url={}", prometheus().await.url()),
        "--prometheus.get_config_interval=1s".to_owned(),
        format!("--tsdb.path={}", data.path().display()),
        format!("--objstore.config-file={}", file.display()),
    ]);
    let committed = async |id: &str| {
        let meta = root.path().join("thanos").join(id).join("meta.json");
        let there = async || meta.is_file().then_some(());
        sidecar.wait_until(PATIENCE, format!("{id} is committed"), there).await;
    };
    let reloaded = async |expected: f64| {
        let name = "narthex_objstore_config_last_reload_successful";
        let is = async || (sidecar.metric(name).await? == expected).then_some(());
        sidecar.wait_until(PATIENCE, format!("{name} {expected}"), is).await;
    };
    let first = seal(&sound(0), data.path(), |_| {});
    committed(&first).await;
    reloaded(1.0).await;
    // The old key is revoked before the new file is there, and what comes first is wrong.
    *keys.0.lock().unwrap() = ("new".to_owned(), "new-secret".to_owned());
    let second = seal(&sound(1), data.path(), |_| {});
    wait_for_log(
        &sidecar,
        &["level=warn", "upload failed, retrying", "403 InvalidAccessKeyId"],
    )
    .await;
    fs::write(&file, "type: S3\nconfig: {bucket: elsewhere, endpoint: \"host:1\"}\n").unwrap();
    reloaded(0.0).await;
    let said = wait_for_log(
        &sidecar,
        &["level=warn", "--objstore.config-file has changed and cannot be used"],
    )
    .await;
    assert!(
        said.contains("it is about another place, s3://host:1/elsewhere"),
        "{said}"
    );
    write("new");
    committed(&second).await;
    reloaded(1.0).await;
    assert!(!sidecar.log().contains("new-secret") && !sidecar.log().contains("old-secret"));
    assert!(sidecar.stop().await.success());
}
