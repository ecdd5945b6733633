//! Where the credentials come from.
//!
//! Static keys, the SDK's own chain, or the chain that Thanos walks: environment, shared credentials file, web
//! identity, container, instance metadata. The first source that is set up decides: if it fails, that is the error, and
//! no other identity is taken silently. (A credentials file in the home directory that cannot be looked at is not set up:
//! only one that is named by the environment is.) Where nothing is set up the error lists what was looked at; requests never go
//! out unsigned. Sources are asked at the first request, over a transport of their own: what `http_config` says about
//! the store (its authorities, its client certificate) is not about AWS' services. Files are read again each time.

mod cache;
mod metadata;

use std::{
    fmt, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use aws_config::{
    Region,
    default_provider::credentials::DefaultCredentialsChain,
    ecs::EcsCredentialsProvider,
    imds::{self, credentials::ImdsCredentialsProvider},
    profile::ProfileFileCredentialsProvider,
    provider_config::ProviderConfig,
};
use aws_credential_types::{
    Credentials,
    provider::{self, ProvideCredentials, SharedCredentialsProvider, error::CredentialsError, future},
};
use aws_smithy_runtime_api::box_error::BoxError;
use tokio::sync::OnceCell;

pub(super) use self::cache::Cache;
use self::metadata::Metadata;
use super::transport::{Proxies, Transport};
use crate::objstore::config::{self, HttpConfig, S3Config};

/// Reads an environment variable; empty counts as not set.
pub(super) type Env = Arc<dyn Fn(&str) -> Option<String> + Send + Sync>;

/// The environment of this process.
pub(super) fn real_env() -> Env {
    Arc::new(|name| std::env::var(name).ok().filter(|value| !value.is_empty()))
}

/// The provider that a configuration asks for. Asks nobody yet.
pub(super) fn provider(config: &S3Config, env: Env) -> SharedCredentialsProvider {
    match &config.credentials {
        config::Credentials::Static {
            access_key,
            secret_key,
            session_token,
        } => {
            let token = session_token.as_ref().map(|token| token.expose().to_owned());
            let keys = Credentials::new(access_key.expose(), secret_key.expose(), token, None, "configuration");
            SharedCredentialsProvider::new(Fixed(keys))
        }
        config::Credentials::Sdk => SharedCredentialsProvider::new(SdkChain {
            region: config.region.clone(),
            env,
            chain: OnceCell::new(),
        }),
        config::Credentials::Chain => SharedCredentialsProvider::new(Chain {
            base: config.sts_endpoint.clone(),
            env,
            sources: OnceCell::new(),
        }),
    }
}

fn transport() -> Transport {
    Transport::new(&HttpConfig::default(), false, Proxies::from_env())
}

/// The transport to what may be a metadata service.
fn metadata(transport: Transport, env: &Env) -> Metadata {
    let no_version_1 = env("AWS_EC2_METADATA_V1_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true"));
    Metadata::new(transport, !no_version_1)
}

/// Keys of the configuration. The SDK's own type shows the access key in `Debug`.
struct Fixed(Credentials);

impl fmt::Debug for Fixed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Fixed(<redacted>)")
    }
}

impl ProvideCredentials for Fixed {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        future::ProvideCredentials::ready(Ok(self.0.clone()))
    }
}

/// `aws_sdk_auth`: what the SDK does by itself. Built at first use, since finding the region may ask the network.
struct SdkChain {
    region: Option<String>,
    env: Env,
    chain: OnceCell<DefaultCredentialsChain>,
}

impl fmt::Debug for SdkChain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SdkChain")
    }
}

impl SdkChain {
    async fn build(&self) -> DefaultCredentialsChain {
        let named = self
            .region
            .clone()
            .or_else(|| (self.env)("AWS_REGION"))
            .or_else(|| (self.env)("AWS_DEFAULT_REGION"));
        let region = named.map(Region::new);
        let settings = ProviderConfig::without_region()
            .with_http_client(metadata(transport(), &self.env))
            .with_region(region.clone());
        let builder = DefaultCredentialsChain::builder().configure(settings);
        match region {
            Some(region) => builder.region(region).build().await,
            None => builder.build().await,
        }
    }

    async fn load(&self) -> provider::Result {
        let chain = self.chain.get_or_init(|| self.build()).await;
        chain.provide_credentials().await.map_err(|error| match error {
            CredentialsError::CredentialsNotLoaded(_) => CredentialsError::not_loaded(
                "aws_sdk_auth is set, but none of the SDK's sources (environment, profile, web identity, container, \
                 instance metadata) has any",
            ),
            other => other,
        })
    }
}

impl ProvideCredentials for SdkChain {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        future::ProvideCredentials::new(self.load())
    }
}

/// What Thanos looks through when the configuration names no keys.
struct Chain {
    /// `sts_endpoint`.
    base: Option<String>,
    env: Env,
    sources: OnceCell<Sources>,
}

/// What is kept between two calls: connections and the metadata service's token.
struct Sources {
    settings: ProviderConfig,
    container: EcsCredentialsProvider,
    instance: ImdsCredentialsProvider,
    transport: Transport,
}

impl fmt::Debug for Chain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Chain")
    }
}

impl Chain {
    fn sources(&self) -> Result<Sources, CredentialsError> {
        let transport = transport();
        let region = (self.env)("AWS_REGION").map(Region::new);
        let settings = ProviderConfig::without_region()
            .with_http_client(metadata(transport.clone(), &self.env))
            .with_region(region);
        let mut metadata = imds::Client::builder().configure(&settings);
        if let Some(base) = &self.base {
            metadata = metadata
                .endpoint(base)
                .map_err(CredentialsError::invalid_configuration)?;
        }
        Ok(Sources {
            container: EcsCredentialsProvider::builder().configure(&settings).build(),
            instance: ImdsCredentialsProvider::builder()
                .configure(&settings)
                .imds_client(metadata.build())
                .build(),
            settings,
            transport,
        })
    }

    async fn load(&self) -> provider::Result {
        let sources = self.sources.get_or_try_init(|| async { self.sources() }).await?;
        let mut tried = Vec::new();
        let mut settle = |name: &'static str, found: provider::Result| match found {
            Ok(found) => Some(Ok(found)),
            Err(error @ CredentialsError::CredentialsNotLoaded(_)) => {
                tried.push(format!("{name}: {}", reason(&error)));
                None
            }
            Err(error) => {
                let tried = std::mem::take(&mut tried);
                Some(Err(CredentialsError::provider_error(Failed {
                    name,
                    tried,
                    source: error,
                })))
            }
        };
        if let Some(settled) = settle("environment", self.environment()) {
            return settled;
        }
        if let Some(settled) = settle("credentials file", self.file(&sources.settings).await) {
            return settled;
        }
        if let Some(settled) = settle("web identity", self.web_identity(&sources.transport).await) {
            return settled;
        }
        if let Some(settled) = settle("container", sources.container.provide_credentials().await) {
            return settled;
        }
        if let Some(settled) = settle("instance metadata", sources.instance.provide_credentials().await) {
            return settled;
        }
        Err(CredentialsError::not_loaded(format!(
            "the configuration has neither access_key nor aws_sdk_auth, and nothing was found in {}",
            tried.join("; ")
        )))
    }

    fn environment(&self) -> provider::Result {
        let first = |names: [&str; 2]| names.iter().find_map(|name| (self.env)(name));
        let key = first(["AWS_ACCESS_KEY_ID", "AWS_ACCESS_KEY"]);
        let secret = first(["AWS_SECRET_ACCESS_KEY", "AWS_SECRET_KEY"]);
        match (key, secret) {
            (Some(key), Some(secret)) => Ok(Credentials::new(
                key,
                secret,
                (self.env)("AWS_SESSION_TOKEN"),
                None,
                "environment",
            )),
            (None, None) => Err(CredentialsError::not_loaded("AWS_ACCESS_KEY_ID is not set")),
            (Some(_), None) => Err(CredentialsError::invalid_configuration(
                "AWS_ACCESS_KEY_ID is set, but not AWS_SECRET_ACCESS_KEY",
            )),
            (None, Some(_)) => Err(CredentialsError::invalid_configuration(
                "AWS_SECRET_ACCESS_KEY is set, but not AWS_ACCESS_KEY_ID",
            )),
        }
    }

    /// Only the credentials file, not `~/.aws/config`: as in Thanos; `aws_sdk_auth` reads both.
    async fn file(&self, settings: &ProviderConfig) -> provider::Result {
        let named = (self.env)("AWS_SHARED_CREDENTIALS_FILE").map(PathBuf::from);
        let is_named = named.is_some();
        let path = named.or_else(|| (self.env)("HOME").map(|home| PathBuf::from(home).join(".aws/credentials")));
        let Some(path) = path else {
            return Err(CredentialsError::not_loaded(
                "neither AWS_SHARED_CREDENTIALS_FILE nor HOME is set",
            ));
        };
        if let Err(error) = readable(&path).await {
            let text = format!("{}: {error}", path.display());
            return Err(match error.kind() {
                io::ErrorKind::NotFound => CredentialsError::not_loaded(format!("{} does not exist", path.display())),
                _ if is_named => CredentialsError::provider_error(text),
                _ => {
                    // Nobody asked for this file; a home may be out of reach on purpose (systemd's ProtectHome).
                    tracing::debug!(file = %path.display(), %error, "no credentials are read from the home directory");
                    CredentialsError::not_loaded(text)
                }
            });
        }
        let profile = (self.env)("AWS_PROFILE").unwrap_or_else(|| "default".to_owned());
        #[allow(
            deprecated,
            reason = "the SDK's new home of these types is a crate of its own, with the same content"
        )]
        let files = aws_config::profile::profile_file::ProfileFiles::builder()
            .with_file(aws_config::profile::profile_file::ProfileFileKind::Credentials, &path)
            .build();
        ProfileFileCredentialsProvider::builder()
            .configure(settings)
            .profile_files(files)
            .profile_name(profile)
            .build()
            .provide_credentials()
            .await
    }

    async fn web_identity(&self, transport: &Transport) -> provider::Result {
        let Some(file) = (self.env)("AWS_WEB_IDENTITY_TOKEN_FILE") else {
            return Err(CredentialsError::not_loaded("AWS_WEB_IDENTITY_TOKEN_FILE is not set"));
        };
        let token = tokio::fs::read_to_string(&file)
            .await
            .map_err(|error| CredentialsError::provider_error(format!("{file}: {error}")))?;
        let region = (self.env)("AWS_REGION");
        let endpoint = self.base.clone().unwrap_or_else(|| sts_url(region.as_deref()));
        let sts = aws_sdk_sts::Config::builder()
            .behavior_version(aws_sdk_sts::config::BehaviorVersion::latest())
            .region(aws_sdk_sts::config::Region::new(
                region.unwrap_or_else(|| "us-east-1".to_owned()),
            ))
            .endpoint_url(&endpoint)
            .http_client(transport.clone())
            .build();
        let session = (self.env)("AWS_ROLE_SESSION_NAME").unwrap_or_else(session_name);
        let answer = aws_sdk_sts::Client::from_conf(sts)
            .assume_role_with_web_identity()
            .set_role_arn((self.env)("AWS_ROLE_ARN"))
            .role_session_name(session)
            .web_identity_token(token.trim())
            .send()
            .await
            .map_err(|error| {
                CredentialsError::provider_error(Sts {
                    endpoint,
                    source: error.into(),
                })
            })?;
        let Some(keys) = answer.credentials else {
            return Err(CredentialsError::provider_error(
                "the token service answered without credentials",
            ));
        };
        let end = SystemTime::try_from(keys.expiration).map_err(CredentialsError::provider_error)?;
        let token = Some(keys.session_token);
        Ok(Credentials::new(
            keys.access_key_id,
            keys.secret_access_key,
            token,
            Some(end),
            "web identity",
        ))
    }
}

impl ProvideCredentials for Chain {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        future::ProvideCredentials::new(self.load())
    }
}

/// Whether a file can be opened for reading.
async fn readable(path: &Path) -> io::Result<()> {
    let file = tokio::fs::File::open(path).await?;
    match file.metadata().await?.is_dir() {
        true => Err(io::ErrorKind::IsADirectory.into()),
        false => Ok(()),
    }
}

fn sts_url(region: Option<&str>) -> String {
    match region {
        Some(region) if region.starts_with("cn-") => format!("https://sts.{region}.amazonaws.com.cn"),
        Some(region) => format!("https://sts.{region}.amazonaws.com"),
        None => "https://sts.amazonaws.com".to_owned(),
    }
}

fn session_name() -> String {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    format!("narthex-{}", since.as_nanos())
}

/// The innermost reason, in one line.
fn reason(error: &CredentialsError) -> String {
    let mut deepest: &dyn std::error::Error = error;
    while let Some(source) = deepest.source() {
        deepest = source;
    }
    deepest.to_string()
}

/// A source that is set up, and failed.
#[derive(Debug)]
struct Failed {
    name: &'static str,
    tried: Vec<String>,
    source: CredentialsError,
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} failed", self.name)?;
        if !self.tried.is_empty() {
            write!(f, " (before it: {})", self.tried.join("; "))?;
        }
        Ok(())
    }
}

impl std::error::Error for Failed {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}

/// The token service refused, or could not be reached.
#[derive(Debug)]
struct Sts {
    endpoint: String,
    source: BoxError,
}

impl fmt::Display for Sts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no credentials from {}", self.endpoint)
    }
}

impl std::error::Error for Sts {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&*self.source)
    }
}

#[cfg(test)]
mod tests;
