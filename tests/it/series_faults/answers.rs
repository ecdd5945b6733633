//! Answers of every other shape: those that must arrive whole, and those that must fail and say why.

use narthex::pb::prometheus::{ChunkedSeries, ReadRequest};
use tonic::Code;

use super::{
    fake::{Settings, Step, http},
    frames::{
        self, STREAM, STREAMED, chunked, chunked_head, frame, frames, http_chunk, sent, series, whole, with_data,
    },
    scene::{self, Outcome, Scene, always},
};

/// Asks the shared scene for an answer of these bytes.
async fn ask(key: &str, bytes: Vec<u8>) -> Outcome {
    let scene = scene::shared().await;
    scene.fake.answer(key, always(bytes));
    scene.client().await.ask(key).await
}

/// These series, in this order, and nothing else.
#[track_caller]
fn assert_whole(outcome: &Outcome, numbers: impl IntoIterator<Item = u64>, what: &str) {
    outcome.end.as_ref().expect(what);
    let wanted: Vec<_> = numbers.into_iter().map(|number| sent(&series(number))).collect();
    assert_eq!(outcome.series, wanted, "{what}");
}

#[tokio::test]
async fn frames_are_put_together_however_http_tears_them() {
    let body = frames(20).concat();
    for size in (1..10).chain([61, 64, 1000, 100_000]) {
        let outcome = ask(&format!("pieces of {size}"), chunked(body.chunks(size))).await;
        assert_whole(&outcome, 0..20, &format!("pieces of {size}"));
    }
}

#[tokio::test]
async fn a_body_that_comes_byte_by_byte_arrives() {
    let scene = scene::shared().await;
    let body = frames(20).concat();
    for (key, answer) in [
        ("drip, length", whole(&body)),
        ("drip, chunked", chunked(body.chunks(1))),
    ] {
        scene.fake.answer(key, move |_| vec![Step::Drip(answer.clone())]);
        assert_whole(&scene.client().await.ask(key).await, 0..20, key);
    }
}

#[tokio::test]
async fn one_frame_may_hold_many_series_and_one_series_many_frames() {
    let many: Vec<_> = (0..500).map(series).collect();
    assert_whole(
        &ask("many series", whole(&frame(STREAM, &many))).await,
        0..500,
        "many series",
    );
    let parts = [1, 1, 1, 2, 2, 3].map(|number| frame(STREAM, &[series(number)]));
    assert_whole(
        &ask("many frames", whole(&parts.concat())).await,
        [1, 1, 1, 2, 2, 3],
        "many frames",
    );
    // Those that carry an external label come first, and belong anywhere.
    let both =
        [(0, 7), (0, 2), (STREAM, 1), (STREAM, 3), (STREAM, 9)].map(|(query, number)| frame(query, &[series(number)]));
    assert_whole(
        &ask("both", whole(&both.concat())).await,
        [1, 2, 3, 7, 9],
        "both queries",
    );
}

#[tokio::test]
async fn an_empty_body_is_an_empty_answer() {
    assert_whole(&ask("empty, length", whole(b"")).await, [], "length");
    assert_whole(&ask("empty, chunked", chunked([])).await, [], "chunked");
}

#[tokio::test]
async fn what_is_no_remote_read_is_an_error_with_its_type() {
    let body = frames(1).concat();
    for content_type in [
        "text/html; charset=utf-8",
        "application/json",
        "application/x-streamed-protobuf",
        "",
    ] {
        let status = ask(content_type, http(200, content_type, &body))
            .await
            .failed(content_type);
        let text = format!("not supported remote read content type: {content_type:?}");
        assert!(status.message().contains(&text), "{status}");
    }
    let long = "x".repeat(20_000);
    let status = ask("a long type", http(200, &long, &body)).await.failed("a long type");
    assert!(
        status.message().contains("xxx") && status.message().len() < 1000,
        "{status}"
    );
}

#[tokio::test]
async fn an_answer_that_is_not_200_is_an_error_with_code_and_text() {
    for (code, wanted) in [
        (503, Code::Unavailable),
        (500, Code::Internal),
        (422, Code::Internal),
        (400, Code::InvalidArgument),
        (302, Code::Internal),
        (308, Code::Internal),
        (206, Code::Internal),
    ] {
        let body = if code == 206 {
            frames(1).concat()
        } else {
            b"this is why".to_vec()
        };
        let status = ask(&format!("status {code}"), http(code, STREAMED, &body))
            .await
            .failed("a status");
        assert_eq!(status.code(), wanted, "{code}: {status}");
        assert!(status.message().contains(&format!("status {code}")), "{status}");
        assert!(code == 206 || status.message().contains("this is why"), "{status}");
    }
    let status = ask("no content", b"HTTP/1.1 204 No Content\r\n\r\n".to_vec())
        .await
        .failed("204");
    assert!(status.message().contains("204"), "{status}");
}

#[tokio::test]
async fn a_text_behind_whole_frames_is_an_error_that_tells_it() {
    let body = frames(3).concat();
    for (at, text) in [
        "expanding series: context canceled",
        "open /data/chunks_head: é too many open files",
        "x",
        "~~~ starts with what would be a long frame",
        &format!("invalid selector {}: this is why", "y".repeat(120)),
    ]
    .into_iter()
    .enumerate()
    {
        let all = [&body[..], text.as_bytes(), b"\n"].concat();
        for (kind, bytes) in [
            ("length", whole(&all)),
            ("chunked", chunked([&body[..], &all[body.len()..]])),
        ] {
            let status = ask(&format!("text {at} {kind}"), bytes).await.failed(text);
            assert!(status.message().contains(text), "{kind}: {status}");
        }
    }
}

#[tokio::test]
async fn queries_that_were_not_asked_are_not_answered() {
    for (at, indexes) in [[0, 2], [1, 2], [-1, 1], [1, 0], [1, i64::MIN], [0, i64::MAX]]
        .into_iter()
        .enumerate()
    {
        let body = [frame(indexes[0], &[series(0)]), frame(indexes[1], &[series(1)])].concat();
        ask(&format!("queries {at}"), whole(&body))
            .await
            .failed(&format!("{indexes:?}"));
    }
}

/// Series in this order, whichever way they are asked for.
fn in_order(series: impl IntoIterator<Item = ChunkedSeries>) -> impl FnMut(&ReadRequest) -> Vec<Step> + Send + 'static {
    let series: Vec<_> = series.into_iter().collect();
    move |asked| {
        let last = asked.queries.len() as i64 - 1;
        let body: Vec<_> = series
            .iter()
            .map(|one| frame(last, std::slice::from_ref(one)))
            .collect();
        vec![Step::Send(whole(&body.concat()))]
    }
}

#[tokio::test]
async fn disorder_is_never_sent() {
    let backwards: Vec<u64> = (0..1000).rev().collect();
    let late: Vec<u64> = (10..1000).chain([5]).collect();
    let twice: Vec<u64> = (0..500).chain(0..500).collect();
    let scene = scene::shared().await;
    for (key, mut order) in [("backwards", backwards), ("late", late), ("twice", twice)] {
        scene.fake.answer(key, in_order(order.iter().copied().map(series)));
        let outcome = scene.client().await.ask(key).await;
        // Nothing was sent before it was seen: the request was sent once more, and all was sorted.
        order.sort_unstable();
        assert_whole(&outcome, order, key);
    }
    // Here much was sent before.
    let large = (10..200).chain([5]).map(|number| with_data(number, 1, vec![7; 10_000]));
    scene.fake.answer("late and large", in_order(large));
    let status = scene
        .client()
        .await
        .ask("late and large")
        .await
        .failed("late and large");
    assert!(status.message().contains("out of order"), "{status}");
    let metric = scene
        .sidecar
        .metric("narthex_prometheus_unsorted_responses_total")
        .await;
    assert!(metric.is_some_and(|count| count >= 4.0), "{metric:?}");
}

#[tokio::test]
async fn lengths_that_nobody_sends_are_refused() {
    for length in [50_000_001, 1 << 31, 1 << 32, 1 << 63, u64::MAX] {
        let body = [frames(1).concat(), frames::head(length, 0)].concat();
        let status = ask(&format!("length {length}"), whole(&body)).await.failed("a length");
        assert!(status.message().contains(&format!("claims {length} bytes")), "{status}");
    }
    let endless_number = [&frames(1).concat()[..], &[0xff; 40]].concat();
    ask("no number", whole(&endless_number))
        .await
        .failed("a number that does not end");
}

#[tokio::test]
async fn a_chunk_without_samples_is_an_error() {
    let body = [
        frame(STREAM, &[series(0)]),
        frame(STREAM, &[with_data(1, 1, Vec::new())]),
    ]
    .concat();
    let status = ask("empty chunk", whole(&body)).await.failed("an empty chunk");
    assert_eq!(status.code(), Code::Internal);
    assert!(status.message().contains("a chunk in a frame has no data"), "{status}");
}

#[tokio::test]
async fn an_encoding_that_queriers_cannot_read_is_named() {
    for encoding in [0, 7, 99, -1] {
        let body = [
            frame(STREAM, &[series(0)]),
            frame(STREAM, &[with_data(1, encoding, vec![0; 9])]),
        ]
        .concat();
        let status = ask(&format!("encoding {encoding}"), whole(&body))
            .await
            .failed("an encoding");
        assert!(status.message().contains(&encoding.to_string()), "{status}");
    }
    // Whatever the labels are: an error that is too long for the trailers would end all calls of the connection.
    let mut large = with_data(1, 99, vec![0; 9]);
    large.labels[1].value = "é".repeat(100_000);
    let status = ask("encoding, large labels", whole(&frame(STREAM, &[large])))
        .await
        .failed("an encoding");
    assert!(
        status.message().contains("99") && status.message().len() < 4000,
        "{status}"
    );
}

#[tokio::test]
async fn an_answer_whose_end_cannot_be_told_from_a_broken_connection_is_refused() {
    let body = frames(3).concat();
    for version in ["1.1", "1.0"] {
        let scene = scene::shared().await;
        let key = format!("no end, HTTP/{version}");
        let head = format!("HTTP/{version} 200 OK\r\nContent-Type: {STREAMED}\r\n\r\n");
        let answer = [head.as_bytes(), &body].concat();
        scene
            .fake
            .answer(&key, move |_| vec![Step::Send(answer.clone()), Step::Close]);
        let status = scene.client().await.ask(&key).await.failed(&key);
        assert!(status.message().contains("Content-Length"), "{status}");
    }
}

#[tokio::test]
async fn a_server_of_unknown_kind_is_asked_one_query_and_heard_out() {
    let version = None;
    let scene = Scene::start_with(Settings { limit: 10, version }).await;
    // It answers the first query only. Stored labels come in an order that the external label changes.
    let mut carrying = series(5);
    carrying.labels.insert(
        1,
        narthex::pb::prometheus::Label {
            name: "cluster".to_owned(),
            value: "z".to_owned(),
        },
    );
    let all = [series(1), series(3), carrying, series(2)].map(|series| frame(0, &[series]));
    let answer = whole(&all.concat());
    scene.fake.answer("plain", move |request| {
        assert_eq!(request.queries.len(), 1, "it would not answer the others");
        vec![Step::Send(answer.clone())]
    });
    assert_whole(&scene.client().await.ask("plain").await, [1, 2, 3, 5], "plain");
}

#[tokio::test]
async fn a_prometheus_that_was_built_without_a_version_is_one_all_the_same() {
    let version = Some("");
    let scene = Scene::start_with(Settings { limit: 10, version }).await;
    scene.fake.answer("built by hand", |request| {
        assert_eq!(
            request.queries.len(),
            2,
            "what carries the external label is asked for apart"
        );
        vec![Step::Send(whole(&frames(3).concat()))]
    });
    let outcome = scene.client().await.ask("built by hand").await;
    assert_whole(&outcome, 0..3, "built by hand");
}

#[tokio::test]
async fn a_connection_is_used_again_and_one_that_was_closed_meanwhile_is_not() {
    let scene = Scene::start(10).await;
    let client = scene.client().await;
    let answer = whole(&frames(5).concat());
    scene.fake.answer("kept", always(answer.clone()));
    for _ in 0..20 {
        assert_whole(&client.ask("kept").await, 0..5, "kept");
    }
    assert_eq!(scene.fake.connections(), 1);
    // Closed after each answer, without a word.
    let closed = answer.clone();
    scene
        .fake
        .answer("closed", move |_| vec![Step::Send(closed.clone()), Step::Close]);
    for _ in 0..20 {
        assert_whole(&client.ask("closed").await, 0..5, "closed");
    }
    // Closed when the next request comes.
    let (mut asked, late) = (0, answer);
    scene.fake.answer("closed late", move |_| {
        asked += 1;
        match asked % 2 {
            1 => vec![Step::Send(late.clone())],
            _ => vec![Step::Close],
        }
    });
    for _ in 0..20 {
        assert_whole(&client.ask("closed late").await, 0..5, "closed late");
    }
}

#[tokio::test]
async fn a_frame_that_comes_in_two_halves_far_apart_arrives() {
    let scene = scene::shared().await;
    let body = frames(2).concat();
    let (tell, told) = std::sync::mpsc::channel();
    let (mut told, first) = (Some(told), [chunked_head(), http_chunk(&body[..100])].concat());
    let second = [http_chunk(&body[100..]), http_chunk(b"")].concat();
    scene.fake.answer("halves", move |_| {
        let wait = told.take().expect("it is asked once");
        vec![Step::Send(first.clone()), Step::Until(wait), Step::Send(second.clone())]
    });
    let client = scene.client().await;
    let call = tokio::spawn(async move { client.ask("halves").await });
    let asked = async || scene.fake.asked().contains(&"halves".to_owned()).then_some(());
    scene.sidecar.wait_until(scene::LONG, "the request", asked).await;
    drop(tell);
    assert_whole(&call.await.unwrap(), 0..2, "halves");
}
