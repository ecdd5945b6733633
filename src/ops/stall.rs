//! Finds peers that stop reading while bytes for them wait, on every port.
//!
//! Two limits, because each sees what the other does not:
//! - the kernel closes a connection when what was sent is not acknowledged for [`UNACKNOWLEDGED`] (`TCP_USER_TIMEOUT`,
//!   with the 20 s of grpc-go): a host that is gone, a network that is cut; newer kernels also when the peer's window
//!   stays closed for so long;
//! - [`WriteTimeout`] fails when not one byte could be written for a limit: a process that is stopped or stuck, whose
//!   kernel goes on answering, whatever ours makes of that.
//!
//! Pings do neither: with bytes waiting there is no room for a ping. A client that only reads slowly is not cut: with
//! HTTP/2 its flow-control windows block us before TCP does, so that bytes that wait in TCP mean that the process reads
//! nothing at all, pings included. With HTTP/1, and behind a proxy that reads as slowly as its client, each byte that
//! is read counts.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use socket2::SockRef;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::{Instant, Sleep, sleep_until},
};
use tracing::debug;

/// How long sent bytes may stay unacknowledged before the kernel gives the connection up.
pub(super) const UNACKNOWLEDGED: Duration = Duration::from_secs(20);

/// Sets what every connection that was accepted needs: nothing small waits for the answer to what went before, and the
/// kernel gives up after `unacknowledged`.
///
/// # Errors
/// The connection is gone already.
pub(super) fn prepare(stream: &TcpStream, unacknowledged: Duration) -> io::Result<()> {
    stream.set_nodelay(true)?;
    if let Err(error) = SockRef::from(stream).set_tcp_user_timeout(Some(unacknowledged)) {
        // A kernel that does not know it: the other limit still holds.
        debug!(%error, "cannot set TCP_USER_TIMEOUT");
    }
    Ok(())
}

/// A stream whose writes fail with `TimedOut` when they make no progress for a limit.
#[derive(Debug)]
pub(super) struct WriteTimeout<S> {
    stream: S,
    limit: Duration,
    /// Since when a write waits.
    since: Option<Instant>,
    /// Made with the first write that waits, and set anew only when it rings: most of them wait for a moment.
    timer: Option<Pin<Box<Sleep>>>,
}

impl<S> WriteTimeout<S> {
    pub(super) fn new(stream: S, limit: Duration) -> Self {
        Self {
            stream,
            limit,
            since: None,
            timer: None,
        }
    }

    fn check<T>(&mut self, cx: &mut Context<'_>, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.since = None;
            return written;
        }
        let end = *self.since.get_or_insert_with(Instant::now) + self.limit;
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(end)));
        while timer.as_mut().poll(cx).is_ready() {
            if Instant::now() >= end {
                return Poll::Ready(Err(timed_out("writing: the client reads nothing")));
            }
            timer.as_mut().reset(end);
        }
        Poll::Pending
    }
}

/// The error that a client gets who is too slow over `what`.
pub(super) fn timed_out(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, format!("timed out {what}"))
}

impl<S: AsyncRead + Unpin> AsyncRead for WriteTimeout<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for WriteTimeout<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.check(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.check(cx, written)
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
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _, duplex},
        net::TcpListener,
        time::sleep,
    };

    use super::*;

    const LIMIT: Duration = Duration::from_secs(30);

    #[tokio::test(start_paused = true)]
    async fn what_nobody_reads_fails_at_the_limit_and_what_is_read_slowly_does_not() {
        let (mut client, server) = duplex(64);
        let mut unstalled = WriteTimeout::new(server, LIMIT);
        let begun = Instant::now();
        let slow = async {
            for _ in 0..100 {
                sleep(LIMIT / 2).await;
                client.read_exact(&mut [0; 8]).await.unwrap();
            }
            std::future::pending::<()>().await;
        };
        tokio::select! {
            () = slow => {}
            written = unstalled.write_all(&[0; 1000]) => {
                let error = written.unwrap_err();
                assert_eq!(error.kind(), io::ErrorKind::TimedOut);
                assert_eq!(error.to_string(), "timed out writing: the client reads nothing");
            }
        }
        assert_eq!(begun.elapsed(), LIMIT / 2 * 100 + LIMIT);
    }

    #[tokio::test]
    async fn the_kernel_is_told_how_long_bytes_may_stay_unacknowledged() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (client, accepted) = tokio::join!(TcpStream::connect(address), listener.accept());
        let (stream, _) = accepted.unwrap();
        prepare(&stream, UNACKNOWLEDGED).unwrap();
        let set = SockRef::from(&stream).tcp_user_timeout().unwrap();
        assert_eq!((set, stream.nodelay().unwrap()), (Some(UNACKNOWLEDGED), true));
        drop(client);
    }
}
