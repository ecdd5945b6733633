//! What a TLS handshake needs, read afresh for each one: certificates are renewed under a running process. Whose
//! certificates are good stands in [`crate::trust`].

use std::{path::PathBuf, sync::Arc};

use arc_swap::ArcSwapOption;
use rustls::{
    ClientConfig, DigitallySignedStruct, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, aws_lc_rs},
    pki_types::{CertificateDer, ServerName, UnixTime},
    sign::{CertifiedKey, SingleCertAndKey},
};

use crate::{
    objstore::config::{ClientCert, ConfigError, HttpConfig},
    threads::BlockingPool,
    trust::{self, Trusted},
};

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
    /// One thread reads them: where it hangs, no other one is taken.
    files: BlockingPool,
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
            files: BlockingPool::new(1),
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
        let fresh = self.files.run(move || this.read()).await;
        match (fresh, last) {
            (Ok(Ok(config)), _) => Ok(config),
            (Ok(Err(error)), Some(last)) => {
                tracing::warn!(%error, "TLS files cannot be used; keeping what was read from them last");
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
            let trusted = match &files.ca {
                Some(pem) => self.named(pem)?,
                None => systems()?,
            };
            trusted.of_servers(&self.provider)
        } else {
            Arc::new(AnyCertificate(Arc::clone(&self.provider)))
        };
        let builder = builder.dangerous().with_custom_certificate_verifier(verifier);
        let mut config = match (&self.client_cert, &files.cert, &files.key) {
            (Some(pair), Some(cert), Some(key)) => {
                let own = self.pair(pair, cert, key)?;
                builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(own)))
            }
            _ => builder.with_no_client_auth(),
        };
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(config)
    }

    fn named(&self, pem: &[u8]) -> Result<Trusted, ConfigError> {
        let path = self.ca_file.clone().unwrap_or_default();
        let (trusted, skipped) = Trusted::read(pem).map_err(|error| not_pem(CA, &path, &error))?;
        for problem in skipped {
            tracing::warn!(file = %path.display(), problem, "{CA}: a certificate is left out");
        }
        Ok(trusted)
    }

    fn pair(&self, paths: &ClientCert, cert: &[u8], key: &[u8]) -> Result<Arc<CertifiedKey>, ConfigError> {
        let chain = trust::pem::certificates(cert).map_err(|error| not_pem(CERT, &paths.cert_file, &error))?;
        let key = trust::pem::private_key(key).map_err(|error| not_pem(KEY, &paths.key_file, &error))?;
        trust::shown(chain, key, &self.provider).map_err(|error| {
            let problem = format!("{}: {error}; is key_file its key?", paths.cert_file.display());
            ConfigError::new(CERT, problem)
        })
    }
}

fn not_pem(key: &str, path: &std::path::Path, error: &dyn std::fmt::Display) -> ConfigError {
    ConfigError::new(key, format!("{}: {error}", path.display()))
}

/// The authorities of the system, or of `SSL_CERT_FILE` and `SSL_CERT_DIR`.
fn systems() -> Result<Trusted, ConfigError> {
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
    // What is left out there is nobody's concern: systems hold very old ones.
    let trusted = Trusted::of(loaded.certs.into_iter().map(Ok));
    let (trusted, _) =
        trusted.map_err(|error| ConfigError::new(CA, format!("is not set, and of this system: {error}")))?;
    Ok(trusted)
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
        trust::signed_in_tls12(message, cert, signature, &self.0)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        trust::signed_in_tls13(message, cert, signature, &self.0)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
