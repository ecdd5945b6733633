//! TLS of the HTTP server, from the files that `--http.config` names.

use std::{path::Path, sync::Arc};

use rustls::{
    ServerConfig, SupportedProtocolVersion,
    pki_types::CertificateDer,
    server::danger::ClientCertVerifier,
    version::{TLS12, TLS13},
};

use super::{
    WebError,
    client_auth::Asked,
    config::{ClientAuth, Source, TlsConfig},
};
use crate::{
    ops::tls_names::{self, Keys},
    trust::{self, ServerValidity, Trusted},
};

const KEYS: Keys = Keys {
    ciphers: "tls_server_config.cipher_suites",
    curves: "tls_server_config.curve_preferences",
};

static BOTH: [&SupportedProtocolVersion; 2] = [&TLS12, &TLS13];

/// What the handshakes of the HTTP server follow.
///
/// # Errors
/// A file that cannot be read or used; `at` is the path of `--http.config`, for the text.
pub(super) fn server(config: &TlsConfig, http2: bool, at: &Path) -> Result<ServerConfig, WebError> {
    let provider = tls_names::provider(&config.ciphers, &config.curves, KEYS);
    let provider = Arc::new(provider.map_err(|error| WebError::content(at, error.key, error.problem))?);
    let versions = match config.versions {
        (true, true) => &BOTH[..],
        (true, false) => &BOTH[..1],
        (false, _) => &BOTH[1..],
    };
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(versions)
        .map_err(|error| WebError::content(at, "tls_server_config.min_version", error.to_string()))?;
    let builder = match config.client_auth {
        ClientAuth::None => builder.with_no_client_auth(),
        asked => {
            let verifier: Option<Arc<dyn ClientCertVerifier>> = match (&config.client_ca, asked) {
                (Some(ca), ClientAuth::VerifyIfGiven | ClientAuth::RequireAndVerify) => {
                    Some(trusted(ca, at)?.of_clients(&provider))
                }
                _ => None,
            };
            builder.with_client_cert_verifier(Arc::new(Asked {
                mandatory: matches!(asked, ClientAuth::RequireAny | ClientAuth::RequireAndVerify),
                verifier,
                names: config.client_allowed_sans.clone(),
                provider: Arc::clone(&provider),
            }))
        }
    };
    let chain = certificates(&config.cert, at)?;
    let wrong_key = |problem: String| WebError::content(at, config.key.key(), problem);
    let key = trust::pem::private_key(&config.key.read(at)?).map_err(wrong_key)?;
    let shown = trust::shown(chain, key, &provider)
        .map_err(|error| wrong_key(format!("does not match the certificate: {error}")))?;
    let mut server = builder.with_cert_resolver(Arc::new(rustls::sign::SingleCertAndKey::from(Arc::unwrap_or_clone(
        shown,
    ))));
    server.alpn_protocols = match http2 {
        true => vec![b"h2".to_vec(), b"http/1.1".to_vec()],
        false => vec![b"http/1.1".to_vec()],
    };
    Ok(server)
}

/// When the certificates are valid.
///
/// # Errors
/// As for [`server`].
pub(super) fn validity(config: &TlsConfig, at: &Path) -> Result<ServerValidity, WebError> {
    let client_ca = config.client_ca.as_ref().map(|ca| ca.read(at)).transpose()?;
    let client_ca = trust::pem::readable_certificates(&client_ca.unwrap_or_default());
    Ok(ServerValidity::of(&certificates(&config.cert, at)?, &client_ca))
}

fn trusted(source: &Source, at: &Path) -> Result<Trusted, WebError> {
    let (trusted, skipped) =
        Trusted::read(&source.read(at)?).map_err(|error| WebError::content(at, source.key(), error.to_string()))?;
    for problem in skipped {
        tracing::warn!(
            key = source.key(),
            problem,
            "--http.config: skipping a certificate that cannot be used"
        );
    }
    Ok(trusted)
}

fn certificates(source: &Source, at: &Path) -> Result<Vec<CertificateDer<'static>>, WebError> {
    trust::pem::certificates(&source.read(at)?).map_err(|problem| WebError::content(at, source.key(), problem))
}

impl Source {
    /// Which key of the YAML it is.
    pub(super) fn key(&self) -> &'static str {
        match self {
            Self::Inline(key, _) | Self::File(key, _) => key,
        }
    }

    fn read(&self, at: &Path) -> Result<Vec<u8>, WebError> {
        match self {
            Self::Inline(_, text) => Ok(text.0.clone().into_bytes()),
            Self::File(key, path) => fs_err::read(path).map_err(|cause| WebError::File {
                at: at.to_owned(),
                key,
                cause,
            }),
        }
    }
}
