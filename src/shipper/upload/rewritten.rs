//! Sends a block with its chunks rewritten ([`crate::tsdb::rewrite`]), while it is read: nothing is staged on the disk.
//!
//! One block at a time. Its index and one of its segments are on their way side by side, each as an object of unknown
//! length ([`Bucket::put_stream`](crate::objstore::Bucket::put_stream)): a thread reads and rewrites, and waits for the bucket; a segment is acknowledged before
//! the next one begins. So the memory that it takes is bounded: two parts for each of the two objects (20 MiB, more for
//! an index of more than 24 GiB), what the rewriting needs (12 bytes for each series and a few MiB), and two pieces of 256 KiB.
//!
//! **Retry.** Rewriting the same files gives the same bytes: what was acknowledged in this run is computed again and not sent
//! again. **Cancel.** Dropping the future ends the requests and the thread. **Crash.** What was sent is invisible without
//! `meta.json`, and is sent again.

use std::{
    collections::{HashMap, hash_map::Entry},
    io,
    sync::{Arc, atomic::AtomicBool},
};

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use tokio::sync::{mpsc, oneshot};

use super::{Error as UploadError, Uploader};
use crate::{
    lineage::may_repair,
    objstore::{self, PieceError, Pieces, ReadBytes},
    threads::{Lost, StopOnDrop, blocking},
    tsdb::{
        BlockId, Broken, BucketFile, Pinned, RewrittenFrom,
        rewrite::{self, Options, OutFile, Output, Rewritten, SEGMENT_LIMIT},
    },
};

/// How much larger than before an index may become (bytes), beside twice its length.
const MORE_INDEX: u64 = 1 << 20;

/// Why a block was not sent rewritten.
#[derive(Debug)]
pub(super) enum Error {
    /// The block is at fault.
    Broken(Broken),
    /// It is of a kind that is not rewritten; why.
    Refused(String),
    /// The bucket, or this host.
    Upload(UploadError),
}

impl From<UploadError> for Error {
    fn from(error: UploadError) -> Self {
        Self::Upload(error)
    }
}

impl From<objstore::Error> for Error {
    fn from(error: objstore::Error) -> Self {
        Self::Upload(error.into())
    }
}

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Self {
        Self::Upload(error.into())
    }
}

impl Uploader {
    /// Sends all files of a block rewritten; how `meta.json` lists them, and what was rewritten.
    pub(super) async fn send_rewritten(
        &self,
        id: BlockId,
        pinned: &Pinned,
    ) -> Result<(Vec<BucketFile>, RewrittenFrom), Error> {
        let _one = self.rewrites.acquire().await.map_err(io::Error::other)?;
        let there = self.with_state(id, |state| state.rewritten.clone());
        let wanted = |name: &str| !there.contains_key(name);
        let rewritten = self.stream_rewritten(id, pinned, wanted).await?;
        let now = rewritten.files.iter().map(|file| (&file.rel_path, file.len));
        if now
            .into_iter()
            .any(|(name, len)| there.get(name).is_some_and(|before| *before != len))
        {
            self.with_state(id, |state| state.rewritten.clear());
            return Err(UploadError::Changed(format!("the block {id}")).into());
        }
        let entries = listed(&rewritten);
        Ok((
            entries,
            RewrittenFrom::new(&rewritten.from, rewritten.start_timestamps_dropped, pinned),
        ))
    }

    /// Sends what is missing of a block that was rewritten and is committed: only if it comes out as it was then.
    pub(super) async fn repair_rewritten(
        &self,
        id: BlockId,
        pinned: &Pinned,
        missing: &[BucketFile],
    ) -> Result<(), UploadError> {
        let conflict = |why: String| {
            UploadError::Conflict(format!(
                "the block is committed in {}, rewritten, but objects of it are missing there, and {why}; it is not repaired from \
                 here. Put them back from a copy, or mark the block for deletion",
                self.place(&id.to_string())
            ))
        };
        let _one = self.rewrites.acquire().await.map_err(io::Error::other)?;
        let hashed = missing.iter().any(|file| file.sha256.is_some());
        let files = rewritten_files(pinned, hashed).await.map_err(conflict)?;
        for due in missing {
            let name = &due.rel_path;
            let file = files.iter().find(|file| file.rel_path == *name);
            let file = file.ok_or_else(|| conflict(format!("there is no {name} here")))?;
            may_repair(due, file).map_err(conflict)?;
        }
        let wanted = |name: &str| missing.iter().any(|file| file.rel_path == name);
        match self.stream_rewritten(id, pinned, wanted).await {
            Ok(_) => Ok(()),
            Err(Error::Upload(error)) => Err(error),
            Err(Error::Broken(broken)) => Err(conflict(broken.to_string())),
            Err(Error::Refused(why)) => Err(conflict(why)),
        }
    }

    /// Rewrites a block, and sends those of its files that are wanted.
    async fn stream_rewritten(
        &self,
        id: BlockId,
        pinned: &Pinned,
        wanted: impl Fn(&str) -> bool,
    ) -> Result<Rewritten, Error> {
        let index_at_most = pinned.index().map_or(0, |index| index.len) * 2 + MORE_INDEX;
        let stop = StopOnDrop::default();
        let (begin, mut begun) = mpsc::channel(1);
        let mut work = std::pin::pin!(spawn(pinned, self.sha256, Some(begin), stop.flag()));
        let sending = self.under_way.begin(id, pinned.bytes(), 0);
        let mut puts = stream::FuturesUnordered::new();
        loop {
            tokio::select! {
                Some(file) = begun.recv() => {
                    let FileStream { file, pieces, acknowledged } = file;
                    let name = file.rel_path();
                    let at_most = match file {
                        OutFile::Index => index_at_most,
                        // A chunk that is longer than a segment may be stands alone in one.
                        OutFile::Segment(_) => SEGMENT_LIMIT + (32 << 20),
                    };
                    match wanted(&name) {
                        true => {
                            let pieces = stream_of(pieces, sending.read());
                            puts.push(async move { self.put(id, &name, pieces, acknowledged, at_most).await });
                        }
                        // Without a taker its bytes are dropped.
                        false => drop(acknowledged.send(false)),
                    }
                }
                Some(put) = puts.next(), if !puts.is_empty() => put?,
                done = &mut work => {
                    let done = done.map_err(|lost| UploadError::Panicked(format!("rewriting it: {lost}")))?;
                    // The thread only knows that a request has ended; the error of the request says why.
                    while let Some(put) = puts.next().await {
                        put?;
                    }
                    return done.map_err(|error| match error {
                        rewrite::Error::Broken(broken) => Error::Broken(broken),
                        rewrite::Error::Refused(why) => Error::Refused(why),
                        rewrite::Error::Output(error) => Error::Upload(UploadError::Local(error)),
                        rewrite::Error::Stopped => Error::Upload(UploadError::Local(io::ErrorKind::Interrupted.into())),
                    });
                }
            }
        }
    }

    /// Sends one file while it is made.
    async fn put(
        &self,
        id: BlockId,
        name: &str,
        pieces: Pieces<'_>,
        acknowledged: oneshot::Sender<bool>,
        at_most: u64,
    ) -> Result<(), objstore::Error> {
        let len = self.bucket.put_stream(&format!("{id}/{name}"), pieces, at_most).await?;
        self.with_state(id, |state| state.rewritten.insert(name.to_owned(), len));
        // Whoever rewrites has ended if it is not waited for.
        let _ = acknowledged.send(true);
        Ok(())
    }
}

/// The files of a block as they are when it is rewritten, without sending them; with their hashes if `sha256`.
///
/// # Errors
/// Why it is not rewritten, in words.
pub(crate) async fn rewritten_files(pinned: &Pinned, sha256: bool) -> Result<Vec<BucketFile>, String> {
    let stop = StopOnDrop::default();
    let rewritten = spawn(pinned, sha256, None, stop.flag()).await;
    let rewritten = rewritten.map_err(|lost| lost.to_string())?;
    rewritten.map(|done| listed(&done)).map_err(|error| error.to_string())
}

fn listed(rewritten: &Rewritten) -> Vec<BucketFile> {
    let listed = rewritten.files.iter().map(|file| BucketFile {
        rel_path: file.rel_path.clone(),
        size: Some(file.len),
        sha256: file.sha256.clone(),
    });
    listed.collect()
}

/// Rewrites on a thread that may block; its files go to whoever takes them there.
fn spawn(
    pinned: &Pinned,
    sha256: bool,
    begin: Option<mpsc::Sender<FileStream>>,
    stop: Arc<AtomicBool>,
) -> impl Future<Output = Result<Result<Rewritten, rewrite::Error>, Lost>> {
    let pinned = Pinned {
        id: pinned.id,
        files: pinned.files.clone(),
    };
    blocking(move || {
        let options = Options {
            segment_limit: SEGMENT_LIMIT,
            sha256,
            stop: &stop,
        };
        let mut out = Takers {
            begin,
            open: HashMap::new(),
        };
        rewrite::block(&pinned, &options, &mut out)
    })
}

/// A file that has begun.
struct FileStream {
    file: OutFile,
    pieces: mpsc::Receiver<Piece>,
    /// To be told whether it was sent, when it was acknowledged or is not wanted.
    acknowledged: oneshot::Sender<bool>,
}

/// What is to be sent of a file.
enum Piece {
    Bytes(Bytes),
    /// It is whole. Without this it is not, however it ends.
    End,
}

/// The pieces of a file as a bucket takes them; they are counted.
fn stream_of(pieces: mpsc::Receiver<Piece>, read: ReadBytes) -> Pieces<'static> {
    let next = move |pieces: Option<mpsc::Receiver<Piece>>| {
        let read = read.clone();
        async move {
            let mut pieces = pieces?;
            match pieces.recv().await {
                Some(Piece::Bytes(bytes)) => {
                    read.add(bytes.len());
                    Some((Ok(bytes), Some(pieces)))
                }
                Some(Piece::End) => None,
                None => Some((Err(PieceError::from("the block was not rewritten to its end")), None)),
            }
        }
    };
    stream::unfold(Some(pieces), next).boxed()
}

/// Where the files go, on the side of the thread.
struct Takers {
    /// Nobody takes any if there is none.
    begin: Option<mpsc::Sender<FileStream>>,
    open: HashMap<OutFile, Taker>,
}

/// Who takes the bytes of a file.
enum Taker {
    Put {
        pieces: mpsc::Sender<Piece>,
        acknowledged: oneshot::Receiver<bool>,
    },
    /// It is not wanted.
    Nobody,
}

impl Taker {
    /// Hands a piece on. An error means that the request for the file has failed.
    fn take(&mut self, piece: Piece) -> io::Result<()> {
        let Self::Put { pieces, acknowledged } = self else {
            return Ok(());
        };
        if pieces.blocking_send(piece).is_ok() {
            return Ok(());
        }
        match acknowledged.try_recv() {
            Ok(false) => *self = Self::Nobody,
            _ => return Err(given_up()),
        }
        Ok(())
    }
}

impl Output for Takers {
    fn write(&mut self, file: OutFile, bytes: &[u8]) -> io::Result<()> {
        let Some(begin) = &self.begin else { return Ok(()) };
        let taker = match self.open.entry(file) {
            Entry::Occupied(open) => open.into_mut(),
            Entry::Vacant(place) => {
                let (pieces, taken) = mpsc::channel(1);
                let (tell, acknowledged) = oneshot::channel();
                let stream = FileStream {
                    file,
                    pieces: taken,
                    acknowledged: tell,
                };
                begin.blocking_send(stream).map_err(|_| given_up())?;
                place.insert(Taker::Put { pieces, acknowledged })
            }
        };
        match taker {
            Taker::Put { .. } => taker.take(Piece::Bytes(Bytes::copy_from_slice(bytes))),
            Taker::Nobody => Ok(()),
        }
    }

    fn finish(&mut self, file: OutFile) -> io::Result<()> {
        let Some(mut taker) = self.open.remove(&file) else {
            return Ok(());
        };
        taker.take(Piece::End)?;
        match taker {
            Taker::Put { acknowledged, .. } => acknowledged.blocking_recv().map(drop).map_err(|_| given_up()),
            Taker::Nobody => Ok(()),
        }
    }
}

fn given_up() -> io::Error {
    io::Error::new(io::ErrorKind::BrokenPipe, "the upload of the block ended")
}
