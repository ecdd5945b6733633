//! The S3 bucket.
//!
//! Guarantees: an object appears whole or not at all; every body travels with a checksum that the store verifies; the
//! answer's checksum, where there is one, is compared with ours. At most `requests_at_once` requests with a body run
//! at once, over all files, and as many objects are read. Each attempt of a request ends when nothing moves for the stall
//! time; what can heal is tried again, by one call no more often than the configuration says (`retries`). An object whose
//! length is not known before it is sent is held in memory part by part (`streamed`).
//!
//! On a crash: parts of an open multipart upload stay in the store until [`Bucket::abort_stale`] of the next process, or a
//! lifecycle rule. On cancel: dropping a future closes its connection at once; open uploads are aborted in the
//! background ([`Bucket::settle`]). On retry: sending an object again replaces it.

mod client;
mod compare;
mod credentials;
mod errors;
mod headers;
mod list;
mod multipart;
mod payload;
mod put;
mod read;
mod remove;
mod retries;
mod stall_timeout;
mod streamed;

use std::{
    collections::HashSet,
    fmt,
    sync::{Arc, Mutex, atomic::AtomicBool},
};

use async_trait::async_trait;
use aws_sdk_s3::{Client, error::ProvideErrorMetadata};
use aws_smithy_runtime_api::client::result::SdkError;
use bytes::Bytes;
use tokio::{runtime::Handle, sync::Semaphore};
use tokio_util::task::TaskTracker;

use self::{
    body::{BufferPool, Slice},
    content::Content,
    headers::Headers,
    multipart::Plan,
};
use super::{
    Bucket, CanaryKey, Comparison, Error, ErrorKind, Limits, NameFilter, Object, Op, Pieces, Placed, RateLimit,
    Reading, Source,
    config::{ConfigError, ListVersion, S3Config},
    transfer::{body, content, progress, transport},
};

/// A bucket in an S3 store.
#[derive(Debug)]
pub(super) struct S3Bucket(Arc<Store>);

/// What all requests share.
struct Store {
    client: Client,
    bucket: String,
    identity: String,
    /// What every key starts with: empty, or with a slash at its end.
    prefix: String,
    headers: Headers,
    /// How many requests one call may make.
    attempts: u32,
    list_version: ListVersion,
    multipart: bool,
    part_size: u64,
    permits: Semaphore,
    /// Those of objects that are being read.
    readings: Arc<Semaphore>,
    rate_limit: RateLimit,
    buffers: BufferPool,
    /// Send MD5 in place of CRC32C.
    md5: AtomicBool,
    /// Whether to go over to MD5 when the store does not acknowledge CRC32C.
    md5_on_silence: bool,
    /// Sign the SHA-256 of each body in place of leaving it out of the signature: the store has shown that it wants that.
    sign_bodies: AtomicBool,
    /// The store does not know the condition that an object is to be new.
    unconditional: AtomicBool,
    /// Multipart uploads of this process that are not complete.
    open: Mutex<HashSet<String>>,
    cleanup: TaskTracker,
    runtime: Handle,
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Store").field(&self.identity).finish()
    }
}

impl S3Bucket {
    /// Opens the bucket of a configuration.
    pub(super) async fn open(config: &S3Config, prefix: &str, limits: &Limits) -> Result<Self, ConfigError> {
        let client = client::client(config).await?;
        Self::new(&client, config, prefix, limits)
    }

    /// Opens a bucket through a client; reads the customer's key, if there is one, and sends nothing. Must be called
    /// within a runtime: clean-up goes on there.
    fn new(client: &Client, config: &S3Config, prefix: &str, limits: &Limits) -> Result<Self, ConfigError> {
        let place = format!("s3://{}/{}", config.endpoint, config.bucket);
        let (identity, prefix) = match prefix {
            "" => (place, String::new()),
            prefix => (format!("{place}/{prefix}"), format!("{prefix}/")),
        };
        let cleanup = TaskTracker::new();
        // A tracker that is closed can be waited for; tasks may still be added.
        cleanup.close();
        Ok(Self(Arc::new(Store {
            client: stall_timeout::with_stall_timeout(client, limits, config),
            bucket: config.bucket.clone(),
            identity,
            prefix,
            headers: Headers::of(config)?,
            attempts: config.attempts,
            list_version: config.list_version,
            multipart: config.multipart,
            part_size: config.part_size,
            permits: Semaphore::new(limits.requests_at_once.max(1)),
            readings: Arc::new(Semaphore::new(limits.requests_at_once.max(1))),
            rate_limit: limits.rate_limit.clone(),
            buffers: BufferPool::default(),
            md5: AtomicBool::new(config.send_content_md5 == Some(true)),
            md5_on_silence: config.send_content_md5.is_none(),
            sign_bodies: AtomicBool::new(false),
            unconditional: AtomicBool::new(false),
            open: Mutex::default(),
            cleanup,
            runtime: Handle::current(),
        })))
    }
}

impl Store {
    fn full(&self, key: &str) -> String {
        format!("{}{key}", self.prefix)
    }

    /// What the full keys below a directory start with.
    fn below(&self, dir: &str) -> String {
        if dir.is_empty() {
            self.prefix.clone()
        } else {
            format!("{}{dir}/", self.prefix)
        }
    }

    fn relative<'a>(&self, key: &'a str) -> Option<&'a str> {
        key.strip_prefix(&self.prefix)
    }

    /// A key for messages.
    fn place(&self, key: &str) -> String {
        if key.is_empty() {
            self.identity.clone()
        } else {
            format!("{}/{key}", self.identity)
        }
    }

    fn error(&self, op: Op, key: &str, kind: ErrorKind, detail: String) -> Error {
        Error {
            op,
            key: self.place(key),
            kind,
            detail,
            source: None,
        }
    }

    fn sdk_error<E>(&self, op: Op, key: &str, error: SdkError<E, errors::HttpResponse>) -> Error
    where
        E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
    {
        let (kind, detail) = errors::explain(op, &error, self.headers.key_file());
        self.error(op, key, kind, detail)
    }

    fn open_uploads(&self) -> std::sync::MutexGuard<'_, HashSet<String>> {
        self.open.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn remember(&self, upload: &str) {
        self.open_uploads().insert(upload.to_owned());
    }

    fn forget(&self, upload: &str) {
        self.open_uploads().remove(upload);
    }

    fn is_open(&self, upload: &str) -> bool {
        self.open_uploads().contains(upload)
    }
}

#[async_trait]
impl Bucket for S3Bucket {
    fn name(&self) -> &str {
        &self.0.bucket
    }

    fn identity(&self) -> &str {
        &self.0.identity
    }

    async fn put_file(&self, key: &str, source: &Source) -> Result<(), Error> {
        let store = &self.0;
        let plan = multipart::plan(source.len, store.part_size, store.multipart)
            .map_err(|reason| store.error(Op::Upload, key, ErrorKind::Refused, reason))?;
        match plan {
            Plan::Whole => {
                let content = Content::File(Slice::whole(source));
                store.put_whole(key, &content, false).await.map(drop)
            }
            // Waited for by `settle` until it is dropped: a task that is aborted is dropped later, and only then the
            // upload that it holds is aborted.
            Plan::Parts { count, size } => {
                let parts = store.put_parts(key, source, (count, size));
                store.cleanup.track_future(parts).await
            }
        }
    }

    async fn put_bytes(&self, key: &str, body: Bytes) -> Result<(), Error> {
        let content = Content::Memory(body.into());
        self.0.put_whole(key, &content, false).await.map(drop)
    }

    async fn put_new(&self, key: &str, body: Bytes) -> Result<Placed, Error> {
        self.0.put_whole(key, &Content::Memory(body.into()), true).await
    }

    async fn put_stream(&self, key: &str, pieces: Pieces<'_>, at_most: u64) -> Result<u64, Error> {
        self.0.put_pieces(key, pieces, at_most).await
    }

    async fn stat(&self, key: &str) -> Result<Option<u64>, Error> {
        self.0.size(key).await
    }

    async fn get(&self, key: &str, limit: u64) -> Result<Bytes, Error> {
        self.0.read(key, limit).await
    }

    async fn read_start(&self, key: &str, len: u64) -> Result<Bytes, Error> {
        self.0.read_start(key, len).await
    }

    async fn read(&self, key: &str, offset: u64) -> Result<Reading, Error> {
        self.0.stream(key, offset).await
    }

    async fn compare(&self, key: &str, source: &Source) -> Result<Comparison, Error> {
        self.0.compare_with(key, source).await
    }

    fn requests_for(&self, len: u64) -> u64 {
        match multipart::plan(len, self.0.part_size, self.0.multipart) {
            // One begins the upload, one ends it.
            Ok(Plan::Parts { count, .. }) => count + 2,
            _ => 1,
        }
    }

    async fn list(&self, dir: &str) -> Result<Vec<Object>, Error> {
        self.0.list_below(dir).await
    }

    async fn list_top(&self, after: &str, wanted: NameFilter) -> Result<Vec<String>, Error> {
        self.0.list_dirs(after, wanted).await
    }

    async fn abort_stale(&self, dir: &str) -> Result<(), Error> {
        self.0.abort_stale_below(dir).await
    }

    async fn clears_unfinished_uploads(&self) -> Option<bool> {
        self.0.clears_unfinished_uploads().await
    }

    async fn remove(&self, canary: &CanaryKey) -> Result<(), Error> {
        self.0.remove_canary(canary).await
    }

    async fn settle(&self) {
        self.0.cleanup.wait().await;
    }
}
