//! A container in Azure's blob storage.
//!
//! Guarantees, as for S3: an object appears whole or not at all; its bytes travel with their MD5, which the store compares before
//! it takes them, in one request or block by block (`upload`). Blocks that no list has put together are no object, are not listed,
//! and are gone after a week. A container that is missing counts as empty and is made with the first object, unless the
//! configuration forbids it; then it is an error.
//!
//! Credentials, and how requests are signed with them, come from the crate `object_store`. Its own uploads are not used: they send
//! blocks without a checksum, and have one time limit for a request however long its body is.

mod errors;
mod list;
mod upload;

use std::{
    fmt,
    sync::{Arc, atomic::AtomicBool},
};

use async_trait::async_trait;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri, header};
use object_store::{
    azure::{AzureAuthorizer, AzureCredential, MicrosoftAzureBuilder, split_sas},
    client::HttpRequestBody,
};
use url::Url;

use super::{
    Bucket, CanaryKey, Comparison, Error, ErrorKind, Limits, NameFilter, Object, Op, Pieces, Placed, Proof, Reading,
    Source,
    config::{AzureConfig, AzureCredentials, ConfigError},
    rest::{
        Answer, Dialect, Failed, Place, Refusal, Rest, address, encoded,
        tokens::{Credentials, Env, Tokens, Variables, retries, unusable},
    },
    transfer::{
        body::Hasher,
        compare::other_length,
        content::Content,
        transport::{Proxies, Transport},
    },
};

/// A container in Azure's blob storage.
#[derive(Debug)]
pub(super) struct AzureBucket(Arc<Store>);

/// What all requests share.
#[derive(Debug)]
struct Store {
    rest: Arc<Rest<Azure>>,
    /// The log has said that there is no container.
    told_missing: AtomicBool,
}

/// Addresses, credentials and words of Azure.
struct Azure {
    account: String,
    /// The container's address.
    container: String,
    /// A container that is missing is made with the first object.
    create_container: bool,
    credentials: Credentials<AzureCredential>,
}

impl fmt::Debug for Azure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Azure").field(&self.container).finish()
    }
}

impl Azure {
    /// The address of an object; slashes in a key stay.
    fn address(&self, key: &str, query: &str) -> Result<Uri, String> {
        let path: Vec<String> = key.split('/').map(encoded).collect();
        let mark = if query.is_empty() { "" } else { "?" };
        address(&format!("{}/{}{mark}{query}", self.container, path.join("/")))
    }
}

#[async_trait]
impl Dialect for Azure {
    async fn authorize(&self, head: &mut Request<()>) -> Result<(), Failed> {
        let credential = self.credentials.get().await?;
        let (parts, ()) = std::mem::take(head).into_parts();
        let mut request = Request::from_parts(parts, HttpRequestBody::empty());
        let authorized = AzureAuthorizer::new(&credential, &self.account).try_authorize(&mut request);
        *head = request.map(|_| ());
        authorized
            .map_err(|error| Failed::new(ErrorKind::Credentials, format!("the request cannot be signed: {error}")))
    }

    fn forget_credentials(&self) -> bool {
        self.credentials.forget()
    }

    fn explain(&self, op: Op, answer: &Refusal) -> (ErrorKind, String) {
        errors::explain(op, answer)
    }

    fn object(&self, key: &str, tag: Option<&str>) -> Result<(Uri, Vec<(HeaderName, String)>), String> {
        let same = tag.map(|tag| (header::IF_MATCH, tag.to_owned()));
        Ok((self.address(key, "")?, same.into_iter().collect()))
    }

    fn tag(&self, headers: &HeaderMap) -> Option<String> {
        Some(headers.get(header::ETAG)?.to_str().ok()?.to_owned())
    }
}

impl AzureBucket {
    /// Opens the container of a configuration. The store is not spoken to. Must be called within a runtime.
    pub(super) async fn open(config: &AzureConfig, prefix: &str, limits: &Limits) -> Result<Self, ConfigError> {
        let transport = Transport::new(&config.http, false, Proxies::from_env());
        let secure = config.base.starts_with("https:");
        if secure {
            transport.check_tls().await?;
        }
        let azure = Azure {
            account: config.account.clone(),
            container: format!("{}/{}", config.base, encoded(&config.container)),
            create_container: config.create_container,
            credentials: credentials(
                config,
                Tokens::new(&transport, &config.http),
                Arc::new(|name| std::env::var(name).ok()),
            ),
        };
        let host = config.base.split_once("://").map_or("", |(_, host)| host);
        let place = Place {
            name: config.container.clone(),
            identity: format!("azure://{host}/{}", config.container),
            prefix,
            secure,
            http: &config.http,
            transport,
            attempts: config.attempts,
        };
        Ok(Self(Arc::new(Store {
            rest: Arc::new(Rest::new(azure, place, limits)),
            told_missing: AtomicBool::new(false),
        })))
    }
}

/// Those of the configuration, else those of the environment, in the order of Azure's own libraries.
fn credentials(config: &AzureConfig, tokens: Tokens, env: Env) -> Credentials<AzureCredential> {
    let (account, container, wanted) = (
        config.account.clone(),
        config.container.clone(),
        config.credentials.clone(),
    );
    let renewable = !matches!(wanted, AzureCredentials::Key(_) | AzureCredentials::Sas(_));
    Credentials::new(tokens, renewable, move |tokens| {
        let builder = builder(&account, &container, tokens, &*env)?;
        let builder = match &wanted {
            AzureCredentials::Key(key) => builder.with_access_key(key.expose()),
            AzureCredentials::Sas(query) => builder.with_sas_authorization(split_sas(query.expose())?),
            AzureCredentials::Client { tenant, client, secret } => {
                builder.with_client_secret_authorization(client, secret.expose(), tenant)
            }
            AzureCredentials::ManagedIdentity(client) => {
                builder.with_client_id(client).with_credential_type("managed_identity")
            }
            AzureCredentials::Environment => of_environment(builder, &*env)?,
        };
        Ok(Arc::clone(builder.build()?.credentials()))
    })
}

/// Who says what is wrong with credentials, as in object_store.
const STORE: &str = "Azure";

/// A variable, without what a line break of a Secret leaves.
fn given(env: &Variables, name: &str) -> Option<String> {
    env(name)
        .map(|text| text.trim().to_owned())
        .filter(|text| !text.is_empty())
}

/// One with an address, which the library takes as it is.
fn address_given(env: &Variables, name: &str) -> object_store::Result<Option<String>> {
    let Some(text) = given(env, name) else {
        return Ok(None);
    };
    let url = Url::parse(&text).ok();
    match url.filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host()) {
        Some(url) => Ok(Some(url.as_str().trim_end_matches('/').to_owned())),
        None => Err(unusable(
            STORE,
            format!("{name} is no address: expected https:// and a host"),
        )),
    }
}

/// What holds for all kinds: who gives out tokens.
fn builder(
    account: &str,
    container: &str,
    tokens: Tokens,
    env: &Variables,
) -> object_store::Result<MicrosoftAzureBuilder> {
    let mut builder = MicrosoftAzureBuilder::new()
        .with_account(account)
        .with_container_name(container)
        .with_http_connector(tokens)
        .with_retry(retries());
    if let Some(host) = address_given(env, "AZURE_AUTHORITY_HOST")? {
        builder = builder.with_authority_host(host);
    }
    if let Some(endpoint) = address_given(env, "IDENTITY_ENDPOINT")? {
        builder = builder.with_msi_endpoint(endpoint);
    }
    // The library reads it by itself.
    if env("IDENTITY_HEADER").is_some_and(|text| HeaderValue::try_from(text).is_err()) {
        return Err(unusable(STORE, "IDENTITY_HEADER cannot be sent as it is"));
    }
    Ok(builder)
}

/// An application by its secret, a workload by its token, or else the identity of this machine.
fn of_environment(builder: MicrosoftAzureBuilder, env: &Variables) -> object_store::Result<MicrosoftAzureBuilder> {
    let given = |name: &str| given(env, name);
    let (client, tenant) = (given("AZURE_CLIENT_ID"), given("AZURE_TENANT_ID"));
    let file = given("AZURE_FEDERATED_TOKEN_FILE");
    Ok(match (client, tenant, given("AZURE_CLIENT_SECRET"), file) {
        (Some(client), Some(tenant), Some(secret), _) => {
            builder.with_client_secret_authorization(client, secret, tenant)
        }
        (Some(_), Some(_), None, _) if given("AZURE_CLIENT_CERTIFICATE_PATH").is_some() => {
            let problem = "AZURE_CLIENT_CERTIFICATE_PATH is set, and certificates are not supported: set AZURE_CLIENT_SECRET, or \
                           use a workload's or a managed identity";
            return Err(unusable(STORE, problem));
        }
        (Some(client), Some(tenant), None, Some(file)) => {
            let readable = fs_err::File::open(&file).map(drop);
            readable.map_err(|error| unusable(STORE, format!("{error} (AZURE_FEDERATED_TOKEN_FILE)")))?;
            builder
                .with_client_id(client)
                .with_tenant_id(tenant)
                .with_federated_token_file(file)
        }
        (client, tenant, _, file) => {
            if file.is_some() {
                let missing = if client.is_none() {
                    "AZURE_CLIENT_ID"
                } else {
                    "AZURE_TENANT_ID"
                };
                tracing::warn!(
                    missing,
                    tenant = tenant.unwrap_or_default(),
                    "AZURE_FEDERATED_TOKEN_FILE is set, but for the identity of this workload a variable is missing (is the \
                     service account annotated with its client id?): the identity of the machine is used"
                );
            }
            let builder = match client {
                Some(client) => builder.with_client_id(client),
                None => builder,
            };
            builder.with_credential_type("managed_identity")
        }
    })
}

impl Store {
    /// The head of an object, if there is one.
    async fn head(&self, key: &str) -> Result<Option<Answer>, Error> {
        let uri = self.rest.dialect.address(&self.rest.full(key), "");
        let call = self.rest.prepare(Op::Get, key, Method::HEAD, uri)?;
        match self.of_what_may_be_missing(self.rest.call(key, &call).await) {
            Ok(answer) => Ok(Some(answer)),
            Err(error) if error.kind == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// In a container that the first upload makes there is nothing.
    fn of_what_may_be_missing<T>(&self, result: Result<T, Error>) -> Result<T, Error> {
        result.map_err(|mut error| {
            if error.kind == ErrorKind::NoBucket && self.rest.dialect.create_container {
                error.kind = ErrorKind::NotFound;
            }
            error
        })
    }

    async fn size(&self, key: &str) -> Result<Option<u64>, Error> {
        let Some(head) = self.head(key).await? else {
            return Ok(None);
        };
        let size = head.header("content-length").and_then(|length| length.parse().ok());
        self.rest.told_size(key, size).map(Some)
    }

    /// The MD5 that a store keeps of an object counts only where it has computed it itself: of what came in one request.
    async fn compare_with(&self, key: &str, source: &Source) -> Result<Comparison, Error> {
        source
            .unchanged()
            .map_err(|reason| self.rest.error(Op::Get, key, ErrorKind::Local, reason))?;
        let Some(head) = self.head(key).await? else {
            return Ok(Comparison::Absent);
        };
        let size = head.header("content-length").and_then(|length| length.parse().ok());
        if let Some(size) = size.filter(|size| *size != source.len) {
            return Ok(other_length(size, source));
        }
        let theirs = head.header("content-md5").filter(|_| source.len <= upload::BLOCK);
        if let Some(theirs) = theirs {
            let ours = self.rest.summed(Op::Get, key, source, Hasher::md5()).await?.finish();
            if ours.md5().as_deref() == Some(theirs) {
                return Ok(Comparison::Same(Proof::Checksum));
            }
        }
        self.of_what_may_be_missing(self.rest.read_back(key, source).await)
    }
}

fn query(parts: &[(&str, &str)]) -> String {
    let parts: Vec<String> = parts
        .iter()
        .map(|(name, value)| format!("{name}={}", encoded(value)))
        .collect();
    parts.join("&")
}

#[async_trait]
impl Bucket for AzureBucket {
    fn name(&self) -> &str {
        &self.0.rest.name
    }

    fn identity(&self) -> &str {
        &self.0.rest.identity
    }

    async fn put_file(&self, key: &str, source: &Source) -> Result<(), Error> {
        self.0.put_file(key, source).await
    }

    async fn put_bytes(&self, key: &str, body: Bytes) -> Result<(), Error> {
        self.0
            .put_whole(key, Content::Memory(body.into()), false)
            .await
            .map(drop)
    }

    async fn put_new(&self, key: &str, body: Bytes) -> Result<Placed, Error> {
        self.0.put_whole(key, Content::Memory(body.into()), true).await
    }

    async fn put_stream(&self, key: &str, pieces: Pieces<'_>, at_most: u64) -> Result<u64, Error> {
        self.0.put_pieces(key, pieces, at_most).await
    }

    async fn stat(&self, key: &str) -> Result<Option<u64>, Error> {
        self.0.size(key).await
    }

    async fn get(&self, key: &str, limit: u64) -> Result<Bytes, Error> {
        self.0.of_what_may_be_missing(self.0.rest.read_whole(key, limit).await)
    }

    async fn read_start(&self, key: &str, len: u64) -> Result<Bytes, Error> {
        self.0.of_what_may_be_missing(self.0.rest.read_start(key, len).await)
    }

    async fn read(&self, key: &str, offset: u64) -> Result<Reading, Error> {
        self.0
            .of_what_may_be_missing(self.0.rest.read(key, offset, self.0.size(key)).await)
    }

    async fn compare(&self, key: &str, source: &Source) -> Result<Comparison, Error> {
        self.0.compare_with(key, source).await
    }

    fn requests_for(&self, len: u64) -> u64 {
        match len <= upload::BLOCK {
            true => 1,
            // One puts the blocks together.
            false => len.div_ceil(upload::block_size(len)) + 1,
        }
    }

    async fn list(&self, dir: &str) -> Result<Vec<Object>, Error> {
        self.0.list_below(dir).await
    }

    async fn list_top(&self, after: &str, wanted: NameFilter) -> Result<Vec<String>, Error> {
        self.0.list_dirs(after, wanted).await
    }

    /// Blocks of objects that were never put together cannot be listed apart, and go by themselves.
    async fn abort_stale(&self, _: &str) -> Result<(), Error> {
        Ok(())
    }

    async fn remove(&self, canary: &CanaryKey) -> Result<(), Error> {
        let rest = &self.0.rest;
        let uri = rest.dialect.address(&rest.full(canary.as_str()), "");
        rest.remove(canary, uri).await
    }

    async fn settle(&self) {
        self.0.rest.cleanup.wait().await;
    }
}

#[cfg(test)]
mod tests;
