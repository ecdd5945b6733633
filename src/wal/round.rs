//! One round: what was appended to the logs since the last one, sent in order and found in the bucket.

use std::{collections::VecDeque, fs::File, io, os::unix::fs::MetadataExt, path::PathBuf, sync::Arc};

use tokio_util::task::AbortOnDropHandle;

use super::{
    checkpoint,
    directory::Directory,
    layout::{Checkpoint, Generation, Log, Manifest, Piece, segment_name},
    metrics::Metrics,
    put::{Error, anew, crc, put_bytes, put_file},
};
use crate::{
    objstore::{Bucket, Source},
    shipper::{Overview, now_ms},
    threads::blocking_io,
};

/// The most bytes of one object (bytes): so much is sent again when a request fails.
const LARGEST_PIECE: u64 = 16 << 20;
/// How many changes of the first segment of `wbl/` are remembered.
const CHANGES: usize = 100;
/// After this time the manifest is written again, so that no lifecycle rule takes it.
const REWRITE_AFTER_MS: i64 = 12 * 60 * 60 * 1000;
/// What is needed for a restore is never older than this: then everything is sent anew, for the same reason.
const RENEW_AFTER_MS: i64 = 24 * 60 * 60 * 1000;

/// What was seen of both logs. That of `wbl/` first: what it refers to is then in the other one.
pub(super) struct Look {
    /// When it began (ms since 1970).
    pub(super) at_ms: i64,
    wbl: Directory,
    pub(super) wal: Directory,
}

impl Look {
    /// Looks at the logs of the data directory `dir`.
    ///
    /// # Errors
    /// They cannot be read.
    pub(super) async fn take(dir: PathBuf) -> Result<Self, Error> {
        let at_ms = now_ms();
        let look = blocking_io(move || {
            let wbl = Directory::look(&dir.join(Log::Wbl.dir()))?;
            let wal = Directory::look(&dir.join(Log::Wal.dir()))?;
            Ok(Self { at_ms, wbl, wal })
        });
        look.await.map_err(Error::Local)
    }
}

/// Up to where a log was sent.
#[derive(Debug)]
pub(super) struct Sent {
    pub(super) log: Log,
    /// How many bytes of it.
    pub(super) position: u64,
    /// The segment of the next byte, and its place there.
    pub(super) segment: u64,
    pub(super) offset: u64,
    /// That segment, once it was opened.
    pub(super) open: Option<Open>,
}

/// A segment that is being sent; it can be read to its end also when it is deleted.
#[derive(Debug)]
pub(super) struct Open {
    file: Arc<File>,
    inode: u64,
}

impl Sent {
    /// Nothing yet; it begins with this segment.
    pub(super) fn nothing(log: Log, segment: u64) -> Self {
        Self {
            log,
            position: 0,
            segment,
            offset: 0,
            open: None,
        }
    }

    /// Whether what was sent can be continued.
    fn fits(&self, look: &Directory) -> Result<(), Error> {
        let name = format!("{}/{}", self.log.dir(), segment_name(self.segment));
        let other = |why| Err(anew(why, "other_log"));
        match look.segments.get(&self.segment) {
            Some(seen) if self.open.as_ref().is_some_and(|open| open.inode != seen.inode) => {
                other(format!("{name} is another file than the one that was sent"))
            }
            Some(seen) if seen.len < self.offset => other(format!(
                "{name} has {} bytes and {} of it were sent",
                seen.len, self.offset
            )),
            Some(_) => Ok(()),
            None if self.open.is_some() && look.segments.contains_key(&(self.segment + 1)) => Ok(()),
            None if look.segments.range(self.segment..).next().is_some() => Err(anew(
                format!("Prometheus has deleted {name}, which is in a checkpoint now, before it was sent"),
                "deleted",
            )),
            None => other(format!("{name} is gone, and no segment follows it")),
        }
    }
}

/// A generation that is being sent.
#[derive(Debug)]
pub(super) struct Current {
    pub(super) generation: Generation,
    pub(super) manifest: Manifest,
    pub(super) wal: Sent,
    pub(super) wbl: Option<Sent>,
    /// The manifest is not in the bucket as it is here.
    pub(super) is_changed: bool,
    /// The first segment of `wbl/` that there is.
    pub(super) wbl_first: Option<u64>,
    /// Which was the first one, and since when (ms since 1970), where blocks of that time are not all in the bucket.
    pub(super) wbl_changes: VecDeque<(Option<u64>, i64)>,
    /// All blocks that there were at this time (ms since 1970) are needed as well, until the generation has caught up.
    pub(super) settles_ms: Option<i64>,
    /// When what is in the bucket of `wbl/` began (ms since 1970).
    pub(super) wbl_since_ms: i64,
    pub(super) upload: Option<AbortOnDropHandle<Result<Option<Checkpoint>, Error>>>,
}

/// What rounds work with.
#[derive(Clone, Debug)]
pub(super) struct Context {
    /// Prometheus' data directory.
    pub(super) dir: PathBuf,
    pub(super) bucket: Arc<dyn Bucket>,
    pub(super) metrics: Metrics,
}

impl Current {
    /// A generation that begins with what was seen.
    pub(super) fn begin(generation: Generation, mut manifest: Manifest, look: &Look) -> Self {
        manifest.first_segment = look.wal.first().unwrap_or(0);
        manifest.first_wbl_segment = look.wbl.segments.keys().next().copied();
        Self {
            is_changed: true,
            wal: Sent::nothing(Log::Wal, manifest.first_segment),
            ..Self::of(generation, manifest, look.at_ms)
        }
    }

    /// A generation of which nothing was sent.
    pub(super) fn of(generation: Generation, manifest: Manifest, now_ms: i64) -> Self {
        Self {
            wal: Sent::nothing(Log::Wal, 0),
            wbl: None,
            is_changed: false,
            wbl_first: manifest.first_wbl_segment,
            wbl_changes: VecDeque::new(),
            settles_ms: manifest
                .first_wbl_segment
                .filter(|_| manifest.caught_up_ms.is_none())
                .map(|_| now_ms),
            wbl_since_ms: manifest.written_ms,
            upload: None,
            generation,
            manifest,
        }
    }

    /// One round; whether what is in the bucket is whole, together with the `blocks` that are there.
    pub(super) async fn round(&mut self, context: &Context, look: &Look, blocks: &Overview) -> Result<bool, Error> {
        let durable_until_ms = blocks.durable_in_order_until_ms();
        if durable_until_ms.is_some() && durable_until_ms != self.manifest.durable_until_ms {
            self.manifest.durable_until_ms = durable_until_ms;
            self.is_changed = true;
        }
        self.wal.fits(&look.wal)?;
        self.check_age(look.at_ms)?;
        self.note_wbl(look, blocks)?;
        self.collect_checkpoint(context).await?;
        self.begin_checkpoint(context, look);
        // What follows means something only with its manifest.
        self.write_manifest(context, look.at_ms).await?;
        send(&mut self.wal, &look.wal, &self.generation, context, look.at_ms).await?;
        if let Some(wbl) = &mut self.wbl {
            send(wbl, &look.wbl, &self.generation, context, look.at_ms).await?;
        }
        let is_whole = self.is_whole(blocks, look.at_ms);
        if is_whole && self.manifest.caught_up_ms.is_none() {
            self.manifest.caught_up_ms = Some(look.at_ms);
            (self.settles_ms, self.is_changed) = (None, true);
            self.write_manifest(context, look.at_ms).await?;
        }
        Ok(is_whole)
    }

    /// Whether there is a beginning that lacks only what is in blocks of the bucket, and that no rule of the bucket has removed.
    fn is_whole(&self, blocks: &Overview, now_ms: i64) -> bool {
        // What came out of order before this generation began is in blocks.
        if self.settles_ms.is_some_and(|at_ms| !blocks.has_all_of(at_ms)) {
            return false;
        }
        let has_beginning = self.manifest.first_segment == 0 && !is_old(self.manifest.begun_ms, now_ms);
        has_beginning
            || self.manifest.checkpoints.iter().any(|checkpoint| {
                !is_old(checkpoint.seen_ms, now_ms)
                    && checkpoint.lacks_only_what_is_before(self.manifest.durable_until_ms)
            })
    }

    /// Everything is sent anew before a lifecycle rule takes what a restore would need.
    fn check_age(&self, now_ms: i64) -> Result<(), Error> {
        let newest = self.manifest.checkpoints.last();
        let since = newest.map_or(self.manifest.begun_ms, |checkpoint| checkpoint.seen_ms);
        let since = since.min(self.wbl.as_ref().map_or(since, |_| self.wbl_since_ms));
        match is_old(since, now_ms) {
            false => Ok(()),
            true => Err(anew(
                "what was sent is a day old, and a rule of the bucket may remove it".to_owned(),
                "age",
            )),
        }
    }

    /// Takes up what became of `wbl/`: Prometheus deletes its first segments once it has their samples in blocks. They count
    /// until these are in the bucket.
    fn note_wbl(&mut self, look: &Look, blocks: &Overview) -> Result<(), Error> {
        let first = look.wbl.segments.keys().next().copied();
        if first != self.wbl_first {
            self.wbl_first = first;
            // If blocks wait for so long, some changes between need not be known.
            self.wbl_changes.truncate(CHANGES);
            self.wbl_changes.push_back((first, look.at_ms));
        }
        let is_new = self.manifest.first_wbl_segment.is_none();
        let mut counts = first.filter(|_| is_new);
        while let Some((settled, _)) = self.wbl_changes.pop_front_if(|(_, at_ms)| blocks.has_all_of(*at_ms)) {
            counts = settled;
        }
        if counts.is_some() && counts != self.manifest.first_wbl_segment {
            self.manifest.first_wbl_segment = counts;
            self.wbl_since_ms = look.at_ms;
            self.is_changed = true;
        }
        let Some(first) = first else {
            return match self.wbl.take() {
                None => Ok(()),
                Some(_) => Err(anew("the segments of wbl are gone".to_owned(), "other_log")),
            };
        };
        let wbl = self.wbl.get_or_insert_with(|| Sent::nothing(Log::Wbl, first));
        wbl.fits(&look.wbl)
    }

    /// Takes up a checkpoint that was sent.
    async fn collect_checkpoint(&mut self, context: &Context) -> Result<(), Error> {
        let Some(upload) = self.upload.take_if(|upload| upload.is_finished()) else {
            return Ok(());
        };
        let sent = upload.await.map_err(|error| Error::Local(io::Error::other(error)))?;
        if let Some(checkpoint) = sent? {
            tracing::info!(checkpoint = checkpoint.number, generation = %self.generation, "a checkpoint of the write-ahead log is in the bucket");
            context.metrics.checkpoints.inc();
            context.metrics.objects.inc_by(checkpoint.files.len() as u64);
            context
                .metrics
                .bytes
                .inc_by(checkpoint.files.iter().map(|file| file.len).sum());
            self.manifest.add(checkpoint);
            self.is_changed = true;
        }
        Ok(())
    }

    /// Begins to send the newest checkpoint, unless it was sent or one is on its way.
    fn begin_checkpoint(&mut self, context: &Context, look: &Look) {
        let newest = self.manifest.checkpoints.last().map(|checkpoint| checkpoint.number);
        let Some(number) = look.wal.checkpoint.filter(|number| Some(*number) > newest) else {
            return;
        };
        if self.upload.is_none() {
            let (bucket, generation) = (Arc::clone(&context.bucket), self.generation.clone());
            let send = checkpoint::send(bucket, generation, context.dir.clone(), number, look.at_ms);
            self.upload = Some(AbortOnDropHandle::new(tokio::spawn(send)));
        }
    }

    async fn write_manifest(&mut self, context: &Context, now_ms: i64) -> Result<(), Error> {
        let is_old = now_ms.saturating_sub(self.manifest.written_ms) > REWRITE_AFTER_MS;
        if !self.is_changed && !is_old {
            return Ok(());
        }
        // Each has a name of its own, also where the clock stands still.
        self.manifest.written_ms = now_ms.max(self.manifest.written_ms.saturating_add(1));
        let key = self.generation.manifest(self.manifest.written_ms);
        let body = self.manifest.to_bytes();
        put_bytes(&*context.bucket, &key, body.into()).await?;
        context.metrics.objects.inc();
        self.is_changed = false;
        Ok(())
    }
}

/// Whether what was sent at one time may be gone at the other (ms since 1970).
fn is_old(since_ms: i64, now_ms: i64) -> bool {
    now_ms.saturating_sub(since_ms) > RENEW_AFTER_MS
}

/// Sends what a log has beyond what was sent. What was sent is counted piece by piece, so that a failure costs one at most.
async fn send(
    sent: &mut Sent,
    look: &Directory,
    generation: &Generation,
    context: &Context,
    read_ms: i64,
) -> Result<(), Error> {
    loop {
        let (file, path, len) = open(sent, context, look).await?;
        let is_last = look.is_last(sent.segment);
        // One without bytes says that a complete segment has none, and not that they are missing.
        let mut is_due = sent.offset < len || sent.offset == 0 && !is_last;
        while is_due {
            let piece_len = (len - sent.offset).min(LARGEST_PIECE);
            let source = Source::range(Arc::clone(&file), path.clone(), sent.offset, piece_len);
            let piece = Piece {
                position: sent.position,
                segment: sent.segment,
                offset: sent.offset,
                len: piece_len,
                read_ms,
                crc: crc(&source).await?,
            };
            put_file(&*context.bucket, &piece.key(generation, sent.log), &source).await?;
            context.metrics.objects.inc();
            context.metrics.bytes.inc_by(piece_len);
            sent.position += piece_len;
            sent.offset += piece_len;
            is_due = sent.offset < len;
        }
        if is_last {
            return Ok(());
        }
        let next = Sent::nothing(sent.log, sent.segment + 1);
        if !look.segments.contains_key(&next.segment) {
            let why = format!("{}/{} is missing", sent.log.dir(), segment_name(next.segment));
            return Err(anew(why, "deleted"));
        }
        *sent = Sent {
            position: sent.position,
            ..next
        };
    }
}

/// The segment of the next byte, and its length: that of one which another follows is final. Of the last one of `wbl/` only what
/// the look has seen is taken.
async fn open(sent: &mut Sent, context: &Context, look: &Directory) -> Result<(Arc<File>, PathBuf, u64), Error> {
    let path = context.dir.join(sent.log.dir()).join(segment_name(sent.segment));
    let known = sent.open.as_ref().map(|open| Arc::clone(&open.file));
    let opened = blocking_io(move || {
        let file = match known {
            Some(file) => file,
            None => Arc::new(fs_err::File::open(&path)?.into_file()),
        };
        let status = file.metadata()?;
        Ok((file, path, status))
    });
    let (file, path, status) = match opened.await {
        Ok(opened) => opened,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let why = format!("{error}: Prometheus has deleted it before it was sent");
            return Err(anew(why, "deleted"));
        }
        Err(error) => return Err(Error::Local(error)),
    };
    let seen = look
        .segments
        .get(&sent.segment)
        .filter(|_| sent.log == Log::Wbl && look.is_last(sent.segment));
    let len = seen.map_or(status.len(), |seen| seen.len.min(status.len()));
    sent.open.get_or_insert_with(|| Open {
        file: Arc::clone(&file),
        inode: status.ino(),
    });
    match len < sent.offset {
        true => Err(anew(
            format!("{} has {len} bytes and {} of it were sent", path.display(), sent.offset),
            "other_log",
        )),
        false => Ok((file, path, len)),
    }
}
