//! The YAML of `--prometheus.http-client`, with the keys that Thanos has.
//!
//! Unknown keys are warned of by name. Known keys are checked: what is not supported is refused by name. Nothing is
//! expanded, and no value of the text gets into a message. Files that it names are read when they are needed, each time
//! anew, so that a rotated secret needs no restart.

use std::{fmt, path::PathBuf, time::Duration};

use serde::Deserialize;
use serde_json::Value;
use url::Url;

use super::secret::Secret;
use crate::{
    model::{
        whole_number::WholeNumber,
        yaml_text::{self, present},
    },
    trust::ClientFiles,
};

/// Default number of idle connections: with the two of Thanos most calls would connect anew.
const IDLE_CONNECTIONS: i64 = 16;

/// A text that is no configuration of an HTTP client.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("--prometheus.http-client: {0}")]
pub struct HttpClientConfigError(String);

/// How to talk to Prometheus: credentials, TLS, proxy and connection pool.
#[derive(Clone, Debug, Default)]
pub struct HttpClientConfig {
    pub(super) auth: Auth,
    pub(super) proxy: Option<Proxy>,
    pub(super) tls: ClientFiles,
    pub(super) transport: TransportConfig,
    warnings: Vec<String>,
}

/// Credentials sent with each request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Auth {
    #[default]
    None,
    Basic {
        username: String,
        password: Source,
    },
    Bearer(Source),
}

/// Where a secret comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Source {
    Inline(Secret),
    /// Read for each request; the key names it in messages.
    File(&'static str, PathBuf),
}

/// A proxy's address; its password is hidden.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Proxy(pub(super) Url);

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0.host_str())
    }
}

/// Keys of `transport_config` that matter here; `None` is without a limit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct TransportConfig {
    pub(super) idle_connections: usize,
    pub(super) idle_timeout: Option<Duration>,
    pub(super) response_header_timeout: Option<Duration>,
    pub(super) connections: Option<usize>,
    pub(super) tls_handshake_timeout: Option<Duration>,
    pub(super) dial_timeout: Option<Duration>,
}

impl Default for TransportConfig {
    fn default() -> Self {
        TransportConfig::of(Numbers::default())
    }
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Raw {
    basic_auth: Option<RawBasicAuth>,
    bearer_token: Option<String>,
    bearer_token_file: Option<String>,
    proxy_url: Option<String>,
    tls_config: Option<RawTls>,
    transport_config: Option<RawTransport>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct RawBasicAuth {
    username: Option<String>,
    password: Option<String>,
    password_file: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct RawTls {
    ca_file: Option<String>,
    cert_file: Option<String>,
    key_file: Option<String>,
    server_name: Option<String>,
    insecure_skip_verify: Option<bool>,
}

/// Times are nanoseconds.
#[derive(Default, Deserialize)]
#[serde(default)]
struct RawTransport {
    max_idle_conns: Option<WholeNumber>,
    max_idle_conns_per_host: Option<WholeNumber>,
    idle_conn_timeout: Option<WholeNumber>,
    response_header_timeout: Option<WholeNumber>,
    expect_continue_timeout: Option<WholeNumber>,
    max_conns_per_host: Option<WholeNumber>,
    disable_compression: Option<bool>,
    tls_handshake_timeout: Option<WholeNumber>,
    dialer_timeout: Option<WholeNumber>,
}

/// All keys, by section; the first section is the top.
const KEYS: [(&str, &[&str]); 4] = [
    (
        "",
        &[
            "basic_auth",
            "bearer_token",
            "bearer_token_file",
            "proxy_url",
            "tls_config",
            "transport_config",
        ],
    ),
    ("basic_auth", &["username", "password", "password_file"]),
    (
        "tls_config",
        &[
            "ca_file",
            "cert_file",
            "key_file",
            "server_name",
            "insecure_skip_verify",
        ],
    ),
    (
        "transport_config",
        &[
            "max_idle_conns",
            "max_idle_conns_per_host",
            "idle_conn_timeout",
            "response_header_timeout",
            "expect_continue_timeout",
            "max_conns_per_host",
            "disable_compression",
            "tls_handshake_timeout",
            "dialer_timeout",
        ],
    ),
];

impl HttpClientConfig {
    /// Reads the YAML; an empty text is the default.
    ///
    /// # Errors
    /// A syntax error, a value of the wrong type, or keys that do not go together; names place or key, quotes no value.
    pub fn parse(yaml: &str) -> Result<Self, HttpClientConfigError> {
        let raw = read::<Raw>(yaml)?.unwrap_or_default();
        let tree = read::<Value>(yaml)?.unwrap_or_default();
        let mut warnings = unknown_keys(&tree);
        let transport = raw.transport_config.unwrap_or_default();
        warnings.extend(transport.without_effect());
        let basic = raw.basic_auth.unwrap_or_default();
        let bearer = source(
            ("bearer_token", raw.bearer_token),
            ("bearer_token_file", raw.bearer_token_file),
        )?;
        let password = source(
            ("basic_auth.password", basic.password),
            ("basic_auth.password_file", basic.password_file),
        )?;
        let username = present(basic.username);
        let auth = match (username, password, bearer) {
            (None, None, None) => Auth::None,
            (None, None, Some(token)) => Auth::Bearer(token),
            (_, _, Some(_)) => return Err(config_error("give basic_auth or bearer_token, not both")),
            (username, password, None) => Auth::Basic {
                username: username.unwrap_or_default(),
                password: password.unwrap_or_else(|| Source::Inline(Secret::new(""))),
            },
        };
        Ok(Self {
            auth,
            proxy: present(raw.proxy_url).map(|url| proxy(&url)).transpose()?,
            tls: raw.tls_config.unwrap_or_default().checked()?,
            transport: transport.checked()?,
            warnings,
        })
    }

    /// Keys without effect, one line for each, to be logged once.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// Whether files must be looked at before a request.
    pub(super) fn has_files(&self) -> bool {
        let auth = match &self.auth {
            Auth::None => false,
            Auth::Basic { password: source, .. } | Auth::Bearer(source) => matches!(source, Source::File(..)),
        };
        auth || self.tls.ca_file.is_some() || self.tls.identity.is_some()
    }
}

fn config_error(text: impl Into<String>) -> HttpClientConfigError {
    HttpClientConfigError(text.into())
}

fn read<'a, T: Deserialize<'a>>(yaml: &'a str) -> Result<Option<T>, HttpClientConfigError> {
    yaml_text::read(yaml).map_err(config_error)
}

fn source(
    (key, text): (&str, Option<String>),
    (file_key, file): (&'static str, Option<String>),
) -> Result<Option<Source>, HttpClientConfigError> {
    match (present(text), present(file)) {
        (Some(_), Some(_)) => Err(config_error(format!("give {key} or {file_key}, not both"))),
        (Some(text), None) => Ok(Some(Source::Inline(Secret::new(text.trim())))),
        (None, Some(file)) => Ok(Some(Source::File(file_key, file.into()))),
        (None, None) => Ok(None),
    }
}

fn proxy(text: &str) -> Result<Proxy, HttpClientConfigError> {
    let url = Url::parse(text)
        .map_err(|error| config_error(format!("proxy_url: {error}; expected one like http://host:3128")))?;
    match url.scheme() {
        "http" | "https" => Ok(Proxy(url)),
        other => Err(config_error(format!(
            "proxy_url: scheme {other:?} is not supported, only http and https"
        ))),
    }
}

fn unknown_keys(tree: &Value) -> Vec<String> {
    let mut unknown = Vec::new();
    for (section, known) in KEYS {
        let map = if section.is_empty() {
            Some(tree)
        } else {
            tree.get(section)
        };
        let Some(map) = map.and_then(Value::as_object) else {
            continue;
        };
        let dot = if section.is_empty() { "" } else { "." };
        for key in map.keys().filter(|key| !known.contains(&key.as_str())) {
            unknown.push(format!("unknown key {section}{dot}{key} is ignored"));
        }
    }
    unknown
}

impl RawTls {
    fn checked(self) -> Result<ClientFiles, HttpClientConfigError> {
        let (cert, key) = (present(self.cert_file), present(self.key_file));
        let identity = ClientFiles::pair("tls_config", cert, key).map_err(config_error)?;
        Ok(ClientFiles {
            ca_file: present(self.ca_file).map(Into::into),
            identity,
            server_name: present(self.server_name),
            insecure_skip_verify: self.insecure_skip_verify.unwrap_or_default(),
        })
    }
}

impl RawTransport {
    fn without_effect(&self) -> Vec<String> {
        let mut texts = Vec::new();
        if self.expect_continue_timeout.is_some() {
            texts.push("transport_config.expect_continue_timeout has no effect: no request waits for that".to_owned());
        }
        if self.disable_compression == Some(false) {
            texts.push(
                "transport_config.disable_compression: false has no effect: no compression is asked for".to_owned(),
            );
        }
        texts
    }

    fn checked(self) -> Result<TransportConfig, HttpClientConfigError> {
        number("expect_continue_timeout", self.expect_continue_timeout)?;
        Ok(TransportConfig::of(Numbers {
            max_idle_conns: number("max_idle_conns", self.max_idle_conns)?,
            max_idle_conns_per_host: number("max_idle_conns_per_host", self.max_idle_conns_per_host)?,
            idle_conn_timeout: number("idle_conn_timeout", self.idle_conn_timeout)?,
            response_header_timeout: number("response_header_timeout", self.response_header_timeout)?,
            max_conns_per_host: number("max_conns_per_host", self.max_conns_per_host)?,
            tls_handshake_timeout: number("tls_handshake_timeout", self.tls_handshake_timeout)?,
            dialer_timeout: number("dialer_timeout", self.dialer_timeout)?,
        }))
    }
}

/// The numbers of `transport_config`.
#[derive(Default)]
struct Numbers {
    max_idle_conns: Option<i64>,
    max_idle_conns_per_host: Option<i64>,
    idle_conn_timeout: Option<i64>,
    response_header_timeout: Option<i64>,
    max_conns_per_host: Option<i64>,
    tls_handshake_timeout: Option<i64>,
    dialer_timeout: Option<i64>,
}

fn number(key: &str, given: Option<WholeNumber>) -> Result<Option<i64>, HttpClientConfigError> {
    let number = given.map(|number| number.value()).transpose();
    number.map_err(|problem| config_error(format!("transport_config.{key} {problem}")))
}

impl TransportConfig {
    fn of(numbers: Numbers) -> Self {
        // Go: 0 is no limit of all, but the default for one host; a negative number keeps none.
        let of_all = match numbers.max_idle_conns.unwrap_or(100) {
            0 => usize::MAX,
            number => usize::try_from(number).unwrap_or(0),
        };
        let of_host = match numbers.max_idle_conns_per_host.unwrap_or(IDLE_CONNECTIONS) {
            0 => IDLE_CONNECTIONS as usize,
            number => usize::try_from(number).unwrap_or(0),
        };
        Self {
            idle_connections: of_all.min(of_host),
            idle_timeout: time(numbers.idle_conn_timeout, 90),
            response_header_timeout: time(numbers.response_header_timeout, 0),
            connections: numbers
                .max_conns_per_host
                .and_then(|number| usize::try_from(number).ok())
                .filter(|&number| number > 0),
            tls_handshake_timeout: time(numbers.tls_handshake_timeout, 10),
            dial_timeout: time(numbers.dialer_timeout, 5),
        }
    }
}

/// A time of the text in nanoseconds, or a default in seconds; 0 and less is without a limit.
fn time(nanoseconds: Option<i64>, default_seconds: i64) -> Option<Duration> {
    let nanoseconds = nanoseconds.unwrap_or(default_seconds * 1_000_000_000);
    let time = Duration::from_nanos(u64::try_from(nanoseconds).ok()?);
    (!time.is_zero()).then_some(time)
}

#[cfg(test)]
mod tests;
