//! What a flag's text is turned into. Everything here is pure: no file, no network, no environment.

mod label;
mod min_time;
mod size;

use std::{
    fmt,
    net::{Ipv4Addr, Ipv6Addr},
    path::PathBuf,
    time::Duration,
};

use url::Url;

use crate::model::{
    duration::{self, DurationError, TimeOrDuration},
    selector::Selector,
};

pub use min_time::MinTime;

pub(super) use label::{external_label, label};
pub(super) use min_time::min_time;
pub(super) use size::size;

/// Why a flag's value cannot be used, in words for the operator; it never repeats a value that may hold a secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ValueError(String);

fn error<T>(text: impl Into<String>) -> Result<T, ValueError> {
    Err(ValueError(text.into()))
}

/// Which log lines are written: those of this level and of the more serious ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum LogLevel {
    /// Only what failed.
    Error,
    /// Also what may become a failure.
    Warn,
    /// Also what was done.
    Info,
    /// Also how.
    Debug,
}

impl LogLevel {
    /// The level as the flag spells it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
        }
    }
}

/// How a log line is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// `key=value` pairs on stderr.
    Logfmt,
    /// One JSON object a line on stderr.
    Json,
    /// Fields sent to systemd's journal.
    Journald,
}

/// The lowest TLS version that the gRPC server speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub enum TlsVersion {
    /// TLS 1.0.
    #[value(name = "1.0")]
    V1_0,
    /// TLS 1.1.
    #[value(name = "1.1")]
    V1_1,
    /// TLS 1.2.
    #[value(name = "1.2")]
    V1_2,
    /// TLS 1.3.
    #[value(name = "1.3")]
    V1_3,
}

/// How Prometheus is asked to reload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum ReloadMethod {
    /// By a request to its HTTP port.
    Http,
    /// By a signal to its process.
    Signal,
}

/// Which hash of each uploaded file goes into `meta.json`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HashFunc {
    /// None.
    Off,
    /// SHA-256.
    Sha256,
}

pub(super) fn hash_func(text: &str) -> Result<HashFunc, ValueError> {
    match text {
        "" => Ok(HashFunc::Off),
        "SHA256" => Ok(HashFunc::Sha256),
        other => error(format!("expected SHA256 or nothing, got {other:?}")),
    }
}

/// YAML given on the command line; it may hold passwords, so `Debug` hides it.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct InlineYaml(String);

impl InlineYaml {
    /// The text as given, `$(NAME)` not replaced; empty if the flag was not used.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether nothing was given.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl From<&str> for InlineYaml {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl fmt::Debug for InlineYaml {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_empty() { "" } else { "<redacted>" })
    }
}

pub(super) fn inline_yaml(text: &str) -> Result<InlineYaml, ValueError> {
    Ok(InlineYaml::from(text))
}

/// Where a server listens: a host or nothing, and a port number.
///
/// The syntax is that of Go: a host may stand in brackets whatever it is (the Prometheus Operator writes
/// `[127.0.0.1]:10901`), and must if there is a colon in it. As with Thanos, every way to write "all interfaces" (`:10902`,
/// `0.0.0.0:10902`, `[::]:10902`) means IPv6 and IPv4.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    host: Host,
    port: u16,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Host {
    All,
    V4(Ipv4Addr),
    V6(Ipv6Addr),
    /// An address that holds on one link only, and the interface of that link, by its name or its number.
    Link(Ipv6Addr, String),
    Name(String),
}

impl Address {
    /// Reads `host:port`, `:port` or `[host]:port`, the host being a name, an IPv4 address or, in brackets, an IPv6 address
    /// with or without a zone; port 0 lets the system choose one.
    pub fn parse(text: &str) -> Result<Self, ValueError> {
        let Some((host, port)) = text.rsplit_once(':') else {
            return error(format!(
                "{text:?} has no port, expected host:port such as 0.0.0.0:10902"
            ));
        };
        if port.is_empty() || !port.bytes().all(|digit| digit.is_ascii_digit()) {
            return error(format!("{text:?} needs a port number after the last colon"));
        }
        let Ok(port) = port.parse() else {
            return error(format!("port {port} of {text:?} is above 65535"));
        };
        Ok(Self {
            host: Host::parse(host, text)?,
            port,
        })
    }

    /// The port; 0 means any free one.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// What to bind to first, in the syntax that `TcpListener::bind` and resolvers take. For all interfaces that is
    /// `[::]:port`, which on Linux takes IPv4 connections too.
    pub fn to_socket(&self) -> String {
        let port = self.port;
        match &self.host {
            Host::All => format!("[::]:{port}"),
            Host::V4(ip) => format!("{ip}:{port}"),
            Host::V6(ip) => format!("[{ip}]:{port}"),
            Host::Link(ip, zone) => format!("[{ip}%{zone}]:{port}"),
            Host::Name(name) => format!("{name}:{port}"),
        }
    }

    /// What to bind to when [`to_socket`](Self::to_socket) fails because the host has no IPv6.
    pub fn fallback(&self) -> Option<String> {
        matches!(self.host, Host::All).then(|| format!("0.0.0.0:{}", self.port))
    }
}

impl Host {
    fn parse(host: &str, whole: &str) -> Result<Self, ValueError> {
        let host = match host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            Some(inner) if inner.contains(':') => return Self::v6(inner, whole),
            Some(inner) => inner,
            None if host.contains(':') => {
                return error(format!(
                    "{whole:?} has too many colons, write an IPv6 address as [::1]:10902"
                ));
            }
            None => host,
        };
        match host.parse::<Ipv4Addr>() {
            Ok(ip) if ip.is_unspecified() => Ok(Self::All),
            Ok(ip) => Ok(Self::V4(ip)),
            Err(_) if host.is_empty() => Ok(Self::All),
            Err(_) if host.contains(|c: char| !c.is_ascii_alphanumeric() && !"-._".contains(c)) => {
                error(format!("{host:?} in {whole:?} is no host name"))
            }
            Err(_) => Ok(Self::Name(host.to_owned())),
        }
    }

    fn v6(text: &str, whole: &str) -> Result<Self, ValueError> {
        let (ip, zone) = match text.split_once('%') {
            Some((ip, zone)) => (ip, Some(zone)),
            None => (text, None),
        };
        // The kernel gives interfaces such names.
        let is_interface = |zone: &str| {
            (1..16).contains(&zone.len()) && zone.bytes().all(|c| c.is_ascii_graphic() && !b"/[]%".contains(&c))
        };
        match (ip.parse::<Ipv6Addr>(), zone) {
            (Err(_), _) => error(format!("{ip:?} in {whole:?} is no IPv6 address")),
            (Ok(_), Some(zone)) if !is_interface(zone) => error(format!(
                "{zone:?} in {whole:?} is no name of a network interface, expected an address such as [fe80::1%eth0]:10902"
            )),
            (Ok(ip), Some(zone)) => Ok(Self::Link(ip, zone.to_owned())),
            (Ok(ip), None) => Ok(match ip.to_ipv4_mapped() {
                Some(ip) if ip.is_unspecified() => Self::All,
                Some(ip) => Self::V4(ip),
                None if ip.is_unspecified() => Self::All,
                None => Self::V6(ip),
            }),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_socket())
    }
}

/// A Go+ duration; one below zero counts as zero, as a timer would take it.
pub(super) fn go_duration(text: &str) -> Result<Duration, DurationError> {
    let nanos = duration::parse_go(text)?;
    Ok(Duration::from_nanos(u64::try_from(nanos).unwrap_or(0)))
}

/// The time between two rounds of sending the write-ahead log; none, or a second at least: each costs requests.
pub(super) fn wal_interval(text: &str) -> Result<Duration, String> {
    let interval = go_duration(text).map_err(|why| why.to_string())?;
    match interval < Duration::from_secs(1) && !interval.is_zero() {
        true => Err(format!("{text} is less than a second, the least; 0 sends nothing")),
        false => Ok(interval),
    }
}

pub(super) fn prometheus_duration(text: &str) -> Result<Duration, DurationError> {
    duration::parse_prometheus(text)
}

/// A moment as the other flags take it, or `now`.
pub(super) fn until(text: &str) -> Result<TimeOrDuration, DurationError> {
    match text {
        "now" => Ok(TimeOrDuration::FromNow(0)),
        _ => TimeOrDuration::parse(text),
    }
}

pub(super) fn time_or_duration(text: &str) -> Result<TimeOrDuration, DurationError> {
    TimeOrDuration::parse(text)
}

/// A URL of HTTP. Brackets around an IPv4 address or a name are taken off, as in an [`Address`].
pub(super) fn url(text: &str) -> Result<Url, ValueError> {
    let hint = "expected a URL such as http://localhost:9090";
    if host_in_brackets(text).is_some_and(|host| host.contains(':') && host.contains('%')) {
        return error(format!(
            "{hint}: an IPv6 address with a zone cannot stand in a URL, give a name or another address"
        ));
    }
    match Url::parse(&without_brackets(text)) {
        Ok(url) if !matches!(url.scheme(), "http" | "https") => {
            error(format!("{hint}, starting with http:// or https://"))
        }
        Ok(url) => Ok(url),
        Err(cause) => error(format!("{hint}: {cause}")),
    }
}

/// What stands in brackets where a URL has its host.
fn host_in_brackets(url: &str) -> Option<&str> {
    let (_, rest) = url.split_once("://")?;
    let authority = rest.split(['/', '?', '#']).next()?;
    let (_, host) = authority.rsplit_once('@').unwrap_or(("", authority));
    Some(host.strip_prefix('[')?.split_once(']')?.0)
}

/// The URL without brackets around a host that is no IPv6 address.
fn without_brackets(url: &str) -> String {
    match host_in_brackets(url) {
        Some(host) if !host.is_empty() && !host.contains(':') => url.replacen(&format!("[{host}]"), host, 1),
        _ => url.to_owned(),
    }
}

/// A whole number; as with Thanos a fraction is cut off (`4.0`, `1e1`).
pub(super) fn int(text: &str) -> Result<i64, ValueError> {
    if let Ok(int) = text.parse() {
        return Ok(int);
    }
    match text.parse::<f64>() {
        Ok(float) if float.is_finite() => Ok(float as i64),
        _ => error(format!("expected a number, got {text:?}")),
    }
}

/// [`int`], bounded so that a typing error does not turn into thousands of open requests.
pub(super) fn concurrency(text: &str) -> Result<i64, ValueError> {
    match int(text)? {
        n if n > i64::from(MOST_REQUESTS_AT_ONCE) => {
            error(format!("{n} is more than {MOST_REQUESTS_AT_ONCE}, the most at once"))
        }
        n => Ok(n),
    }
}

const MOST_REQUESTS_AT_ONCE: u16 = 1024;

pub(super) fn uint(text: &str) -> Result<u64, ValueError> {
    text.parse()
        .or_else(|_| error(format!("expected a number from 0 up, got {text:?}")))
}

pub(super) fn float(text: &str) -> Result<f64, ValueError> {
    text.parse()
        .or_else(|_| error(format!("expected a number, got {text:?}")))
}

pub(super) fn file_name(text: &str) -> Result<String, ValueError> {
    if text.is_empty() || matches!(text, "." | "..") || text.contains(['/', '\0']) {
        return error(format!(
            "expected the name of a file inside --tsdb.path, without a directory, got {text:?}"
        ));
    }
    Ok(text.to_owned())
}

/// A selector of label sets: `{name="value", ...}`, or one matcher without the braces.
pub(super) fn selector(text: &str) -> Result<Selector, ValueError> {
    Selector::parse(text).or_else(|why| error(format!("no selector such as '{{cluster=\"eu\"}}': {why}")))
}

/// How many requests run at once.
pub(super) fn at_once(text: &str) -> Result<usize, ValueError> {
    match text.parse() {
        Ok(n @ 1..=MOST_REQUESTS_AT_ONCE) => Ok(usize::from(n)),
        _ => error(format!(
            "expected a number from 1 to {MOST_REQUESTS_AT_ONCE}, got {text:?}"
        )),
    }
}

/// Any path, the empty one included, which stands for "not given".
pub(super) fn path_parser() -> impl clap::builder::TypedValueParser<Value = PathBuf> {
    use clap::builder::{OsStringValueParser, TypedValueParser as _};
    OsStringValueParser::new().map(PathBuf::from)
}

/// A path that must be given.
pub(super) fn dir_parser() -> impl clap::builder::TypedValueParser<Value = PathBuf> {
    use clap::builder::{OsStringValueParser, TypedValueParser as _};
    OsStringValueParser::new().try_map(|text| match text.is_empty() {
        true => error("expected a directory, got nothing"),
        false => Ok(PathBuf::from(text)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_mean_what_they_mean_to_thanos() {
        let table = [
            (":10901", "[::]:10901", Some("0.0.0.0:10901")),
            ("0.0.0.0:10902", "[::]:10902", Some("0.0.0.0:10902")),
            ("[::]:10902", "[::]:10902", Some("0.0.0.0:10902")),
            ("localhost:10902", "localhost:10902", None),
            ("127.0.0.1:0", "127.0.0.1:0", None),
            ("[::1]:10902", "[::1]:10902", None),
            // Go's brackets hold any host; the Prometheus Operator writes them around an IPv4 address.
            ("[127.0.0.1]:10901", "127.0.0.1:10901", None),
            ("[localhost]:10901", "localhost:10901", None),
            ("[]:10901", "[::]:10901", Some("0.0.0.0:10901")),
            ("[0.0.0.0]:10901", "[::]:10901", Some("0.0.0.0:10901")),
            ("[0:0:0:0:0:0:0:0]:10901", "[::]:10901", Some("0.0.0.0:10901")),
            ("[::ffff:0.0.0.0]:10901", "[::]:10901", Some("0.0.0.0:10901")),
            ("[::ffff:127.0.0.1]:10901", "127.0.0.1:10901", None),
            ("[fe80::1%eth0]:10901", "[fe80::1%eth0]:10901", None),
            ("[fe80::1%2]:10901", "[fe80::1%2]:10901", None),
            ("[fe80::1%br-0.7@x]:10901", "[fe80::1%br-0.7@x]:10901", None),
        ];
        for (text, socket, fallback) in table {
            let address = Address::parse(text).unwrap();
            assert_eq!(address.to_socket(), socket, "{text}");
            assert_eq!(address.fallback().as_deref(), fallback, "{text}");
        }
    }

    #[test]
    fn broken_addresses_are_named() {
        let bad = [
            "",
            "10902",
            "host",
            "host:",
            "host:http",
            "host:+80",
            "::1:80",
            "[::1:80",
            "h:70000",
            "a b:1",
            "::1%lo:80",
            "[127.0.0.1:80",
            "127.0.0.1]:80",
            "[127.0.0.1]80",
            "[127.0.0.1]",
            "[127.0.0.1]:",
            "[[::1]]:80",
            "[a:b]:80",
            "[a%b]:80",
            "[fe80::1%]:80",
            "[fe80::1%a b]:80",
            "[fe80::1%a%b]:80",
            "[::1]:80:90",
        ];
        for text in bad {
            assert!(Address::parse(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_host_in_brackets_is_the_host_in_a_url_too() {
        for (text, url_is) in [
            ("http://[127.0.0.1]:9090/x", "http://127.0.0.1:9090/x"),
            ("http://[localhost]:9090", "http://localhost:9090/"),
            ("https://u:p@[127.0.0.1]/[1]", "https://u:p@127.0.0.1/[1]"),
            ("http://[::1]:9090", "http://[::1]:9090/"),
            ("http://localhost:9090/[a]", "http://localhost:9090/[a]"),
        ] {
            assert_eq!(url(text).unwrap().as_str(), url_is, "{text}");
        }
        let zone = url("http://[fe80::1%25eth0]:9090").unwrap_err().to_string();
        assert!(zone.contains("a zone cannot stand in a URL"), "{zone}");
        for text in [
            "http://[]:9090",
            "http://[a:b]:9090",
            "http://[127.0.0.1:9090",
            "http://127.0.0.1]:9090",
        ] {
            assert!(url(text).is_err(), "{text}");
        }
    }

    #[test]
    fn numbers_follow_the_original() {
        for (text, n) in [("4", 4), ("-1", -1), ("4.9", 4), ("1e1", 10)] {
            assert_eq!(int(text).unwrap(), n);
        }
        for text in ["", "four", "inf", "NaN"] {
            assert!(int(text).is_err(), "{text}");
        }
    }
}
