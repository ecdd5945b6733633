//! A range of an open file as a request body, and its checksum.
//!
//! The file is read by position from the descriptor that the caller holds: it may be unlinked meanwhile, ranges of it
//! can travel side by side, and a retry reads it again. A file that is shorter than it was, or cannot be read, fails
//! the request with the reason kept for [`Failure`]; it is never padded. Memory: a few buffers per request, reused.

use std::{
    fmt, io,
    os::unix::fs::FileExt,
    pin::Pin,
    sync::{Arc, Mutex, OnceLock},
    task::{Context, Poll},
};

use aws_sdk_s3::primitives::{ByteStream, SdkBody};
use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use md5::{Digest, Md5};

use crate::objstore::Source;

/// How much is read from the file and handed to the transport at once. 64 KiB to 1 MiB cost the same CPU; this keeps
/// what a slow connection holds in memory small.
pub(in crate::objstore) const BUFFER: usize = 128 * 1024;

/// How many idle buffers are kept for the next request.
const IDLE_BUFFERS: usize = 32;

/// How much is checksummed before looking whether anybody still wants the result.
const DIGEST_STEP: u64 = 8 << 20;

/// BufferPool that are used again, so that a transfer of any length allocates a few of them only.
#[derive(Clone, Default)]
pub(in crate::objstore) struct BufferPool(Arc<Mutex<Vec<Vec<u8>>>>);

impl fmt::Debug for BufferPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BufferPool")
    }
}

impl BufferPool {
    fn acquire(&self) -> PooledBuffer {
        let idle = self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).pop();
        PooledBuffer {
            buffer: idle.unwrap_or_else(|| vec![0; BUFFER]),
            filled: 0,
            pool: self.clone(),
        }
    }
}

/// A buffer in use; it returns to the pool when the last holder lets go of it.
struct PooledBuffer {
    buffer: Vec<u8>,
    filled: usize,
    pool: BufferPool,
}

impl AsRef<[u8]> for PooledBuffer {
    fn as_ref(&self) -> &[u8] {
        &self.buffer[..self.filled]
    }
}

impl Drop for PooledBuffer {
    fn drop(&mut self) {
        let mut idle = self.pool.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if idle.len() < IDLE_BUFFERS {
            idle.push(std::mem::take(&mut self.buffer));
        }
    }
}

/// Why the local file could not be read, told to whoever started the request: the transport swallows it.
#[derive(Clone, Debug, Default)]
pub(in crate::objstore) struct Failure(Arc<OnceLock<String>>);

impl Failure {
    pub(in crate::objstore) fn get(&self) -> Option<&str> {
        self.0.get().map(String::as_str)
    }
}

/// A range of an open file.
#[derive(Clone, Debug)]
pub(in crate::objstore) struct Slice {
    pub(in crate::objstore) source: Source,
    pub(in crate::objstore) offset: u64,
    pub(in crate::objstore) len: u64,
}

impl Slice {
    /// The whole file.
    pub(in crate::objstore) fn whole(source: &Source) -> Self {
        Self {
            source: source.clone(),
            offset: 0,
            len: source.len,
        }
    }

    /// A body that can be sent more than once, and where its reading errors will be told.
    pub(in crate::objstore) fn body(&self, buffers: &BufferPool) -> (ByteStream, Failure) {
        let failure = Failure::default();
        let (slice, buffers, told) = (self.clone(), buffers.clone(), failure.clone());
        let body = SdkBody::retryable(move || {
            SdkBody::from_body_1_x(FileBody {
                slice: slice.clone(),
                sent: 0,
                buffers: buffers.clone(),
                failure: told.clone(),
            })
        });
        (ByteStream::new(body), failure)
    }

    /// Fills `buffer` from `at` bytes into the slice, or says why not.
    fn read(&self, buffer: &mut [u8], at: u64) -> Result<(), String> {
        let path = self.source.path.display();
        self.source
            .file
            .read_exact_at(buffer, self.source.start + self.offset + at)
            .map_err(|error| match error.kind() {
                io::ErrorKind::UnexpectedEof => format!(
                    "{path} is shorter than the {} bytes it had when it was opened; was it truncated?",
                    self.source.len
                ),
                _ => format!("reading {path} failed: {error}"),
            })
    }

    /// Where the bytes from `at` on differ first from `other`, counted in the slice. Blocks.
    pub(in crate::objstore) fn first_difference(
        &self,
        mut at: u64,
        other: &[u8],
        buffers: &BufferPool,
    ) -> Result<Option<u64>, String> {
        let mut pooled = buffers.acquire();
        for other in other.chunks(BUFFER) {
            let ours = &mut pooled.buffer[..other.len()];
            self.read(ours, at)?;
            if ours != other {
                let further = ours.iter().zip(other).take_while(|(ours, other)| ours == other).count();
                return Ok(Some(at + further as u64));
            }
            at += other.len() as u64;
        }
        Ok(None)
    }

    /// Reads the slice once into a sum. Blocks no async thread; when dropped it stops after a few MiB.
    pub(in crate::objstore) async fn digest<S: Sum>(&self, mut sum: S, buffers: &BufferPool) -> Result<S, String> {
        let mut at = 0;
        while at < self.len {
            let end = self.len.min(at + DIGEST_STEP);
            let (slice, buffers) = (self.clone(), buffers.clone());
            let step = tokio::task::spawn_blocking(move || slice.digest_step(sum, at, end, &buffers)).await;
            sum = step.map_err(|error| format!("computing the checksum was cut short: {error}"))??;
            at = end;
        }
        Ok(sum)
    }

    fn digest_step<S: Sum>(&self, mut sum: S, mut at: u64, end: u64, buffers: &BufferPool) -> Result<S, String> {
        let mut pooled = buffers.acquire();
        while at < end {
            let take = usize::try_from(end - at).map_or(BUFFER, |left| left.min(BUFFER));
            self.read(&mut pooled.buffer[..take], at)?;
            sum.update(&pooled.buffer[..take]);
            at += take as u64;
        }
        Ok(sum)
    }
}

/// The body itself: one positioned read per buffer that the transport asks for.
struct FileBody {
    slice: Slice,
    sent: u64,
    buffers: BufferPool,
    failure: Failure,
}

impl Body for FileBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        let this = self.get_mut();
        let left = this.slice.len - this.sent;
        if left == 0 {
            return Poll::Ready(None);
        }
        let mut pooled = this.buffers.acquire();
        let take = usize::try_from(left).map_or(BUFFER, |left| left.min(BUFFER));
        if let Err(reason) = this.slice.read(&mut pooled.buffer[..take], this.sent) {
            let _ = this.failure.0.set(reason.clone());
            return Poll::Ready(Some(Err(io::Error::other(reason))));
        }
        pooled.filled = take;
        this.sent += take as u64;
        this.slice.source.read.add(take);
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_owner(pooled)))))
    }

    fn is_end_stream(&self) -> bool {
        self.sent == self.slice.len
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.slice.len - self.sent)
    }
}

/// What is computed of bytes in their order.
pub(in crate::objstore) trait Sum: Send + 'static {
    fn update(&mut self, data: &[u8]);
}

/// A checksum in the making.
#[derive(Clone)]
pub(in crate::objstore) enum Hasher {
    Crc32c(u32),
    Md5(Md5),
}

impl Hasher {
    pub(in crate::objstore) fn crc32c() -> Self {
        Hasher::Crc32c(0)
    }

    pub(in crate::objstore) fn md5() -> Self {
        Hasher::Md5(Md5::new())
    }

    pub(in crate::objstore) fn finish(self) -> Checksum {
        match self {
            Hasher::Crc32c(crc) => Checksum::Crc32c(crc),
            Hasher::Md5(md5) => Checksum::Md5(STANDARD.encode(md5.finalize())),
        }
    }
}

impl Sum for Hasher {
    fn update(&mut self, data: &[u8]) {
        match self {
            Hasher::Crc32c(crc) => *crc = crc32c::crc32c_append(*crc, data),
            Hasher::Md5(md5) => md5.update(data),
        }
    }
}

/// What a request carries as proof of its body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::objstore) enum Checksum {
    Crc32c(u32),
    /// In base64, as `Content-MD5` wants it.
    Md5(String),
}

impl Checksum {
    /// The value of `x-amz-checksum-crc32c`, if it is one.
    pub(in crate::objstore) fn crc32c(&self) -> Option<String> {
        match self {
            Checksum::Crc32c(crc) => Some(STANDARD.encode(crc.to_be_bytes())),
            Checksum::Md5(_) => None,
        }
    }

    /// The value of `Content-MD5`, if it is one.
    pub(in crate::objstore) fn md5(&self) -> Option<String> {
        match self {
            Checksum::Crc32c(_) => None,
            Checksum::Md5(md5) => Some(md5.clone()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use http_body_util::BodyExt;

    use super::*;

    fn source(content: &[u8]) -> Source {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(content).unwrap();
        let path = file.path().to_owned();
        let file = Arc::new(fs_err::File::open(&path).unwrap().into_parts().0);
        Source::new(file, path, content.len() as u64)
    }

    fn content(len: usize) -> Vec<u8> {
        (0..len).map(|i| (i * 31 % 251) as u8).collect()
    }

    #[tokio::test]
    async fn sends_exactly_the_slice_of_an_unlinked_file_and_can_do_so_again() {
        let content = content(BUFFER * 2 + 77);
        let slice = Slice {
            source: source(&content),
            offset: 5,
            len: (BUFFER + 70) as u64,
        };
        let buffers = BufferPool::default();
        let (body, failure) = slice.body(&buffers);
        let body = body.into_inner();
        assert_eq!(body.content_length(), Some(slice.len));
        let again = body.try_clone().unwrap();
        for body in [body, again] {
            assert_eq!(body.collect().await.unwrap().to_bytes(), &content[5..5 + BUFFER + 70]);
        }
        assert!(failure.get().is_none());
        assert!(
            buffers.0.lock().unwrap().len() <= 4,
            "buffers return to the pool and are used again"
        );
    }

    #[tokio::test]
    async fn a_file_that_became_shorter_is_an_error_and_is_not_padded() {
        let mut source = source(b"short");
        source.len = 10;
        let slice = Slice::whole(&source);
        let (body, failure) = slice.body(&BufferPool::default());
        assert!(body.into_inner().collect().await.is_err());
        assert!(
            failure.get().unwrap().contains("shorter than the 10 bytes"),
            "{failure:?}"
        );
        assert!(
            slice
                .digest(Hasher::crc32c(), &BufferPool::default())
                .await
                .err()
                .unwrap()
                .contains("shorter")
        );
    }

    #[tokio::test]
    async fn checksums_are_those_of_the_slice() {
        let content = content((DIGEST_STEP + 12_345) as usize);
        let slice = Slice::whole(&source(&content));
        let buffers = BufferPool::default();
        let crc = slice.digest(Hasher::crc32c(), &buffers).await.unwrap().finish();
        assert_eq!(crc, Checksum::Crc32c(crc32c::crc32c(&content)));
        let md5 = slice.digest(Hasher::md5(), &buffers).await.unwrap().finish();
        assert_eq!(md5, Checksum::Md5(STANDARD.encode(Md5::digest(&content))));
        let nothing = Slice { len: 0, ..slice };
        assert_eq!(
            nothing
                .digest(Hasher::crc32c(), &buffers)
                .await
                .unwrap()
                .finish()
                .crc32c()
                .unwrap(),
            "AAAAAA=="
        );
        assert_eq!(
            nothing
                .digest(Hasher::md5(), &buffers)
                .await
                .unwrap()
                .finish()
                .md5()
                .unwrap(),
            "1B2M2Y8AsgTpgAmY7PhCfg=="
        );
    }
}
