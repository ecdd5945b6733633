//! What `--http.config` asks for on the HTTP port: TLS, certificates of clients, passwords, headers, a limit of requests.
//!
//! - The file, and those that it names, are read at the start, where a mistake is an error, and again when one of them
//!   has changed (by time, inode or size; checked once a second at most, on another thread, when somebody connects or
//!   asks). A change that cannot be used is logged once and leaves in use what was.
//! - Whether there is TLS is settled at the start, and so is that passwords are asked for: a change that ends it is refused
//!   until the next one. Users come and go at any time.
//! - It holds for every path, the probes too, as with Thanos.

use std::{
    io,
    net::IpAddr,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use arc_swap::ArcSwap;
use http::{
    HeaderMap, HeaderValue, Response, StatusCode,
    header::{AUTHORIZATION, WWW_AUTHENTICATE},
};
use rustls::ServerConfig;

use self::{
    config::{Config, Source},
    passwords::{Passwords, Verdict},
    rate::RateLimit,
};
use super::{file_check::FileCheck, log_limit::LogLimit};
use crate::trust::ServerValidity;

mod client_auth;
mod config;
mod passwords;
mod rate;
mod tls;

/// What `--http.config` says cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum WebError {
    /// The file itself cannot be read; the cause names it.
    #[error("--http.config: {0}")]
    Read(io::Error),
    /// A file that it names cannot be read.
    #[error("--http.config: {at}: {key}: {cause}", at = at.display())]
    File {
        /// The file of the flag.
        at: PathBuf,
        /// The key.
        key: &'static str,
        /// Why; it names the file. It is part of the text, and so no source that would be printed once more.
        cause: io::Error,
    },
    /// Something in it, or in a file that it names, is wrong.
    #[error("--http.config: {at}: {problem}", at = at.display())]
    Content {
        /// The file of the flag.
        at: PathBuf,
        /// The key, and what is wrong.
        problem: String,
    },
}

impl WebError {
    fn content(at: &Path, key: &str, problem: impl std::fmt::Display) -> Self {
        let problem = match key {
            "" => problem.to_string(),
            key => format!("{key}: {problem}"),
        };
        let at = at.to_owned();
        Self::Content { at, problem }
    }
}

/// What was asked for, as it is now; clones share it.
#[derive(Clone, Debug)]
pub struct Web(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    path: PathBuf,
    current: ArcSwap<Current>,
    passwords: Passwords,
    /// What was last tried, whether it could be used or not.
    tried: Mutex<Vec<(PathBuf, Stamp)>>,
    check: FileCheck,
    refusals: LogLimit,
    handshakes: LogLimit,
}

/// Identifies a version of a file; `None` where there is no file.
type Stamp = Option<(i64, i64, u64, u64, u64)>;

#[derive(Debug)]
struct Current {
    config: Config,
    tls: Option<Arc<ServerConfig>>,
    rate: Option<RateLimit>,
}

impl Web {
    /// Reads the file at `path` and those that it names.
    ///
    /// # Errors
    /// The first mistake, with file and key.
    pub fn load(path: &Path) -> Result<Self, WebError> {
        let (stamps, current) = read(path);
        let current = current?;
        for warning in &current.config.warnings {
            tracing::warn!(warning, "--http.config");
        }
        Ok(Self(Arc::new(Inner {
            path: path.to_owned(),
            current: ArcSwap::from_pointee(current),
            passwords: Passwords::new(),
            tried: Mutex::new(stamps),
            check: FileCheck::new(),
            refusals: LogLimit::default(),
            handshakes: LogLimit::default(),
        })))
    }

    /// What of the file has no effect, or not the one that is meant.
    pub fn warnings(&self) -> Vec<String> {
        self.0.current.load().config.warnings.clone()
    }

    /// When the certificates are valid that are configured now; `None` without TLS. Blocks the thread.
    ///
    /// # Errors
    /// A file that cannot be used.
    pub fn validity(&self) -> Result<Option<ServerValidity>, WebError> {
        let current = self.0.current.load();
        let of_tls = |tls| tls::validity(tls, &self.0.path);
        current.config.tls.as_ref().map(of_tls).transpose()
    }

    /// Whether clients must use TLS.
    pub(super) fn has_tls(&self) -> bool {
        self.0.current.load().tls.is_some()
    }

    /// What the next handshake follows; `None` without TLS.
    pub(super) async fn tls(&self) -> Option<Arc<ServerConfig>> {
        self.follow().await;
        self.0.current.load().tls.clone()
    }

    /// Limits how often failed handshakes are logged.
    pub(super) fn handshakes(&self) -> &LogLimit {
        &self.0.handshakes
    }

    /// Whether a request of `peer` with these headers may be answered: `None` if so, else what to say instead.
    pub(super) async fn refusal(&self, headers: &HeaderMap, peer: IpAddr) -> Option<(StatusCode, &'static str)> {
        self.follow().await;
        let current = self.0.current.load_full();
        if current.rate.as_ref().is_some_and(|rate| !rate.allows()) {
            return Some((StatusCode::TOO_MANY_REQUESTS, "Too Many Requests\n"));
        }
        if current.config.users.is_empty() {
            return None;
        }
        let verdict = self
            .0
            .passwords
            .check(&current.config.users, headers.get(AUTHORIZATION), peer);
        let problem = match verdict.await {
            Verdict::Allowed => return None,
            Verdict::Busy => {
                return Some((
                    StatusCode::SERVICE_UNAVAILABLE,
                    "too many passwords are being checked\n",
                ));
            }
            Verdict::Missing => "it came without user and password",
            Verdict::Wrong => "user or password is wrong",
        };
        if let Some(suppressed) = self.0.refusals.check() {
            tracing::warn!(
                %peer, problem, suppressed,
                "an HTTP request was refused (basic_auth_users of --http.config)"
            );
        }
        Some((StatusCode::UNAUTHORIZED, "Unauthorized\n"))
    }

    /// Puts on an answer what every answer has.
    pub(super) fn complete<B>(&self, response: &mut Response<B>) {
        for (name, value) in &self.0.current.load().config.headers {
            response.headers_mut().insert(name, value.clone());
        }
        if response.status() == StatusCode::UNAUTHORIZED {
            let headers = response.headers_mut();
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Basic"));
        }
    }

    /// Reads the files anew if one has changed, not more often than once a second.
    async fn follow(&self) {
        let inner = Arc::clone(&self.0);
        self.0.check.run(move || inner.reload_if_changed()).await;
    }
}

impl Inner {
    fn reload_if_changed(&self) {
        let mut tried = self.tried.lock().unwrap_or_else(PoisonError::into_inner);
        let now: Vec<_> = tried.iter().map(|(path, _)| stamped(path)).collect();
        if *tried == now {
            return;
        }
        let (stamps, next) = read(&self.path);
        *tried = stamps;
        match next.and_then(|next| self.no_less_guarded(next)) {
            Ok(next) => {
                for warning in &next.config.warnings {
                    tracing::warn!(warning, "--http.config");
                }
                tracing::info!("the files of --http.config changed and were read again; they are in use");
                self.current.store(Arc::new(next));
            }
            Err(error) => {
                tracing::warn!(%error, "the files of --http.config changed and cannot be used; what was in use stays");
            }
        }
    }

    /// Whether there is TLS stays as it is, and a file that was emptied opens no port that asked for passwords.
    fn no_less_guarded(&self, next: Current) -> Result<Current, WebError> {
        let current = self.current.load();
        if next.tls.is_some() != current.tls.is_some() {
            let problem = "TLS is switched on or off, which takes effect with a restart only";
            return Err(WebError::content(&self.path, "tls_server_config", problem));
        }
        if next.config.users.is_empty() && !current.config.users.is_empty() {
            let problem = "there are none any more: that no password is asked for takes effect with a restart only";
            return Err(WebError::content(&self.path, "basic_auth_users", problem));
        }
        Ok(next)
    }
}

/// The version of each file, and what they say. The versions are older than what was read: what changes in between is
/// read again.
fn read(path: &Path) -> (Vec<(PathBuf, Stamp)>, Result<Current, WebError>) {
    let mut stamps = vec![stamped(path)];
    let config = match config(path) {
        Ok(config) => config,
        Err(error) => return (stamps, Err(error)),
    };
    stamps.extend(files(&config).map(stamped));
    let tls = config.tls.as_ref().map(|tls| tls::server(tls, config.http2, path));
    let current = tls.transpose().map(|tls| Current {
        tls: tls.map(Arc::new),
        rate: config.rate.map(RateLimit::new),
        config,
    });
    (stamps, current)
}

fn config(path: &Path) -> Result<Config, WebError> {
    let yaml = fs_err::read_to_string(path).map_err(WebError::Read)?;
    let dir = path.parent().unwrap_or(Path::new(""));
    Config::parse(&yaml, dir).map_err(|wrong| WebError::content(path, &wrong.key, wrong.problem))
}

/// The files that a configuration names.
fn files(config: &Config) -> impl Iterator<Item = &Path> {
    let tls = config.tls.iter();
    let sources = tls.flat_map(|tls| [Some(&tls.cert), Some(&tls.key), tls.client_ca.as_ref()]);
    sources.flatten().filter_map(|source| match source {
        Source::File(_, path) => Some(path.as_path()),
        Source::Inline(..) => None,
    })
}

fn stamped(path: &Path) -> (PathBuf, Stamp) {
    let stamp = fs_err::metadata(path)
        .ok()
        .map(|is| (is.mtime(), is.mtime_nsec(), is.dev(), is.ino(), is.size()));
    (path.to_owned(), stamp)
}

#[cfg(test)]
mod tests;
