//! The stall timeout of every request: it ends when nothing moves.
//!
//! Wrapped around the transport, below all retries, so that each attempt has a timeout of its own and the pauses
//! between attempts are not mistaken for a stall. Nor is the time for which a body waits for the bucket's rate limit. What
//! counts as progress: the transport takes a piece of the body, the head of the answer arrives, a piece of the answer
//! arrives. However slow an upload is, it is not cut while it moves.
//! Where the configuration grants more time than that for the TLS handshake or the head of an answer, it is granted here.
//! A stalled attempt fails with [`Stall`]: a store that hangs would hang for many times the stall time if it were tried as often
//! as what else fails.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use aws_sdk_s3::{
    config::{ConfigBag, HttpClient, RuntimeComponents, SharedHttpClient},
    primitives::SdkBody,
};
use aws_smithy_runtime_api::{
    box_error::BoxError,
    client::{
        connector_metadata::ConnectorMetadata,
        http::{HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpConnector},
        orchestrator::{HttpRequest, HttpResponse},
        result::ConnectorError,
        runtime_components::RuntimeComponentsBuilder,
    },
};
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, Sleep},
};

use super::{
    limited_body::RateLimitedBody,
    progress::{Progress, Stall, Timeouts},
};
use crate::objstore::{Limits, RateLimit, StoreClock, config::HttpConfig};

/// Putting parts together may take a store longer than answering anything else, and it is silent meanwhile.
const COMPLETION_FACTOR: u32 = 4;

impl Timeouts {
    /// With what the configuration grants beyond `stall`.
    pub(in crate::objstore) fn new(stall: Duration, secure: bool, http: &HttpConfig) -> Self {
        let handshake = match secure {
            true => http.tls_handshake_timeout,
            false => Duration::ZERO,
        };
        // Zero, which stands for no limit, leaves our own: nothing waits without end.
        let head = http.response_header_timeout.unwrap_or_default();
        Self {
            stall,
            connecting: stall.max(handshake),
            answer: stall.max(head),
            completion: (stall * COMPLETION_FACTOR).max(head),
        }
    }
}

/// A transport with the stall timeout around it.
#[derive(Debug)]
pub(in crate::objstore) struct StallTimeout<T> {
    inner: T,
    timeouts: Timeouts,
    rate_limit: RateLimit,
    store_clock: StoreClock,
    connections: Option<Arc<Semaphore>>,
}

impl<T> StallTimeout<T> {
    /// Where the transport limits its connections, waiting for one must not be taken for a stall, and so is done here.
    pub(in crate::objstore) fn new(inner: T, limits: &Limits, secure: bool, http: &HttpConfig) -> Self {
        let connections = http
            .max_conns_per_host
            .map(|limit| limit.get().min(Semaphore::MAX_PERMITS));
        Self {
            inner,
            timeouts: Timeouts::new(limits.stall, secure, http),
            rate_limit: limits.rate_limit.clone(),
            store_clock: limits.store_clock.clone(),
            connections: connections.map(|limit| Arc::new(Semaphore::new(limit))),
        }
    }
}

impl HttpClient for StallTimeout<SharedHttpClient> {
    fn http_connector(&self, settings: &HttpConnectorSettings, components: &RuntimeComponents) -> SharedHttpConnector {
        let inner = self.inner.http_connector(settings, components);
        SharedHttpConnector::new(StallTimeout {
            inner,
            timeouts: self.timeouts,
            rate_limit: self.rate_limit.clone(),
            store_clock: self.store_clock.clone(),
            connections: self.connections.clone(),
        })
    }

    fn validate_base_client_config(
        &self,
        components: &RuntimeComponentsBuilder,
        config: &ConfigBag,
    ) -> Result<(), BoxError> {
        HttpClient::validate_base_client_config(&self.inner, components, config)
    }

    fn validate_final_config(&self, components: &RuntimeComponents, config: &ConfigBag) -> Result<(), BoxError> {
        HttpClient::validate_final_config(&self.inner, components, config)
    }

    fn connector_metadata(&self) -> Option<ConnectorMetadata> {
        self.inner.connector_metadata()
    }
}

impl HttpConnector for StallTimeout<SharedHttpConnector> {
    fn call(&self, mut request: HttpRequest) -> HttpConnectorFuture {
        let (inner, mut timeouts, connections) = (self.inner.clone(), self.timeouts, self.connections.clone());
        let (rate_limit, store_clock) = (self.rate_limit.clone(), self.store_clock.clone());
        HttpConnectorFuture::new(async move {
            let permit = match connections {
                Some(connections) => connections.acquire_owned().await.ok(),
                None => None,
            };
            let progress = Arc::new(Progress::new());
            // What else has a body is a short document.
            let limited = request.method() == "PUT";
            let completion = request.method() == "POST" && request.uri().contains("uploadId=");
            if completion {
                timeouts.answer = timeouts.completion;
            }
            let body = request.take_body();
            let total = body.content_length().unwrap_or(0);
            *request.body_mut() = match total {
                0 => body,
                _ => {
                    let inner = match limited {
                        true => SdkBody::from_body_1_x(RateLimitedBody::new(body, rate_limit, Arc::clone(&progress))),
                        false => body,
                    };
                    let progress = Arc::clone(&progress);
                    SdkBody::from_body_1_x(RequestBody { inner, progress })
                }
            };
            let response = watch(inner.call(request), &progress, total, timeouts).await?;
            if let Some(date) = response.headers().get("date") {
                store_clock.observe(date);
            }
            Ok(with_read_timeout(response, timeouts.stall, permit))
        })
    }
}

/// Runs one attempt up to the head of its answer.
async fn watch(
    call: HttpConnectorFuture,
    progress: &Progress,
    total: u64,
    timeouts: Timeouts,
) -> Result<HttpResponse, ConnectorError> {
    let mut call = std::pin::pin!(call);
    loop {
        let (deadline, limit, doing) = progress.deadline(total, timeouts);
        tokio::select! {
            biased;
            answer = &mut call => return answer,
            () = tokio::time::sleep_until(deadline) => {}
        }
        // The transport may have moved on meanwhile; it tells without waking us, for it does so very often.
        if progress.deadline(total, timeouts).0 <= Instant::now() {
            let stall = Stall { doing, waited: limit };
            return Err(ConnectorError::other(Box::new(stall), None));
        }
    }
}

fn with_read_timeout(
    mut response: HttpResponse,
    stall: Duration,
    permit: Option<OwnedSemaphorePermit>,
) -> HttpResponse {
    let inner = response.take_body();
    *response.body_mut() = match inner.bytes() {
        Some(_) => inner,
        None => SdkBody::from_body_1_x(ResponseBody {
            inner,
            stall,
            timer: None,
            failed: false,
            _permit: permit,
        }),
    };
    response
}

struct RequestBody {
    inner: SdkBody,
    progress: Arc<Progress>,
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let frame = ready!(Pin::new(&mut self.inner).poll_frame(cx));
        if let Some(Ok(frame)) = &frame {
            self.progress.took(frame.data_ref().map_or(0, |data| data.len() as u64));
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        Body::is_end_stream(&self.inner)
    }

    fn size_hint(&self) -> SizeHint {
        Body::size_hint(&self.inner)
    }
}

struct ResponseBody {
    inner: SdkBody,
    stall: Duration,
    /// Runs only while somebody waits: a reader that takes its time is no stall of the store.
    timer: Option<Pin<Box<Sleep>>>,
    failed: bool,
    _permit: Option<OwnedSemaphorePermit>,
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = &mut *self;
        if this.failed {
            return Poll::Ready(None);
        }
        if let Poll::Ready(frame) = Pin::new(&mut this.inner).poll_frame(cx) {
            this.timer = None;
            return Poll::Ready(frame);
        }
        let timer = this
            .timer
            .get_or_insert_with(|| Box::pin(tokio::time::sleep(this.stall)));
        ready!(timer.as_mut().poll(cx));
        this.failed = true;
        Poll::Ready(Some(Err(Box::new(Stall {
            doing: "reading the answer",
            waited: this.stall,
        }))))
    }

    fn is_end_stream(&self) -> bool {
        Body::is_end_stream(&self.inner)
    }

    fn size_hint(&self) -> SizeHint {
        Body::size_hint(&self.inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configuration_can_grant_more_time_and_no_end_it_cannot() {
        let secs = Duration::from_secs;
        let yaml = |http: &str| {
            let yaml = format!(
                "type: S3\nconfig: {{bucket: b, endpoint: h, access_key: a, secret_key: s, http_config: {{{http}}}}}"
            );
            match crate::objstore::config::parse(&yaml).unwrap().provider {
                crate::objstore::config::Provider::S3(config) => *config,
                other => panic!("{other:?}"),
            }
        };
        for (http, connecting, answer, completion) in [
            ("", 30, 30, 120),
            ("response_header_timeout: 5s", 30, 30, 120),
            ("response_header_timeout: 0s", 30, 30, 120),
            ("response_header_timeout: 90s", 30, 90, 120),
            ("response_header_timeout: 5m", 30, 300, 300),
            ("tls_handshake_timeout: 45s", 45, 30, 120),
            ("tls_handshake_timeout: 0s", 30, 30, 120),
        ] {
            let config = yaml(http);
            let got = Timeouts::new(secs(30), !config.insecure, &config.http);
            let got = [got.stall, got.connecting, got.answer, got.completion].map(|limit| limit.as_secs());
            assert_eq!(got, [30, connecting, answer, completion], "{http}");
        }
    }
}
