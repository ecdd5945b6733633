//! Which TLS certificates are trusted, by Go's rules: the same for clients that connect and for servers that are
//! called.
//!
//! Chains are built and signatures verified by rustls and webpki. This module adds what they do not do and Go does:
//! - a certificate that is itself in the file of trusted ones is trusted, whoever signed it, CA or not, as long as it
//!   is within its validity, its usage fits and (of a server) its name;
//! - certificates of X.509 version 1, as `openssl x509 -req` makes them, are read; they have no names that a client
//!   could check, so that they are trusted of servers only where nothing is verified. Between one of them and the
//!   trusted certificate that signed it there may be no other, while Go follows any chain;
//! - a trusted certificate that is no CA, has expired, or whose key is not for signing certificates, issues no others,
//!   though webpki would accept them;
//! - a certificate in the file that cannot be read is skipped and reported.
//!
//! Nothing is trusted here that Go would refuse for its time, usage, name or signature. `extKeyUsage` *any* counts only
//! in a certificate that is itself in the file. Everything is computed from the arguments; nothing is kept, and nothing
//! waits.

use std::sync::Arc;

use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, ExtendedKeyPurpose, InconsistentKeys,
    OtherError, RootCertStore, SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        verify_server_name,
    },
    crypto::{CryptoProvider, WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, TrustAnchor, UnixTime, pem::PemObject as _},
    server::{
        ParsedCertificate, WebPkiClientVerifier,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
    sign::CertifiedKey,
};

use self::certificate::Certificate;
pub use self::{
    certificate::Validity,
    client::{ClientFiles, FileError, client_config},
    handshake::ServerProblem,
};

mod certificate;
mod client;
mod handshake;
pub mod pem;

/// id-kp-serverAuth and id-kp-clientAuth.
const SERVER_AUTH: &[u8] = &[0x2b, 6, 1, 5, 5, 7, 3, 1];
const CLIENT_AUTH: &[u8] = &[0x2b, 6, 1, 5, 5, 7, 3, 2];

/// Certificates that are trusted, from a file.
#[derive(Clone, Debug)]
pub struct Trusted {
    certificates: Vec<CertificateDer<'static>>,
    issuers: Vec<Issuer>,
    hints: Vec<DistinguishedName>,
}

/// One from which others may come.
#[derive(Clone, Debug)]
struct Issuer {
    der: CertificateDer<'static>,
    anchor: TrustAnchor<'static>,
    validity: Validity,
}

/// A file has no certificate that can be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no readable certificate in PEM{}", self.because())]
pub struct NoCertificate {
    /// What was left out, and why.
    pub skipped: Vec<String>,
}

impl NoCertificate {
    fn because(&self) -> String {
        self.skipped
            .first()
            .map(|first| format!(": {first}"))
            .unwrap_or_default()
    }
}

impl Trusted {
    /// Reads all certificates of `text`, in PEM; with a text about each that was left out, for a warning.
    ///
    /// # Errors
    /// None can be read.
    pub fn read(text: &[u8]) -> Result<(Self, Vec<String>), NoCertificate> {
        let found = CertificateDer::pem_slice_iter(text);
        Self::of(found.map(|found| found.map_err(|error| pem::words(&error).to_owned())))
    }

    /// The same of certificates that were read already, as those of the system.
    ///
    /// # Errors
    /// None can be read.
    pub fn of(
        certificates: impl IntoIterator<Item = Result<CertificateDer<'static>, String>>,
    ) -> Result<(Self, Vec<String>), NoCertificate> {
        let mut trusted = Self {
            certificates: Vec::new(),
            issuers: Vec::new(),
            hints: Vec::new(),
        };
        let mut skipped = Vec::new();
        for (at, found) in certificates.into_iter().enumerate() {
            if let Err(problem) = found.and_then(|der| trusted.add(der)) {
                skipped.push(format!("certificate {} of the file: {problem}", at + 1));
            }
        }
        if trusted.certificates.is_empty() {
            return Err(NoCertificate { skipped });
        }
        Ok((trusted, skipped))
    }

    fn add(&mut self, der: CertificateDer<'static>) -> Result<(), String> {
        let certificate = Certificate::read(&der).map_err(|error| error.to_string())?;
        if certificate.may_issue() {
            let mut store = RootCertStore::empty();
            let readable = readable(&der, &certificate);
            store.add(readable).map_err(|error| error.to_string())?;
            self.issuers.extend(store.roots.into_iter().map(|anchor| Issuer {
                der: der.clone(),
                anchor,
                validity: certificate.validity,
            }));
        }
        self.hints.push(DistinguishedName::in_sequence(certificate.subject));
        self.certificates.push(der);
        Ok(())
    }

    /// Demands of each client a certificate that is trusted, or comes from one that is.
    pub fn of_clients(self, provider: &Arc<CryptoProvider>) -> Arc<dyn ClientCertVerifier> {
        Arc::new(Clients {
            trusted: self,
            provider: Arc::clone(provider),
        })
    }

    /// Demands of each server a certificate that is trusted, or comes from one that is, and has the server's name.
    pub fn of_servers(self, provider: &Arc<CryptoProvider>) -> Arc<dyn ServerCertVerifier> {
        Arc::new(Servers {
            trusted: self,
            provider: Arc::clone(provider),
        })
    }

    /// Whether a certificate is good by itself, or because a trusted one signed it directly: `None` when it needs a chain.
    fn alone(
        &self,
        der: &CertificateDer<'_>,
        now: UnixTime,
        purpose: Purpose,
        algorithms: &WebPkiSupportedAlgorithms,
    ) -> Option<Result<(), Error>> {
        // What is not read here is for webpki to refuse.
        let certificate = Certificate::read(der).ok()?;
        if !self.certificates.contains(der) {
            if certificate.version == 3 {
                return None;
            }
            let mut issuers = self
                .issuers
                .iter()
                .filter(|issuer| issuer.validity.holds_at(seconds(now)));
            if !issuers.any(|issuer| has_signed(issuer, &certificate, algorithms)) {
                return Some(Err(CertificateError::UnknownIssuer.into()));
            }
        }
        Some(fits(&certificate, now, purpose))
    }

    /// Those from which others may come now.
    fn roots(&self, now: UnixTime) -> Result<Arc<RootCertStore>, Error> {
        let valid = self
            .issuers
            .iter()
            .filter(|issuer| issuer.validity.holds_at(seconds(now)));
        let roots: RootCertStore = valid.map(|issuer| issuer.anchor.clone()).collect();
        match (roots.is_empty(), self.issuers.is_empty()) {
            (false, _) => Ok(Arc::new(roots)),
            (true, true) => Err(CertificateError::UnknownIssuer.into()),
            (true, false) => Err(other("no CA certificate of the file is valid at this time")),
        }
    }
}

/// What a certificate is shown for.
#[derive(Clone, Copy, Debug)]
enum Purpose {
    Client,
    Server,
}

/// Whether time, extensions and usage fit.
fn fits(certificate: &Certificate<'_>, now: UnixTime, purpose: Purpose) -> Result<(), Error> {
    let Validity { not_before, not_after } = certificate.validity;
    let at = |seconds: i64| {
        let since = u64::try_from(seconds).unwrap_or(0);
        UnixTime::since_unix_epoch(std::time::Duration::from_secs(since))
    };
    if seconds(now) < not_before {
        let not_before = at(not_before);
        return Err(CertificateError::NotValidYetContext { time: now, not_before }.into());
    }
    if seconds(now) > not_after {
        let not_after = at(not_after);
        return Err(CertificateError::ExpiredContext { time: now, not_after }.into());
    }
    if certificate.extensions.unknown_critical {
        return Err(CertificateError::UnhandledCriticalExtension.into());
    }
    let (usage, required) = match purpose {
        Purpose::Client => (CLIENT_AUTH, ExtendedKeyPurpose::ClientAuth),
        Purpose::Server => (SERVER_AUTH, ExtendedKeyPurpose::ServerAuth),
    };
    if certificate.is_for(usage) {
        return Ok(());
    }
    let presented = Vec::new();
    Err(CertificateError::InvalidPurposeContext { required, presented }.into())
}

/// Whether the signature of `certificate` is by the key of `issuer`.
fn has_signed(issuer: &Issuer, certificate: &Certificate<'_>, algorithms: &WebPkiSupportedAlgorithms) -> bool {
    let Ok(by) = Certificate::read(&issuer.der) else {
        return false;
    };
    by.subject == certificate.issuer
        && algorithms.all.iter().any(|algorithm| {
            algorithm.signature_alg_id().as_ref() == certificate.signature_algorithm
                && algorithm.public_key_alg_id().as_ref() == by.key_algorithm
                && algorithm
                    .verify_signature(by.key, certificate.signed, certificate.signature)
                    .is_ok()
        })
}

fn seconds(now: UnixTime) -> i64 {
    i64::try_from(now.as_secs()).unwrap_or(i64::MAX)
}

fn other(text: &str) -> Error {
    CertificateError::Other(OtherError(Arc::new(std::io::Error::other(text.to_owned())))).into()
}

/// A certificate as rustls reads it: only in version 3.
fn readable<'a>(der: &CertificateDer<'a>, certificate: &Certificate<'_>) -> CertificateDer<'a> {
    match certificate.version {
        3 => der.clone(),
        _ => certificate.as_version_3(),
    }
}

fn readable_key<'a>(der: &CertificateDer<'a>) -> CertificateDer<'a> {
    match Certificate::read(der) {
        Ok(certificate) => readable(der, &certificate),
        Err(_) => der.clone(),
    }
}

/// A certificate to show, of any version, with what links it to its CA, and its key.
///
/// # Errors
/// The key is of a kind that is not supported, or not that of the certificate.
pub fn shown(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    provider: &CryptoProvider,
) -> Result<Arc<CertifiedKey>, Error> {
    let key = provider.key_provider.load_private_key(key)?;
    // rustls compares the two, but reads nothing older than version 3.
    let own = chain.first().ok_or(Error::NoCertificatesPresented)?;
    let readable = CertifiedKey::new(vec![readable_key(own).into_owned()], Arc::clone(&key));
    match readable.keys_match() {
        Ok(()) | Err(Error::InconsistentKeys(InconsistentKeys::Unknown)) => Ok(Arc::new(CertifiedKey::new(chain, key))),
        Err(error) => Err(error),
    }
}

/// Verifies what the peer of a handshake of TLS 1.2 has signed, with the key of a certificate of any version.
///
/// # Errors
/// The signature is not by this key, or of a kind that is not allowed.
pub fn signed_in_tls12(
    message: &[u8],
    certificate: &CertificateDer<'_>,
    signed: &DigitallySignedStruct,
    provider: &CryptoProvider,
) -> Result<HandshakeSignatureValid, Error> {
    let certificate = readable_key(certificate);
    verify_tls12_signature(
        message,
        &certificate,
        signed,
        &provider.signature_verification_algorithms,
    )
}

/// The same for TLS 1.3.
///
/// # Errors
/// The signature is not by this key, or of a kind that is not allowed.
pub fn signed_in_tls13(
    message: &[u8],
    certificate: &CertificateDer<'_>,
    signed: &DigitallySignedStruct,
    provider: &CryptoProvider,
) -> Result<HandshakeSignatureValid, Error> {
    let certificate = readable_key(certificate);
    verify_tls13_signature(
        message,
        &certificate,
        signed,
        &provider.signature_verification_algorithms,
    )
}

/// The alternative names of a certificate, as texts: DNS names, mail addresses, URIs, IP addresses. None in one that
/// cannot be read.
pub fn alternative_names(der: &CertificateDer<'_>) -> Vec<String> {
    Certificate::read(der).map_or_else(|_| Vec::new(), |certificate| certificate.extensions.names)
}

/// When what a server shows, and what it asks of clients, is valid; `None` for what it does not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServerValidity {
    /// Its own certificate.
    pub certificate: Option<Validity>,
    /// The one of its clients' CA that lasts longest.
    pub client_ca: Option<Validity>,
}

impl ServerValidity {
    /// Of the chain that the server shows, and the certificates from which those of clients come.
    pub fn of(chain: &[CertificateDer<'_>], client_ca: &[CertificateDer<'_>]) -> Self {
        let validity = |der: &CertificateDer<'_>| Certificate::read(der).ok().map(|read| read.validity);
        Self {
            certificate: chain.first().and_then(validity),
            client_ca: client_ca
                .iter()
                .filter_map(validity)
                .max_by_key(|validity| validity.not_after),
        }
    }
}

#[derive(Debug)]
struct Clients {
    trusted: Trusted,
    provider: Arc<CryptoProvider>,
}

impl ClientCertVerifier for Clients {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &self.trusted.hints
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        if let Some(verdict) = self.trusted.alone(end_entity, now, Purpose::Client, algorithms) {
            return verdict.map(|()| ClientCertVerified::assertion());
        }
        let roots = self.trusted.roots(now)?;
        WebPkiClientVerifier::builder_with_provider(roots, Arc::clone(&self.provider))
            .build()
            .map_err(|error| other(&error.to_string()))?
            .verify_client_cert(end_entity, intermediates, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        signed_in_tls12(message, cert, dss, &self.provider)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        signed_in_tls13(message, cert, dss, &self.provider)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[derive(Debug)]
struct Servers {
    trusted: Trusted,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Servers {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        if let Some(verdict) = self.trusted.alone(end_entity, now, Purpose::Server, algorithms) {
            verdict?;
            let readable = readable_key(end_entity);
            verify_server_name(&ParsedCertificate::try_from(&readable)?, server_name)?;
            return Ok(ServerCertVerified::assertion());
        }
        let roots = self.trusted.roots(now)?;
        WebPkiServerVerifier::builder_with_provider(roots, Arc::clone(&self.provider))
            .build()
            .map_err(|error| other(&error.to_string()))?
            .verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        signed_in_tls12(message, cert, dss, &self.provider)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        signed_in_tls13(message, cert, dss, &self.provider)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
