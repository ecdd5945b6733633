//! What is done around every call, whatever its service.
//!
//! - **Compression**: a request may be compressed with snappy (the framed format) or gzip; the service sees it
//!   decompressed. The answer is compressed with the same codec, message by message, exactly when the request named
//!   one. An unknown codec is Unimplemented. A message that decompresses to more than [`super::MESSAGE_MAX`] is refused
//!   before it takes the memory.
//! - **Deadline**: at the end of `grpc-timeout` the call is dropped, and answered with DeadlineExceeded as far as the
//!   client still reads.
//! - **Panics**: a panic of the service, also in mid-stream, fails its call with Internal and the panic's text, and
//!   nothing else.
//! - **Running calls**: while a call runs, [`super::Running`] lists it, with what its client has read; its service
//!   finds the same entry among the request's extensions ([`super::Caller`]).
//! - **Span**: where spans are sent to a collector, whatever a call does is within its span.
//! - **Metrics and log**: every call of a known method is counted as started and as ended, once, however it ends. A
//!   call that the client dropped, or whose connection broke, ended as Canceled.
//!
//! A call that uses none of this costs a look-up, a few counters and the lengths of its messages.

use std::{
    any::Any,
    convert::Infallible,
    net::SocketAddr,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Instant,
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header::CONTENT_TYPE};
use http_body::{Body as _, Frame};
use hyper::body::Incoming;
use tonic::{Code, Status, body::Body};
use tower_service::Service;
use tracing::Span;

use super::{
    codec::{Codec, Compressor},
    deadline::{Deadline, Spawner},
    log,
    messages::Messages,
    metrics::Counted,
    request::RequestBody,
    running::Entry,
    settings::Settings,
    span,
    usage::Usage,
};

const GRPC_ENCODING: &str = "grpc-encoding";
const GRPC_STATUS: &str = "grpc-status";

/// The calls of one connection.
#[derive(Debug)]
pub(super) struct Calls<S> {
    service: S,
    settings: Arc<Settings>,
    usage: Arc<Usage>,
    peer: SocketAddr,
    spawner: Spawner,
}

impl<S> Calls<S> {
    pub(super) fn new(service: S, settings: Arc<Settings>, usage: Arc<Usage>, peer: SocketAddr) -> Self {
        Self {
            service,
            settings,
            usage,
            peer,
            spawner: Spawner::default(),
        }
    }

    /// What must spawn these calls.
    pub(super) fn spawner(&self) -> Spawner {
        self.spawner.clone()
    }

    fn begin(&self, request: &Request<Incoming>, deadline: Option<Deadline>) -> Call {
        let path = request.uri().path();
        let counted = self.settings.metrics.find(path).cloned();
        if let Some(counted) = &counted {
            counted.begin();
        }
        let log = self.settings.log.as_ref().and_then(|log| {
            let kind = counted.as_ref().map(|counted| counted.method.kind);
            log.begin(path, kind, self.peer, request.headers(), deadline.as_ref())
        });
        self.usage.begin();
        let at = deadline.as_ref().map(Deadline::at);
        let entry = self.settings.running.begin(path, counted.as_ref(), self.peer, at);
        // Strangers choose the names of what does not exist, and a collector keeps each.
        let span = match &counted {
            Some(_) => span::begin(path, self.peer, request.headers()),
            None => Span::none(),
        };
        Call {
            counted,
            entry: Some(entry),
            settings: Arc::clone(&self.settings),
            usage: Arc::clone(&self.usage),
            deadline,
            codec: None,
            log,
            span,
            begun: Instant::now(),
            ended: false,
        }
    }
}

impl<S> hyper::service::Service<Request<Incoming>> for Calls<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Clone,
{
    type Response = Response<AnswerBody>;
    type Error = Infallible;
    type Future = AnswerFuture<S::Future>;

    fn call(&self, mut request: Request<Incoming>) -> Self::Future {
        if let Some(status) = no_grpc(&request) {
            self.spawner.next(None);
            return AnswerFuture(State::NotGrpc(status));
        }
        let (deadline, malformed) = match Deadline::of(request.headers()) {
            Ok(deadline) => (deadline, None),
            Err(malformed) => (None, Some(Status::internal(malformed.to_string()))),
        };
        self.spawner.next(deadline.clone());
        let mut call = self.begin(&request, deadline);
        if let Some(entry) = &call.entry {
            request.extensions_mut().insert(entry.caller.clone());
        }
        let codec = match request.headers_mut().remove(GRPC_ENCODING) {
            Some(name) => Codec::of(&String::from_utf8_lossy(name.as_bytes())),
            None => Ok(None),
        };
        let refused = malformed.map_or(codec, Err);
        call.codec = match refused {
            Ok(codec) => codec,
            Err(status) => return AnswerFuture(State::Refused(Some((call, status)))),
        };
        let request = request.map(|body| {
            Body::new(RequestBody::new(
                body,
                call.counted.clone(),
                call.codec,
                self.settings.metrics.compressed_bytes(),
                Arc::clone(&self.usage),
            ))
        });
        let mut service = self.service.clone();
        let _in_span = call.span.clone().entered();
        // Outside of the call's own task: a panic here would end the connection.
        match catch_unwind(AssertUnwindSafe(|| service.call(request))) {
            Ok(future) => AnswerFuture(State::Running(Box::pin(future), Some(call))),
            Err(panic) => {
                let status = call.panicked(&*panic);
                AnswerFuture(State::Refused(Some((call, status))))
            }
        }
    }
}

/// The answer to what is no gRPC.
fn no_grpc(request: &Request<Incoming>) -> Option<StatusCode> {
    let is_grpc = |kind: &HeaderValue| kind.as_bytes().starts_with(b"application/grpc");
    if request.method() != Method::POST {
        Some(StatusCode::METHOD_NOT_ALLOWED)
    } else if !request.headers().get(CONTENT_TYPE).is_some_and(is_grpc) {
        Some(StatusCode::UNSUPPORTED_MEDIA_TYPE)
    } else {
        None
    }
}

/// A call, from its request to the end of its answer. Dropped before its end, it ends as Canceled, or as DeadlineExceeded
/// when it was late.
#[derive(Debug)]
struct Call {
    counted: Option<Arc<Counted>>,
    /// Until the call has ended.
    entry: Option<Entry>,
    settings: Arc<Settings>,
    usage: Arc<Usage>,
    deadline: Option<Deadline>,
    codec: Option<Codec>,
    log: Option<Box<log::Entry>>,
    span: Span,
    begun: Instant,
    ended: bool,
}

impl Call {
    fn end(&mut self, code: Code, message: impl FnOnce() -> String) {
        if std::mem::replace(&mut self.ended, true) {
            return;
        }
        let took = self.begun.elapsed();
        if let Some(counted) = &self.counted {
            counted.end(code, took);
        }
        let span = std::mem::replace(&mut self.span, Span::none());
        if self.log.is_some() || !span.is_disabled() {
            let message = message();
            span::end(&span, code, &message);
            if let Some(log) = self.log.take() {
                log.end(code, &message, took);
            }
        }
        self.entry = None;
        self.usage.end();
    }

    /// The client took a part of the answer.
    fn sent(&self, bytes: usize, messages: u64) {
        if let Some(entry) = &self.entry {
            entry.caller.sent(bytes, messages);
        }
        if let Some(counted) = &self.counted {
            counted.sent_bytes.inc_by(bytes as u64);
        }
        self.usage.touch();
    }

    /// Ends with the status of the trailers.
    fn end_by_trailers(&mut self, trailers: &HeaderMap) {
        let code = trailers
            .get(GRPC_STATUS)
            .map(|status| Code::from_bytes(status.as_bytes()));
        self.end(code.unwrap_or(Code::Unknown), || {
            let status = Status::from_header_map(trailers);
            status.map(|status| status.message().to_owned()).unwrap_or_default()
        });
    }

    fn end_with(&mut self, status: &Status) {
        self.end(status.code(), || status.message().to_owned());
    }

    /// The status that the call ends with if its time is up.
    fn too_late(&self) -> Option<Status> {
        let is_late = self.deadline.as_ref().is_some_and(Deadline::has_passed);
        is_late.then(|| Status::deadline_exceeded("the call's deadline has passed"))
    }

    fn panicked(&self, panic: &(dyn Any + Send)) -> Status {
        self.settings.metrics.panicked();
        Status::internal(crate::ops::supervisor::panic_text(panic))
    }

    /// The answer that is only a status.
    fn refuse(mut self, status: Status) -> Response<AnswerBody> {
        self.end_with(&status);
        status.into_http()
    }

    /// The service's own answer.
    fn answer(mut self, response: Response<Body>) -> Response<AnswerBody> {
        let (mut parts, body) = response.into_parts();
        if body.is_end_stream() {
            self.end_by_trailers(&parts.headers);
            return Response::from_parts(parts, AnswerBody::empty());
        }
        if let Some(entry) = &self.entry {
            entry.caller.answer_began();
        }
        if let Some(codec) = self.codec {
            let name = HeaderValue::from_static(codec.name());
            parts.headers.insert(GRPC_ENCODING, name);
        }
        Response::from_parts(parts, AnswerBody(Some(Sending::new(self, body))))
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        let is_late = self.deadline.as_ref().is_some_and(Deadline::is_over);
        let code = if is_late {
            Code::DeadlineExceeded
        } else {
            Code::Cancelled
        };
        self.end(code, || "the client left".to_owned());
    }
}

/// The answer to a call, until its headers can be sent.
pub(super) struct AnswerFuture<F>(State<F>);

enum State<F> {
    /// To what is no call.
    NotGrpc(StatusCode),
    /// The service was not asked.
    Refused(Option<(Call, Status)>),
    Running(Pin<Box<F>>, Option<Call>),
}

impl<F> Future for AnswerFuture<F>
where
    F: Future<Output = Result<Response<Body>, Infallible>>,
{
    type Output = Result<Response<AnswerBody>, Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let (future, slot) = match &mut self.get_mut().0 {
            State::NotGrpc(status) => {
                let mut response = Response::new(AnswerBody::empty());
                *response.status_mut() = *status;
                return Poll::Ready(Ok(response));
            }
            State::Refused(slot) => {
                let refused = slot.take().map(|(call, status)| call.refuse(status));
                return Poll::Ready(Ok(refused.unwrap_or_default()));
            }
            State::Running(future, call) => (future, call),
        };
        // Polled after its end, which does not happen.
        let Some(call) = slot else { return Poll::Pending };
        let _in_span = call.span.clone().entered();
        let ended = match call.too_late() {
            Some(status) => Err(status),
            None => match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(cx))) {
                Ok(Poll::Pending) => return Poll::Pending,
                Ok(Poll::Ready(Ok(response))) => Ok(response),
                Err(panic) => Err(call.panicked(&*panic)),
            },
        };
        let Some(call) = slot.take() else { return Poll::Pending };
        Poll::Ready(Ok(match ended {
            Ok(response) => call.answer(response),
            Err(status) => call.refuse(status),
        }))
    }
}

/// The body of an answer.
#[derive(Debug, Default)]
pub(super) struct AnswerBody(Option<Sending>);

#[derive(Debug)]
struct Sending {
    body: Body,
    call: Call,
    messages: Messages,
    compressor: Option<Compressor>,
}

/// What comes next of a body.
enum Next {
    Data(Bytes),
    Last(HeaderMap),
    Fail(Status),
    /// The end without trailers.
    End,
}

impl AnswerBody {
    fn empty() -> Self {
        Self(None)
    }
}

impl Sending {
    fn new(call: Call, body: Body) -> Self {
        Self {
            body,
            call,
            messages: Messages::default(),
            compressor: None,
        }
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Next> {
        let _in_span = self.call.span.clone().entered();
        loop {
            if let Some(status) = self.call.too_late() {
                return Poll::Ready(Next::Fail(status));
            }
            let body = Pin::new(&mut self.body);
            let frame = match catch_unwind(AssertUnwindSafe(|| body.poll_frame(cx))) {
                Ok(Poll::Pending) => return Poll::Pending,
                Ok(Poll::Ready(Some(Ok(frame)))) => frame,
                Ok(Poll::Ready(Some(Err(status)))) => return Poll::Ready(Next::Fail(status)),
                Ok(Poll::Ready(None)) => return Poll::Ready(Next::End),
                Err(panic) => return Poll::Ready(Next::Fail(self.call.panicked(&*panic))),
            };
            let data = match frame.into_data() {
                Ok(data) => data,
                Err(frame) => return Poll::Ready(frame.into_trailers().map_or(Next::End, Next::Last)),
            };
            match self.process(data) {
                Ok(data) if data.is_empty() => {}
                Ok(data) => return Poll::Ready(Next::Data(data)),
                Err(status) => return Poll::Ready(Next::Fail(status)),
            }
        }
    }

    /// Counts the messages and, if so agreed, compresses them; then nothing may come out yet.
    fn process(&mut self, data: Bytes) -> Result<Bytes, Status> {
        let (data, begun) = match (self.call.codec, &self.call.counted) {
            (Some(codec), _) => self
                .compressor
                .get_or_insert_with(|| Compressor::new(codec))
                .push(&data)?,
            (None, Some(_)) => {
                let begun = self.messages.count(&data);
                (data, begun)
            }
            (None, None) => (data, 0),
        };
        self.call.sent(data.len(), begun);
        if let Some(counted) = &self.call.counted
            && begun > 0
        {
            counted.sent.inc_by(begun);
        }
        Ok(data)
    }
}

impl http_body::Body for AnswerBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let Some(sending) = &mut self.0 else {
            return Poll::Ready(None);
        };
        let frame = match std::task::ready!(sending.poll_next(cx)) {
            Next::Data(data) => return Poll::Ready(Some(Ok(Frame::data(data)))),
            Next::Last(trailers) => {
                sending.call.end_by_trailers(&trailers);
                Some(Frame::trailers(trailers))
            }
            Next::Fail(status) => {
                sending.call.end_with(&status);
                Some(Frame::trailers(trailers(&status)))
            }
            Next::End => {
                sending.call.end(Code::Unknown, || "no status".to_owned());
                None
            }
        };
        // The service's stream is dropped as soon as it is not needed.
        self.0 = None;
        Poll::Ready(frame.map(Ok))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_none()
    }
}

fn trailers(status: &Status) -> HeaderMap {
    let mut trailers = HeaderMap::new();
    if status.add_header(&mut trailers).is_err() {
        // A message that no header can carry: the code is what counts.
        trailers.insert(GRPC_STATUS, HeaderValue::from(status.code() as u16));
    }
    trailers
}
