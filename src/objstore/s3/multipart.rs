//! Sending a large object in parts, several at once.
//!
//! The object appears when all parts are put together, and not before. Whatever ends an upload early (an error, a
//! dropped future) leads to an abort in the background, with a time limit of its own, so that no parts stay behind to
//! be paid for; [`Store::cleanup`] knows what is still running. Only a killed process leaves parts: they are aborted when
//! they are a day old ([`Store::abort_stale_below`]), since younger ones may be those of another process.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use aws_sdk_s3::{
    primitives::DateTime,
    types::{ChecksumAlgorithm, CompletedMultipartUpload, CompletedPart},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use futures_util::{StreamExt, stream::FuturesUnordered};
use tokio::sync::{SemaphorePermit, oneshot};

use super::{
    Store,
    body::{Checksum, Failure, Hasher, Slice},
    content::Content,
    errors,
    headers::Purpose,
    payload::{Form, Sums},
    put::Sent,
    retries::Failed,
};
use crate::objstore::{Error, ErrorKind, Op, STALE_AFTER, Source};

pub(super) const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// S3's limits: bytes of one part, bytes of one request, parts of one object, bytes of one object.
pub(super) const MIN_PART: u64 = 5 * MIB;
const MAX_REQUEST: u64 = 5 * GIB;
pub(super) const MAX_PARTS: u64 = 10_000;
pub(super) const MAX_OBJECT: u64 = 5 << 40;

/// The part size that a configured 0 stands for.
const DEFAULT_PART: u64 = 16 * MIB;

/// How long an abort may take; it must not be cut by what cut the upload.
const ABORT_DEADLINE: Duration = Duration::from_secs(30);

/// How an object travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Plan {
    /// In one request.
    Whole,
    /// In this many parts of this size, the last one being what is left.
    Parts { count: u64, size: u64 },
}

/// Up to `part_size` bytes travel in one request, more in parts of that size. Parts grow by whole MiB where a huge
/// object would need more than 10 000 of them.
pub(super) fn plan(len: u64, part_size: u64, multipart: bool) -> Result<Plan, String> {
    let size = if part_size == 0 {
        DEFAULT_PART
    } else {
        part_size.clamp(MIN_PART, MAX_REQUEST)
    };
    if !multipart || len <= size {
        if len > MAX_REQUEST {
            return Err(format!(
                "{len} bytes are more than the 5 GiB that S3 takes in one request; disable_multipart must be off for it"
            ));
        }
        return Ok(Plan::Whole);
    }
    if len > MAX_OBJECT {
        return Err(format!(
            "{len} bytes are more than the 5 TiB that an S3 object can have"
        ));
    }
    let size = size.max(len.div_ceil(MAX_PARTS).next_multiple_of(MIB));
    Ok(Plan::Parts {
        count: len.div_ceil(size),
        size,
    })
}

/// An open multipart upload. Dropped before it is complete, it is aborted.
#[derive(Debug)]
pub(super) struct Upload {
    pub(super) store: Arc<Store>,
    pub(super) key: String,
    id: String,
    /// Whether parts carry CRC32C; it is fixed when the upload is opened.
    crc32c: bool,
    complete: bool,
}

impl Drop for Upload {
    fn drop(&mut self) {
        let store = Arc::clone(&self.store);
        let (key, id) = (std::mem::take(&mut self.key), std::mem::take(&mut self.id));
        if self.complete {
            store.forget(&id);
            return;
        }
        let task = Arc::clone(&store);
        let abort = async move {
            task.abort(&key, &id).await;
            task.forget(&id);
        };
        store.cleanup.spawn_on(abort, &store.runtime);
    }
}

impl Store {
    /// Sends a file in parts.
    pub(super) async fn put_parts(self: &Arc<Self>, key: &str, source: &Source, plan: (u64, u64)) -> Result<(), Error> {
        self.send_in_accepted_form(key, |signed| async move {
            let upload = match self.open(key).await? {
                Sent::Done(upload) => upload,
                Sent::RetryWith(change) => return Ok(Sent::RetryWith(change)),
            };
            match upload.send_all(source, plan, signed).await? {
                Sent::Done(parts) => upload.finish(parts).await.map(Sent::Done),
                Sent::RetryWith(change) => Ok(Sent::RetryWith(change)),
            }
        })
        .await
    }

    /// Opens an upload in a task of its own: dropped while the store answers, its id would be lost with it.
    pub(super) async fn open(self: &Arc<Self>, key: &str) -> Result<Sent<Upload>, Error> {
        let (tell, told) = oneshot::channel();
        let (store, name) = (Arc::clone(self), key.to_owned());
        self.cleanup.spawn(async move {
            // When nobody listens any more, the upload comes back and its drop aborts it.
            let _ = tell.send(store.create(&name).await);
        });
        told.await.unwrap_or_else(|_| {
            let detail = "opening the multipart upload was cut short".to_owned();
            Err(self.error(Op::Upload, key, ErrorKind::Network, detail))
        })
    }

    async fn create(self: &Arc<Self>, key: &str) -> Result<Sent<Upload>, Error> {
        let crc32c = matches!(self.hasher(), Hasher::Crc32c(_));
        let request = self
            .client
            .create_multipart_upload()
            .bucket(&self.bucket)
            .key(self.full(key))
            .set_checksum_algorithm(crc32c.then_some(ChecksumAlgorithm::Crc32C));
        let request = self.with_headers(request.customize(), Purpose::Create);
        let answer = match request.send().await {
            Ok(answer) => answer,
            Err(error) => {
                let unsigned = false;
                return self.refused(key, Form { crc32c, unsigned }, &Failure::default(), error);
            }
        };
        let Some(id) = answer.upload_id().filter(|id| !id.is_empty()) else {
            let detail = "the store opened a multipart upload without telling its id".to_owned();
            return Err(self.error(Op::Upload, key, ErrorKind::Server, detail));
        };
        self.remember(id);
        let (store, key, id) = (Arc::clone(self), key.to_owned(), id.to_owned());
        Ok(Sent::Done(Upload {
            store,
            key,
            id,
            crc32c,
            complete: false,
        }))
    }

    /// Aborts an upload. Best effort: what stays is named in the log.
    async fn abort(&self, key: &str, id: &str) {
        let request = self
            .client
            .abort_multipart_upload()
            .bucket(&self.bucket)
            .key(self.full(key))
            .upload_id(id)
            .send();
        let why = match tokio::time::timeout(ABORT_DEADLINE, request).await {
            Ok(Ok(_)) => return,
            Ok(Err(error)) if errors::code(&error) == Some("NoSuchUpload") => return,
            Ok(Err(error)) => self.sdk_error(Op::Delete, key, error).detail,
            Err(_) => format!("no answer within {ABORT_DEADLINE:?}"),
        };
        let place = self.place(key);
        tracing::warn!(
            object = place,
            why,
            "aborting a multipart upload failed; it is tried again after a day, or a lifecycle rule of the bucket removes it"
        );
    }

    /// Aborts uploads below `dir` that were begun long ago and are not of this process.
    pub(super) async fn abort_stale_below(&self, dir: &str) -> Result<(), Error> {
        let below = self.below(dir);
        let Some(before) = SystemTime::now().checked_sub(STALE_AFTER).map(DateTime::from) else {
            return Ok(());
        };
        let mut markers = (None, None);
        loop {
            let (key_marker, id_marker) = markers.clone();
            let request = self
                .client
                .list_multipart_uploads()
                .bucket(&self.bucket)
                .prefix(&below)
                .set_key_marker(key_marker)
                .set_upload_id_marker(id_marker);
            let page = request.send().await;
            let page = page.map_err(|error| self.sdk_error(Op::Iter, dir, error))?;
            for upload in page.uploads() {
                // A store that does not know the prefix tells of those of others, too.
                let key = upload.key().filter(|key| key.starts_with(&below));
                let (Some(key), Some(id)) = (key.and_then(|key| self.relative(key)), upload.upload_id()) else {
                    continue;
                };
                let stale = upload.initiated().is_some_and(|begun| *begun < before);
                if stale && !self.is_open(id) {
                    let object = self.place(key);
                    tracing::info!(object, "aborting a multipart upload that an earlier process left open");
                    self.abort(key, id).await;
                }
            }
            let next = (page.next_key_marker, page.next_upload_id_marker);
            // A store that does not move on would be asked for ever.
            if page.is_truncated != Some(true) || next.0.is_none() || next == markers {
                return Ok(());
            }
            markers = next;
        }
    }
}

impl Upload {
    /// Sends all parts; a part starts as soon as one of the slots shared by all uploads is free.
    async fn send_all(
        &self,
        source: &Source,
        (count, size): (u64, u64),
        signed: bool,
    ) -> Result<Sent<Vec<Part>>, Error> {
        let (mut running, mut parts, mut next) = (FuturesUnordered::new(), Vec::new(), 0);
        loop {
            let sent = tokio::select! {
                biased;
                Some(sent) = running.next() => sent,
                permit = self.store.permit(), if next < count => {
                    let offset = next * size;
                    let slice = Slice { source: source.clone(), offset, len: size.min(source.len - offset) };
                    next += 1;
                    running.push(self.send_part(next as i32, Content::File(slice), signed, permit));
                    continue;
                }
                else => break,
            };
            match sent? {
                Sent::Done(part) => parts.push(part),
                Sent::RetryWith(change) => return Ok(Sent::RetryWith(change)),
            }
        }
        parts.sort_unstable_by_key(|part: &Part| part.number);
        Ok(Sent::Done(parts))
    }

    /// Sends one part, numbered from 1.
    pub(super) async fn send_part(
        &self,
        number: i32,
        content: Content,
        signed: bool,
        _permit: SemaphorePermit<'_>,
    ) -> Result<Sent<Part>, Error> {
        let (store, key) = (&*self.store, self.key.as_str());
        let budget = store.retry_budget();
        let once = || async {
            let hasher = if self.crc32c { Hasher::crc32c() } else { Hasher::md5() };
            let digest = store.digest(key, &content, Sums::new(hasher, signed)).await?;
            let checksum = &digest.checksum;
            let (body, failure) = content.body(&store.buffers);
            let request = store
                .client
                .upload_part()
                .bucket(&store.bucket)
                .key(store.full(key))
                .upload_id(&self.id)
                .part_number(number)
                .body(body)
                .set_checksum_crc32_c(checksum.crc32c())
                .set_content_md5(checksum.md5());
            let request = store.within_budget(request.customize(), Purpose::Bytes, &budget);
            let answer = match request.interceptor(digest.payload.signing()).send().await {
                Ok(answer) => answer,
                Err(error) => return Ok(store.refused(key, digest.form(), &failure, error)?),
            };
            if let Sent::RetryWith(change) = store.acknowledged(key, checksum, answer.checksum_crc32_c(), ())? {
                return Ok(Sent::RetryWith(change));
            }
            let Some(e_tag) = answer.e_tag else {
                let detail = format!("the store took part {number} without giving it an ETag");
                return Err(Failed::from(store.error(Op::Upload, key, ErrorKind::Server, detail)));
            };
            Ok(Sent::Done(Part {
                number,
                e_tag,
                checksum: digest.checksum,
            }))
        };
        budget.run(once).await
    }

    /// Puts the parts together: now the object appears.
    pub(super) async fn finish(mut self, parts: Vec<Part>) -> Result<(), Error> {
        let composite = composite(&parts);
        let completed = parts.into_iter().map(|part| {
            CompletedPart::builder()
                .part_number(part.number)
                .set_checksum_crc32_c(part.checksum.crc32c())
                .e_tag(part.e_tag)
                .build()
        });
        let completed = CompletedMultipartUpload::builder()
            .set_parts(Some(completed.collect()))
            .build();
        let request = self
            .store
            .client
            .complete_multipart_upload()
            .bucket(&self.store.bucket)
            .key(self.store.full(&self.key))
            .upload_id(&self.id)
            .multipart_upload(completed);
        let answer = self
            .store
            .with_headers(request.customize(), Purpose::Bytes)
            .send()
            .await
            .map_err(|error| self.store.sdk_error(Op::Upload, &self.key, error))?;
        self.complete = true;
        match (composite, answer.checksum_crc32_c()) {
            (Some(ours), Some(theirs)) if theirs.contains('-') && theirs != ours => {
                let detail = format!("the store acknowledged CRC32C {theirs} for the whole, but {ours} was sent");
                Err(self.store.error(Op::Upload, &self.key, ErrorKind::Integrity, detail))
            }
            _ => Ok(()),
        }
    }
}

/// A part that the store has.
#[derive(Debug)]
pub(super) struct Part {
    number: i32,
    e_tag: String,
    checksum: Checksum,
}

/// The checksum of the checksums, as S3 shows it for an object in parts; `None` if they are not CRC32C.
fn composite(parts: &[Part]) -> Option<String> {
    let mut all = 0;
    for part in parts {
        let Checksum::Crc32c(crc) = part.checksum else {
            return None;
        };
        all = crc32c::crc32c_append(all, &crc.to_be_bytes());
    }
    Some(format!("{}-{}", STANDARD.encode(all.to_be_bytes()), parts.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_travel_whole_or_in_parts() {
        let parts = |count, size| Ok(Plan::Parts { count, size });
        for (len, part_size, multipart, expected) in [
            (0, 64 * MIB, true, Ok(Plan::Whole)),
            (64 * MIB, 64 * MIB, true, Ok(Plan::Whole)),
            (64 * MIB + 1, 64 * MIB, true, parts(2, 64 * MIB)),
            (16 * MIB, 0, true, Ok(Plan::Whole)),
            (17 * MIB, 0, true, parts(2, 16 * MIB)),
            (11 * MIB, 1, true, parts(3, 5 * MIB)),
            (4 * GIB, 64 * MIB, false, Ok(Plan::Whole)),
            (160 * GIB, 16 * MIB, true, parts(9638, 17 * MIB)),
            (MAX_OBJECT, 5 * MIB, true, parts(9987, 525 * MIB)),
        ] {
            assert_eq!(
                plan(len, part_size, multipart),
                expected,
                "{len} {part_size} {multipart}"
            );
        }
        assert!(plan(5 * GIB + 1, 0, false).unwrap_err().contains("disable_multipart"));
        assert!(plan(MAX_OBJECT + 1, 0, true).unwrap_err().contains("5 TiB"));
    }

    #[test]
    fn parts_cover_every_byte_once_and_are_never_too_many() {
        for len in [16 * MIB + 1, 100 * MIB, 10 * GIB + 12_345, 170 * GIB, 5 << 40] {
            let Plan::Parts { count, size } = plan(len, 16 * MIB, true).unwrap() else {
                panic!("{len} in one")
            };
            assert!(count <= MAX_PARTS && size <= MAX_REQUEST);
            assert!((count - 1) * size < len && len <= count * size);
        }
    }

    #[test]
    fn the_composite_is_the_checksum_of_the_raw_checksums() {
        let part = |number, crc| Part {
            number,
            e_tag: String::new(),
            checksum: Checksum::Crc32c(crc),
        };
        let ours = composite(&[part(1, 0x0102_0304), part(2, 0xfffe_fdfc)]).unwrap();
        let raw = crc32c::crc32c(&[1, 2, 3, 4, 0xff, 0xfe, 0xfd, 0xfc]);
        assert_eq!(ours, format!("{}-2", STANDARD.encode(raw.to_be_bytes())));
    }
}
