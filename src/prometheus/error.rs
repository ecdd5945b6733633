//! Errors by kind, each with what to do about it.

use std::{error::Error as _, io, time::Duration};

use rustls::InvalidMessage;

use crate::{threads::Lost, trust::FileError};

/// How much of an error answer is kept, in characters.
const KEPT_CHARS: usize = 1000;

/// A call to Prometheus that failed.
#[derive(Debug, thiserror::Error)]
#[error("{method} {url}: {kind}")]
pub struct Error {
    /// The method of HTTP.
    pub method: &'static str,
    /// The address, without credentials.
    pub url: String,
    /// What went wrong.
    pub kind: ErrorKind,
}

impl Error {
    /// Whether nothing listens at the address.
    pub fn is_refused(&self) -> bool {
        matches!(self.kind, ErrorKind::Refused)
    }
}

/// What went wrong in a call to Prometheus.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ErrorKind {
    /// Nothing listens at the address.
    #[error("connection refused: Prometheus is not running there, or --prometheus.url is wrong")]
    Refused,
    /// No connection for another reason (name, route, TLS), or it broke before an answer came.
    #[error("cannot connect ({0}): check --prometheus.url and --prometheus.http-client")]
    Unreachable(String),
    /// `--prometheus.url` says https, and the server does not speak TLS.
    #[error("the server at this address does not use TLS: write http:// instead of https:// in --prometheus.url")]
    NoTls,
    /// `--prometheus.url` says http, and the server speaks TLS.
    #[error("the server at this address uses TLS: write https:// instead of http:// in --prometheus.url")]
    NeedsTls,
    /// `--prometheus.url` says http, and what the server sends is no HTTP.
    #[error("the server at this address does not speak HTTP ({0}): if it uses TLS, write https:// in --prometheus.url")]
    NotHttp(String),
    /// The credentials of `--prometheus.url` are refused.
    #[error(
        "status {code}{}: it refuses the credentials of --prometheus.url, which come before those of \
         --prometheus.http-client",
        shown_body(.body)
    )]
    UrlCredentials {
        /// The HTTP status.
        code: u16,
        /// Prometheus' message, as for [`ErrorKind::Status`].
        body: String,
    },
    /// It may not be reloaded by HTTP.
    #[error(
        "status 403: Prometheus may not be reloaded by HTTP; start it with --web.enable-lifecycle, or use \
         --reloader.method=signal"
    )]
    NoLifecycle,
    /// The request does not fit into an address.
    #[error("the request's URL would have {length} bytes, and {limit} are allowed: use fewer or shorter matchers")]
    TooLong {
        /// The length of the address, in bytes.
        length: usize,
        /// The longest that can be asked.
        limit: usize,
    },
    /// The answer was not complete in time.
    #[error("no complete answer within {0:?}: Prometheus is overloaded, or the time limit is too short")]
    Timeout(Duration),
    /// A response that is not a success.
    #[error("status {code}{}: {}", shown_body(.body), hint(*.code))]
    Status {
        /// The HTTP status.
        code: u16,
        /// Prometheus' message, or else the body: the first 1000 characters, on one line.
        body: String,
    },
    /// A successful status, but a response that is an error, with Prometheus' message.
    #[error("Prometheus reports an error{}", shown_body(.0))]
    Failed(String),
    /// The connection broke within the answer.
    #[error("the answer was cut short ({0})")]
    Cut(String),
    /// The answer is larger than is plausible.
    #[error("the answer is larger than {limit} bytes: this is not Prometheus' answer; check --prometheus.url")]
    TooLarge {
        /// The limit, in bytes.
        limit: usize,
    },
    /// There is no memory for more of the answer.
    #[error(
        "no memory for more of the answer after {read} bytes: all calls together may hold --store.memory-limit; \
         select less, send fewer requests at once, or raise it"
    )]
    TooMuch {
        /// How much of the answer had come, in bytes.
        read: u64,
    },
    /// The request got no slot.
    #[error(transparent)]
    Shed(#[from] Shed),
    /// Reading the answer failed, through no fault of Prometheus.
    #[error("reading the answer: {0}")]
    Lost(#[from] Lost),
    /// The answer is not JSON.
    #[error("the answer is not JSON (line {line}, column {column}): check that --prometheus.url leads to Prometheus")]
    NotJson {
        /// The line of the first bad character.
        line: usize,
        /// Its column.
        column: usize,
    },
    /// The answer is JSON, but not of the shape that Prometheus gives; never holds parts of the answer.
    #[error("the answer is not understood ({0}): check that --prometheus.url leads to Prometheus")]
    NotUnderstood(String),
    /// A file of `--prometheus.http-client` cannot be used now.
    #[error(transparent)]
    Setup(#[from] SetupError),
}

/// A request that got no slot.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Shed {
    /// Too many wait already.
    #[error(
        "{most} requests of this kind already wait for Prometheus, which is sent {slots} at once: send fewer at once"
    )]
    Full {
        /// Requests that may wait at once.
        most: usize,
        /// Requests that may run at once.
        slots: usize,
    },
    /// No slot was free in time.
    #[error(
        "waited {waited:?} for one of the {slots} requests of this kind that Prometheus is sent at once: send fewer \
         at once, or find out why Prometheus is slow"
    )]
    TooLate {
        /// How long it waited.
        waited: Duration,
        /// Requests that may run at once.
        slots: usize,
    },
}

/// A setting that cannot be turned into a client.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SetupError {
    /// `--prometheus.url` is no address that can be asked.
    #[error("--prometheus.url: {0}")]
    Url(String),
    /// A file that `--prometheus.http-client` names cannot be used. It is part of the text, and so no source that would be
    /// printed once more.
    #[error("--prometheus.http-client: {0}")]
    File(FileError),
    /// Settings of `--prometheus.http-client` that do not go together with each other or with the URL.
    #[error("--prometheus.http-client: {0}")]
    Settings(String),
}

impl From<FileError> for SetupError {
    fn from(error: FileError) -> Self {
        Self::File(error)
    }
}

impl ErrorKind {
    /// Whether the server has answered, if not as it should: it is there, and is asked for something else perhaps.
    pub(super) fn is_an_answer(&self) -> bool {
        matches!(
            self,
            Self::Status { .. }
                | Self::UrlCredentials { .. }
                | Self::Failed(_)
                | Self::TooLarge { .. }
                | Self::TooMuch { .. }
                | Self::NotJson { .. }
                | Self::NotUnderstood(_)
        )
    }

    /// Whether the server does nothing for a request that failed so before a head of an answer came: it never got it, or
    /// it has closed the connection itself.
    pub(super) fn ends_request(&self) -> bool {
        matches!(
            self,
            Self::Refused
                | Self::Unreachable(_)
                | Self::NoTls
                | Self::NeedsTls
                | Self::NotHttp(_)
                | Self::TooLong { .. }
                | Self::Setup(_)
        )
    }

    /// Whether this is how a Prometheus in agent mode refuses what it does not have.
    pub(super) fn is_of_an_agent(&self) -> bool {
        matches!(self, Self::Status { code: 422, body } if body.contains("unavailable with Prometheus Agent"))
    }

    /// The kind of an error answer.
    pub(super) fn status(code: u16, body: &[u8]) -> Self {
        #[derive(serde::Deserialize)]
        struct Answer {
            error: String,
        }
        let body = match serde_json::from_slice(body) {
            Ok(Answer { error }) => one_line(&error),
            Err(_) => one_line(&String::from_utf8_lossy(body)),
        };
        // What servers in Go, and nginx, answer in plain text where they expect TLS.
        let expects_tls = [
            "HTTP request to an HTTPS server",
            "plain HTTP request was sent to HTTPS port",
        ];
        if code == 400 && expects_tls.iter().any(|text| body.contains(text)) {
            return Self::NeedsTls;
        }
        Self::Status { code, body }
    }

    /// The same, of a request whose credentials come from the URL.
    pub(super) fn with_url_credentials(self) -> Self {
        match self {
            Self::Status {
                code: code @ (401 | 403),
                body,
            } => Self::UrlCredentials { code, body },
            other => other,
        }
    }

    /// The kind of a failed TLS handshake with Prometheus.
    pub(super) fn from_handshake(error: &io::Error) -> Self {
        match tls_error(error) {
            Some(rustls::Error::InvalidMessage(InvalidMessage::InvalidContentType)) => Self::NoTls,
            _ => Self::Unreachable(error.to_string()),
        }
    }

    /// The kind of a failure of a connection before the answer's head was there; `secure` if it uses TLS.
    pub(super) fn from_http(error: &hyper::Error, secure: bool) -> Self {
        let causes = std::iter::successors(error.source(), |&source| source.source());
        let text = causes.last().map_or_else(|| error.to_string(), ToString::to_string);
        match error.is_parse() && !secure {
            true => Self::NotHttp(text),
            false => Self::Unreachable(text),
        }
    }

    /// The kind of a response that is an error.
    pub(super) fn failed(message: &str) -> Self {
        Self::Failed(one_line(message))
    }

    /// The kind of a failure before the answer's head was there; `secure` if the URL says https.
    pub(super) fn from_send(error: reqwest::Error, connect_limit: Duration, secure: bool) -> Self {
        if error.is_timeout() {
            return Self::Timeout(connect_limit);
        }
        let refused = |source: &(dyn std::error::Error + 'static)| {
            let io = source.downcast_ref::<io::Error>();
            io.is_some_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
        };
        if std::iter::successors(error.source(), |&source| source.source()).any(refused) {
            return Self::Refused;
        }
        let causes = || std::iter::successors(error.source(), |&source| source.source());
        if let Some(no_tls @ Self::NoTls) = causes()
            .filter_map(|cause| cause.downcast_ref::<io::Error>())
            .map(Self::from_handshake)
            .find(|kind| matches!(kind, Self::NoTls))
        {
            return no_tls;
        }
        let not_http = |cause: &(dyn std::error::Error + 'static)| {
            let http = cause.downcast_ref::<hyper::Error>();
            http.is_some_and(hyper::Error::is_parse)
        };
        if !secure && causes().any(not_http) {
            return Self::NotHttp(innermost(error));
        }
        Self::Unreachable(innermost(error))
    }

    /// The kind of a failure within the answer's body.
    pub(super) fn from_body(error: reqwest::Error) -> Self {
        Self::Cut(innermost(error))
    }

    /// The kind of a text that is not the JSON of `expected`; serde's own message could quote the answer.
    pub(super) fn from_json(error: &serde_json::Error, expected: &str) -> Self {
        if error.is_data() {
            return Self::NotUnderstood(format!("expected {expected}"));
        }
        let (line, column) = (error.line(), error.column());
        Self::NotJson { line, column }
    }
}

/// The error of TLS in one of a connection, however often that is wrapped.
fn tls_error(error: &io::Error) -> Option<&rustls::Error> {
    let inner = error.get_ref()?;
    let deeper = || inner.downcast_ref::<io::Error>().and_then(tls_error);
    inner.downcast_ref::<rustls::Error>().or_else(deeper)
}

/// The cause below reqwest's own general words, which would repeat the URL.
fn innermost(error: reqwest::Error) -> String {
    let error = error.without_url();
    let causes = std::iter::successors(error.source(), |&source| source.source());
    causes.last().map_or_else(|| error.to_string(), ToString::to_string)
}

/// The beginning of a text, without line breaks and other characters that disturb a log.
fn one_line(text: &str) -> String {
    let words = text.split(|c: char| c.is_whitespace() || c.is_control());
    let words: Vec<&str> = words.filter(|word| !word.is_empty()).collect();
    words.join(" ").chars().take(KEPT_CHARS).collect()
}

fn shown_body(body: &str) -> String {
    if body.is_empty() {
        return String::new();
    }
    format!(" ({body})")
}

fn hint(code: u16) -> &'static str {
    match code {
        400 | 422 => "it rejects the request",
        300..=399 => "it redirects elsewhere; give the final address as --prometheus.url",
        401 | 403 => "it wants other credentials; check --prometheus.http-client",
        407 => "the proxy wants other credentials; check proxy_url of --prometheus.http-client",
        404 | 405 => "not found; check --prometheus.url, including the path prefix of Prometheus' --web.external-url",
        503 => "Prometheus is starting, replaying its write-ahead log or shutting down",
        _ => "see Prometheus' log",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shows_little_of_the_body_on_one_line() {
        let body = format!("Service\r\n\tUnavailable\u{1b}[0m {}", "x".repeat(2000));
        let kind = ErrorKind::status(503, body.as_bytes());
        let ErrorKind::Status { body, .. } = &kind else {
            panic!("{kind:?}")
        };
        assert!(body.starts_with("Service Unavailable [0m xxx"), "{body}");
        assert_eq!(body.chars().count(), 1000);
        assert!(kind.to_string().contains("write-ahead log"), "{kind}");
        assert_eq!(
            ErrorKind::status(500, b"").to_string(),
            "status 500: see Prometheus' log"
        );
        let json = br#"{"status":"error","errorType":"bad_data","error":"no \"end\""}"#;
        assert_eq!(
            ErrorKind::status(400, json).to_string(),
            r#"status 400 (no "end"): it rejects the request"#
        );
    }

    #[test]
    fn never_quotes_an_answer_that_is_not_understood() {
        let error = serde_json::from_str::<Vec<u8>>(r#""hunter2""#).expect_err("a string is no list");
        assert!(error.to_string().contains("hunter2"));
        let kind = ErrorKind::from_json(&error, "a list").to_string();
        assert!(
            kind.contains("(expected a list)") && !kind.contains("hunter2"),
            "{kind}"
        );
    }
}
