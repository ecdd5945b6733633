//! Limits of the requests of the StoreAPI, checked before a request is decoded.
//!
//! A few KiB of compressed bytes can hold millions of empty matchers, each of which would take fifty times its size
//! once decoded. So the one message of a request is received whole, its fields are counted in place, and a request with
//! too many of them is refused with the numbers. The memory of a request is reserved from the budget of all calls as
//! its bytes arrive, and released when the service does not need the request any more; only small ones go without. A
//! request that does not arrive completely in time is refused, since it would keep its memory from all others. Messages
//! after the first are never read.

use std::{
    convert::Infallible,
    future::{Future, poll_fn},
    pin::Pin,
    task::{Context as TaskContext, Poll},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use http::{Request, Response};
use http_body::Body as _;
use http_body_util::Full;
use prost::Message;
use tokio::time::timeout;
use tonic::{Status, body::Body, server::NamedService};
use tower_service::Service;

use self::fields::{KINDS, Kind, request};
use super::budget::{Budget, Reservation};
use crate::{
    model::fields::{Malformed, walk},
    ops::grpc::MESSAGE_MAX,
};

mod fields;

/// The prefix of a message: a byte of flags and four of length.
const PREFIX: usize = 5;
/// A message of fewer bytes takes nothing out of the budget.
const SMALL: usize = 4 << 10;
/// What a message takes, in times its length: once as it came, once decoded.
const TIMES: usize = 2;

/// How long a request may take to come whole, in a call without a deadline or with a later one.
const COMES_WITHIN: Duration = Duration::from_secs(120);

/// Checks requests; clones share the budget.
#[derive(Clone, Debug)]
pub struct RequestLimits {
    budget: Budget,
    message_max: usize,
}

/// A request that may be decoded.
#[derive(Debug)]
pub struct Admitted {
    /// Prefix and message, or less if the client has sent no more.
    framed: Bytes,
    /// What it takes, as long as this is kept.
    reservation: Option<Reservation>,
    /// What may follow it, which nobody reads.
    rest: Body,
}

impl RequestLimits {
    /// Takes memory from `budget`; a message has at most `message_max` bytes, and never more than [`MESSAGE_MAX`].
    pub fn new(budget: Budget, message_max: usize) -> Self {
        let message_max = message_max.min(MESSAGE_MAX);
        Self { budget, message_max }
    }

    /// Receives the message of a call of `path` and checks it.
    ///
    /// # Errors
    /// `InvalidArgument`: it has too much of something. `ResourceExhausted`: it is too long, or there is no memory for it.
    /// `Internal`: it is no message in protobuf. `DeadlineExceeded`: it does not come whole. Whatever the body ends with.
    pub async fn admit(&self, path: &str, body: Body) -> Result<Admitted, Status> {
        let admitted = timeout(COMES_WITHIN, self.receive(body)).await.map_err(|_| {
            Status::deadline_exceeded(format!("the request did not arrive completely within {COMES_WITHIN:?}"))
        })??;
        // A message that is compressed or incomplete is not decoded.
        if let Some((0, message)) = admitted.parts() {
            check(path, message)?;
        }
        Ok(admitted)
    }

    /// Receives the first message of `body`, as far as there is one.
    async fn receive(&self, mut rest: Body) -> Result<Admitted, Status> {
        let (mut first, mut more, mut reservation) = (Bytes::new(), BytesMut::new(), None);
        let framed = loop {
            let so_far: &[u8] = if more.is_empty() { &first } else { &more };
            if let Some(end) = self.end(so_far)?
                && so_far.len() >= end
            {
                break match more.is_empty() {
                    true => first.split_to(end),
                    false => more.split_to(end).freeze(),
                };
            }
            let frame = match poll_fn(|cx| Pin::new(&mut rest).poll_frame(cx)).await {
                Some(frame) => frame?,
                None if more.is_empty() => break first,
                None => break more.freeze(),
            };
            let Ok(data) = frame.into_data() else { continue };
            if first.is_empty() {
                first = data;
            } else {
                if more.is_empty() {
                    more.extend_from_slice(&first);
                }
                more.extend_from_slice(&data);
            }
            self.charge(first.len().max(more.len()), &mut reservation)?;
        };
        Ok(Admitted {
            framed,
            reservation,
            rest,
        })
    }

    /// Where the message ends that begins here, if its prefix is complete.
    fn end(&self, framed: &[u8]) -> Result<Option<usize>, Status> {
        let Some([_, length @ ..]) = framed.first_chunk::<PREFIX>() else {
            return Ok(None);
        };
        let length = u32::from_be_bytes(*length) as usize;
        if length > self.message_max {
            return Err(Status::resource_exhausted(format!(
                "the request has {length} bytes, and {} are allowed",
                self.message_max
            )));
        }
        Ok(Some(PREFIX + length))
    }

    /// Reserves memory for a request of which so many bytes have arrived.
    fn charge(&self, bytes: usize, reservation: &mut Option<Reservation>) -> Result<(), Status> {
        if bytes < SMALL {
            return Ok(());
        }
        let reservation = reservation.get_or_insert_with(|| self.budget.reservation());
        reservation.shrink_to(0);
        if reservation.reserve(TIMES * bytes) {
            return Ok(());
        }
        Err(Status::resource_exhausted(format!(
            "no memory for a request of {bytes} bytes or more: all that calls together may hold \
             (--store.memory-limit) is in use; retry, with fewer and shorter matchers"
        )))
    }
}

impl Admitted {
    /// The flag and the message, if it is whole.
    fn parts(&self) -> Option<(u8, &[u8])> {
        let ([flag, length @ ..], message) = self.framed.split_first_chunk::<PREFIX>()?;
        (u32::from_be_bytes(*length) as usize == message.len()).then_some((*flag, message))
    }

    /// The message, and the memory that it takes, which is to be kept as long as it is.
    ///
    /// # Errors
    /// `Internal`: there is none, it is compressed in a way that was not agreed, or is not what was asked for.
    pub fn decode<M: Message + Default>(mut self) -> Result<(M, Option<Reservation>), Status> {
        let bytes = self.message()?;
        let message = M::decode(bytes).map_err(|error| Status::internal(error.to_string()))?;
        let length = bytes.len();
        // What it was decoded from goes.
        self.reservation
            .iter_mut()
            .for_each(|reservation| reservation.shrink_to(length));
        Ok((message, self.reservation))
    }

    fn message(&self) -> Result<&[u8], Status> {
        match self.parts() {
            Some((0, message)) => Ok(message),
            Some((flag, _)) => Err(Status::internal(format!(
                "protocol error: the message of the request has the flag {flag}, and no compression was agreed"
            ))),
            None if self.framed.is_empty() => Err(Status::internal("the call holds no request")),
            None => Err(Status::internal("the request ends within its message")),
        }
    }
}

/// Counts what is in the message of a call of `path`.
///
/// # Errors
/// `InvalidArgument`: there is too much of something. `Internal`: it is no message in protobuf.
pub fn check(path: &str, message: &[u8]) -> Result<(), Status> {
    let mut counts = [0_usize; KINDS];
    let walked = walk(message, request(path), &mut |kind: &Kind, values, bytes| {
        let count = &mut counts[*kind as usize];
        *count += kind.weight(values, bytes);
        Ok::<_, Malformed>(())
    });
    for kind in Kind::ALL {
        let (count, most) = (counts[kind as usize], kind.most());
        if count > most {
            let (what, count) = (kind.name(), count);
            return Err(Status::invalid_argument(format!(
                "the request has {count} {what}, and {most} are allowed: send smaller requests"
            )));
        }
    }
    // The text of tonic.
    walked.map_err(|malformed| Status::internal(format!("failed to decode Protobuf message: {malformed}")))
}

/// A service whose requests are checked.
#[derive(Clone, Debug)]
pub struct LimitedService<S> {
    service: S,
    request_limits: RequestLimits,
}

impl<S> LimitedService<S> {
    /// Lets through to `service` what `request_limits` admits.
    pub fn new(service: S, request_limits: RequestLimits) -> Self {
        Self {
            service,
            request_limits,
        }
    }
}

impl<S: NamedService> NamedService for LimitedService<S> {
    const NAME: &'static str = S::NAME;
}

impl<S> Service<Request<Body>> for LimitedService<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, cx: &mut TaskContext<'_>) -> Poll<Result<(), Infallible>> {
        self.service.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let (mut service, request_limits) = (self.service.clone(), self.request_limits.clone());
        Box::pin(async move {
            let (parts, body) = request.into_parts();
            let admitted = match request_limits.admit(parts.uri.path(), body).await {
                Ok(admitted) => admitted,
                Err(status) => return Ok(status.into_http()),
            };
            let Admitted {
                framed,
                reservation,
                rest,
            } = admitted;
            let answer = service
                .call(Request::from_parts(parts, Body::new(Full::new(framed))))
                .await;
            drop((reservation, rest));
            answer
        })
    }
}

#[cfg(test)]
mod tests;
