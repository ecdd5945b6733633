use bytes::BytesMut;
use futures_util::{StreamExt as _, stream};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};

use super::*;
use crate::prometheus::HttpClientConfig;

/// A frame without series: what it holds does not matter here.
fn frame() -> Bytes {
    let payload = [0x10, 0];
    let mut frame = BytesMut::from(&[payload.len() as u8][..]);
    frame.extend_from_slice(&crc32c::crc32c(&payload).to_be_bytes());
    frame.extend_from_slice(&payload);
    frame.freeze()
}

async fn next(frames: &mut Frames) -> Option<Result<Frame, ReadError>> {
    std::future::poll_fn(|cx| frames.poll_frame(cx)).await
}

fn assert_stalled(error: &ReadError) {
    let kind = &error.kind;
    assert!(
        matches!(kind, ReadErrorKind::Http(ErrorKind::Timeout(STALL))),
        "{error}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_body_that_hangs_for_ever_ends_with_an_error() {
    for sent in [0, 1, 7] {
        let frame = frame();
        let pieces = stream::iter([Ok(frame.slice(..sent))]).chain(stream::pending());
        let (mut frames, start) = (Frames::of(pieces), Instant::now());
        if sent == frame.len() {
            next(&mut frames).await.unwrap().unwrap();
        }
        assert_stalled(&next(&mut frames).await.unwrap().unwrap_err());
        assert_eq!(start.elapsed(), STALL, "after {sent} bytes");
    }
}

#[tokio::test]
async fn frames_without_series_do_not_go_on_for_ever() {
    let mut frames = Frames::of(stream::repeat_with(|| Ok(frame())));
    for _ in 1..EMPTY_MAX {
        next(&mut frames).await.unwrap().unwrap();
    }
    let error = next(&mut frames).await.unwrap().unwrap_err();
    assert!(matches!(error.kind, ReadErrorKind::OnlyEmptyFrames), "{error}");
    // A series in between begins the count anew.
    let with_series = {
        let payload = [0x0a, 0];
        let mut frame = BytesMut::from(&[payload.len() as u8][..]);
        frame.extend_from_slice(&crc32c::crc32c(&payload).to_be_bytes());
        frame.extend_from_slice(&payload);
        frame.freeze()
    };
    let mut sent = 0;
    let mut frames = Frames::of(stream::repeat_with(move || {
        sent += 1;
        Ok(if sent % EMPTY_MAX == 0 {
            with_series.clone()
        } else {
            frame()
        })
    }));
    for _ in 0..3 * EMPTY_MAX {
        next(&mut frames).await.unwrap().unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_slow_body_arrives() {
    let bytes = [frame(), frame()].concat();
    let pieces = stream::iter(bytes).then(|byte| async move {
        tokio::time::sleep(STALL - Duration::from_secs(1)).await;
        Ok(Bytes::copy_from_slice(&[byte]))
    });
    let mut frames = Frames::of(pieces);
    for _ in 0..2 {
        next(&mut frames).await.unwrap().unwrap();
    }
    assert!(next(&mut frames).await.is_none());
    assert_eq!(frames.count(), 2);
}

#[tokio::test]
async fn a_server_that_never_answers_is_given_up() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let server = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = [0; 4096];
        let _ = stream.read(&mut request).await.unwrap();
        let head = format!("HTTP/1.1 200 OK\r\nContent-Type: {STREAMED}\r\nContent-Length: 0\r\n\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        // The second request is read, and the connection is held until it is given up.
        while stream.read(&mut request).await.unwrap_or(0) > 0 {}
    });
    let http = HttpClientConfig::parse("").unwrap();
    let client = Client::new(&url.parse().unwrap(), &http, STALL).unwrap();
    let request: &[u8] = &[];
    let Ok(Answer::Frames(mut frames)) = client.remote_read(request, None, &mut |_| true).await else {
        panic!("no frames")
    };
    assert!(next(&mut frames).await.is_none());
    drop(frames);
    // From here on the connection is there, so that the only clock that runs is the one that is looked at.
    tokio::time::pause();
    let error = client
        .remote_read(request, Some(STALL), &mut |_| true)
        .await
        .expect_err("nobody answers");
    assert_stalled(&error);
    server.await.unwrap();
}

/// Answers one request over each connection and closes it when told, which it tells.
async fn closes_when_told(
    listener: TcpListener,
    mut told: tokio::sync::mpsc::Receiver<tokio::sync::oneshot::Sender<()>>,
) {
    loop {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = [0; 4096];
        let _ = stream.read(&mut request).await.unwrap();
        let head = format!("HTTP/1.1 200 OK\r\nContent-Type: {STREAMED}\r\nContent-Length: 0\r\n\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        let Some(tell) = told.recv().await else { return };
        drop(stream);
        tell.send(()).unwrap();
    }
}

/// Whether we have noticed it yet or not: the reactor gets more and more time for it.
#[tokio::test]
async fn a_connection_that_was_closed_while_it_waited_is_not_used() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (tell, told) = tokio::sync::mpsc::channel(1);
    let server = tokio::spawn(closes_when_told(listener, told));
    let http = HttpClientConfig::parse("").unwrap();
    let client = Client::new(&url.parse().unwrap(), &http, STALL).unwrap();
    let request: &[u8] = &[];
    for turns in 0..200 {
        let mut room = |_| true;
        let asked = tokio::time::timeout(Duration::from_secs(20), client.remote_read(request, None, &mut room));
        let answer = asked.await.unwrap_or_else(|_| panic!("no answer after {turns} turns"));
        let Ok(Answer::Frames(mut frames)) = answer else {
            panic!("{answer:?}")
        };
        assert!(next(&mut frames).await.is_none());
        let (closed, is_closed) = tokio::sync::oneshot::channel();
        tell.send(closed).await.unwrap();
        is_closed.await.unwrap();
        for _ in 0..turns {
            tokio::task::yield_now().await;
        }
    }
    server.abort();
}

/// Gives these bytes as the answer to one request, and closes the connection.
async fn gives_once(listener: TcpListener, answer: Vec<u8>) {
    let (mut stream, _) = listener.accept().await.unwrap();
    let mut request = [0; 4096];
    let _ = stream.read(&mut request).await.unwrap();
    stream.write_all(&answer).await.unwrap();
}

#[tokio::test]
async fn an_error_says_whether_prometheus_does_nothing_for_the_request_any_more() {
    let http = HttpClientConfig::parse("").unwrap();
    let long = "x".repeat(ERROR_BODY + 1);
    for (status, kind, length, body, is_over) in [
        ("500 Internal Server Error", "text/plain", 2, "no", true),
        ("400 Bad Request", "text/plain", 0, "", true),
        ("204 No Content", "text/plain", 0, "", true),
        ("500 Internal Server Error", "text/plain", 3, "no", false),
        ("500 Internal Server Error", "text/plain", long.len(), &*long, false),
        ("504 Gateway Timeout", "text/plain", 2, "no", false),
        ("200 OK", "text/plain", 2, "no", false),
        ("200 OK", SAMPLED, 2, "no", false),
        ("200 OK", SAMPLED, 2, "\u{7f}", false),
        ("200 OK", SAMPLED, 1, "\u{7f}", true),
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let head = format!("HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n\r\n");
        let server = tokio::spawn(gives_once(listener, [head.as_bytes(), body.as_bytes()].concat()));
        let client = Client::new(&url.parse().unwrap(), &http, STALL).unwrap();
        // One without memory for a sampled answer, once it is complete.
        let mut little = 1;
        let mut reserve = |bytes| bytes <= std::mem::take(&mut little);
        let error = client.remote_read(&[], None, &mut reserve).await.unwrap_err();
        assert_eq!(error.is_over, is_over, "{error}");
        server.await.unwrap();
        // Nothing listens there any more.
        let error = client.remote_read(&[], None, &mut |_| true).await.unwrap_err();
        assert!(error.is_over, "{error}");
    }
}
