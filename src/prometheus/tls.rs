//! How Prometheus' certificate is verified, and which client certificate is presented. The rules for certificates of a
//! CA file are in [`crate::trust`].

use std::{
    path::Path,
    sync::{Arc, OnceLock},
};

use rustls::{
    ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, aws_lc_rs},
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject as _},
};
use tracing::warn;

use crate::trust::{Trusted, signed_in_tls12, signed_in_tls13};

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
            format!("does not match the certificate: {error}"),
        )
    })
}

fn trust_file(path: &Path, provider: &Arc<CryptoProvider>) -> Result<Trust, SetupError> {
    let key = "tls_config.ca_file";
    let (trusted, skipped) = Trusted::read(&read(key, path)?).map_err(|error| content(key, path, error.to_string()))?;
    for problem in skipped {
        warn!(file = %path.display(), problem, "{key}: skipping a certificate that cannot be used");
    }
    Ok(Trust::Given(trusted.of_servers(provider)))
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
    fs_err::read(path).map_err(|cause| SetupError::File { key, cause })
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

/// Which certificates are trusted.
#[derive(Debug)]
enum Trust {
    /// `insecure_skip_verify`.
    Anyone,
    /// Those of `ca_file` and no others.
    Given(Arc<dyn ServerCertVerifier>),
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
            Trust::Given(verifier) => {
                verifier.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
            }
        }
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
