//! Reading an object of any size, as a stream.
//!
//! Guarantees: the pieces are those of one object, from the offset to the end, or the stream ends with an error. What
//! breaks off is asked for again from where it broke off, on the condition that the object is still the one whose
//! reading began (by its ETag); an answer that is not exactly the range that was asked for is refused. It is given up
//! when a few tries in a row bring no byte. Memory: what the transport reads at once, a few hundred KiB.
//!
//! On cancel: dropping the stream closes its connection. A stream holds one of the slots of the readings, not one of
//! those of the requests with a body: whoever reads one object while it sends another does not wait for itself. It does
//! hold a connection until it is read or dropped, which counts where the configuration limits them.

use std::{sync::Arc, time::Duration};

use aws_sdk_s3::primitives::ByteStream;
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use tokio::sync::OwnedSemaphorePermit;

use super::{
    Store, compare, errors,
    headers::Purpose,
    retries::{Failed, RetryBudget},
};
use crate::objstore::{Error, ErrorKind, Op, Reading, rate_limit, transfer::range};

/// An answer that brings bytes up to the object's end.
struct Answer {
    body: ByteStream,
    /// The size of the object.
    size: u64,
    e_tag: Option<String>,
}

/// One object on its way here.
struct Stream {
    store: Arc<Store>,
    key: String,
    /// Where the next byte to arrive is in the object.
    at: u64,
    size: u64,
    e_tag: Option<String>,
    /// What the current answer still has to bring.
    body: Option<ByteStream>,
    /// What is left of them until the next byte.
    budget: RetryBudget,
    /// What has arrived and was not handed out.
    held: Bytes,
    /// How long the rate limit wants to wait before more is handed out.
    pause: Duration,
    _permit: OwnedSemaphorePermit,
}

impl Store {
    /// Reads an object from `offset` on.
    pub(super) async fn stream(self: &Arc<Self>, key: &str, offset: u64) -> Result<Reading, Error> {
        let permit = Arc::clone(&self.readings).acquire_owned().await;
        let permit = permit.expect("the semaphore is never closed");
        let budget = self.retry_budget();
        let once = || async { Ok(self.ask(key, offset, None, &budget).await?) };
        let Some(answer) = budget.run(once).await? else {
            let size = compare::len(&self.head(key, None).await?);
            return range::nothing_left(offset, size)
                .map_err(|problem| self.error(Op::Get, key, ErrorKind::Refused, problem));
        };
        let stream = Stream {
            store: Arc::clone(self),
            key: key.to_owned(),
            at: offset,
            size: answer.size,
            e_tag: answer.e_tag,
            body: Some(answer.body),
            budget,
            held: Bytes::new(),
            pause: Duration::ZERO,
            _permit: permit,
        };
        Ok(Reading {
            len: answer.size - offset,
            pieces: stream::try_unfold(stream, Stream::next).boxed(),
        })
    }

    /// Asks for an object from `at` on, as long as it is the one with this ETag; `None` if it ends before.
    async fn ask(
        &self,
        key: &str,
        at: u64,
        e_tag: Option<&str>,
        budget: &RetryBudget,
    ) -> Result<Option<Answer>, Error> {
        let request = self
            .client
            .get_object()
            .bucket(&self.bucket)
            .key(self.full(key))
            .set_range((at > 0).then(|| format!("bytes={at}-")))
            .set_if_match(e_tag.map(str::to_owned));
        let request = self.within_budget(request.customize(), Purpose::Bytes, budget);
        let answer = match request.send().await {
            Ok(answer) => answer,
            Err(error) => {
                return match error.raw_response().map(|answer| answer.status().as_u16()) {
                    Some(416) if at > 0 => Ok(None),
                    Some(412) if e_tag.is_some() => Err(self.replaced(key)),
                    _ => Err(self.sdk_error(Op::Get, key, error)),
                };
            }
        };
        if e_tag.is_some() && answer.e_tag() != e_tag {
            return Err(self.replaced(key));
        }
        let length = answer.content_length().and_then(|length| u64::try_from(length).ok());
        let size = range::size(at, length, answer.content_range())
            .map_err(|reason| self.error(Op::Get, key, ErrorKind::Refused, reason))?;
        Ok(Some(Answer {
            body: answer.body,
            size,
            e_tag: answer.e_tag,
        }))
    }

    fn replaced(&self, key: &str) -> Error {
        self.error(Op::Get, key, ErrorKind::Integrity, range::REPLACED.to_owned())
    }
}

impl Stream {
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
            let broken = match body.next().await {
                Some(Ok(piece)) if piece.len() as u64 <= self.size - self.at => {
                    if !piece.is_empty() {
                        self.budget.renew();
                    }
                    self.at += piece.len() as u64;
                    self.held = piece;
                    continue;
                }
                Some(Ok(_)) => {
                    let detail = format!("the answer has more than the {} bytes that were announced", self.size);
                    return Err(self.store.error(Op::Get, &self.key, ErrorKind::Refused, detail));
                }
                Some(Err(error)) => self.broken(errors::broken_off(&error), &errors::chain(&error)),
                None => self.broken(ErrorKind::Network, "it ended early"),
            };
            self.try_later(broken).await?;
        }
        let rate_limit = &self.store.rate_limit;
        let step = self.held.len().min(rate_limit.step());
        self.pause = rate_limit.receive(step);
        Ok(Some((self.held.split_to(step), self)))
    }

    fn broken(&self, kind: ErrorKind, why: &str) -> Error {
        let detail = format!("the answer broke off after {} of {} bytes: {why}", self.at, self.size);
        self.store.error(Op::Get, &self.key, kind, detail)
    }

    /// Waits before the next try, or gives up: after too many, or where nothing tells one object from another.
    async fn try_later(&mut self, error: Error) -> Result<(), Error> {
        self.body = None;
        if self.e_tag.is_some() && self.budget.wait_for_retry(&error).await {
            Ok(())
        } else {
            Err(error)
        }
    }

    async fn ask_again(&mut self) -> Result<(), Error> {
        let asked = self.store.ask(&self.key, self.at, self.e_tag.as_deref(), &self.budget);
        match asked.await {
            Ok(Some(answer)) if answer.size == self.size => {
                self.body = Some(answer.body);
                Ok(())
            }
            Ok(_) => Err(self.store.replaced(&self.key)),
            Err(error) => match Failed::from(error) {
                // That of another object is no reason to ask once more.
                Failed::Again(error) if error.kind != ErrorKind::Integrity => self.try_later(error).await,
                Failed::Again(error) | Failed::Over(error) => Err(error),
            },
        }
    }
}
