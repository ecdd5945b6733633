//! Whether a block of a bucket is complete and undamaged.
//!
//! [`list`] compares the objects of a block with what its `meta.json` lists, as [`crate::lineage`] judges it: one request.
//! [`read_back`] reads all of them and checks the content.

mod read_back;

pub use self::read_back::{ReadBack, Reader, read_back};
use super::{Issue, Kind};
pub use crate::lineage::BlockObjects;
use crate::{
    lineage::{self, Fault},
    objstore::{self, Bucket},
    tsdb::{BlockId, Encodings, Meta},
};

/// What helps when chunks are in an encoding that readers refuse.
const REWRITE: &str = "mark the block for deletion, and once the compactor has deleted it (after its --delete-delay) send it again with `narthex backfill` from a copy, which rewrites it; or run a version of Thanos that reads them";

const INDEX: &str = "index";
/// What helps when something of a block is lost.
const LOST: &str = "put it back from a copy of the block, or mark the block for deletion";

/// Lists the objects of a block and compares them with its `meta.json`.
///
/// # Errors
/// The bucket's.
pub async fn list(bucket: &dyn Bucket, meta: &Meta) -> Result<BlockObjects, objstore::Error> {
    let objects = bucket.list(&meta.ulid.to_string()).await?;
    Ok(lineage::check_objects(meta, &objects))
}

/// Lists what there is of a block without a `meta.json`.
///
/// # Errors
/// The bucket's.
pub async fn list_without_meta(bucket: &dyn Bucket, id: BlockId) -> Result<BlockObjects, objstore::Error> {
    let objects = bucket.list(&id.to_string()).await?;
    Ok(lineage::count_objects(id, &objects))
}

/// What is wrong with the objects of the block `id`.
pub fn issues(id: BlockId, listed: &BlockObjects) -> Vec<Issue> {
    listed.faults.iter().map(|fault| issue(id, fault)).collect()
}

/// The issue of a block with chunks in encodings that the readers of today refuse, if there are any among these.
pub fn of_encodings(id: BlockId, found: &Encodings) -> Option<Issue> {
    let names = found.refused();
    (!names.is_empty()).then(|| {
        let what = format!("it has {names} chunks, which Thanos' store gateway and compactor refuse; {REWRITE}");
        Issue::new(id, Kind::Encoding, what)
    })
}

fn issue(id: BlockId, fault: &Fault) -> Issue {
    let (kind, help) = match fault {
        Fault::Meta(_) => (Kind::Meta, None),
        Fault::Missing(_) => (Kind::Missing, Some(LOST)),
        Fault::Size { .. } => (Kind::Size, Some(LOST)),
        Fault::Extra { .. } => (Kind::Extra, Some("find out what wrote it")),
    };
    match help {
        Some(help) => Issue::new(id, kind, format_args!("{fault}; {help}")),
        None => Issue::new(id, kind, fault),
    }
}
