//! From a URL to a connection: directly or through a proxy, with or without TLS.

use std::{
    io,
    net::IpAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use aws_smithy_runtime_api::box_error::BoxError;
use futures_util::future::BoxFuture;
use http::{HeaderValue, Uri};
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::{
    client::{
        legacy::connect::{
            Connected, Connection, HttpConnector,
            proxy::{SocksV5, Tunnel},
        },
        proxy::matcher::{Intercept, Matcher},
    },
    rt::TokioIo,
};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;
use tower_service::Service;

use super::{
    failure::{Handshake, NotConnected, TimedOut},
    tls::Tls,
};

const KEEP_ALIVE: Duration = Duration::from_secs(30);

/// Which proxies to use, by Go's rules: `HTTP_PROXY`, `HTTPS_PROXY` and `NO_PROXY` in either case; never for this host
/// itself, and, since no proxy could reach the same one, never for link-local addresses and those that Amazon gives its
/// metadata services (fd00:ec2::/32).
#[derive(Debug)]
pub(in crate::objstore) struct Proxies(Matcher);

impl Proxies {
    /// As the environment says.
    pub(in crate::objstore) fn from_env() -> Self {
        let first = |names: [&str; 2]| {
            names
                .iter()
                .find_map(|name| std::env::var(name).ok().filter(|value| !value.is_empty()))
                .unwrap_or_default()
        };
        Self::new(
            &first(["HTTP_PROXY", "http_proxy"]),
            &first(["HTTPS_PROXY", "https_proxy"]),
            &first(["NO_PROXY", "no_proxy"]),
        )
    }

    /// URLs of proxies for either scheme, and a comma-separated list of hosts to reach directly; empty for none.
    pub(in crate::objstore) fn new(http: &str, https: &str, direct: &str) -> Self {
        let all_direct = direct.split(',').any(|host| host.trim() == "*");
        let [http, https] = [http, https].map(|url| if all_direct { String::new() } else { url.to_owned() });
        Self(Matcher::builder().http(http).https(https).no(direct.to_owned()).build())
    }

    pub(super) fn of(&self, uri: &Uri) -> Option<Intercept> {
        let host = uri.host()?.trim_matches(['[', ']']);
        let near = match host.parse() {
            Ok(IpAddr::V4(ip)) => ip.is_loopback() || ip.is_link_local(),
            Ok(IpAddr::V6(ip)) => {
                ip.is_loopback() || ip.is_unicast_link_local() || ip.segments()[..2] == [0xfd00, 0xec2]
            }
            Err(_) => host.eq_ignore_ascii_case("localhost"),
        };
        if near { None } else { self.0.intercept(uri) }
    }

    /// What a plain request through a proxy must carry (a tunnel's own request carries it otherwise).
    pub(super) fn header_for(&self, uri: &Uri) -> Option<HeaderValue> {
        if uri.scheme_str() != Some("http") {
            return None;
        }
        self.of(uri)?.basic_auth().cloned()
    }
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

type Io = Box<dyn Stream>;

/// Makes connections for the pool.
#[derive(Clone, Debug)]
pub(super) struct Connector {
    direct: Direct,
    proxies: Arc<Proxies>,
}

impl Connector {
    pub(super) fn new(dial: Duration, handshake: Option<Duration>, tls: Arc<Tls>, proxies: Arc<Proxies>) -> Self {
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_connect_timeout(Some(dial));
        tcp.set_keepalive(Some(KEEP_ALIVE));
        tcp.set_keepalive_interval(Some(KEEP_ALIVE));
        tcp.set_nodelay(true);
        Self {
            direct: Direct { tcp, handshake, tls },
            proxies,
        }
    }

    async fn connect(mut self, uri: Uri) -> Result<Established, BoxError> {
        let secure = uri.scheme_str() == Some("https");
        let Some(proxy) = self.proxies.of(&uri) else {
            let io = self.direct.tcp(uri.clone()).await?;
            let io = if secure {
                self.direct.encrypt(io, &uri, true).await?
            } else {
                io
            };
            return Ok(Established {
                io: TokioIo::new(io),
                absolute: false,
            });
        };
        let socks = proxy
            .uri()
            .scheme_str()
            .is_some_and(|scheme| scheme.starts_with("socks5"));
        if !secure && !socks {
            let io = self.direct.call(proxy.uri().clone()).await?;
            return Ok(Established { io, absolute: true });
        }
        let io = if socks {
            self.socks(&proxy, uri.clone()).await?
        } else {
            self.tunnel(&proxy, uri.clone()).await?
        };
        let io = if secure {
            self.direct.encrypt(io, &uri, true).await?
        } else {
            io
        };
        Ok(Established {
            io: TokioIo::new(io),
            absolute: false,
        })
    }

    async fn tunnel(&self, proxy: &Intercept, uri: Uri) -> Result<Io, BoxError> {
        let mut tunnel = Tunnel::new(proxy.uri().clone(), self.direct.clone());
        if let Some(auth) = proxy.basic_auth() {
            tunnel = tunnel.with_auth(auth.clone());
        }
        Ok(tunnel.call(with_port(uri)?).await?.into_inner())
    }

    async fn socks(&self, proxy: &Intercept, uri: Uri) -> Result<Io, BoxError> {
        let mut socks = SocksV5::new(proxy.uri().clone(), self.direct.tcp.clone());
        if let Some((user, password)) = proxy.raw_auth() {
            socks = socks.with_auth(user.to_owned(), password.to_owned());
        }
        Ok(Box::new(socks.call(with_port(uri)?).await?.into_inner()))
    }
}

/// Proxies are told the port always.
fn with_port(uri: Uri) -> Result<Uri, BoxError> {
    if uri.port().is_some() {
        return Ok(uri);
    }
    let port = if uri.scheme_str() == Some("https") { 443 } else { 80 };
    let host = uri.host().unwrap_or_default().to_owned();
    let mut parts = uri.into_parts();
    parts.authority = Some(format!("{host}:{port}").parse()?);
    Ok(Uri::from_parts(parts)?)
}

impl Service<Uri> for Connector {
    type Response = Established;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Established, BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        Box::pin(self.clone().connect(uri))
    }
}

/// Connections without a proxy; TLS when the URL says so.
#[derive(Clone, Debug)]
struct Direct {
    tcp: HttpConnector,
    handshake: Option<Duration>,
    tls: Arc<Tls>,
}

impl Direct {
    async fn tcp(&mut self, uri: Uri) -> Result<Io, BoxError> {
        let connected = self.tcp.call(uri.clone()).await;
        let io = connected.map_err(|error| NotConnected::new(&uri, error.into()))?;
        Ok(Box::new(io.into_inner()))
    }

    /// `target`: the store itself, for which the configured name counts, not a proxy.
    async fn encrypt(&self, io: Io, uri: &Uri, target: bool) -> Result<Io, BoxError> {
        let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
        let name = self.tls.server_name().filter(|_| target).unwrap_or(host);
        let name = ServerName::try_from(name.to_owned())?;
        let connecting = TlsConnector::from(self.tls.config().await?).connect(name, io);
        let connected = match self.handshake {
            None => connecting.await,
            Some(limit) => tokio::time::timeout(limit, connecting)
                .await
                .unwrap_or_else(|_| Err(io::Error::new(io::ErrorKind::TimedOut, TimedOut::handshake(limit)))),
        };
        let io = connected.map_err(|source| Handshake {
            host: host.to_owned(),
            source,
        })?;
        Ok(Box::new(io))
    }
}

impl Service<Uri> for Direct {
    type Response = TokioIo<Io>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<TokioIo<Io>, BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let mut direct = self.clone();
        Box::pin(async move {
            let io = direct.tcp(uri.clone()).await?;
            let secure = uri.scheme_str() == Some("https");
            Ok(TokioIo::new(if secure {
                direct.encrypt(io, &uri, false).await?
            } else {
                io
            }))
        })
    }
}

/// A connection that is ready for HTTP.
pub(super) struct Established {
    io: TokioIo<Io>,
    /// Requests name the whole URL, since a proxy reads them.
    absolute: bool,
}

impl Connection for Established {
    fn connected(&self) -> Connected {
        Connected::new().proxy(self.absolute)
    }
}

impl Read for Established {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl Write for Established {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, bufs)
    }
}
