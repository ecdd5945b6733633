//! `http_config`: the keys as they are written, and what is made of them.

use std::{num::NonZeroUsize, path::PathBuf, time::Duration};

use serde::Deserialize;

use super::{
    ClientCert, ConfigError, HttpConfig,
    field::{Text, given, missing, value, whole, wrong},
};
use crate::model::duration::parse_prometheus;

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct HttpYaml {
    idle_conn_timeout: Text,
    response_header_timeout: Text,
    insecure_skip_verify: Option<bool>,
    tls_handshake_timeout: Text,
    expect_continue_timeout: Text,
    max_idle_conns: Text,
    max_idle_conns_per_host: Text,
    max_conns_per_host: Text,
    tls_config: Option<TlsYaml>,
    disable_compression: Option<bool>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct TlsYaml {
    ca_file: Text,
    cert_file: Text,
    key_file: Text,
    server_name: Text,
    insecure_skip_verify: Option<bool>,
}

impl HttpYaml {
    pub(super) fn check(self, warnings: &mut Vec<String>) -> Result<HttpConfig, ConfigError> {
        let defaults = HttpConfig::default();
        let tls = self.tls_config.unwrap_or_default();
        let insecure_skip_verify = self.insecure_skip_verify.unwrap_or(false);
        if tls
            .insecure_skip_verify
            .is_some_and(|inner| inner != insecure_skip_verify)
        {
            let problem = "config.http_config.tls_config.insecure_skip_verify has no effect: \
                           config.http_config.insecure_skip_verify decides";
            warnings.push(problem.into());
        }
        if self.disable_compression == Some(true) {
            warnings.push("config.http_config.disable_compression has no effect: nothing is compressed".into());
        }
        let one_second = Duration::from_secs(1);
        if duration("expect_continue_timeout", self.expect_continue_timeout, one_second)? != one_second {
            let problem = "config.http_config.expect_continue_timeout has no effect: bodies are sent at once";
            warnings.push(problem.into());
        }
        let client_cert = match (value(tls.cert_file), value(tls.key_file)) {
            (None, None) => None,
            (Some(cert), Some(key)) => Some(ClientCert {
                cert_file: cert.into(),
                key_file: key.into(),
            }),
            _ => {
                return missing(
                    "http_config.tls_config",
                    "cert_file and key_file go together: set both or neither",
                );
            }
        };
        Ok(HttpConfig {
            idle_conn_timeout: duration("idle_conn_timeout", self.idle_conn_timeout, defaults.idle_conn_timeout)?,
            response_header_timeout: self
                .response_header_timeout
                .map(|text| duration("response_header_timeout", Some(text), Duration::ZERO))
                .transpose()?,
            tls_handshake_timeout: duration(
                "tls_handshake_timeout",
                self.tls_handshake_timeout,
                defaults.tls_handshake_timeout,
            )?,
            max_idle_per_host: idle(
                number("max_idle_conns", self.max_idle_conns)?,
                number("max_idle_conns_per_host", self.max_idle_conns_per_host)?,
                defaults.max_idle_per_host,
            ),
            max_conns_per_host: number("max_conns_per_host", self.max_conns_per_host)?
                .map(limit)
                .and_then(NonZeroUsize::new),
            insecure_skip_verify,
            ca_file: value(tls.ca_file).map(PathBuf::from),
            client_cert,
            server_name: server_name(tls.server_name)?,
        })
    }
}

fn number(key: &str, text: Text) -> Result<Option<i64>, ConfigError> {
    Ok(whole(&format!("http_config.{key}"), text)?.map(|(number, _)| number))
}

/// Negative stands for none.
fn limit(given: i64) -> usize {
    usize::try_from(given).unwrap_or(0)
}

/// How many idle connections one host may keep. One client speaks to one store, so that the limit in all and the one for
/// a host are about the same host. Zero in all means no limit; zero for a host means two, as in Go's transport.
fn idle(total: Option<i64>, per_host: Option<i64>, default: usize) -> usize {
    let total = match total {
        None => default,
        Some(0) => usize::MAX,
        Some(total) => limit(total),
    };
    let per_host = match per_host {
        None => default,
        Some(0) => 2,
        Some(per_host) => limit(per_host),
    };
    per_host.min(total)
}

fn server_name(text: Text) -> Result<Option<String>, ConfigError> {
    let Some((name, line)) = given(text) else {
        return Ok(None);
    };
    match rustls::pki_types::ServerName::try_from(name.as_str()) {
        Ok(_) => Ok(Some(name)),
        Err(_) => wrong(
            "http_config.tls_config.server_name",
            line,
            format!("{name:?} is not a host name"),
        ),
    }
}

fn duration(key: &str, text: Text, default: Duration) -> Result<Duration, ConfigError> {
    let Some(text) = text else { return Ok(default) };
    parse_prometheus(&text.value)
        .or_else(|error| wrong(&format!("http_config.{key}"), text.referenced.line(), error.to_string()))
}
