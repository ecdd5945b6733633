//! Why a server and this program found no TLS connection, in words for whoever runs the two.

use std::fmt;

use rustls::{AlertDescription, CertificateError, Error, PeerIncompatible};

/// What is wrong between us and a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServerProblem {
    /// Its certificate is not good.
    Untrusted,
    /// Its certificate has no names that could be checked.
    Nameless,
    /// It answers something else than TLS.
    NotTls,
    /// There is no version that both sides speak.
    Versions,
    /// There is no cipher suite, curve or signature that both sides allow; or it demands a certificate of us and says so in
    /// the same way.
    Ciphers,
    /// It does not like our certificate, or misses one.
    RefusesOurs,
    /// It knows no such name.
    UnknownName,
}

impl ServerProblem {
    /// What an error of a handshake says; `None` if that is all there is to say.
    pub fn of(error: &Error) -> Option<Self> {
        use AlertDescription::*;
        Some(match error {
            Error::InvalidCertificate(CertificateError::NotValidForNameContext { presented, .. })
                if presented.is_empty() =>
            {
                Self::Nameless
            }
            Error::InvalidCertificate(_) => Self::Untrusted,
            Error::InvalidMessage(_) => Self::NotTls,
            Error::AlertReceived(HandshakeFailure | InsufficientSecurity) => Self::Ciphers,
            Error::AlertReceived(ProtocolVersion) => Self::Versions,
            Error::AlertReceived(UnrecognisedName) => Self::UnknownName,
            Error::AlertReceived(
                NoCertificate
                | BadCertificate
                | UnsupportedCertificate
                | CertificateRevoked
                | CertificateExpired
                | CertificateUnknown
                | UnknownCA
                | AccessDenied
                | CertificateRequired,
            ) => Self::RefusesOurs,
            Error::PeerIncompatible(
                PeerIncompatible::ServerDoesNotSupportTls12Or13
                | PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig,
            ) => Self::Versions,
            Error::PeerIncompatible(
                PeerIncompatible::NoCipherSuitesInCommon
                | PeerIncompatible::NoKxGroupsInCommon
                | PeerIncompatible::NoEcPointFormatsInCommon
                | PeerIncompatible::NoSignatureSchemesInCommon
                | PeerIncompatible::NoCertificateRequestSignatureSchemesInCommon,
            ) => Self::Ciphers,
            _ => return None,
        })
    }
}

impl fmt::Display for ServerProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Untrusted => "its certificate is not trusted",
            Self::Nameless => {
                "its certificate names no host: it has no subjectAltName, which X.509 version 1 does not know; it needs one \
                 with its name"
            }
            Self::NotTls => "it does not speak TLS here",
            Self::Versions => "it allows none of the versions of TLS that narthex speaks, 1.2 and 1.3",
            Self::Ciphers => {
                "it allows none of the cipher suites that narthex offers, or it demands a client certificate. Offered are \
                 those of TLS 1.3, and of TLS 1.2 those with ECDHE and AES-GCM or ChaCha20-Poly1305; none with CBC, none \
                 with RSA key exchange. Allow one of these on the server"
            }
            Self::RefusesOurs => "it refuses our client certificate, or demands one",
            Self::UnknownName => "it has no certificate for the name that it was asked for",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_of_handshakes_say_which_side_lacks_what() {
        let nameless = CertificateError::NotValidForNameContext {
            expected: rustls::pki_types::ServerName::try_from("store").unwrap(),
            presented: Vec::new(),
        };
        for (error, part) in [
            (
                Error::AlertReceived(AlertDescription::HandshakeFailure),
                "none with CBC",
            ),
            (Error::AlertReceived(AlertDescription::ProtocolVersion), "1.2 and 1.3"),
            (
                Error::PeerIncompatible(PeerIncompatible::ServerDoesNotSupportTls12Or13),
                "1.2 and 1.3",
            ),
            (Error::AlertReceived(AlertDescription::UnknownCA), "client certificate"),
            (
                Error::AlertReceived(AlertDescription::CertificateRequired),
                "or demands one",
            ),
            (Error::AlertReceived(AlertDescription::UnrecognisedName), "for the name"),
            (Error::InvalidCertificate(nameless), "names no host"),
            (
                Error::InvalidCertificate(CertificateError::UnknownIssuer),
                "not trusted",
            ),
        ] {
            let problem = ServerProblem::of(&error).unwrap();
            assert!(problem.to_string().contains(part), "{problem}");
        }
        assert_eq!(ServerProblem::of(&Error::DecryptError), None);
    }
}
