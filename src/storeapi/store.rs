//! The service `thanos.Store`: Series goes its own way, the label calls through the generated server.

use std::{
    convert::Infallible,
    future::Future,
    pin::Pin,
    task::{Context as TaskContext, Poll},
};

use http::{Request as HttpRequest, Response as HttpResponse};
use tonic::{Request, Response, Status, body::Body, server::NamedService};
use tower_service::Service;

use super::{
    Messages,
    guard::{Guard, Guarded},
    label_calls::LabelCalls,
    series::Series,
};
use crate::pb::thanos::{
    LabelNamesRequest, LabelNamesResponse, LabelValuesRequest, LabelValuesResponse, SeriesRequest, SeriesResponse,
    store_server::{Store, StoreServer},
};

/// The HTTP/2 path of Series.
const SERIES: &str = "/thanos.Store/Series";

/// The service; clones share it.
#[derive(Clone, Debug)]
pub struct StoreService {
    series: Series,
    guard: Guard,
    rest: Guarded<StoreServer<Rest>>,
}

impl StoreService {
    /// Answers Series with `series` and the label calls with `labels`, if `guard` lets them through; a request has at most
    /// `message_max` bytes.
    pub fn new(series: Series, labels: LabelCalls, guard: Guard, message_max: usize) -> Self {
        let rest = StoreServer::new(Rest(labels)).max_decoding_message_size(message_max);
        let rest = Guarded::new(rest, guard.clone());
        Self { series, guard, rest }
    }
}

impl NamedService for StoreService {
    const NAME: &'static str = <StoreServer<Rest> as NamedService>::NAME;
}

impl Service<HttpRequest<Body>> for StoreService {
    type Response = HttpResponse<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<HttpResponse<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut TaskContext<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: HttpRequest<Body>) -> Self::Future {
        if request.uri().path() == SERIES {
            let (series, guard) = (self.series.clone(), self.guard.clone());
            return Box::pin(async move { Ok(series.respond(request, &guard).await) });
        }
        self.rest.call(request)
    }
}

#[derive(Debug)]
struct Rest(LabelCalls);

#[tonic::async_trait]
impl Store for Rest {
    type SeriesStream = Messages<SeriesResponse>;

    async fn series(&self, _: Request<SeriesRequest>) -> Result<Response<Self::SeriesStream>, Status> {
        // Its messages are written without these types.
        Err(Status::unimplemented("Series is answered elsewhere"))
    }

    async fn label_names(&self, request: Request<LabelNamesRequest>) -> Result<Response<LabelNamesResponse>, Status> {
        Ok(Response::new(self.0.names(request.into_inner()).await?))
    }

    async fn label_values(
        &self,
        request: Request<LabelValuesRequest>,
    ) -> Result<Response<LabelValuesResponse>, Status> {
        Ok(Response::new(self.0.values(request.into_inner()).await?))
    }
}
