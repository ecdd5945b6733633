//! The bucket's configuration: Thanos' object storage YAML, checked.
//!
//! [`parse`] is the only door. It accepts what Thanos accepts for the types that are supported, and says of every
//! key that it cannot honour which one it is and why: a key that changes nothing becomes a warning, a key that would
//! silently change what happens to the data becomes an error. It touches neither disk nor network (only a relative
//! `directory` is made absolute from the working directory); files that it names are read when the bucket is opened.
//! Secrets never show in `Debug`, `Display` or error texts.

mod azure;
mod field;
mod gcs;
mod http;
mod s3;
mod yaml;

pub(super) use self::gcs::check_google_key;

use std::{collections::BTreeMap, fmt, num::NonZeroUsize, path::PathBuf, time::Duration};

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_saphyr::Spanned;

/// A checked object storage configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BucketConfig {
    /// Which store, and how to speak to it.
    pub provider: Provider,
    /// What every key starts with, without slashes at either end; empty for none.
    pub prefix: String,
    /// What the operator should know of keys that have no effect; to be logged once.
    pub warnings: Vec<String>,
}

/// The kinds of store that are supported.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Provider {
    /// `type: S3`.
    S3(Box<S3Config>),
    /// `type: GCS`.
    Gcs(Box<GcsConfig>),
    /// `type: AZURE`.
    Azure(Box<AzureConfig>),
    /// `type: FILESYSTEM`.
    Filesystem(FilesystemConfig),
}

/// `config` of `type: FILESYSTEM`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FilesystemConfig {
    /// The absolute path of the directory that is the bucket.
    pub directory: PathBuf,
}

/// `config` of `type: GCS`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GcsConfig {
    /// The bucket's name; not empty.
    pub bucket: String,
    /// The key of a service account, as JSON; `None`: a file that the environment names, or the metadata server.
    pub service_account: Option<Secret>,
    /// Connections.
    pub http: HttpConfig,
    /// Bytes: objects of unknown length are sent in chunks of this size, or of a default that is larger.
    pub chunk_size: u64,
    /// How often a request is tried in all, at least once.
    pub attempts: u32,
}

/// `config` of `type: AZURE`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AzureConfig {
    /// The storage account.
    pub account: String,
    /// The container; not empty.
    pub container: String,
    /// Make the container if there is none.
    pub create_container: bool,
    /// The account's address, without a slash at its end: `https://<account>.blob.core.windows.net`.
    pub base: String,
    /// Where credentials come from.
    pub credentials: AzureCredentials,
    /// Connections.
    pub http: HttpConfig,
    /// How often a request is tried in all, at least once.
    pub attempts: u32,
}

/// Where credentials for Azure come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AzureCredentials {
    /// The account's key.
    Key(Secret),
    /// A shared access signature, as a query.
    Sas(Secret),
    /// An application and its secret.
    Client {
        /// The tenant.
        tenant: String,
        /// The application.
        client: String,
        /// Its secret.
        secret: Secret,
    },
    /// A managed identity that is assigned by its client id.
    ManagedIdentity(String),
    /// Environment, workload identity, managed identity of this machine.
    Environment,
}

/// `config` of `type: S3`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct S3Config {
    /// The bucket's name; not empty.
    pub bucket: String,
    /// `host[:port]`, no scheme and no path.
    pub endpoint: String,
    /// Speak plain HTTP.
    pub insecure: bool,
    /// The region to sign for; `None`: the endpoint's name or the store tells.
    pub region: Option<String>,
    /// Use the dual-stack host names of AWS; without meaning for other stores.
    pub dualstack: bool,
    /// How the bucket gets into the URL.
    pub lookup: Lookup,
    /// Where credentials come from.
    pub credentials: Credentials,
    /// Base URL of the token service for web identities, and of the metadata services.
    pub sts_endpoint: Option<String>,
    /// Headers for every object.
    pub user_metadata: UserMetadata,
    /// Connections.
    pub http: HttpConfig,
    /// Log the heads of requests and answers at debug level.
    pub trace: bool,
    /// Which listing call to use.
    pub list_version: ListVersion,
    /// Send `Content-MD5` with every object and part. `None`: not said, what the store verifies anyway is enough.
    pub send_content_md5: Option<bool>,
    /// Send large objects in parts; `false`: always in one request.
    pub multipart: bool,
    /// Bytes: objects above it are sent in parts of this size; 5 MiB to 5 GiB.
    pub part_size: u64,
    /// Encryption by the store.
    pub sse: Sse,
    /// How often a request is tried in all, at least once.
    pub attempts: u32,
}

/// How the bucket's name gets into the URL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lookup {
    /// In the host name for AWS, Google and Aliyun (but not with TLS and a dot in the name), else in the path.
    Auto,
    /// `https://<bucket>.<endpoint>/<key>`
    VirtualHosted,
    /// `https://<endpoint>/<bucket>/<key>`
    Path,
}

/// Which listing call to use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListVersion {
    /// `ListObjects`.
    V1,
    /// `ListObjectsV2`.
    V2,
}

/// Where credentials come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Credentials {
    /// `access_key` and `secret_key`.
    Static {
        /// The access key id.
        access_key: Secret,
        /// The secret key.
        secret_key: Secret,
        /// The token of temporary credentials.
        session_token: Option<Secret>,
    },
    /// `aws_sdk_auth: true`: the SDK's default chain.
    Sdk,
    /// Neither: environment, credentials file, web identity, container, instance metadata.
    Chain,
}

/// `put_user_metadata`, sorted by what becomes of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UserMetadata {
    /// `x-amz-storage-class`.
    pub storage_class: Option<String>,
    /// User metadata: the names come without `x-amz-meta-`, in lower case.
    pub metadata: BTreeMap<String, String>,
    /// Headers to send as they are (`x-amz-acl`, `x-amz-grant-*`), names in lower case.
    pub headers: BTreeMap<String, String>,
}

/// Encryption by the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sse {
    /// As the bucket is set up.
    None,
    /// `SSE-S3`.
    S3,
    /// `SSE-KMS`.
    Kms {
        /// The key's id.
        key_id: String,
        /// Sent as base64 of its JSON form, also when empty.
        context: BTreeMap<String, String>,
    },
    /// `SSE-C`.
    Customer {
        /// A file of exactly 32 bytes.
        key_file: PathBuf,
    },
}

/// `http_config`. A limit of zero time means no limit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpConfig {
    /// How long an unused connection is kept.
    pub idle_conn_timeout: Duration,
    /// How long the answer's head may take once the request is sent in full. `None`: not said; then it is 2 m where nothing
    /// else watches over the request.
    pub response_header_timeout: Option<Duration>,
    /// How long the TLS handshake may take.
    pub tls_handshake_timeout: Duration,
    /// How many unused connections are kept for one host.
    pub max_idle_per_host: usize,
    /// How many requests run at once on one host; `None`: no limit.
    pub max_conns_per_host: Option<NonZeroUsize>,
    /// Take any certificate.
    pub insecure_skip_verify: bool,
    /// PEM file with the only authorities to trust; `None`: those of the system.
    pub ca_file: Option<PathBuf>,
    /// PEM files with our own certificate and its key.
    pub client_cert: Option<ClientCert>,
    /// The name to ask for and to expect in the certificate, in place of the host's.
    pub server_name: Option<String>,
}

/// Our own certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientCert {
    /// PEM file with the certificate, and what links it to its authority.
    pub cert_file: PathBuf,
    /// PEM file with its key.
    pub key_file: PathBuf,
}

impl Default for HttpConfig {
    fn default() -> Self {
        Self {
            idle_conn_timeout: Duration::from_secs(90),
            response_header_timeout: None,
            tls_handshake_timeout: Duration::from_secs(10),
            max_idle_per_host: 100,
            max_conns_per_host: None,
            insecure_skip_verify: false,
            ca_file: None,
            client_cert: None,
            server_name: None,
        }
    }
}

/// A text that must not be shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps a text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text itself, for where it is used.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<redacted>")
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<redacted>")
    }
}

/// What is wrong with the configuration, on which line and at which key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    line: Option<u64>,
    key: String,
    problem: String,
}

impl ConfigError {
    /// A problem with the value of `key` (dotted from the top, e.g. `config.sse_config.type`).
    pub fn new(key: impl Into<String>, problem: impl Into<String>) -> Self {
        Self {
            line: None,
            key: key.into(),
            problem: problem.into(),
        }
    }

    /// On which line of the YAML text it is.
    #[must_use]
    pub fn on_line(mut self, line: u64) -> Self {
        self.line = (line > 0).then_some(line);
        self
    }

    /// The key, dotted from the top; empty when the text as a whole is meant.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// The line, counted from 1, when it is known.
    pub fn line(&self) -> Option<u64> {
        self.line
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("object storage configuration")?;
        if let Some(line) = self.line {
            write!(f, ", line {line}")?;
        }
        if !self.key.is_empty() {
            write!(f, ", {}", self.key)?;
        }
        write!(f, ": {}", self.problem)
    }
}

impl std::error::Error for ConfigError {}

/// The outer mapping; `C` is the provider's own part.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Envelope<C> {
    #[serde(rename = "type")]
    kind: Option<Spanned<String>>,
    config: Option<C>,
    prefix: Option<String>,
}

#[derive(Deserialize)]
struct FilesystemYaml {
    directory: Option<Spanned<String>>,
}

/// The types that Thanos knows and this program does not, and the endpoint by which each speaks S3.
const ELSEWHERE: [(&str, &str); 6] = [
    ("SWIFT", "<host of the Swift proxy with its s3api>"),
    ("COS", "cos.<region>.myqcloud.com"),
    ("ALIYUNOSS", "oss-<region>.aliyuncs.com"),
    ("BOS", "s3.<region>.bcebos.com"),
    ("OCI", "<namespace>.compat.objectstorage.<region>.oraclecloud.com"),
    ("OBS", "obs.<region>.myhuaweicloud.com"),
];

const SUPPORTED: &str = "supported are S3, GCS, AZURE and FILESYSTEM";

/// Reads a configuration from YAML whose `$(NAME)` are expanded already. Of several documents the first one counts.
pub fn parse(text: &str) -> Result<BucketConfig, ConfigError> {
    let outer: Envelope<IgnoredAny> = yaml::first_document(text)?;
    let Some(kind) = outer.kind.filter(|kind| !kind.value.is_empty()) else {
        return Err(ConfigError::new("type", format!("is missing; {SUPPORTED}")));
    };
    let mut warnings = Vec::new();
    let provider = match kind.value.to_uppercase().as_str() {
        "S3" => {
            let raw = yaml::first_document::<Envelope<s3::S3Yaml>>(text)?
                .config
                .unwrap_or_default();
            Provider::S3(Box::new(raw.check(&mut warnings)?))
        }
        "GCS" => {
            let raw = yaml::first_document::<Envelope<gcs::GcsYaml>>(text)?
                .config
                .unwrap_or_default();
            Provider::Gcs(Box::new(raw.check(&mut warnings)?))
        }
        "AZURE" => {
            let raw = yaml::first_document::<Envelope<azure::AzureYaml>>(text)?
                .config
                .unwrap_or_default();
            Provider::Azure(Box::new(raw.check(&mut warnings)?))
        }
        "FILESYSTEM" => Provider::Filesystem(filesystem(yaml::first_document(text)?)?),
        other => {
            let elsewhere = ELSEWHERE.iter().find(|(name, _)| *name == other);
            let problem = match elsewhere {
                Some((name, endpoint)) => format!(
                    "type {name} is not supported as such, but its store speaks S3: write type: S3, config: {{bucket: \"…\", \
                     endpoint: \"{endpoint}\", access_key: \"…\", secret_key: \"…\"}}"
                ),
                None => format!("type {:?} is unknown; {SUPPORTED}", kind.value),
            };
            return Err(ConfigError::new("type", problem).on_line(kind.referenced.line()));
        }
    };
    let prefix = outer.prefix.unwrap_or_default().trim_matches('/').to_owned();
    Ok(BucketConfig {
        provider,
        prefix,
        warnings,
    })
}

fn filesystem(raw: Envelope<FilesystemYaml>) -> Result<FilesystemConfig, ConfigError> {
    let key = "config.directory";
    let Some(directory) = raw.config.and_then(|c| c.directory).filter(|d| !d.value.is_empty()) else {
        return Err(ConfigError::new(
            key,
            "is missing: the directory that is to be the bucket",
        ));
    };
    let absolute = std::path::absolute(&directory.value).map_err(|error| {
        let problem = format!("cannot make {:?} absolute: {error}", directory.value);
        ConfigError::new(key, problem).on_line(directory.referenced.line())
    })?;
    Ok(FilesystemConfig { directory: absolute })
}

#[cfg(test)]
mod tests;
