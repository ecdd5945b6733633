//! The gRPC server, called by real clients: tonic's, and a raw one over HTTP/2 that sends any bytes.

mod calls;
mod client;
mod compression;
mod fake;
mod frozen;
mod health;
mod life;
mod running;
mod tls;

use std::{net::SocketAddr, time::Duration};

use narthex::{
    ops::{
        connections,
        grpc::{self, Limits, Running, Settings},
        probe::Probe,
    },
    pb::{
        FILE_DESCRIPTOR_SET,
        thanos::{
            MetricMetadataRequest, info::info_client::InfoClient, info::info_server::InfoServer,
            metadata_client::MetadataClient, metadata_server::MetadataServer,
        },
    },
};
use prometheus_client::registry::Registry;
use tokio::{task::JoinHandle, time::timeout};
use tokio_util::sync::CancellationToken;
use tonic::{service::Routes, transport::Channel};

use self::{client::Raw, fake::Fake};
use super::rig::{Metrics, wait_until};

const LONG: Duration = Duration::from_secs(60);
const SOON: Duration = Duration::from_secs(20);
const METADATA: &str = "/thanos.Metadata/MetricMetadata";
const INFO: &str = "/thanos.info.Info/Info";

/// How a server is started.
struct Start {
    tls: Option<grpc::Tls>,
    age: Duration,
    grace: Duration,
    limits: Limits,
}

impl Default for Start {
    fn default() -> Self {
        Self {
            tls: None,
            age: Duration::ZERO,
            grace: LONG,
            limits: Limits::default(),
        }
    }
}

/// A running server with services that do as they are told.
struct Rig {
    address: SocketAddr,
    fake: Fake,
    probe: Probe,
    registry: Registry,
    running: Running,
    token: CancellationToken,
    served: JoinHandle<()>,
}

impl Rig {
    async fn plain() -> Self {
        Self::start(Start::default()).await
    }

    async fn start(start: Start) -> Self {
        crate::rig::limit::begin();
        let mut registry = Registry::default();
        let probe = Probe::register("sidecar", &mut registry);
        let methods = grpc::methods(FILE_DESCRIPTOR_SET).unwrap();
        let running = Running::register(&mut registry);
        let settings = Settings {
            tls: start.tls,
            max_connection_age: start.age,
            metrics: grpc::Metrics::register(&mut registry, methods),
            connections: connections::Metrics::register(&mut registry),
            running: running.clone(),
            log: None,
            limits: start.limits,
        };
        let fake = Fake::default();
        let (v1, v1alpha) = grpc::reflection(FILE_DESCRIPTOR_SET).unwrap();
        let routes = Routes::new(MetadataServer::new(fake.clone()))
            .add_service(InfoServer::new(fake.clone()).max_decoding_message_size(grpc::MESSAGE_MAX))
            .add_service(grpc::health(&probe))
            .add_service(v1)
            .add_service(v1alpha);
        let bound = grpc::bind("127.0.0.1:0", "--grpc-address").await.unwrap();
        let address = bound.local_address();
        let token = CancellationToken::new();
        let server = bound.listen().unwrap();
        let served = tokio::spawn(server.serve(routes.prepare(), settings, token.clone(), start.grace));
        Self {
            address,
            fake,
            probe,
            registry,
            running,
            token,
            served,
        }
    }

    async fn channel(&self) -> Channel {
        let endpoint = Channel::from_shared(format!("http://{}", self.address)).unwrap();
        endpoint.connect().await.unwrap()
    }

    async fn metadata(&self) -> MetadataClient<Channel> {
        MetadataClient::new(self.channel().await)
    }

    async fn info(&self) -> InfoClient<Channel> {
        InfoClient::new(self.channel().await)
    }

    async fn raw(&self) -> Raw {
        Raw::connect(self.address).await
    }

    fn metrics(&self) -> Metrics {
        let mut page = String::new();
        prometheus_client::encoding::text::encode(&mut page, &self.registry).unwrap();
        Metrics::parse(&page)
    }

    fn metadata_value(&self, name: &str) -> f64 {
        let labels = [("grpc_service", "thanos.Metadata"), ("grpc_method", "MetricMetadata")];
        self.metrics().value(name, &labels).unwrap()
    }

    /// Calls that ended with this code, of all methods.
    fn handled(&self, code: &str) -> f64 {
        let labels = [("grpc_code", code)];
        self.metrics().value("grpc_server_handled_total", &labels).unwrap()
    }

    async fn until_handled(&self, code: &str, times: f64) {
        let what = format!("{times} calls that end with {code}");
        wait_until(SOON, what, async || (self.handled(code) == times).then_some(())).await;
    }

    /// Waits until all streams of the service are dropped.
    async fn until_dropped(&self) {
        let what = "the streams are dropped";
        wait_until(SOON, what, async || (self.fake.running() == 0).then_some(())).await;
    }

    /// Stops the server and waits until it has stopped.
    async fn stop(self) {
        self.token.cancel();
        ended(self.served).await;
    }
}

async fn ended(served: JoinHandle<()>) {
    timeout(SOON, served).await.unwrap().unwrap();
}

/// Asks the fake service to do something, some times.
fn ask(what: &str, times: i32) -> MetricMetadataRequest {
    MetricMetadataRequest {
        metric: what.to_owned(),
        limit: times,
        partial_response_strategy: 0,
    }
}
