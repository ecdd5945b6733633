//! Why a TLS handshake failed, for whoever runs the client: what was wrong, and what to do.

use std::{io, net::SocketAddr};

use rustls::{CertificateError, Error, InvalidMessage, PeerIncompatible};
use tracing::{debug, warn};

use super::error::{CLIENT_CA, MIN_VERSION};
use crate::ops::log_limit::LogLimit;

/// What was wrong, as in the metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::ops::grpc) enum Reason {
    /// The client sent something that is not TLS.
    NotTls,
    /// No version in common.
    Version,
    /// No cipher suite, curve or signature algorithm in common.
    Ciphers,
    /// It did not offer `h2`.
    Protocol,
    /// It sent no certificate.
    NoCertificate,
    /// It sent one that is not trusted.
    Certificate,
    /// It rejected ours.
    RefusedOurs,
    /// It was too slow.
    Slow,
    /// It closed the connection before the end.
    Left,
    /// Anything else.
    Other,
}

impl Reason {
    /// The value of the label.
    pub(in crate::ops::grpc) fn name(self) -> &'static str {
        match self {
            Self::NotTls => "not_tls",
            Self::Version => "version",
            Self::Ciphers => "ciphers",
            Self::Protocol => "protocol",
            Self::NoCertificate => "no_certificate",
            Self::Certificate => "certificate",
            Self::RefusedOurs => "refused_ours",
            Self::Slow => "slow",
            Self::Left => "left",
            Self::Other => "other",
        }
    }
}

/// A handshake that failed.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::ops::grpc) struct Failure {
    pub(in crate::ops::grpc) reason: Reason,
    text: String,
}

impl Failure {
    /// All reasons, in the order of their numbers.
    pub(in crate::ops::grpc) const REASONS: [Reason; 10] = [
        Reason::NotTls,
        Reason::Version,
        Reason::Ciphers,
        Reason::Protocol,
        Reason::NoCertificate,
        Reason::Certificate,
        Reason::RefusedOurs,
        Reason::Slow,
        Reason::Left,
        Reason::Other,
    ];

    fn new(reason: Reason, text: impl Into<String>) -> Self {
        let text = text.into();
        Self { reason, text }
    }

    /// The client took too long.
    pub(in crate::ops::grpc) fn too_slow() -> Self {
        Self::new(Reason::Slow, "the handshake timed out")
    }

    /// What an accept failed with.
    pub(in crate::ops::grpc) fn of(error: &io::Error) -> Self {
        match error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) {
            Some(tls) => Self::of_tls(tls),
            None if error.kind() == io::ErrorKind::TimedOut => Self::too_slow(),
            None => Self::new(Reason::Left, format!("the client closed the connection: {error}")),
        }
    }

    fn of_tls(error: &Error) -> Self {
        match error {
            Error::InvalidMessage(InvalidMessage::InvalidContentType) | Error::PeerSentOversizedRecord => Self::new(
                Reason::NotTls,
                "the client does not use TLS: enable it there, as with --grpc-client-tls-secure of a querier",
            ),
            Error::PeerIncompatible(
                PeerIncompatible::SupportedVersionsExtensionRequired
                | PeerIncompatible::ServerDoesNotSupportTls12Or13
                | PeerIncompatible::Tls12NotOffered
                | PeerIncompatible::Tls12NotOfferedOrEnabled,
            ) => Self::new(
                Reason::Version,
                format!("the client supports no TLS version that is allowed here: see {MIN_VERSION} ({error})"),
            ),
            Error::PeerIncompatible(_) => Self::new(
                Reason::Ciphers,
                format!("client and server have no cipher suite, curve or signature algorithm in common ({error})"),
            ),
            Error::NoApplicationProtocol => Self::new(Reason::Protocol, "the client does not offer HTTP/2 (ALPN h2)"),
            Error::NoCertificatesPresented => Self::new(
                Reason::NoCertificate,
                format!("the client sent no certificate, and {CLIENT_CA} requires one"),
            ),
            Error::InvalidCertificate(CertificateError::UnknownIssuer) => Self::new(
                Reason::Certificate,
                format!("the client's certificate was not issued by a certificate of {CLIENT_CA}"),
            ),
            Error::InvalidCertificate(problem) => Self::new(
                Reason::Certificate,
                format!("the client's certificate is not valid: {problem}"),
            ),
            Error::AlertReceived(alert) => Self::new(
                Reason::RefusedOurs,
                format!(
                    "the client rejected the handshake: {alert:?}; if that is about a CA or a certificate, it does \
                     not trust the certificate of this server"
                ),
            ),
            other => Self::new(Reason::Other, other.to_string()),
        }
    }

    /// Logs it, as a warning only where somebody has to do something, and not too often.
    pub(in crate::ops::grpc) fn log(&self, peer: SocketAddr, limit: &LogLimit) {
        let reason = self.reason.name();
        if self.reason == Reason::Left {
            // Probes of a port look like this.
            debug!(%peer, reason, problem = self.text, "a TLS handshake failed");
        } else if let Some(suppressed) = limit.check() {
            warn!(%peer, reason, problem = self.text, suppressed, "a TLS handshake with a gRPC client failed");
        }
    }
}

#[cfg(test)]
mod tests {
    use rustls::AlertDescription;

    use super::*;

    #[test]
    fn reasons_have_the_places_of_their_numbers() {
        for (at, reason) in Failure::REASONS.into_iter().enumerate() {
            assert_eq!(reason as usize, at, "{reason:?}");
        }
    }

    #[test]
    fn what_the_client_did_wrong_is_said() {
        let tls = |error: Error| io::Error::new(io::ErrorKind::InvalidData, error);
        for (error, reason, part) in [
            (tls(Error::NoCertificatesPresented), "no_certificate", CLIENT_CA),
            (
                tls(Error::InvalidCertificate(CertificateError::UnknownIssuer)),
                "certificate",
                "was not issued by",
            ),
            (
                tls(Error::InvalidCertificate(CertificateError::Expired)),
                "certificate",
                "xpired",
            ),
            (
                tls(Error::PeerIncompatible(PeerIncompatible::Tls12NotOfferedOrEnabled)),
                "version",
                MIN_VERSION,
            ),
            (
                tls(Error::PeerIncompatible(PeerIncompatible::NoCipherSuitesInCommon)),
                "ciphers",
                "cipher suite",
            ),
            (tls(Error::NoApplicationProtocol), "protocol", "h2"),
            (
                tls(Error::InvalidMessage(InvalidMessage::InvalidContentType)),
                "not_tls",
                "does not use TLS",
            ),
            (
                tls(Error::AlertReceived(AlertDescription::UnknownCA)),
                "refused_ours",
                "UnknownCA",
            ),
            (tls(Error::DecryptError), "other", "decrypt"),
            (
                io::ErrorKind::UnexpectedEof.into(),
                "left",
                "the client closed the connection",
            ),
            (io::ErrorKind::TimedOut.into(), "slow", "timed out"),
        ] {
            let failure = Failure::of(&error);
            assert_eq!(failure.reason.name(), reason, "{failure:?}");
            assert!(failure.text.contains(part), "{failure:?}");
        }
    }
}
