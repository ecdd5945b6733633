mod files;

use std::{
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    time::Duration,
};

use futures_util::{FutureExt as _, Stream, StreamExt as _, stream};
use http_body_util::BodyExt as _;
use prometheus_client::{metrics::gauge::Gauge, registry::Registry};
use tokio::time::{Instant, sleep};

use super::*;
use crate::{
    ops::grpc::Caller,
    prometheus::remote_read::{
        Frames,
        gate::{ClientKey, Gate, Permit},
    },
    storeapi::{
        budget::Budget,
        context::CLIENT_STALL,
        series::{
            answer::tests::{encode, plan, set},
            metrics::Metrics,
            read_ahead::{PIECE, Retry, memory::Memory},
        },
    },
};

const PATIENCE: Duration = Duration::from_secs(30);
const MIB: usize = 1 << 20;
/// Bytes of a chunk.
const CHUNK: usize = 100_000;

/// One call with the only remote-read slot.
struct Call {
    body: SeriesBody,
    gate: Gate,
    registry: Registry,
    budget: Budget,
    /// Whether the answer of Prometheus was dropped.
    dropped: Arc<AtomicBool>,
    /// Frames that were read of Prometheus.
    read: Arc<AtomicUsize>,
}

/// What a call is given beside its answer.
struct Setup {
    budget: Budget,
    read_ahead: usize,
    spill_dir: Option<SpillDir>,
    patience: Duration,
    retry: Option<Vec<bytes::Bytes>>,
    /// Memory that is shared with other calls.
    shared: Option<Memory>,
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
    async fn start(frames: impl Stream<Item = Bytes> + Send + 'static, setup: Setup) -> Call {
        let (gate, dropped, read) = (Gate::new(1), Arc::new(AtomicBool::new(false)), Arc::default());
        let mut registry = Registry::default();
        let metrics = Metrics::register(&mut registry);
        let (tell, count) = (Tell(Arc::clone(&dropped)), Arc::clone(&read));
        let frames = frames.map(move |frame| {
            let _ = &tell;
            AtomicUsize::fetch_add(&count, 1, Ordering::SeqCst);
            Ok(frame)
        });
        let first = plan(Some(0), metrics.clone());
        let answer = Answer::streaming(
            first,
            Box::new(Frames::of(frames)),
            gate.acquire(ClientKey::default(), None).await.unwrap(),
        );
        let budget = setup.budget;
        let own = || Memory::new(budget.clone(), setup.read_ahead);
        let memory = setup.shared.unwrap_or_else(own);
        let (mut retry, counted) = (setup.retry, metrics.clone());
        let delivery = Delivery {
            batch: 1,
            patience: setup.patience,
            share: memory.share(),
            metrics: metrics.clone(),
            caller: Caller::unknown(),
            retry: Box::new(move || {
                let (frames, plan) = (retry.take()?, plan(None, counted.clone()));
                let retry: Retry = Box::pin(async move {
                    let frames = Frames::of(stream::iter(frames.into_iter().map(Ok)));
                    Ok(Answer::streaming(plan, Box::new(frames), permit().await))
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
            dropped,
            read,
        }
    }

    /// The bytes of the next piece, or the status at the end.
    async fn next(&mut self) -> Result<Bytes, String> {
        let frame = self.body.frame().await.expect("trailers come last").unwrap();
        match frame.into_data() {
            Ok(piece) => Ok(piece),
            Err(frame) => Err(frame.into_trailers().unwrap()["grpc-status"]
                .to_str()
                .unwrap()
                .to_owned()),
        }
    }

    /// All that still comes, with a pause before each piece, and the status.
    async fn rest(&mut self, pause: Duration) -> (Vec<u8>, String) {
        let mut all = Vec::new();
        loop {
            sleep(pause).await;
            match self.next().await {
                Ok(piece) => all.extend_from_slice(&piece),
                Err(status) => return (all, status),
            }
        }
    }

    fn metric(&self, name: &str) -> String {
        let mut page = String::new();
        prometheus_client::encoding::text::encode(&mut page, &self.registry).unwrap();
        let line = page.lines().find(|line| line.starts_with(name));
        line.unwrap().rsplit(' ').next().unwrap().to_owned()
    }

    fn read(&self) -> usize {
        self.read.load(Ordering::SeqCst)
    }

    /// The place is free, and the connection to Prometheus closed, without the client's doing.
    fn assert_given_up(&self) {
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
fn endless() -> impl Stream<Item = Bytes> + Send {
    stream::iter((0_u64..).map(|at| encode(0, &[(set(&[("n", &format!("{at:012}"))]), vec![at as u8; CHUNK])])))
}

/// What a client that keeps up gets of the first frames.
async fn wanted(frames: usize) -> Vec<u8> {
    let mut call = Call::start(endless().take(frames), Setup::default()).await;
    let (all, status) = call.rest(Duration::ZERO).await;
    assert_eq!(status, "0");
    all
}

#[tokio::test(start_paused = true)]
async fn a_client_that_reads_slowly_gets_all_and_prometheus_does_not_wait_for_it() {
    let mut call = Call::start(endless().take(200), Setup::default()).await;
    call.next().await.unwrap();
    sleep(Duration::from_secs(1)).await;
    // All was read, and the place is free, though the client has most of it still to come.
    assert_eq!(call.read(), 200);
    assert!(call.dropped.load(Ordering::SeqCst));
    call.gate
        .acquire(ClientKey::default(), None)
        .now_or_never()
        .expect("the place is free")
        .unwrap()
        .finish();
    assert!(call.budget.used() > 18_000_000);
    let (rest, status) = call.rest(CLIENT_STALL - Duration::from_secs(1)).await;
    assert_eq!(status, "0");
    let wanted = wanted(200).await;
    assert!(wanted.ends_with(&rest) && wanted.len() - rest.len() <= 300_000);
    assert_eq!(call.budget.used(), 0);
    assert_eq!(call.metric("narthex_series_clients_stalled_total"), "0");
    assert_eq!(call.metric("narthex_series_clients_lagged_total"), "0");
    assert_eq!(call.metric("narthex_series_sent_total"), "200");
}

#[tokio::test(start_paused = true)]
async fn without_room_prometheus_waits_for_so_long_in_all_and_not_longer() {
    let setup = Setup {
        read_ahead: 2 * MIB,
        ..Setup::default()
    };
    let (mut call, start) = (Call::start(endless(), setup).await, Instant::now());
    let mut pieces = 0;
    let status = loop {
        sleep(Duration::from_secs(1)).await;
        match call.next().await {
            Ok(_) => pieces += 1,
            Err(status) => break status,
        }
    };
    assert_eq!(status, "10");
    assert!(start.elapsed() >= PATIENCE && pieces >= 29, "{pieces}");
    assert!(
        start.elapsed() < PATIENCE + Duration::from_secs(10),
        "{:?}",
        start.elapsed()
    );
    assert_eq!(call.metric("narthex_series_clients_lagged_total"), "1");
    // What is held of the answer is gone, and so is the request; the pause in which Prometheus notices has passed.
    sleep(Duration::from_secs(1)).await;
    call.assert_given_up();
}

#[tokio::test(start_paused = true)]
async fn a_client_that_caught_up_and_lags_again_is_read_ahead_for_again() {
    let pause = stream::once(async { sleep(Duration::from_secs(5)).await }).filter_map(|()| async { None });
    let frames = endless().take(10).chain(pause).chain(endless().skip(10));
    let mut call = Call::start(frames, Setup::default()).await;
    call.next().await.unwrap();
    sleep(Duration::from_secs(1)).await;
    // It takes what was read ahead, and then waits with its own look until Prometheus goes on.
    while call.read() <= 10 {
        call.next().await.unwrap();
    }
    let before = call.read();
    assert!(before < 20, "{before}");
    sleep(PATIENCE / 2).await;
    assert!(call.read() > before + 100, "{}", call.read());
    sleep(PATIENCE).await;
    assert_eq!(call.metric("narthex_series_clients_lagged_total"), "1");
    // A call that has ended so is not ended once more for another reason.
    sleep(2 * CLIENT_STALL).await;
    assert_eq!(call.metric("narthex_series_clients_stalled_total"), "0");
}

#[tokio::test(start_paused = true)]
async fn memory_is_never_more_than_the_room_and_a_piece() {
    let setup = Setup {
        read_ahead: 4 * MIB,
        ..Setup::default()
    };
    let mut call = Call::start(endless(), setup).await;
    let mut most = 0;
    for _ in 0..100 {
        sleep(Duration::from_millis(200)).await;
        most = most.max(call.budget.used());
        call.next().await.unwrap();
    }
    assert!(most > 2 * MIB && most <= 4 * MIB, "{most}");
}

#[tokio::test(start_paused = true)]
async fn a_client_that_stops_reading_loses_what_is_held_for_it_and_is_told() {
    for first in [false, true] {
        let mut call = Call::start(endless().take(50), Setup::default()).await;
        if first {
            call.next().await.unwrap();
        }
        sleep(CLIENT_STALL / 2).await;
        assert!(call.budget.used() > 0);
        sleep(CLIENT_STALL).await;
        call.assert_given_up();
        assert_eq!(call.metric("narthex_series_clients_stalled_total"), "1");
        assert_eq!(call.next().await.unwrap_err(), "10");
        assert!(call.body.frame().await.is_none());
        assert_eq!(call.metric("thanos_store_server_pending_series_requests"), "1");
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_stops_reading_loses_its_call_in_time_though_prometheus_sends_nothing_either() {
    let pause = stream::once(async { sleep(CLIENT_STALL - Duration::from_secs(20)).await });
    let frames = endless()
        .take(20)
        .chain(pause.filter_map(|()| async { None }))
        .chain(endless().skip(20).take(1))
        .chain(stream::pending());
    let mut call = Call::start(frames, Setup::default()).await;
    call.next().await.unwrap();
    sleep(CLIENT_STALL - Duration::from_secs(1)).await;
    assert_eq!(
        (call.read(), call.metric("narthex_series_clients_stalled_total")),
        (21, "0".to_owned())
    );
    sleep(Duration::from_secs(2)).await;
    call.assert_given_up();
    assert_eq!(call.metric("narthex_series_clients_stalled_total"), "1");
    assert_eq!(call.next().await.unwrap_err(), "10");
}

#[tokio::test(start_paused = true)]
async fn of_too_many_slow_clients_the_last_loses_its_call_and_half_of_the_memory_is_left() {
    let budget = Budget::new(4 * MIB);
    let memory = Memory::new(budget.clone(), 0);
    let mut calls = Vec::new();
    for _ in 0..5 {
        let setup = Setup {
            budget: budget.clone(),
            shared: Some(memory.clone()),
            ..Setup::default()
        };
        let mut call = Call::start(endless(), setup).await;
        call.next().await.unwrap();
        calls.push(call);
    }
    sleep(Duration::from_secs(1)).await;
    let (mut ended, lagging): (Vec<Call>, Vec<Call>) =
        calls.into_iter().partition(|call| call.dropped.load(Ordering::SeqCst));
    assert_eq!((ended.len(), lagging.len()), (1, 4));
    assert_eq!(budget.used(), 2 * MIB);
    assert!(budget.reservation().reserve(2 * MIB), "others get their memory");
    let (rest, status) = ended[0].rest(Duration::ZERO).await;
    assert_eq!((rest.len(), &*status), (0, "10"));
    assert_eq!(ended[0].metric("narthex_series_clients_lagged_total"), "1");
}

#[tokio::test(start_paused = true)]
async fn a_prometheus_that_is_slow_is_not_blamed_on_the_client() {
    let slow = endless().take(5).then(|frame| async move {
        sleep(3 * PATIENCE).await;
        frame
    });
    let (mut call, start) = (
        Call::start(
            slow,
            Setup {
                read_ahead: 0,
                ..Setup::default()
            },
        )
        .await,
        Instant::now(),
    );
    let mut pieces = 0;
    let status = loop {
        match call.next().await {
            Ok(_) => pieces += 1,
            Err(status) => break status,
        }
    };
    // The stack holds one series back, so that the last two come together.
    assert_eq!((pieces, &*status), (4, "0"));
    assert!(start.elapsed() > 12 * PATIENCE);
    assert_eq!(call.metric("narthex_series_clients_lagged_total"), "0");
}

#[tokio::test(start_paused = true)]
async fn a_client_that_goes_away_takes_the_request_with_it() {
    let mut call = Call::start(endless(), Setup::default()).await;
    call.next().await.unwrap();
    sleep(Duration::from_secs(1)).await;
    drop(call.body);
    assert!(call.dropped.load(Ordering::SeqCst));
    assert_eq!(call.budget.used(), 0);
    // After the moment in which Prometheus notices.
    let permit = call.gate.acquire(ClientKey::default(), None).await.unwrap();
    permit.finish();
    assert_eq!(call.gate.in_flight(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_panic_while_it_is_read_ahead_ends_the_answer() {
    let frames = endless().take(40).enumerate().map(|(at, frame)| {
        assert_ne!(at, 20, "a bug of a test");
        frame
    });
    let mut call = Call::start(frames, Setup::default()).await;
    call.next().await.unwrap();
    sleep(Duration::from_secs(1)).await;
    let (_, status) = call.rest(Duration::ZERO).await;
    assert_eq!(status, "13");
    assert!(call.dropped.load(Ordering::SeqCst));
}

#[tokio::test(start_paused = true)]
async fn a_client_that_stops_reading_is_found_while_prometheus_still_answers() {
    let slow = endless().then(|frame| async move {
        sleep(Duration::from_secs(1)).await;
        frame
    });
    let mut call = Call::start(slow, Setup::default()).await;
    call.next().await.unwrap();
    sleep(CLIENT_STALL / 2).await;
    assert!(call.budget.used() > 0);
    sleep(CLIENT_STALL).await;
    call.assert_given_up();
    assert_eq!(call.metric("narthex_series_clients_stalled_total"), "1");
    assert_eq!(call.next().await.unwrap_err(), "10");
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_ended_is_not_ended_once_more() {
    let setup = Setup {
        read_ahead: 2 * MIB,
        ..Setup::default()
    };
    let mut call = Call::start(endless(), setup).await;
    call.next().await.unwrap();
    sleep(3 * CLIENT_STALL).await;
    call.assert_given_up();
    assert_eq!(call.metric("narthex_series_clients_lagged_total"), "1");
    assert_eq!(call.metric("narthex_series_clients_stalled_total"), "0");
}

/// One frame for each of these values.
fn frames(values: &[&str]) -> Vec<Bytes> {
    let one = |value: &&str| encode(0, &[(set(&[("n", value)]), vec![7; 9])]);
    values.iter().map(one).collect()
}

#[tokio::test(start_paused = true)]
async fn disorder_is_asked_for_once_more_as_long_as_nothing_was_given() {
    let values = ["a", "c", "e", "b", "d"];
    let setup = || Setup {
        retry: Some(frames(&values)),
        ..Setup::default()
    };
    let mut call = Call::start(stream::iter(frames(&values)), setup()).await;
    let (mended, status) = call.rest(Duration::ZERO).await;
    assert_eq!(status, "0");
    let mut good = Call::start(stream::iter(frames(&["a", "b", "c", "d", "e"])), Setup::default()).await;
    assert_eq!(good.rest(Duration::ZERO).await.0, mended);
    // What was thrown away was not sent.
    assert_eq!(call.metric("narthex_series_sent_total"), "5");

    // Once something is out it is too late.
    let late = stream::iter(frames(&values)).then(|frame| async move {
        sleep(Duration::from_secs(1)).await;
        frame
    });
    let mut call = Call::start(late, setup()).await;
    let (_, status) = call.rest(Duration::ZERO).await;
    assert_eq!(status, "13");
}

#[tokio::test]
async fn nothing_is_left_of_a_call_that_has_ended() {
    let tasks = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
    let before = tasks();
    for _ in 0..100 {
        let frames = stream::iter([encode(0, &[(set(&[("a", "1")]), vec![0; 9])])]);
        let mut call = Call::start(frames, Setup::default()).await;
        assert!(call.next().await.is_ok());
        assert_eq!(call.next().await.unwrap_err(), "0");
    }
    // What was aborted is gone once its runtime has looked.
    for _ in 0..1000 {
        tokio::task::yield_now().await;
    }
    assert_eq!(tasks(), before);
}
