//! Whether an object is the same as a file: by the checksum that the store tells, or by reading it back.
//!
//! The store's CRC32C counts where it tells one. That of an object in parts is the checksum of the parts' checksums, so
//! it says nothing without the lengths of the parts; where these cannot be known, where a store keeps no CRC32C, and
//! where it forbids asking, the object is read. (An ETag is no checksum: with encryption it is not the MD5.) Nothing is
//! changed; dropping stops it. Memory: a few buffers, whatever the size.

use std::sync::Arc;

use aws_sdk_s3::{
    operation::head_object::HeadObjectOutput,
    types::{ChecksumMode, ChecksumType},
};
use base64::{Engine, engine::general_purpose::STANDARD};

use super::{
    Store,
    body::{Checksum, Hasher, Slice},
    headers::Purpose,
    multipart::{self, MAX_PARTS, Plan},
};
use crate::objstore::{
    Comparison, Error, ErrorKind, Op, Proof, Source,
    transfer::compare::{other_length, read_back},
};

/// A CRC32C as a store tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum StoredChecksum {
    /// Of all bytes.
    Whole(u32),
    /// Of the checksums of so many parts.
    Parts(u32, u64),
}

impl Store {
    /// Holds an object against a file.
    pub(super) async fn compare_with(self: &Arc<Self>, key: &str, source: &Source) -> Result<Comparison, Error> {
        source
            .unchanged()
            .map_err(|reason| self.error(Op::Get, key, ErrorKind::Local, reason))?;
        let head = match self.head(key, None).await {
            Ok(head) => head,
            Err(error) if error.kind == ErrorKind::NotFound => return Ok(Comparison::Absent),
            // Some stores refuse HEAD and allow GET, some do not know the request.
            Err(error) if matches!(error.kind, ErrorKind::Forbidden | ErrorKind::Refused) => {
                tracing::debug!(%error, "reading an object back, as the store does not tell its checksum");
                return self.read_back(key, source).await;
            }
            Err(error) => return Err(error),
        };
        if let Some(len) = len(&head)
            && len != source.len
        {
            return Ok(other_length(len, source));
        }
        let same = match head.checksum_crc32_c().and_then(parse) {
            Some(StoredChecksum::Whole(theirs)) if !is_composite(&head) => {
                let ours = self.crc32c(key, &Slice::whole(source)).await?;
                if ours != theirs && is_final(&head) {
                    let [ours, theirs] = [ours, theirs].map(|crc| STANDARD.encode(crc.to_be_bytes()));
                    let told = format!("the store holds bytes with CRC32C {theirs}, the file's is {ours}");
                    return Ok(Comparison::Different(told));
                }
                ours == theirs
            }
            Some(StoredChecksum::Parts(theirs, count)) => self.has_parts(key, source, theirs, count).await?,
            _ => false,
        };
        if same {
            return Ok(Comparison::Same(Proof::Checksum));
        }
        self.read_back(key, source).await
    }

    /// The size of an object, if there is one.
    pub(super) async fn size(&self, key: &str) -> Result<Option<u64>, Error> {
        match self.head(key, None).await {
            Ok(head) => match len(&head) {
                Some(len) => Ok(Some(len)),
                None => {
                    let detail = "the store does not tell the size of the object".to_owned();
                    Err(self.error(Op::Get, key, ErrorKind::Refused, detail))
                }
            },
            Err(error) if error.kind == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// What the store knows about an object, or about one of its parts.
    pub(super) async fn head(&self, key: &str, part: Option<i32>) -> Result<HeadObjectOutput, Error> {
        let budget = self.retry_budget();
        let once = || async {
            let request = self.client.head_object().bucket(&self.bucket).key(self.full(key));
            let request = request.checksum_mode(ChecksumMode::Enabled).set_part_number(part);
            let request = self.within_budget(request.customize(), Purpose::Bytes, &budget);
            let answer = request.send().await;
            Ok(answer.map_err(|error| self.sdk_error(Op::Get, key, error))?)
        };
        budget.run(once).await
    }

    async fn crc32c(&self, key: &str, slice: &Slice) -> Result<u32, Error> {
        match slice.digest(Hasher::crc32c(), &self.buffers).await.map(Hasher::finish) {
            Ok(Checksum::Crc32c(crc)) => Ok(crc),
            Ok(Checksum::Md5(_)) => unreachable!("the hasher is one of CRC32C"),
            Err(reason) => Err(self.error(Op::Get, key, ErrorKind::Local, reason)),
        }
    }

    /// Whether the file, cut into `count` parts as the object is, has this checksum of the parts' checksums. `false`
    /// proves nothing: parts need not be of one length.
    async fn has_parts(&self, key: &str, source: &Source, theirs: u32, count: u64) -> Result<bool, Error> {
        let planned = match multipart::plan(source.len, self.part_size, self.multipart) {
            Ok(Plan::Parts { count: planned, size }) if planned == count => Some(size),
            _ => None,
        };
        if let Some(size) = planned
            && self.crc32c_of_parts(key, source, size).await? == theirs
        {
            return Ok(true);
        }
        let first = match self.head(key, Some(1)).await {
            Ok(part) => len(&part).filter(|size| *size > 0 && source.len.div_ceil(*size) == count),
            // There are stores that do not know the request.
            Err(error) if !error.kind.is_transient() => None,
            Err(error) => return Err(error),
        };
        match first.filter(|size| Some(*size) != planned) {
            Some(size) => Ok(self.crc32c_of_parts(key, source, size).await? == theirs),
            None => Ok(false),
        }
    }

    async fn crc32c_of_parts(&self, key: &str, source: &Source, size: u64) -> Result<u32, Error> {
        let (mut all, mut offset) = (0, 0);
        while offset < source.len {
            let len = size.min(source.len - offset);
            let slice = Slice {
                source: source.clone(),
                offset,
                len,
            };
            all = crc32c::crc32c_append(all, &self.crc32c(key, &slice).await?.to_be_bytes());
            offset += len;
        }
        Ok(all)
    }

    async fn read_back(self: &Arc<Self>, key: &str, source: &Source) -> Result<Comparison, Error> {
        let local = |reason| self.error(Op::Get, key, ErrorKind::Local, reason);
        read_back(self.stream(key, 0).await, source, &self.buffers, local).await
    }
}

pub(super) fn len(head: &HeadObjectOutput) -> Option<u64> {
    head.content_length().and_then(|len| u64::try_from(len).ok())
}

fn is_composite(head: &HeadObjectOutput) -> bool {
    head.checksum_type() == Some(&ChecksumType::Composite)
}

/// Whether a checksum without a number of parts can only be that of all bytes: there are stores that leave the number
/// out, and then the ETag tells an object in parts.
fn is_final(head: &HeadObjectOutput) -> bool {
    head.checksum_type() == Some(&ChecksumType::FullObject) || head.e_tag().is_some_and(|e_tag| !e_tag.contains('-'))
}

/// `<base64>` or `<base64>-<parts>`.
fn parse(text: &str) -> Option<StoredChecksum> {
    let (crc, parts) = match text.split_once('-') {
        Some((crc, parts)) => {
            let parts = parts.parse().ok().filter(|parts| (1..=MAX_PARTS).contains(parts))?;
            (crc, Some(parts))
        }
        None => (text, None),
    };
    let crc = u32::from_be_bytes(STANDARD.decode(crc).ok()?.try_into().ok()?);
    Some(parts.map_or(StoredChecksum::Whole(crc), |parts| StoredChecksum::Parts(crc, parts)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn checksums_are_understood_as_stores_write_them() {
        for (text, expected) in [
            // CRC32C of "123456789", as RFC 3720 and others have it: e3069283.
            ("4waSgw==", Some(StoredChecksum::Whole(0xe306_9283))),
            ("4waSgw==-4", Some(StoredChecksum::Parts(0xe306_9283, 4))),
            ("AAAAAA==-10000", Some(StoredChecksum::Parts(0, 10_000))),
            ("AAAAAA==-10001", None),
            ("AAAAAA==-0", None),
            ("AAAAAA==-", None),
            ("AAAAAA==-1-1", None),
            ("AAAAAA", None),
            ("AAAAAAAA", None),
            ("e3069283", None),
            ("", None),
        ] {
            assert_eq!(parse(text), expected, "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_what_is_read(crc: u32, parts in 1..=MAX_PARTS, noise in "\\PC{0,20}") {
            let text = STANDARD.encode(crc.to_be_bytes());
            prop_assert_eq!(parse(&text), Some(StoredChecksum::Whole(crc)));
            prop_assert_eq!(parse(&format!("{text}-{parts}")), Some(StoredChecksum::Parts(crc, parts)));
            parse(&noise);
        }
    }
}
