//! The commit: `meta.json`, sent last, makes a block visible.
//!
//! An answer that does not tell whether the store acted (timeout, 5xx, a broken connection) is settled by reading the
//! object back. What was committed is listed once more before it counts. A crash after the commit is found by the next
//! life, which lists the block and reads its `meta.json`.

use std::time::SystemTime;

use bytes::Bytes;
use tokio::time::Instant;

use crate::{
    model::Labels,
    objstore::{self, ErrorKind},
    shipper::courier::{Cargo, Courier, Error, stamps},
    tsdb::{Block, LARGEST_META, Pinned, Stamp},
};

impl Courier {
    /// Waits until nobody has written to the block until `not_before`, and makes it visible under `labels`.
    pub(crate) async fn commit(
        &self,
        block: &Block,
        cargo: &Cargo,
        labels: &Labels,
        source: &str,
        not_before: Instant,
    ) -> Result<(), Error> {
        tokio::time::sleep_until(not_before).await;
        unchanged(block, cargo)?;
        if labels.is_empty() && block.meta.thanos_labels.as_ref().is_none_or(Labels::is_empty) {
            return Err(Error::NoLabels);
        }
        let stamp = Stamp {
            labels: labels.clone(),
            source: source.to_owned(),
            files: cargo.files.clone(),
            upload_time: SystemTime::now(),
        };
        let meta = Bytes::from(block.meta.for_bucket(&stamp));
        let len = meta.len() as u64;
        self.set_unsettled(block.id, true);
        self.put_meta(&format!("{}/meta.json", block.id), meta).await?;
        // A store may lose what it acknowledged, and who clears away old tries may have looked before the commit.
        self.prove(block.id, &cargo.pinned, Some(len)).await?;
        self.set_unsettled(block.id, false);
        Ok(())
    }

    async fn put_meta(&self, key: &str, meta: Bytes) -> Result<(), objstore::Error> {
        let Err(error) = self.bucket.put_bytes(key, meta.clone()).await else {
            return Ok(());
        };
        if !error.kind.is_ambiguous() && error.kind != ErrorKind::Integrity {
            return Err(error);
        }
        match self.bucket.get(key, LARGEST_META).await {
            Ok(there) if there == meta => {
                tracing::info!(key, %error, "the commit failed, but the bucket has it");
                Ok(())
            }
            _ => Err(error),
        }
    }
}

/// Whether the files are still as long and as old as they were before they were read, and still all that the block has
/// (or gone altogether).
fn unchanged(block: &Block, cargo: &Cargo) -> Result<(), Error> {
    let now = stamps(&cargo.pinned)?;
    for ((file, before), now) in cargo.pinned.files.iter().zip(&cargo.stamps).zip(&now) {
        if before != now || now.len != file.len {
            return Err(Error::Changed(file.path.display().to_string()));
        }
    }
    match Pinned::segments_now(&block.dir) {
        Some(there) if there > cargo.pinned.segments().count() => {
            Err(Error::Changed(block.dir.join("chunks").display().to_string()))
        }
        _ => Ok(()),
    }
}
