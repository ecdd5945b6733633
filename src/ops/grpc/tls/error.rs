//! What can be wrong with the flags and files of TLS.

use std::{
    io,
    path::{Path, PathBuf},
};

pub(super) const CERT: &str = "--grpc-server-tls-cert";
pub(super) const KEY: &str = "--grpc-server-tls-key";
pub(super) const CLIENT_CA: &str = "--grpc-server-tls-client-ca";
pub(super) const MIN_VERSION: &str = "--grpc-server-tls-min-version";
pub(super) const CIPHERS: &str = "--grpc-server-tls-ciphers";
pub(super) const CURVES: &str = "--grpc-server-tls-curves";

/// TLS cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// Flags that need each other, or a name that is not known.
    #[error("{flag}: {problem}")]
    Flag {
        /// Which flag.
        flag: &'static str,
        /// What is wrong.
        problem: String,
    },
    /// A file cannot be read.
    #[error("{flag}: {cause}")]
    File {
        /// The flag that names it.
        flag: &'static str,
        /// Why; it names the file. It is part of the text, and so no source that would be printed once more.
        cause: io::Error,
    },
    /// A file does not hold what it should.
    #[error("{flag}: {path}: {problem}", path = path.display())]
    Content {
        /// The flag that names it.
        flag: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
}

pub(super) fn flag(flag: &'static str, problem: String) -> TlsError {
    TlsError::Flag { flag, problem }
}

pub(super) fn content(flag: &'static str, path: &Path, problem: String) -> TlsError {
    let path = path.to_owned();
    TlsError::Content { flag, path, problem }
}
