//! Sends the files of one block as they are; what an earlier run has sent of it is compared and not sent again.
//!
//! **Cancel.** Dropping the future ends the requests; what was acknowledged by then is remembered.

use std::collections::HashMap;

use futures_util::{StreamExt, TryStreamExt, stream};

use super::{Error, FileStamp, UploadRequest, Uploader, describe::described};
use crate::{
    objstore::{Comparison, Source},
    tsdb::{BlockId, BucketFile, Pinned},
};

/// Objects of a block that are compared with its files at the same time.
const COMPARISONS_AT_ONCE: usize = 4;

impl Uploader {
    /// Sends all files of a block; how `meta.json` lists them.
    pub(super) async fn send_as_it_is(
        &self,
        request: &UploadRequest,
        pinned: &Pinned,
        stamps: &[FileStamp],
    ) -> Result<Vec<BucketFile>, Error> {
        let id = request.block.id;
        if request.checked.is_some() {
            self.compare_with_bucket(id, pinned, stamps).await?;
        }
        self.send(id, pinned, stamps).await?;
        match &request.checked {
            Some(known) => Ok(known.files.clone()),
            None => self.list_files(pinned).await,
        }
    }

    /// Holds what is listed of a block against its files; what is the same counts as acknowledged.
    async fn compare_with_bucket(&self, id: BlockId, pinned: &Pinned, stamps: &[FileStamp]) -> Result<(), Error> {
        let there = self.bucket.list(&id.to_string()).await?;
        let listed: HashMap<&str, u64> = there.iter().map(|object| (object.key.as_str(), object.size)).collect();
        let candidates = pinned.files.iter().zip(stamps).filter_map(|(file, stamp)| {
            let key = format!("{id}/{}", file.rel_path);
            (listed.get(key.as_str()) == Some(&file.len)).then_some((key, file, *stamp))
        });
        let compared = candidates.map(|(key, file, stamp)| async move {
            if let Comparison::Same(_) = self.bucket.compare(&key, &file.source()).await? {
                self.with_state(id, |state| state.acknowledged.insert(file.rel_path.clone(), stamp));
            }
            Ok::<_, Error>(())
        });
        stream::iter(compared.collect::<Vec<_>>())
            .buffer_unordered(COMPARISONS_AT_ONCE)
            .try_collect::<Vec<()>>()
            .await?;
        Ok(())
    }

    /// Sends what was not acknowledged yet. Whether it is still there is for the proof to say: a listing may lag.
    async fn send(&self, id: BlockId, pinned: &Pinned, stamps: &[FileStamp]) -> Result<(), Error> {
        let acknowledged = self.with_state(id, |state| state.acknowledged.clone());
        let (there, missing): (Vec<_>, Vec<_>) = (pinned.files.iter().zip(stamps))
            .partition(|(file, stamp)| acknowledged.get(&file.rel_path) == Some(*stamp));
        let before = there.iter().map(|(file, _)| file.len).sum();
        let sending = self.under_way.begin(id, pinned.bytes(), before);
        let sending = &sending;
        let sends = missing.into_iter().map(|(file, stamp)| async move {
            let key = format!("{id}/{}", file.rel_path);
            let source = Source {
                read: sending.read(),
                ..file.source()
            };
            self.bucket.put_file(&key, &source).await?;
            self.with_state(id, |state| state.acknowledged.insert(file.rel_path.clone(), *stamp));
            Ok::<_, Error>(())
        });
        // The bucket limits how many requests run at once; here only the number of waiting futures is bounded.
        stream::iter(sends.collect::<Vec<_>>())
            .buffer_unordered(64)
            .try_collect::<Vec<()>>()
            .await?;
        Ok(())
    }

    async fn list_files(&self, pinned: &Pinned) -> Result<Vec<BucketFile>, Error> {
        let mut files = Vec::with_capacity(pinned.files.len());
        for file in &pinned.files {
            files.push(described(file, self.sha256).await?);
        }
        Ok(files)
    }
}
