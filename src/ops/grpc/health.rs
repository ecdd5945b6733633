//! The health service: serving as long as the process is ready.

use std::pin::Pin;

use futures_util::{Stream, stream};
use tonic::{Request, Response, Status};

use crate::{
    ops::probe::{Probe, Readiness},
    pb::health::{
        HealthCheckRequest, HealthCheckResponse, HealthListRequest, HealthListResponse,
        health_check_response::ServingStatus,
        health_server::{Health, HealthServer},
    },
};

/// The health service over `probe`. It knows one service, the server as a whole, by the empty name: serving exactly while
/// the process is ready. A watch sends each change; when the process stops it sends that and ends, so that no watch keeps
/// the process up.
pub fn health(probe: &Probe) -> HealthServer<impl Health> {
    HealthServer::new(HealthService(probe.clone()))
}

#[derive(Debug)]
struct HealthService(Probe);

impl HealthService {
    fn now(&self) -> HealthCheckResponse {
        answer(status(*self.0.readiness().borrow()))
    }
}

fn status(readiness: Readiness) -> ServingStatus {
    match readiness {
        Readiness::Ready => ServingStatus::Serving,
        Readiness::NotReady | Readiness::Stopping => ServingStatus::NotServing,
    }
}

fn answer(status: ServingStatus) -> HealthCheckResponse {
    HealthCheckResponse { status: status.into() }
}

type Watch = Pin<Box<dyn Stream<Item = Result<HealthCheckResponse, Status>> + Send>>;

#[tonic::async_trait]
impl Health for HealthService {
    async fn check(&self, request: Request<HealthCheckRequest>) -> Result<Response<HealthCheckResponse>, Status> {
        if request.get_ref().service.is_empty() {
            Ok(Response::new(self.now()))
        } else {
            Err(Status::not_found("unknown service"))
        }
    }

    async fn list(&self, _: Request<HealthListRequest>) -> Result<Response<HealthListResponse>, Status> {
        let statuses = [(String::new(), self.now())].into();
        Ok(Response::new(HealthListResponse { statuses }))
    }

    type WatchStream = Watch;

    async fn watch(&self, request: Request<HealthCheckRequest>) -> Result<Response<Watch>, Status> {
        if !request.get_ref().service.is_empty() {
            // The protocol wants the watch of an unknown service to go on: it could become known.
            return Ok(Response::new(unknown(&self.0)));
        }
        let mut changes = self.0.readiness();
        changes.mark_changed();
        let statuses = stream::unfold((changes, None), async |(mut changes, last)| {
            loop {
                if last == Some(Readiness::Stopping) || changes.changed().await.is_err() {
                    return None;
                }
                let readiness = *changes.borrow_and_update();
                if last.map(status) == Some(status(readiness)) {
                    // To whom it was not serving before, stopping is no news; but it ends the watch.
                    if readiness == Readiness::Stopping {
                        return None;
                    }
                    continue;
                }
                return Some((Ok(answer(status(readiness))), (changes, Some(readiness))));
            }
        });
        Ok(Response::new(Box::pin(statuses)))
    }
}

fn unknown(probe: &Probe) -> Watch {
    let mut changes = probe.readiness();
    let stopped = async move {
        // An error means that the probe is gone, and with it the process.
        let _ = changes.wait_for(|readiness| *readiness == Readiness::Stopping).await;
        None
    };
    let first = stream::iter([Ok(answer(ServingStatus::ServiceUnknown))]);
    let rest = stream::once(stopped);
    Box::pin(futures_util::StreamExt::chain(
        first,
        futures_util::StreamExt::filter_map(rest, std::future::ready),
    ))
}
