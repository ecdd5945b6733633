//! Sending an object whose bytes are made meanwhile, and whose length is known at its end only.
//!
//! The bytes are collected into parts of one size, as some stores (Cloudflare R2) want all of them but the last. What fits
//! into the first is sent in one request; else one part is sent while the next is being filled. A part stays in memory
//! until it is acknowledged, so that it can be sent again; how it is sent, again as well, is that of a file's part
//! (`multipart`). Memory: two parts and a piece for each call.
//!
//! Whoever makes the bytes is waited for as long as it takes, and no slot for requests is held meanwhile: of objects that
//! are made by one producer, turn by turn, each comes to its end, however few slots there are.
//!
//! On an error of the producer, on a drop: the multipart upload is aborted in the background. On retry: the bytes must be
//! made anew.

use std::sync::{Arc, atomic::Ordering};

use super::{
    Store,
    content::Content,
    multipart::{MAX_OBJECT, MAX_PARTS, MIB, MIN_PART, Part, Upload},
    put::{Change, Sent},
};
use crate::objstore::{
    Error, ErrorKind, Op, Pieces,
    batches::{Batch, Batches},
};

/// The size of each part but the last, for an object of at most so many bytes: the smallest that S3 takes, or what it
/// needs to come with no more parts than S3 takes, in whole MiB.
fn part_size(at_most: u64) -> u64 {
    MIN_PART.max(at_most.min(MAX_OBJECT).div_ceil(MAX_PARTS).next_multiple_of(MIB))
}

impl Store {
    /// Sends what `pieces` bring, at most `at_most` bytes; returns how many they were.
    pub(super) async fn put_pieces(
        self: &Arc<Self>,
        key: &str,
        pieces: Pieces<'_>,
        at_most: u64,
    ) -> Result<u64, Error> {
        let mut rest = Rest {
            store: self,
            key,
            batches: Batches::new(pieces, at_most.min(MAX_OBJECT)),
            size: part_size(at_most),
        };
        let first = rest.next().await?;
        if !rest.has_more().await? {
            let len = first.len();
            self.put_whole(key, &Content::Memory(first), false).await?;
            return Ok(len);
        }
        if !self.multipart {
            let detail = format!(
                "this object needs a multipart upload, because its length is not known before it is sent and it has more \
                 than {} MiB; allow multipart uploads (disable_multipart: false), or do without rewriting blocks \
                 (--shipper.newer-encodings=hold or --shipper.newer-encodings=ship)",
                rest.size / MIB
            );
            // Of this object: others may be short, or of a length that is known.
            return Err(self.error(Op::Upload, key, ErrorKind::Refused, detail));
        }
        // Waited for by `settle` until it is dropped, as `put_file` is.
        self.cleanup.track_future(self.put_batches(key, first, rest)).await
    }

    /// Sends one part while the next is being filled. Both are looked after all the time: who waits for a slot and is not
    /// would keep it from others once it is his turn.
    async fn put_batches(self: &Arc<Self>, key: &str, first: Batch, mut rest: Rest<'_>) -> Result<u64, Error> {
        let mut len = first.len();
        let ((upload, part), mut next) = tokio::try_join!(self.begin(key, Content::Memory(first)), rest.next())?;
        let mut parts = vec![part];
        while next.len() > 0 {
            len += next.len();
            let number = parts.len() as i32 + 1;
            let (part, following) = tokio::try_join!(upload.send_further(number, Content::Memory(next)), rest.next())?;
            parts.push(part);
            next = following;
        }
        upload.finish(parts).await?;
        Ok(len)
    }

    /// Opens an upload and sends its first part: in the form that the store wants, while all of the object is still there.
    async fn begin(self: &Arc<Self>, key: &str, content: Content) -> Result<(Upload, Part), Error> {
        let content = &content;
        self.send_in_accepted_form(key, |signed| async move {
            let upload = match self.open(key).await? {
                Sent::Done(upload) => upload,
                Sent::RetryWith(change) => return Ok(Sent::RetryWith(change)),
            };
            let permit = self.permit().await;
            Ok(match upload.send_part(1, content.clone(), signed, permit).await? {
                Sent::Done(part) => Sent::Done((upload, part)),
                Sent::RetryWith(change) => Sent::RetryWith(change),
            })
        })
        .await
    }
}

impl Upload {
    /// Sends a part after the first. It can still be signed where others were not; another checksum than theirs it cannot
    /// have, and they are gone.
    async fn send_further(&self, number: i32, content: Content) -> Result<Part, Error> {
        let (store, content) = (&self.store, &content);
        store
            .send_in_accepted_form(&self.key, |signed| async move {
                let permit = store.permit().await;
                match self.send_part(number, content.clone(), signed, permit).await? {
                    Sent::RetryWith(Change::Md5(reason)) => {
                        store.md5.store(true, Ordering::Relaxed);
                        let detail = format!(
                            "the store took the first parts with CRC32C, and part {number} it does not: {reason}; the next \
                             try is made with Content-MD5"
                        );
                        Err(store.error(Op::Upload, &self.key, ErrorKind::Server, detail))
                    }
                    sent => Ok(sent),
                }
            })
            .await
    }
}

/// What of the object is still to be made.
struct Rest<'a> {
    store: &'a Store,
    key: &'a str,
    batches: Batches<'a>,
    size: u64,
}

impl Rest<'_> {
    /// What the next part has; nothing at the end.
    async fn next(&mut self) -> Result<Batch, Error> {
        let next = self.batches.next(self.size).await;
        next.map_err(|unusable| unusable.into_error(self.store.place(self.key)))
    }

    async fn has_more(&mut self) -> Result<bool, Error> {
        let more = self.batches.has_more().await;
        more.map_err(|unusable| unusable.into_error(self.store.place(self.key)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_as_small_as_s3_takes_them_and_never_too_many() {
        for (at_most, expected) in [
            (0, 5 * MIB),
            (1, 5 * MIB),
            (50_000 * MIB, 5 * MIB),
            (50_000 * MIB + 1, 6 * MIB),
            (120_000 * MIB, 12 * MIB),
            // 5 TiB are 5242880 MiB, a ten-thousandth of which is a bit more than 524.
            (MAX_OBJECT, 525 * MIB),
            (u64::MAX, 525 * MIB),
        ] {
            let size = part_size(at_most);
            assert_eq!(size, expected, "{at_most}");
            assert!(at_most.min(MAX_OBJECT).div_ceil(size) <= MAX_PARTS);
        }
    }
}
