//! Sending an object: in one request, or block by block.
//!
//! Each request carries the MD5 of its bytes, and the store refuses what does not fit it. Blocks have names of this upload alone,
//! so that of two writers neither puts together the other's; the list that puts them together makes the object, all of it at once,
//! and replaces what was there.

use std::sync::Arc;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use http::{HeaderName, Method, header};
use rand::RngExt as _;

use super::{Store, query};
use crate::objstore::{
    Error, ErrorKind, Op, Pieces, Placed, Source,
    batches::{Batch, Batches, Unusable},
    rest::{ANSWER_LIMIT, Answer, Call, Dialect as _, Refusal, address},
    transfer::{
        body::{Hasher, Slice},
        content::Content,
    },
};

const MIB: u64 = 1 << 20;

/// Up to so many bytes travel in one request, more in blocks of that size.
pub(super) const BLOCK: u64 = 16 * MIB;

/// A block of an object of unknown length, in bytes. Two are held in memory.
const STREAM_BLOCK: u64 = 5 * MIB;

/// The store's limits.
const MAX_BLOCKS: u64 = 50_000;
const MAX_BLOCK: u64 = 4000 * MIB;

/// Blocks of one object that are on their way at the same time, at most: all requests share the slots.
const BLOCKS_AT_ONCE: usize = 4;

static MD5: HeaderName = HeaderName::from_static("content-md5");
static BLOB_TYPE: HeaderName = HeaderName::from_static("x-ms-blob-type");

/// The size of each block but the last, of an object of so many bytes.
pub(super) fn block_size(len: u64) -> u64 {
    BLOCK.max(len.div_ceil(MAX_BLOCKS).next_multiple_of(MIB))
}

/// The names of one upload's blocks.
struct Names(u64);

impl Names {
    fn new() -> Self {
        Self(rand::rng().random())
    }

    /// All names of an object must be of one length, those that another program has left behind as well: 64 bytes, like
    /// those of Azure's own library for Go, which Thanos uses.
    fn of(&self, number: usize) -> String {
        STANDARD.encode(format!("{:016x}-{number:047}", self.0))
    }
}

impl Store {
    pub(super) async fn put_file(self: &Arc<Self>, key: &str, source: &Source) -> Result<(), Error> {
        if source.len <= BLOCK {
            let content = Content::File(Slice::whole(source));
            return self.put_whole(key, content, false).await.map(drop);
        }
        let size = block_size(source.len);
        if size > MAX_BLOCK {
            let detail = format!("{} bytes are more than Azure takes in one object", source.len);
            return Err(self.rest.error(Op::Upload, key, ErrorKind::Refused, detail));
        }
        // Waited for by `settle` until it is dropped.
        let sent = self.rest.cleanup.track_future(self.put_blocks(key, source, size)).await;
        match sent {
            // The blocks are gone: another writer has put his together.
            Err(error) if error.kind == ErrorKind::Integrity => {
                tracing::debug!(%error, "sending the object once more");
                self.rest.cleanup.track_future(self.put_blocks(key, source, size)).await
            }
            sent => sent,
        }
    }

    async fn put_blocks(&self, key: &str, source: &Source, size: u64) -> Result<(), Error> {
        let names = Names::new();
        let slices = (0..source.len.div_ceil(size)).map(|number| Slice {
            source: source.clone(),
            offset: number * size,
            len: size.min(source.len - number * size),
        });
        let blocks = slices.enumerate().map(|(number, slice)| {
            let name = names.of(number);
            async move {
                self.put_block(key, &name, Content::File(slice)).await?;
                Ok::<_, Error>(name)
            }
        });
        let sent: Vec<String> = stream::iter(blocks).buffered(BLOCKS_AT_ONCE).try_collect().await?;
        self.put_list(key, &sent).await
    }

    /// One object, one request; with `new` only if there is none of that key.
    pub(super) async fn put_whole(&self, key: &str, content: Content, new: bool) -> Result<Placed, Error> {
        let mut headers = vec![(BLOB_TYPE.clone(), "BlockBlob".to_owned())];
        if new {
            headers.push((header::IF_NONE_MATCH, "*".to_owned()));
        }
        let uri = self.rest.dialect.address(&self.rest.full(key), "");
        let call = Call {
            headers,
            // That there is one, in two ways of saying it.
            expected: if new { &[409, 412] } else { &[] },
            ..self.rest.prepare(Op::Upload, key, Method::PUT, uri)?
        };
        let answer = self.send_summed(key, call, content).await?;
        match answer.status {
            409 if answer.header("x-ms-error-code") != Some("BlobAlreadyExists") => {
                let refusal = Refusal {
                    status: answer.status,
                    headers: answer.headers,
                    body: Bytes::new(),
                };
                let (kind, detail) = self.rest.dialect.explain(Op::Upload, &refusal);
                Err(self.rest.error(Op::Upload, key, kind, detail))
            }
            409 | 412 => Ok(Placed::Exists),
            _ => Ok(Placed::Created),
        }
    }

    async fn put_block(&self, key: &str, name: &str, content: Content) -> Result<(), Error> {
        let query = query(&[("comp", "block"), ("blockid", name)]);
        let uri = self.rest.dialect.address(&self.rest.full(key), &query);
        let call = self.rest.prepare(Op::Upload, key, Method::PUT, uri)?;
        self.send_summed(key, call, content).await.map(drop)
    }

    /// Puts blocks together, in this order.
    async fn put_list(&self, key: &str, names: &[String]) -> Result<(), Error> {
        let mut list = String::from("<?xml version=\"1.0\" encoding=\"utf-8\"?><BlockList>");
        for name in names {
            list.push_str("<Latest>");
            list.push_str(name);
            list.push_str("</Latest>");
        }
        list.push_str("</BlockList>");
        let uri = self.rest.dialect.address(&self.rest.full(key), "comp=blocklist");
        let call = self.rest.prepare(Op::Upload, key, Method::PUT, uri)?;
        let content = Content::Memory(Bytes::from(list).into());
        self.send_summed(key, call, content).await.map(drop)
    }

    /// Sends bytes with their MD5; makes the container if there is none.
    async fn send_summed(&self, key: &str, mut call: Call, content: Content) -> Result<Answer, Error> {
        let _permit = self.rest.permit().await;
        let sum = content.digest(Hasher::md5(), &self.rest.buffers).await;
        let sum = sum.map_err(|reason| self.rest.error(Op::Upload, key, ErrorKind::Local, reason))?;
        let md5 = sum.finish().md5().unwrap_or_default();
        call.headers.push((MD5.clone(), md5.clone()));
        call.content = Some(content);
        let answer = match self.rest.call(key, &call).await {
            Err(error) if error.kind == ErrorKind::NoBucket && self.rest.dialect.create_container => {
                let made = self.make_container().await;
                made.map_err(|failed| {
                    let detail = format!("{}; it could not be made: {}", error.detail, failed.detail);
                    self.rest.error(Op::Upload, key, error.kind, detail)
                })?;
                self.rest.call(key, &call).await?
            }
            answer => answer?,
        };
        match answer.header("content-md5") {
            // Every upload makes something; a proxy's page says 200.
            _ if !matches!(answer.status, 201 | 409 | 412) => {
                let detail = format!("the answer {} is not that of Azure's blob storage", answer.status);
                Err(self.rest.error(Op::Upload, key, ErrorKind::Server, detail))
            }
            Some(theirs) if theirs != md5 => {
                let detail = format!(
                    "the store acknowledged MD5 {theirs}, but {md5} was sent: the data was damaged on the way, or the store is \
                     at fault"
                );
                Err(self.rest.error(Op::Upload, key, ErrorKind::Integrity, detail))
            }
            _ => Ok(answer),
        }
    }

    async fn make_container(&self) -> Result<(), Error> {
        let uri = address(&format!("{}?restype=container", self.rest.dialect.container));
        let call = Call {
            expected: &[409],
            ..self.rest.prepare(Op::Upload, "", Method::PUT, uri)?
        };
        let (answer, body) = self.rest.call_whole("", &call, ANSWER_LIMIT).await?;
        match answer.status {
            201 => {
                tracing::info!(container = self.rest.identity, "made the container, for there was none");
                Ok(())
            }
            // Somebody else has made it meanwhile.
            409 if answer.header("x-ms-error-code") == Some("ContainerAlreadyExists") => Ok(()),
            status => {
                let headers = answer.headers;
                let (kind, detail) = self
                    .rest
                    .dialect
                    .explain(Op::Upload, &Refusal { status, headers, body });
                Err(self.rest.error(Op::Upload, "", kind, detail))
            }
        }
    }

    /// Sends what `pieces` bring, at most `at_most` bytes; returns how many they were.
    pub(super) async fn put_pieces(
        self: &Arc<Self>,
        key: &str,
        pieces: Pieces<'_>,
        at_most: u64,
    ) -> Result<u64, Error> {
        let size = STREAM_BLOCK.max(
            at_most
                .min(MAX_BLOCK * MAX_BLOCKS)
                .div_ceil(MAX_BLOCKS)
                .next_multiple_of(MIB),
        );
        let unusable = |unusable: Unusable| unusable.into_error(self.rest.place(key));
        let mut batches = Batches::new(pieces, at_most);
        let first = batches.next(size).await.map_err(unusable)?;
        if !batches.has_more().await.map_err(unusable)? {
            let len = first.len();
            self.put_whole(key, Content::Memory(first), false).await?;
            return Ok(len);
        }
        let sending = async {
            let (names, mut sent, mut len, mut batch) = (Names::new(), Vec::new(), 0, first);
            // One block is on its way while the next one is filled.
            while batch.len() > 0 {
                len += batch.len();
                let name = names.of(sent.len());
                let next = async { batches.next(size).await.map_err(unusable) };
                let (_, following): ((), Batch) =
                    tokio::try_join!(self.put_block(key, &name, Content::Memory(batch)), next)?;
                sent.push(name);
                batch = following;
            }
            self.put_list(key, &sent).await?;
            Ok(len)
        };
        self.rest.cleanup.track_future(sending).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_never_too_many_and_their_names_of_one_length() {
        for (len, wanted) in [
            (BLOCK + 1, BLOCK),
            (MAX_BLOCKS * BLOCK, BLOCK),
            (MAX_BLOCKS * BLOCK + 1, 17 * MIB),
        ] {
            let size = block_size(len);
            assert_eq!(size, wanted, "{len}");
            assert!(len.div_ceil(size) <= MAX_BLOCKS);
        }
        let names = Names::new();
        let lengths = [0, 9, 49_999].map(|number| names.of(number).len());
        assert_eq!(lengths, [88; 3]);
        assert_ne!(names.of(0), Names::new().of(0));
    }
}
