//! `type: S3`: the keys as they are written, and what is made of them.

use std::{collections::BTreeMap, path::PathBuf};

use serde::Deserialize;
use serde_saphyr::Spanned;
use url::Url;

use super::{
    ConfigError, Credentials, ListVersion, Lookup, S3Config, Secret, Sse, UserMetadata,
    field::{Text, attempts, given, missing, value, whole, wrong},
    http::HttpYaml,
};

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
    part_size: Text,
    sse_config: Option<SseYaml>,
    sts_endpoint: Text,
    max_retries: Text,
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
        let lookup = lookup(self.bucket_lookup_type)?;
        let insecure = self.insecure.unwrap_or(false);
        if lookup == Lookup::VirtualHosted && !insecure && bucket.contains('.') {
            let problem = "config.bucket_lookup_type has no effect: with TLS a bucket with a dot in its name is \
                           addressed in the path, since no wildcard certificate fits its host name";
            warnings.push(problem.into());
        }
        Ok(S3Config {
            bucket,
            endpoint,
            insecure,
            region: region(self.region)?,
            dualstack: !self.disable_dualstack.unwrap_or(false),
            lookup,
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
            attempts: attempts(self.max_retries, warnings)?,
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
    if host.contains(['/', '?', '#', '@', '\\']) || host.contains(char::is_whitespace) || host.ends_with(':') {
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

/// A region becomes part of signatures, and of host names.
fn region(text: Text) -> Result<Option<String>, ConfigError> {
    match given(text) {
        Some((text, line)) if !text.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'-') => wrong(
            "region",
            line,
            format!("{text:?} cannot be a region: letters, digits and hyphens only"),
        ),
        given => Ok(given.map(|(text, _)| text)),
    }
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

/// The part size when none is given (bytes). Thanos' is 64 MiB; smaller parts keep all request slots busy up to the end of a
/// file (measured: 0.7 x the time against SeaweedFS), and less is sent again when a request fails.
const OWN_PART: u64 = 16 * MIB;

fn part_size(text: Text) -> Result<u64, ConfigError> {
    let Some((number, line)) = whole("part_size", text)? else {
        return Ok(OWN_PART);
    };
    match u64::try_from(number) {
        Ok(0) => Ok(16 * MIB),
        Ok(size) if (5 * MIB..=5 * 1024 * MIB).contains(&size) => Ok(size),
        _ => {
            let problem = format!("{number} bytes: S3 takes parts from 5242880 (5 MiB) to 5368709120 (5 GiB)");
            wrong("part_size", line, problem)
        }
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
        if ::http::HeaderName::from_bytes(name.as_bytes()).is_err() {
            return wrong(&key, line, "is not a name that a header can have");
        }
        if ::http::HeaderValue::from_str(&value).is_err() {
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
