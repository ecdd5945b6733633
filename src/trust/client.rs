//! TLS of a client by the keys that Thanos has for it in `tls_config`: whose certificates are trusted, and which one is
//! shown. The rules for certificates of a CA file are those of [`super`].

use std::{
    io,
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
};

use rustls::{
    ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, aws_lc_rs},
    pki_types::{CertificateDer, ServerName, UnixTime},
};
use tracing::warn;

use super::{Trusted, pem, signed_in_tls12, signed_in_tls13};

/// Keys of `tls_config`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientFiles {
    /// `ca_file`: whom to trust; without it those whom the system trusts.
    pub ca_file: Option<PathBuf>,
    /// `cert_file` and `key_file`: what to show.
    pub identity: Option<(PathBuf, PathBuf)>,
    /// `server_name`: the name to ask for and to expect in place of the host's; for whoever connects.
    pub server_name: Option<String>,
    /// `insecure_skip_verify`: everybody is trusted.
    pub insecure_skip_verify: bool,
}

impl ClientFiles {
    /// `identity`, of which one half is of no use: the text names it, with `section` in front of the keys.
    ///
    /// # Errors
    /// One of the two is missing.
    pub fn pair(
        section: &str,
        cert_file: Option<String>,
        key_file: Option<String>,
    ) -> Result<Option<(PathBuf, PathBuf)>, String> {
        match (cert_file, key_file) {
            (Some(cert), Some(key)) => Ok(Some((cert.into(), key.into()))),
            (None, None) => Ok(None),
            (Some(_), None) => Err(format!("{section}.cert_file needs {section}.key_file")),
            (None, Some(_)) => Err(format!("{section}.key_file needs {section}.cert_file")),
        }
    }
}

/// Why files that [`ClientFiles`] name cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// A file cannot be read.
    #[error("{key}: {cause}")]
    Read {
        /// The key in the YAML.
        key: &'static str,
        /// Why; names the file. It is part of the text, and so no source that would be printed once more.
        cause: io::Error,
    },
    /// A file does not hold what it should.
    #[error("{key}: {}: {problem}", .path.display())]
    Content {
        /// The key in the YAML.
        key: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong, without the content.
        problem: String,
    },
    /// TLS cannot be used at all.
    #[error("TLS: {0}")]
    Tls(String),
}

/// Reads the files that `config` names.
///
/// # Errors
/// A file that cannot be read or does not hold what it should.
pub fn client_config(config: &ClientFiles) -> Result<ClientConfig, FileError> {
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
        .map_err(|error| FileError::Tls(error.to_string()))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier));
    let Some((cert_file, key_file)) = &config.identity else {
        return Ok(builder.with_no_client_auth());
    };
    let certificates = certificates("tls_config.cert_file", cert_file)?;
    let key = read("tls_config.key_file", key_file)?;
    let key = pem::private_key(&key).map_err(|problem| content("tls_config.key_file", key_file, problem))?;
    builder.with_client_auth_cert(certificates, key).map_err(|error| {
        content(
            "tls_config.key_file",
            key_file,
            format!("does not match the certificate: {error}"),
        )
    })
}

fn trust_file(path: &Path, provider: &Arc<CryptoProvider>) -> Result<Trust, FileError> {
    let key = "tls_config.ca_file";
    let (trusted, skipped) = Trusted::read(&read(key, path)?).map_err(|error| content(key, path, error.to_string()))?;
    for problem in skipped {
        warn!(file = %path.display(), problem, "{key}: skipping a certificate that cannot be used");
    }
    Ok(Trust::Given(trusted.of_servers(provider)))
}

fn certificates(key: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, FileError> {
    pem::certificates(&read(key, path)?).map_err(|problem| content(key, path, problem))
}

fn read(key: &'static str, path: &Path) -> Result<Vec<u8>, FileError> {
    fs_err::read(path).map_err(|cause| FileError::Read { key, cause })
}

fn content(key: &'static str, path: &Path, problem: String) -> FileError {
    let path = path.to_owned();
    FileError::Content { key, path, problem }
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
