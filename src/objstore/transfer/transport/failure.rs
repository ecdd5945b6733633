//! Why an exchange failed, as the SDK's retries want to know it.

use std::{error::Error, fmt, io, time::Duration};

use aws_smithy_runtime_api::{box_error::BoxError, client::result::ConnectorError};
use http::Uri;

use crate::trust::ServerProblem;

/// Something took longer than it may.
#[derive(Debug)]
pub(super) struct TimedOut {
    what: &'static str,
    limit: Duration,
    /// Whether it was the answer.
    answer: bool,
}

impl TimedOut {
    pub(super) fn handshake(limit: Duration) -> Self {
        let (what, answer) = ("the TLS handshake", false);
        Self { what, limit, answer }
    }

    pub(super) fn answer(limit: Duration) -> Self {
        let (what, answer) = ("an answer", true);
        Self { what, limit, answer }
    }

    pub(super) fn answer_after_body(limit: Duration) -> Self {
        let (what, answer) = ("an answer after the request was sent", true);
        Self { what, limit, answer }
    }
}

impl fmt::Display for TimedOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "waited {:?} for {}", self.limit, self.what)
    }
}

impl Error for TimedOut {}

/// Whether the connection stood and no answer came in time.
pub(in crate::objstore) fn no_answer(error: &ConnectorError) -> bool {
    causes(error).any(|cause| cause.downcast_ref().is_some_and(|slow: &TimedOut| slow.answer))
}

/// A connection that was not made: the name has no address, or nobody accepts there.
#[derive(Debug)]
pub(super) struct NotConnected {
    /// Of the store, or of the proxy before it, with the port.
    host: String,
    source: BoxError,
}

impl NotConnected {
    pub(super) fn new(uri: &Uri, source: BoxError) -> Self {
        let secure = uri.scheme_str() == Some("https");
        let port = uri.port_u16().unwrap_or(if secure { 443 } else { 80 });
        let host = format!("{}:{port}", uri.host().unwrap_or_default());
        Self { host, source }
    }
}

impl fmt::Display for NotConnected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no connection with {}", self.host)
    }
}

impl Error for NotConnected {
    /// The cause itself: the connector's own words add nothing.
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(self.source.source().unwrap_or(&*self.source))
    }
}

/// Whether a failure says nothing that its source does not say: a word of the SDK or of the HTTP client for its kind.
pub(in crate::objstore) fn is_only_a_wrapper(error: &(dyn Error + 'static)) -> bool {
    let wraps = error.is::<ConnectorError>() || error.is::<hyper_util::client::legacy::Error>();
    wraps && error.source().is_some()
}

/// Whether the connection was not made.
pub(in crate::objstore) fn not_connected(error: &(dyn Error + 'static)) -> bool {
    causes(error).any(|cause| cause.is::<NotConnected>() || cause.is::<Handshake>())
}

/// Whether what answered does not speak HTTP.
pub(in crate::objstore) fn not_http(error: &(dyn Error + 'static)) -> bool {
    causes(error).any(|cause| cause.downcast_ref().is_some_and(hyper::Error::is_parse))
}

/// An error and all that it stems from.
pub(in crate::objstore) fn causes<'a>(
    error: &'a (dyn Error + 'static),
) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |&cause: &&'a (dyn Error + 'static)| cause.source())
}

/// A TLS handshake that failed.
#[derive(Debug)]
pub(super) struct Handshake {
    pub(super) host: String,
    pub(super) source: io::Error,
}

impl fmt::Display for Handshake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no TLS connection with {}", self.host)?;
        let error = tls_error(&self.source);
        let Some(problem) = error.and_then(ServerProblem::of) else {
            return match error {
                Some(rustls::Error::AlertReceived(_)) => f.write_str(" (it refused)"),
                _ => Ok(()),
            };
        };
        write!(f, " ({problem}")?;
        f.write_str(match problem {
            ServerProblem::Untrusted => "; see http_config.tls_config.ca_file and server_name)",
            ServerProblem::UnknownName => "; see http_config.tls_config.server_name)",
            ServerProblem::NotTls => "; see `insecure`)",
            ServerProblem::Ciphers | ServerProblem::RefusesOurs => "; see http_config.tls_config.cert_file)",
            ServerProblem::Nameless | ServerProblem::Versions => ")",
        })
    }
}

impl Error for Handshake {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&self.source)
    }
}

/// rustls' own error, where tokio-rustls put it.
fn tls_error(error: &io::Error) -> Option<&rustls::Error> {
    error.get_ref()?.downcast_ref()
}

enum Kind {
    Timeout,
    Io,
    /// Our side: the body could not be read.
    User,
    /// Another try ends the same way.
    Final,
}

/// Sorts a failure for the SDK; its chain of sources is kept.
pub(super) fn connector_error(error: BoxError, dialling: bool) -> ConnectorError {
    let sorted = match kind(&*error) {
        Kind::Timeout => ConnectorError::timeout(error),
        Kind::Io => ConnectorError::io(error),
        Kind::User => ConnectorError::user(error),
        Kind::Final => ConnectorError::other(error, None),
    };
    if dialling { sorted.never_connected() } else { sorted }
}

/// The outermost cause that tells decides: what is below a failed body is not about the connection.
fn kind(error: &(dyn Error + 'static)) -> Kind {
    for error in causes(error) {
        if error.is::<TimedOut>() {
            return Kind::Timeout;
        }
        if let Some(found) = error.downcast_ref::<io::Error>() {
            return of_io(found);
        }
        if let Some(found) = error.downcast_ref::<hyper::Error>() {
            if found.is_user() {
                return Kind::User;
            }
            if found.is_parse() {
                return Kind::Final;
            }
            if found.is_timeout() {
                return Kind::Timeout;
            }
        }
        if error.is::<crate::objstore::config::ConfigError>() {
            return Kind::Final;
        }
    }
    Kind::Io
}

fn of_io(error: &io::Error) -> Kind {
    use rustls::Error as Tls;
    match tls_error(error) {
        Some(
            Tls::InvalidCertificate(_)
            | Tls::NoCertificatesPresented
            | Tls::AlertReceived(_)
            | Tls::InvalidMessage(_)
            | Tls::PeerIncompatible(_),
        ) => Kind::Final,
        Some(_) => Kind::Io,
        None if error.kind() == io::ErrorKind::TimedOut => Kind::Timeout,
        None => match error.get_ref() {
            // An error that was only carried as one of I/O.
            Some(inner) if inner.is::<TimedOut>() => Kind::Timeout,
            _ => Kind::Io,
        },
    }
}
