mod files;
mod rig;

use std::{sync::atomic::Ordering, time::Duration};

use futures_util::{FutureExt as _, StreamExt as _, stream};
use http_body_util::BodyExt as _;
use prometheus_client::metrics::gauge::Gauge;
use tokio::time::{Instant, sleep};

use self::rig::{CHUNK, Call, MIB, PATIENCE, Setup, endless, frames, wanted};
use super::*;
use crate::{
    model::LabelBytes,
    prometheus::remote_read::{
        Frames,
        gate::{ClientKey, Permit},
    },
    storeapi::{
        budget::Budget,
        context::CLIENT_STALL,
        series::{
            answer::{
                Plan,
                tests::{encode, set, streaming},
            },
            encode::{OutChunk, OutSeries},
            read_ahead::{PIECE, memory::Memory},
        },
    },
};

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

/// As without chunks: made of no remote read. So many series, of `CHUNK` bytes each.
fn sorted(plan: Plan, _: Box<Frames>, permit: Permit) -> Answer {
    permit.finish();
    let one = |at: usize| {
        let labels = LabelBytes::from_sorted([(&b"n"[..], format!("{at:012}").as_bytes())]);
        let chunk = OutChunk {
            min_ms: 1,
            max_ms: 2,
            encoding: 1,
            data: vec![at as u8; CHUNK].into(),
            hash: 7,
        };
        OutSeries::new(labels, vec![chunk])
    };
    Answer::sorted(plan, (0..40).map(one).collect()).unwrap()
}

#[tokio::test(start_paused = true)]
async fn an_answer_for_which_prometheus_does_not_wait_is_read_at_the_clients_pace() {
    type Make = fn(Plan, Box<Frames>, Permit) -> Answer;
    for (answer, streamed) in [(sorted as Make, Some(0)), (streaming, None)] {
        let setup = || Setup {
            read_ahead: 0,
            patience: Duration::from_secs(1),
            streamed,
            answer,
            ..Setup::default()
        };
        let mut call = Call::start(endless().take(40), setup()).await;
        // It takes some 20 pieces.
        let (all, status) = call.rest(Duration::from_millis(500)).await;
        assert_eq!((&*status, all.len() / CHUNK), ("0", 40));
        assert_eq!(call.metric("narthex_series_clients_lagged_total"), "0");
        assert_eq!(call.metric("narthex_series_sent_total"), "40");
        // One that takes nothing loses it all the same.
        let mut call = Call::start(endless().take(40), setup()).await;
        call.next().await.unwrap();
        sleep(CLIENT_STALL + Duration::from_secs(1)).await;
        call.assert_given_up();
        assert_eq!(call.metric("narthex_series_clients_stalled_total"), "1");
        assert_eq!(call.next().await.unwrap_err(), "10");
    }
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
    // Asking has ended.
    let shown = format!("{:?}", call.caller);
    assert!(shown.contains("\"sending\""), "{shown}");

    // Once something is out it is too late.
    let late = stream::iter(frames(&values)).then(|frame| async move {
        sleep(Duration::from_secs(1)).await;
        frame
    });
    let mut call = Call::start(late, setup()).await;
    let (_, status) = call.rest(Duration::ZERO).await;
    assert_eq!(status, "13");
}

#[tokio::test(start_paused = true)]
async fn series_of_a_batch_that_an_error_leaves_unfinished_do_not_count_as_sent() {
    let numbers: Vec<String> = (0..70).map(|at| format!("{at:03}")).collect();
    // What comes last belongs before all.
    let values: Vec<&str> = numbers.iter().map(String::as_str).chain(["!"]).collect();
    let setup = Setup {
        batch: 64,
        ..Setup::default()
    };
    let mut call = Call::start(stream::iter(frames(&values)), setup).await;
    let (all, status) = call.rest(Duration::ZERO).await;
    assert_eq!((status.as_str(), all.is_empty()), ("13", false));
    assert_eq!(call.metric("narthex_series_sent_total"), "64");
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
