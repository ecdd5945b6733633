//! Reading an object of any size, as a stream: what breaks off is asked for again from where it broke off, on the condition
//! that the object is still the one whose reading began.

use std::{sync::Arc, time::Duration};

use aws_sdk_s3::primitives::SdkBody;
use bytes::{Bytes, BytesMut};
use futures_util::{StreamExt as _, stream};
use http::{Method, header};
use http_body_util::BodyExt as _;
use tokio::sync::OwnedSemaphorePermit;

use super::{Answer, Call, Dialect, Failed, Rest, Tries, broken_off};
use crate::objstore::{
    Error, ErrorKind, Op, Reading, rate_limit,
    transfer::{range, words::chain},
};

/// The head of an answer that brings bytes up to the object's end.
struct Asked {
    answer: Answer,
    /// The size of the object.
    size: u64,
    tag: Option<String>,
}

/// One object on its way here.
struct Stream<D> {
    rest: Arc<Rest<D>>,
    key: String,
    /// Where the next byte to arrive is in the object.
    at: u64,
    size: u64,
    tag: Option<String>,
    /// What the current answer still has to bring.
    body: Option<SdkBody>,
    tries: Tries,
    /// What has arrived and was not handed out.
    held: Bytes,
    /// How long the rate limit wants to wait before more is handed out.
    pause: Duration,
    _permit: OwnedSemaphorePermit,
}

impl<D: Dialect> Rest<D> {
    /// Reads an object from `offset` on. `size` is waited for where there is nothing from there on: right at the end that is no
    /// error.
    pub(in crate::objstore) async fn read(
        self: &Arc<Self>,
        key: &str,
        offset: u64,
        size: impl Future<Output = Result<Option<u64>, Error>> + Send,
    ) -> Result<Reading, Error> {
        let permit = Arc::clone(&self.readings).acquire_owned().await;
        let permit = permit.expect("the semaphore is never closed");
        let mut tries = self.tries();
        let asked = loop {
            match self.ask(key, offset, None).await {
                Ok(asked) => break asked,
                Err(failed) => {
                    let error = self.error(Op::Get, key, failed.kind, failed.detail);
                    tries.wait_for_another(error).await?;
                }
            }
        };
        let Some(asked) = asked else {
            return range::nothing_left(offset, size.await?)
                .map_err(|problem| self.error(Op::Get, key, ErrorKind::Refused, problem));
        };
        let stream = Stream {
            rest: Arc::clone(self),
            key: key.to_owned(),
            at: offset,
            size: asked.size,
            tag: asked.tag,
            body: Some(asked.answer.body),
            tries,
            held: Bytes::new(),
            pause: Duration::ZERO,
            _permit: permit,
        };
        Ok(Reading {
            len: asked.size - offset,
            pieces: stream::try_unfold(stream, Stream::next).boxed(),
        })
    }

    /// Reads a small object; more than `limit` bytes are [`ErrorKind::TooLarge`].
    pub(in crate::objstore) async fn read_whole(&self, key: &str, limit: u64) -> Result<Bytes, Error> {
        let call = self.reading(key, 0, None)?;
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let (answer, body) = self.call_whole(key, &call, limit).await?;
        match answer
            .header("content-length")
            .and_then(|length| length.parse::<u64>().ok())
        {
            Some(length) if length != body.len() as u64 => {
                let detail = format!("{length} bytes were announced, and {} came", body.len());
                Err(self.error(Op::Get, key, ErrorKind::Network, detail))
            }
            _ => {
                self.rate_limit.receive(body.len());
                Ok(body)
            }
        }
    }

    /// Reads the first `len` bytes of an object, or all of one that is shorter, in one request.
    pub(in crate::objstore) async fn read_start(&self, key: &str, len: u64) -> Result<Bytes, Error> {
        if len == 0 {
            return Ok(Bytes::new());
        }
        let mut call = self.reading(key, 0, None)?;
        call.headers.push((header::RANGE, format!("bytes=0-{}", len - 1)));
        let wanted = usize::try_from(len).unwrap_or(usize::MAX);
        let mut tries = self.tries();
        loop {
            let failed = match self.send(&call).await {
                Ok(mut answer) => match start(&mut answer.body, wanted).await {
                    Ok(bytes) => {
                        self.rate_limit.receive(bytes.len());
                        return Ok(bytes);
                    }
                    Err(failed) => failed,
                },
                Err(failed) => failed,
            };
            let error = self.error(Op::Get, key, failed.kind, failed.detail);
            tries.wait_for_another(error).await?;
        }
    }

    fn reading(&self, key: &str, at: u64, tag: Option<&str>) -> Result<Call, Error> {
        let object = self.dialect.object(&self.full(key), tag);
        let (uri, mut headers) = object.map_err(|problem| self.error(Op::Get, key, ErrorKind::Refused, problem))?;
        if at > 0 {
            headers.push((header::RANGE, format!("bytes={at}-")));
        }
        Ok(Call {
            op: Op::Get,
            method: Method::GET,
            uri,
            headers,
            content: None,
            expected: match (tag.is_some(), at > 0) {
                (false, false) => &[],
                (false, true) => &[416],
                (true, _) => &[412, 416],
            },
        })
    }

    /// Asks for an object from `at` on, as long as it is the one with this tag; `None` if it ends before.
    async fn ask(&self, key: &str, at: u64, tag: Option<&str>) -> Result<Option<Asked>, Failed> {
        let call = self
            .reading(key, at, tag)
            .map_err(|error| Failed::new(error.kind, error.detail))?;
        let answer = self.send(&call).await?;
        match answer.status {
            416 => return Ok(None),
            // As some stores say it.
            206 if at > 0 && answer.header("content-length") == Some("0") => return Ok(None),
            412 => return Err(replaced()),
            _ => {}
        }
        let now = self.dialect.tag(&answer.headers);
        if tag.is_some() && now.as_deref() != tag {
            return Err(replaced());
        }
        let length = answer.header("content-length").and_then(|length| length.parse().ok());
        let size = range::size(at, length, answer.header("content-range"));
        let size = size.map_err(|reason| Failed::new(ErrorKind::Refused, reason))?;
        Ok(Some(Asked { answer, size, tag: now }))
    }
}

/// The first bytes of a body, however long it is.
async fn start(body: &mut SdkBody, wanted: usize) -> Result<Bytes, Failed> {
    let mut bytes = BytesMut::new();
    while bytes.len() < wanted
        && let Some(frame) = body.frame().await
    {
        if let Ok(data) = frame.map_err(|error| broken_off(&*error))?.into_data() {
            bytes.extend_from_slice(&data);
        }
    }
    bytes.truncate(wanted);
    Ok(bytes.freeze())
}

fn replaced() -> Failed {
    Failed::new(ErrorKind::Integrity, range::REPLACED)
}

impl<D: Dialect> Stream<D> {
    /// The next piece, and the rest.
    async fn next(mut self) -> Result<Option<(Bytes, Self)>, Error> {
        if self.held.is_empty() && self.at == self.size {
            return Ok(None);
        }
        rate_limit::wait(self.pause).await;
        while self.held.is_empty() {
            let Some(body) = &mut self.body else {
                self.ask_again().await?;
                continue;
            };
            let failed = match body.frame().await {
                Some(Ok(frame)) => {
                    let Ok(piece) = frame.into_data() else { continue };
                    if piece.len() as u64 > self.size - self.at {
                        let detail = format!("the answer has more than the {} bytes that were announced", self.size);
                        return Err(self.rest.error(Op::Get, &self.key, ErrorKind::Refused, detail));
                    }
                    if !piece.is_empty() {
                        self.tries.renew();
                    }
                    self.at += piece.len() as u64;
                    self.held = piece;
                    continue;
                }
                Some(Err(error)) => self.broken(broken_off(&*error).kind, &chain(&*error)),
                None => self.broken(ErrorKind::Network, "it ended early"),
            };
            self.try_later(failed).await?;
        }
        let step = self.held.len().min(self.rest.rate_limit.step());
        self.pause = self.rest.rate_limit.receive(step);
        Ok(Some((self.held.split_to(step), self)))
    }

    fn broken(&self, kind: ErrorKind, why: &str) -> Failed {
        let detail = format!("the answer broke off after {} of {} bytes: {why}", self.at, self.size);
        Failed::new(kind, detail)
    }

    /// Waits before the next try, or gives up: after too many, or where nothing tells one object from another.
    async fn try_later(&mut self, failed: Failed) -> Result<(), Error> {
        self.body = None;
        let error = self.rest.error(Op::Get, &self.key, failed.kind, failed.detail);
        match self.tag {
            Some(_) => self.tries.wait_for_another(error).await,
            None => Err(error),
        }
    }

    async fn ask_again(&mut self) -> Result<(), Error> {
        let failed = match self.rest.ask(&self.key, self.at, self.tag.as_deref()).await {
            Ok(Some(asked)) if asked.size == self.size => {
                self.body = Some(asked.answer.body);
                return Ok(());
            }
            Ok(_) => replaced(),
            Err(failed) => failed,
        };
        // That it is another object is no reason to ask once more.
        match failed.kind {
            ErrorKind::Integrity => Err(self.rest.error(Op::Get, &self.key, failed.kind, failed.detail)),
            _ => self.try_later(failed).await,
        }
    }
}
