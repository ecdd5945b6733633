//! An S3 server that throws away what it is sent and acknowledges it: what is measured is the client.

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

/// Starts one on the current runtime, on which it lives; its address.
pub(crate) async fn start() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("there are free ports");
    let address = listener.local_addr().expect("a listener has an address").to_string();
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            // An error is a client that went away.
            tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(socket), service_fn(take)));
        }
    });
    address
}

async fn take(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, hyper::Error> {
    let (head, mut body) = request.into_parts();
    while let Some(frame) = body.frame().await {
        frame?;
    }
    let mut answer = Response::builder().header("etag", "\"e\"");
    for name in ["x-amz-checksum-crc32c", "content-md5"] {
        if let Some(value) = head.headers.get(name) {
            answer = answer.header(name, value);
        }
    }
    let query = head.uri.query().unwrap_or_default();
    let body = match (head.method.as_str(), query.contains("uploadId=")) {
        ("POST", false) => "<InitiateMultipartUploadResult><UploadId>u</UploadId></InitiateMultipartUploadResult>",
        ("POST", true) => "<CompleteMultipartUploadResult><ETag>x</ETag></CompleteMultipartUploadResult>",
        _ => "",
    };
    Ok(answer
        .body(Full::new(Bytes::from_static(body.as_bytes())))
        .expect("the parts of an answer are good"))
}
