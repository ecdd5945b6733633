//! The generation that an earlier process has sent: what the bucket has of it, and whether the local log continues it.
//!
//! It does if the local segment has the bytes of the last piece in the place of this piece: a log of another life, or one that was
//! restored up to some time, has others. In any doubt a new generation begins, which costs sending the log once more.

use std::{collections::BTreeMap, io, path::Path};

use super::{
    chain::Chain,
    layout::{Generation, LARGEST_MANIFEST, Log, Manifest, Piece, segment_name},
    put::{Error, crc_of},
    round::{Context, Current, Sent},
};
use crate::{
    objstore::{self, Bucket, Scope},
    shipper::now_ms,
    threads::blocking_io,
};

/// After so many segments of which nothing is there, none is looked for.
const ABSENT: u32 = 3;

/// Continues a generation, if the local log does. Its manifests were written at these times (ms since 1970). What of it is durable
/// the next round tells: an earlier process may have been stopped within one.
///
/// # Errors
/// The bucket's, and those of reading the local log.
pub(super) async fn resume(
    context: &Context,
    generation: Generation,
    written: &[i64],
) -> Result<Option<Current>, Error> {
    let bucket = &*context.bucket;
    let mut unreadable = Vec::new();
    let manifest = newest_manifest(bucket, &generation, written, &mut unreadable).await?;
    for why in unreadable {
        tracing::warn!(%generation, why, "a manifest of what was sent of the write-ahead log cannot be used");
    }
    let Some(manifest) = manifest else {
        return Ok(None);
    };
    let Some(first) = manifest.first() else {
        return Ok(None);
    };
    let End::At(wal) = end(context, &generation, Log::Wal, first).await? else {
        return Ok(None);
    };
    let wbl = match manifest.first_wbl_segment {
        Some(first) => match end(context, &generation, Log::Wbl, first).await? {
            End::At(wbl) => Some(wbl),
            End::Nothing => Some(Sent::nothing(Log::Wbl, first)),
            End::OtherLog => return Ok(None),
        },
        None => None,
    };
    tracing::info!(%generation, segment = wal.segment, offset = wal.offset, "the write-ahead log is sent on from where it was");
    let current = Current {
        wal,
        wbl,
        ..Current::of(generation, manifest, now_ms())
    };
    Ok(Some(current))
}

/// Where a log that was sent ends.
enum End {
    /// Nothing of it was sent, or nothing that has bytes.
    Nothing,
    /// Behind this piece, and the local log has the same bytes there.
    At(Sent),
    /// The local log has others.
    OtherLog,
}

async fn end(context: &Context, generation: &Generation, log: Log, first: u64) -> Result<End, Error> {
    let pieces = pieces(&*context.bucket, generation, log, first).await?;
    let chain = Chain::from(&pieces, first);
    let Some(last) = chain.last().copied() else {
        return Ok(End::Nothing);
    };
    // One without bytes says nothing of the log.
    let Some(told) = chain
        .parts
        .iter()
        .rev()
        .map(|part| part.piece)
        .find(|piece| piece.len > 0)
    else {
        return Ok(End::Nothing);
    };
    let path = context.dir.join(log.dir()).join(segment_name(told.segment));
    if !blocking_io(move || has(&path, &told)).await.map_err(Error::Local)? {
        return Ok(End::OtherLog);
    }
    let sent = Sent {
        position: last.end(),
        offset: last.offset + last.len,
        ..Sent::nothing(log, last.segment)
    };
    Ok(End::At(sent))
}

/// The generations below a directory of manifests, with the times (ms since 1970) at which their manifests were written, those
/// of each in order.
///
/// # Errors
/// The bucket's.
pub async fn generations(bucket: &dyn Bucket, dir: &str) -> Result<BTreeMap<Generation, Vec<i64>>, objstore::Error> {
    let mut generations: BTreeMap<Generation, Vec<i64>> = BTreeMap::new();
    for object in bucket.list(dir).await? {
        if let Some((generation, written_ms)) = Generation::of_manifest(&object.key) {
            generations.entry(generation).or_default().push(written_ms);
        }
    }
    generations.values_mut().for_each(|written| written.sort_unstable());
    Ok(generations)
}

/// The newest manifest of a generation that can be used; `unreadable` gets why newer ones cannot.
///
/// # Errors
/// Those that concern the whole bucket.
pub async fn newest_manifest(
    bucket: &dyn Bucket,
    generation: &Generation,
    written: &[i64],
    unreadable: &mut Vec<String>,
) -> Result<Option<Manifest>, objstore::Error> {
    for written_ms in written.iter().rev() {
        let key = generation.manifest(*written_ms);
        let manifest = match bucket.get(&key, LARGEST_MANIFEST).await {
            Ok(bytes) => Manifest::parse(&bytes),
            Err(error) if error.scope() == Scope::Object => Err(error.to_string()),
            Err(error) => return Err(error),
        };
        match manifest {
            Ok(manifest) => return Ok(Some(manifest)),
            Err(why) => unreadable.push(format!("{key}: {why}")),
        }
    }
    Ok(None)
}

/// The pieces of a log that the bucket has from this segment on.
///
/// # Errors
/// The bucket's.
pub async fn pieces(
    bucket: &dyn Bucket,
    generation: &Generation,
    log: Log,
    first: u64,
) -> Result<Vec<Piece>, objstore::Error> {
    let (mut pieces, mut absent) = (Vec::new(), 0);
    // A segment of which nothing is there is the end, or lost.
    for segment in first.. {
        if absent == ABSENT {
            break;
        }
        let dir = generation.segment(log, segment);
        let listed = bucket.list(&dir).await?;
        absent = if listed.is_empty() { absent + 1 } else { 0 };
        pieces.extend(listed.iter().filter_map(|object| {
            let name = object.key.strip_prefix(&dir)?.strip_prefix('/')?;
            // One that is shorter than its name says was cut off.
            Piece::parse(name).filter(|piece| piece.len == object.size)
        }));
    }
    Ok(pieces)
}

/// Whether a file has the bytes of a piece.
fn has(path: &Path, piece: &Piece) -> io::Result<bool> {
    let file = match fs_err::File::open(path) {
        Ok(file) => file.into_file(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    };
    if file.metadata()?.len() < piece.offset.saturating_add(piece.len) {
        return Ok(false);
    }
    Ok(crc_of(&file, path, piece.offset, piece.len)? == piece.crc)
}
