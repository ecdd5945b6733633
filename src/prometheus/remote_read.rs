//! Remote read: one request with one or more queries, answered as a stream of frames.
//!
//! - [`frames`] assembles and checks frames; [`wire`] parses their payload in place; both are pure.
//! - [`gate`] keeps the number of remote reads within what Prometheus allows.
//! - [`samples`] reads the responses of servers that cannot stream.
//!
//! **Guarantees.** Nothing is read before it is polled for, so that a slow reader slows Prometheus. A response is
//! complete or an error: truncated, a wrong checksum, a text in place of a frame. Dropping it closes its connection at
//! once. A response that makes no progress for the caller's limit fails. Nothing is kept beyond
//! a frame and the last piece.

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
use tracing::{Instrument as _, Span, info_span};

use super::{Client, error::ErrorKind, response_body::ResponseBody, transport::PostResponse};
use crate::spans;
use frames::{FrameError, FrameReader};
use samples::Sampled;
use wire::{Frame, WireError};

/// How long a response is polled once more when nobody has polled it for long.
const SECOND_LOOK: Duration = Duration::from_secs(1);
/// How much of an error answer is read, in bytes.
const ERROR_BODY: usize = 4 << 10;
/// With these statuses a proxy may have given up a Prometheus that is still at work.
const GAVE_UP: [u16; 2] = [408, 504];
/// How much of a Content-Type is shown, in characters.
const SHOWN_CHARS: usize = 200;

/// So many frames without series may follow one another: Prometheus sends none, and an answer of nothing else would never end.
const EMPTY_MAX: u32 = 100;

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
    /// Whether Prometheus does nothing for the request any more: it never got it, or the response is complete.
    pub is_over: bool,
}

/// As [`ReadError`], without the address.
struct Failure {
    kind: ReadErrorKind,
    is_over: bool,
}

impl From<ErrorKind> for Failure {
    fn from(kind: ErrorKind) -> Self {
        let is_over = kind.ends_request();
        let kind = kind.into();
        Self { kind, is_over }
    }
}

/// Prometheus may still be at work.
impl From<ReadErrorKind> for Failure {
    fn from(kind: ReadErrorKind) -> Self {
        let is_over = false;
        Self { kind, is_over }
    }
}

impl Failure {
    /// The response is complete, or the request was not sent.
    fn over(kind: ReadErrorKind) -> Self {
        let is_over = true;
        Self { kind, is_over }
    }
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
    /// A response whose end cannot be told from a broken connection.
    #[error(
        "the response has neither Content-Length nor chunked encoding, so that a truncated one could not be told from \
         a complete one; check the proxy between narthex and Prometheus"
    )]
    Endless,
    /// The frames are not whole.
    #[error("{0}; the answer cannot be trusted")]
    Frame(#[from] FrameError),
    /// A frame holds something else.
    #[error("{0}: check that --prometheus.url leads to Prometheus")]
    Wire(#[from] WireError),
    /// Many frames without series, one after the other.
    #[error(
        "{EMPTY_MAX} frames without series came one after the other, which Prometheus does not send: check that \
         --prometheus.url leads to Prometheus"
    )]
    OnlyEmptyFrames,
    /// A sampled answer for which there is no memory.
    #[error("no memory now for a sampled answer of {0} bytes or more: select less, or a shorter time")]
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
    /// decompressed. With a `stall`, Prometheus may send nothing for so long before the head of the response and within it;
    /// without one the caller has a deadline.
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
            let body = compress(request).map_err(Failure::over)?;
            let asked = self.post(PATH, headers(), body);
            let PostResponse { status, headers, body } = match stall {
                Some(stall) => {
                    let answered = tokio::time::timeout(stall, asked).await;
                    answered.unwrap_or(Err(ErrorKind::Timeout(stall)))?
                }
                None => asked.await?,
            };
            let mut pieces = Pieces::new(body, stall);
            // Other codes of success stand for a part, or for nothing.
            if status != StatusCode::OK {
                let (kind, is_over) = refusal(status.as_u16(), pieces).await;
                let kind = self.explain(kind).into();
                return Err(Failure { kind, is_over });
            }
            let content_type = headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes).unwrap_or_default();
            let content_type = String::from_utf8_lossy(content_type);
            if content_type.starts_with(SAMPLED) {
                return Ok(Err(samples(&mut pieces, reserve).await?));
            }
            if !content_type.starts_with(STREAMED) {
                let shown = content_type.chars().take(SHOWN_CHARS).collect();
                return Err(ReadErrorKind::ContentType(shown).into());
            }
            match headers.contains_key(CONTENT_LENGTH) || headers.contains_key(TRANSFER_ENCODING) {
                true => Ok(Ok(pieces)),
                false => Err(ReadErrorKind::Endless.into()),
            }
        };
        let span = info_span!(
            target: spans::TARGET, "query_prometheus", otel.kind = "client", http.request.method = "POST",
            url.path = PATH
        );
        match asked.instrument(span.clone()).await {
            Ok(Ok(pieces)) => Ok(Answer::Frames(Box::new(Frames {
                pieces,
                reader: FrameReader::default(),
                empty: 0,
                url,
                span,
            }))),
            Ok(Err(samples)) => Ok(Answer::Samples(samples)),
            Err(Failure { kind, is_over }) => {
                let error = ReadError { url, kind, is_over };
                spans::fail(&span, &error);
                Err(error)
            }
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
    // Misspelt by every client; Prometheus ignores it.
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-stream-protobuf"));
    headers.insert("x-prometheus-remote-read-version", HeaderValue::from_static("0.1.0"));
    headers
}

/// The kind of an error answer, and whether Prometheus does nothing for the request any more.
async fn refusal(code: u16, mut pieces: Pieces) -> (ErrorKind, bool) {
    let mut body = Vec::new();
    let is_complete = loop {
        match pieces.next().await {
            Some(Ok(piece)) => {
                let left = ERROR_BODY - body.len();
                body.extend_from_slice(&piece[..piece.len().min(left)]);
                if body.len() == ERROR_BODY {
                    break false;
                }
            }
            Some(Err(_)) => break false,
            None => break true,
        }
    };
    (ErrorKind::status(code, &body), is_complete && !GAVE_UP.contains(&code))
}

async fn samples(pieces: &mut Pieces, reserve: &mut (dyn FnMut(usize) -> bool + Send)) -> Result<Sampled, Failure> {
    let mut compressed = Vec::new();
    while let Some(piece) = pieces.next().await {
        let piece = piece?;
        if !reserve(piece.len()) {
            return Err(ReadErrorKind::NoMemory(compressed.len() + piece.len()).into());
        }
        compressed.extend_from_slice(&piece);
    }
    let length = snap::raw::decompress_len(&compressed);
    let length = length.map_err(|error| Failure::over(ReadErrorKind::Samples(format!("snappy: {error}"))))?;
    match reserve(length) {
        true => Ok(Sampled { compressed }),
        false => Err(Failure::over(ReadErrorKind::NoMemory(length))),
    }
}

/// The frames of an answer, as they come.
#[derive(Debug)]
pub struct Frames {
    pieces: Pieces,
    reader: FrameReader,
    /// Frames without series since the last one with any.
    empty: u32,
    url: String,
    /// Lasts until the response is read.
    span: Span,
}

impl Frames {
    /// The next frame; `None` at the end of a whole answer. After an error there is nothing more.
    pub fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame, ReadError>>> {
        let frame = ready!(self.poll_next(cx)).transpose();
        Poll::Ready(frame.map(|frame| {
            frame.map_err(|kind| {
                let error = ReadError {
                    url: self.url.clone(),
                    kind,
                    is_over: false,
                };
                spans::fail(&self.span, &error);
                error
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
                let frame = wire::parse(&payload)?;
                self.empty = if frame.series.is_empty() { self.empty + 1 } else { 0 };
                return Poll::Ready(match self.empty < EMPTY_MAX {
                    true => Ok(Some(frame)),
                    false => Err(ReadErrorKind::OnlyEmptyFrames),
                });
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
    /// Since when nothing arrives.
    since: Option<Instant>,
    /// Made with the first wait, and set anew only when it fires: most waits are short.
    timer: Option<Pin<Box<Sleep>>>,
}

impl Pieces {
    fn new(body: ResponseBody, stall: Option<Duration>) -> Self {
        Self {
            body,
            stall,
            since: None,
            timer: None,
        }
    }

    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, ErrorKind>>> {
        match self.body.poll_piece(cx) {
            Poll::Ready(piece) => {
                self.since = None;
                Poll::Ready(piece)
            }
            Poll::Pending => self.poll_stall(cx),
        }
    }

    /// Fails once nothing has arrived for the limit.
    fn poll_stall(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, ErrorKind>>> {
        let Some(stall) = self.stall else {
            return Poll::Pending;
        };
        let end = *self.since.get_or_insert_with(Instant::now) + stall;
        let timer = self
            .timer
            .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(end)));
        while timer.as_mut().poll(cx).is_ready() {
            let fired = timer.deadline();
            let next = match fired < end {
                // It was set for an earlier wait.
                true => end,
                // Nobody waited if nobody polled when the time was up, and what has arrived meanwhile may just need a poll.
                false if fired.elapsed() >= SECOND_LOOK => Instant::now() + SECOND_LOOK,
                false => return Poll::Ready(Some(Err(ErrorKind::Timeout(stall)))),
            };
            timer.as_mut().reset(next);
        }
        Poll::Pending
    }

    async fn next(&mut self) -> Option<Result<Bytes, ErrorKind>> {
        std::future::poll_fn(|cx| self.poll_piece(cx)).await
    }
}

/// How long Prometheus may send nothing in tests.
#[cfg(test)]
const STALL: Duration = Duration::from_secs(120);

#[cfg(test)]
impl Frames {
    /// The frames of a body that comes in these pieces.
    pub(crate) fn of(pieces: impl Stream<Item = Result<Bytes, ErrorKind>> + Send + 'static) -> Self {
        Self {
            pieces: Pieces::new(ResponseBody::proxied(Box::pin(pieces), None), Some(STALL)),
            reader: FrameReader::default(),
            empty: 0,
            url: "http://prometheus/api/v1/read".to_owned(),
            span: Span::none(),
        }
    }
}

#[cfg(test)]
mod tests;
