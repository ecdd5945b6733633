//! A call whose Prometheus and client are the test's own.

use std::{
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    time::Duration,
};

use futures_util::{FutureExt as _, Stream, StreamExt as _, stream};
use http_body_util::BodyExt as _;
use prometheus_client::registry::Registry;
use tokio::time::sleep;

use super::super::*;
use crate::{
    ops::grpc::Caller,
    prometheus::remote_read::{
        Frames,
        gate::{ClientKey, Gate, Permit},
    },
    storeapi::{
        budget::Budget,
        series::{
            answer::{
                Plan,
                tests::{encode, plan, set, streaming},
            },
            metrics::Metrics,
            read_ahead::{Retry, memory::Memory},
        },
    },
};

pub(super) const PATIENCE: Duration = Duration::from_secs(30);
pub(super) const MIB: usize = 1 << 20;
/// Bytes of a chunk.
pub(super) const CHUNK: usize = 100_000;

/// One call with the only remote-read slot.
pub(super) struct Call {
    pub(super) body: SeriesBody,
    pub(super) gate: Gate,
    pub(super) registry: Registry,
    pub(super) budget: Budget,
    pub(super) caller: Caller,
    /// What the status at the end says, as it is sent.
    pub(super) message: String,
    /// Whether the answer of Prometheus was dropped.
    pub(super) dropped: Arc<AtomicBool>,
    /// Frames that were read of Prometheus.
    pub(super) read: Arc<AtomicUsize>,
}

/// What a call is given beside its answer.
pub(super) struct Setup {
    pub(super) budget: Budget,
    pub(super) read_ahead: usize,
    pub(super) spill_dir: Option<SpillDir>,
    pub(super) patience: Duration,
    pub(super) retry: Option<Vec<bytes::Bytes>>,
    /// Memory that is shared with other calls.
    pub(super) shared: Option<Memory>,
    /// The query whose series are streamed; those of the others are collected.
    pub(super) streamed: Option<i64>,
    /// What is made of the response.
    pub(super) answer: fn(Plan, Box<Frames>, Permit) -> Answer,
    /// Series in one message.
    pub(super) batch: usize,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            budget: Budget::new(256 * MIB),
            read_ahead: 64 * MIB,
            spill_dir: None,
            patience: PATIENCE,
            retry: None,
            shared: None,
            streamed: Some(0),
            answer: streaming,
            batch: 1,
        }
    }
}

struct Tell(Arc<AtomicBool>);

impl Drop for Tell {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

async fn permit() -> Permit {
    Gate::new(1).acquire(ClientKey::default(), None).await.unwrap()
}

impl Call {
    /// An answer of these frames.
    pub(super) async fn start(frames: impl Stream<Item = Bytes> + Send + 'static, setup: Setup) -> Call {
        let (gate, dropped, read) = (Gate::new(1), Arc::new(AtomicBool::new(false)), Arc::default());
        let mut registry = Registry::default();
        let metrics = Metrics::register(&mut registry);
        let (tell, count) = (Tell(Arc::clone(&dropped)), Arc::clone(&read));
        let frames = frames.map(move |frame| {
            let _ = &tell;
            AtomicUsize::fetch_add(&count, 1, Ordering::SeqCst);
            Ok(frame)
        });
        let first = plan(setup.streamed, metrics.clone());
        let answer = (setup.answer)(
            first,
            Box::new(Frames::of(frames)),
            gate.acquire(ClientKey::default(), None).await.unwrap(),
        );
        let budget = setup.budget;
        let own = || Memory::new(budget.clone(), setup.read_ahead);
        let memory = setup.shared.unwrap_or_else(own);
        let (mut retry, counted) = (setup.retry, metrics.clone());
        let caller = Caller::unknown();
        let asking = caller.clone();
        let delivery = Delivery {
            batch: setup.batch,
            patience: setup.patience,
            share: memory.share(),
            metrics: metrics.clone(),
            caller: caller.clone(),
            retry: Box::new(move || {
                let asking = asking.clone();
                let (frames, plan) = (retry.take()?, plan(None, counted.clone()));
                let retry: Retry = Box::pin(async move {
                    asking.set_stage("waiting for Prometheus");
                    let frames = Frames::of(stream::iter(frames.into_iter().map(Ok)));
                    Ok(streaming(plan, Box::new(frames), permit().await))
                });
                Some(retry)
            }),
        };
        let body = SeriesBody::new(answer, delivery, setup.spill_dir, metrics.pending());
        Call {
            body,
            gate,
            registry,
            budget,
            caller,
            message: String::new(),
            dropped,
            read,
        }
    }

    /// The bytes of the next piece, or the status at the end.
    pub(super) async fn next(&mut self) -> Result<Bytes, String> {
        let frame = self.body.frame().await.expect("trailers come last").unwrap();
        match frame.into_data() {
            Ok(piece) => Ok(piece),
            Err(frame) => {
                let trailers = frame.into_trailers().unwrap();
                let text = |name| {
                    trailers
                        .get(name)
                        .map_or("", |value| value.to_str().unwrap())
                        .to_owned()
                };
                self.message = text("grpc-message");
                Err(text("grpc-status"))
            }
        }
    }

    /// All that still comes, with a pause before each piece, and the status.
    pub(super) async fn rest(&mut self, pause: Duration) -> (Vec<u8>, String) {
        let mut all = Vec::new();
        loop {
            sleep(pause).await;
            match self.next().await {
                Ok(piece) => all.extend_from_slice(&piece),
                Err(status) => return (all, status),
            }
        }
    }

    pub(super) fn metric(&self, name: &str) -> String {
        let mut page = String::new();
        prometheus_client::encoding::text::encode(&mut page, &self.registry).unwrap();
        let line = page.lines().find(|line| line.starts_with(name));
        line.unwrap().rsplit(' ').next().unwrap().to_owned()
    }

    pub(super) fn read(&self) -> usize {
        self.read.load(Ordering::SeqCst)
    }

    /// The place is free, and the connection to Prometheus closed, without the client's doing.
    pub(super) fn assert_given_up(&self) {
        assert!(self.dropped.load(Ordering::SeqCst));
        let permit = self
            .gate
            .acquire(ClientKey::default(), None)
            .now_or_never()
            .expect("the place is free")
            .unwrap();
        permit.finish();
        // What the connection holds goes with the call.
        assert!(self.budget.used() <= MIB / 2, "{}", self.budget.used());
    }
}

/// Sorted series without end, 100 kB each.
pub(super) fn endless() -> impl Stream<Item = Bytes> + Send {
    stream::iter((0_u64..).map(|at| encode(0, &[(set(&[("n", &format!("{at:012}"))]), vec![at as u8; CHUNK])])))
}

/// What a client that keeps up gets of the first frames.
pub(super) async fn wanted(frames: usize) -> Vec<u8> {
    let mut call = Call::start(endless().take(frames), Setup::default()).await;
    let (all, status) = call.rest(Duration::ZERO).await;
    assert_eq!(status, "0");
    all
}

/// One frame for each of these values.
pub(super) fn frames(values: &[&str]) -> Vec<Bytes> {
    let one = |value: &&str| encode(0, &[(set(&[("n", value)]), vec![7; 9])]);
    values.iter().map(one).collect()
}
