//! A bucket whose configuration is read again while it is in use: keys are rotated, and nobody restarts us for it.
//!
//! [`Live`] is a bucket like any other; [`Follower`] looks at the configuration's file now and then, and at once when the
//! store refuses the credentials. What runs goes on with the configuration that it began with; what begins later has the new
//! one. A file that is wrong, and one that is about another place, leaves in use what was: another bucket or prefix is
//! another identity, of which the ledger knows nothing, and takes effect with a restart only. Nothing is kept on disk.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError, Weak, atomic::AtomicU64},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use arc_swap::ArcSwap;
use async_trait::async_trait;
use bytes::Bytes;
use prometheus_client::{metrics::gauge::Gauge, registry::Registry};
use tokio::{
    sync::Notify,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{
    Bucket, CanaryKey, Comparison, Error, ErrorKind, Limits, NameFilter, Object, Pieces, Placed, Reading, Source,
    config::{self, BucketConfig},
    open_plain,
};
use crate::threads::BlockingPool;

/// The time between two looks at the file when nothing asks for one.
const EVERY: Duration = Duration::from_secs(30);

/// Looks come no sooner one after another, however often the store refuses the credentials.
const AT_MOST_EVERY: Duration = Duration::from_secs(2);

/// Reading the file may take no longer.
const READ_LIMIT: Duration = Duration::from_secs(30);

/// A bucket that can be replaced by the same one with other credentials.
pub(super) struct Live {
    name: String,
    identity: String,
    now: ArcSwap<Arc<dyn Bucket>>,
    /// Those of before, as long as something runs on them.
    former: Mutex<Vec<Weak<dyn Bucket>>>,
    refused: Notify,
}

impl fmt::Debug for Live {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Live").field(&self.now()).finish()
    }
}

impl Live {
    pub(super) fn new(bucket: Arc<dyn Bucket>) -> Self {
        Self {
            name: bucket.name().to_owned(),
            identity: bucket.identity().to_owned(),
            now: ArcSwap::from_pointee(bucket),
            former: Mutex::default(),
            refused: Notify::new(),
        }
    }

    fn now(&self) -> Arc<dyn Bucket> {
        Arc::clone(&self.now.load())
    }

    /// Uses another one from now on.
    fn replace(&self, bucket: Arc<dyn Bucket>) {
        let before = self.now.swap(Arc::new(bucket));
        let mut former = self.former.lock().unwrap_or_else(PoisonError::into_inner);
        former.retain(|bucket| bucket.strong_count() > 0);
        former.push(Arc::downgrade(&*before));
    }

    /// The result of a call, after a look at whether other credentials are needed.
    fn noted<T>(&self, result: Result<T, Error>) -> Result<T, Error> {
        if let Err(error) = &result
            && matches!(error.kind, ErrorKind::Credentials | ErrorKind::Forbidden)
        {
            self.refused.notify_one();
        }
        result
    }
}

#[async_trait]
impl Bucket for Live {
    fn name(&self) -> &str {
        &self.name
    }

    fn identity(&self) -> &str {
        &self.identity
    }

    async fn put_file(&self, key: &str, source: &Source) -> Result<(), Error> {
        self.noted(self.now().put_file(key, source).await)
    }

    async fn put_bytes(&self, key: &str, body: Bytes) -> Result<(), Error> {
        self.noted(self.now().put_bytes(key, body).await)
    }

    async fn put_new(&self, key: &str, body: Bytes) -> Result<Placed, Error> {
        self.noted(self.now().put_new(key, body).await)
    }

    async fn put_stream(&self, key: &str, pieces: Pieces<'_>, at_most: u64) -> Result<u64, Error> {
        self.noted(self.now().put_stream(key, pieces, at_most).await)
    }

    async fn stat(&self, key: &str) -> Result<Option<u64>, Error> {
        self.noted(self.now().stat(key).await)
    }

    async fn incarnation(&self) -> Result<Option<String>, Error> {
        self.noted(self.now().incarnation().await)
    }

    async fn get(&self, key: &str, limit: u64) -> Result<Bytes, Error> {
        self.noted(self.now().get(key, limit).await)
    }

    async fn read(&self, key: &str, offset: u64) -> Result<Reading, Error> {
        self.noted(self.now().read(key, offset).await)
    }

    async fn read_start(&self, key: &str, len: u64) -> Result<Bytes, Error> {
        self.noted(self.now().read_start(key, len).await)
    }

    async fn compare(&self, key: &str, source: &Source) -> Result<Comparison, Error> {
        self.noted(self.now().compare(key, source).await)
    }

    fn requests_for(&self, len: u64) -> u64 {
        self.now().requests_for(len)
    }

    async fn list(&self, dir: &str) -> Result<Vec<Object>, Error> {
        self.noted(self.now().list(dir).await)
    }

    async fn list_top(&self, after: &str, wanted: NameFilter) -> Result<Vec<String>, Error> {
        self.noted(self.now().list_top(after, wanted).await)
    }

    async fn abort_stale(&self, dir: &str) -> Result<(), Error> {
        // What may not be cleaned up says nothing of the credentials.
        self.now().abort_stale(dir).await
    }

    async fn clears_unfinished_uploads(&self) -> Option<bool> {
        self.now().clears_unfinished_uploads().await
    }

    async fn remove(&self, canary: &CanaryKey) -> Result<(), Error> {
        self.noted(self.now().remove(canary).await)
    }

    async fn settle(&self) {
        let former = std::mem::take(&mut *self.former.lock().unwrap_or_else(PoisonError::into_inner));
        for bucket in former.iter().filter_map(Weak::upgrade) {
            bucket.settle().await;
        }
        self.now().settle().await;
    }
}

/// Reads the text of a configuration, with its variables replaced.
pub type ReadConfig = Arc<dyn Fn() -> Result<String, String> + Send + Sync>;

/// Follows the configuration of a bucket.
pub struct Follower {
    live: Arc<Live>,
    read: ReadConfig,
    limits: Limits,
    /// One thread: where it hangs, no other one is taken.
    pool: BlockingPool,
    /// What was read last, whether it could be used or not.
    last: String,
    /// What was said last of what is wrong with it.
    said: Option<String>,
    successful: Gauge,
    successful_at: Gauge<f64, AtomicU64>,
}

/// Without the text, which may hold secrets.
impl fmt::Debug for Follower {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Follower")
            .field("live", &self.live)
            .finish_non_exhaustive()
    }
}

impl Follower {
    /// Follows what `read` reads, of which `text` is in use now.
    pub(super) fn new(
        live: Arc<Live>,
        read: ReadConfig,
        text: String,
        limits: Limits,
        registry: &mut Registry,
    ) -> Self {
        let follower = Self {
            live,
            read,
            limits,
            pool: BlockingPool::new(1),
            last: text,
            said: None,
            successful: Gauge::default(),
            successful_at: Gauge::default(),
        };
        follower.record(true);
        registry.register(
            "narthex_objstore_config_last_reload_successful",
            "Whether the file of --objstore.config-file could be used when it was read last; if not, what was in use stays",
            follower.successful.clone(),
        );
        registry.register(
            "narthex_objstore_config_last_reload_success_timestamp_seconds",
            "When what is in use of it was read",
            follower.successful_at.clone(),
        );
        follower
    }

    /// Follows until `stop`.
    pub async fn run(mut self, stop: CancellationToken) {
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.wait() => {}
            }
            // What it opens is dropped as a whole, or in use as a whole.
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = self.look() => {}
            }
        }
    }

    async fn wait(&self) {
        sleep(AT_MOST_EVERY).await;
        // That nothing has asked for a look is as good.
        let _ = timeout(EVERY - AT_MOST_EVERY, self.live.refused.notified()).await;
    }

    async fn look(&mut self) {
        let read = Arc::clone(&self.read);
        let text = match timeout(READ_LIMIT, self.pool.run(move || read())).await {
            Ok(Ok(Ok(text))) => text,
            Ok(Ok(Err(problem))) => return self.refuse(String::new(), &problem),
            Ok(Err(lost)) => return self.refuse(String::new(), &lost.to_string()),
            Err(_) => return self.refuse(String::new(), &format!("it was not read within {READ_LIMIT:?}")),
        };
        // What could not be used is tried again: a file that it names may have come meanwhile.
        if text == self.last && self.successful.get() == 1 {
            return;
        }
        let opened = timeout(READ_LIMIT, self.open(&text)).await;
        match opened.unwrap_or_else(|_| Err(format!("the files that it names were not read within {READ_LIMIT:?}"))) {
            Ok(bucket) => {
                self.live.replace(bucket);
                self.record(true);
                self.said = None;
                tracing::info!(
                    bucket = self.live.identity,
                    "the file of --objstore.config-file has changed and was read again; requests from now on use it"
                );
                self.last = text;
            }
            Err(problem) => self.refuse(text, &problem),
        }
    }

    async fn open(&self, text: &str) -> Result<Arc<dyn Bucket>, String> {
        if text.trim().is_empty() {
            return Err("it is empty".to_owned());
        }
        let config: BucketConfig = config::parse(text).map_err(|error| error.to_string())?;
        if text != self.last {
            for warning in &config.warnings {
                tracing::warn!(warning, "object storage configuration");
            }
        }
        let opened = open_plain(&config, &self.limits).await;
        let bucket = opened.map_err(|error| error.to_string())?;
        match bucket.identity() == self.live.identity {
            true => Ok(bucket),
            false => Err(format!(
                "it is about another place, {}, and {} is in use: restart narthex if that is meant",
                bucket.identity(),
                self.live.identity
            )),
        }
    }

    /// Says what is wrong, if that was not said last.
    fn refuse(&mut self, text: String, problem: &str) {
        self.last = text;
        self.record(false);
        if self.said.as_deref() != Some(problem) {
            self.said = Some(problem.to_owned());
            tracing::warn!(
                problem,
                "the file of --objstore.config-file has changed and cannot be used; what was in use stays"
            );
        }
    }

    fn record(&self, successful: bool) {
        self.successful.set(i64::from(successful));
        if successful {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            self.successful_at.set(now.as_secs_f64());
        }
    }
}

#[cfg(test)]
mod tests;
