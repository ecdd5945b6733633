//! A client that sends whatever it is told, and shows whatever it gets.

use std::net::SocketAddr;

use bytes::Bytes;
use http::{HeaderMap, Request, Version};
use http_body_util::{BodyExt as _, Full};
use hyper::{body::Incoming, client::conn::http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use prost::Message;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    task::JoinHandle,
};

/// One connection.
pub(super) struct Raw {
    sender: http2::SendRequest<Full<Bytes>>,
    /// Ends with the connection.
    pub(super) connection: JoinHandle<hyper::Result<()>>,
}

/// All that came for a call.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) headers: HeaderMap,
    pub(super) body: Vec<u8>,
    pub(super) trailers: HeaderMap,
}

impl Raw {
    pub(super) async fn connect(address: SocketAddr) -> Self {
        Self::over(TcpStream::connect(address).await.unwrap()).await.unwrap()
    }

    pub(super) async fn over(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) -> hyper::Result<Self> {
        let (sender, connection) = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .handshake(TokioIo::new(stream))
            .await?;
        let connection = tokio::spawn(connection);
        Ok(Self { sender, connection })
    }

    pub(super) async fn send(&mut self, request: Request<Full<Bytes>>) -> hyper::Result<http::Response<Incoming>> {
        self.sender.ready().await?;
        self.sender.send_request(request).await
    }

    /// Begins a call: gives the answer when its headers are there.
    pub(super) async fn begin(
        &mut self,
        path: &str,
        headers: &[(&str, &str)],
        body: Vec<u8>,
    ) -> hyper::Result<http::Response<Incoming>> {
        let mut request = Request::post(format!("http://narthex{path}"))
            .version(Version::HTTP_2)
            .header("content-type", "application/grpc")
            .header("te", "trailers");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.send(request.body(Full::new(body.into())).unwrap()).await
    }

    /// Makes a call and waits for all of its answer.
    pub(super) async fn call(&mut self, path: &str, headers: &[(&str, &str)], body: Vec<u8>) -> Answer {
        let response = self.begin(path, headers, body).await.unwrap();
        let (parts, body) = response.into_parts();
        let body = body.collect().await.unwrap();
        let trailers = body.trailers().cloned().unwrap_or_default();
        Answer {
            headers: parts.headers,
            body: body.to_bytes().to_vec(),
            trailers,
        }
    }
}

impl Answer {
    /// The status: from the trailers, or from the headers where there are only those.
    pub(super) fn code(&self) -> i32 {
        self.told("grpc-status").parse().unwrap()
    }

    pub(super) fn message(&self) -> String {
        let text = self.told("grpc-message").replace("%20", " ");
        text.replace("%22", "\"")
    }

    fn told(&self, name: &str) -> String {
        let value = self.trailers.get(name).or_else(|| self.headers.get(name)).unwrap();
        value.to_str().unwrap().to_owned()
    }

    /// The flag and the bytes of each message.
    pub(super) fn messages(&self) -> Vec<(u8, Vec<u8>)> {
        let (mut body, mut messages) = (&self.body[..], Vec::new());
        while let Some((&[flag, a, b, c, d], rest)) = body.split_first_chunk() {
            let (message, rest) = rest.split_at(u32::from_be_bytes([a, b, c, d]) as usize);
            messages.push((flag, message.to_vec()));
            body = rest;
        }
        assert!(body.is_empty(), "half a message");
        messages
    }
}

/// A body of one message with this flag.
pub(super) fn framed(flag: u8, message: &[u8]) -> Vec<u8> {
    let mut body = vec![flag];
    body.extend((message.len() as u32).to_be_bytes());
    body.extend(message);
    body
}

/// A body of one message.
pub(super) fn body(message: &impl Message) -> Vec<u8> {
    framed(0, &message.encode_to_vec())
}
