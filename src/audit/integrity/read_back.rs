//! Reading all of a block back from the bucket.
//!
//! Every object is read once, as a stream, and checked on a thread of its own: the check computes, and a thread of the
//! runtime that waited for bytes could be one that they need. A thread needs some 400 KiB and has a permit of the
//! [`Reader`], which bounds them over all blocks. When the caller is dropped, the threads end with the next bytes that
//! come, or when the bucket gives up.

use std::{
    io::{self, Read},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64},
    },
    thread,
};

use futures_util::{StreamExt, TryStreamExt, stream};
use tokio::{
    runtime::Handle,
    sync::{OwnedSemaphorePermit, Semaphore, oneshot},
};

use super::{INDEX, LOST, REWRITE};
use crate::{
    audit::{Issue, Kind},
    objstore::{self, Bucket, ErrorKind, Op, Reading, Scope},
    threads::StopOnDrop,
    tsdb::{
        BucketFile, Meta,
        check::{
            Broken,
            full::{self, Digest, Facts, IndexFacts, IndexIssue, Options, SegmentFacts, TOC},
        },
        segment_of_path,
    },
};

/// What helps when the index has issues and the objects are whole.
const REPAIR: &str = "rebuild the block with promtool: see --allow-index-issues in `narthex --help-long`";

/// How objects are read back. Clones share their bounds.
#[derive(Clone, Debug)]
pub struct Reader {
    at_once: usize,
    permits: Arc<Semaphore>,
    /// Compute the SHA-256 of every object, and not only of those whose `meta.json` has one.
    pub sha256: bool,
    /// How many bytes were checked so far.
    pub read: Arc<AtomicU64>,
}

impl Reader {
    /// A reader of at most `at_once` objects at once, at least 1.
    pub fn new(at_once: usize) -> Self {
        let at_once = at_once.clamp(1, Semaphore::MAX_PERMITS);
        Self {
            at_once,
            permits: Arc::new(Semaphore::new(at_once)),
            sha256: false,
            read: Arc::default(),
        }
    }

    /// Waits until one more object may be read.
    async fn permit(&self) -> OwnedSemaphorePermit {
        let permit = Arc::clone(&self.permits).acquire_owned().await;
        permit.expect("the semaphore is never closed")
    }
}

/// What was found in one object.
#[derive(Debug)]
enum Found {
    Index(IndexFacts, Digest),
    Segment(SegmentFacts, Digest),
    Bad(Issue),
}

/// A block that is whole in the bucket.
#[derive(Clone, Debug, Default)]
pub struct ReadBack {
    /// What its objects are: segments first, then the index.
    pub digests: Vec<Digest>,
    /// What Thanos' compactor or its store gateway may stop at, although all bytes are those that were sent.
    pub reader_issues: Vec<Issue>,
}

/// Reads the objects `files` of a block, whose sizes are known, and checks all that is in them: each by itself, all of
/// them against each other and against `meta`, and the hash of each where `files` has one. Returns what they are, or
/// what is wrong.
///
/// # Errors
/// The bucket's.
pub async fn read_back(
    bucket: &Arc<dyn Bucket>,
    meta: &Meta,
    files: &[BucketFile],
    reader: &Reader,
) -> Result<Result<ReadBack, Vec<Issue>>, objstore::Error> {
    let mut wanted: Vec<&BucketFile> = files
        .iter()
        .filter(|file| file.rel_path == INDEX || segment_of_path(&file.rel_path).is_some())
        .collect();
    wanted.sort_by_key(|file| (file.rel_path == INDEX, segment_of_path(&file.rel_path)));
    let guard = StopOnDrop::default();
    let stop = guard.flag();
    let found: Vec<Found> = stream::iter(wanted)
        .map(|file| read_object(bucket, meta, file, reader, &stop))
        .buffered(reader.at_once)
        .try_collect()
        .await?;
    let (mut index, mut segments, mut digests, mut issues) = (None, Vec::new(), Vec::new(), Vec::new());
    for found in found {
        match found {
            Found::Index(facts, digest) => {
                index = Some(facts);
                digests.push(digest);
            }
            Found::Segment(facts, digest) => {
                segments.push(facts);
                digests.push(digest);
            }
            Found::Bad(issue) => issues.push(issue),
        }
    }
    for digest in &digests {
        issues.extend(other_hash(meta, files, digest));
    }
    match index {
        Some(index) if issues.is_empty() => match full::agree(meta, &index, &segments) {
            Ok(facts) => {
                let of_index = facts.issues.iter().map(|issue| of_index(meta, issue));
                let reader_issues = of_index.chain(of_encodings(meta, &facts)).collect();
                return Ok(Ok(ReadBack { digests, reader_issues }));
            }
            Err(broken) => issues.push(content(meta, &broken)),
        },
        None if issues.is_empty() => issues.push(Issue::new(meta.ulid, Kind::Missing, "index is missing")),
        _ => {}
    }
    Ok(Err(issues))
}

fn of_index(meta: &Meta, issue: &IndexIssue) -> Issue {
    Issue::new(meta.ulid, Kind::Index, format_args!("{issue}; {REPAIR}"))
}

fn content(meta: &Meta, broken: &Broken) -> Issue {
    Issue::new(meta.ulid, Kind::Content, format_args!("{broken}; {LOST}"))
}

/// Chunks that the readers of today refuse.
fn of_encodings(meta: &Meta, facts: &Facts) -> Option<Issue> {
    let newer = facts.newer_encodings();
    (!newer.is_empty()).then(|| {
        let what = format!(
            "{} of its {} chunks are in an encoding that Thanos' store gateway and compactor refuse; {REWRITE}",
            newer.join(" and "),
            facts.chunks
        );
        Issue::new(meta.ulid, Kind::Encoding, what)
    })
}

/// Whether `meta.json` has another hash of an object.
fn other_hash(meta: &Meta, files: &[BucketFile], digest: &Digest) -> Option<Issue> {
    let due = files.iter().find(|file| file.rel_path == digest.rel_path)?;
    let (due, is) = (due.sha256.as_deref()?, digest.sha256.as_deref()?);
    (!due.eq_ignore_ascii_case(is)).then(|| {
        let what = format!(
            "{} has the SHA-256 {is}, and meta.json says {due}; {LOST}",
            digest.rel_path
        );
        Issue::new(meta.ulid, Kind::Checksum, what)
    })
}

/// Reads and checks one object.
async fn read_object(
    bucket: &Arc<dyn Bucket>,
    meta: &Meta,
    file: &BucketFile,
    reader: &Reader,
    stop: &Arc<AtomicBool>,
) -> Result<Found, objstore::Error> {
    let permit = reader.permit().await;
    match check_object(bucket, meta, file, reader, stop, permit).await {
        Err(error) => as_issue(meta, &file.rel_path, error).map(Found::Bad),
        done => done,
    }
}

/// An error of the bucket that says something about the object, as an issue.
fn as_issue(meta: &Meta, name: &str, error: objstore::Error) -> Result<Issue, objstore::Error> {
    match error.kind {
        ErrorKind::NotFound => Ok(Issue::new(
            meta.ulid,
            Kind::Missing,
            format_args!("{name} was deleted during the check"),
        )),
        ErrorKind::Integrity => Ok(Issue::new(
            meta.ulid,
            Kind::Checksum,
            format_args!("{name} cannot be read: {}; {LOST}", error.detail),
        )),
        _ if error.scope() == Scope::Object && error.kind != ErrorKind::Local => {
            Ok(Issue::new(meta.ulid, Kind::Unreadable, error))
        }
        _ => Err(error),
    }
}

async fn check_object(
    bucket: &Arc<dyn Bucket>,
    meta: &Meta,
    file: &BucketFile,
    reader: &Reader,
    stop: &Arc<AtomicBool>,
    permit: OwnedSemaphorePermit,
) -> Result<Found, objstore::Error> {
    let (name, due) = (file.rel_path.clone(), file.size.unwrap_or_default());
    let key = format!("{}/{name}", meta.ulid);
    // Before the whole, since a bucket lets only so many objects be read at once; judged after it, since it fails if the
    // index is shorter than it was.
    let toc = match name == INDEX {
        true => tail(bucket, &key, due).await,
        false => Ok(Vec::new()),
    };
    let reading = bucket.read(&key, 0).await?;
    let len = reading.len;
    if len != due {
        let what = format!("{name} had {due} bytes, and has {len} now; find out what else writes to this bucket");
        return Ok(Found::Bad(Issue::new(meta.ulid, Kind::Size, what)));
    }
    let toc = toc?;
    let sha256 = reader.sha256 || file.sha256.is_some();
    let (range, end) = ((meta.min_time, meta.max_time), toc.clone());
    let result = on_thread(&key, reading, reader, sha256, stop, permit, move |bytes, options| {
        Ok(match name == INDEX {
            true => full::index(len, &end, range, bytes, options)?.map(|(facts, digest)| Found::Index(facts, digest)),
            false => full::segment(&name, len, bytes, options)?.map(|(facts, digest)| Found::Segment(facts, digest)),
        })
    });
    Ok(match result.await? {
        Ok(Found::Index(facts, digest)) if facts.has_issues() => {
            let facts = named(bucket, &key, len, toc, facts, reader, stop).await?;
            facts.map_or_else(
                |broken| Found::Bad(content(meta, &broken)),
                |facts| Found::Index(facts, digest),
            )
        }
        Ok(found) => found,
        Err(broken) => Found::Bad(content(meta, &broken)),
    })
}

/// Finds the labels of series that have issues, which takes reading the beginning of the index once more.
async fn named(
    bucket: &Arc<dyn Bucket>,
    key: &str,
    len: u64,
    toc: Vec<u8>,
    mut facts: IndexFacts,
    reader: &Reader,
    stop: &Arc<AtomicBool>,
) -> Result<Result<IndexFacts, Broken>, objstore::Error> {
    let permit = reader.permit().await;
    let reading = bucket.read(key, 0).await?;
    on_thread(key, reading, reader, false, stop, permit, move |bytes, options| {
        Ok(full::name_series(&mut facts, len, &toc, bytes, options)?.map(|()| facts))
    })
    .await
}

/// The last bytes of an index of `len` bytes.
async fn tail(bucket: &Arc<dyn Bucket>, key: &str, len: u64) -> Result<Vec<u8>, objstore::Error> {
    let mut reading = bucket.read(key, len.saturating_sub(TOC)).await?;
    let mut bytes = Vec::new();
    while let Some(piece) = reading.pieces.try_next().await? {
        // An object that has grown meanwhile is found out when it is opened next.
        if bytes.len() as u64 + piece.len() as u64 > TOC {
            break;
        }
        bytes.extend_from_slice(&piece);
    }
    Ok(bytes)
}

/// Runs a check of the bytes of an object on a thread of its own.
async fn on_thread<T: Send + 'static>(
    key: &str,
    reading: Reading,
    reader: &Reader,
    sha256: bool,
    stop: &Arc<AtomicBool>,
    permit: OwnedSemaphorePermit,
    check: impl FnOnce(&mut dyn Read, &Options<'_>) -> io::Result<T> + Send + 'static,
) -> Result<T, objstore::Error> {
    let (stop, read, runtime) = (Arc::clone(stop), Arc::clone(&reader.read), Handle::current());
    let (done, result) = oneshot::channel();
    let work = move || {
        let _permit = permit;
        let options = Options {
            threads: 1,
            sha256,
            stop: &stop,
            read: &read,
        };
        // Nobody waits for it any more if this fails.
        let _ = done.send(check(&mut reading.into_blocking(runtime), &options));
    };
    let failed = |error: io::Error| match error.downcast::<objstore::Error>() {
        Ok(error) => error,
        Err(error) => objstore::Error {
            op: Op::Get,
            key: key.to_owned(),
            kind: ErrorKind::Local,
            detail: error.to_string(),
            source: None,
        },
    };
    thread::Builder::new()
        .name("check".to_owned())
        .spawn(work)
        .map_err(failed)?;
    let ended = |_| io::Error::other("the check ended without a result");
    result.await.map_err(ended).flatten().map_err(failed)
}

#[cfg(test)]
mod tests;
