//! One file of a log on disk, put together from objects.
//!
//! A file is written as `<name>.part` and renamed when all of it is there and flushed. Each object is held against the checksum in
//! its name, or in the manifest, while it arrives; a complete file that an earlier run has left is read and held against the
//! same.

use std::{
    io::{self, Seek as _, SeekFrom},
    path::{Path, PathBuf},
};

use bytes::Bytes;

use crate::{
    objstore::Bucket,
    restore::download::{Failed, append, publish, retry_transient},
    threads::blocking_io as blocking,
    wal::{
        crc_of,
        markers::without_markers,
        records::{Extent, extent},
    },
};

/// A file, and the objects that it is made of.
#[derive(Clone, Debug)]
pub(super) struct Wanted {
    /// Where it is to be, below the directory in which the log is built.
    pub(super) rel_path: PathBuf,
    pub(super) objects: Vec<ObjectPart>,
    /// It is the last of its log: a record that was cut off at its end is taken away.
    pub(super) is_last: bool,
    /// It is of `wbl/`: markers of chunks that are not brought back are taken out.
    pub(super) has_markers: bool,
}

/// An object of a file.
#[derive(Clone, Debug)]
pub(super) struct ObjectPart {
    pub(super) key: String,
    pub(super) len: u64,
    pub(super) crc: u32,
    /// So many of its first bytes are in the objects before.
    pub(super) skip: u64,
}

impl Wanted {
    /// Its length (bytes), before anything is taken away.
    pub(super) fn len(&self) -> u64 {
        self.objects.iter().map(|object| object.len - object.skip).sum()
    }
}

/// Brings a file to disk; how far its records are whole.
pub(super) async fn bring(bucket: &dyn Bucket, wanted: &Wanted, dir: &Path) -> Result<Extent, Failed> {
    let path = dir.join(&wanted.rel_path);
    let (there, expected) = (path.clone(), wanted.clone());
    if !blocking(move || is_there(&there, &expected)).await? {
        fetch(bucket, wanted, &path).await?;
    }
    let (is_last, has_markers) = (wanted.is_last, wanted.has_markers);
    let finish = move || {
        let found = finish(&path, is_last)?;
        if has_markers && found.damage.is_none() {
            take_out_markers(&path)?;
        }
        Ok(found)
    };
    Ok(blocking(finish).await?)
}

/// Whether a complete file of an earlier run has exactly the bytes that are wanted.
fn is_there(path: &Path, wanted: &Wanted) -> io::Result<bool> {
    let file = match fs_err::File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    };
    if file.metadata()?.len() != wanted.len() {
        return Ok(false);
    }
    // Only whole objects have a checksum.
    if wanted.objects.iter().any(|object| object.skip > 0) {
        return Ok(false);
    }
    let file = file.into_file();
    let mut at = 0;
    for object in &wanted.objects {
        if crc_of(&file, path, at, object.len)? != object.crc {
            return Ok(false);
        }
        at += object.len;
    }
    Ok(true)
}

async fn fetch(bucket: &dyn Bucket, wanted: &Wanted, path: &Path) -> Result<(), Failed> {
    let part = path.with_extension("part");
    let created = part.clone();
    let file = blocking(move || fs_err::File::create(created)).await?;
    let mut at = 0;
    for object in &wanted.objects {
        retry_transient(|| append_object(bucket, object, &file, at)).await?;
        at += object.len - object.skip;
    }
    publish(file, part, path.to_owned()).await
}

/// Writes an object at the place `at` of a file. What an earlier try has written there is written over.
async fn append_object(bucket: &dyn Bucket, object: &ObjectPart, file: &fs_err::File, at: u64) -> Result<(), Failed> {
    let mut file = file.try_clone()?;
    file.seek(SeekFrom::Start(at))?;
    let (mut crc, mut skip) = (0, object.skip);
    let each = |mut piece: Bytes| {
        crc = crc32c::crc32c_append(crc, &piece);
        let skipped = usize::try_from(skip).unwrap_or(usize::MAX).min(piece.len());
        skip -= skipped as u64;
        piece.split_off(skipped)
    };
    append(bucket, &object.key, object.len, file, each).await?;
    match crc == object.crc {
        true => Ok(()),
        false => Err(Failed::Wrong(format!(
            "{} is damaged in the bucket: its CRC32C is {crc:08x}, and {:08x} was sent",
            object.key, object.crc
        ))),
    }
}

/// Reads the records of a complete file; at the end of the last one nothing that was cut off remains.
fn finish(path: &Path, is_last: bool) -> io::Result<Extent> {
    let mut file = fs_err::OpenOptions::new().read(true).write(true).open(path)?;
    let found = extent(&mut file)?;
    if is_last && found.damage.is_none() && found.whole < found.len {
        file.set_len(found.whole)?;
        file.sync_all()?;
    }
    Ok(found)
}

/// Writes a file anew without markers. A run that is killed afterwards fetches it once more.
fn take_out_markers(path: &Path) -> io::Result<()> {
    let part = path.with_extension("part");
    let to = fs_err::File::create(&part)?;
    let mut from = fs_err::File::open(path)?;
    if without_markers(&mut from, io::BufWriter::new(&to))? == 0 {
        return fs_err::remove_file(part);
    }
    to.sync_all()?;
    fs_err::rename(part, path)
}
