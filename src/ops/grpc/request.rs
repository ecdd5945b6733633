//! The body of a request on its way to the service: messages are counted and, if the client compresses, decompressed.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::{Buf as _, Bytes, BytesMut};
use http_body::{Body, Frame, SizeHint};
use prometheus_client::metrics::gauge::Gauge;
use tonic::Status;

use super::{
    codec::Codec,
    messages::{COMPRESSED, Messages, PREFIX, length, prefix},
    metrics::Counted,
    settings::MESSAGE_MAX,
    usage::Usage,
};

/// What all compressed requests that have not come whole may take together, in bytes.
const COMPRESSED_MAX: i64 = 64 << 20;

/// A request's body; errors of the connection become a status.
#[derive(Debug)]
pub(super) struct RequestBody<B> {
    inner: B,
    counted: Option<Arc<Counted>>,
    messages: Messages,
    compressed: Option<Compressed>,
    usage: Arc<Usage>,
}

/// What came of messages that may be compressed, in turn until a message is whole.
#[derive(Debug)]
struct Compressed {
    codec: Codec,
    held: BytesMut,
    /// What all requests of the server buffer, and what of it is ours.
    all: Gauge,
    ours: usize,
    ended: bool,
}

impl<B> RequestBody<B> {
    pub(super) fn new(
        inner: B,
        counted: Option<Arc<Counted>>,
        codec: Option<Codec>,
        all: &Gauge,
        usage: Arc<Usage>,
    ) -> Self {
        let compressed = codec.map(|codec| Compressed {
            codec,
            held: BytesMut::new(),
            all: all.clone(),
            ours: 0,
            ended: false,
        });
        Self {
            inner,
            counted,
            messages: Messages::default(),
            compressed,
            usage,
        }
    }

    fn count(&mut self, data: &[u8]) {
        self.usage.touch();
        if let Some(counted) = &self.counted {
            let begun = self.messages.count(data);
            if begun > 0 {
                counted.received.inc_by(begun);
            }
        }
    }
}

impl Compressed {
    /// Counts what is held now.
    ///
    /// # Errors
    /// `ResourceExhausted`: all requests together hold too much.
    fn account(&mut self) -> Result<(), Status> {
        let before = std::mem::replace(&mut self.ours, self.held.len());
        let change = self.ours as i64 - before as i64;
        let all = self.all.inc_by(change) + change;
        match change > 0 && all > COMPRESSED_MAX {
            true => Err(Status::resource_exhausted(format!(
                "incomplete compressed requests take more than {COMPRESSED_MAX} bytes now: retry, or send fewer \
                 requests at once"
            ))),
            false => Ok(()),
        }
    }

    /// The next message in plain, if it is here whole.
    fn next_message(&mut self) -> Result<Option<Bytes>, Status> {
        let Some(start) = self.held.first_chunk::<PREFIX>() else {
            return Ok(None);
        };
        let (flag, length) = (start[0], length(*start) as usize);
        if length > MESSAGE_MAX {
            return Err(Status::resource_exhausted(format!(
                "a message of the request is larger than {MESSAGE_MAX} bytes"
            )));
        }
        if self.held.len() < PREFIX + length {
            return Ok(None);
        }
        if flag != COMPRESSED {
            return Ok(Some(self.held.split_to(PREFIX + length).freeze()));
        }
        self.held.advance(PREFIX);
        let message = self.held.split_to(length);
        let mut plain = BytesMut::zeroed(PREFIX);
        self.codec.decompress(&message, MESSAGE_MAX, &mut plain)?;
        // At most MESSAGE_MAX, which fits.
        let start = prefix(0, (plain.len() - PREFIX) as u32);
        plain[..PREFIX].copy_from_slice(&start);
        Ok(Some(plain.freeze()))
    }
}

impl Drop for Compressed {
    fn drop(&mut self) {
        self.all.dec_by(self.ours as i64);
    }
}

impl<B> Body for RequestBody<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = &mut *self;
        loop {
            if let Some(compressed) = &mut this.compressed {
                if let Some(message) = compressed.next_message()? {
                    compressed.account()?;
                    return Poll::Ready(Some(Ok(Frame::data(message))));
                }
                if compressed.ended {
                    // An incomplete message: its decoder reports what is wrong.
                    let rest = compressed.held.split().freeze();
                    return Poll::Ready((!rest.is_empty()).then(|| Ok(Frame::data(rest))));
                }
            }
            let frame = match ready!(Pin::new(&mut this.inner).poll_frame(cx)) {
                Some(Ok(frame)) => frame,
                Some(Err(error)) => return Poll::Ready(Some(Err(Status::from_error(error.into())))),
                None => match &mut this.compressed {
                    Some(compressed) => {
                        compressed.ended = true;
                        continue;
                    }
                    None => return Poll::Ready(None),
                },
            };
            let data = match frame.into_data() {
                Ok(data) => data,
                // Trailers of a request: gRPC has none.
                Err(other) => return Poll::Ready(Some(Ok(other))),
            };
            this.count(&data);
            match &mut this.compressed {
                Some(compressed) => {
                    compressed.held.extend_from_slice(&data);
                    compressed.account()?;
                }
                None => return Poll::Ready(Some(Ok(Frame::data(data)))),
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.compressed
            .as_ref()
            .is_none_or(|compressed| compressed.held.is_empty())
            && self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        match self.compressed {
            Some(_) => SizeHint::default(),
            None => self.inner.size_hint(),
        }
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::{BodyExt as _, StreamBody};
    use tokio::time::Instant;
    use tonic::Code;

    use super::*;

    /// A request of which so many bytes of one message come, and no more.
    fn begun(all: &Gauge, bytes: usize) -> RequestBody<impl Body<Data = Bytes, Error = Status> + Unpin> {
        let length = u32::try_from(MESSAGE_MAX).unwrap();
        let pieces = [
            Bytes::copy_from_slice(&prefix(COMPRESSED, length)),
            vec![7; bytes].into(),
        ];
        let pieces = futures_util::stream::iter(pieces.map(|piece| Ok::<_, Status>(Frame::data(piece))));
        let endless = futures_util::StreamExt::chain(pieces, futures_util::stream::pending());
        let codec = Codec::of("gzip").unwrap();
        RequestBody::new(
            StreamBody::new(endless),
            None,
            codec,
            all,
            Arc::new(Usage::new(Instant::now(), std::time::Duration::from_secs(10))),
        )
    }

    #[tokio::test]
    async fn compressed_requests_that_do_not_come_whole_have_a_bound_together() {
        let all = Gauge::default();
        let mut held = Vec::new();
        for _ in 0..4 {
            let mut body = begun(&all, (16 << 20) - 100);
            assert!(futures_util::poll!(std::pin::pin!(body.frame())).is_pending());
            held.push(body);
        }
        let mut refused = begun(&all, 1000);
        let status = refused.frame().await.unwrap().unwrap_err();
        assert_eq!(status.code(), Code::ResourceExhausted);
        held.clear();
        drop(refused);
        assert_eq!(all.get(), 0);
    }
}
