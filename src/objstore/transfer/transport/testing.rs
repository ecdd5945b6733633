//! Servers, authorities and proxies for tests.

use std::{
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::TokioIo;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::{
    RootCertStore, ServerConfig,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer},
    server::WebPkiClientVerifier,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use tokio_rustls::TlsAcceptor;

/// What a handler is given beside the request.
#[derive(Clone, Debug, Default)]
pub(in crate::objstore) struct Peer {
    /// The client's certificate, as DER.
    pub(in crate::objstore) certificate: Option<Vec<u8>>,
    /// The name that the client asked for.
    pub(in crate::objstore) asked_for: Option<String>,
}

/// One request as it arrived.
#[derive(Debug)]
pub(in crate::objstore) struct Seen {
    pub(in crate::objstore) head: http::request::Parts,
    pub(in crate::objstore) body: Bytes,
    pub(in crate::objstore) peer: Peer,
}

impl Seen {
    pub(in crate::objstore) fn header(&self, name: &str) -> &str {
        self.head.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}

pub(in crate::objstore) type Answer = Response<Full<Bytes>>;

pub(in crate::objstore) fn answer(status: u16, body: impl Into<Bytes>) -> Answer {
    Response::builder().status(status).body(Full::new(body.into())).unwrap()
}

/// A server that reads each request in full and then asks the handler.
pub(in crate::objstore) async fn serve<H, F>(tls: Option<ServerConfig>, handler: H) -> SocketAddr
where
    H: Fn(Seen) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Answer> + Send + 'static,
{
    let make = move |peer: Peer| {
        let handler = handler.clone();
        service_fn(move |request: Request<Incoming>| {
            let (handler, peer) = (handler.clone(), peer.clone());
            Box::pin(async move {
                let (head, body) = request.into_parts();
                let body = body.collect().await?.to_bytes();
                Ok::<_, hyper::Error>(handler(Seen { head, body, peer }).await)
            }) as BoxFuture<'static, _>
        })
    };
    serve_with(tls, make).await
}

/// A server of one service for each connection.
pub(in crate::objstore) async fn serve_with<S, B>(
    tls: Option<ServerConfig>,
    make: impl Fn(Peer) -> S + Send + Sync + 'static,
) -> SocketAddr
where
    S: hyper::service::Service<Request<Incoming>, Response = Response<B>> + Send + 'static,
    S::Future: Send,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let acceptor = tls.map(|config| TlsAcceptor::from(Arc::new(config)));
    let make = Arc::new(make);
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let (acceptor, make) = (acceptor.clone(), Arc::clone(&make));
            tokio::spawn(async move {
                let server = hyper::server::conn::http1::Builder::new();
                match acceptor {
                    None => {
                        let _ = server
                            .serve_connection(TokioIo::new(socket), make(Peer::default()))
                            .await;
                    }
                    Some(acceptor) => {
                        let Ok(io) = acceptor.accept(socket).await else { return };
                        let session = io.get_ref().1;
                        let peer = Peer {
                            certificate: session.peer_certificates().map(|certs| certs[0].to_vec()),
                            asked_for: session.server_name().map(str::to_owned),
                        };
                        let _ = server.serve_connection(TokioIo::new(io), make(peer)).await;
                    }
                }
            });
        }
    });
    address
}

/// A certificate authority.
pub(in crate::objstore) struct Authority {
    pub(in crate::objstore) pem: String,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate and its key.
pub(in crate::objstore) struct Pair {
    pub(in crate::objstore) cert: String,
    pub(in crate::objstore) der: CertificateDer<'static>,
    pub(in crate::objstore) key: String,
}

impl Authority {
    pub(in crate::objstore) fn new(name: &str) -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self {
            pem,
            issuer: Issuer::new(params, key),
        }
    }

    pub(in crate::objstore) fn sign(&self, name: &str) -> Pair {
        let key = KeyPair::generate().unwrap();
        let cert = CertificateParams::new(vec![name.to_owned()])
            .unwrap()
            .signed_by(&key, &self.issuer)
            .unwrap();
        Pair {
            cert: cert.pem(),
            der: cert.der().clone(),
            key: key.serialize_pem(),
        }
    }
}

/// A certificate that vouches for itself and calls itself an authority, as `openssl req -x509` makes them.
pub(in crate::objstore) fn self_signed(name: &str) -> Pair {
    let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    let cert = params.self_signed(&key).unwrap();
    Pair {
        cert: cert.pem(),
        der: cert.der().clone(),
        key: key.serialize_pem(),
    }
}

impl Pair {
    /// TLS for a server with this certificate; `clients`: who must have signed the client's.
    pub(in crate::objstore) fn server(&self, clients: Option<&Authority>) -> ServerConfig {
        use rustls::pki_types::pem::PemObject;
        let provider = Arc::new(aws_lc_rs::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .unwrap();
        let builder = match clients {
            None => builder.with_no_client_auth(),
            Some(authority) => {
                let mut roots = RootCertStore::empty();
                roots
                    .add(CertificateDer::from_pem_slice(authority.pem.as_bytes()).unwrap())
                    .unwrap();
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
                    .build()
                    .unwrap();
                builder.with_client_cert_verifier(verifier)
            }
        };
        let key = PrivateKeyDer::from_pem_slice(self.key.as_bytes()).unwrap();
        builder.with_single_cert(vec![self.der.clone()], key).unwrap()
    }
}

/// Writes a file for a test and tells its path.
pub(in crate::objstore) fn file(dir: &Path, name: &str, content: &str) -> PathBuf {
    let path = dir.join(name);
    fs_err::write(&path, content).unwrap();
    path
}

/// A proxy: notes the first line and the authorization of what it is asked for. Tunnels lead to `target`, whatever
/// they ask for; plain requests are answered with "by proxy".
pub(in crate::objstore) async fn proxy(target: SocketAddr) -> (SocketAddr, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let notes = Arc::new(Mutex::new(Vec::new()));
    let noted = Arc::clone(&notes);
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let noted = Arc::clone(&noted);
            tokio::spawn(async move { relay(socket, target, &noted).await });
        }
    });
    (address, notes)
}

async fn relay(mut socket: TcpStream, target: SocketAddr, notes: &Mutex<Vec<String>>) -> io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(socket.read_u8().await?);
    }
    let head = String::from_utf8(head).unwrap();
    let wanted = |line: &&str| line.to_ascii_lowercase().starts_with("proxy-authorization");
    let auth = head.lines().find(wanted).unwrap_or_default();
    notes
        .lock()
        .unwrap()
        .push(format!("{} {auth}", head.lines().next().unwrap()));
    if head.starts_with("CONNECT") {
        socket.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await?;
        let mut there = TcpStream::connect(target).await?;
        tokio::io::copy_bidirectional(&mut socket, &mut there).await?;
    } else {
        socket
            .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 8\r\n\r\nby proxy")
            .await?;
    }
    Ok(())
}
