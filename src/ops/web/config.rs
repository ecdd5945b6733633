//! The YAML of `--http.config`: the format that Prometheus' own programs share. Pure, but for the warnings.
//!
//! Unknown and doubled keys are errors, as there. Paths are relative to the file. No secret gets into an error.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    str::FromStr as _,
    time::Duration,
};

use bcrypt::HashParts;
use http::{HeaderMap, HeaderName, HeaderValue};
use serde::Deserialize;

use crate::model::{
    duration::parse_go,
    yaml_text::{self, or_default},
};

/// What a file says.
#[derive(Debug, Default)]
pub(super) struct Config {
    /// `None`: no TLS.
    pub(super) tls: Option<TlsConfig>,
    /// Whether HTTP/2 is offered, with TLS only.
    pub(super) http2: bool,
    /// To be put on every answer.
    pub(super) headers: HeaderMap,
    /// Hashes of passwords by user; nobody is asked for one if there are none.
    pub(super) users: BTreeMap<String, String>,
    /// `None`: no limit.
    pub(super) rate: Option<Rate>,
    /// What has no effect, or not the one that is meant.
    pub(super) warnings: Vec<String>,
}

/// How many requests are answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rate {
    /// One more for each such time.
    pub(super) interval: Duration,
    /// So many at once.
    pub(super) burst: u32,
}

/// TLS of the server.
#[derive(Clone, Debug)]
pub(super) struct TlsConfig {
    pub(super) cert: Source,
    pub(super) key: Source,
    pub(super) client_auth: ClientAuth,
    pub(super) client_ca: Option<Source>,
    /// One of these names must be in a client's certificate, if there are any.
    pub(super) client_allowed_sans: Vec<String>,
    /// Whether TLS 1.2 and 1.3 are spoken.
    pub(super) versions: (bool, bool),
    pub(super) ciphers: Vec<String>,
    pub(super) curves: Vec<String>,
}

/// Where PEM comes from, with the key that says so.
#[derive(Clone, Debug)]
pub(super) enum Source {
    /// From the YAML itself.
    Inline(&'static str, Secret),
    /// From a file.
    File(&'static str, PathBuf),
}

/// A text that is not shown.
#[derive(Clone, Default, Deserialize)]
#[serde(transparent)]
pub(super) struct Secret(pub(super) String);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("(hidden)")
    }
}

/// What is asked of clients.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum ClientAuth {
    /// Nothing.
    #[default]
    None,
    /// A certificate, which is not verified and may be missing.
    Request,
    /// A certificate, which is not verified.
    RequireAny,
    /// A certificate of the CA, which may be missing.
    VerifyIfGiven,
    /// A certificate of the CA.
    RequireAndVerify,
}

/// What is wrong, with its key.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Wrong {
    pub(super) key: String,
    pub(super) problem: String,
}

fn wrong(key: &str, problem: impl Into<String>) -> Wrong {
    Wrong {
        key: key.to_owned(),
        problem: problem.into(),
    }
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct File {
    #[serde(deserialize_with = "or_default")]
    tls_server_config: TlsFile,
    #[serde(deserialize_with = "or_default")]
    http_server_config: HttpFile,
    basic_auth_users: Option<BTreeMap<String, Secret>>,
    #[serde(deserialize_with = "or_default")]
    rate_limit: RateFile,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct TlsFile {
    #[serde(deserialize_with = "or_default")]
    cert_file: String,
    #[serde(deserialize_with = "or_default")]
    key_file: String,
    #[serde(deserialize_with = "or_default")]
    cert: Secret,
    #[serde(deserialize_with = "or_default")]
    key: Secret,
    #[serde(deserialize_with = "or_default")]
    client_auth_type: String,
    #[serde(deserialize_with = "or_default")]
    client_ca_file: String,
    #[serde(deserialize_with = "or_default")]
    client_ca: String,
    client_allowed_sans: Option<Vec<String>>,
    min_version: Option<String>,
    max_version: Option<String>,
    cipher_suites: Option<Vec<String>>,
    prefer_server_cipher_suites: Option<bool>,
    curve_preferences: Option<Vec<String>>,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct HttpFile {
    http2: Option<bool>,
    headers: Option<BTreeMap<String, Option<String>>>,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct RateFile {
    #[serde(deserialize_with = "or_default")]
    interval: String,
    #[serde(deserialize_with = "or_default")]
    burst: u32,
}

/// The headers that may be set, and which values each may have; none named: any.
const HEADERS: [(&str, &[&str]); 5] = [
    ("Content-Security-Policy", &[]),
    ("X-Frame-Options", &["deny", "sameorigin"]),
    ("X-Content-Type-Options", &["nosniff"]),
    ("X-XSS-Protection", &[]),
    ("Strict-Transport-Security", &[]),
];

/// The costs that there are, and beyond which a check takes a minute and more.
const COSTS: std::ops::RangeInclusive<u32> = 4..=31;
const TOO_COSTLY: u32 = 18;

/// Hashes that take longer than those of this cost, about a second, are warned of.
const COSTLY: u32 = 14;

impl Config {
    /// Reads the YAML of a file in `dir`.
    ///
    /// # Errors
    /// The first mistake; it names key and line, and quotes no secret.
    pub(super) fn parse(yaml: &str, dir: &Path) -> Result<Self, Wrong> {
        let file: Option<File> = yaml_text::read(yaml).map_err(|problem| wrong("", problem))?;
        let file = file.unwrap_or_default();
        let mut warnings = Vec::new();
        let tls = file.tls_server_config.read(dir, &mut warnings)?;
        if tls.is_none()
            && file
                .http_server_config
                .headers
                .iter()
                .flatten()
                .any(|(name, _)| is(name, "Strict-Transport-Security"))
        {
            warnings.push("http_server_config.headers: Strict-Transport-Security has no effect without TLS".to_owned());
        }
        let users = users(file.basic_auth_users.unwrap_or_default(), &mut warnings)?;
        Ok(Self {
            tls,
            http2: file.http_server_config.http2.unwrap_or(true),
            headers: headers(file.http_server_config.headers.unwrap_or_default())?,
            users,
            rate: file.rate_limit.read()?,
            warnings,
        })
    }
}

impl TlsFile {
    fn is_empty(&self) -> bool {
        [&self.cert_file, &self.key_file, &self.cert.0, &self.key.0]
            .iter()
            .all(|text| text.is_empty())
            && self.client_auth_type.is_empty()
            && self.client_ca.is_empty()
            && self.client_ca_file.is_empty()
    }

    fn read(self, dir: &Path, warnings: &mut Vec<String>) -> Result<Option<TlsConfig>, Wrong> {
        if self.is_empty() {
            return Ok(None);
        }
        const CERTS: [&str; 2] = ["tls_server_config.cert_file", "tls_server_config.cert"];
        const KEYS: [&str; 2] = ["tls_server_config.key_file", "tls_server_config.key"];
        const CAS: [&str; 2] = ["tls_server_config.client_ca_file", "tls_server_config.client_ca"];
        let versions = self.versions(warnings)?;
        let client_auth = client_auth(&self.client_auth_type)?;
        let cert = source(CERTS, &self.cert_file, self.cert, dir)?.ok_or_else(|| {
            wrong(
                CERTS[0],
                "there is none, and TLS needs a certificate: give cert_file or cert",
            )
        })?;
        let key = source(KEYS, &self.key_file, self.key, dir)?.ok_or_else(|| {
            wrong(
                KEYS[0],
                "there is none, and TLS needs the certificate's key: give key_file or key",
            )
        })?;
        let client_ca = source(CAS, &self.client_ca_file, Secret(self.client_ca), dir)?;
        let client_allowed_sans = self.client_allowed_sans.unwrap_or_default();
        match (client_auth, &client_ca) {
            (ClientAuth::None, Some(_)) => {
                return Err(wrong(
                    "tls_server_config.client_auth_type",
                    "there is a client CA, and no certificate is asked for: write RequireAndVerifyClientCert",
                ));
            }
            (ClientAuth::VerifyIfGiven | ClientAuth::RequireAndVerify, None) => {
                return Err(wrong(
                    CAS[0],
                    "this client_auth_type needs the CA of the clients' certificates",
                ));
            }
            _ => {}
        }
        if client_auth == ClientAuth::None && !client_allowed_sans.is_empty() {
            warnings.push(
                "tls_server_config.client_allowed_sans has no effect: client_auth_type asks for no certificate"
                    .to_owned(),
            );
        }
        if self.prefer_server_cipher_suites == Some(false) {
            warnings.push("tls_server_config.prefer_server_cipher_suites has no effect: it is always so".to_owned());
        }
        Ok(Some(TlsConfig {
            cert,
            key,
            client_auth,
            client_ca,
            client_allowed_sans,
            versions,
            ciphers: self.cipher_suites.unwrap_or_default(),
            curves: self.curve_preferences.unwrap_or_default(),
        }))
    }

    fn versions(&self, warnings: &mut Vec<String>) -> Result<(bool, bool), Wrong> {
        const MIN: &str = "tls_server_config.min_version";
        const MAX: &str = "tls_server_config.max_version";
        let read = |key: &str, text: &Option<String>, default: u8| match text.as_deref() {
            None => Ok(default),
            Some("TLS10") => Ok(10),
            Some("TLS11") => Ok(11),
            Some("TLS12") => Ok(12),
            Some("TLS13") => Ok(13),
            Some(other) => Err(wrong(key, format!("{other:?} is no version; expected TLS12 or TLS13"))),
        };
        let (min, max) = (read(MIN, &self.min_version, 12)?, read(MAX, &self.max_version, 13)?);
        if max < min {
            return Err(wrong(MAX, "it is below min_version"));
        }
        if max < 12 {
            return Err(wrong(MAX, "TLS 1.0 and 1.1 are not supported: write TLS12 or TLS13"));
        }
        if min < 12 {
            warnings.push(format!(
                "{MIN}: TLS 1.0 and 1.1 are not supported; the minimum version is 1.2"
            ));
        }
        Ok((min <= 12, max >= 13))
    }
}

impl RateFile {
    fn read(self) -> Result<Option<Rate>, Wrong> {
        const INTERVAL: &str = "rate_limit.interval";
        if self.interval.is_empty() {
            return Ok(None);
        }
        let ns = parse_go(&self.interval).map_err(|error| wrong(INTERVAL, error.to_string()))?;
        let interval = u64::try_from(ns).map(Duration::from_nanos);
        let interval = interval.map_err(|_| wrong(INTERVAL, "it is negative"))?;
        if interval.is_zero() {
            return Ok(None);
        }
        if self.burst == 0 {
            return Err(wrong(
                "rate_limit.burst",
                "0 means that nothing is ever answered: write 1 or more",
            ));
        }
        Ok(Some(Rate {
            interval,
            burst: self.burst,
        }))
    }
}

fn client_auth(name: &str) -> Result<ClientAuth, Wrong> {
    Ok(match name {
        "" | "NoClientCert" => ClientAuth::None,
        "RequestClientCert" => ClientAuth::Request,
        "RequireClientCert" | "RequireAnyClientCert" => ClientAuth::RequireAny,
        "VerifyClientCertIfGiven" => ClientAuth::VerifyIfGiven,
        "RequireAndVerifyClientCert" => ClientAuth::RequireAndVerify,
        other => {
            return Err(wrong(
                "tls_server_config.client_auth_type",
                format!(
                    "{other:?} is none; expected NoClientCert, RequestClientCert, RequireAnyClientCert, \
                     VerifyClientCertIfGiven or RequireAndVerifyClientCert"
                ),
            ));
        }
    })
}

fn source(
    [file_key, inline_key]: [&'static str; 2],
    file: &str,
    inline: Secret,
    dir: &Path,
) -> Result<Option<Source>, Wrong> {
    match (file.is_empty(), inline.0.is_empty()) {
        (false, false) => Err(wrong(
            file_key,
            format!("{inline_key} is there, too: give only one of them"),
        )),
        (false, true) => Ok(Some(Source::File(file_key, dir.join(file)))),
        (true, false) => Ok(Some(Source::Inline(inline_key, inline))),
        (true, true) => Ok(None),
    }
}

fn is(name: &str, known: &str) -> bool {
    name.eq_ignore_ascii_case(known)
}

fn headers(given: BTreeMap<String, Option<String>>) -> Result<HeaderMap, Wrong> {
    let mut headers = HeaderMap::new();
    for (name, value) in given {
        let key = format!("http_server_config.headers.{name}");
        let Some((known, values)) = HEADERS.iter().find(|(known, _)| is(&name, known)) else {
            let names: Vec<&str> = HEADERS.iter().map(|(known, _)| *known).collect();
            return Err(wrong(
                &key,
                format!("this header cannot be set; those that can are {}", names.join(", ")),
            ));
        };
        // As there, a header without a value is not sent.
        let Some(value) = value.filter(|value| !value.is_empty()) else {
            continue;
        };
        if !values.is_empty() && !values.iter().any(|allowed| is(&value, allowed)) {
            return Err(wrong(
                &key,
                format!("{value:?} is no value of it; expected {}", values.join(" or ")),
            ));
        }
        let value =
            HeaderValue::from_str(&value).map_err(|_| wrong(&key, "it holds characters that cannot be sent"))?;
        let name = HeaderName::from_str(known).map_err(|_| wrong(&key, "it is no header"))?;
        headers.insert(name, value);
    }
    Ok(headers)
}

fn users(given: BTreeMap<String, Secret>, warnings: &mut Vec<String>) -> Result<BTreeMap<String, String>, Wrong> {
    let mut users = BTreeMap::new();
    for (name, hash) in given {
        let key = format!("basic_auth_users.{name}");
        let parts = HashParts::from_str(&hash.0).map_err(|_| {
            wrong(
                &key,
                "this is no hash of bcrypt, as `htpasswd -nBC 10 \"\"` makes: it begins with $2y$, $2a$ or $2b$",
            )
        })?;
        let cost = parts.get_cost();
        if !COSTS.contains(&cost) {
            return Err(wrong(
                &key,
                format!("a hash of bcrypt cannot have a cost of {cost}; 10 is usual"),
            ));
        }
        if cost > TOO_COSTLY {
            let problem = format!("to check a password against a hash of cost {cost} takes minutes; 10 is usual");
            return Err(wrong(&key, problem));
        }
        if cost > COSTLY {
            warnings.push(format!(
                "{key}: to check a password against a hash of cost {cost} takes long; 10 is usual"
            ));
        }
        users.insert(name, hash.0);
    }
    Ok(users)
}

#[cfg(test)]
mod tests;
