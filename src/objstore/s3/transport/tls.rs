//! What a TLS handshake needs, read afresh for each one: certificates are renewed under a running process.

use std::{collections::HashSet, path::PathBuf, sync::Arc};

use arc_swap::ArcSwapOption;
use rustls::{
    ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        verify_server_name,
    },
    crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject},
    server::ParsedCertificate,
};
use sha2::{Digest, Sha256};

use crate::objstore::config::{ClientCert, ConfigError, HttpConfig};

const CA: &str = "config.http_config.tls_config.ca_file";
const CERT: &str = "config.http_config.tls_config.cert_file";
const KEY: &str = "config.http_config.tls_config.key_file";

/// The files, and the client configuration made of what they last held.
pub(super) struct Tls {
    ca_file: Option<PathBuf>,
    client_cert: Option<ClientCert>,
    server_name: Option<String>,
    verify: bool,
    provider: Arc<CryptoProvider>,
    last: ArcSwapOption<Made>,
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tls")
            .field("ca_file", &self.ca_file)
            .field("client_cert", &self.client_cert)
            .finish()
    }
}

struct Made {
    files: Files,
    config: Arc<ClientConfig>,
}

/// What was read. The system's own authorities are not among it: they are loaded once.
#[derive(Default, PartialEq, Eq)]
struct Files {
    ca: Option<Vec<u8>>,
    cert: Option<Vec<u8>>,
    key: Option<Vec<u8>>,
}

impl Tls {
    pub(super) fn new(http: &HttpConfig) -> Self {
        Self {
            ca_file: http.ca_file.clone(),
            client_cert: http.client_cert.clone(),
            server_name: http.server_name.clone(),
            verify: !http.insecure_skip_verify,
            provider: Arc::new(aws_lc_rs::default_provider()),
            last: ArcSwapOption::empty(),
        }
    }

    /// The name to ask for and to expect in place of the host's.
    pub(super) fn server_name(&self) -> Option<&str> {
        self.server_name.as_deref()
    }

    /// The configuration for the next handshake. When the files are unusable now but were not before (a renewal is
    /// under way), the last good one goes on to serve, with a warning.
    pub(super) async fn config(self: &Arc<Self>) -> Result<Arc<ClientConfig>, ConfigError> {
        let last = self.last.load_full();
        if let Some(last) = &last
            && self.ca_file.is_none()
            && self.client_cert.is_none()
        {
            return Ok(Arc::clone(&last.config));
        }
        let this = Arc::clone(self);
        let fresh = tokio::task::spawn_blocking(move || this.read()).await;
        match (fresh, last) {
            (Ok(Ok(config)), _) => Ok(config),
            (Ok(Err(error)), Some(last)) => {
                tracing::warn!(%error, "TLS files cannot be used; going on with what they held before");
                Ok(Arc::clone(&last.config))
            }
            (Ok(Err(error)), None) => Err(error),
            // The pool of blocking threads is gone: the process is about to end.
            (Err(error), _) => Err(ConfigError::new("config.http_config.tls_config", error.to_string())),
        }
    }

    fn read(&self) -> Result<Arc<ClientConfig>, ConfigError> {
        let read = |key: &'static str, path: &PathBuf| {
            fs_err::read(path).map_err(|error| ConfigError::new(key, error.to_string()))
        };
        let files = Files {
            ca: self.ca_file.as_ref().map(|path| read(CA, path)).transpose()?,
            cert: self
                .client_cert
                .as_ref()
                .map(|pair| read(CERT, &pair.cert_file))
                .transpose()?,
            key: self
                .client_cert
                .as_ref()
                .map(|pair| read(KEY, &pair.key_file))
                .transpose()?,
        };
        if let Some(last) = &*self.last.load()
            && last.files == files
        {
            return Ok(Arc::clone(&last.config));
        }
        let config = Arc::new(self.make(&files)?);
        self.last.store(Some(Arc::new(Made {
            files,
            config: Arc::clone(&config),
        })));
        Ok(config)
    }

    fn make(&self, files: &Files) -> Result<ClientConfig, ConfigError> {
        let failed = |key: &str, error: rustls::Error| ConfigError::new(key, error.to_string());
        let builder = ClientConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_safe_default_protocol_versions()
            .map_err(|error| failed("config.http_config.tls_config", error))?;
        let verifier: Arc<dyn ServerCertVerifier> = if self.verify {
            Arc::new(match &files.ca {
                Some(pem) => Trust::new(self.named(pem)?, &self.provider)?,
                None => Trust::new(systems()?, &self.provider)?,
            })
        } else {
            Arc::new(AnyCertificate(Arc::clone(&self.provider)))
        };
        let builder = builder.dangerous().with_custom_certificate_verifier(verifier);
        let mut config = match (&self.client_cert, &files.cert, &files.key) {
            (Some(pair), Some(cert), Some(key)) => {
                let (chain, key) = self.pair(pair, cert, key)?;
                builder
                    .with_client_auth_cert(chain, key)
                    .map_err(|error| failed(CERT, error))?
            }
            _ => builder.with_no_client_auth(),
        };
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(config)
    }

    fn named(&self, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, ConfigError> {
        let path = self.ca_file.clone().unwrap_or_default();
        let certs: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
        let certs = certs.map_err(|error| not_pem(CA, &path, &error))?;
        if certs.is_empty() {
            return Err(ConfigError::new(
                CA,
                format!("{} holds no certificate in PEM form", path.display()),
            ));
        }
        Ok(certs)
    }

    fn pair(
        &self,
        paths: &ClientCert,
        cert: &[u8],
        key: &[u8],
    ) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), ConfigError> {
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(cert).collect();
        let chain = chain.map_err(|error| not_pem(CERT, &paths.cert_file, &error))?;
        if chain.is_empty() {
            let problem = format!("{} holds no certificate in PEM form", paths.cert_file.display());
            return Err(ConfigError::new(CERT, problem));
        }
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| not_pem(KEY, &paths.key_file, &error))?;
        Ok((chain, key))
    }
}

fn not_pem(key: &str, path: &std::path::Path, error: &dyn std::fmt::Display) -> ConfigError {
    ConfigError::new(key, format!("{}: {error}", path.display()))
}

/// The authorities of the system, or of `SSL_CERT_FILE` and `SSL_CERT_DIR`.
fn systems() -> Result<Vec<CertificateDer<'static>>, ConfigError> {
    let loaded = rustls_native_certs::load_native_certs();
    if loaded.certs.is_empty() {
        let reasons: Vec<String> = loaded.errors.iter().map(ToString::to_string).collect();
        let reasons = if reasons.is_empty() {
            String::new()
        } else {
            format!(" ({})", reasons.join("; "))
        };
        let problem = format!(
            "is not set, and this system has no certificate authorities{reasons}: install them, or point SSL_CERT_FILE \
             or this key at a PEM file"
        );
        return Err(ConfigError::new(CA, problem));
    }
    Ok(loaded.certs)
}

/// The usual check against authorities. Beside it a server's own certificate can be named as trusted: then it may call
/// itself an authority, as self-signed ones do and Go accepts, but must still be in date and for this name.
#[derive(Debug)]
struct Trust {
    usual: Arc<WebPkiServerVerifier>,
    named: HashSet<[u8; 32]>,
}

impl Trust {
    fn new(certs: Vec<CertificateDer<'static>>, provider: &Arc<CryptoProvider>) -> Result<Self, ConfigError> {
        let named = certs.iter().map(|cert| Sha256::digest(cert).into()).collect();
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(certs);
        let usual = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider))
            .build()
            .map_err(|error| ConfigError::new(CA, format!("no usable certificate authority: {error}")))?;
        Ok(Self { usual, named })
    }
}

impl ServerCertVerifier for Trust {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let usual = self.usual.verify_server_cert(leaf, others, name, ocsp, now);
        // The verifier looks at the dates before it looks at what the certificate calls itself.
        let calls_itself_ca = |error: &rustls::Error| format!("{error:?}").contains("CaUsedAsEndEntity");
        match usual {
            Err(error) if calls_itself_ca(&error) => {
                let digest: [u8; 32] = Sha256::digest(leaf).into();
                if !self.named.contains(&digest) {
                    return Err(error);
                }
                verify_server_name(&ParsedCertificate::try_from(leaf)?, name)?;
                Ok(ServerCertVerified::assertion())
            }
            usual => usual,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.usual.verify_tls12_signature(message, cert, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.usual.verify_tls13_signature(message, cert, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.usual.supported_verify_schemes()
    }
}

/// For `insecure_skip_verify`: takes any certificate, but its holder must still prove to have the key.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, signature, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, signature, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
