//! Buckets over real connections: one suite for all of them, and stores that misbehave.

mod conformance;
mod directory;
mod faults;
mod google;
mod microsoft;
mod multipart;
mod reading;
mod resuming;
mod scripted;
mod signing;
mod stores;
mod streamed;
mod unreachable;
mod wire;

use std::{io::Write, path::Path, sync::Arc, time::Duration};

use hyper_util::rt::{TokioExecutor, TokioIo};
use narthex::objstore::{self, Bucket, Limits, Source, config};
use prometheus_client::registry::Registry;
use tempfile::TempDir;

const ACCESS_KEY: &str = "test-access-key";
const SECRET_KEY: &str = "test-secret-key-test-secret-key";

/// A server whose buckets are the directories of `root`; it ends with the runtime of the test.
async fn s3_server(root: &Path) -> String {
    s3_server_for(root, s3s::auth::SimpleAuth::from_single(ACCESS_KEY, SECRET_KEY)).await
}

/// The same, for those whom `auth` knows.
pub(crate) async fn s3_server_for(root: &Path, auth: impl s3s::auth::S3Auth) -> String {
    let files = s3s_fs::FileSystem::new(root).unwrap();
    let mut builder = s3s::service::S3ServiceBuilder::new(files);
    builder.set_auth(auth);
    let service = builder.build();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let host = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let service = service.clone();
            tokio::spawn(async move {
                let http = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
                let _ = http.serve_connection(TokioIo::new(socket), service).await;
            });
        }
    });
    host
}

/// The configuration of a bucket at `host`; `more` are further lines of its `config`.
pub(crate) fn s3_yaml(host: &str, bucket: &str, more: &[&str]) -> String {
    let mut yaml = format!(
        "type: S3\nconfig:\n  bucket: {bucket}\n  endpoint: {host}\n  insecure: true\n  region: here\n  \
         access_key: {ACCESS_KEY}\n  secret_key: {SECRET_KEY}\n"
    );
    for line in more {
        yaml.push_str(&format!("  {line}\n"));
    }
    yaml
}

fn limits() -> Limits {
    Limits {
        requests_at_once: 4,
        stall: Duration::from_secs(30),
        ..Limits::default()
    }
}

async fn open(yaml: &str, limits: Limits) -> Arc<dyn Bucket> {
    crate::rig::limit::begin();
    let config = config::parse(yaml).unwrap();
    objstore::open(&config, &limits, &mut Registry::default())
        .await
        .unwrap()
}

/// Bytes that differ from place to place.
fn content(len: usize) -> Vec<u8> {
    // All of it byte by byte would take seconds without optimization: pages, each turned by one byte more.
    let page: Vec<u8> = (0..1 << 16).map(|at: usize| (at ^ (at >> 8)) as u8).collect();
    let mut content = Vec::with_capacity(len.next_multiple_of(page.len()));
    for turn in 0..len.div_ceil(page.len()) {
        content.extend_from_slice(&page[turn..]);
        content.extend_from_slice(&page[..turn]);
    }
    content.truncate(len);
    content
}

/// A file with this content; its name is gone already.
fn unlinked(content: &[u8]) -> Source {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(content).unwrap();
    let path = file.path().to_owned();
    let file = Arc::new(fs_err::File::open(&path).unwrap().into_parts().0);
    Source::new(file, path, content.len() as u64)
}

/// A server with one bucket, `thanos`.
async fn s3() -> (TempDir, String) {
    let dir = tempfile::tempdir().unwrap();
    fs_err::create_dir(dir.path().join("thanos")).unwrap();
    let host = s3_server(dir.path()).await;
    (dir, host)
}
