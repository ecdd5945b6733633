//! TLS of the gRPC server: certificate, clients' certificates, versions, ciphers, curves.
//!
//! - The files are read at start, where a mistake is an error, and again at a handshake when one of them has changed
//!   since (by time, inode or size; checked once a second at most, on another thread). Thanos does not read the client
//!   CA again.
//! - A change that cannot be used is logged once and leaves the old files in use: a renewal may be half done.
//! - With a client CA every client must present a certificate that it issued, or that is in it; the rules are in
//!   [`crate::trust`].
//! - TLS 1.0 and 1.1 are not supported: where a flag allows them the minimum version is 1.2.

use std::{
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use arc_swap::ArcSwap;
use rustls::{
    ServerConfig, SupportedProtocolVersion,
    crypto::CryptoProvider,
    pki_types::CertificateDer,
    version::{TLS12, TLS13},
};
use tracing::{info, warn};

use crate::{
    ops::{
        file_check::FileCheck,
        log_limit::LogLimit,
        tls_names::{self, Keys},
    },
    trust::{ServerValidity, Trusted, pem},
};

mod error;
mod failure;

pub use self::error::TlsError;
use self::error::{CERT, CIPHERS, CLIENT_CA, CURVES, KEY, MIN_VERSION, content, flag};
pub(super) use self::failure::{Failure, Reason};

/// The supported versions.
static VERSIONS: [&SupportedProtocolVersion; 2] = [&TLS12, &TLS13];

/// A version of TLS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum TlsVersion {
    /// TLS 1.0; means 1.2.
    V1_0,
    /// TLS 1.1; means 1.2.
    V1_1,
    /// TLS 1.2.
    V1_2,
    /// TLS 1.3.
    #[default]
    V1_3,
}

/// The flags of TLS.
#[derive(Clone, Debug, Default)]
pub struct TlsFlags {
    /// File with the server's certificate and the chain above it, in PEM.
    pub cert: Option<PathBuf>,
    /// File with the key of that certificate, in PEM.
    pub key: Option<PathBuf>,
    /// File with the certificates that clients' certificates must come from, in PEM.
    pub client_ca: Option<PathBuf>,
    /// The lowest version to speak.
    pub min_version: TlsVersion,
    /// The cipher suites of TLS 1.2 to offer, by Go's names; empty means all. Those of 1.3 are always offered, as by Go.
    pub ciphers: Vec<String>,
    /// The curves to offer, by Go's names; empty means the library's choice.
    pub curves: Vec<String>,
}

/// TLS that follows its files; clones share it.
#[derive(Clone, Debug)]
pub struct Tls(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    cert: PathBuf,
    key: PathBuf,
    client_ca: Option<PathBuf>,
    versions: &'static [&'static SupportedProtocolVersion],
    provider: Arc<CryptoProvider>,
    config: ArcSwap<ServerConfig>,
    /// What was last tried, whether it could be used or not.
    tried: Mutex<Stamps>,
    check: FileCheck,
    /// Limit how often failed handshakes are logged, by reason.
    failures: [LogLimit; Failure::REASONS.len()],
}

/// Identifies a version of a file; `None` where there is no file.
type Stamp = Option<(i64, i64, u64, u64, u64)>;
type Stamps = [Stamp; 3];

impl Tls {
    /// Reads the files; `None` when the flags ask for no TLS, and then names of ciphers and curves are not looked at.
    ///
    /// # Errors
    /// Half a pair, a client CA without one, an unknown name, or a file that cannot be used.
    pub fn load(flags: TlsFlags) -> Result<Option<Self>, TlsError> {
        let (cert, key) = match (flags.cert, flags.key) {
            (Some(cert), Some(key)) => (cert, key),
            (None, None) if flags.client_ca.is_none() => return Ok(None),
            (None, None) => return Err(flag(CLIENT_CA, format!("needs {CERT} and {KEY}"))),
            (Some(_), None) => return Err(flag(CERT, format!("needs {KEY}"))),
            (None, Some(_)) => return Err(flag(KEY, format!("needs {CERT}"))),
        };
        if flags.min_version < TlsVersion::V1_2 {
            warn!("{MIN_VERSION}: TLS 1.0 and 1.1 are not supported; the minimum version is 1.2");
        }
        let versions = match flags.min_version {
            TlsVersion::V1_3 => &VERSIONS[1..],
            _ => &VERSIONS[..],
        };
        let keys = Keys {
            ciphers: CIPHERS,
            curves: CURVES,
        };
        let provider = tls_names::provider(&flags.ciphers, &flags.curves, keys);
        let provider = Arc::new(provider.map_err(|error| flag(error.key, error.problem))?);
        let files = Files {
            cert: &cert,
            key: &key,
            client_ca: flags.client_ca.as_deref(),
        };
        // Before they are read: what changes in between is then read again.
        let tried = files.stamps();
        let config = files.read(&provider, versions)?;
        Ok(Some(Self(Arc::new(Inner {
            cert,
            key,
            client_ca: flags.client_ca,
            versions,
            provider,
            config: ArcSwap::from_pointee(config),
            tried: Mutex::new(tried),
            check: FileCheck::new(),
            failures: Default::default(),
        }))))
    }

    /// When the certificates are valid that the files have now. Blocks the thread.
    ///
    /// # Errors
    /// A file that cannot be used.
    pub fn validity(&self) -> Result<ServerValidity, TlsError> {
        let chain = certificates(CERT, &self.0.cert)?;
        let client_ca = self.0.client_ca.as_deref().map(|path| read(CLIENT_CA, path));
        let client_ca = client_ca.transpose()?.unwrap_or_default();
        Ok(ServerValidity::of(&chain, &pem::readable_certificates(&client_ca)))
    }

    /// The configuration for the next handshake.
    pub(super) async fn config(&self) -> Arc<ServerConfig> {
        let inner = Arc::clone(&self.0);
        self.0.check.run(move || inner.reload_if_changed()).await;
        self.0.config.load_full()
    }

    /// Limits how often handshakes that failed for this reason are logged: one kind must not keep another out of the log.
    pub(super) fn log_limit(&self, reason: Reason) -> &LogLimit {
        &self.0.failures[reason as usize]
    }
}

impl Inner {
    /// Reads the files anew if one has changed.
    fn reload_if_changed(&self) {
        let files = Files {
            cert: &self.cert,
            key: &self.key,
            client_ca: self.client_ca.as_deref(),
        };
        let stamps = files.stamps();
        let mut tried = self.tried.lock().unwrap_or_else(PoisonError::into_inner);
        if *tried == stamps {
            return;
        }
        *tried = stamps;
        match files.read(&self.provider, self.versions) {
            Ok(config) => {
                info!("the TLS files of the gRPC server changed and were reloaded; new connections use them");
                self.config.store(Arc::new(config));
            }
            Err(error) => warn!(
                %error,
                "the TLS files of the gRPC server changed and cannot be used; keeping the previous ones"
            ),
        }
    }
}

struct Files<'a> {
    cert: &'a Path,
    key: &'a Path,
    client_ca: Option<&'a Path>,
}

impl Files<'_> {
    fn stamps(&self) -> Stamps {
        [Some(self.cert), Some(self.key), self.client_ca].map(|path| {
            let is = fs_err::metadata(path?).ok()?;
            Some((is.mtime(), is.mtime_nsec(), is.dev(), is.ino(), is.size()))
        })
    }

    fn read(
        &self,
        provider: &Arc<CryptoProvider>,
        versions: &[&'static SupportedProtocolVersion],
    ) -> Result<ServerConfig, TlsError> {
        let chain = certificates(CERT, self.cert)?;
        let key = pem::private_key(&read(KEY, self.key)?).map_err(|problem| content(KEY, self.key, problem))?;
        let builder = ServerConfig::builder_with_provider(Arc::clone(provider))
            .with_protocol_versions(versions)
            .map_err(|error| flag(MIN_VERSION, error.to_string()))?;
        let builder = match self.client_ca {
            None => builder.with_no_client_auth(),
            Some(path) => {
                let (trusted, skipped) = Trusted::read(&read(CLIENT_CA, path)?)
                    .map_err(|error| content(CLIENT_CA, path, error.to_string()))?;
                for problem in skipped {
                    warn!(file = %path.display(), problem, "{CLIENT_CA}: skipping a certificate that cannot be used");
                }
                builder.with_client_cert_verifier(trusted.of_clients(provider))
            }
        };
        let mut config = builder
            .with_single_cert(chain, key)
            .map_err(|error| content(KEY, self.key, format!("does not match the certificate: {error}")))?;
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(config)
    }
}

fn certificates(flag: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    pem::certificates(&read(flag, path)?).map_err(|problem| content(flag, path, problem))
}

fn read(flag: &'static str, path: &Path) -> Result<Vec<u8>, TlsError> {
    fs_err::read(path).map_err(|cause| TlsError::File { flag, cause })
}

#[cfg(test)]
mod tests;
