//! A TCP stream with a low-water mark, so that the many small segments of a long response do not wake its reader each
//! time.
//!
//! Prometheus writes a response series by series, each in a small segment, and each would wake the reader. Once a
//! response is longer than [`LONG`], the kernel is told to wake it only for [`MARK`] bytes (`SO_RCVLOWAT`). Short
//! responses never wait. The end of a long one, or a pause of the server, is noticed when nothing was readable for
//! [`PATIENCE`]: the mark is then lowered to one byte. Where the socket option does not work, the stream behaves as
//! without it.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::{Instant, Sleep, sleep},
};

/// An answer longer than this is long, in bytes.
const LONG: usize = 256 << 10;
/// How much has to be there before a long answer wakes us, in bytes.
const MARK: i32 = 64 << 10;
/// How long the end of a long answer may wait.
const PATIENCE: Duration = Duration::from_millis(5);

/// A connection to Prometheus; what is written to it begins a new answer.
#[derive(Debug)]
pub(super) struct LowWaterStream {
    stream: TcpStream,
    /// Bytes of this answer so far.
    received: usize,
    raised: bool,
    /// Runs while the mark is raised and nothing arrives; with `received` of when it was last reset.
    timer: Option<(usize, Pin<Box<Sleep>>)>,
}

impl LowWaterStream {
    pub(super) fn new(stream: TcpStream) -> Self {
        Self {
            stream,
            received: 0,
            raised: false,
            timer: None,
        }
    }

    fn raise(&mut self) {
        self.raised = set_mark(&self.stream, MARK);
    }

    fn lower(&mut self) {
        if self.raised {
            set_mark(&self.stream, 1);
            self.raised = false;
        }
    }

    /// Lowers the mark once nothing arrived for a while; the kernel then reports what is there.
    fn watch(&mut self, cx: &mut Context<'_>) {
        let received = self.received;
        let (received_at_reset, timer) = self.timer.get_or_insert_with(|| (received, Box::pin(sleep(PATIENCE))));
        while timer.as_mut().poll(cx).is_ready() {
            if *received_at_reset == received {
                self.timer = None;
                self.lower();
                return;
            }
            *received_at_reset = received;
            timer.as_mut().reset(Instant::now() + PATIENCE);
        }
    }
}

impl AsyncRead for LowWaterStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let mut read = Pin::new(&mut self.stream).poll_read(cx, buf);
        if read.is_pending() && self.raised {
            self.watch(cx);
            if !self.raised {
                // The mark was lowered after that read.
                read = Pin::new(&mut self.stream).poll_read(cx, buf);
            }
        }
        let came = buf.filled().len() - before;
        self.received = self.received.saturating_add(came);
        if came > 0 && !self.raised && self.received > LONG {
            self.raise();
        }
        read
    }
}

impl AsyncWrite for LowWaterStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.received = 0;
        self.lower();
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.received = 0;
        self.lower();
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

/// Sets `SO_RCVLOWAT`; whether that worked.
#[cfg(target_os = "linux")]
#[allow(unsafe_code, reason = "no crate has a safe call for this option")]
fn set_mark(stream: &TcpStream, bytes: i32) -> bool {
    use std::os::fd::AsRawFd;

    let size = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: the descriptor is open as long as `stream` is borrowed, and the kernel reads `size` bytes of an integer
    // that lives through the call; it keeps no pointer.
    let result = unsafe {
        libc::setsockopt(
            stream.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_RCVLOWAT,
            (&raw const bytes).cast(),
            size,
        )
    };
    result == 0
}

#[cfg(not(target_os = "linux"))]
fn set_mark(_stream: &TcpStream, _bytes: i32) -> bool {
    false
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
        time::timeout,
    };

    use super::*;

    const LIMIT: Duration = Duration::from_secs(30);

    async fn pair() -> (LowWaterStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (server, _) = listener.accept().await.unwrap();
        (LowWaterStream::new(client), server)
    }

    /// Reads `length` bytes, as a server that does not close the connection gives them.
    async fn read(stream: &mut LowWaterStream, length: usize) -> Vec<u8> {
        let mut found = vec![0; length];
        timeout(LIMIT, stream.read_exact(&mut found)).await.unwrap().unwrap();
        found
    }

    #[tokio::test]
    async fn the_end_of_a_long_answer_arrives_though_the_connection_stays_open() {
        let (mut stream, mut server) = pair().await;
        for _ in 0..2 {
            stream.write_all(b"?").await.unwrap();
            assert!(!stream.raised);
            let mut request = [0];
            server.read_exact(&mut request).await.unwrap();
            // Long, and then a rest that is far below the mark.
            let answer: Vec<u8> = (0..LONG + 70_000 + 3).map(|at| at as u8).collect();
            let (sent, found) = tokio::join!(server.write_all(&answer), read(&mut stream, answer.len()));
            sent.unwrap();
            assert_eq!(found, answer);
        }
    }

    #[tokio::test]
    async fn a_server_that_pauses_is_read_up_to_the_pause() {
        let (mut stream, mut server) = pair().await;
        let long = vec![7; LONG + 1];
        let (sent, found) = tokio::join!(server.write_all(&long), read(&mut stream, long.len()));
        sent.unwrap();
        assert_eq!(found, long);
        for byte in 0..3 {
            server.write_all(&[byte]).await.unwrap();
            assert_eq!(read(&mut stream, 1).await, [byte]);
        }
    }

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn the_mark_is_only_up_within_a_long_answer() {
        let (mut stream, mut server) = pair().await;
        server.write_all(&[1; 1000]).await.unwrap();
        read(&mut stream, 1000).await;
        assert!(!stream.raised);
        let long = vec![7; LONG + 1];
        let (sent, _) = tokio::join!(server.write_all(&long), read(&mut stream, long.len()));
        sent.unwrap();
        assert!(stream.raised);
        stream.write_all(b"next").await.unwrap();
        assert!(!stream.raised);
    }
}
