//! The program beside a Prometheus, and a gRPC client before it.

use std::time::Duration;

use narthex::pb::thanos::{
    LabelMatcher, Series, SeriesRequest, series_response::Result as Message, store_client::StoreClient,
};
use tokio::{sync::OnceCell, time::timeout};
use tonic::{
    Status, Streaming,
    transport::{Channel, Endpoint},
};

use super::fake::{Fake, Settings, Step};
use crate::rig::Sidecar;

/// How long anything may take; the rest is for busy machines, and for calls that wait for the turn of many others.
pub(crate) const LONG: Duration = Duration::from_secs(120);

/// What came of a call.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) series: Vec<Series>,
    pub(crate) end: Result<(), Status>,
}

/// The scene of all tests that only look at answers.
pub(crate) async fn shared() -> &'static Scene {
    static SHARED: OnceCell<Scene> = OnceCell::const_new();
    // A call that failed keeps its place for a moment: with few places the many of these tests would take minutes.
    SHARED.get_or_init(|| Scene::start(5000)).await
}

/// The program beside a scripted Prometheus.
pub(crate) struct Scene {
    pub(crate) fake: Fake,
    pub(crate) sidecar: Sidecar,
}

impl Scene {
    /// One whose Prometheus takes `limit` remote reads at once.
    pub(crate) async fn start(limit: usize) -> Scene {
        let version = Some("2.42.0");
        Scene::start_with(Settings { limit, version }).await
    }

    /// Likewise, with more arguments for the program.
    pub(crate) async fn start_with_args(limit: usize, args: &[&str]) -> Scene {
        let version = Some("2.42.0");
        Scene::start_as(Settings { limit, version }, args).await
    }

    pub(crate) async fn start_with(settings: Settings) -> Scene {
        Scene::start_as(settings, &[]).await
    }

    async fn start_as(settings: Settings, args: &[&str]) -> Scene {
        let fake = Fake::start(settings);
        let mut all = vec![format!("--prometheus.url={}", fake.url())];
        all.extend(args.iter().map(|&arg| arg.to_owned()));
        let sidecar = Sidecar::start(all);
        sidecar.wait_ready(LONG).await;
        Scene { fake, sidecar }
    }

    pub(crate) async fn client(&self) -> Client {
        Client::connect(&self.sidecar).await
    }

    /// Waits until so many calls run or wait.
    pub(crate) async fn wait_for_pending(&self, count: usize) {
        wait_for_pending(&self.sidecar, count).await;
    }

    /// Waits until the fake gives so many answers.
    pub(crate) async fn wait_for_busy(&self, count: usize) {
        let probe = async || (self.fake.busy() == count).then_some(());
        self.sidecar
            .wait_until(LONG, format!("{count} connections with an answer"), probe)
            .await;
    }
}

fn labels(series: &Series) -> impl Iterator<Item = (&str, &str)> {
    series.labels.iter().map(|label| (&*label.name, &*label.value))
}

impl Outcome {
    /// What was sent is in order.
    pub(crate) fn assert_sorted(&self, what: &str) {
        let sorted = self.series.is_sorted_by(|a, b| labels(a).le(labels(b)));
        assert!(sorted, "{what}: out of order");
    }

    /// The call failed; gives the status.
    pub(crate) fn failed(self, what: &str) -> Status {
        self.assert_sorted(what);
        self.end.expect_err(what)
    }
}

/// Waits until so many calls run or wait.
pub(crate) async fn wait_for_pending(sidecar: &Sidecar, count: usize) {
    let name = "thanos_store_server_pending_series_requests";
    let probe = async || (sidecar.metric(name).await? == count as f64).then_some(());
    sidecar.wait_until(LONG, format!("{name} {count}"), probe).await;
}

/// A connection to the program.
#[derive(Clone, Debug)]
pub(crate) struct Client(StoreClient<Channel>);

impl Client {
    pub(crate) async fn connect(sidecar: &Sidecar) -> Client {
        let endpoint = Endpoint::from_shared(sidecar.grpc_url()).unwrap();
        Client::over(endpoint, sidecar).await
    }

    /// Over a connection from this address.
    pub(crate) async fn from(sidecar: &Sidecar, address: [u8; 4]) -> Client {
        let endpoint = Endpoint::from_shared(sidecar.grpc_url()).unwrap();
        Client::over(endpoint.local_address(Some(address.into())), sidecar).await
    }

    /// Over a connection with windows of 64 KiB, which a client that does not read has soon filled.
    pub(crate) async fn narrow(sidecar: &Sidecar) -> Client {
        let endpoint = Endpoint::from_shared(sidecar.grpc_url()).unwrap();
        let endpoint = endpoint
            .initial_stream_window_size(65_535)
            .initial_connection_window_size(65_535);
        Client::over(endpoint, sidecar).await
    }

    async fn over(endpoint: Endpoint, sidecar: &Sidecar) -> Client {
        // The port opens a moment after the program says that it is ready.
        let connect = async || endpoint.connect().await.ok();
        let channel = sidecar.wait_until(LONG, "the port of gRPC", connect).await;
        Client(StoreClient::new(channel).max_decoding_message_size(usize::MAX))
    }

    /// The generated client.
    pub(crate) fn raw(&self) -> StoreClient<Channel> {
        self.0.clone()
    }

    /// Starts a call for `__name__="key"`.
    pub(crate) async fn start(&self, key: &str) -> Result<Streaming<narthex::pb::thanos::SeriesResponse>, Status> {
        self.request(request(key)).await
    }

    pub(crate) async fn request(
        &self,
        request: SeriesRequest,
    ) -> Result<Streaming<narthex::pb::thanos::SeriesResponse>, Status> {
        let answer = timeout(LONG, self.0.clone().series(request)).await;
        Ok(answer.expect("a call starts in time")?.into_inner())
    }

    /// Asks for `__name__="key"` and reads all of the answer.
    pub(crate) async fn ask(&self, key: &str) -> Outcome {
        match self.start(key).await {
            Ok(stream) => read(stream).await,
            Err(status) => Outcome {
                series: Vec::new(),
                end: Err(status),
            },
        }
    }
}

/// Reads the rest of an answer.
pub(crate) async fn read(mut stream: Streaming<narthex::pb::thanos::SeriesResponse>) -> Outcome {
    let mut series = Vec::new();
    let end = loop {
        match timeout(LONG, stream.message())
            .await
            .expect("an answer goes on in time")
        {
            Ok(Some(message)) => match message.result {
                Some(Message::Series(one)) => series.push(one),
                Some(Message::Batch(batch)) => series.extend(batch.series),
                other => panic!("neither series nor batch: {other:?}"),
            },
            Ok(None) => break Ok(()),
            Err(status) => break Err(status),
        }
    };
    Outcome { series, end }
}

/// A request for `__name__="key"`, at all times.
pub(crate) fn request(key: &str) -> SeriesRequest {
    SeriesRequest {
        min_time: 0,
        max_time: i64::MAX,
        matchers: vec![LabelMatcher {
            name: "__name__".to_owned(),
            value: key.to_owned(),
            ..LabelMatcher::default()
        }],
        ..SeriesRequest::default()
    }
}

/// A script that always answers with these bytes.
pub(crate) fn always(
    bytes: Vec<u8>,
) -> impl FnMut(&narthex::pb::prometheus::ReadRequest) -> Vec<Step> + Send + 'static {
    move |_| vec![Step::Send(bytes.clone())]
}
