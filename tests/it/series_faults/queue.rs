//! The queue before Prometheus: fair, and left by whoever does not wait any more.

use std::sync::mpsc;

use super::{
    fake::Step,
    frames::{chunked_head, frames, http_chunk, whole},
    scene::{Client, LONG, Scene, always},
};

#[tokio::test]
async fn calls_take_turns_in_order_and_cancelled_ones_leave() {
    // One place fewer than Prometheus has.
    let scene = Scene::start(2).await;
    let (tell, told) = mpsc::channel();
    let (mut told, first) = (Some(told), [chunked_head(), http_chunk(&frames(1).concat())].concat());
    scene.fake.answer("first", move |_| {
        let wait = told.take().expect("it is asked once");
        vec![
            Step::Send(first.clone()),
            Step::Until(wait),
            Step::Send(http_chunk(b"")),
        ]
    });
    let client = scene.client().await;
    let mut calls = Vec::new();
    let names = ["first", "second", "cancelled", "third", "cancelled too", "fourth"];
    for (at, name) in names.into_iter().enumerate() {
        if at > 0 {
            scene.fake.answer(name, always(whole(&frames(3).concat())));
        }
        let client = client.clone();
        calls.push((name, tokio::spawn(async move { client.ask(name).await })));
        // Each is in the queue before the next comes.
        scene.wait_for_pending(at + 1).await;
    }
    scene.wait_for_busy(1).await;
    for (_, call) in calls.extract_if(.., |(name, _)| name.starts_with("cancelled")) {
        call.abort();
    }
    scene.wait_for_pending(4).await;
    assert_eq!(scene.fake.asked(), ["first"]);
    for (name, value) in [
        ("narthex_remote_reads_waiting", 3.0),
        ("narthex_remote_reads_running", 1.0),
    ] {
        assert_eq!(scene.sidecar.metric(name).await, Some(value), "{name}");
    }
    let age = scene.sidecar.metric("narthex_oldest_remote_read_seconds").await;
    assert!(age.is_some_and(|age| age > 0.0), "{age:?}");
    drop(tell);
    for (name, call) in calls {
        let outcome = tokio::time::timeout(LONG, call).await.expect("its turn comes").unwrap();
        outcome.end.unwrap();
        assert_eq!(outcome.series.len(), if name == "first" { 1 } else { 3 }, "{name}");
    }
    assert_eq!(scene.fake.asked(), ["first", "second", "third", "fourth"]);
    scene.wait_for_pending(0).await;
}

#[tokio::test]
async fn clients_take_turns() {
    let scene = Scene::start(2).await;
    let (tell, told) = mpsc::channel();
    let mut told = Some(told);
    let answer = whole(&frames(1).concat());
    let last = answer.clone();
    scene.fake.answer("first", move |_| {
        let wait = told.take().expect("it is asked once");
        vec![Step::Until(wait), Step::Send(last.clone())]
    });
    let (one, other) = (scene.client().await, Client::from(&scene.sidecar, [127, 0, 0, 2]).await);
    let mut calls = Vec::new();
    let order = [
        (&one, "first"),
        (&one, "a1"),
        (&one, "a2"),
        (&one, "a3"),
        (&other, "b1"),
        (&other, "b2"),
    ];
    for (at, (client, name)) in order.into_iter().enumerate() {
        if at > 0 {
            scene.fake.answer(name, always(answer.clone()));
        }
        let client = client.clone();
        calls.push(tokio::spawn(async move { client.ask(name).await }));
        scene.wait_for_pending(at + 1).await;
    }
    drop(tell);
    for call in calls {
        let outcome = tokio::time::timeout(LONG, call).await.expect("its turn comes").unwrap();
        outcome.end.unwrap();
    }
    assert_eq!(scene.fake.asked(), ["first", "a1", "b1", "a2", "b2", "a3"]);
}

#[tokio::test]
async fn a_place_comes_back_however_a_call_ends() {
    let scene = Scene::start(2).await;
    let client = scene.client().await;
    scene.fake.answer("whole", always(whole(&frames(3).concat())));
    scene.fake.answer("cut", always(whole(&frames(1).concat()[..20])));
    let cut = chunked_head();
    scene
        .fake
        .answer("closed", move |_| vec![Step::Send(cut.clone()), Step::Close]);
    scene
        .fake
        .answer("refused", always(super::fake::http(500, "text/plain", b"no")));
    scene.fake.answer("silence", |_| vec![Step::Hang]);
    let quiet = [chunked_head(), http_chunk(&frames(2).concat())].concat();
    scene
        .fake
        .answer("quiet", move |_| vec![Step::Send(quiet.clone()), Step::Hang]);
    for key in ["cut", "closed", "refused"] {
        client.ask(key).await.failed(key);
        assert_eq!(client.ask("whole").await.series.len(), 3, "after {key}");
    }
    for key in ["silence", "quiet"] {
        let caller = client.clone();
        let call = tokio::spawn(async move { caller.ask(key).await });
        scene.wait_for_busy(1).await;
        call.abort();
        assert_eq!(client.ask("whole").await.series.len(), 3, "after {key}");
    }
    scene.wait_for_pending(0).await;
}

#[tokio::test]
async fn a_request_that_prometheus_refused_holds_no_slot_any_more() {
    let scene = Scene::start(2).await;
    let client = scene.client().await;
    scene
        .fake
        .answer("refused", always(super::fake::http(500, "text/plain", b"no")));
    client.ask("refused").await.failed("refused");
    assert_eq!(scene.sidecar.metric("narthex_remote_reads_running").await, Some(0.0));
}
