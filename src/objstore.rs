//! The bucket: where blocks go.
//!
//! [`Bucket`] is what the rest of the house sees; [`Error`] tells by [`ErrorKind`] what went wrong, on which key, and
//! what the operator can do. A put that returns `Ok` was acknowledged by the store with the size and the checksum that
//! were sent; a put that fails or is dropped leaves no visible half object (on S3 an object appears whole or not at
//! all, the local directory writes to a temporary name and renames). That holds also for an object whose bytes are made
//! while it is sent ([`Bucket::put_stream`]); only that such a put cannot be tried again without making them anew.

mod azure;
mod backoff;
mod batches;
mod blocking;
mod canary;
pub mod config;
mod filesystem;
mod gcs;
pub mod layers;
mod live;
mod pages;
mod rate_limit;
mod rest;
mod s3;
mod store_clock;
mod transfer;

use std::{
    fmt,
    fs::File,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures_util::{TryStreamExt, stream::BoxStream};
use prometheus_client::registry::Registry;

use self::config::{BucketConfig, ConfigError, Provider};
pub(crate) use self::{backoff::Backoff, filesystem::missing};
pub use self::{
    backoff::{Transient, retry_transient},
    canary::{CANARY_DIR, Canary, CanaryKey},
    live::{Follower, ReadConfig},
    rate_limit::RateLimit,
    store_clock::StoreClock,
};

/// How old what an upload left behind must be before it is taken for given up: other processes may be at work on it, and
/// clocks differ.
const STALE_AFTER: Duration = Duration::from_secs(24 * 60 * 60);

/// How hard a bucket may be used.
#[derive(Clone, Debug)]
pub struct Limits {
    /// How many requests with a body run at once, over all objects and their parts; at least 1.
    pub requests_at_once: usize,
    /// How long a request may make no progress at all (30 s).
    pub stall: Duration,
    /// How fast bodies may move, and how many bytes of them did; without limit by default.
    pub rate_limit: RateLimit,
    /// Where it is noted what time it is in the store.
    pub store_clock: StoreClock,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            requests_at_once: 4,
            stall: Duration::from_secs(30),
            rate_limit: RateLimit::default(),
            store_clock: StoreClock::default(),
        }
    }
}

/// Opens the bucket of a configuration, with its metrics in `registry`. Files that the configuration names (keys,
/// certificates) are read; the store is not spoken to. Clean-up of dropped uploads runs on the current runtime.
pub async fn open(
    config: &BucketConfig,
    limits: &Limits,
    registry: &mut Registry,
) -> Result<Arc<dyn Bucket>, ConfigError> {
    let bucket = open_plain(config, limits).await?;
    Ok(Arc::new(layers::Metered::new(bucket, registry)))
}

/// The same, and what follows the configuration of which `text` was read: it is to be run beside the bucket.
///
/// # Errors
/// As for [`open`].
pub async fn open_followed(
    (config, text): (&BucketConfig, String),
    read: ReadConfig,
    limits: &Limits,
    registry: &mut Registry,
) -> Result<(Arc<dyn Bucket>, Follower), ConfigError> {
    let live = Arc::new(live::Live::new(open_plain(config, limits).await?));
    let follower = Follower::new(Arc::clone(&live), read, text, limits.clone(), registry);
    Ok((Arc::new(layers::Metered::new(live, registry)), follower))
}

async fn open_plain(config: &BucketConfig, limits: &Limits) -> Result<Arc<dyn Bucket>, ConfigError> {
    Ok(match &config.provider {
        Provider::Filesystem(directory) => Arc::new(filesystem::Filesystem::new(directory, &config.prefix, limits)),
        Provider::S3(s3) => Arc::new(s3::S3Bucket::open(s3, &config.prefix, limits).await?),
        Provider::Gcs(gcs) => Arc::new(gcs::GcsBucket::open(gcs, &config.prefix, limits).await?),
        Provider::Azure(azure) => Arc::new(azure::AzureBucket::open(azure, &config.prefix, limits).await?),
    })
}

/// One object of a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Object {
    /// The key, without the configured prefix, e.g. `01H.../chunks/000001`.
    pub key: String,
    /// Its size in bytes.
    pub size: u64,
}

/// A local file to be sent, or a range of one, held by an open descriptor: it stays readable when its name is unlinked.
#[derive(Clone, Debug)]
pub struct Source {
    /// The descriptor; read by position only, so that parts can be read side by side.
    pub file: Arc<File>,
    /// Its name when it was opened, for messages.
    pub path: PathBuf,
    /// Where in the file what is to be sent begins (bytes).
    pub start: u64,
    /// How many bytes there were from there on when it was opened; fewer bytes at reading time are an error.
    pub len: u64,
    /// Counts what is read of it to be sent, where somebody wants to know.
    pub read: ReadBytes,
}

/// How many bytes were read to be sent, those of a second attempt again; clones share the number.
#[derive(Clone, Debug, Default)]
pub struct ReadBytes(Arc<AtomicU64>);

impl ReadBytes {
    /// Counts so many.
    pub(crate) fn add(&self, bytes: usize) {
        self.0.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// How many there were.
    pub fn total(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Source {
    /// A file that was opened under this name, when it had so many bytes.
    pub fn new(file: Arc<File>, path: PathBuf, len: u64) -> Self {
        Self::range(file, path, 0, len)
    }

    /// The `len` bytes from `start` on of a file that may still grow.
    pub fn range(file: Arc<File>, path: PathBuf, start: u64, len: u64) -> Self {
        let read = ReadBytes::default();
        Self {
            file,
            path,
            start,
            len,
            read,
        }
    }

    /// Whether the file still has the length that it had when it was opened, or what has become of it.
    fn unchanged(&self) -> Result<(), String> {
        let (path, end) = (self.path.display(), self.start + self.len);
        match self.file.metadata() {
            Ok(now) if now.len() == end => Ok(()),
            Ok(now) => Err(format!(
                "{path} is {} than the {end} bytes it had when it was opened: it has {}",
                if now.len() < end { "shorter" } else { "longer" },
                now.len()
            )),
            Err(error) => Err(format!("looking at {path} failed: {error}")),
        }
    }
}

/// The bytes of an object that are made while it is sent, in order: at the end of the stream the object is whole, after an
/// error it is not and there will be none. Pieces may have any length. A long one is held until all of its bytes are sent,
/// and with it all of the memory that it is a part of.
pub type Pieces<'a> = BoxStream<'a, Result<Bytes, PieceError>>;

/// Why the bytes of an object could not be made.
pub type PieceError = Box<dyn std::error::Error + Send + Sync>;

/// An object that is being read.
pub struct Reading {
    /// How many bytes are to come: from the offset that was asked for to the end of the object.
    pub len: u64,
    /// They, in order. The stream ends after exactly `len` bytes, or with an error; dropping it stops the request.
    pub pieces: BoxStream<'static, Result<Bytes, Error>>,
}

impl fmt::Debug for Reading {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reading")
            .field("len", &self.len)
            .finish_non_exhaustive()
    }
}

/// What an object is, held against a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Comparison {
    /// The same bytes.
    Same(Proof),
    /// Other bytes, or another number of them; in words that say how that was found out.
    Different(String),
    /// There is no such object.
    Absent,
}

/// What became of an object that was to be new.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Placed {
    /// It is there, and as far as the store can tell there was none before.
    Created,
    /// There is one of that key already; nothing was sent. It may be our own, of a try whose answer was lost.
    Exists,
}

/// How it is known that an object has the bytes of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proof {
    /// The store told the checksum of what it holds.
    Checksum,
    /// The store tells no checksum that can be computed here; the object was read back.
    ReadBack,
}

/// Which names are wanted.
pub type NameFilter = fn(&str) -> bool;

/// What one object store can do for a shipper. Keys are relative to the configured prefix.
///
/// Every call ends: a request without progress for the configured time fails with [`ErrorKind::Stalled`]. Dropping a
/// future cancels the request; what must then be cleaned up (an open multipart upload) goes on in the background until
/// [`Bucket::settle`].
#[async_trait]
pub trait Bucket: Send + Sync + fmt::Debug + 'static {
    /// The value of the `bucket` label of `thanos_objstore_*` metrics: the bucket's name, or `fs: <directory>`.
    fn name(&self) -> &str;

    /// Which place this is, without secrets: `s3://<host>/<bucket>/<prefix>` or `file://<directory>/<prefix>`.
    /// Two configurations with one identity see the same objects.
    fn identity(&self) -> &str;

    /// Sends a whole file; in parts when it is large. At most the configured number of requests run at once.
    async fn put_file(&self, key: &str, source: &Source) -> Result<(), Error>;

    /// Sends a small object from memory.
    async fn put_bytes(&self, key: &str, body: Bytes) -> Result<(), Error>;

    /// Sends a small object from memory unless there is one of that key. Where a store does not know the condition, the
    /// object is sent as [`Bucket::put_bytes`] does; a directory keeps the condition, but for file systems that have no
    /// way of doing so. Requests are tried again within: [`Placed::Exists`] may speak of what a try of this very call
    /// has put there, so that the caller reads it and judges.
    async fn put_new(&self, key: &str, body: Bytes) -> Result<Placed, Error> {
        self.put_bytes(key, body).await?;
        Ok(Placed::Created)
    }

    /// Sends an object of unknown length from `pieces` that are made while it is sent; returns its length (bytes). The
    /// promise is that of [`Bucket::put_file`]; a stream without bytes makes an empty object.
    ///
    /// The stream is asked for more only as what came before is sent: beside the pieces, up to two parts of the object are
    /// held in memory, the one on its way and the one that is being filled. A part has 5 MiB where there are parts, or a
    /// ten-thousandth of `at_most` (bytes) if that is more; so `at_most` is to be no larger than needed. The stream may take
    /// its time: while it is waited for, none of the slots for requests are held and no thread is. Objects whose bytes one
    /// producer makes turn by turn, and none of which it makes without the others, can be sent side by side.
    ///
    /// # Errors
    /// An error of the stream is [`ErrorKind::Local`] with its text; more than `at_most` bytes are
    /// [`ErrorKind::TooLarge`]; an object that needs parts where the configuration forbids them is
    /// [`ErrorKind::Configuration`]. Either way there is no object, and what was there before is still there. Parts and
    /// temporary files may remain until [`Bucket::settle`].
    async fn put_stream(&self, key: &str, pieces: Pieces<'_>, at_most: u64) -> Result<u64, Error>;

    /// The size (bytes) of one object, asked for by its key; `None` if there is none. For what a listing may not show yet.
    async fn stat(&self, key: &str) -> Result<Option<u64>, Error>;

    /// What tells this place from another one at the same address, as when the file system of a directory is not mounted;
    /// `None` where the address says all. The same after a restart. (Where the file system's identity is made of the
    /// number of a device, it is another one when devices are numbered anew.)
    async fn incarnation(&self) -> Result<Option<String>, Error> {
        Ok(None)
    }

    /// Reads a small object; more than `limit` bytes are an error of kind [`ErrorKind::TooLarge`].
    async fn get(&self, key: &str, limit: u64) -> Result<Bytes, Error>;

    /// Reads an object of any size from `offset` (bytes) on, as a stream. What breaks off and can heal is asked for again
    /// from where it broke off; an object that was replaced meanwhile is an error of kind [`ErrorKind::Integrity`]. An
    /// offset beyond the end is [`ErrorKind::Refused`]; one at the end gives nothing. As many objects are read at once
    /// as requests with a body may run: a further call waits until a reading is over or dropped.
    async fn read(&self, key: &str, offset: u64) -> Result<Reading, Error>;

    /// Reads the first `len` bytes of an object, or all of one that is shorter, in one request.
    async fn read_start(&self, key: &str, len: u64) -> Result<Bytes, Error> {
        let mut pieces = self.read(key, 0).await?.pieces;
        let mut start = BytesMut::new();
        while (start.len() as u64) < len
            && let Some(piece) = pieces.try_next().await?
        {
            start.extend_from_slice(&piece);
        }
        start.truncate(usize::try_from(len).unwrap_or(usize::MAX));
        Ok(start.freeze())
    }

    /// Whether an object has exactly the bytes of `source`: by the checksum that the store keeps of it, or else by
    /// reading it back. A checksum costs one small request (two for an object in other parts than would be sent now) and
    /// one read of the local file. A local file that is not as long as when it was opened is [`ErrorKind::Local`].
    async fn compare(&self, key: &str, source: &Source) -> Result<Comparison, Error>;

    /// How many requests it takes to send an object of `len` bytes: one, where there are no parts.
    fn requests_for(&self, len: u64) -> u64 {
        let _ = len;
        1
    }

    /// All objects below the directory `dir` (no slash at the end), at any depth, sorted by key.
    async fn list(&self, dir: &str) -> Result<Vec<Object>, Error>;

    /// Names of the directories at the top of the bucket that sort after `after` and are `wanted`, sorted. No other one is
    /// opened: in the root of a file system there may be some that are closed to this process, such as `lost+found`.
    async fn list_top(&self, after: &str, wanted: NameFilter) -> Result<Vec<String>, Error>;

    /// Clears away what uploads that were given up left below `dir`: multipart uploads that are open, temporary files. Only
    /// what is older than a day, and nothing of this process: others may write there. What does not tell its age stays.
    ///
    /// Nothing depends on it, so that it belongs beside the way of the data: where a store cannot list such uploads, or
    /// forbids it, or fails, this is an error which the caller may note and otherwise passes over.
    async fn abort_stale(&self, dir: &str) -> Result<(), Error>;

    /// Whether a rule of the store clears unfinished uploads away; `None` where there are none, and where the rules cannot be
    /// read.
    async fn clears_unfinished_uploads(&self) -> Option<bool> {
        None
    }

    /// Removes an object that a check has written; that there is none is no error. There is no way to remove another one.
    async fn remove(&self, canary: &CanaryKey) -> Result<(), Error>;

    /// Waits until puts that were given up are dropped, also those of tasks that were aborted a moment ago, and what they
    /// left is cleaned up; call it before the process ends, under a deadline.
    async fn settle(&self);
}

/// What was attempted; the `operation` label of the metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Op {
    /// A listing.
    Iter,
    /// Reading an object.
    Get,
    /// Sending an object.
    Upload,
    /// Removing something: multipart uploads of our own, and what a check has written.
    Delete,
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Op::Iter => "list",
            Op::Get => "read",
            Op::Upload => "upload",
            Op::Delete => "delete",
        })
    }
}

/// Why an operation failed. Which of these can heal by themselves is told by [`ErrorKind::is_transient`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// No such object.
    NotFound,
    /// No such bucket.
    NoBucket,
    /// The store refuses these credentials (unknown key, bad signature, expired token), or none were found.
    Credentials,
    /// The credentials are good but lack a permission.
    Forbidden,
    /// The bucket lives in another region.
    Region,
    /// The clocks of this host and of the store differ too much.
    Clock,
    /// The store asks to slow down (503 `SlowDown`, 429).
    Throttled,
    /// The store failed (other 5xx).
    Server,
    /// The store could not be reached, or the connection broke.
    Network,
    /// The object is in its place, but could not be flushed to disk (a directory only): a crash of the host may take it
    /// away. Reading it back settles nothing; a later try flushes it again.
    Unflushed,
    /// No byte moved for the stall timeout, or no answer came in time. Whether the store acted is unknown.
    Stalled,
    /// The store holds, or acknowledged, something else than what was sent: wrong checksum or size.
    Integrity,
    /// The local file could not be read, or is shorter than it was when opened; or the bytes of an object could not be made.
    Local,
    /// An object is larger than the caller accepts, or than he said that it would be.
    TooLarge,
    /// The store cannot do, or will not, what the configuration asks of every object: its storage class, its encryption, a
    /// header.
    Configuration,
    /// The store refused the request for another reason (4xx).
    Refused,
}

impl ErrorKind {
    /// Whether a later try can succeed without anybody changing anything.
    pub fn is_transient(self) -> bool {
        use ErrorKind::*;
        matches!(self, Throttled | Server | Network | Unflushed | Stalled | Integrity)
    }

    /// Whether a write that failed so may nevertheless have been carried out, which reading the object back settles.
    pub fn is_ambiguous(self) -> bool {
        use ErrorKind::*;
        matches!(self, Throttled | Server | Network | Stalled)
    }
}

/// Whom a failure concerns; see [`Error::scope`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scope {
    /// This object, and so its block; others may fare better.
    Object,
    /// The bucket, the way to it, or what we may do there: every other block as well.
    Bucket,
}

/// A failed operation on the bucket. The text says what failed, on which key and store, why, and what helps.
#[derive(Debug)]
pub struct Error {
    /// What was attempted.
    pub op: Op,
    /// On which key, with the bucket's identity in front.
    pub key: String,
    /// What kind of failure it is.
    pub kind: ErrorKind,
    /// What the store or the system said, and what the operator can do about it.
    pub detail: String,
    /// The error below, if there is one whose text `detail` does not already hold.
    pub source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl Error {
    /// Whom the failure concerns. [`Scope::Object`]: name the object's block with the error's text, which says what helps,
    /// and go on with the others. [`Scope::Bucket`]: others would fail in the same way.
    pub fn scope(&self) -> Scope {
        use ErrorKind::*;
        match (self.op, self.kind) {
            (_, NotFound | TooLarge | Local | Integrity) => Scope::Object,
            // Archived, of another key, not for us, too large: of one object as a rule. If it is so with all of them, each
            // says so.
            (Op::Get, Forbidden | Refused | Configuration) | (Op::Upload, Refused) => Scope::Object,
            (_, NoBucket | Credentials | Region | Clock | Throttled | Server | Network | Unflushed | Stalled)
            | (Op::Upload | Op::Iter | Op::Delete, Forbidden | Configuration)
            | (Op::Iter | Op::Delete, Refused) => Scope::Bucket,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot {} {}: {}", self.op, self.key, self.detail)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}
