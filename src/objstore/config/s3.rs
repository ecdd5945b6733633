//! `type: S3`: the keys as they are written, and what is made of them.

use std::{collections::BTreeMap, num::NonZeroUsize, path::PathBuf, time::Duration};

use serde::Deserialize;
use serde_saphyr::Spanned;
use url::Url;

use super::{
    ClientCert, ConfigError, Credentials, HttpConfig, ListVersion, Lookup, S3Config, Secret, Sse, UserMetadata,
};
use crate::model::duration::parse_prometheus;

/// A text that can be absent or null, with its place.
type Text = Option<Spanned<String>>;

const MIB: u64 = 1 << 20;

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct S3Yaml {
    bucket: Text,
    endpoint: Text,
    region: Text,
    disable_dualstack: Option<bool>,
    aws_sdk_auth: Option<Spanned<bool>>,
    access_key: Text,
    insecure: Option<bool>,
    signature_version2: Option<bool>,
    secret_key: Text,
    session_token: Text,
    put_user_metadata: Option<BTreeMap<String, Text>>,
    http_config: Option<HttpYaml>,
    trace: Option<TraceYaml>,
    list_objects_version: Text,
    bucket_lookup_type: Text,
    send_content_md5: Option<bool>,
    disable_multipart: Option<bool>,
    part_size: Option<Spanned<u64>>,
    sse_config: Option<SseYaml>,
    sts_endpoint: Text,
    max_retries: Option<Spanned<i64>>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct TraceYaml {
    enable: Option<bool>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct SseYaml {
    #[serde(rename = "type")]
    kind: Text,
    kms_key_id: Text,
    kms_encryption_context: Option<BTreeMap<String, Option<String>>>,
    encryption_key: Text,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct HttpYaml {
    idle_conn_timeout: Text,
    response_header_timeout: Text,
    insecure_skip_verify: Option<bool>,
    tls_handshake_timeout: Text,
    expect_continue_timeout: Text,
    max_idle_conns: Option<i64>,
    max_idle_conns_per_host: Option<i64>,
    max_conns_per_host: Option<i64>,
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

/// The value and its line, when it is there and not empty.
fn given(text: Text) -> Option<(String, u64)> {
    text.map(|text| (text.value, text.referenced.line()))
        .filter(|(value, _)| !value.is_empty())
}

fn value(text: Text) -> Option<String> {
    given(text).map(|(value, _)| value)
}

fn wrong<T>(key: &str, line: u64, problem: impl Into<String>) -> Result<T, ConfigError> {
    Err(ConfigError::new(format!("config.{key}"), problem).on_line(line))
}

fn missing<T>(key: &str, problem: &str) -> Result<T, ConfigError> {
    wrong(key, 0, problem)
}

impl S3Yaml {
    pub(super) fn check(self, warnings: &mut Vec<String>) -> Result<S3Config, ConfigError> {
        let Some(bucket) = value(self.bucket) else {
            return missing("bucket", "is missing: the name of the bucket");
        };
        let endpoint = endpoint(self.endpoint)?;
        if self.signature_version2 == Some(true) {
            warnings.push("config.signature_version2 has no effect: requests are signed with version 4".into());
        }
        let credentials = credentials(
            self.aws_sdk_auth,
            [
                given(self.access_key),
                given(self.secret_key),
                given(self.session_token),
            ],
            warnings,
        )?;
        let sts_endpoint = sts_endpoint(self.sts_endpoint, &credentials, warnings)?;
        Ok(S3Config {
            bucket,
            endpoint,
            insecure: self.insecure.unwrap_or(false),
            region: value(self.region),
            dualstack: !self.disable_dualstack.unwrap_or(false),
            lookup: lookup(self.bucket_lookup_type)?,
            credentials,
            sts_endpoint,
            user_metadata: user_metadata(self.put_user_metadata.unwrap_or_default(), warnings)?,
            http: self.http_config.unwrap_or_default().check(warnings)?,
            trace: self.trace.and_then(|trace| trace.enable).unwrap_or(false),
            list_version: list_version(self.list_objects_version)?,
            send_content_md5: self.send_content_md5,
            multipart: !self.disable_multipart.unwrap_or(false),
            part_size: part_size(self.part_size)?,
            sse: self.sse_config.unwrap_or_default().check(warnings)?,
            attempts: attempts(self.max_retries, warnings),
        })
    }
}

fn endpoint(text: Text) -> Result<String, ConfigError> {
    let key = "endpoint";
    let Some((endpoint, line)) = given(text) else {
        return missing(key, "is missing: the store's host, or host:port");
    };
    if endpoint.contains("://") {
        let problem = "must be host or host:port without a scheme; for plain HTTP set `insecure: true`";
        return wrong(key, line, problem);
    }
    let host = endpoint.strip_suffix('/').unwrap_or(&endpoint);
    if host.contains(['/', '?', '#', '@', '\\']) || host.contains(char::is_whitespace) {
        return wrong(
            key,
            line,
            "must be host or host:port, nothing else: no path, no user, no spaces",
        );
    }
    let url = match Url::parse(&format!("https://{host}")) {
        Ok(url) => url,
        Err(error) => return wrong(key, line, format!("{host:?} is not host or host:port: {error}")),
    };
    let name = url.host_str().unwrap_or_default();
    let doubled = [
        (".s3.amazonaws.com", "s3.amazonaws.com"),
        (".storage.googleapis.com", "storage.googleapis.com"),
    ];
    for (suffix, wanted) in doubled {
        if name.ends_with(suffix) {
            let problem = format!("must be {wanted} (or a regional name): the bucket's name goes into `bucket`");
            return wrong(key, line, problem);
        }
    }
    Ok(host.to_owned())
}

fn credentials(
    sdk: Option<Spanned<bool>>,
    [access, secret, token]: [Option<(String, u64)>; 3],
    warnings: &mut Vec<String>,
) -> Result<Credentials, ConfigError> {
    let sdk = sdk.filter(|sdk| sdk.value);
    let no_effect = "config.session_token has no effect without access_key and secret_key";
    match (access, secret) {
        (Some((_, line)), Some(_)) if sdk.is_some() => {
            wrong("access_key", line, "excludes `aws_sdk_auth: true`: set one of the two")
        }
        (Some((access_key, _)), Some((secret_key, _))) => Ok(Credentials::Static {
            access_key: Secret::new(access_key),
            secret_key: Secret::new(secret_key),
            session_token: token.map(|(token, _)| Secret::new(token)),
        }),
        (Some((_, line)), None) => wrong("access_key", line, "is set but secret_key is not: set both or neither"),
        (None, Some((_, line))) => wrong("secret_key", line, "is set but access_key is not: set both or neither"),
        (None, None) => {
            warnings.extend(token.map(|_| no_effect.to_owned()));
            Ok(if sdk.is_some() {
                Credentials::Sdk
            } else {
                Credentials::Chain
            })
        }
    }
}

fn sts_endpoint(
    text: Text,
    credentials: &Credentials,
    warnings: &mut Vec<String>,
) -> Result<Option<String>, ConfigError> {
    let Some((text, line)) = given(text) else {
        return Ok(None);
    };
    match Url::parse(&text) {
        Ok(url) if matches!(url.scheme(), "http" | "https") && url.has_host() => {}
        _ => {
            return wrong(
                "sts_endpoint",
                line,
                "must be a URL, e.g. https://sts.eu-west-1.amazonaws.com",
            );
        }
    }
    if *credentials != Credentials::Chain {
        let problem = "config.sts_endpoint has no effect with access_key or aws_sdk_auth";
        warnings.push(problem.into());
    }
    Ok(Some(text.trim_end_matches('/').to_owned()))
}

fn lookup(text: Text) -> Result<Lookup, ConfigError> {
    match given(text) {
        None => Ok(Lookup::Auto),
        Some((text, line)) => match text.as_str() {
            "auto" => Ok(Lookup::Auto),
            "virtual-hosted" => Ok(Lookup::VirtualHosted),
            "path" => Ok(Lookup::Path),
            other => wrong(
                "bucket_lookup_type",
                line,
                format!("{other:?} is none of auto, virtual-hosted, path"),
            ),
        },
    }
}

fn list_version(text: Text) -> Result<ListVersion, ConfigError> {
    match given(text) {
        None => Ok(ListVersion::V2),
        Some((text, line)) => match text.as_str() {
            "v1" => Ok(ListVersion::V1),
            "v2" => Ok(ListVersion::V2),
            other => wrong("list_objects_version", line, format!("{other:?} is none of v1, v2")),
        },
    }
}

fn part_size(size: Option<Spanned<u64>>) -> Result<u64, ConfigError> {
    match size {
        None => Ok(64 * MIB),
        Some(size) if size.value == 0 => Ok(16 * MIB),
        Some(size) if (5 * MIB..=5 * 1024 * MIB).contains(&size.value) => Ok(size.value),
        Some(size) => {
            let problem = format!(
                "{} bytes: S3 takes parts from 5242880 (5 MiB) to 5368709120 (5 GiB)",
                size.value
            );
            wrong("part_size", size.referenced.line(), problem)
        }
    }
}

fn attempts(retries: Option<Spanned<i64>>, warnings: &mut Vec<String>) -> u32 {
    let retries = retries.map_or(0, |retries| retries.value);
    if retries < 0 {
        warnings.push("config.max_retries is negative and counts as 0, that is 10 attempts".into());
    }
    match u32::try_from(retries) {
        Ok(0) => 10,
        Ok(attempts) => attempts,
        Err(_) if retries < 0 => 10,
        Err(_) => u32::MAX,
    }
}

/// Headers that describe one object's content or the store's rules; they cannot be the same for all, or have a key.
const NOT_METADATA: [&str; 11] = [
    "cache-control",
    "content-disposition",
    "content-encoding",
    "content-language",
    "content-type",
    "expires",
    "x-amz-metadata-directive",
    "x-amz-object-lock-mode",
    "x-amz-object-lock-retain-until-date",
    "x-amz-replication-status",
    "x-amz-website-redirect-location",
];

fn user_metadata(given: BTreeMap<String, Text>, warnings: &mut Vec<String>) -> Result<UserMetadata, ConfigError> {
    let mut sorted = UserMetadata::default();
    for (name, text) in given {
        let (value, line) = text.map_or((String::new(), 0), |text| (text.value, text.referenced.line()));
        let key = format!("put_user_metadata.{name}");
        let lower = name.to_ascii_lowercase();
        if http::HeaderName::from_bytes(name.as_bytes()).is_err() {
            return wrong(&key, line, "is not a name that a header can have");
        }
        if http::HeaderValue::from_str(&value).is_err() {
            return wrong(&key, line, "its value cannot be sent in a header");
        }
        if NOT_METADATA.contains(&lower.as_str()) || lower.starts_with("x-minio-") {
            return wrong(
                &key,
                line,
                "is a header with a meaning of its own, it cannot be user metadata",
            );
        }
        if lower.starts_with("x-amz-server-side-encryption") {
            return wrong(&key, line, "cannot be set here: use sse_config");
        }
        if lower == "x-amz-checksum-algorithm" || lower == "x-amz-sdk-checksum-algorithm" {
            warnings.push(format!(
                "config.{key} has no effect: every object is sent with a CRC32C checksum"
            ));
        } else if lower.starts_with("x-amz-checksum-") {
            return wrong(
                &key,
                line,
                "cannot be the same for every object; checksums are computed and sent anyway",
            );
        } else if lower == "x-amz-storage-class" {
            sorted.storage_class = Some(value).filter(|class| !class.is_empty());
        } else if lower == "x-amz-acl" || lower.starts_with("x-amz-grant-") {
            sorted.headers.insert(lower, value);
        } else {
            let name = lower.strip_prefix("x-amz-meta-").unwrap_or(&lower);
            sorted.metadata.insert(name.to_owned(), value);
        }
    }
    Ok(sorted)
}

impl SseYaml {
    fn check(self, warnings: &mut Vec<String>) -> Result<Sse, ConfigError> {
        let kind = given(self.kind);
        let (key_id, key_file) = (value(self.kms_key_id), value(self.encryption_key));
        let context = self.kms_encryption_context.unwrap_or_default();
        let kms = kind.as_ref().is_some_and(|(kind, _)| kind == "SSE-KMS");
        let customer = kind.as_ref().is_some_and(|(kind, _)| kind == "SSE-C");
        let idle = [
            ("kms_key_id", "SSE-KMS", key_id.is_some() && !kms),
            ("kms_encryption_context", "SSE-KMS", !context.is_empty() && !kms),
            ("encryption_key", "SSE-C", key_file.is_some() && !customer),
        ];
        for (key, only, _) in idle.iter().filter(|(.., idle)| *idle) {
            warnings.push(format!(
                "config.sse_config.{key} has no effect: it belongs to type {only}"
            ));
        }
        let Some((kind, line)) = kind else { return Ok(Sse::None) };
        match kind.as_str() {
            "SSE-S3" => Ok(Sse::S3),
            "SSE-KMS" => match key_id {
                Some(key_id) => Ok(Sse::Kms {
                    key_id,
                    context: context
                        .into_iter()
                        .map(|(name, text)| (name, text.unwrap_or_default()))
                        .collect(),
                }),
                None => missing("sse_config.kms_key_id", "is missing: type SSE-KMS needs the key's id"),
            },
            "SSE-C" => match key_file {
                Some(path) => Ok(Sse::Customer {
                    key_file: PathBuf::from(path),
                }),
                None => missing(
                    "sse_config.encryption_key",
                    "is missing: type SSE-C needs the path of a key file",
                ),
            },
            other => wrong(
                "sse_config.type",
                line,
                format!("{other:?} is none of SSE-S3, SSE-KMS, SSE-C (in capitals)"),
            ),
        }
    }
}

impl HttpYaml {
    fn check(self, warnings: &mut Vec<String>) -> Result<HttpConfig, ConfigError> {
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
        let limit = |given: Option<i64>| given.map(|n| usize::try_from(n).unwrap_or(0));
        // Zero idle connections in all means no limit; zero for one host means what Go's transport takes, two.
        let total = if self.max_idle_conns == Some(0) {
            usize::MAX
        } else {
            limit(self.max_idle_conns).unwrap_or(100)
        };
        let per_host = match self.max_idle_conns_per_host {
            None => defaults.max_idle_per_host,
            Some(0) => 2,
            given => limit(given).unwrap_or(0),
        };
        Ok(HttpConfig {
            idle_conn_timeout: duration("idle_conn_timeout", self.idle_conn_timeout, defaults.idle_conn_timeout)?,
            response_header_timeout: duration(
                "response_header_timeout",
                self.response_header_timeout,
                defaults.response_header_timeout,
            )?,
            tls_handshake_timeout: duration(
                "tls_handshake_timeout",
                self.tls_handshake_timeout,
                defaults.tls_handshake_timeout,
            )?,
            // One client speaks to one store, so that the limit in all and the one for a host are about the same host.
            max_idle_per_host: per_host.min(total),
            max_conns_per_host: limit(self.max_conns_per_host).and_then(NonZeroUsize::new),
            insecure_skip_verify,
            ca_file: value(tls.ca_file).map(PathBuf::from),
            client_cert,
            server_name: server_name(tls.server_name)?,
        })
    }
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
