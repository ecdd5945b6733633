//! What a request sends: a range of a file, or bytes in memory.
//!
//! Either can be sent and summed up as often as it takes. Bytes in memory travel as they are, no copy is made; they are
//! handed to the transport in small steps, so that the watch over the request sees them move. Summing up stops within a
//! few MiB when it is dropped.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use aws_sdk_s3::primitives::{ByteStream, SdkBody};
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use super::body::{BUFFER, BufferPool, Failure, Slice, Sum};
use crate::objstore::batches::Batch;

/// How many frames are summed up before looking whether anybody still wants the result: a few MiB at most.
const FRAMES_IN_A_STEP: usize = 64;

/// What a request sends; clones share it.
#[derive(Clone, Debug)]
pub(in crate::objstore) enum Content {
    File(Slice),
    Memory(Batch),
}

impl Content {
    /// A body that can be sent more than once, and where errors of reading the file will be told.
    pub(in crate::objstore) fn body(&self, buffers: &BufferPool) -> (ByteStream, Failure) {
        match self {
            Content::File(slice) => slice.body(buffers),
            Content::Memory(batch) => {
                let batch = batch.clone();
                let body = move || SdkBody::from_body_1_x(MemoryBody::of(&batch));
                (ByteStream::new(SdkBody::retryable(body)), Failure::default())
            }
        }
    }

    /// The rest of it, from `at` bytes on; `None` beyond its end.
    pub(in crate::objstore) fn from(&self, at: u64) -> Option<Content> {
        Some(match self {
            Content::File(slice) => Content::File(Slice {
                source: slice.source.clone(),
                offset: slice.offset + at,
                len: slice.len.checked_sub(at)?,
            }),
            Content::Memory(batch) => Content::Memory(batch.from(at)?),
        })
    }

    /// Takes all of it into a sum. Blocks no async thread for longer than one buffer takes.
    pub(in crate::objstore) async fn digest<S: Sum>(&self, sum: S, buffers: &BufferPool) -> Result<S, String> {
        match self {
            Content::File(slice) => slice.digest(sum, buffers).await,
            Content::Memory(batch) => digest(batch, sum).await,
        }
    }
}

async fn digest<S: Sum>(batch: &Batch, mut sum: S) -> Result<S, String> {
    let mut frames = Frames::of(batch);
    if batch.len() <= BUFFER as u64 {
        frames.for_each(|frame| sum.update(&frame));
        return Ok(sum);
    }
    loop {
        let step: Vec<Bytes> = frames.by_ref().take(FRAMES_IN_A_STEP).collect();
        if step.is_empty() {
            return Ok(sum);
        }
        let work = move || {
            step.iter().for_each(|frame| sum.update(frame));
            sum
        };
        let done = tokio::task::spawn_blocking(work).await;
        sum = done.map_err(|error| format!("computing the checksum was cut short: {error}"))?;
    }
}

/// A batch in steps of no more than a buffer.
struct Frames {
    batch: Batch,
    /// Which piece is next, and how much of it has gone.
    piece: usize,
    gone: usize,
}

impl Frames {
    fn of(batch: &Batch) -> Self {
        Self {
            batch: batch.clone(),
            piece: 0,
            gone: 0,
        }
    }
}

impl Iterator for Frames {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        let piece = self.batch.pieces().get(self.piece)?;
        let end = piece.len().min(self.gone + BUFFER);
        let frame = piece.slice(self.gone..end);
        if end == piece.len() {
            self.piece += 1;
            self.gone = 0;
        } else {
            self.gone = end;
        }
        Some(frame)
    }
}

/// The body of bytes in memory.
struct MemoryBody {
    frames: Frames,
    left: u64,
}

impl MemoryBody {
    fn of(batch: &Batch) -> Self {
        Self {
            frames: Frames::of(batch),
            left: batch.len(),
        }
    }
}

impl Body for MemoryBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        let this = self.get_mut();
        let frame = this.frames.next();
        this.left -= frame.as_ref().map_or(0, |frame| frame.len() as u64);
        Poll::Ready(frame.map(|frame| Ok(Frame::data(frame))))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

#[cfg(test)]
mod tests {
    use futures_util::{StreamExt, stream};
    use http_body_util::BodyExt;

    use super::*;
    use crate::objstore::{
        batches::Batches,
        transfer::body::{Checksum, Hasher},
    };

    async fn batch(lens: &[usize]) -> (Batch, Vec<u8>) {
        let all: Vec<u8> = (0..lens.iter().sum()).map(|i: usize| (i * 31 % 251) as u8).collect();
        let mut rest = Bytes::from(all.clone());
        let pieces: Vec<_> = lens.iter().map(|len| Ok(rest.split_to(*len))).collect();
        let batch = Batches::new(stream::iter(pieces).boxed(), u64::MAX)
            .next(u64::MAX)
            .await
            .unwrap();
        (batch, all)
    }

    #[tokio::test]
    async fn bytes_in_memory_are_sent_and_summed_up_as_often_as_wanted() {
        for lens in [
            &[][..],
            &[1],
            &[BUFFER],
            &[BUFFER + 1, 5_000],
            &[5_000, 3 * BUFFER + 7, 1, 2, 3, 4_096],
            &[FRAMES_IN_A_STEP * BUFFER + 1],
        ] {
            let (batch, all) = batch(lens).await;
            let content = Content::Memory(batch);
            let buffers = BufferPool::default();
            let (body, _) = content.body(&buffers);
            let body = body.into_inner();
            assert_eq!(body.content_length(), Some(all.len() as u64));
            let again = body.try_clone().unwrap();
            for mut body in [body, again] {
                let mut got = Vec::new();
                while let Some(frame) = body.frame().await {
                    let frame = frame.unwrap().into_data().unwrap();
                    assert!(frame.len() <= BUFFER, "the watch would not see it move");
                    got.extend_from_slice(&frame);
                    assert_eq!(body.content_length(), Some((all.len() - got.len()) as u64));
                }
                assert!(got == all, "{lens:?}");
            }
            let crc = content.digest(Hasher::crc32c(), &buffers).await.unwrap().finish();
            assert_eq!(crc, Checksum::Crc32c(crc32c::crc32c(&all)), "{lens:?}");
        }
    }

    #[tokio::test]
    async fn what_is_sent_is_what_came_and_no_copy() {
        let bytes = Bytes::from(vec![7; 3 * BUFFER]);
        let content = Content::Memory(bytes.clone().into());
        let (body, _) = content.body(&BufferPool::default());
        let mut body = body.into_inner();
        for step in 0..3 {
            let frame = body.frame().await.unwrap().unwrap().into_data().unwrap();
            assert_eq!(frame.as_ptr(), bytes[step * BUFFER..].as_ptr());
        }
    }
}
