//! One HTTP connection with time limits: for the head of a request, and for reading the answer.
//!
//! A connection without a request is not limited here; the server has its own, longer limit for it, so that a scraper
//! keeps its connection from one scrape to the next.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, Sleep, sleep},
};

use super::{
    connections::{Rank, Usage},
    stall::{WriteTimeout, timed_out},
};

/// What a connection and the server share; clones are the same.
#[derive(Clone, Debug)]
pub(super) struct Activity(Arc<Counters>);

#[derive(Debug)]
struct Counters {
    born: Instant,
    requests: AtomicU64,
    last_ms: AtomicU64,
}

impl Activity {
    /// A connection that was accepted now, by a server that was started at `born`.
    pub(super) fn new(born: Instant) -> Self {
        let activity = Self(Arc::new(Counters {
            born,
            requests: AtomicU64::new(0),
            last_ms: AtomicU64::new(0),
        }));
        activity.touch();
        activity
    }

    /// A request's head has arrived whole.
    pub(super) fn request(&self) {
        self.0.requests.fetch_add(1, Ordering::Relaxed);
        self.touch();
    }

    fn requests(&self) -> u64 {
        self.0.requests.load(Ordering::Relaxed)
    }

    fn touch(&self) {
        let age = u64::try_from(self.0.born.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.0.last_ms.store(age, Ordering::Relaxed);
    }
}

impl Usage for Activity {
    /// Any connection may be closed for a new one: a scraper or a probe asks again.
    fn rank(&self) -> Option<Rank> {
        Some(Rank {
            busy: false,
            last_ms: self.0.last_ms.load(Ordering::Relaxed),
        })
    }
}

/// A stream that fails with `TimedOut` when a request's head takes longer than `head`, or when a write makes no progress
/// for `stall`.
#[derive(Debug)]
pub(super) struct HeadTimeout<S> {
    stream: WriteTimeout<S>,
    activity: Activity,
    head: Duration,
    /// Runs from the first byte of a head, and the number of requests that had arrived before it.
    head_timer: Option<(u64, Pin<Box<Sleep>>)>,
}

impl<S> HeadTimeout<S> {
    pub(super) fn new(stream: S, activity: Activity, head: Duration, stall: Duration) -> Self {
        Self {
            stream: WriteTimeout::new(stream, stall),
            activity,
            head,
            head_timer: None,
        }
    }

    /// Ends the head's timer if the head has arrived; `Err` when it has run out.
    fn check_head(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        let requests = self.activity.requests();
        self.head_timer.take_if(|(before, _)| *before != requests);
        if let Some((_, timer)) = &mut self.head_timer
            && timer.as_mut().poll(cx).is_ready()
        {
            return Err(timed_out("receiving the head of the request"));
        }
        Ok(())
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for HeadTimeout<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        // Before the read: an error says that nothing was put into `buf`.
        self.check_head(cx)?;
        let before = buf.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        if buf.filled().len() > before && self.head_timer.is_none() {
            // It wakes nobody until the next read, which looks at it first.
            self.head_timer = Some((self.activity.requests(), Box::pin(sleep(self.head))));
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for HeadTimeout<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};

    use super::*;

    const SHORT: Duration = Duration::from_millis(60);
    const LONG: Duration = Duration::from_secs(60);

    #[tokio::test]
    async fn a_head_that_drips_is_cut() {
        let (mut client, server) = duplex(64);
        let mut guarded = HeadTimeout::new(server, Activity::new(Instant::now()), SHORT, LONG);
        let drip = tokio::spawn(async move {
            while client.write_all(b"x").await.is_ok() {
                sleep(SHORT / 10).await
            }
        });
        let mut text = String::new();
        let error = guarded.read_to_string(&mut text).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        drop(guarded);
        drip.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_read_that_fails_has_read_nothing() {
        let (mut client, server) = duplex(64);
        let mut guarded = HeadTimeout::new(server, Activity::new(Instant::now()), SHORT, LONG);
        client.write_all(b"xy").await.unwrap();
        guarded.read_exact(&mut [0]).await.unwrap();
        sleep(SHORT * 2).await;
        let mut space = [0; 8];
        let mut buf = ReadBuf::new(&mut space);
        let read = std::future::poll_fn(|cx| Pin::new(&mut guarded).poll_read(cx, &mut buf)).await;
        assert_eq!(read.unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert!(buf.filled().is_empty(), "{:?}", buf.filled());
    }

    #[tokio::test]
    async fn an_idle_connection_and_one_whose_request_has_come_are_left_alone() {
        let (mut client, server) = duplex(64);
        let activity = Activity::new(Instant::now());
        let mut guarded = HeadTimeout::new(server, activity.clone(), SHORT, LONG);
        let mut byte = [0];
        tokio::time::timeout(SHORT * 3, guarded.read(&mut byte))
            .await
            .unwrap_err();
        client.write_all(b"x").await.unwrap();
        guarded.read_exact(&mut byte).await.unwrap();
        activity.request();
        tokio::time::timeout(SHORT * 3, guarded.read(&mut byte))
            .await
            .unwrap_err();
    }
}
