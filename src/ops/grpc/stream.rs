//! The byte stream of a connection: with TLS or without, and a time limit for the HTTP/2 preface.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::{Instant, Sleep, sleep_until},
};
use tokio_rustls::server::TlsStream;

use crate::ops::stall::{WriteTimeout, timed_out};

/// The opening of HTTP/2 from a client: its fixed text and an empty frame of settings.
const OPENING: usize = 24 + 9;

/// A connection's stream.
#[derive(Debug)]
pub(super) enum Stream {
    /// Plain text.
    Plain(WriteTimeout<TcpStream>),
    /// Through TLS, whose handshake is done.
    Tls(Box<TlsStream<WriteTimeout<TcpStream>>>),
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Self::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(stream) => stream.is_write_vectored(),
            Self::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

/// A stream whose reads fail with `TimedOut` when the opening of HTTP/2 is not in by its time.
#[derive(Debug)]
pub(super) struct Opening<S> {
    stream: S,
    /// Until the opening is in: the bytes that came, and the end of its time.
    open: Option<(usize, Pin<Box<Sleep>>)>,
}

impl<S> Opening<S> {
    pub(super) fn new(stream: S, by: Instant) -> Self {
        Self {
            stream,
            open: Some((0, Box::pin(sleep_until(by)))),
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Opening<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let before = buf.filled().len();
        let read = Pin::new(&mut this.stream).poll_read(cx, buf);
        let Some((came, timer)) = &mut this.open else {
            return read;
        };
        *came += buf.filled().len() - before;
        if *came >= OPENING {
            this.open = None;
        } else if timer.as_mut().poll(cx).is_ready() {
            // An error says that nothing was read.
            buf.set_filled(before);
            return Poll::Ready(Err(timed_out("waiting for the HTTP/2 preface")));
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Opening<S> {
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
    use std::time::Duration;

    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _, duplex},
        time::sleep,
    };

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_read_that_fails_has_read_nothing() {
        let (mut client, server) = duplex(64);
        let mut late = Opening::new(server, Instant::now() + Duration::from_secs(10));
        sleep(Duration::from_secs(11)).await;
        client.write_all(b"x").await.unwrap();
        let mut space = [0; 8];
        let mut buf = ReadBuf::new(&mut space);
        let read = std::future::poll_fn(|cx| Pin::new(&mut late).poll_read(cx, &mut buf)).await;
        assert_eq!(read.unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert!(buf.filled().is_empty(), "{:?}", buf.filled());
    }

    #[tokio::test(start_paused = true)]
    async fn an_opening_that_drips_is_cut_and_one_that_is_in_is_left_alone() {
        let by = Instant::now() + Duration::from_secs(10);
        let (mut client, server) = duplex(64);
        let mut slow = Opening::new(server, by);
        client.write_all(&[0; OPENING - 1]).await.unwrap();
        let mut all = Vec::new();
        let timed_out = slow.read_to_end(&mut all).await.unwrap_err();
        assert_eq!((timed_out.kind(), all.len()), (io::ErrorKind::TimedOut, OPENING - 1));

        let (mut client, server) = duplex(64);
        let mut fast = Opening::new(server, Instant::now() + Duration::from_secs(10));
        client.write_all(&[0; OPENING]).await.unwrap();
        fast.read_exact(&mut [0; OPENING]).await.unwrap();
        sleep(Duration::from_secs(60)).await;
        client.write_all(&[0]).await.unwrap();
        fast.read_exact(&mut [0]).await.unwrap();
    }
}
