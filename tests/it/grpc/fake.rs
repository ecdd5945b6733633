//! Services that do as the request says.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
};

use futures_util::{Stream, StreamExt as _, stream};
use narthex::{
    ops::grpc::Caller,
    pb::thanos::{
        MetricMetadataRequest, MetricMetadataResponse,
        info::{InfoRequest, InfoResponse, info_server::Info},
        metadata_server::Metadata,
        metric_metadata_response::Result as Is,
    },
};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

type Messages = Pin<Box<dyn Stream<Item = Result<MetricMetadataResponse, Status>> + Send>>;

/// Clones are the same service.
#[derive(Clone, Debug, Default)]
pub(super) struct Fake {
    running: Arc<AtomicUsize>,
    begun: Arc<AtomicUsize>,
    /// What the streams wait for that end by it.
    pub(super) finish: CancellationToken,
}

/// Counts what runs.
struct Running(Arc<AtomicUsize>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// A stream that is counted as long as it is there.
struct Counted(Messages, #[allow(dead_code, reason = "its drop counts")] Running);

impl Stream for Counted {
    type Item = Result<MetricMetadataResponse, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.as_mut().poll_next(cx)
    }
}

pub(super) fn text(text: impl Into<String>) -> MetricMetadataResponse {
    MetricMetadataResponse {
        result: Some(Is::Warning(text.into())),
    }
}

pub(super) fn empty() -> MetricMetadataResponse {
    MetricMetadataResponse { result: None }
}

/// The messages of "mixed".
pub(super) fn mixed(times: i32) -> Vec<MetricMetadataResponse> {
    let once = || [empty(), text("short"), text("long ".repeat(60_000)), empty()];
    (0..times).flat_map(|_| once()).collect()
}

/// Who calls, and how many seconds of its time are left, rounded up.
fn who(caller: &Caller) -> String {
    let left = |at: Instant| at.saturating_duration_since(Instant::now()).as_secs_f64().ceil();
    format!("{:?} {:?}", caller.peer(), caller.deadline().map(left))
}

impl Fake {
    /// How many calls there are inside the service.
    pub(super) fn running(&self) -> usize {
        self.running.load(Ordering::SeqCst)
    }

    /// How many have begun so far.
    pub(super) fn begun(&self) -> usize {
        self.begun.load(Ordering::SeqCst)
    }

    fn run(&self) -> Running {
        self.begun.fetch_add(1, Ordering::SeqCst);
        self.running.fetch_add(1, Ordering::SeqCst);
        Running(Arc::clone(&self.running))
    }
}

#[tonic::async_trait]
impl Metadata for Fake {
    type MetricMetadataStream = Messages;

    async fn metric_metadata(&self, request: Request<MetricMetadataRequest>) -> Result<Response<Messages>, Status> {
        let caller = request.extensions().get::<Caller>().unwrap().clone();
        let request = request.into_inner();
        let finish = self.finish.clone();
        let first = stream::iter([Ok(text("first"))]);
        let what = request.metric.split(' ').next().unwrap_or_default();
        let messages: Messages = match what {
            "count" => Box::pin(stream::iter((0..request.limit).map(|n| Ok(text(n.to_string()))))),
            "mixed" => Box::pin(stream::iter(mixed(request.limit).into_iter().map(Ok))),
            "hang" => Box::pin(first.chain(stream::pending())),
            "until" => Box::pin(first.chain(stream::once(async move {
                finish.cancelled().await;
                Ok(text("last"))
            }))),
            "who" => Box::pin(stream::once(async move { Ok(text(who(&caller))) })),
            "place" => Box::pin(first.chain(stream::once(async move {
                caller.set_stage("in the middle of the test");
                std::future::pending().await
            }))),
            "endless" => Box::pin(stream::repeat_with(|| Ok(text("x".repeat(64 << 10))))),
            "panic" => Box::pin(first.chain(stream::once(async {
                // tonic hands on what it has only when there is nothing more at once.
                tokio::task::yield_now().await;
                panic!("no more messages")
            }))),
            "fail" => Box::pin(first.chain(stream::iter([Err(Status::aborted("in the middle"))]))),
            _ => return Err(Status::not_found(format!("nothing called {what}"))),
        };
        Ok(Response::new(Box::pin(Counted(messages, self.run()))))
    }
}

#[tonic::async_trait]
impl Info for Fake {
    async fn info(&self, request: Request<InfoRequest>) -> Result<Response<InfoResponse>, Status> {
        let _running = self.run();
        let what = request
            .metadata()
            .get("do")
            .map(|what| what.to_str().unwrap().to_owned());
        match what.as_deref() {
            Some("hang") => std::future::pending().await,
            Some("panic") => panic!("no info"),
            _ => Ok(Response::new(InfoResponse {
                component_type: "sidecar".to_owned(),
                ..InfoResponse::default()
            })),
        }
    }
}
