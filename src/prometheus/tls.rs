//! How Prometheus' certificate is judged, and which one we show.

use std::{
    path::Path,
    sync::{Arc, OnceLock},
};

use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        verify_server_name,
    },
    crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject},
    server::ParsedCertificate,
};

use super::{error::SetupError, http_client::TlsConfig};

/// Reads the files that `config` names.
///
/// # Errors
/// A file that cannot be read or does not hold what it should.
pub(super) fn client_config(config: &TlsConfig) -> Result<ClientConfig, SetupError> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let trust = match &config.ca_file {
        _ if config.insecure_skip_verify => Trust::Anyone,
        Some(path) => trust_file(path, &provider)?,
        None => Trust::System(OnceLock::new()),
    };
    let verifier = Verifier {
        provider: Arc::clone(&provider),
        trust,
    };
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| SetupError::Settings(format!("TLS: {error}")))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier));
    let Some((cert_file, key_file)) = &config.identity else {
        return Ok(builder.with_no_client_auth());
    };
    let certificates = certificates("tls_config.cert_file", cert_file)?;
    let key = read("tls_config.key_file", key_file)?;
    let key = PrivateKeyDer::from_pem_slice(&key).map_err(|error| {
        content(
            "tls_config.key_file",
            key_file,
            format!("no private key in PEM: {error}"),
        )
    })?;
    builder.with_client_auth_cert(certificates, key).map_err(|error| {
        content(
            "tls_config.key_file",
            key_file,
            format!("does not fit the certificate: {error}"),
        )
    })
}

fn trust_file(path: &Path, provider: &Arc<CryptoProvider>) -> Result<Trust, SetupError> {
    let key = "tls_config.ca_file";
    let certificates = certificates(key, path)?;
    let mut roots = RootCertStore::empty();
    for certificate in &certificates {
        roots
            .add(certificate.clone())
            .map_err(|error| content(key, path, format!("bad certificate: {error}")))?;
    }
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider))
        .build()
        .map_err(|error| content(key, path, error.to_string()))?;
    Ok(Trust::Given { verifier, certificates })
}

fn certificates(key: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, SetupError> {
    let pem = read(key, path)?;
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    match certificates {
        Ok(certificates) if certificates.is_empty() => Err(content(key, path, "no certificate in PEM".to_owned())),
        Ok(certificates) => Ok(certificates),
        Err(error) => Err(content(key, path, format!("bad PEM: {error}"))),
    }
}

fn read(key: &'static str, path: &Path) -> Result<Vec<u8>, SetupError> {
    fs_err::read(path).map_err(|source| SetupError::File { key, source })
}

fn content(key: &'static str, path: &Path, problem: String) -> SetupError {
    let path = path.to_owned();
    SetupError::Content { key, path, problem }
}

/// Judges a server's certificate.
#[derive(Debug)]
struct Verifier {
    provider: Arc<CryptoProvider>,
    trust: Trust,
}

/// Whose certificates are good.
#[derive(Debug)]
enum Trust {
    /// `insecure_skip_verify`.
    Anyone,
    /// Those of `ca_file` and nobody else.
    Given {
        verifier: Arc<WebPkiServerVerifier>,
        certificates: Vec<CertificateDer<'static>>,
    },
    /// Those of the system, read at the first handshake: without TLS they cost nothing, and may be missing.
    System(OnceLock<Result<Arc<WebPkiServerVerifier>, String>>),
}

fn system(provider: &Arc<CryptoProvider>) -> Result<Arc<WebPkiServerVerifier>, String> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider))
        .build()
        .map_err(|error| format!("no usable CA certificates on this system ({error}): set tls_config.ca_file"))
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        match &self.trust {
            Trust::Anyone => Ok(ServerCertVerified::assertion()),
            Trust::System(verifier) => verifier
                .get_or_init(|| system(&self.provider))
                .as_ref()
                .map_err(|text| Error::General(text.clone()))?
                .verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now),
            Trust::Given { verifier, certificates } => {
                let result = verifier.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now);
                // A self-signed certificate that is marked as a CA, as openssl makes them, given as its own CA: Go takes
                // it. The time is judged before this error comes, so only the name is left to check.
                match result {
                    Err(Error::InvalidCertificate(CertificateError::Other(other)))
                        if other.to_string().contains("CaUsedAsEndEntity") && certificates.contains(end_entity) =>
                    {
                        verify_server_name(&ParsedCertificate::try_from(end_entity)?, server_name)?;
                        Ok(ServerCertVerified::assertion())
                    }
                    result => result,
                }
            }
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
