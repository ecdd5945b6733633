//! Answers the calls that are not Series: requests are decoded, answers are encoded in pieces.
//!
//! An answer may have tens of MiB in one message. So it is encoded part by part while Prometheus' response is parsed;
//! the body only hands out the pieces, pulled by the client, and releases their memory as they go. An answer is
//! complete before its first piece is sent; dropping the call drops its request to Prometheus.

mod body;

use std::{
    convert::Infallible,
    future::Future,
    pin::Pin,
    task::{Context as TaskContext, Poll},
};

use bytes::Bytes;
use http::{HeaderValue, Request, Response, header::CONTENT_TYPE};
use prost::Message;
use tonic::{Status, body::Body, server::NamedService};
use tower_service::Service;

use self::body::AnswerBody;
use super::{budget::Reservation, message_buffer::MessageBuffer, request_limits::RequestLimits};
use crate::{ops::grpc::Caller, prometheus::api::Reserve};

impl Reserve for Reservation {
    fn reserve(&mut self, bytes: usize) -> bool {
        Self::reserve(self, bytes)
    }
}

/// The messages of an answer, and the memory that they take.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) reservation: Reservation,
    body: MessageBuffer,
}

impl Answer {
    /// No message yet.
    pub(super) fn new(reservation: Reservation) -> Self {
        Self {
            reservation,
            body: MessageBuffer::default(),
        }
    }

    /// Adds a message, whose memory `reservation` has.
    ///
    /// # Errors
    /// `ResourceExhausted`: a message can have 4 GiB at most.
    pub(super) fn add(&mut self, message: MessageBuffer) -> Result<(), Status> {
        let length = message.len();
        self.body.message(message).ok_or_else(|| {
            let text = format!("the answer is one message of {length} bytes, more than gRPC can carry: ask for less");
            Status::resource_exhausted(text)
        })
    }

    /// Nothing more is to come; what was held beyond the messages is given back.
    fn body(mut self) -> AnswerBody {
        self.reservation.shrink_to(self.body.len());
        AnswerBody::new(self.body.into_pieces(), self.reservation)
    }
}

/// Answers one call with messages that are made before the first of them is sent, if `request_limits` admits its request.
pub(super) async fn respond<R, F>(
    request: Request<Body>,
    request_limits: &RequestLimits,
    answer: impl FnOnce(R, Caller) -> F,
) -> Response<Body>
where
    R: Message + Default + Send + 'static,
    F: Future<Output = Result<Answer, Status>>,
{
    stream(
        request,
        request_limits,
        async |message, _reservation, caller: Caller| {
            let answer = answer(message, caller.clone()).await?;
            caller.set_stage("sending the answer");
            Ok(answer.body())
        },
    )
    .await
}

/// Answers one call with a body, if `request_limits` admits its request: `answer` gets that and the memory that it takes.
pub(super) async fn stream<R, B>(
    request: Request<Body>,
    request_limits: &RequestLimits,
    answer: impl AsyncFnOnce(R, Option<Reservation>, Caller) -> Result<B, Status>,
) -> Response<Body>
where
    R: Message + Default + Send + 'static,
    B: http_body::Body<Data = Bytes, Error = Status> + Send + 'static,
{
    let (parts, body) = request.into_parts();
    let caller = parts.extensions.get().cloned().unwrap_or_else(Caller::unknown);
    let answered = async {
        let (message, reservation) = request_limits.admit(parts.uri.path(), body).await?.decode()?;
        answer(message, reservation, caller).await
    };
    match answered.await {
        Ok(body) => {
            let mut response = Response::new(Body::new(body));
            let grpc = HeaderValue::from_static("application/grpc");
            response.headers_mut().insert(CONTENT_TYPE, grpc);
            response
        }
        Err(status) => Status::into_http(status),
    }
}

/// The one method of a service.
pub(super) trait Call: Clone + Send + Sync + 'static {
    /// The service's name with its package.
    const SERVICE: &'static str;
    /// The method's path in HTTP/2.
    const PATH: &'static str;
    /// What is asked.
    type Request: Message + Default + Send + 'static;

    /// Answers one call.
    ///
    /// # Errors
    /// What is wrong with the request; that Prometheus cannot be asked, or refuses.
    fn answer(&self, request: Self::Request, caller: Caller) -> impl Future<Output = Result<Answer, Status>> + Send;
}

/// A service with one method; clones share it.
#[derive(Clone, Debug)]
pub(super) struct UnaryService<C> {
    call: C,
    request_limits: RequestLimits,
}

impl<C> UnaryService<C> {
    /// Answers with `call` what `request_limits` admits.
    pub(super) fn new(call: C, request_limits: RequestLimits) -> Self {
        Self { call, request_limits }
    }
}

impl<C: Call> NamedService for UnaryService<C> {
    const NAME: &'static str = C::SERVICE;
}

/// The future of an answer.
pub(super) type ResponseFuture = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

impl<C: Call> Service<Request<Body>> for UnaryService<C> {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = ResponseFuture;

    fn poll_ready(&mut self, _: &mut TaskContext<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        if request.uri().path() != C::PATH {
            return Box::pin(async { Ok(no_such_method()) });
        }
        let Self { call, request_limits } = self.clone();
        Box::pin(async move {
            let answer = async |message, caller| call.answer(message, caller).await;
            Ok(respond(request, &request_limits, answer).await)
        })
    }
}

/// The answer to a method that is not there.
pub(super) fn no_such_method() -> Response<Body> {
    Status::unimplemented("there is no such method").into_http()
}

/// For tests.
#[cfg(test)]
pub(super) mod testing {
    use super::*;

    /// The bytes of an answer.
    pub(in crate::storeapi) fn bytes(answer: Answer) -> Vec<u8> {
        answer.body.into_pieces().flatten().collect()
    }

    /// The messages of an answer.
    pub(in crate::storeapi) fn messages<M: Message + Default>(answer: Answer) -> Vec<M> {
        let body = bytes(answer);
        let (mut rest, mut messages) = (&body[..], Vec::new());
        while let Some((prefix, after)) = rest.split_first_chunk::<5>() {
            let length = u32::from_be_bytes([prefix[1], prefix[2], prefix[3], prefix[4]]) as usize;
            let (message, others) = after.split_at(length);
            messages.push(M::decode(message).unwrap());
            rest = others;
        }
        messages
    }
}
