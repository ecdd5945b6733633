use std::{
    convert::Infallible,
    sync::atomic::{AtomicUsize, Ordering},
    time::Instant,
};

use aws_smithy_runtime_api::box_error::BoxError;
use futures_util::{StreamExt, stream};
use http_body_util::StreamBody;
use tempfile::tempdir;
use tokio::net::TcpListener;

use super::{testing::*, *};

fn plain(http: &HttpConfig) -> Transport {
    Transport::new(http, true, Proxies::new("", "", ""))
}

async fn send(transport: &Transport, request: Request<SdkBody>) -> Result<HttpResponse, ConnectorError> {
    transport.0.call(transport.0.pool(DIAL), request).await
}

async fn get(transport: &Transport, url: String) -> Result<(u16, String), ConnectorError> {
    let answer = send(transport, Request::get(url).body(SdkBody::empty()).unwrap()).await?;
    let status = answer.status().as_u16();
    let body = http_body_util::BodyExt::collect(answer.into_body())
        .await
        .unwrap()
        .to_bytes();
    Ok((status, String::from_utf8(body.to_vec()).unwrap()))
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        text = format!("{text}: {source}");
        next = source.source();
    }
    text
}

/// A body of `count` pieces of 64 KiB, with a pause before each; counts what is taken.
fn pieces(count: usize, pause: Duration, taken: &Arc<AtomicUsize>) -> SdkBody {
    let taken = Arc::clone(taken);
    let pieces = stream::iter(0..count).then(move |_| {
        let taken = Arc::clone(&taken);
        async move {
            tokio::time::sleep(pause).await;
            taken.fetch_add(1, Ordering::SeqCst);
            Ok::<_, Infallible>(Frame::data(Bytes::from(vec![7; 64 << 10])))
        }
    });
    SdkBody::from_body_1_x(SyncBody(Box::pin(StreamBody::new(pieces)), (count * (64 << 10)) as u64))
}

/// A body with a known length.
struct SyncBody<B>(Pin<Box<B>>, u64);

// The SDK wants bodies to be `Sync`, though it never shares them.
impl<B: Body<Data = Bytes, Error = Infallible>> Body for SyncBody<B> {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        let this = self.get_mut();
        this.0.as_mut().poll_frame(cx).map_err(|never| match never {})
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.1)
    }
}

#[tokio::test]
async fn a_body_streams_with_its_length_and_the_answer_streams_back() {
    let address = serve(None, |seen: Seen| async move {
        let told = format!(
            "{} {:?}",
            seen.header("content-length"),
            seen.head.headers.get("transfer-encoding")
        );
        assert_eq!(seen.header("host"), seen.header("x-expected-host"));
        assert!(seen.body.iter().all(|byte| *byte == 7));
        answer(200, told)
    })
    .await;
    let transport = plain(&HttpConfig::default());
    let request = Request::put(format!("http://{address}/b/k"))
        .header("x-expected-host", address.to_string())
        .body(pieces(50, Duration::ZERO, &Arc::default()))
        .unwrap();
    let answer = send(&transport, request).await.unwrap();
    let body = http_body_util::BodyExt::collect(answer.into_body())
        .await
        .unwrap()
        .to_bytes();
    assert_eq!(body, format!("{} None", 50 * (64 << 10)));
}

#[tokio::test]
async fn a_server_that_does_not_read_stops_the_body() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let transport = plain(&HttpConfig::default());
    let taken = Arc::new(AtomicUsize::new(0));
    let request = Request::put(format!("http://{address}/"))
        .body(pieces(4096, Duration::ZERO, &taken))
        .unwrap();
    let sending = tokio::spawn(async move { send(&transport, request).await.map(|_| ()) });
    let _accepted = listener.accept().await.unwrap();
    let mut before = usize::MAX;
    while before == 0 || taken.load(Ordering::SeqCst) != before {
        before = taken.load(Ordering::SeqCst);
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    // Sockets hold a few MiB; the body has 256.
    assert!((1..1024).contains(&before), "{before} pieces taken");
    sending.abort();
}

#[tokio::test]
async fn the_head_of_the_answer_is_waited_for_only_so_long() {
    let address = serve(None, |_| std::future::pending::<Answer>()).await;
    let transport = plain(&HttpConfig {
        response_header_timeout: Some(Duration::from_millis(200)),
        ..HttpConfig::default()
    });
    let started = Instant::now();
    let error = get(&transport, format!("http://{address}/")).await.unwrap_err();
    assert!(error.is_timeout(), "{error:?}");
    assert!(
        chain(&error).contains("waited 200ms for an answer"),
        "{}",
        chain(&error)
    );
    assert!(started.elapsed() < Duration::from_secs(60));
}

#[tokio::test]
async fn the_head_of_the_answer_is_not_waited_for_while_the_body_is_sent() {
    let address = serve(None, |_| async { answer(200, "") }).await;
    let transport = plain(&HttpConfig {
        response_header_timeout: Some(Duration::from_secs(1)),
        ..HttpConfig::default()
    });
    let body = pieces(12, Duration::from_millis(150), &Arc::default());
    let started = Instant::now();
    let request = Request::put(format!("http://{address}/")).body(body).unwrap();
    assert!(send(&transport, request).await.unwrap().status().is_success());
    assert!(started.elapsed() > Duration::from_millis(1500));
}

#[tokio::test]
async fn the_limit_that_the_sdk_sets_covers_everything() {
    let address = serve(None, |_| std::future::pending::<Answer>()).await;
    let transport = plain(&HttpConfig::default());
    let caller = Caller {
        pool: transport.0.pool(DIAL),
        transport,
        patience: Some(Duration::from_millis(100)),
    };
    let mut request = HttpRequest::empty();
    request.set_uri(format!("http://{address}/")).unwrap();
    assert!(caller.call(request).await.unwrap_err().is_timeout());
}

#[tokio::test]
async fn connections_are_kept_and_their_number_is_bounded() {
    let now = Arc::new((AtomicUsize::new(0), AtomicUsize::new(0)));
    let seen = Arc::clone(&now);
    let address = serve(None, move |_| {
        let seen = Arc::clone(&seen);
        async move {
            let running = seen.0.fetch_add(1, Ordering::SeqCst) + 1;
            seen.1.fetch_max(running, Ordering::SeqCst);
            tokio::time::sleep(Duration::from_millis(150)).await;
            seen.0.fetch_sub(1, Ordering::SeqCst);
            answer(200, "x")
        }
    })
    .await;
    let limited = HttpConfig {
        max_conns_per_host: NonZeroUsize::new(2),
        ..HttpConfig::default()
    };
    for (http, most) in [(limited, 2), (HttpConfig::default(), 8)] {
        now.1.store(0, Ordering::SeqCst);
        let transport = plain(&http);
        let all = (0..8).map(|_| get(&transport, format!("http://{address}/")));
        for answer in futures_util::future::join_all(all).await {
            assert_eq!(answer.unwrap(), (200, "x".to_owned()));
        }
        let highest = now.1.load(Ordering::SeqCst);
        assert!(
            highest <= most && (most == 2 || highest > 2),
            "{highest} at once, allowed {most}"
        );
    }
}

#[tokio::test]
async fn a_connection_serves_many_requests_or_one_when_told_so() {
    for (idle, kept) in [(100, true), (0, false)] {
        let connections = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&connections);
        let make = move |_: Peer| {
            counted.fetch_add(1, Ordering::SeqCst);
            hyper::service::service_fn(|_| async { Ok::<_, Infallible>(answer(200, "")) })
        };
        let address = serve_with(None, make).await;
        let transport = plain(&HttpConfig {
            max_idle_per_host: idle,
            ..HttpConfig::default()
        });
        for _ in 0..10 {
            get(&transport, format!("http://{address}/")).await.unwrap();
        }
        // A request may come just before the connection is back in the pool.
        let connections = connections.load(Ordering::SeqCst);
        assert!(
            if kept { connections < 10 } else { connections == 10 },
            "{connections} connections"
        );
    }
}

#[tokio::test]
async fn trouble_on_the_way_is_io_and_trouble_with_the_body_is_ours() {
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let transport = plain(&HttpConfig::default());
    let error = get(&transport, format!("http://{closed}/")).await.unwrap_err();
    assert!(error.is_io(), "{error:?}");

    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { while listener.accept().await.is_ok() {} });
    let error = get(&transport, format!("http://{address}/")).await.unwrap_err();
    assert!(error.is_io(), "{error:?}");

    let address = serve(None, |_| async { answer(200, "") }).await;
    let broken = http_body_util::StreamBody::new(stream::iter([
        Ok(Frame::data(Bytes::from_static(b"some"))),
        Err(std::io::Error::other("the file is shorter than it was")),
    ]));
    let request = Request::put(format!("http://{address}/"))
        .body(SdkBody::from_body_1_x(broken))
        .unwrap();
    let error = send(&transport, request).await.unwrap_err();
    assert!(error.is_user(), "{error:?}");
    assert!(chain(&error).contains("shorter"), "{}", chain(&error));
}

#[tokio::test]
async fn proxies_are_used_as_the_environment_says() {
    let dir = tempdir().unwrap();
    let ours = Authority::new("ours");
    let target = serve(Some(ours.sign("store.example").server(None)), |_| async {
        answer(200, "by tunnel")
    })
    .await;
    let (proxy, notes) = proxy(target).await;
    let http = HttpConfig {
        ca_file: Some(file(dir.path(), "ca.pem", &ours.pem)),
        ..HttpConfig::default()
    };
    let url = format!("http://user:word@{proxy}");
    let through = |direct: &str| Transport::new(&http, false, Proxies::new(&url, &url, direct));

    let answer = get(&through(""), "http://store.example/key".into()).await.unwrap();
    assert_eq!(answer, (200, "by proxy".to_owned()));
    let answer = get(&through("elsewhere.example"), "https://store.example/key".into())
        .await
        .unwrap();
    assert_eq!(answer, (200, "by tunnel".to_owned()));
    let authorization = "Proxy-Authorization: Basic dXNlcjp3b3Jk".to_ascii_lowercase();
    let notes: Vec<String> = notes
        .lock()
        .unwrap()
        .iter()
        .map(|note| note.to_ascii_lowercase())
        .collect();
    assert_eq!(
        notes,
        [
            format!("get http://store.example/key http/1.1 {authorization}"),
            format!("connect store.example:443 http/1.1 {authorization}"),
        ]
    );

    let direct = |uri: &str, no: &str| Proxies::new(&url, &url, no).of(&uri.parse().unwrap()).is_none();
    assert!(!direct("http://store.example/", ""));
    assert!(direct("http://store.example/", "*"));
    assert!(direct("http://a.store.example/", "other, .store.example"));
    assert!(direct("http://10.1.2.3/", "10.0.0.0/8"));
    for near in [
        "http://localhost:1/",
        "http://127.0.0.1/",
        "http://[::1]/",
        "http://169.254.169.254/",
        "http://[fd00:ec2::23]/",
    ] {
        assert!(direct(near, ""), "{near}");
    }
}

#[test]
fn what_is_logged_gives_nothing_away() {
    let mut headers = HeaderMap::new();
    for name in [
        "authorization",
        "x-amz-security-token",
        "x-amz-server-side-encryption-customer-key",
        "x-amz-copy-source-server-side-encryption-customer-key",
        "x-aws-ec2-metadata-token",
        "proxy-authorization",
    ] {
        headers.insert(name, "hunter2".parse().unwrap());
    }
    headers.insert("content-length", "12".parse().unwrap());
    let shown = format!("{:?}", Redacted(&headers));
    assert!(!shown.contains("hunter2") && shown.contains("\"12\""), "{shown}");
}

mod tls;
