use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::timeout,
};

use super::*;

const LIMIT: Duration = Duration::from_secs(30);
const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello";

async fn listen() -> (TcpListener, Arc<ConnectionPool>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let pool = ConnectionPool::new(Target {
        host: "127.0.0.1".to_owned(),
        port: listener.local_addr().unwrap().port(),
        tls: None,
        connect_timeout: Some(LIMIT),
        idle_connections: 2,
        idle_timeout: Some(LIMIT),
    });
    (listener, Arc::new(pool))
}

fn request() -> Request<Full<Bytes>> {
    let mut request = Request::post("/read")
        .body(Full::new(Bytes::from_static(b"?")))
        .unwrap();
    request
        .headers_mut()
        .insert("host", http::HeaderValue::from_static("x"));
    request
}

async fn whole(pool: &Arc<ConnectionPool>) -> Result<Vec<u8>, ErrorKind> {
    let asked = async {
        let (_, mut body) = pool.send(request()).await?;
        let mut found = Vec::new();
        while let Some(piece) = std::future::poll_fn(|cx| body.poll_piece(cx)).await {
            found.extend_from_slice(&piece?);
        }
        Ok(found)
    };
    timeout(LIMIT, asked).await.expect("an answer or an error, in time")
}

/// Reads a request to its end, which is its body of one byte.
async fn read_request(stream: &mut TcpStream) {
    let mut heard = Vec::new();
    while !heard.ends_with(b"\r\n\r\n?") {
        let byte = stream.read_u8().await.unwrap();
        heard.push(byte);
    }
}

#[tokio::test]
async fn a_connection_is_used_again() {
    let (listener, pool) = listen().await;
    let server = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        for _ in 0..3 {
            read_request(&mut stream).await;
            stream.write_all(ANSWER).await.unwrap();
        }
        // A second connection would be refused from here on.
        drop(listener);
        stream
    });
    for _ in 0..3 {
        assert_eq!(whole(&pool).await.unwrap(), b"hello");
    }
    server.await.unwrap();
}

#[tokio::test]
async fn one_that_the_server_has_closed_meanwhile_is_replaced() {
    let (listener, pool) = listen().await;
    let server = tokio::spawn(async move {
        for _ in 0..3 {
            let (mut stream, _) = listener.accept().await.unwrap();
            read_request(&mut stream).await;
            stream.write_all(ANSWER).await.unwrap();
        }
    });
    for _ in 0..3 {
        assert_eq!(whole(&pool).await.unwrap(), b"hello");
    }
    server.await.unwrap();
    // Nobody listens any more, and the connection that waits is closed: an error, and no waiting.
    assert!(matches!(whole(&pool).await, Err(ErrorKind::Refused)));
}

#[tokio::test]
async fn a_server_that_closes_without_an_answer_is_an_error() {
    let (listener, pool) = listen().await;
    let server = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        read_request(&mut stream).await;
    });
    let error = whole(&pool).await.unwrap_err();
    assert!(matches!(error, ErrorKind::Unreachable(_)), "{error}");
    server.await.unwrap();
}

#[tokio::test]
async fn a_body_that_is_cut_is_an_error_and_what_came_before_is_given() {
    let (listener, pool) = listen().await;
    let server = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        read_request(&mut stream).await;
        stream.write_all(&ANSWER[..ANSWER.len() - 1]).await.unwrap();
    });
    let (_, mut body) = pool.send(request()).await.unwrap();
    let first = std::future::poll_fn(|cx| body.poll_piece(cx)).await.unwrap().unwrap();
    assert_eq!(first, b"hell"[..]);
    let error = timeout(LIMIT, std::future::poll_fn(|cx| body.poll_piece(cx))).await;
    assert!(matches!(error.unwrap(), Some(Err(ErrorKind::Cut(_)))));
    server.await.unwrap();
}

#[tokio::test]
async fn an_answer_that_is_dropped_closes_its_connection() {
    let (listener, pool) = listen().await;
    let server = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        read_request(&mut stream).await;
        stream
            .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 5000\r\n\r\nhello")
            .await
            .unwrap();
        stream
    });
    let answer = pool.send(request()).await.unwrap();
    let mut stream = server.await.unwrap();
    drop(answer);
    let mut byte = [0];
    let end = timeout(LIMIT, stream.read(&mut byte))
        .await
        .expect("the connection is closed");
    assert!(matches!(end, Ok(0) | Err(_)));
}
