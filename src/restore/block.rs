//! One block's way to disk, and the proof that it is the block of the bucket.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{self, Write},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64},
    },
};

use futures_util::{StreamExt, stream};
use tokio::sync::Semaphore;

use super::{
    download::{Failed, fetch, retry_transient},
    files::{self, TOMBSTONES},
    target::{Target, sync_dir},
    tombstones,
};
use crate::{
    objstore::{self, Bucket, Comparison, ErrorKind, Object, Scope, Source},
    threads::blocking_io as blocking,
    tsdb::{
        Block, BlockId, BucketFile, LARGEST_META, Meta, PinError, Reason,
        check::full::{self, Checked, Digest, Facts},
    },
};

/// What became of a block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is on disk, proven.
    Restored,
    /// It was on disk before, and is the one of the bucket.
    Present,
    /// It is broken in the bucket, or another one is in its place on disk; in words.
    Refused(String),
    /// The bucket failed, in words; another run may bring it.
    Failed(String),
}

/// What the blocks of one run share.
#[derive(Debug)]
pub(super) struct Run {
    pub(super) bucket: Arc<dyn Bucket>,
    pub(super) target: Target,
    /// How many objects are fetched at once.
    pub(super) at_once: usize,
    pub(super) permits: Semaphore,
    /// One block is checked at a time, by all cores.
    pub(super) checks: Semaphore,
    /// Set to stop checks.
    pub(super) stop: Arc<AtomicBool>,
}

/// A block as the bucket has it now.
struct Wanted {
    id: BlockId,
    meta: Meta,
    /// `meta.json`, byte for byte.
    text: Vec<u8>,
    files: Vec<BucketFile>,
}

/// What is wrong with a block on disk.
struct Wrong {
    /// The file, if it is known which one.
    file: Option<String>,
    why: String,
    /// The disk does not give it: what is there is not known.
    unreadable: bool,
}

impl Wrong {
    fn new(file: Option<String>, why: String) -> Self {
        let unreadable = false;
        Self { file, why, unreadable }
    }

    /// What an error says of a file of a block that is here.
    fn of_read(error: &io::Error) -> Self {
        Self {
            unreadable: !matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::FileTooLarge),
            ..Self::new(None, error.to_string())
        }
    }

    /// For the block that stands in `dir` under its final name.
    fn of_present(&self, dir: &Path) -> String {
        let (dir, why) = (dir.display(), &self.why);
        match self.unreadable {
            true => format!(
                "{dir} is there already, and cannot be read: {why}. Whether it is the block of the bucket is not known, and it \
                 was left as it is; see to the disk and the rights, or move it away to have the one of the bucket"
            ),
            false => format!(
                "{dir} is there already, and is not the block of the bucket: {why}. It was left as it is; move it away to \
                 have the other one"
            ),
        }
    }

    /// What the check of a block that is here says against it.
    ///
    /// # Errors
    /// What says nothing of the block.
    fn of_check(error: PinError) -> Result<Self, Failed> {
        match error {
            PinError::Io(error) => Err(error.into()),
            PinError::Broken {
                reason: Reason::Unreadable,
                detail,
            } => Ok(Self {
                unreadable: true,
                ..Self::new(None, detail)
            }),
            broken => Ok(Self::new(None, broken.to_string())),
        }
    }

    /// What is wrong with a block that was just fetched.
    ///
    /// # Errors
    /// The disk does not give back what was written to it: no fault of the block, which would only be fetched once more.
    fn of_fetched(self) -> Result<Self, Failed> {
        match self.unreadable {
            true => Err(Failed::Disk(io::Error::other(self.why))),
            false => Ok(self),
        }
    }
}

impl Run {
    /// Brings a block to disk.
    ///
    /// # Errors
    /// What stops all other blocks, too: the disk, or a bucket that lets nobody in.
    pub(super) async fn restore(&self, id: BlockId) -> Result<Outcome, Failed> {
        match self.restore_block(id).await {
            Ok(outcome) => Ok(outcome),
            Err(Failed::Wrong(why)) => Ok(Outcome::Refused(why)),
            Err(Failed::Bucket(error)) if error.kind == ErrorKind::NotFound => Ok(Outcome::Failed(format!(
                "{error}; it was deleted meanwhile, run this again to plan anew"
            ))),
            Err(Failed::Bucket(error)) if stops_all(&error) => Err(Failed::Bucket(error)),
            Err(Failed::Bucket(error)) if is_refused(&error) => Ok(Outcome::Refused(error.to_string())),
            Err(Failed::Bucket(error)) => Ok(Outcome::Failed(error.to_string())),
            Err(disk) => Err(disk),
        }
    }

    async fn restore_block(&self, id: BlockId) -> Result<Outcome, Failed> {
        let wanted = self.wanted(id).await?;
        let finished = self.target.finished(id);
        if fs_err::symlink_metadata(&finished).is_ok() {
            return self.compare_present(&wanted, finished).await;
        }
        let dir = self.target.unfinished(id);
        prepare(&wanted, &dir).await?;
        for again in [true, false] {
            self.fetch_missing(&wanted, &dir).await?;
            let wrong = match self.prove(&wanted, &dir, false).await? {
                Ok(facts) => {
                    warn_of_issues(id, &facts);
                    break;
                }
                Err(wrong) => wrong.of_fetched()?,
            };
            tracing::warn!(block = %id, why = wrong.why, again, "the downloaded block failed its check");
            // A file that was on disk from an earlier run may be to blame, or the disk.
            discard(dir.clone(), wrong.file.filter(|_| again)).await?;
            if !again {
                let why = wrong.why;
                return Err(Failed::Wrong(format!("it is damaged in the bucket: {why}")));
            }
            prepare(&wanted, &dir).await?;
        }
        let target = self.target.dir().to_owned();
        blocking(move || seal(&dir, &finished, &target, &wanted.text)).await?;
        Ok(Outcome::Restored)
    }

    /// What the bucket has under this name.
    async fn wanted(&self, id: BlockId) -> Result<Wanted, Failed> {
        let key = format!("{id}/meta.json");
        let text = retry_transient(|| async { Ok(self.bucket.get(&key, LARGEST_META).await?) }).await?;
        let meta = Meta::parse(&text).map_err(|error| Failed::Wrong(format!("meta.json cannot be used: {error}")))?;
        if meta.ulid != id {
            let why = format!("meta.json is that of the block {}", meta.ulid);
            return Err(Failed::Wrong(why));
        }
        let dir = id.to_string();
        let listed: Vec<Object> = retry_transient(|| async { Ok(self.bucket.list(&dir).await?) }).await?;
        let said = meta.files().map_err(Failed::Wrong)?;
        let files = files::of_block(id, said.as_deref(), &listed).map_err(Failed::Wrong)?;
        Ok(Wanted {
            id,
            meta,
            text: text.to_vec(),
            files,
        })
    }

    async fn compare_present(&self, wanted: &Wanted, dir: PathBuf) -> Result<Outcome, Failed> {
        if let Err(wrong) = self.same_on_disk(wanted, &dir).await? {
            return Ok(Outcome::Refused(wrong.of_present(&dir)));
        }
        // Who renamed it may have been killed before the rename was flushed.
        let target = self.target.dir().to_owned();
        blocking(move || sync_dir(&target)).await?;
        Ok(Outcome::Present)
    }

    /// Whether the finished block in `dir` is the wanted one.
    async fn same_on_disk(&self, wanted: &Wanted, dir: &Path) -> Result<Result<(), Wrong>, Failed> {
        let other = |why: String| Ok(Err(Wrong::new(None, why)));
        let path = dir.to_owned();
        let there = match blocking(move || read_small(&path.join("meta.json"))).await {
            Ok(there) => there,
            Err(error) => return Ok(Err(Wrong::of_read(&error))),
        };
        // The data directory of the Prometheus that made the block has it without the section of the bucket.
        let facts = |meta: &Meta| {
            (
                meta.ulid,
                meta.min_time,
                meta.max_time,
                meta.num_samples,
                meta.num_series,
            )
        };
        match Meta::parse(&there) {
            Err(error) => return other(format!("meta.json cannot be used: {error}")),
            Ok(meta) if facts(&meta) != facts(&wanted.meta) => {
                return other("meta.json tells of other samples".to_owned());
            }
            Ok(_) => {}
        }
        for file in &wanted.files {
            let size = fs_err::metadata(dir.join(&file.rel_path)).map(|status| status.len());
            match size {
                Ok(size) if Some(size) == file.size => {}
                Ok(size) => return other(format!("{} has {size} bytes", file.rel_path)),
                Err(error) => return Ok(Err(Wrong::of_read(&error))),
            }
        }
        // A meta.json with every byte of the bucket's was brought by a restore, which had proven the block: what a rerun
        // finds is not fetched once more from a store without checksums.
        let foreign = there != wanted.text;
        Ok(self.prove(wanted, dir, foreign).await?.map(|_| ()))
    }

    /// Fetches the files that are not complete. Trouble with one does not cut the others: they count for the next run.
    async fn fetch_missing(&self, wanted: &Wanted, dir: &Path) -> Result<(), Failed> {
        let missing = wanted
            .files
            .iter()
            .filter(|file| fs_err::symlink_metadata(dir.join(&file.rel_path)).is_err());
        let fetched = stream::iter(missing).map(|file| async move {
            // It is never closed; were it, the bucket's own limit would remain.
            let _permit = self.permits.acquire().await.ok();
            let (key, path) = (format!("{}/{}", wanted.id, file.rel_path), dir.join(&file.rel_path));
            retry_transient(|| fetch(&*self.bucket, &key, size(file), &path)).await
        });
        let mut fetched = std::pin::pin!(fetched.buffer_unordered(self.at_once));
        let mut trouble = Ok(());
        while let Some(result) = fetched.next().await {
            match result {
                Err(Failed::Disk(error)) => return Err(Failed::Disk(error)),
                Err(Failed::Bucket(error)) if stops_all(&error) => return Err(Failed::Bucket(error)),
                other => trouble = trouble.and(other),
            }
        }
        trouble
    }

    /// Reads all of a block from disk, checks it, and holds it against the hashes of `meta.json`. Where there are none, the
    /// store is asked only if the files may be those of another block: what was fetched has every byte under a checksum
    /// of the block's own, and a store that keeps none would have it fetched once more.
    async fn prove(&self, wanted: &Wanted, dir: &Path, foreign: bool) -> Result<Result<Facts, Wrong>, Failed> {
        let checked = match self.check(wanted, dir).await? {
            Ok(checked) => checked,
            Err(error) => return Wrong::of_check(error).map(Err),
        };
        for file in &wanted.files {
            let digest = checked.files.iter().find(|digest| digest.rel_path == file.rel_path);
            let hash = digest.and_then(|digest: &Digest| digest.sha256.as_ref());
            let same = match (&file.sha256, hash) {
                (Some(recorded), Some(hash)) if recorded.eq_ignore_ascii_case(hash) => Ok(()),
                (Some(_), Some(_)) => Err("its SHA-256 is not the one in meta.json".to_owned()),
                _ if foreign => self.same_as_object(wanted.id, file, dir).await?,
                _ if file.rel_path == TOMBSTONES => {
                    let (path, stop) = (dir.join(TOMBSTONES), Arc::clone(&self.stop));
                    blocking(move || tombstones::check(&path, &stop)).await?
                }
                _ => Ok(()),
            };
            if let Err(why) = same {
                let why = format!("{}: {why}", file.rel_path);
                return Ok(Err(Wrong::new(Some(file.rel_path.clone()), why)));
            }
        }
        // What is no part of the block would be read as one.
        let names: BTreeSet<&str> = wanted.files.iter().map(|file| file.rel_path.as_str()).collect();
        let more = checked
            .files
            .iter()
            .find(|digest| !names.contains(digest.rel_path.as_str()));
        Ok(match more {
            None => Ok(checked.facts),
            Some(more) => {
                let why = format!("{} is none of its files", more.rel_path);
                Err(Wrong::new(None, why))
            }
        })
    }

    /// Checks every byte of the block in `dir`.
    async fn check(&self, wanted: &Wanted, dir: &Path) -> Result<Result<Checked, PinError>, Failed> {
        let _one = self.checks.acquire().await.ok();
        let block = Block {
            id: wanted.id,
            dir: dir.into(),
            meta: wanted.meta.clone().into(),
        };
        let sha256 = wanted.files.iter().any(|file| file.sha256.is_some());
        let stop = Arc::clone(&self.stop);
        let checked = blocking(move || {
            let result = std::sync::Mutex::new(None);
            let options = full::Options {
                threads: std::thread::available_parallelism().map_or(1, Into::into),
                sha256,
                stop: &stop,
                read: &AtomicU64::new(0),
            };
            full::blocks(&[block], &options, |_, checked| {
                let checked = checked.map(|(_, checked)| checked);
                *result.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(checked);
            });
            let result = result.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
            result.ok_or_else(|| io::Error::other("the check ended without a result"))
        });
        Ok(checked.await?)
    }

    /// Whether a file has the bytes of its object, as the store tells it.
    async fn same_as_object(&self, id: BlockId, file: &BucketFile, dir: &Path) -> Result<Result<(), String>, Failed> {
        let path = dir.join(&file.rel_path);
        let opened = path.clone();
        let opened = blocking(move || fs_err::File::open(opened)).await?;
        let len = opened.metadata()?.len();
        let source = Source::new(Arc::new(opened.into_file()), path, len);
        let key = format!("{id}/{}", file.rel_path);
        let compared = retry_transient(|| async { Ok(self.bucket.compare(&key, &source).await?) }).await?;
        Ok(match compared {
            Comparison::Same(_) => Ok(()),
            Comparison::Different(how) => Err(how),
            Comparison::Absent => Err("the object is gone".to_owned()),
        })
    }
}

/// Logs what of a restored block is not as current versions of Prometheus write it. The block is the one in the bucket, and
/// Prometheus reads it.
fn warn_of_issues(id: BlockId, facts: &Facts) {
    for issue in &facts.issues {
        tracing::warn!(block = %id, %issue, "the index of a restored block has an issue; it is restored as it is in the bucket");
    }
}

fn size(file: &BucketFile) -> u64 {
    file.size.unwrap_or_default()
}

/// Whether every other block would have this trouble as well, and no wait helps.
fn stops_all(error: &objstore::Error) -> bool {
    error.scope() == Scope::Bucket && !error.kind.is_transient()
}

/// Whether the store does not give this object, as when it is in an archive, and running the command again does not help.
fn is_refused(error: &objstore::Error) -> bool {
    error.scope() == Scope::Object && matches!(error.kind, ErrorKind::Forbidden | ErrorKind::Refused)
}

fn read_small(path: &Path) -> io::Result<Vec<u8>> {
    match fs_err::metadata(path)?.len() {
        len if len > LARGEST_META => Err(io::Error::new(
            io::ErrorKind::FileTooLarge,
            format!("{} is too large", path.display()),
        )),
        _ => fs_err::read(path),
    }
}

/// Makes the directory in which a block is built, and removes from it what does not belong there.
async fn prepare(wanted: &Wanted, dir: &Path) -> io::Result<()> {
    let dir = dir.to_owned();
    let paths = wanted.files.iter().map(|file| (dir.join(&file.rel_path), size(file)));
    let sizes: BTreeMap<PathBuf, u64> = paths.collect();
    blocking(move || {
        for dir in [dir.clone(), dir.join("chunks")] {
            match fs_err::create_dir(&dir) {
                // A link would have the block built elsewhere.
                Err(_) if fs_err::symlink_metadata(&dir).is_ok_and(|status| status.is_dir()) => {}
                other => other?,
            }
            for entry in fs_err::read_dir(&dir)? {
                let entry = entry?;
                let status = fs_err::symlink_metadata(entry.path())?;
                let complete = status.is_file() && sizes.get(&entry.path()) == Some(&status.len());
                if !complete && !status.is_dir() {
                    fs_err::remove_file(entry.path())?;
                }
            }
        }
        Ok(())
    })
    .await
}

/// Removes a file of an unfinished block, or all of it.
async fn discard(dir: PathBuf, file: Option<String>) -> io::Result<()> {
    blocking(move || {
        let removed = match file {
            Some(file) => fs_err::remove_file(dir.join(file)),
            None => fs_err::remove_dir_all(dir),
        };
        // A Prometheus that starts removes unfinished blocks.
        removed.or_else(|error| match error.kind() {
            io::ErrorKind::NotFound => Ok(()),
            _ => Err(error),
        })
    })
    .await
}

/// Gives a block its final name. Its files are flushed already.
fn seal(dir: &Path, finished: &Path, target: &Path, meta: &[u8]) -> io::Result<()> {
    let part = dir.join("meta.json.part");
    let mut file = fs_err::File::create(&part)?;
    file.write_all(meta)?;
    file.sync_all()?;
    fs_err::rename(part, dir.join("meta.json"))?;
    sync_dir(&dir.join("chunks"))?;
    sync_dir(dir)?;
    fs_err::rename(dir, finished)?;
    sync_dir(target)
}

#[cfg(test)]
mod tests;
