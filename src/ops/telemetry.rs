//! The log: where it goes, in which format, and what is filtered.
//!
//! Logfmt and JSON go to standard error, one line an event, written at once and whole; a line that cannot be written is
//! lost, and the process goes on. The journal gets its fields as fields. Libraries are logged from warnings up; at
//! debug also their informational events, except of those that handle credentials: below warnings they log access keys,
//! tokens and signatures. `RUST_LOG` is not read: only the flags count. A panic is logged as a line like any other.
//! Spans for a collector pass through the same subscriber, and leave nothing in the log.

use std::{
    io::{self, Write},
    str::FromStr,
    sync::{Mutex, PoisonError},
};

use jiff::Timestamp;
use tracing::{Event, Metadata, Subscriber, error, level_filters::LevelFilter, span};
use tracing_log::{LogTracer, NormalizeEvent as _};
use tracing_subscriber::{
    filter::{Targets, filter_fn},
    layer::{Context, Layer, SubscriberExt as _},
    registry::{LookupSpan, Registry},
};

use super::{
    log_fields::Collected,
    log_line::{Line, level_name},
    recent::Recent,
};
use crate::spans;

/// The lowest level that is logged (`--log.level`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// `error`
    Error,
    /// `warn`
    Warn,
    /// `info`
    Info,
    /// `debug`
    Debug,
}

/// The form of the log (`--log.format`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// `key=value`, to standard error.
    Logfmt,
    /// An object a line, to standard error.
    Json,
    /// systemd's journal.
    Journald,
}

/// A text is none of the values that a flag takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be one of {0}")]
pub struct NotOneOf(&'static str);

/// The log could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum InitError {
    /// There is no journal to write to.
    #[error(
        "cannot write to systemd's journal: {0}; is journald running here? Choose --log.format=logfmt or json if not"
    )]
    Journal(io::Error),
    /// Another log was set up in this process before.
    #[error("the log of this process is already set up")]
    Twice,
}

impl FromStr for Level {
    type Err = NotOneOf;

    fn from_str(text: &str) -> Result<Self, NotOneOf> {
        match text {
            "error" => Ok(Self::Error),
            "warn" => Ok(Self::Warn),
            "info" => Ok(Self::Info),
            "debug" => Ok(Self::Debug),
            _ => Err(NotOneOf("error, warn, info, debug")),
        }
    }
}

impl FromStr for Format {
    type Err = NotOneOf;

    fn from_str(text: &str) -> Result<Self, NotOneOf> {
        match text {
            "logfmt" => Ok(Self::Logfmt),
            "json" => Ok(Self::Json),
            "journald" => Ok(Self::Journald),
            _ => Err(NotOneOf("logfmt, json, journald")),
        }
    }
}

/// Sets up the log of the process, once. `debug_name` is told in each line under the key `name`. `spans` takes spans for a
/// collector; without it there are none. `recent` keeps the last warnings and errors.
///
/// # Errors
/// When there is no journal to write to, or the log was set up before.
pub fn init(
    level: Level,
    format: Format,
    debug_name: Option<&str>,
    spans: Option<spans::Layer>,
    recent: Recent,
) -> Result<(), InitError> {
    let name = debug_name.filter(|name| !name.is_empty());
    let filter = filter(level, spans.is_some());
    let filtered = Registry::default().with(spans).with(filter).with(recent);
    let set = match format {
        Format::Journald => {
            let events = filter_fn(|metadata| metadata.target() != spans::TARGET);
            tracing::subscriber::set_global_default(filtered.with(journal(name)?.with_filter(events)))
        }
        Format::Logfmt | Format::Json => {
            tracing::subscriber::set_global_default(filtered.with(Lines::new(format, name, io::stderr())))
        }
    };
    set.map_err(|_| InitError::Twice)?;
    LogTracer::builder()
        .with_max_level(log_level(level))
        .init()
        .map_err(|_| InitError::Twice)?;
    std::panic::set_hook(Box::new(|panic| {
        let message = panic.payload_as_str().unwrap_or("no message");
        let at = panic.location().map(ToString::to_string).unwrap_or_default();
        let thread = std::thread::current();
        error!(
            panic = message,
            at,
            thread = thread.name().unwrap_or("unnamed"),
            "a panic: this is a bug in narthex"
        );
    }));
    Ok(())
}

fn journal(name: Option<&str>) -> Result<tracing_journald::Layer, InitError> {
    let layer = tracing_journald::Layer::new().map_err(InitError::Journal)?;
    Ok(layer
        .with_syslog_identifier("narthex".to_owned())
        .with_custom_fields(name.map(|name| ("NAME", name))))
}

/// The libraries that handle credentials: their targets begin so.
const HANDLE_CREDENTIALS: [&str; 4] = ["aws_", "hyper", "h2", "object_store"];

/// Says as an error, with each answer of a store that fails, that it cannot mark a connection which our transport, on
/// purpose, does not show it: no word about it helps anybody.
const MISLEADING: &str = "aws_smithy_runtime::client::http::connection_poisoning";

/// Ours at the level that was asked for; libraries from warnings up, and a little more at debug. Spans for a collector where
/// there is one.
fn filter(level: Level, spans: bool) -> Targets {
    let (ours, libraries) = match level {
        Level::Error => (LevelFilter::ERROR, LevelFilter::ERROR),
        Level::Warn => (LevelFilter::WARN, LevelFilter::WARN),
        Level::Info => (LevelFilter::INFO, LevelFilter::WARN),
        Level::Debug => (LevelFilter::DEBUG, LevelFilter::INFO),
    };
    let quiet = libraries.min(LevelFilter::WARN);
    Targets::new()
        .with_default(libraries)
        .with_targets(HANDLE_CREDENTIALS.map(|target| (target, quiet)))
        .with_target(MISLEADING, LevelFilter::OFF)
        .with_target(spans::TARGET, if spans { LevelFilter::INFO } else { LevelFilter::OFF })
        .with_target(env!("CARGO_CRATE_NAME"), ours)
}

/// What libraries that speak to the `log` crate need to form at all.
fn log_level(level: Level) -> tracing_log::log::LevelFilter {
    match level {
        Level::Error => tracing_log::log::LevelFilter::Error,
        Level::Warn | Level::Info => tracing_log::log::LevelFilter::Warn,
        Level::Debug => tracing_log::log::LevelFilter::Info,
    }
}

/// Writes each event as one line.
struct Lines<W> {
    format: Format,
    name: Option<String>,
    out: Mutex<W>,
}

impl<W: Write> Lines<W> {
    fn new(format: Format, name: Option<&str>, out: W) -> Self {
        Self {
            format,
            name: name.map(str::to_owned),
            out: Mutex::new(out),
        }
    }
}

impl<S, W> Layer<S> for Lines<W>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    W: Write + 'static,
    Self: 'static,
{
    fn on_new_span(&self, attributes: &span::Attributes<'_>, id: &span::Id, context: Context<'_, S>) {
        if attributes.metadata().target() == spans::TARGET {
            return;
        }
        let mut collected = Collected::default();
        attributes.record(&mut collected);
        if let Some(span) = context.span(id) {
            span.extensions_mut().insert(collected);
        }
    }

    fn on_record(&self, id: &span::Id, values: &span::Record<'_>, context: Context<'_, S>) {
        if let Some(span) = context.span(id)
            && let Some(collected) = span.extensions_mut().get_mut::<Collected>()
        {
            let mut newer = Collected::default();
            values.record(&mut newer);
            collected
                .fields
                .retain(|(key, _)| newer.fields.iter().all(|(replaced, _)| replaced != key));
            collected.fields.append(&mut newer.fields);
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let mut collected = Collected::of(event);
        for span in context.event_scope(event).into_iter().flatten() {
            if let Some(outer) = span.extensions().get::<Collected>() {
                collected.fields.extend(outer.fields.iter().cloned());
            }
        }
        let normalized = event.normalized_metadata();
        let metadata = normalized.as_ref().unwrap_or_else(|| event.metadata());
        let line = Line {
            ts: format!("{:.3}", Timestamp::now()),
            caller: caller(metadata),
            level: level_name(*metadata.level()),
            name: self.name.as_deref(),
            msg: &collected.message,
            fields: collected.fields.iter().collect(),
        };
        let text = if self.format == Format::Json {
            line.json()
        } else {
            line.logfmt()
        };
        let mut out = self.out.lock().unwrap_or_else(PoisonError::into_inner);
        // There is nobody left to tell.
        let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    }
}

/// `module/file.rs:line`; for a library with its directory's name in front.
fn caller(metadata: &Metadata<'_>) -> String {
    let (file, line) = (
        metadata.file().unwrap_or(metadata.target()),
        metadata.line().unwrap_or(0),
    );
    let short = match file.rsplit_once("/src/") {
        Some((directory, file)) => format!("{}/{file}", directory.rsplit('/').next().unwrap_or_default()),
        None => file.strip_prefix("src/").unwrap_or(file).to_owned(),
    };
    format!("{short}:{line}")
}

#[cfg(test)]
mod tests {
    use std::{error::Error, sync::Arc};

    use tracing::{debug, info, info_span, warn};

    use super::*;

    #[derive(Clone, Default)]
    struct Buffer(Arc<Mutex<Vec<u8>>>);

    impl Write for Buffer {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logged(level: Level, format: Format, name: Option<&str>, work: impl FnOnce()) -> Vec<String> {
        let buffer = Buffer::default();
        let subscriber = Registry::default()
            .with(filter(level, true))
            .with(Lines::new(format, name, buffer.clone()));
        tracing::subscriber::with_default(subscriber, work);
        let bytes = buffer.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap().lines().map(str::to_owned).collect()
    }

    /// Checks the time and the place of a line, and gives what follows them.
    fn after_caller(line: &str) -> &str {
        let (ts, rest) = line.strip_prefix("ts=").unwrap().split_once(" caller=").unwrap();
        assert_eq!(
            (ts.len(), &ts[10..11], &ts[19..20], &ts[23..]),
            ("2026-01-02T03:04:05.678Z".len(), "T", ".", "Z")
        );
        let (caller, rest) = rest.split_once(' ').unwrap();
        let (file, line) = caller.split_once(':').unwrap();
        assert_eq!(file, "ops/telemetry.rs");
        assert!(line.parse::<u32>().unwrap() > 0);
        rest
    }

    #[test]
    fn logfmt_has_the_keys_of_thanos_then_the_fields() {
        let lines = logged(Level::Info, Format::Logfmt, Some("pod 1"), || {
            let error = io::Error::new(io::ErrorKind::NotFound, "no\nfile");
            info!(bytes = 12_u64, ok = true, ratio = 0.5, block = %"01HX", r#type = ?Some(1), "uploaded block");
            warn!(error = &error as &dyn Error, nan = f64::NAN, "failed");
            debug!("not shown");
        });
        assert_eq!(lines.len(), 2, "{lines:?}");
        assert_eq!(
            after_caller(&lines[0]),
            "level=info name=\"pod 1\" msg=\"uploaded block\" bytes=12 ok=true ratio=0.5 block=01HX type=Some(1)"
        );
        assert_eq!(
            after_caller(&lines[1]),
            "level=warn name=\"pod 1\" msg=failed error=\"no\\nfile\" nan=NaN"
        );
    }

    #[test]
    fn json_lines_parse_and_carry_the_spans_around_them() {
        let lines = logged(Level::Debug, Format::Json, None, || {
            let outer = info_span!("pass", pass = 7, block = "outer");
            let _outer = outer.enter();
            let for_a_collector = info_span!(target: spans::TARGET, "upload", hidden = true);
            let _for_a_collector = for_a_collector.enter();
            let inner = info_span!("block", block = "01HX", bytes = tracing::field::Empty);
            inner.record("bytes", 5);
            inner.record("bytes", 6);
            let _inner = inner.enter();
            debug!(nan = f64::INFINITY, "done");
        });
        let line: serde_json::Value = serde_json::from_str(&lines[0]).unwrap();
        assert_eq!(line["level"], "debug");
        assert_eq!(line["msg"], "done");
        assert_eq!(
            (&line["block"], &line["bytes"], &line["pass"]),
            (&"01HX".into(), &6.into(), &7.into())
        );
        assert_eq!(line["nan"], "inf");
        let keys: Vec<&String> = line.as_object().unwrap().keys().collect();
        assert_eq!(keys, ["ts", "caller", "level", "msg", "nan", "block", "bytes", "pass"]);
    }

    #[test]
    fn libraries_are_heard_from_warnings_up_and_of_credentials_nothing_else_ever() {
        let noise = || {
            debug!(target: "tower::buffer", "detail");
            info!(target: "tower::buffer", "chatter");
            for target_of_credentials in [
                // Each must be a constant.
                || info!(target: "aws_config::profile::credentials", "the key id is AKID"),
                || info!(target: "aws_sigv4::http_request", "the key id is AKID"),
                || info!(target: "aws_smithy_runtime::client", "the key id is AKID"),
                || info!(target: "hyper_util::client::legacy", "the key id is AKID"),
                || info!(target: "h2::codec", "the key id is AKID"),
            ] {
                target_of_credentials();
            }
            tracing::error!(target: "aws_smithy_runtime::client::http::connection_poisoning", "unable to mark");
            warn!(target: "hyper::proto", "trouble");
            info!("ours");
        };
        let messages = |level| -> Vec<String> {
            let lines = logged(level, Format::Logfmt, None, noise);
            lines
                .iter()
                .map(|line| line.split_once("msg=").unwrap().1.to_owned())
                .collect()
        };
        assert_eq!(messages(Level::Info), ["trouble", "ours"]);
        assert_eq!(messages(Level::Warn), ["trouble"]);
        assert_eq!(messages(Level::Error), [""; 0]);
        assert_eq!(messages(Level::Debug), ["chatter", "trouble", "ours"]);
    }

    #[test]
    fn what_is_said_to_the_log_crate_arrives_with_its_own_place() {
        let lines = logged(Level::Info, Format::Logfmt, None, || {
            let record = tracing_log::log::Record::builder()
                .level(tracing_log::log::Level::Warn)
                .target("rustls::conn")
                .module_path(Some("rustls::conn"))
                .file(Some("/registry/rustls-0.23.1/src/conn/common.rs"))
                .line(Some(9))
                .args(format_args!("bad = 1"))
                .build();
            tracing_log::format_trace(&record).unwrap();
        });
        let (_, rest) = lines[0].split_once(" caller=").unwrap();
        assert_eq!(rest, "rustls-0.23.1/conn/common.rs:9 level=warn msg=\"bad = 1\"");
    }

    #[test]
    fn flags_take_these_words_and_no_others() {
        assert_eq!("warn".parse(), Ok(Level::Warn));
        assert_eq!("json".parse(), Ok(Format::Json));
        assert_eq!(
            "INFO".parse::<Level>().unwrap_err().to_string(),
            "must be one of error, warn, info, debug"
        );
        assert_eq!(
            "text".parse::<Format>().unwrap_err().to_string(),
            "must be one of logfmt, json, journald"
        );
    }
}
