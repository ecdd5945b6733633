//! A log on its way to disk.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::{Path, PathBuf},
};

use futures_util::{StreamExt, stream};
use tokio_util::sync::CancellationToken;

use super::{
    choose::{Choice, Start},
    empty_block,
    files::{ObjectPart, Wanted, bring},
};
use crate::{
    objstore::Bucket,
    restore::{
        Stop,
        download::Failed,
        target::{Target, sync_dir},
    },
    threads::blocking_io as blocking,
    wal::{
        chain::Part,
        layout::{Generation, Log, checkpoint_name, segment_name},
    },
};

/// The directory in which a log is built.
const UNFINISHED: &str = "narthex-wal.tmp";
/// What belongs to a log, beside itself: a Prometheus has run there.
const OF_A_HEAD: [&str; 4] = ["wal", "wbl", "chunks_head", "chunk_snapshot"];

/// What was done.
#[derive(Debug, Default)]
pub struct Applied {
    /// How many files there are.
    pub files: usize,
    /// Bytes of them.
    pub bytes: u64,
    /// A block without samples was laid down.
    pub empty_block: bool,
    /// Files with records that cannot be read, and where: as they were on the disk that is gone.
    pub damaged: Vec<String>,
    /// Why it is not all there.
    pub stopped: Option<Stop>,
    /// An object is not what it must be, in words.
    pub wrong: Option<String>,
}

/// What of a log there is in a directory already; `None` if there is nothing of one.
///
/// # Errors
/// It cannot be read.
pub fn has_log(dir: &Path) -> io::Result<Option<PathBuf>> {
    let entries = match fs_err::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let is_begun = fs_err::symlink_metadata(dir.join(UNFINISHED)).is_ok();
    for entry in entries {
        let name = entry?.file_name();
        let name = name.to_string_lossy();
        let is_of_a_head = OF_A_HEAD.contains(&&*name) || name.starts_with("chunk_snapshot.");
        // A run that was killed between its last renames has left it.
        let is_ours = is_begun && name == "wbl";
        let path = dir.join(&*name);
        if is_of_a_head && !is_ours && holds_something(&path)? {
            return Ok(Some(path));
        }
    }
    Ok(None)
}

/// An empty directory is what a volume may come with.
fn holds_something(path: &Path) -> io::Result<bool> {
    match fs_err::read_dir(path) {
        Ok(mut entries) => Ok(entries.next().is_some()),
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => Ok(true),
        Err(error) => Err(error),
    }
}

/// The files that are to be brought.
fn wanted(choice: &Choice) -> Vec<Wanted> {
    let generation = &choice.generation;
    let mut files = Vec::new();
    if let Start::Checkpoint(checkpoint) = &choice.start {
        files.extend(checkpoint.files.iter().map(|file| {
            Wanted {
                rel_path: Path::new(Log::Wal.dir())
                    .join(checkpoint_name(checkpoint.number))
                    .join(&file.name),
                objects: vec![ObjectPart {
                    key: generation.checkpoint_file(checkpoint.number, &file.name),
                    len: file.len,
                    crc: file.crc32c,
                    skip: 0,
                }],
                is_last: false,
                has_markers: false,
            }
        }));
    }
    files.extend(segments(generation, Log::Wal, &choice.wal));
    files.extend(segments(generation, Log::Wbl, &choice.wbl));
    files
}

fn segments(generation: &Generation, log: Log, parts: &[Part]) -> Vec<Wanted> {
    let mut segments: BTreeMap<u64, Vec<ObjectPart>> = BTreeMap::new();
    for Part { piece, skip } in parts {
        segments.entry(piece.segment).or_default().push(ObjectPart {
            key: piece.key(generation, log),
            len: piece.len,
            crc: piece.crc,
            skip: *skip,
        });
    }
    let last = segments.keys().next_back().copied();
    let files = segments.into_iter().map(|(segment, objects)| Wanted {
        rel_path: Path::new(log.dir()).join(segment_name(segment)),
        objects,
        is_last: Some(segment) == last,
        has_markers: log == Log::Wbl,
    });
    files.collect()
}

impl Choice {
    /// How many bytes of logs there are to bring.
    pub fn bytes(&self) -> u64 {
        wanted(self).iter().map(Wanted::len).sum()
    }
}

/// Brings a log to disk, `at_once` files at a time, until it is all there, `token` is cancelled, or the disk or the bucket fails.
/// Can be run again at any time, and goes on with what is missing.
pub async fn apply(
    bucket: &dyn Bucket,
    target: &Target,
    choice: &Choice,
    at_once: usize,
    token: &CancellationToken,
) -> Applied {
    let mut applied = Applied::default();
    let done = token
        .run_until_cancelled(all(bucket, target, choice, at_once, &mut applied))
        .await;
    match done {
        None => applied.stopped = Some(Stop::Cut),
        Some(Ok(())) => {}
        Some(Err(Failed::Bucket(error))) => applied.stopped = Some(Stop::Bucket(error)),
        Some(Err(Failed::Disk(error))) => applied.stopped = Some(Stop::Disk(error)),
        Some(Err(Failed::Wrong(why))) => applied.wrong = Some(why),
    }
    applied
}

async fn all(
    bucket: &dyn Bucket,
    target: &Target,
    choice: &Choice,
    at_once: usize,
    applied: &mut Applied,
) -> Result<(), Failed> {
    let built = target.dir().join(UNFINISHED);
    let files = wanted(choice);
    let (paths, prepared, finished) = (paths(&files), built.clone(), target.dir().to_owned());
    blocking(move || prepare(&prepared, &finished, &paths)).await?;
    bring_all(bucket, &built, &files, at_once, applied).await?;
    if let Some(end_ms) = choice.blocks_end_ms {
        // Only now: a restore that fails leaves no block behind.
        let now_ms = u64::try_from(jiff::Timestamp::now().as_millisecond()).unwrap_or(0);
        applied.empty_block = empty_block::lay_down(target, end_ms, rand::random(), now_ms)?;
    }
    let (target, dirs) = (target.dir().to_owned(), self::dirs(&files));
    blocking(move || publish(&built, &target, &dirs)).await?;
    Ok(())
}

/// Brings all files, several at once.
async fn bring_all(
    bucket: &dyn Bucket,
    built: &Path,
    files: &[Wanted],
    at_once: usize,
    applied: &mut Applied,
) -> Result<(), Failed> {
    let brought = stream::iter(files).map(|file| async move { (file, bring(bucket, file, built).await) });
    let mut brought = std::pin::pin!(brought.buffer_unordered(at_once.max(1)));
    while let Some((file, found)) = brought.next().await {
        let extent = found?;
        (applied.files, applied.bytes) = (applied.files + 1, applied.bytes + extent.len);
        let torn = (!file.is_last && extent.is_cut_off()).then(|| "its last record is cut off".to_owned());
        if let Some(why) = extent.damage.or(torn) {
            applied.damaged.push(format!("{}: {why}", file.rel_path.display()));
        }
    }
    Ok(())
}

/// The directories of these files, those above first.
fn dirs(files: &[Wanted]) -> Vec<PathBuf> {
    let mut dirs: Vec<PathBuf> = files
        .iter()
        .filter_map(|file| file.rel_path.parent())
        .map(Path::to_owned)
        .collect();
    dirs.push(Log::Wal.dir().into());
    dirs.sort();
    dirs.dedup();
    dirs
}

/// Where the files are, with their directories.
fn paths(files: &[Wanted]) -> BTreeSet<PathBuf> {
    files
        .iter()
        .map(|file| file.rel_path.clone())
        .chain(dirs(files))
        .collect()
}

/// Makes the directory in which the log is built. What another choice of an earlier run has left there is taken away.
fn prepare(built: &Path, target: &Path, wanted: &BTreeSet<PathBuf>) -> io::Result<()> {
    fs_err::create_dir_all(built)?;
    let placed = target.join(Log::Wbl.dir());
    if fs_err::symlink_metadata(&placed).is_ok() && !holds_something(&placed)? {
        fs_err::remove_dir(&placed)?;
    } else if fs_err::symlink_metadata(&placed).is_ok() {
        fs_err::rename(placed, built.join(Log::Wbl.dir()))?;
    }
    tidy(built, Path::new(""), wanted)?;
    for dir in wanted.iter().filter_map(|path| path.parent()) {
        fs_err::create_dir_all(built.join(dir))?;
    }
    fs_err::create_dir_all(built.join(Log::Wal.dir()))
}

/// Removes what is not wanted below `rel_path`.
fn tidy(built: &Path, rel_path: &Path, wanted: &BTreeSet<PathBuf>) -> io::Result<()> {
    for entry in fs_err::read_dir(built.join(rel_path))? {
        let entry = entry?;
        let path = rel_path.join(entry.file_name());
        let is_dir = entry.file_type()?.is_dir();
        match (wanted.contains(&path), is_dir) {
            (true, true) => tidy(built, &path, wanted)?,
            (true, false) => {}
            (false, true) => fs_err::remove_dir_all(entry.path())?,
            (false, false) => fs_err::remove_file(entry.path())?,
        }
    }
    Ok(())
}

/// Gives the logs their names, `wal` last: with it the directory is one that Prometheus replays.
fn publish(built: &Path, target: &Path, dirs: &[PathBuf]) -> io::Result<()> {
    for dir in dirs.iter().rev() {
        sync_dir(&built.join(dir))?;
    }
    sync_dir(built)?;
    for log in [Log::Wbl, Log::Wal] {
        let (from, to) = (built.join(log.dir()), target.join(log.dir()));
        if fs_err::symlink_metadata(&from).is_err() {
            continue;
        }
        if fs_err::symlink_metadata(&to).is_ok() {
            // It is empty: that was seen before.
            fs_err::remove_dir(&to)?;
        }
        fs_err::rename(from, to)?;
        sync_dir(target)?;
    }
    fs_err::remove_dir_all(built)
}
