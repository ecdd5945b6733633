//! The YAML of `--tracing.config`, with the keys that Thanos has for its type OTLP.
//!
//! At the top unknown keys are errors, as in Thanos; below `config` they are ignored there and warned of here. The other
//! types of Thanos are refused with the text to write instead. No value of a header gets into a message.

use std::{collections::BTreeMap, time::Duration};

use http::{HeaderMap, HeaderName, HeaderValue};
use opentelemetry_sdk::trace::Sampler;
use serde::Deserialize;
use serde_json::Value;
use url::Url;

use crate::{
    model::{
        duration::parse_go,
        whole_number,
        yaml_text::{self, present},
    },
    trust::ClientFiles,
};

/// How long one request to the collector may take, unless the configuration says so (the SDK's default).
const TIMEOUT: Duration = Duration::from_secs(10);

/// Where the collector is, unless somebody says so.
const HOST: &str = "localhost";

/// Where a collector listens for OTLP, by gRPC and by HTTP.
const PORTS: (u16, u16) = (4317, 4318);

/// Where a collector takes spans by HTTP.
const HTTP_PATH: &str = "/v1/traces";

/// A text that is no configuration of tracing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ConfigError(String);

/// How spans are chosen and sent.
#[derive(Clone, Debug)]
pub struct Config {
    pub(super) protocol: Protocol,
    /// With a scheme, which says whether TLS is used; for HTTP also with the path.
    pub(super) url: Url,
    pub(super) tls: ClientFiles,
    pub(super) headers: HeaderMap,
    pub(super) gzip: bool,
    /// For one request.
    pub(super) timeout: Duration,
    pub(super) retry: Retry,
    pub(super) sampler: Sampler,
    pub(super) service_name: Option<String>,
    pub(super) resource_attributes: BTreeMap<String, String>,
    warnings: Vec<String>,
}

/// How spans travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Protocol {
    Grpc,
    Http,
}

/// When what failed is tried again; `None` is the SDK's default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Retry {
    pub(super) initial: Option<Duration>,
    pub(super) longest: Option<Duration>,
    /// For all tries of one batch.
    pub(super) total: Option<Duration>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Outer {
    #[serde(default, rename = "type")]
    kind: Option<String>,
    #[serde(default)]
    config: Option<Value>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Raw {
    client_type: Option<String>,
    service_name: Option<String>,
    resource_attributes: Option<BTreeMap<String, Option<String>>>,
    reconnection_period: Option<String>,
    compression: Option<String>,
    insecure: Option<bool>,
    endpoint: Option<String>,
    url_path: Option<String>,
    timeout: Option<String>,
    retry_config: Option<RawRetry>,
    headers: Option<BTreeMap<String, Option<String>>>,
    tls_config: Option<RawTls>,
    sampler_type: Option<String>,
    sampler_param: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct RawRetry {
    retry_enabled: Option<bool>,
    retry_initial_interval: Option<String>,
    retry_max_interval: Option<String>,
    retry_max_elapsed_time: Option<String>,
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

/// All keys below `config`, by section.
const KEYS: [(&str, &[&str]); 3] = [
    (
        "",
        &[
            "client_type",
            "service_name",
            "resource_attributes",
            "reconnection_period",
            "compression",
            "insecure",
            "endpoint",
            "url_path",
            "timeout",
            "retry_config",
            "headers",
            "tls_config",
            "sampler_type",
            "sampler_param",
        ],
    ),
    (
        "retry_config",
        &[
            "retry_enabled",
            "retry_initial_interval",
            "retry_max_interval",
            "retry_max_elapsed_time",
        ],
    ),
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
];

/// Types of Thanos that are not OTLP, and what takes OTLP there.
const OTHER_TYPES: [(&str, &str); 5] = [
    ("JAEGER", "Jaeger takes OTLP itself, at port 4317"),
    (
        "GOOGLE_CLOUD",
        "an OpenTelemetry Collector passes OTLP on to Google Cloud",
    ),
    (
        "STACKDRIVER",
        "an OpenTelemetry Collector passes OTLP on to Google Cloud",
    ),
    (
        "ELASTIC_APM",
        "the APM Server of Elastic takes OTLP itself, at port 8200",
    ),
    (
        "LIGHTSTEP",
        "Lightstep takes OTLP itself, with the token in the header lightstep-access-token",
    ),
];

const INSTEAD: &str = "type: OTLP, config: {client_type: grpc, endpoint: \"host:4317\", insecure: true}";

impl Config {
    /// Reads the YAML; `None` for an empty one: no spans are sent then. `env` looks up variables of the environment, which
    /// OpenTelemetry has for the address of the collector.
    ///
    /// # Errors
    /// A syntax error, a type other than OTLP, a value that cannot be meant.
    pub fn parse(yaml: &str, env: fn(&str) -> Option<String>) -> Result<Option<Self>, ConfigError> {
        let Some(outer) = read::<Outer>(yaml)? else {
            return Ok(None);
        };
        check_type(outer.kind.as_deref().unwrap_or_default())?;
        let tree = outer.config.unwrap_or_default();
        let mut warnings = unknown_keys(&tree);
        // Read from the text once more: the tree has lost how numbers are spelled.
        let raw = read::<Inner>(yaml)?.and_then(|outer| outer.config).unwrap_or_default();
        let protocol = match raw.client_type.as_deref() {
            Some("grpc") => Protocol::Grpc,
            Some("http") => Protocol::Http,
            _ => return Err(error("config.client_type must be grpc or http")),
        };
        let url = url(protocol, &raw, env)?;
        let timeout = time("config.timeout", raw.timeout)?.unwrap_or(TIMEOUT);
        time("config.reconnection_period", raw.reconnection_period)?;
        let gzip = match raw.compression.as_deref() {
            None | Some("" | "none") => false,
            Some("gzip") => true,
            Some(_) => {
                warnings.push("config.compression is neither gzip nor none: nothing is compressed".to_owned());
                false
            }
        };
        let (sampler, warning) = sampler(raw.sampler_type.as_deref(), raw.sampler_param.as_deref());
        warnings.extend(warning);
        Ok(Some(Self {
            protocol,
            url,
            tls: raw.tls_config.unwrap_or_default().checked()?,
            headers: headers(raw.headers.unwrap_or_default())?,
            gzip,
            timeout,
            retry: raw.retry_config.unwrap_or_default().checked()?,
            sampler,
            service_name: present(raw.service_name),
            resource_attributes: texts(raw.resource_attributes.unwrap_or_default()),
            warnings,
        }))
    }

    /// What has no effect, or not the one that may be meant; one line for each, to be logged once.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }
}

#[derive(Deserialize)]
struct Inner {
    #[serde(default)]
    config: Option<Raw>,
}

fn error(text: impl Into<String>) -> ConfigError {
    ConfigError(text.into())
}

fn read<'a, T: Deserialize<'a>>(yaml: &'a str) -> Result<Option<T>, ConfigError> {
    yaml_text::read(yaml).map_err(error)
}

fn texts(given: BTreeMap<String, Option<String>>) -> BTreeMap<String, String> {
    given
        .into_iter()
        .map(|(key, value)| (key, value.unwrap_or_default()))
        .collect()
}

fn check_type(kind: &str) -> Result<(), ConfigError> {
    let kind = kind.to_ascii_uppercase();
    if kind == "OTLP" {
        return Ok(());
    }
    let other = OTHER_TYPES.iter().find(|(name, _)| *name == kind);
    Err(match other {
        Some((name, way)) => error(format!(
            "type {name} is not supported, only OTLP: {way}. Write {INSTEAD}"
        )),
        None if kind.is_empty() => error(format!("type is missing: write {INSTEAD}")),
        None => error(format!("type {kind:?} is not known: write {INSTEAD}")),
    })
}

fn unknown_keys(tree: &Value) -> Vec<String> {
    let mut unknown = Vec::new();
    for (section, known) in KEYS {
        let map = match section {
            "" => Some(tree),
            section => tree.get(section),
        };
        let dot = if section.is_empty() { "" } else { "." };
        for key in map.and_then(Value::as_object).into_iter().flat_map(|map| map.keys()) {
            if !known.contains(&key.as_str()) {
                unknown.push(format!("unknown key config.{section}{dot}{key} is ignored"));
            }
        }
    }
    unknown
}

/// Go's durations: a text with units, or a whole number of nanoseconds; zero is the default.
fn time(key: &str, text: Option<String>) -> Result<Option<Duration>, ConfigError> {
    let Some(text) = present(text) else { return Ok(None) };
    let nanoseconds = match whole_number::parse(&text) {
        Ok(number) => number,
        Err(_) => parse_go(&text).map_err(|problem| error(format!("{key}: {problem}")))?,
    };
    match u64::try_from(nanoseconds) {
        Ok(0) => Ok(None),
        Ok(nanoseconds) => Ok(Some(Duration::from_nanos(nanoseconds))),
        Err(_) => Err(error(format!("{key} must not be negative"))),
    }
}

/// Where spans go: as the configuration says, else the environment (as the OpenTelemetry SDK has it), else this host.
fn url(protocol: Protocol, raw: &Raw, env: fn(&str) -> Option<String>) -> Result<Url, ConfigError> {
    let is_http = protocol == Protocol::Http;
    let (default_port, default_path) = match is_http {
        true => (PORTS.1, HTTP_PATH),
        false => (PORTS.0, ""),
    };
    let given = |name: &str| env(name).filter(|text| !text.is_empty());
    let (key, text, below) = if let Some(endpoint) = raw.endpoint.clone().filter(|text| !text.is_empty()) {
        ("config.endpoint", endpoint, default_path)
    } else if let Some(endpoint) = given("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT") {
        // It is whole: nothing is put behind it.
        ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", endpoint, "")
    } else if let Some(endpoint) = given("OTEL_EXPORTER_OTLP_ENDPOINT") {
        ("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint, default_path)
    } else {
        ("config.endpoint", format!("{HOST}:{default_port}"), default_path)
    };
    let scheme = match raw.insecure {
        Some(true) => "http",
        _ => "https",
    };
    let whole = match text.contains("://") {
        true => text.clone(),
        false => format!("{scheme}://{text}"),
    };
    let wrong = |problem: String| {
        error(format!(
            "{key}: {problem}; expected host:port, e.g. otel-collector:{default_port}"
        ))
    };
    let mut url = Url::parse(&whole).map_err(|problem| wrong(format!("this is no address ({problem})")))?;
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none_or(str::is_empty) {
        return Err(wrong("this is no address of http or https".to_owned()));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(error(format!(
            "{key} must not hold credentials: put them into config.headers"
        )));
    }
    let before = url.path().trim_end_matches('/').to_owned();
    match (is_http, present(raw.url_path.clone())) {
        (true, Some(path)) => url.set_path(&format!("{before}/{}", path.trim_start_matches('/'))),
        (true, None) => url.set_path(&format!("{before}{below}")),
        (false, _) => url.set_path(""),
    }
    Ok(url)
}

impl Config {
    /// The address for the log: what follows a question mark may be secret.
    pub(super) fn shown_url(&self) -> String {
        let mut url = self.url.clone();
        url.set_query(None);
        url.set_fragment(None);
        let path = url.path().split("%3F").next().unwrap_or_default().to_owned();
        url.set_path(&path);
        url.to_string()
    }
}

fn headers(given: BTreeMap<String, Option<String>>) -> Result<HeaderMap, ConfigError> {
    let mut headers = HeaderMap::new();
    for (name, value) in texts(given) {
        let key = HeaderName::try_from(name.as_str())
            .map_err(|_| error(format!("config.headers: {name:?} is no name of a header")))?;
        let mut value = HeaderValue::try_from(value).map_err(|_| {
            error(format!(
                "config.headers: the value of {name} cannot be sent: only printable ASCII can"
            ))
        })?;
        value.set_sensitive(true);
        headers.insert(key, value);
    }
    Ok(headers)
}

/// Which spans are kept, and a warning if that is not what was asked for: as in Thanos, all are kept then, unless the caller
/// has decided otherwise.
fn sampler(kind: Option<&str>, parameter: Option<&str>) -> (Sampler, Option<String>) {
    let based = |sampler: Sampler| Sampler::ParentBased(Box::new(sampler));
    let all = based(Sampler::TraceIdRatioBased(1.0));
    let kind = kind.unwrap_or_default().to_ascii_lowercase();
    let ratio = || {
        let number = parameter.unwrap_or_default().trim().parse::<f64>().ok();
        match number.filter(|number| (0.0..=1.0).contains(number)) {
            Some(ratio) => (Sampler::TraceIdRatioBased(ratio), None),
            None => {
                let warning = "config.sampler_param must be a number from 0 to 1: every trace is kept";
                (Sampler::TraceIdRatioBased(1.0), Some(warning.to_owned()))
            }
        }
    };
    match kind.as_str() {
        "" => (all, None),
        "alwayssample" => (Sampler::AlwaysOn, None),
        "neversample" => (Sampler::AlwaysOff, None),
        "traceidratiobased" => ratio(),
        "parentbasedalwayssample" => (based(Sampler::AlwaysOn), None),
        "parentbasedneversample" => (based(Sampler::AlwaysOff), None),
        "parentbasedtraceidratiobased" => {
            let (sampler, warning) = ratio();
            (based(sampler), warning)
        }
        other => {
            let warning = format!(
                "config.sampler_type {other:?} is not known: every trace is kept that the caller keeps; one of alwayssample, \
                 neversample, traceidratiobased, parentbasedalwayssample, parentbasedneversample, \
                 parentbasedtraceidratiobased"
            );
            (all, Some(warning))
        }
    }
}

impl RawRetry {
    /// Thanos ignores the times unless `retry_enabled` is set.
    fn checked(self) -> Result<Retry, ConfigError> {
        let initial = time(
            "config.retry_config.retry_initial_interval",
            self.retry_initial_interval,
        )?;
        let longest = time("config.retry_config.retry_max_interval", self.retry_max_interval)?;
        let total = time(
            "config.retry_config.retry_max_elapsed_time",
            self.retry_max_elapsed_time,
        )?;
        Ok(match self.retry_enabled {
            Some(true) => Retry {
                initial,
                longest,
                total,
            },
            _ => Retry::default(),
        })
    }
}

impl RawTls {
    fn checked(self) -> Result<ClientFiles, ConfigError> {
        let (cert, key) = (present(self.cert_file), present(self.key_file));
        let identity = ClientFiles::pair("config.tls_config", cert, key).map_err(error)?;
        Ok(ClientFiles {
            ca_file: present(self.ca_file).map(Into::into),
            identity,
            server_name: present(self.server_name),
            insecure_skip_verify: self.insecure_skip_verify.unwrap_or_default(),
        })
    }
}

#[cfg(test)]
mod tests;
