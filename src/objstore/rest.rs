//! A store that is spoken to by plain requests over HTTP, as Google's and Azure's are: what they have in common.
//!
//! [`Rest`] sends requests, tries again what can heal, and turns refusals into errors by kind; a [`Dialect`] knows the store's
//! addresses, credentials and words. [`reading`] streams objects, [`listing`] goes through pages, [`compare`] holds objects against
//! files.
//!
//! Guarantees, as for S3: at most `requests_at_once` requests with a body run at once, and as many objects are read. Each attempt
//! ends when nothing moves for the stall time. One call makes at most as many requests as the configuration says; what stalls, or
//! arrives damaged, is tried once more. On cancel: dropping a future closes its connection.

mod compare;
mod listing;
mod reading;
pub(super) mod tokens;
mod tries;

use std::{fmt, sync::Arc};

use async_trait::async_trait;
use aws_sdk_s3::primitives::SdkBody;
use aws_smithy_runtime_api::client::{
    http::{HttpConnector as _, SharedHttpConnector},
    orchestrator::{HttpRequest, HttpResponse},
};
use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderName, Method, Request, Uri, header};
use http_body_util::BodyExt as _;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio_util::task::TaskTracker;

pub(super) use self::tries::Tries;
use super::{
    CanaryKey, Error, ErrorKind, Limits, Op, RateLimit,
    transfer::{
        body::{BufferPool, Failure},
        content::Content,
        progress::Stall,
        stall_timeout::StallTimeout,
        transport::{self, Transport},
        words::{chain, find},
    },
};
use crate::objstore::config::HttpConfig;

/// How much of a refusal, or of what a store says of one object, is read, in bytes.
pub(super) const ANSWER_LIMIT: usize = 1 << 20;

const USER_AGENT: &str = concat!("narthex/", env!("CARGO_PKG_VERSION"));

/// What differs between stores.
#[async_trait]
pub(super) trait Dialect: Send + Sync + fmt::Debug + 'static {
    /// Puts credentials on a request that is otherwise complete.
    ///
    /// # Errors
    /// Why there are none now.
    async fn authorize(&self, head: &mut Request<()>) -> Result<(), Failed>;

    /// The store has refused the credentials: those that are remembered are of no use. Whether others may be found now.
    fn forget_credentials(&self) -> bool;

    /// What kind of failure a refusal is, and what it says.
    fn explain(&self, op: Op, answer: &Refusal) -> (ErrorKind, String);

    /// The address at which an object is read, and headers; with a tag of [`Dialect::tag`] only while it is the same object,
    /// else the answer is 412.
    ///
    /// # Errors
    /// A key that cannot be asked for.
    fn object(&self, key: &str, tag: Option<&str>) -> Result<(Uri, Vec<(HeaderName, String)>), String>;

    /// What tells one version of an object from another one, of the head of an answer.
    fn tag(&self, headers: &HeaderMap) -> Option<String>;
}

/// Why something did not come about.
#[derive(Debug)]
pub(super) struct Failed {
    pub(super) kind: ErrorKind,
    pub(super) detail: String,
}

/// An answer that is no success, and the start of its body.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) status: u16,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

/// What is asked for. It can be sent again.
#[derive(Clone, Debug)]
pub(super) struct Call {
    pub(super) op: Op,
    pub(super) method: Method,
    pub(super) uri: Uri,
    pub(super) headers: Vec<(HeaderName, String)>,
    pub(super) content: Option<Content>,
    /// Statuses that are no failure, beside 2xx.
    pub(super) expected: &'static [u16],
}

/// The head of an answer, with its body to be read.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) headers: HeaderMap,
    pub(super) body: SdkBody,
}

/// The connection with one store.
pub(super) struct Rest<D> {
    pub(super) dialect: D,
    pub(super) name: String,
    pub(super) identity: String,
    /// What every key starts with: empty, or with a slash at its end.
    pub(super) prefix: String,
    pub(super) rate_limit: RateLimit,
    pub(super) buffers: BufferPool,
    /// What must end before the process does: [`Bucket::settle`](super::Bucket::settle) waits for it.
    pub(super) cleanup: TaskTracker,
    connector: SharedHttpConnector,
    /// How many requests one call may make.
    attempts: u32,
    permits: Semaphore,
    /// Those of objects that are being read.
    readings: Arc<Semaphore>,
}

impl<D: Dialect> fmt::Debug for Rest<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Rest").field(&self.identity).finish()
    }
}

/// Which place it is, and how it is reached.
pub(super) struct Place<'a> {
    /// The bucket, or container.
    pub(super) name: String,
    /// Without the prefix: `gs://<bucket>`.
    pub(super) identity: String,
    pub(super) prefix: &'a str,
    pub(super) secure: bool,
    pub(super) http: &'a HttpConfig,
    pub(super) transport: Transport,
    pub(super) attempts: u32,
}

impl<D: Dialect> Rest<D> {
    pub(super) fn new(dialect: D, place: Place<'_>, limits: &Limits) -> Self {
        let (identity, prefix) = match place.prefix {
            "" => (place.identity, String::new()),
            prefix => (format!("{}/{prefix}", place.identity), format!("{prefix}/")),
        };
        let connector = SharedHttpConnector::new(place.transport.connector());
        let connector = StallTimeout::new(connector, limits, place.secure, place.http);
        let at_once = limits.requests_at_once.max(1);
        let cleanup = TaskTracker::new();
        // A tracker that is closed can be waited for; tasks may still be added.
        cleanup.close();
        Self {
            dialect,
            name: place.name,
            identity,
            prefix,
            rate_limit: limits.rate_limit.clone(),
            buffers: BufferPool::default(),
            cleanup,
            connector: SharedHttpConnector::new(connector),
            attempts: place.attempts.max(1),
            permits: Semaphore::new(at_once),
            readings: Arc::new(Semaphore::new(at_once)),
        }
    }

    pub(super) fn full(&self, key: &str) -> String {
        format!("{}{key}", self.prefix)
    }

    /// What the full keys below a directory start with.
    pub(super) fn below(&self, dir: &str) -> String {
        match dir {
            "" => self.prefix.clone(),
            dir => format!("{}{dir}/", self.prefix),
        }
    }

    pub(super) fn relative<'a>(&self, key: &'a str) -> Option<&'a str> {
        key.strip_prefix(&self.prefix)
    }

    /// A key for messages.
    pub(super) fn place(&self, key: &str) -> String {
        match key {
            "" => self.identity.clone(),
            key => format!("{}/{key}", self.identity),
        }
    }

    pub(super) fn error(&self, op: Op, key: &str, kind: ErrorKind, detail: impl Into<String>) -> Error {
        Error {
            op,
            key: self.place(key),
            kind,
            detail: detail.into(),
            source: None,
        }
    }

    /// A call without headers and body.
    pub(super) fn prepare(&self, op: Op, key: &str, method: Method, uri: Result<Uri, String>) -> Result<Call, Error> {
        let uri = uri.map_err(|problem| self.error(op, key, ErrorKind::Refused, problem))?;
        Ok(Call {
            op,
            method,
            uri,
            headers: Vec::new(),
            content: None,
            expected: &[],
        })
    }

    /// Removes an object that a check has written.
    pub(super) async fn remove(&self, canary: &CanaryKey, uri: Result<Uri, String>) -> Result<(), Error> {
        let mut call = self.prepare(Op::Delete, canary.as_str(), Method::DELETE, uri)?;
        call.expected = &[404];
        self.call(canary.as_str(), &call).await.map(drop)
    }

    /// The size of an object, as the store says it.
    pub(super) fn told_size(&self, key: &str, size: Option<u64>) -> Result<u64, Error> {
        let untold = || {
            let detail = "the store does not tell the size of the object";
            self.error(Op::Get, key, ErrorKind::Refused, detail)
        };
        size.ok_or_else(untold)
    }

    /// Waits for one of the slots that all requests with a body share.
    pub(super) async fn permit(&self) -> SemaphorePermit<'_> {
        self.permits.acquire().await.expect("the semaphore is never closed")
    }

    /// Sends a request, and again where that may help.
    ///
    /// # Errors
    /// What the last try failed with.
    pub(super) async fn call(&self, key: &str, call: &Call) -> Result<Answer, Error> {
        let mut tries = Tries::new(self.attempts);
        loop {
            match self.send(call).await {
                Ok(answer) => return Ok(answer),
                Err(failed) => {
                    let error = self.error(call.op, key, failed.kind, failed.detail);
                    tries.wait_for_another(error).await?;
                }
            }
        }
    }

    /// The same, with the whole body of the answer, which has at most `limit` bytes. What breaks off is asked for again.
    pub(super) async fn call_whole(&self, key: &str, call: &Call, limit: usize) -> Result<(Answer, Bytes), Error> {
        let mut tries = Tries::new(self.attempts);
        loop {
            let failed = match self.send(call).await {
                Ok(mut answer) => match whole(&mut answer.body, limit).await {
                    Ok(body) => return Ok((answer, body)),
                    Err(failed) => failed,
                },
                Err(failed) => failed,
            };
            let error = self.error(call.op, key, failed.kind, failed.detail);
            tries.wait_for_another(error).await?;
        }
    }

    /// One request, and one more if the credentials may just have ended.
    pub(super) async fn send(&self, call: &Call) -> Result<Answer, Failed> {
        let request = self.request(call).await?;
        match self.exchange(call, request).await {
            Err(failed) if failed.kind == ErrorKind::Credentials && self.dialect.forget_credentials() => {
                let request = self.request(call).await?;
                self.exchange(call, request).await
            }
            sent => sent,
        }
    }

    async fn exchange(&self, call: &Call, (request, failure): (HttpRequest, Failure)) -> Result<Answer, Failed> {
        let answered = self.connector.call(request).await;
        let answer = match answered {
            Ok(answer) => answer,
            // The file is at fault, not the way.
            Err(error) => {
                return Err(match failure.get() {
                    Some(reason) => Failed::new(ErrorKind::Local, reason),
                    None => unanswered(&error),
                });
            }
        };
        let mut answer = Answer::of(answer);
        if (200..300).contains(&answer.status) || call.expected.contains(&answer.status) {
            return Ok(answer);
        }
        let body = start(&mut answer.body).await;
        let refusal = Refusal {
            status: answer.status,
            headers: answer.headers,
            body,
        };
        let (kind, detail) = self.dialect.explain(call.op, &refusal);
        Err(Failed { kind, detail })
    }

    async fn request(&self, call: &Call) -> Result<(HttpRequest, Failure), Failed> {
        let (body, failure) = match &call.content {
            Some(content) => {
                let (body, failure) = content.body(&self.buffers);
                (body.into_inner(), failure)
            }
            None => (SdkBody::empty(), Failure::default()),
        };
        let mut head = Request::new(());
        *head.method_mut() = call.method.clone();
        *head.uri_mut() = call.uri.clone();
        let unsendable = |name: &HeaderName| Failed::new(ErrorKind::Refused, format!("{name} cannot be sent as it is"));
        for (name, value) in &call.headers {
            let value = value.parse().map_err(|_| unsendable(name))?;
            head.headers_mut().insert(name, value);
        }
        let length = body.content_length().unwrap_or_default();
        if call.method != Method::GET && call.method != Method::HEAD {
            head.headers_mut().insert(header::CONTENT_LENGTH, length.into());
        }
        head.headers_mut()
            .insert(header::USER_AGENT, header::HeaderValue::from_static(USER_AGENT));
        self.dialect.authorize(&mut head).await?;
        let request = HttpRequest::try_from(head.map(|()| body));
        let request =
            request.map_err(|error| Failed::new(ErrorKind::Refused, format!("it cannot be sent: {error}")))?;
        Ok((request, failure))
    }
}

impl Failed {
    pub(super) fn new(kind: ErrorKind, detail: impl Into<String>) -> Self {
        let detail = detail.into();
        Self { kind, detail }
    }
}

impl Answer {
    fn of(mut answer: HttpResponse) -> Self {
        let status = answer.status().as_u16();
        let mut headers = HeaderMap::new();
        for (name, value) in answer.headers() {
            if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), value.parse()) {
                headers.append(name, value);
            }
        }
        let body = answer.take_body();
        Self { status, headers, body }
    }

    /// A header's text.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}

impl Refusal {
    /// A header's text.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}

fn unanswered(error: &aws_smithy_runtime_api::client::result::ConnectorError) -> Failed {
    if let Some(stall) = find::<Stall>(error) {
        return Failed::new(ErrorKind::Stalled, stall.to_string());
    }
    let text = chain(error);
    if error.is_timeout() {
        Failed::new(ErrorKind::Stalled, format!("no answer in time: {text}"))
    } else if transport::not_connected(error) {
        Failed::new(ErrorKind::Network, text)
    } else {
        Failed::new(ErrorKind::Network, format!("no answer: {text}"))
    }
}

/// Why a body broke off.
pub(super) fn broken_off(error: &(dyn std::error::Error + 'static)) -> Failed {
    let kind = match find::<Stall>(error) {
        Some(_) => ErrorKind::Stalled,
        None => ErrorKind::Network,
    };
    Failed::new(kind, format!("the answer broke off: {}", chain(error)))
}

/// All of a body.
pub(super) async fn whole(body: &mut SdkBody, limit: usize) -> Result<Bytes, Failed> {
    let mut bytes = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| broken_off(&*error))?;
        let Ok(data) = frame.into_data() else { continue };
        if bytes.len() + data.len() > limit {
            return Err(Failed::new(
                ErrorKind::TooLarge,
                format!("it has more than {limit} bytes"),
            ));
        }
        bytes.extend_from_slice(&data);
    }
    Ok(bytes.freeze())
}

/// The start of a refusal, as far as it comes.
async fn start(body: &mut SdkBody) -> Bytes {
    let mut bytes = BytesMut::new();
    while bytes.len() < ANSWER_LIMIT
        && let Some(Ok(frame)) = body.frame().await
    {
        if let Ok(data) = frame.into_data() {
            bytes.extend_from_slice(&data);
        }
    }
    bytes.truncate(ANSWER_LIMIT);
    bytes.freeze()
}

impl<D: Dialect> Rest<D> {
    /// How many tries a call has.
    pub(super) fn tries(&self) -> Tries {
        Tries::new(self.attempts)
    }
}

/// An address that can be asked.
pub(super) fn address(text: &str) -> Result<Uri, String> {
    text.parse()
        .map_err(|error| format!("{text:?} is no address that can be asked: {error}"))
}

/// `text` as a part of a path or a query: everything but letters, digits and `-._~` is encoded.
pub(super) fn encoded(text: &str) -> String {
    use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
    const KEPT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
    utf8_percent_encode(text, KEPT).to_string()
}
