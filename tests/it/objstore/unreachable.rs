//! Stores that cannot be reached: the error names the address and the cause, in words of nobody's library.

use narthex::objstore::ErrorKind;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

use super::{limits, open, s3_yaml};

/// An address at which each connection is answered with these bytes, and closed.
async fn answers(bytes: &'static [u8]) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            let mut request = [0; 4096];
            let _ = socket.read(&mut request).await;
            let _ = socket.write_all(bytes).await;
        }
    });
    address
}

#[tokio::test]
async fn why_there_is_no_answer_is_said_with_the_address() {
    let closed = {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        listener.local_addr().unwrap().to_string()
    };
    let unknown = "store.invalid:9000".to_owned();
    let (mute, encrypted) = (answers(b"").await, answers(b"\x15\x03\x01\x00\x02\x02\x46").await);
    for (host, words) in [
        (&closed, format!("no connection with {closed}: Connection refused")),
        (
            &unknown,
            format!("no connection with {unknown}: failed to lookup address information"),
        ),
        (&mute, "no answer: connection closed".to_owned()),
        (&encrypted, "what answers does not speak HTTP: ".to_owned()),
    ] {
        let bucket = open(&s3_yaml(host, "thanos", &["max_retries: 1"]), limits()).await;
        let error = bucket.get("x", 1 << 20).await.unwrap_err();
        let text = error.to_string();
        assert_eq!(error.kind, ErrorKind::Network, "{text}");
        assert!(text.contains(&words), "{text}");
        for empty in ["io error", "client error", "connect error", "dispatch failure"] {
            assert!(!text.contains(empty), "{text}");
        }
        assert_eq!(text.contains("`insecure`"), *host == encrypted, "{text}");
    }
}
