//! The service `thanos.Store`: each of its calls goes its own way.

use std::{
    convert::Infallible,
    task::{Context as TaskContext, Poll},
};

use http::{Request, Response};
use tonic::{body::Body, server::NamedService};
use tower_service::Service;

use super::{
    guard::Guard,
    label_calls::LabelCalls,
    respond::{Responding, no_such_method, respond, stream},
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
    guard: Guard,
}

impl StoreService {
    /// Answers Series with `series` and the label calls with `labels`, if `guard` admits the request.
    pub fn new(series: Series, labels: LabelCalls, guard: Guard) -> Self {
        Self { series, labels, guard }
    }
}

impl NamedService for StoreService {
    const NAME: &'static str = "thanos.Store";
}

impl Service<Request<Body>> for StoreService {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Responding;

    fn poll_ready(&mut self, _: &mut TaskContext<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let Self { series, labels, guard } = self.clone();
        Box::pin(async move {
            Ok(match request.uri().path() {
                SERIES => {
                    stream(request, &guard, async |asked, held, caller| {
                        series.call(asked, held, caller).await
                    })
                    .await
                }
                NAMES => {
                    respond(request, &guard, async |asked, caller| {
                        labels.names(asked, &caller).await
                    })
                    .await
                }
                VALUES => {
                    respond(request, &guard, async |asked, caller| {
                        labels.values(asked, &caller).await
                    })
                    .await
                }
                _ => no_such_method(),
            })
        })
    }
}
