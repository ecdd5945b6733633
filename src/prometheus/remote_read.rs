//! Remote read: one question of several queries, answered as a stream of frames that is read as it comes.
//!
//! - [`frames`] puts frames together and checks them; [`wire`] reads what is in them where it lies; both are pure.
//! - [`gate`] keeps the calls within what Prometheus allows.
//! - [`samples`] reads the answers of servers that cannot stream.
//!
//! **Guarantees.** Nothing is read before it is asked for, so that a slow reader slows Prometheus. An answer is whole or
//! an error: a cut, a wrong checksum, a text in place of a frame. Whoever drops an answer closes its connection at once.
//! An answer that makes no progress for as long as the caller says, or twice that at most, fails. Nothing is kept beyond a frame and what was read at once.

pub mod frames;
pub mod gate;
pub mod samples;
pub mod wire;

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
#[cfg(test)]
use futures_util::Stream;
use http::{
    HeaderMap, HeaderValue, StatusCode,
    header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, TRANSFER_ENCODING},
};
use tokio::time::{Instant, Sleep};

use super::{Client, error::ErrorKind, response_body::ResponseBody, transport::Posted};
use frames::{FrameError, FrameReader};
use samples::Sampled;
use wire::{Frame, WireError};

/// How long an answer is looked at once more when nobody has looked at it for long.
const SECOND_LOOK: Duration = Duration::from_secs(1);
/// How much of an error answer is read, in bytes.
const ERROR_BODY: usize = 4 << 10;
/// How much of a Content-Type is shown, in characters.
const SHOWN_CHARS: usize = 200;

const PATH: &str = "/api/v1/read";
const STREAMED: &str = "application/x-streamed-protobuf; proto=prometheus.ChunkedReadResponse";
const SAMPLED: &str = "application/x-protobuf";

/// A remote read that failed.
#[derive(Debug, thiserror::Error)]
#[error("POST {url}: {kind}")]
pub struct ReadError {
    /// The address, without credentials.
    pub url: String,
    /// What went wrong.
    pub kind: ReadErrorKind,
}

/// What went wrong in a remote read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadErrorKind {
    /// The request failed as any other can.
    #[error(transparent)]
    Http(#[from] ErrorKind),
    /// An answer that is neither frames nor samples.
    #[error("not supported remote read content type: {0:?}; check that --prometheus.url leads to Prometheus")]
    ContentType(String),
    /// An answer whose end looks like a connection that broke.
    #[error(
        "the answer tells neither its length nor its end (no Content-Length, not chunked), so that it may be cut short \
         unnoticed; check what is between narthex and Prometheus"
    )]
    Endless,
    /// The frames are not whole.
    #[error("{0}; nothing of the answer can be trusted")]
    Frame(#[from] FrameError),
    /// A frame holds something else.
    #[error("{0}: check that --prometheus.url leads to Prometheus")]
    Wire(#[from] WireError),
    /// A sampled answer for which there is no memory.
    #[error(
        "the sampled answer has {0} bytes or more, for which there is no memory now: select less, or a shorter time"
    )]
    NoMemory(usize),
    /// A sampled answer that cannot be read.
    #[error("the sampled answer cannot be read: {0}")]
    Samples(String),
}

/// An answer whose head has come.
#[derive(Debug)]
pub enum Answer {
    /// Chunks, frame by frame.
    Frames(Box<Frames>),
    /// Samples, all at once: from servers that cannot stream.
    Samples(Sampled),
}

impl Client {
    /// Sends `request`, an encoded `ReadRequest`, and waits for the head of the answer, or for all of it if it is sampled.
    /// Memory for a sampled answer is asked of `reserve`, in bytes: for what comes, and for what it becomes when it is
    /// decompressed. With a `stall`, Prometheus may say nothing for so long before the head of the answer and within it;
    /// without one whoever waits has a deadline.
    ///
    /// # Errors
    /// No connection, an answer other than 200, one of another type; see [`ReadErrorKind`].
    pub async fn remote_read(
        &self,
        request: &[u8],
        stall: Option<Duration>,
        reserve: &mut (dyn FnMut(usize) -> bool + Send),
    ) -> Result<Answer, ReadError> {
        let url = self.shown(PATH);
        let asked = async {
            let body = compress(request)?;
            let asked = self.post(PATH, headers(), body);
            let Posted { status, headers, body } = match stall {
                Some(stall) => {
                    let answered = tokio::time::timeout(stall, asked).await;
                    answered.unwrap_or(Err(ErrorKind::Timeout(stall)))?
                }
                None => asked.await?,
            };
            let mut pieces = Pieces::new(body, stall);
            // Others that tell of success tell of a part, or of nothing.
            if status != StatusCode::OK {
                return Err(refusal(status.as_u16(), pieces).await.into());
            }
            let content_type = headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes).unwrap_or_default();
            let content_type = String::from_utf8_lossy(content_type);
            if content_type.starts_with(SAMPLED) {
                return Ok(Err(samples(&mut pieces, reserve).await?));
            }
            if !content_type.starts_with(STREAMED) {
                return Err(ReadErrorKind::ContentType(
                    content_type.chars().take(SHOWN_CHARS).collect(),
                ));
            }
            match headers.contains_key(CONTENT_LENGTH) || headers.contains_key(TRANSFER_ENCODING) {
                true => Ok(Ok(pieces)),
                false => Err(ReadErrorKind::Endless),
            }
        };
        match asked.await {
            Ok(Ok(pieces)) => Ok(Answer::Frames(Box::new(Frames {
                pieces,
                reader: FrameReader::default(),
                url,
            }))),
            Ok(Err(samples)) => Ok(Answer::Samples(samples)),
            Err(kind) => Err(ReadError { url, kind }),
        }
    }
}

fn compress(request: &[u8]) -> Result<Bytes, ReadErrorKind> {
    let compressed = snap::raw::Encoder::new().compress_vec(request);
    // Only a request of 4 GiB could not be.
    compressed
        .map(Bytes::from)
        .map_err(|error| ReadErrorKind::Samples(format!("the request cannot be compressed: {error}")))
}

fn headers() -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_ENCODING, HeaderValue::from_static("snappy"));
    // Misspelt by everybody; Prometheus does not look at it.
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-stream-protobuf"));
    headers.insert("x-prometheus-remote-read-version", HeaderValue::from_static("0.1.0"));
    headers
}

async fn refusal(code: u16, mut pieces: Pieces) -> ErrorKind {
    let mut body = Vec::new();
    while let Some(Ok(piece)) = pieces.next().await {
        let left = ERROR_BODY - body.len();
        body.extend_from_slice(&piece[..piece.len().min(left)]);
        if body.len() == ERROR_BODY {
            break;
        }
    }
    ErrorKind::status(code, &body)
}

async fn samples(
    pieces: &mut Pieces,
    reserve: &mut (dyn FnMut(usize) -> bool + Send),
) -> Result<Sampled, ReadErrorKind> {
    let mut compressed = Vec::new();
    while let Some(piece) = pieces.next().await {
        let piece = piece?;
        if !reserve(piece.len()) {
            return Err(ReadErrorKind::NoMemory(compressed.len() + piece.len()));
        }
        compressed.extend_from_slice(&piece);
    }
    let length = snap::raw::decompress_len(&compressed);
    let length = length.map_err(|error| ReadErrorKind::Samples(format!("snappy: {error}")))?;
    match reserve(length) {
        true => Ok(Sampled { compressed }),
        false => Err(ReadErrorKind::NoMemory(length)),
    }
}

/// The frames of an answer, as they come.
#[derive(Debug)]
pub struct Frames {
    pieces: Pieces,
    reader: FrameReader,
    url: String,
}

impl Frames {
    /// The next frame; `None` at the end of a whole answer. After an error there is nothing more.
    pub fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame, ReadError>>> {
        let frame = ready!(self.poll_next(cx)).transpose();
        Poll::Ready(frame.map(|frame| {
            frame.map_err(|kind| ReadError {
                url: self.url.clone(),
                kind,
            })
        }))
    }

    /// Bytes of a frame that has not come whole yet.
    pub fn torn_bytes(&self) -> usize {
        self.reader.torn_bytes()
    }

    /// How many frames have come.
    pub fn count(&self) -> u64 {
        self.reader.frames()
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Frame>, ReadErrorKind>> {
        loop {
            if let Some(payload) = self.reader.next()? {
                return Poll::Ready(Ok(Some(wire::parse(&payload)?)));
            }
            match ready!(self.pieces.poll_piece(cx)) {
                Some(piece) => self.reader.push(piece?),
                None => {
                    self.reader.finish()?;
                    return Poll::Ready(Ok(None));
                }
            }
        }
    }
}

/// A body that must go on.
#[derive(Debug)]
struct Pieces {
    body: ResponseBody,
    stall: Option<Duration>,
    /// Pieces so far.
    count: u64,
    /// Runs while nothing comes; with `count` of when it was wound up.
    timer: Option<(u64, Pin<Box<Sleep>>)>,
}

impl Pieces {
    fn new(body: ResponseBody, stall: Option<Duration>) -> Self {
        Self {
            body,
            stall,
            count: 0,
            timer: None,
        }
    }

    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, ErrorKind>>> {
        match self.body.poll_piece(cx) {
            Poll::Ready(piece) => {
                self.count += 1;
                Poll::Ready(piece)
            }
            Poll::Pending => self.poll_stall(cx),
        }
    }

    /// Fails once nothing came between two looks at the clock; wound up seldom, since most waits are short.
    fn poll_stall(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, ErrorKind>>> {
        let Some(stall) = self.stall else {
            return Poll::Pending;
        };
        let count = self.count;
        let (wound, timer) = self
            .timer
            .get_or_insert_with(|| (count, Box::pin(tokio::time::sleep(stall))));
        while timer.as_mut().poll(cx).is_ready() {
            // Whoever was not here when the time was up did not wait, and what has come meanwhile may just need a look.
            let waited = timer.deadline().elapsed() < SECOND_LOOK;
            if *wound == count && waited {
                return Poll::Ready(Some(Err(ErrorKind::Timeout(stall))));
            }
            let time = if *wound == count { SECOND_LOOK } else { stall };
            *wound = count;
            timer.as_mut().reset(Instant::now() + time);
        }
        Poll::Pending
    }

    async fn next(&mut self) -> Option<Result<Bytes, ErrorKind>> {
        std::future::poll_fn(|cx| self.poll_piece(cx)).await
    }
}

/// How long Prometheus may say nothing in tests.
#[cfg(test)]
const STALL: Duration = Duration::from_secs(120);

#[cfg(test)]
impl Frames {
    /// The frames of a body that comes in these pieces.
    pub(crate) fn of(pieces: impl Stream<Item = Result<Bytes, ErrorKind>> + Send + 'static) -> Self {
        Self {
            pieces: Pieces::new(ResponseBody::proxied(Box::pin(pieces), None), Some(STALL)),
            reader: FrameReader::default(),
            url: "http://prometheus/api/v1/read".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests;
