//! A request's body, no faster than the bucket's rate limit.
//!
//! Each attempt has one of its own: what travels again is counted again. A piece waits here, read already, until its
//! time has come; the watch over the request is told until when, and does not take that wait for a stall. Without a
//! limit the pieces pass as they are.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use aws_sdk_s3::primitives::SdkBody;
use aws_smithy_runtime_api::box_error::BoxError;
use bytes::{Buf, Bytes};
use http_body::{Body, Frame, SizeHint};
use tokio::time::{Instant, Sleep};

use super::progress::Progress;
use crate::objstore::RateLimit;

/// A body with a rate limit.
pub(in crate::objstore) struct RateLimitedBody {
    inner: SdkBody,
    rate_limit: RateLimit,
    progress: Arc<Progress>,
    /// What was taken from `inner` and has not passed.
    held: Bytes,
    /// How much of it may pass next, and when.
    next: Option<(usize, Pin<Box<Sleep>>)>,
}

impl RateLimitedBody {
    pub(in crate::objstore) fn new(inner: SdkBody, rate_limit: RateLimit, progress: Arc<Progress>) -> Self {
        Self {
            inner,
            rate_limit,
            progress,
            held: Bytes::new(),
            next: None,
        }
    }
}

impl Body for RateLimitedBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = &mut *self;
        if this.held.is_empty() {
            match ready!(Pin::new(&mut this.inner).poll_frame(cx)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) if data.is_empty() => return Poll::Ready(Some(Ok(Frame::data(data)))),
                    Ok(data) => this.held = data,
                    Err(trailers) => return Poll::Ready(Some(Ok(trailers))),
                },
                other => return Poll::Ready(other),
            }
        }
        if this.next.is_none() {
            let step = this.held.len().min(this.rate_limit.step());
            let pause = this.rate_limit.send(step);
            if pause.is_zero() {
                return Poll::Ready(Some(Ok(Frame::data(this.held.split_to(step)))));
            }
            let then = Instant::now() + pause;
            this.progress.wait_until(then);
            this.next = Some((step, Box::pin(tokio::time::sleep_until(then))));
        }
        let Some((step, timer)) = &mut this.next else {
            return Poll::Ready(None);
        };
        let step = *step;
        ready!(timer.as_mut().poll(cx));
        this.next = None;
        Poll::Ready(Some(Ok(Frame::data(this.held.split_to(step)))))
    }

    fn is_end_stream(&self) -> bool {
        self.held.is_empty() && Body::is_end_stream(&self.inner)
    }

    fn size_hint(&self) -> SizeHint {
        let (inner, held) = (Body::size_hint(&self.inner), self.held.remaining() as u64);
        match inner.exact() {
            Some(exact) => SizeHint::with_exact(exact + held),
            None => SizeHint::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use http_body_util::BodyExt;

    async fn drain(rate_limit: &RateLimit, bytes: usize) -> usize {
        let content = Bytes::from(vec![7; bytes]);
        let mut body = RateLimitedBody::new(
            SdkBody::from(content.clone()),
            rate_limit.clone(),
            Arc::new(Progress::new()),
        );
        let (mut frames, mut got) = (0, Vec::new());
        while let Some(frame) = body.frame().await {
            got.extend_from_slice(frame.unwrap().data_ref().unwrap());
            assert_eq!(Body::size_hint(&body).exact(), Some((bytes - got.len()) as u64));
            frames += 1;
        }
        assert!(got == content);
        frames
    }

    #[tokio::test(start_paused = true)]
    async fn bodies_side_by_side_share_the_limit_and_all_of_them_move() {
        let rate_limit = RateLimit::at_most(64 << 10);
        let start = Instant::now();
        let bodies = (0..4).map(|_| drain(&rate_limit, 128 << 10));
        let frames = futures_util::future::join_all(bodies).await;
        assert_eq!(frames, [16; 4], "each moves an eighth of a second's worth at a time");
        // 512 KiB at 64 KiB/s; the last step has passed when its turn comes, not when its time is over.
        let took = start.elapsed();
        let expected = Duration::from_secs(8) - Duration::from_millis(125);
        assert!(took.abs_diff(expected) < Duration::from_millis(200), "{took:?}");
        assert_eq!(rate_limit.sent(), 512 << 10);
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_limit_nothing_is_cut_and_nothing_waits() {
        let (rate_limit, start) = (RateLimit::default(), Instant::now());
        assert_eq!(drain(&rate_limit, 1 << 20).await, 1);
        assert_eq!(start.elapsed(), Duration::ZERO);
        assert_eq!(rate_limit.sent(), 1 << 20);
    }
}
