//! A block without samples that ends where the blocks of the bucket end: Prometheus takes no sample from its log that is older
//! than its newest block ends.
//!
//! Prometheus opens it as any other, and drops it when it compacts. Shippers pass over it, as it has no samples. Source: the
//! index format, version 2 (Prometheus' `tsdb/docs/format/index.md`).

use std::{io, path::Path};

use serde_json::json;

use crate::{
    restore::target::{Target, sync_dir},
    tsdb::{self, BlockId},
};

/// Lays it down in `target`, unless there is a block that ends there or later; whether it did.
///
/// # Errors
/// The disk's; names the path.
pub(super) fn lay_down(target: &Target, end_ms: i64, chance: u128, now_ms: u64) -> io::Result<bool> {
    let there = tsdb::scan(target.dir())?.blocks;
    if there.iter().any(|block| block.meta.max_time >= end_ms) {
        return Ok(false);
    }
    let id = BlockId::new(now_ms, chance);
    let unfinished = target.unfinished(id);
    fs_err::create_dir_all(unfinished.join("chunks"))?;
    write(&unfinished.join("index"), &index())?;
    write(&unfinished.join("meta.json"), &meta(id, end_ms))?;
    sync_dir(&unfinished)?;
    fs_err::rename(&unfinished, target.finished(id))?;
    sync_dir(target.dir())?;
    Ok(true)
}

fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    fs_err::write(path, bytes)?;
    fs_err::File::open(path)?.sync_all()
}

fn meta(id: BlockId, end_ms: i64) -> Vec<u8> {
    let meta = json!({
        "ulid": id.to_string(),
        "minTime": end_ms.saturating_sub(1),
        "maxTime": end_ms,
        "stats": {},
        "compaction": { "level": 1, "sources": [id.to_string()] },
        "version": 1,
    });
    format!("{meta:#}\n").into_bytes()
}

/// An index of no series.
fn index() -> Vec<u8> {
    let mut index = vec![0xba, 0xaa, 0xd7, 0x00, 2];
    let symbols = put_section(&mut index, &0_u32.to_be_bytes());
    // Lists begin at multiples of 4.
    index.resize(index.len().next_multiple_of(4), 0);
    let series = index.len() as u64;
    let postings = put_section(&mut index, &0_u32.to_be_bytes());
    let label_table = put_section(&mut index, &0_u32.to_be_bytes());
    // The list of all series: two names without a letter, and where it is, in one byte.
    let list = u8::try_from(postings).unwrap_or(0);
    let entry = [&1_u32.to_be_bytes()[..], &[2, 0, 0, list]].concat();
    let postings_table = put_section(&mut index, &entry);
    let places = [symbols, series, 0, label_table, postings, postings_table];
    let toc: Vec<u8> = places.iter().flat_map(|place| place.to_be_bytes()).collect();
    index.extend(&toc);
    index.extend(crc32c::crc32c(&toc).to_be_bytes());
    index
}

/// Appends a section with its length and its checksum; where it begins.
fn put_section(index: &mut Vec<u8>, content: &[u8]) -> u64 {
    let at = index.len() as u64;
    index.extend((content.len() as u32).to_be_bytes());
    index.extend(content);
    index.extend(crc32c::crc32c(content).to_be_bytes());
    at
}
