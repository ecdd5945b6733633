//! The service `thanos.Store`: dispatches its calls.

use std::{
    convert::Infallible,
    task::{Context as TaskContext, Poll},
};

use http::{Request, Response};
use tonic::{body::Body, server::NamedService};
use tower_service::Service;

use super::{
    label_calls::LabelCalls,
    request_limits::RequestLimits,
    respond::{ResponseFuture, no_such_method, respond, stream},
    series::Series,
};

/// The HTTP/2 paths of its methods.
const SERIES: &str = "/thanos.Store/Series";
const NAMES: &str = "/thanos.Store/LabelNames";
const VALUES: &str = "/thanos.Store/LabelValues";

/// The service; clones share it.
#[derive(Clone, Debug)]
pub struct StoreService {
    series: Series,
    labels: LabelCalls,
    request_limits: RequestLimits,
}

impl StoreService {
    /// Answers Series with `series` and the label calls with `labels`, if `request_limits` admits the request.
    pub fn new(series: Series, labels: LabelCalls, request_limits: RequestLimits) -> Self {
        Self {
            series,
            labels,
            request_limits,
        }
    }
}

impl NamedService for StoreService {
    const NAME: &'static str = "thanos.Store";
}

impl Service<Request<Body>> for StoreService {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = ResponseFuture;

    fn poll_ready(&mut self, _: &mut TaskContext<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let Self {
            series,
            labels,
            request_limits,
        } = self.clone();
        Box::pin(async move {
            Ok(match request.uri().path() {
                SERIES => {
                    stream(request, &request_limits, async |asked, reservation, caller| {
                        series.call(asked, reservation, caller).await
                    })
                    .await
                }
                NAMES => {
                    respond(request, &request_limits, async |asked, caller| {
                        labels.names(asked, &caller).await
                    })
                    .await
                }
                VALUES => {
                    respond(request, &request_limits, async |asked, caller| {
                        labels.values(asked, &caller).await
                    })
                    .await
                }
                _ => no_such_method(),
            })
        })
    }
}
