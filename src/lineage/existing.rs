//! What the bucket has under a block's own name.
//!
//! Nothing is cached: each call reads `meta.json`, lists the objects, and asks by its key for each object that the listing
//! may not show yet. Nothing is written; dropping the future drops the requests.

use std::fmt;

use super::completeness::{BlockObjects, Fault, check_objects, count_objects};
use crate::{
    catalog::{self, Text},
    model::Labels,
    objstore::{self, Bucket, ErrorKind, Scope},
    tsdb::{BlockId, BlockMeta, BucketFile, Meta, MetaError},
};

/// Up to so many objects that a listing lacks are asked for by their keys; if it lacks more, that is no delay of the listing.
const LATE: usize = 16;

/// What the bucket has under a block's own name.
#[derive(Debug)]
pub enum Existing {
    /// No `meta.json`: readers see no block. Objects of an earlier try may be there.
    Nothing {
        /// There is a `deletion-mark.json`: whatever is committed under this name will be deleted.
        marked: bool,
    },
    /// A `meta.json` that no reader can take for one (empty, cut off, no JSON), and why: nothing was committed, it may be
    /// replaced.
    Torn(String),
    /// A block that is marked for deletion: it is ignored, and nothing can be committed under its name.
    Marked,
    /// Something that must stay as it is, in words: another block, objects of other sizes than its `meta.json` says, or a
    /// `meta.json` that others may be able to use.
    Conflict(String),
    /// What the store does not show: it stays as it is, since nobody knows what it is.
    Refused {
        /// What cannot be read, and why.
        why: String,
        /// What the store answered.
        error: objstore::Error,
    },
    /// The block, complete by its own `meta.json`.
    Complete(Box<Committed>),
    /// The block, but these of its files are missing. Each of them may be put back if [`may_repair`] says so.
    Incomplete(Box<Committed>, Vec<BucketFile>),
}

/// A block as it was committed.
#[derive(Clone, Debug)]
pub struct Committed {
    /// Its `meta.json`.
    pub meta: Meta,
    /// Its labels, if they are not those that were asked about: it was sent under others, and is safe nevertheless.
    pub other_labels: Option<Labels>,
    /// Its files that are there, with their sizes and the hashes that `meta.json` has.
    pub files: Vec<BucketFile>,
}

/// Finds what the bucket has under the name of the block `own`, which would get `labels` laid over those that it
/// carries.
///
/// # Errors
/// Those that concern the whole bucket.
pub async fn existing(bucket: &dyn Bucket, own: &BlockMeta, labels: &Labels) -> Result<Existing, objstore::Error> {
    let (meta, listed) = match read_stored(bucket, own.ulid).await? {
        Stored::Nothing { marked } => return Ok(Existing::Nothing { marked }),
        Stored::Unusable { marked: true, .. } | Stored::Refused { marked: true, .. } => return Ok(Existing::Marked),
        Stored::Unusable { why, torn: true, .. } => return Ok(Existing::Torn(why)),
        Stored::Unusable { why, .. } => return Ok(Existing::Conflict(why)),
        Stored::Refused { why, error, .. } => return Ok(Existing::Refused { why, error }),
        Stored::Block(_, listed) if listed.marked => return Ok(Existing::Marked),
        Stored::Block(meta, listed) => (meta, listed),
    };
    if let Some(why) = differs(own, &meta) {
        return Ok(Existing::Conflict(why));
    }
    let (mut missing, mut wrong) = (Vec::new(), None);
    for fault in listed.faults.iter().filter(|fault| fault.is_data_loss()) {
        match fault {
            Fault::Missing(file) => missing.push(file.clone()),
            other => wrong = wrong.or(Some(other.to_string())),
        }
    }
    if let Some(why) = wrong {
        return Ok(Existing::Conflict(why));
    }
    let theirs = meta.thanos_labels.clone().unwrap_or_default();
    let ours = own.thanos_labels.clone().unwrap_or_default().overlaid_with(labels);
    let committed = Box::new(Committed {
        meta: *meta,
        other_labels: (theirs != ours).then_some(theirs),
        files: listed.files,
    });
    Ok(match missing.is_empty() {
        true => Existing::Complete(committed),
        false => Existing::Incomplete(committed, missing),
    })
}

/// Whether the local file `local` may be sent in the place of `missing`, which a committed block lacks: it has the length
/// and the hash that `meta.json` says.
///
/// # Errors
/// Why not, in words.
pub fn may_repair(missing: &BucketFile, local: &BucketFile) -> Result<(), String> {
    let name = &missing.rel_path;
    if local.rel_path != *name {
        return Err(format!("{} is not {name}", local.rel_path));
    }
    match (missing.size, local.size) {
        (Some(said), Some(here)) if said == here => {}
        (Some(said), Some(here)) => return Err(format!("{name} has {here} bytes here, and meta.json says {said}")),
        (None, _) => return Err(format!("meta.json does not say how long {name} is")),
        (_, None) => return Err(format!("it is not known how long {name} is here")),
    }
    match (&missing.sha256, &local.sha256) {
        (None, _) => Ok(()),
        (Some(said), Some(here)) if said.eq_ignore_ascii_case(here) => Ok(()),
        (Some(said), Some(here)) => Err(format!("{name} has the SHA-256 {here} here, and meta.json says {said}")),
        (Some(_), None) => Err(format!(
            "meta.json has a SHA-256 of {name}, and that of the file here is not known"
        )),
    }
}

/// In what `there` is another block than `own`, by what both say of themselves; `None` if it is the same one. Labels are
/// no part of it: they are those of the moment of the commit.
fn differs(own: &BlockMeta, there: &BlockMeta) -> Option<String> {
    fn differing<T: PartialEq + fmt::Display>(name: &str, own: T, there: T) -> Option<String> {
        (own != there).then(|| format!("{name} is {there} in the bucket, and {own} here"))
    }
    let sources = |meta: &BlockMeta| super::Entry::from(meta).sources;
    differing("minTime", own.min_time, there.min_time)
        .or_else(|| differing("maxTime", own.max_time, there.max_time))
        .or_else(|| differing("the number of samples", own.num_samples, there.num_samples))
        .or_else(|| differing("the number of series", own.num_series, there.num_series))
        .or_else(|| differing("the number of chunks", own.num_chunks, there.num_chunks))
        .or_else(|| differing("the level of compaction", own.level, there.level))
        .or_else(|| differing("the resolution (ms)", own.resolution(), there.resolution()))
        .or_else(|| (sources(own) != sources(there)).then(|| "it was made of other blocks".to_owned()))
        .map(|what| format!("another block of this name is in the bucket: {what}"))
}

/// What the bucket has under a name, before it is compared with a local block.
#[derive(Debug)]
pub(super) enum Stored {
    Nothing {
        marked: bool,
    },
    /// A `meta.json` of no use, and why.
    Unusable {
        /// A sentence; of what is torn, the fault only.
        why: String,
        /// No reader can take it for one.
        torn: bool,
        marked: bool,
    },
    /// What the store does not show.
    Refused {
        why: String,
        error: objstore::Error,
        marked: bool,
    },
    Block(Box<Meta>, BlockObjects),
}

/// Reads what the bucket has under the name `id`.
///
/// # Errors
/// Those that concern the whole bucket.
pub(super) async fn read_stored(bucket: &dyn Bucket, id: BlockId) -> Result<Stored, objstore::Error> {
    let mut text = catalog::read_text(bucket, id).await?;
    let objects = match bucket.list(&id.to_string()).await {
        Ok(objects) => objects,
        Err(error) if error.scope() == Scope::Object => {
            return Ok(Stored::Refused {
                why: format!("its objects in the bucket cannot be listed: {error}"),
                error,
                marked: false,
            });
        }
        Err(error) => return Err(error),
    };
    let listed = count_objects(id, &objects);
    if listed.has_meta && matches!(text, Text::Absent) {
        // It was committed between the two requests.
        text = catalog::read_text(bucket, id).await?;
    }
    let unusable = |why: String, torn| Stored::Unusable {
        why,
        torn,
        marked: listed.marked,
    };
    Ok(match text {
        Text::Absent => Stored::Nothing { marked: listed.marked },
        // There is none: it is the right to read that is missing, for whatever there may be in the bucket.
        Text::Refused(error) if error.kind == ErrorKind::Forbidden && !listed.has_meta => return Err(error),
        Text::Refused(error) => Stored::Refused {
            why: format!("its meta.json in the bucket cannot be read: {error}"),
            error,
            marked: listed.marked,
        },
        Text::Read(bytes) => match Meta::parse(&bytes) {
            Ok(meta) if meta.ulid == id => {
                let listed = ask_for_late(bucket, id, check_objects(&meta, &objects)).await?;
                Stored::Block(Box::new(meta), listed)
            }
            Ok(meta) => unusable(cannot_be_used(&catalog::wrong_name(meta.ulid)), false),
            Err(error) => match is_torn(&error) {
                true => unusable(error.to_string(), true),
                false => unusable(cannot_be_used(&error), false),
            },
        },
    })
}

/// The sentence about a `meta.json` that was read and is of no use.
pub(super) fn cannot_be_used(why: &impl fmt::Display) -> String {
    format!("its meta.json cannot be used: {why}")
}

/// Whether no reader takes the text for a `meta.json`. Go's reader replaces what is not UTF-8, and lets documents be nested
/// more deeply.
fn is_torn(error: &MetaError) -> bool {
    matches!(error, MetaError::Empty | MetaError::Truncated | MetaError::NotJson(_))
}

/// Asks for the objects that the listing lacks by their keys: a listing may lag behind.
async fn ask_for_late(
    bucket: &dyn Bucket,
    id: BlockId,
    mut listed: BlockObjects,
) -> Result<BlockObjects, objstore::Error> {
    let missing = |fault: &&Fault| matches!(fault, Fault::Missing(_));
    if listed.faults.iter().filter(missing).count() > LATE {
        return Ok(listed);
    }
    let (asked, mut faults) = (listed.faults.len(), Vec::new());
    for fault in std::mem::take(&mut listed.faults) {
        let Fault::Missing(file) = fault else {
            faults.push(fault);
            continue;
        };
        let found = match bucket.stat(&format!("{id}/{}", file.rel_path)).await {
            Ok(found) => found,
            Err(error) if error.scope() == Scope::Object => None,
            Err(error) => return Err(error),
        };
        match (found, file.size) {
            (None, _) => faults.push(Fault::Missing(file)),
            (Some(there), Some(said)) if there != said => faults.push(Fault::Size {
                name: file.rel_path,
                there,
                said,
            }),
            (Some(there), _) => listed.files.push(BucketFile {
                size: Some(there),
                ..file
            }),
        }
    }
    let lags = faults.len() < asked;
    listed.files.sort_by(|a, b| a.rel_path.cmp(&b.rel_path));
    listed.faults = faults;
    // A listing that lags may lack a mark as well.
    if lags && !listed.marked {
        listed.marked = match bucket.stat(&format!("{id}/{}", catalog::DELETION_MARK)).await {
            Ok(mark) => mark.is_some(),
            Err(error) if error.scope() == Scope::Object => false,
            Err(error) => return Err(error),
        };
    }
    Ok(listed)
}

#[cfg(test)]
mod tests;
