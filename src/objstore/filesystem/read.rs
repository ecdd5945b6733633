//! An object read piece by piece, and held against a file.
//!
//! An object's descriptor is opened once: what is read are the bytes of one object, also when another one takes its
//! name. One that becomes shorter while it is read (nobody but a stranger does that) is an error. Between two pieces
//! nothing runs: dropping a stream stops it there; a dropped comparison stops within one buffer.

use std::{
    fs::File,
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use tokio::sync::OwnedSemaphorePermit;
use tokio_util::task::TaskTracker;

use super::{
    Filesystem,
    failure::failure,
    file::open,
    write::{BUFFER, Failed, check_cancelled, fill, wait},
};
use crate::{
    objstore::{Comparison, Error, ErrorKind, Op, Proof, RateLimit, Reading, Source, rate_limit},
    threads::StopOnDrop,
};

/// One object on its way out.
struct Stream {
    file: Arc<File>,
    place: String,
    /// The bucket's directory.
    base: PathBuf,
    at: u64,
    size: u64,
    rate_limit: RateLimit,
    /// How long the rate limit wants us to wait before more is read.
    pause: Duration,
    work: TaskTracker,
    _permit: OwnedSemaphorePermit,
}

impl Filesystem {
    async fn reading(&self) -> OwnedSemaphorePermit {
        let permit = Arc::clone(&self.readings).acquire_owned().await;
        permit.expect("the semaphore is never closed")
    }

    /// Reads an object from `offset` on.
    pub(super) async fn stream(&self, key: &str, offset: u64) -> Result<Reading, Error> {
        let path = self.path(Op::Get, key)?;
        let permit = self.reading().await;
        let (file, size) = self.blocking(Op::Get, key, move || open(&path)).await?;
        let place = self.place(key);
        if offset > size {
            let detail = format!("there is no byte {offset} to read on from: the object has {size} bytes");
            return Err(refused(place, ErrorKind::Refused, detail));
        }
        let stream = Stream {
            file: Arc::new(file),
            place,
            base: self.base.clone(),
            at: offset,
            size,
            rate_limit: self.rate_limit.clone(),
            pause: Duration::ZERO,
            work: self.cleanup.clone(),
            _permit: permit,
        };
        Ok(Reading {
            len: size - offset,
            pieces: stream::try_unfold(stream, Stream::next).boxed(),
        })
    }

    /// Holds an object against a file.
    pub(super) async fn hold_against(&self, key: &str, source: &Source) -> Result<Comparison, Error> {
        let path = self.path(Op::Get, key)?;
        let permit = self.reading().await;
        let stop = StopOnDrop::default();
        let cancelled = stop.flag();
        let (root, writer) = (Arc::clone(&self.root), Arc::clone(&self.writer));
        let (source, place, base) = (source.clone(), self.place(key), self.base.clone());
        let done = self.cleanup.spawn_blocking(move || {
            let _permit = permit;
            let compared = root.during(|| {
                writer.flush_again(&path)?;
                compare(&path, &source, &writer.rate_limit, &cancelled)
            });
            compared.map_err(|failed| match failed {
                Failed::Store(error) => failure(Op::Get, place, &base, &error),
                Failed::Source(detail) => refused(place, ErrorKind::Local, detail),
            })
        });
        match done.await.unwrap_or_else(|lost| Err(self.lost(Op::Get, key, lost))) {
            Err(error) if error.kind == ErrorKind::NotFound => Ok(Comparison::Absent),
            compared => compared,
        }
    }
}

impl Stream {
    /// The next piece, and the rest.
    async fn next(mut self) -> Result<Option<(Bytes, Self)>, Error> {
        if self.at == self.size {
            return Ok(None);
        }
        rate_limit::wait(self.pause).await;
        let most = BUFFER.min(self.rate_limit.step());
        let take = usize::try_from(self.size - self.at).map_or(most, |left| left.min(most));
        let (file, at, size) = (Arc::clone(&self.file), self.at, self.size);
        let (place, base) = (self.place.clone(), self.base.clone());
        let read = self.work.spawn_blocking(move || {
            let mut buffer = vec![0; take];
            match file.read_exact_at(&mut buffer, at) {
                Ok(()) => Ok(buffer),
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                    let detail = format!("the object had {size} bytes and became shorter while it was read");
                    Err(refused(place, ErrorKind::Integrity, detail))
                }
                Err(error) => Err(failure(Op::Get, place, &base, &error)),
            }
        });
        let buffer = read
            .await
            .unwrap_or_else(|lost| Err(refused(self.place.clone(), ErrorKind::Server, lost.to_string())))?;
        self.at += take as u64;
        self.pause = self.rate_limit.receive(take);
        Ok(Some((buffer.into(), self)))
    }
}

fn compare(path: &Path, source: &Source, rate_limit: &RateLimit, cancelled: &AtomicBool) -> Result<Comparison, Failed> {
    source.unchanged().map_err(Failed::Source)?;
    let (object, size) = open(path)?;
    if size != source.len {
        let told = format!("the object has {size} bytes, the file {}", source.len);
        return Ok(Comparison::Different(told));
    }
    let most = BUFFER.min(rate_limit.step());
    let (mut theirs, mut ours, mut at) = (vec![0; most], vec![0; most], 0);
    while at < size {
        check_cancelled(cancelled)?;
        let take = usize::try_from(size - at).map_or(most, |left| left.min(most));
        let (theirs, ours) = (&mut theirs[..take], &mut ours[..take]);
        object.read_exact_at(theirs, at)?;
        fill(source, ours, at).map_err(Failed::Source)?;
        if theirs != ours {
            let further = theirs
                .iter()
                .zip(&*ours)
                .take_while(|(theirs, ours)| theirs == ours)
                .count();
            let told = format!("byte {} differs (counted from 0)", at + further as u64);
            return Ok(Comparison::Different(told));
        }
        at += take as u64;
        wait(rate_limit.receive(take), cancelled)?;
    }
    Ok(Comparison::Same(Proof::ReadBack))
}

fn refused(place: String, kind: ErrorKind, detail: String) -> Error {
    Error {
        op: Op::Get,
        key: place,
        kind,
        detail,
        source: None,
    }
}
