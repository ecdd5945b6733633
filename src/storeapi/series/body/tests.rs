use std::sync::atomic::AtomicBool;

use futures_util::{FutureExt as _, Stream, StreamExt as _, stream};
use http_body_util::BodyExt as _;
use prometheus_client::registry::Registry;
use tokio::time::Instant;

use super::*;
use crate::{
    prometheus::remote_read::{
        Frames,
        gate::{ClientKey, Gate},
    },
    storeapi::series::answer::tests::{encode, plan, set},
};

/// One call with the only place at Prometheus.
struct Call {
    body: SeriesBody,
    gate: Gate,
    registry: Registry,
    /// Whether the answer of Prometheus was dropped.
    dropped: Arc<AtomicBool>,
}

struct Tell(Arc<AtomicBool>);

impl Drop for Tell {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

impl Call {
    /// An answer of these frames.
    async fn start(frames: impl Stream<Item = Bytes> + Send + 'static) -> Call {
        let (gate, dropped) = (Gate::new(1), Arc::new(AtomicBool::new(false)));
        let mut registry = Registry::default();
        let metrics = Metrics::register(&mut registry);
        let tell = Tell(Arc::clone(&dropped));
        let frames = frames.map(move |frame| {
            let _ = &tell;
            Ok(frame)
        });
        let plan = plan(Some(0), metrics.clone());
        let answer = Answer::streaming(
            plan,
            Box::new(Frames::of(frames)),
            gate.enter(ClientKey::default(), None).await.unwrap(),
        );
        let body = SeriesBody::new(Some(answer), 1, metrics.clone(), metrics.pending());
        Call {
            body,
            gate,
            registry,
            dropped,
        }
    }

    /// The bytes of the next piece, or the status at the end.
    async fn next(&mut self) -> Result<usize, String> {
        let frame = self.body.frame().await.expect("trailers come last").unwrap();
        match frame.into_data() {
            Ok(piece) => Ok(piece.len()),
            Err(frame) => Err(frame.into_trailers().unwrap()["grpc-status"]
                .to_str()
                .unwrap()
                .to_owned()),
        }
    }

    fn metric(&self, name: &str) -> String {
        let mut page = String::new();
        prometheus_client::encoding::text::encode(&mut page, &self.registry).unwrap();
        let line = page.lines().find(|line| line.starts_with(name));
        line.unwrap().rsplit(' ').next().unwrap().to_owned()
    }

    /// The place is free, and the connection to Prometheus closed, without the client's doing.
    async fn assert_given_up(&self) {
        assert!(self.dropped.load(Ordering::SeqCst));
        let pass = self
            .gate
            .enter(ClientKey::default(), None)
            .now_or_never()
            .expect("the place is free")
            .unwrap();
        pass.finish();
        assert_eq!(self.metric("narthex_series_clients_stalled_total"), "1");
    }
}

/// Sorted series without end, 100 kB each.
fn endless() -> impl Stream<Item = Bytes> + Send {
    stream::iter((0_u64..).map(|at| encode(0, &[(set(&[("n", &format!("{at:012}"))]), vec![7; 100_000])])))
}

#[tokio::test(start_paused = true)]
async fn a_client_that_stops_reading_loses_its_place_and_is_told() {
    let mut call = Call::start(endless()).await;
    call.next().await.unwrap();
    sleep(PATIENCE / 2).await;
    assert_eq!(call.gate.in_flight(), 1);
    sleep(2 * PATIENCE).await;
    call.assert_given_up().await;
    assert_eq!(call.next().await.unwrap_err(), "10");
    assert!(call.body.frame().await.is_none());
    assert_eq!(call.metric("thanos_store_server_pending_series_requests"), "1");
    drop(call.body);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_lets_nothing_through_from_the_start_loses_its_place_too() {
    let call = Call::start(endless()).await;
    sleep(3 * PATIENCE).await;
    call.assert_given_up().await;
}

#[tokio::test(start_paused = true)]
async fn a_client_that_reads_slowly_gets_all() {
    let mut call = Call::start(endless().take(20)).await;
    let mut bytes = 0;
    let status = loop {
        sleep(PATIENCE - Duration::from_secs(1)).await;
        match call.next().await {
            Ok(piece) => bytes += piece,
            Err(status) => break status,
        }
    };
    assert_eq!(status, "0");
    assert!(bytes > 2_000_000, "{bytes}");
    assert_eq!(call.metric("narthex_series_clients_stalled_total"), "0");
}

#[tokio::test(start_paused = true)]
async fn a_prometheus_that_is_slow_is_not_blamed_on_the_client() {
    let slow = endless().take(5).then(|frame| async move {
        sleep(PATIENCE - Duration::from_secs(1)).await;
        frame
    });
    let (mut call, start) = (Call::start(slow).await, Instant::now());
    let mut pieces = 0;
    let status = loop {
        match call.next().await {
            Ok(_) => pieces += 1,
            Err(status) => break status,
        }
    };
    // The stack holds one series back, so that the last two come together.
    assert_eq!((pieces, &*status), (4, "0"));
    assert!(start.elapsed() > 4 * PATIENCE);
    assert_eq!(call.metric("narthex_series_clients_stalled_total"), "0");
}

#[tokio::test(start_paused = true)]
async fn a_client_that_goes_away_takes_the_request_with_it() {
    let mut call = Call::start(endless()).await;
    call.next().await.unwrap();
    drop(call.body);
    assert!(call.dropped.load(Ordering::SeqCst));
    // After the moment in which Prometheus notices.
    let pass = call.gate.enter(ClientKey::default(), None).await.unwrap();
    pass.finish();
    assert_eq!(call.gate.in_flight(), 0);
}

#[tokio::test]
async fn nothing_is_left_of_a_call_that_has_ended() {
    let tasks = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
    let before = tasks();
    for _ in 0..100 {
        let mut call = Call::start(stream::iter([encode(0, &[(set(&[("a", "1")]), vec![0; 9])])])).await;
        assert!(call.next().await.is_ok());
        assert_eq!(call.next().await.unwrap_err(), "0");
    }
    // What was aborted is gone once its runtime has looked.
    for _ in 0..1000 {
        tokio::task::yield_now().await;
    }
    assert_eq!(tasks(), before);
}
