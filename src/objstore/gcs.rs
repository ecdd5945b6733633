//! A bucket in Google Cloud Storage, by its JSON API.
//!
//! Guarantees, as for S3: an object appears whole or not at all; its CRC32C travels with it, so that the store refuses what was
//! damaged, and what the store says it holds is compared with ours. An object travels in one resumable session (`upload`): what
//! breaks off goes on from the byte that the store has. Sessions that are given up are ended in the background; what a killed
//! process leaves of one is no object, is not listed, and is gone after a week.
//!
//! Credentials come from the crate `object_store`. Its own uploads are not used: they send an object of unknown length as parts
//! without a checksum, keep whole parts in memory for each, and have one time limit for a request however long its body is.

mod errors;
mod list;
mod upload;

use std::{fmt, path::Path, sync::Arc};

use async_trait::async_trait;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri, header::AUTHORIZATION};
use object_store::gcp::{GcpCredential, GoogleCloudStorageBuilder};
use serde::Deserialize;
use tokio::runtime::Handle;
use url::Url;

use super::{
    Bucket, CanaryKey, Comparison, Error, ErrorKind, Limits, NameFilter, Object, Op, Pieces, Placed, Proof, Reading,
    Source,
    config::{ConfigError, GcsConfig, check_google_key},
    rest::{
        ANSWER_LIMIT, Dialect, Failed, Place, Refusal, Rest, address, encoded,
        tokens::{Credentials, Env, Tokens, Variables, retries, unusable},
    },
    transfer::{
        body::{Checksum, Hasher, Slice},
        compare::other_length,
        content::Content,
        transport::{Proxies, Transport},
    },
};

/// Where the API is.
const ENDPOINT: &str = "https://storage.googleapis.com";

/// Who says what is wrong with credentials, as in object_store.
const STORE: &str = "GCS";

/// What the Go client looks at, so that tests speak to an emulator: `host:port`; nothing is asked for credentials then.
const EMULATOR: &str = "STORAGE_EMULATOR_HOST";

/// A bucket in Google Cloud Storage.
#[derive(Debug)]
pub(super) struct GcsBucket(Arc<Store>);

/// What all requests share.
#[derive(Debug)]
struct Store {
    rest: Arc<Rest<Google>>,
    chunk_size: u64,
    runtime: Handle,
}

/// Addresses, credentials and words of Google.
struct Google {
    /// Without a slash at its end.
    base: String,
    bucket: String,
    /// `None` for an emulator.
    credentials: Option<Credentials<GcpCredential>>,
}

impl fmt::Debug for Google {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Google").field(&self.base).finish()
    }
}

impl Google {
    /// Whether an address is one of this store.
    fn is_at(&self, uri: &Uri) -> bool {
        let rest = uri.to_string();
        rest.strip_prefix(&self.base).is_some_and(|rest| rest.starts_with('/'))
    }

    /// Where an upload goes to, which the store may say as it likes, but not without TLS if it has that itself.
    fn session(&self, location: &str) -> Result<Uri, String> {
        let base = Url::parse(&self.base).map_err(|error| error.to_string())?;
        // What it says is as good as a password.
        let unusable = || "the store sends the upload to an address that cannot be asked".to_owned();
        let url = base.join(location).map_err(|_| unusable())?;
        match url.scheme() {
            "https" => {}
            "http" if base.scheme() == "http" => {}
            scheme => {
                let host = url.host_str().unwrap_or_default();
                return Err(format!("the store sends the upload to {scheme}://{host}, not over TLS"));
            }
        }
        url.as_str().parse().map_err(|_| unusable())
    }

    /// The address of an object's description.
    fn description(&self, key: &str) -> String {
        format!(
            "{}/storage/v1/b/{}/o/{}",
            self.base,
            encoded(&self.bucket),
            encoded(key)
        )
    }
}

#[async_trait]
impl Dialect for Google {
    async fn authorize(&self, head: &mut Request<()>) -> Result<(), Failed> {
        let Some(credentials) = &self.credentials else {
            return Ok(());
        };
        // The address of an upload is the store's own choice, and needs none.
        if !self.is_at(head.uri()) {
            return Ok(());
        }
        let credential = credentials.get().await?;
        // A key can say that there is no authorization, as for emulators.
        if credential.bearer.is_empty() {
            return Ok(());
        }
        let value = HeaderValue::try_from(format!("Bearer {}", credential.bearer));
        let mut value = value.map_err(|_| Failed::new(ErrorKind::Credentials, "the token cannot be sent as it is"))?;
        value.set_sensitive(true);
        head.headers_mut().insert(AUTHORIZATION, value);
        Ok(())
    }

    fn forget_credentials(&self) -> bool {
        self.credentials.as_ref().is_some_and(Credentials::forget)
    }

    fn explain(&self, op: Op, answer: &Refusal) -> (ErrorKind, String) {
        errors::explain(op, answer)
    }

    fn object(&self, key: &str, tag: Option<&str>) -> Result<(Uri, Vec<(HeaderName, String)>), String> {
        let same = tag.map(|generation| format!("&ifGenerationMatch={}", encoded(generation)));
        let text = format!("{}?alt=media{}", self.description(key), same.unwrap_or_default());
        Ok((address(&text)?, Vec::new()))
    }

    fn tag(&self, headers: &HeaderMap) -> Option<String> {
        let generation = headers.get("x-goog-generation")?.to_str().ok()?;
        Some(generation.to_owned())
    }
}

/// What the store says of an object.
#[derive(Debug, Deserialize)]
struct Described {
    #[serde(default)]
    name: String,
    /// A number in a text.
    #[serde(default)]
    size: Option<String>,
    /// In base64, big-endian.
    #[serde(default, rename = "crc32c")]
    checksum: Option<String>,
}

impl Described {
    fn size(&self) -> Option<u64> {
        self.size.as_ref()?.parse().ok()
    }
}

impl GcsBucket {
    /// Opens the bucket of a configuration. The store is not spoken to. Must be called within a runtime.
    pub(super) async fn open(config: &GcsConfig, prefix: &str, limits: &Limits) -> Result<Self, ConfigError> {
        Self::open_in(config, prefix, limits, Arc::new(|name| std::env::var(name).ok())).await
    }

    async fn open_in(config: &GcsConfig, prefix: &str, limits: &Limits, env: Env) -> Result<Self, ConfigError> {
        let transport = Transport::new(&config.http, false, Proxies::from_env());
        let emulator = env(EMULATOR).filter(|host| !host.is_empty());
        let base = match (&emulator, config.base_url()) {
            (Some(host), _) if host.contains("://") => host.trim_end_matches('/').to_owned(),
            (Some(host), _) => format!("http://{host}"),
            (None, Some(base)) => base.as_str().trim_end_matches('/').to_owned(),
            (None, None) => ENDPOINT.to_owned(),
        };
        let secure = base.starts_with("https:");
        if secure {
            transport.check_tls().await?;
        }
        let tokens = Tokens::new(&transport, &config.http);
        let credentials = emulator.is_none().then(|| credentials(config, tokens, env));
        let google = Google {
            base,
            bucket: config.bucket.clone(),
            credentials,
        };
        let place = Place {
            name: config.bucket.clone(),
            identity: format!("gs://{}", config.bucket),
            prefix,
            secure,
            http: &config.http,
            transport,
            attempts: config.attempts,
        };
        Ok(Self(Arc::new(Store {
            rest: Arc::new(Rest::new(google, place, limits)),
            chunk_size: config.chunk_size,
            runtime: Handle::current(),
        })))
    }
}

/// Those of the configuration, else those that Google's libraries look for.
fn credentials(config: &GcsConfig, tokens: Tokens, env: Env) -> Credentials<GcpCredential> {
    let (bucket, inline) = (config.bucket.clone(), config.service_account.clone());
    Credentials::new(tokens, true, move |tokens| {
        let builder = GoogleCloudStorageBuilder::new()
            .with_bucket_name(&bucket)
            .with_http_connector(tokens)
            .with_retry(retries());
        let given = |name: &str| env(name).filter(|text| !text.is_empty());
        let builder = match (&inline, given("GOOGLE_APPLICATION_CREDENTIALS")) {
            (Some(account), _) => builder.with_service_account_key(account.expose()),
            (None, Some(file)) => {
                check_file(&file, "GOOGLE_APPLICATION_CREDENTIALS")?;
                builder.with_application_credentials(file)
            }
            (None, None) => {
                let file =
                    given("HOME").map(|home| format!("{home}/.config/gcloud/application_default_credentials.json"));
                match file.filter(|file| Path::new(file).is_file()) {
                    Some(file) => check_file(&file, "of gcloud")?,
                    None => check_metadata_host(&*env)?,
                }
                builder
            }
        };
        Ok(Arc::clone(builder.build()?.credentials()))
    })
}

fn check_file(file: &str, from: &str) -> object_store::Result<()> {
    let text = fs_err::read_to_string(file).map_err(|error| unusable(STORE, format!("{error} ({from})")))?;
    let checked = check_google_key(&text).map(drop);
    checked.map_err(|problem| unusable(STORE, format!("{file} ({from}) {problem}")))
}

/// The library takes them as they are.
fn check_metadata_host(env: &Variables) -> object_store::Result<()> {
    for name in ["GCE_METADATA_HOST", "GCE_METADATA_ROOT", "GCE_METADATA_IP"] {
        let host = env(name);
        if host.is_some_and(|host| Uri::try_from(format!("http://{host}/")).is_err()) {
            return Err(unusable(STORE, format!("{name} is set, and names no host")));
        }
    }
    Ok(())
}

impl Store {
    /// What the store says of an object, if there is one.
    async fn describe(&self, key: &str) -> Result<Option<Described>, Error> {
        let rest = &self.rest;
        let text = format!("{}?fields=name,size,crc32c", rest.dialect.description(&rest.full(key)));
        let call = rest.prepare(Op::Get, key, Method::GET, address(&text))?;
        match rest.call_whole(key, &call, ANSWER_LIMIT).await {
            Ok((_, body)) => self.described(Op::Get, key, &body).map(Some),
            Err(error) if error.kind == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn described(&self, op: Op, key: &str, body: &[u8]) -> Result<Described, Error> {
        serde_json::from_slice(body).map_err(|error| {
            let detail = format!("the answer is not that of Google Cloud Storage: {error}");
            self.rest.error(op, key, ErrorKind::Network, detail)
        })
    }

    async fn size(&self, key: &str) -> Result<Option<u64>, Error> {
        let Some(described) = self.describe(key).await? else {
            return Ok(None);
        };
        self.rest.told_size(key, described.size()).map(Some)
    }

    async fn compare_with(&self, key: &str, source: &Source) -> Result<Comparison, Error> {
        let local = |reason| self.rest.error(Op::Get, key, ErrorKind::Local, reason);
        source.unchanged().map_err(local)?;
        let Some(described) = self.describe(key).await? else {
            return Ok(Comparison::Absent);
        };
        if let Some(size) = described.size().filter(|size| *size != source.len) {
            return Ok(other_length(size, source));
        }
        let Some(theirs) = described.checksum else {
            return self.rest.read_back(key, source).await;
        };
        let ours = self.rest.summed(Op::Get, key, source, Hasher::crc32c()).await?;
        Ok(match text(&ours.finish()) {
            ours if ours == theirs => Comparison::Same(Proof::Checksum),
            ours => Comparison::Different(format!(
                "the store holds bytes with CRC32C {theirs}, the file's is {ours}"
            )),
        })
    }
}

/// A CRC32C as Google writes it.
fn text(checksum: &Checksum) -> String {
    checksum.crc32c().unwrap_or_default()
}

#[async_trait]
impl Bucket for GcsBucket {
    fn name(&self) -> &str {
        &self.0.rest.name
    }

    fn identity(&self) -> &str {
        &self.0.rest.identity
    }

    async fn put_file(&self, key: &str, source: &Source) -> Result<(), Error> {
        let content = Content::File(Slice::whole(source));
        self.0.put_content(key, content, source.len, false).await.map(drop)
    }

    async fn put_bytes(&self, key: &str, body: Bytes) -> Result<(), Error> {
        let len = body.len() as u64;
        self.0
            .put_content(key, Content::Memory(body.into()), len, false)
            .await
            .map(drop)
    }

    async fn put_new(&self, key: &str, body: Bytes) -> Result<Placed, Error> {
        let len = body.len() as u64;
        self.0.put_content(key, Content::Memory(body.into()), len, true).await
    }

    async fn put_stream(&self, key: &str, pieces: Pieces<'_>, at_most: u64) -> Result<u64, Error> {
        self.0.put_pieces(key, pieces, at_most).await
    }

    async fn stat(&self, key: &str) -> Result<Option<u64>, Error> {
        self.0.size(key).await
    }

    async fn get(&self, key: &str, limit: u64) -> Result<Bytes, Error> {
        self.0.rest.read_whole(key, limit).await
    }

    async fn read_start(&self, key: &str, len: u64) -> Result<Bytes, Error> {
        self.0.rest.read_start(key, len).await
    }

    async fn read(&self, key: &str, offset: u64) -> Result<Reading, Error> {
        self.0.rest.read(key, offset, self.0.size(key)).await
    }

    async fn compare(&self, key: &str, source: &Source) -> Result<Comparison, Error> {
        self.0.compare_with(key, source).await
    }

    fn requests_for(&self, _: u64) -> u64 {
        // One begins the session, one sends the bytes.
        2
    }

    async fn list(&self, dir: &str) -> Result<Vec<Object>, Error> {
        self.0.list_below(dir).await
    }

    async fn list_top(&self, after: &str, wanted: NameFilter) -> Result<Vec<String>, Error> {
        self.0.list_dirs(after, wanted).await
    }

    /// Sessions cannot be listed, and end by themselves.
    async fn abort_stale(&self, _: &str) -> Result<(), Error> {
        Ok(())
    }

    async fn remove(&self, canary: &CanaryKey) -> Result<(), Error> {
        let rest = &self.0.rest;
        let uri = address(&rest.dialect.description(&rest.full(canary.as_str())));
        rest.remove(canary, uri).await
    }

    async fn settle(&self) {
        self.0.rest.cleanup.wait().await;
    }
}

#[cfg(test)]
mod tests;
