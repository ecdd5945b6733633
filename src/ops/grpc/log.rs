//! Logs calls as `--request.logging-config` says; off unless it is given.
//!
//! The YAML is that of Thanos, whose keys for HTTP are checked and have no effect here. Unknown keys are errors. The
//! meaning of its levels is not documented: they must be valid, and change nothing. A line is at level error when the
//! call failed in a way that is the server's fault, else at level debug, so that it is shown with `--log.level=debug`.

use std::{net::SocketAddr, time::Duration};

use http::HeaderMap;
use jiff::Timestamp;
use serde::Deserialize;
use tokio::time::Instant;
use tonic::Code;
use tracing::{debug, error};

use super::{
    deadline::Deadline,
    metrics::{Kind, code_name},
};
use crate::model::{whole_number::WholeNumber, yaml_text};

/// Which calls are logged, and when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallLog {
    start: bool,
    end: bool,
    /// Service and method; empty means all.
    only: Vec<(String, String)>,
}

/// A text is no configuration of the log of requests.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("request logging: {0}")]
pub struct CallLogError(String);

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Config {
    http: Option<Http>,
    grpc: Option<Grpc>,
    options: Option<Options>,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Http {
    config: Option<Vec<HttpEntry>>,
    options: Option<Options>,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct HttpEntry {
    #[allow(dead_code, reason = "checked only")]
    path: Option<String>,
    port: Option<WholeNumber>,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Grpc {
    config: Option<Vec<GrpcEntry>>,
    options: Option<Options>,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct GrpcEntry {
    service: String,
    method: String,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Options {
    level: String,
    decision: Decision,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Decision {
    log_start: bool,
    log_end: bool,
}

impl Options {
    fn check(&self, at: &str) -> Result<(), CallLogError> {
        if !matches!(self.level.as_str(), "" | "INFO" | "DEBUG" | "ERROR" | "WARNING") {
            return Err(CallLogError(format!(
                "{at}.level must be INFO, DEBUG, ERROR or WARNING, not {:?}",
                self.level
            )));
        }
        if self.decision.log_start && !self.decision.log_end {
            return Err(CallLogError(format!(
                "{at}.decision: log_start without log_end is not possible"
            )));
        }
        Ok(())
    }
}

impl CallLog {
    /// Reads the YAML; `None` when it asks for no line about gRPC. `grpc.options` replace `options`.
    ///
    /// # Errors
    /// Unknown keys or levels, a start that is logged without the end, an entry without its service or method.
    pub fn parse(yaml: &str) -> Result<Option<Self>, CallLogError> {
        // A line of the log is one line: without the picture of the place.
        let config: Option<Config> = yaml_text::read(yaml).map_err(CallLogError)?;
        let config = config.unwrap_or_default();
        let (http, grpc) = (config.http.unwrap_or_default(), config.grpc.unwrap_or_default());
        for (at, options) in [
            ("options", &config.options),
            ("http.options", &http.options),
            ("grpc.options", &grpc.options),
        ] {
            if let Some(options) = options {
                options.check(at)?;
            }
        }
        for port in http.config.iter().flatten().filter_map(|entry| entry.port.as_ref()) {
            match port.value() {
                Ok(0..=65535) => {}
                Ok(_) => return Err(CallLogError("http.config: port must be at most 65535".to_owned())),
                Err(problem) => return Err(CallLogError(format!("http.config: port {problem}"))),
            }
        }
        let entries = grpc.config.unwrap_or_default();
        if entries
            .iter()
            .any(|entry| entry.service.is_empty() || entry.method.is_empty())
        {
            return Err(CallLogError(
                "grpc.config: each entry needs service and method".to_owned(),
            ));
        }
        let decision = grpc.options.or(config.options).unwrap_or_default().decision;
        Ok(decision.log_end.then(|| Self {
            start: decision.log_start,
            end: decision.log_end,
            only: entries.into_iter().map(|entry| (entry.service, entry.method)).collect(),
        }))
    }

    /// A call of `path` begins; `None` if it is none to be logged.
    pub(super) fn begin(
        &self,
        path: &str,
        kind: Option<Kind>,
        peer: SocketAddr,
        headers: &HeaderMap,
        deadline: Option<&Deadline>,
    ) -> Option<Box<Entry>> {
        let (service, method) = path.strip_prefix('/')?.split_once('/')?;
        if !self.only.is_empty() && !self.only.iter().any(|(s, m)| s == service && m == method) {
            return None;
        }
        let now = Timestamp::now();
        let entry = Entry {
            end: self.end,
            kind: kind.unwrap_or_else(|| guess(method)).name(),
            service: service.to_owned(),
            method: method.to_owned(),
            peer,
            begun: seconds(now),
            deadline: deadline.and_then(|deadline| {
                let left = deadline.at().saturating_duration_since(Instant::now());
                now.checked_add(left).ok().map(seconds)
            }),
            request: request_id(headers),
            trace: trace_id(headers),
        };
        if self.start {
            entry.start();
        }
        Some(Box::new(entry))
    }
}

/// The kind of methods that are not counted: those of health and reflection.
fn guess(method: &str) -> Kind {
    match method {
        "Watch" => Kind::ServerStream,
        "ServerReflectionInfo" => Kind::BidiStream,
        _ => Kind::Unary,
    }
}

fn seconds(time: Timestamp) -> String {
    format!("{time:.0}")
}

/// The client's own, if it sent exactly one; else a new one.
fn request_id(headers: &HeaderMap) -> String {
    let mut values = headers.get_all("request-id").iter();
    match (values.next(), values.next()) {
        (Some(one), None) => String::from_utf8_lossy(one.as_bytes()).into_owned(),
        _ => ulid::Ulid::generate().to_string(),
    }
}

/// From the header of W3C's trace context.
fn trace_id(headers: &HeaderMap) -> Option<String> {
    let parent = headers.get("traceparent")?.to_str().ok()?;
    let id = parent.split('-').nth(1)?;
    (id.len() == 32).then(|| id.to_owned())
}

/// A call that is logged.
#[derive(Debug)]
pub(super) struct Entry {
    end: bool,
    kind: &'static str,
    service: String,
    method: String,
    peer: SocketAddr,
    begun: String,
    deadline: Option<String>,
    request: String,
    trace: Option<String>,
}

macro_rules! line {
    ($level:ident, $entry:ident, $($more:tt)*) => {
        $level!(
            protocol = "grpc",
            grpc.component = "server",
            grpc.service = $entry.service,
            grpc.method = $entry.method,
            grpc.method_type = $entry.kind,
            peer.address = %$entry.peer,
            grpc.start_time = $entry.begun,
            grpc.request.deadline = $entry.deadline,
            requestID = $entry.request,
            traceID = $entry.trace,
            $($more)*
        )
    };
}

impl Entry {
    fn start(&self) {
        line!(debug, self, "started call");
    }

    /// The call has ended.
    pub(super) fn end(&self, code: Code, message: &str, took: Duration) {
        if !self.end {
            return;
        }
        let text = (code != Code::Ok).then_some(message);
        let time_ms = took.as_secs_f64() * 1000.0;
        let name = code_name(code);
        match code {
            Code::Unknown | Code::Unimplemented | Code::Internal | Code::DataLoss => {
                line!(
                    error,
                    self,
                    grpc.code = name,
                    grpc.error = text,
                    grpc.time_ms = time_ms,
                    "finished call"
                );
            }
            _ => line!(
                debug,
                self,
                grpc.code = name,
                grpc.error = text,
                grpc.time_ms = time_ms,
                "finished call"
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(yaml: &str) -> String {
        CallLog::parse(yaml).unwrap_err().to_string()
    }

    #[test]
    fn the_yaml_of_thanos_is_read_and_its_mistakes_are_told() {
        for quiet in [
            "",
            "{}",
            "options:\n  level: INFO\n",
            "http:\n  options: {decision: {log_end: true}}\n",
        ] {
            assert_eq!(CallLog::parse(quiet).unwrap(), None, "{quiet:?}");
        }
        let all = "http:\n  config:\n  - path: /a\n    port: 80\noptions:\n  level: DEBUG\n  decision:\n    log_start: \
                   true\n    log_end: true\n";
        let log = CallLog::parse(all).unwrap().unwrap();
        assert!(log.start && log.end && log.only.is_empty());
        let some = "grpc:\n  options:\n    level: ERROR\n    decision: {log_end: true}\n  config:\n  - service: \
                    thanos.Store\n    method: Series\noptions:\n  decision: {log_start: true, log_end: true}\n";
        let log = CallLog::parse(some).unwrap().unwrap();
        assert!(!log.start && log.end);
        assert_eq!(log.only, [("thanos.Store".to_owned(), "Series".to_owned())]);

        assert!(refused("options: {level: LOUD}").contains("options.level must be INFO"));
        assert!(refused("grpc: {options: {decision: {log_start: true}}}").contains("without log_end"));
        assert!(refused("grpc: {config: [{service: a}]}").contains("needs service and method"));
        assert!(refused("grpc: {konfig: []}").contains("konfig"));
        let port = |port: &str| format!("http: {{config: [{{path: /a, port: {port}}}]}}");
        assert_eq!(CallLog::parse(&port("1.0902e+04")).unwrap(), None);
        assert!(refused(&port("1.5")).contains("port must be a whole number"));
        assert!(refused(&port("65536")).contains("at most 65535"));
    }

    #[derive(Clone, Default)]
    struct Lines(std::sync::Arc<std::sync::Mutex<Vec<u8>>>);

    impl std::io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn lines_have_the_fields_of_thanos() {
        let lines = Lines::default();
        let writer = lines.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_max_level(tracing::Level::DEBUG)
            .with_ansi(false)
            .with_writer(move || writer.clone())
            .finish();
        tracing::subscriber::with_default(subscriber, || {
            let log = CallLog {
                start: true,
                end: true,
                only: Vec::new(),
            };
            let peer = "127.0.0.1:1".parse().unwrap();
            let mut headers = HeaderMap::new();
            headers.insert("request-id", "mine".parse().unwrap());
            let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
            headers.insert("traceparent", parent.parse().unwrap());
            for (code, text) in [(Code::Ok, ""), (Code::Internal, "boom")] {
                let entry = log.begin("/thanos.info.Info/Info", Some(Kind::Unary), peer, &headers, None);
                entry.unwrap().end(code, text, Duration::from_millis(12));
            }
        });
        let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        let fields = "protocol=\"grpc\" grpc.component=\"server\" grpc.service=\"thanos.info.Info\" grpc.method=\"Info\" \
                      grpc.method_type=\"unary\" peer.address=127.0.0.1:1 grpc.start_time=";
        assert!(
            lines.len() == 4 && lines.iter().all(|line| line.contains(fields)),
            "{text}"
        );
        let ids = "requestID=\"mine\" traceID=\"4bf92f3577b34da6a3ce929d0e0e4736\"";
        assert!(lines.iter().all(|line| line.contains(ids)), "{text}");
        assert!(
            lines[0].contains("DEBUG") && lines[0].contains("started call"),
            "{text}"
        );
        assert!(
            lines[1].contains("DEBUG") && lines[1].contains("grpc.code=\"OK\" grpc.time_ms=12"),
            "{text}"
        );
        let failed = "grpc.code=\"Internal\" grpc.error=\"boom\" grpc.time_ms=12";
        assert!(
            lines[3].contains("ERROR") && lines[3].contains("finished call"),
            "{text}"
        );
        assert!(lines[3].contains(failed), "{text}");
    }

    #[test]
    fn only_the_methods_that_are_named_are_logged() {
        let log = CallLog {
            start: false,
            end: true,
            only: vec![("thanos.Store".to_owned(), "Series".to_owned())],
        };
        let peer = "127.0.0.1:1".parse().unwrap();
        let mut headers = HeaderMap::new();
        headers.insert("request-id", "mine".parse().unwrap());
        let begin = |path, headers: &HeaderMap| log.begin(path, Some(Kind::ServerStream), peer, headers, None);
        let entry = begin("/thanos.Store/Series", &headers).unwrap();
        assert_eq!((entry.request.as_str(), entry.kind), ("mine", "server_stream"));
        headers.append("request-id", "and mine".parse().unwrap());
        assert_eq!(begin("/thanos.Store/Series", &headers).unwrap().request.len(), 26);
        assert!(begin("/thanos.Store/LabelNames", &headers).is_none());
    }
}
