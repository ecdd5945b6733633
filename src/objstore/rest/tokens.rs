//! Credentials of a cloud, by the crate `object_store`: it reads what keys, files and variables say, asks the services that give out
//! tokens, and renews these before they end. Its requests go over the transport of the bucket.
//!
//! What a store has refused is forgotten and asked for anew, from files as they are then, but not more often than each
//! [`AT_MOST_EVERY`]: a key that is gone for good must not be asked for with each request. Waiting for credentials has a limit.
//!
//! What gives out tokens over plain HTTP is a service of this machine, which is asked without a proxy and not waited for long.

use std::{
    fmt,
    panic::AssertUnwindSafe,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use async_trait::async_trait;
use aws_sdk_s3::primitives::SdkBody;
use aws_smithy_runtime_api::client::{
    http::{HttpConnector as _, SharedHttpConnector},
    orchestrator,
};
use futures_util::FutureExt as _;
use http::{Response, Uri, uri::Scheme};
use object_store::{
    BackoffConfig, ClientOptions, CredentialProvider, RetryConfig,
    client::{
        HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpResponseBody, HttpService,
    },
};
use tokio::time::{Instant, timeout};

use super::{ANSWER_LIMIT, Failed, whole};
use crate::{
    objstore::{
        ErrorKind,
        config::HttpConfig,
        transfer::{
            transport::{Proxies, Transport},
            words::chain,
        },
    },
    threads::blocking,
};

/// How long credentials may be waited for.
const LIMIT: Duration = Duration::from_secs(60);

/// How long one request for a token may take.
const REQUEST_LIMIT: Duration = Duration::from_secs(20);

/// The same for a service of this machine. Where there is none, its address may swallow all that is sent.
const LOCAL_LIMIT: Duration = Duration::from_secs(5);

/// No token is good for longer, in seconds (a hundred years): what says so cannot be reckoned with.
const LONGEST: u64 = 100 * 366 * 24 * 3600;

/// The time between two looks at the source of credentials that are refused.
const AT_MOST_EVERY: Duration = Duration::from_secs(10);

/// Looks up a variable of the environment.
pub(in crate::objstore) type Variables = dyn Fn(&str) -> Option<String> + Send + Sync;

/// The same, to be kept.
pub(in crate::objstore) type Env = Arc<Variables>;

/// Gives out credentials, as they are now.
type Provider<C> = Arc<dyn CredentialProvider<Credential = C>>;

/// Makes a provider; may read files.
type Make<C> = dyn Fn(Tokens) -> object_store::Result<Provider<C>> + Send + Sync;

/// Credentials of one bucket.
pub(in crate::objstore) struct Credentials<C> {
    make: Arc<Make<C>>,
    tokens: Tokens,
    state: Mutex<State<C>>,
    /// Others may come from where these are: a file, a service.
    renewable: bool,
}

struct State<C> {
    provider: Option<Provider<C>>,
    made: Option<Instant>,
}

impl<C> fmt::Debug for Credentials<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credentials")
    }
}

impl<C: Send + Sync + 'static> Credentials<C> {
    /// Those that `make` finds; it is called when they are needed. What is not `renewable` never changes.
    pub(in crate::objstore) fn new(
        tokens: Tokens,
        renewable: bool,
        make: impl Fn(Tokens) -> object_store::Result<Provider<C>> + Send + Sync + 'static,
    ) -> Self {
        Self {
            make: Arc::new(make),
            tokens,
            state: Mutex::new(State {
                provider: None,
                made: None,
            }),
            renewable,
        }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State<C>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The credentials of now.
    ///
    /// # Errors
    /// There are none.
    pub(in crate::objstore) async fn get(&self) -> Result<Arc<C>, Failed> {
        let found = timeout(LIMIT, self.find()).await;
        found.unwrap_or_else(|_| {
            let last = self.tokens.last.lock().unwrap_or_else(PoisonError::into_inner).clone();
            let last = last.map(|last| format!("; {last}")).unwrap_or_default();
            let detail = format!("no credentials within {LIMIT:?}{last}");
            Err(Failed::new(ErrorKind::Credentials, detail))
        })
    }

    async fn find(&self) -> Result<Arc<C>, Failed> {
        let known = self.state().provider.clone();
        let provider = match known {
            Some(provider) => provider,
            None => self.make().await?,
        };
        let found = AssertUnwindSafe(provider.get_credential()).catch_unwind().await;
        let found = found.map_err(|_| {
            let detail = "no credentials: a setting, or the answer of a service, cannot be used; see the panic above";
            Failed::new(ErrorKind::Credentials, detail)
        })?;
        found.map_err(|error| none(&error))
    }

    async fn make(&self) -> Result<Provider<C>, Failed> {
        let (make, tokens) = (Arc::clone(&self.make), self.tokens.clone());
        let made = blocking(move || make(tokens)).await;
        let made = made.map_err(|lost| Failed::new(ErrorKind::Credentials, lost.to_string()))?;
        let provider = made.map_err(|error| none(&error))?;
        let mut state = self.state();
        state.provider = Some(Arc::clone(&provider));
        state.made = Some(Instant::now());
        Ok(provider)
    }

    /// The store has refused them. Whether they are looked for anew.
    pub(in crate::objstore) fn forget(&self) -> bool {
        let mut state = self.state();
        let again = self.renewable && state.made.is_none_or(|made| made.elapsed() >= AT_MOST_EVERY);
        if again {
            state.provider = None;
        }
        again
    }
}

fn none(error: &object_store::Error) -> Failed {
    let text = chain(error);
    // The error of a key that cannot be read shows the bytes at fault.
    let why = match text.contains("pem file") {
        true => "the private key is no PEM: each of its line breaks must be one, in JSON written as \\n",
        false => &text,
    };
    let detail = format!("no credentials: {why}; check where they are to come from");
    Failed::new(ErrorKind::Credentials, detail)
}

/// What `make` says of a setting that is wrong.
pub(in crate::objstore) fn unusable(store: &'static str, problem: impl Into<String>) -> object_store::Error {
    let source = problem.into().into();
    object_store::Error::Generic { store, source }
}

/// How often a service that gives out tokens is asked.
pub(in crate::objstore) fn retries() -> RetryConfig {
    RetryConfig {
        backoff: BackoffConfig::default(),
        max_retries: 1,
        retry_timeout: LIMIT,
    }
}

/// The way to services that give out tokens.
#[derive(Clone, Debug)]
pub(in crate::objstore) struct Tokens {
    elsewhere: SharedHttpConnector,
    local: SharedHttpConnector,
    /// What the last request failed with.
    last: Arc<Mutex<Option<String>>>,
}

impl Tokens {
    /// Those elsewhere are asked over the bucket's transport.
    pub(in crate::objstore) fn new(transport: &Transport, http: &HttpConfig) -> Self {
        let local = Transport::new(http, false, Proxies::new("", "", ""));
        Self {
            elsewhere: SharedHttpConnector::new(transport.connector()),
            local: SharedHttpConnector::new(local.connector()),
            last: Arc::default(),
        }
    }

    async fn ask(&self, request: HttpRequest, local: bool) -> Result<HttpResponse, HttpError> {
        let (head, body) = request.into_parts();
        let body = SdkBody::from(body.as_bytes().cloned().unwrap_or_default());
        let request = orchestrator::HttpRequest::try_from(http::Request::from_parts(head, body));
        let request = request.map_err(|error| HttpError::new_boxed(HttpErrorKind::Unknown, error.into()))?;
        let connector = if local { &self.local } else { &self.elsewhere };
        let answered = connector.call(request).await;
        let mut answer = answered.map_err(|error| HttpError::new(HttpErrorKind::Connect, error))?;
        let mut body = answer.take_body();
        let body = whole(&mut body, ANSWER_LIMIT).await;
        let body = body.map_err(|failed| HttpError::new_boxed(HttpErrorKind::Interrupted, failed.detail.into()))?;
        let status = answer.status().as_u16();
        if (200..300).contains(&status)
            && let Some(problem) = wrong_answer(&body)
        {
            return Err(HttpError::new_boxed(HttpErrorKind::Decode, problem.into()));
        }
        let mut response = Response::new(HttpResponseBody::from(body));
        *response.status_mut() =
            http::StatusCode::from_u16(status).map_err(|error| HttpError::new(HttpErrorKind::Decode, error))?;
        Ok(response)
    }
}

/// What is wrong with the answer of a service: it is taken as it is.
fn wrong_answer(body: &[u8]) -> Option<&'static str> {
    let answer: serde_json::Value = match serde_json::from_slice(body) {
        Ok(answer @ serde_json::Value::Object(_)) => answer,
        _ => return Some("the answer is not that of a service which gives out tokens"),
    };
    let sendable = |token: &str| !token.is_empty() && token.bytes().all(|byte| (0x21..0x7f).contains(&byte));
    if !answer["access_token"].as_str().is_some_and(sendable) {
        return Some("the answer has no token that can be sent");
    }
    let number = |name: &str| {
        let value = &answer[name];
        value.as_f64().or_else(|| value.as_str()?.parse().ok())
    };
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |now| now.as_secs());
    let (within, until) = (number("expires_in"), number("expires_on"));
    let too_long = within.is_some_and(|within| within > LONGEST as f64)
        || until.is_some_and(|until| until > now.saturating_add(LONGEST) as f64);
    too_long.then_some("the token of the answer is said to be good for more than a hundred years")
}

impl HttpConnector for Tokens {
    fn connect(&self, _: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(HttpClient::new(self.clone()))
    }
}

#[async_trait]
impl HttpService for Tokens {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let local = request.uri().scheme() == Some(&Scheme::HTTP);
        let limit = if local { LOCAL_LIMIT } else { REQUEST_LIMIT };
        let place = place(request.uri());
        let asked = timeout(limit, self.ask(request, local)).await;
        let asked = asked.unwrap_or_else(|_| {
            let late = format!("{place} gave no answer within {limit:?}");
            Err(HttpError::new_boxed(HttpErrorKind::Timeout, late.into()))
        });
        let failure = asked.as_ref().err().map(|error| format!("{place}: {}", chain(error)));
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = failure;
        asked
    }
}

/// Without what a query may hold.
fn place(uri: &Uri) -> String {
    format!(
        "{}://{}{}",
        uri.scheme_str().unwrap_or_default(),
        uri.authority().map_or("", |host| host.as_str()),
        uri.path()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_that_cannot_be_used_is_told() {
        for good in [
            r#"{"access_token": "ya29.a-b_c", "expires_in": 3599}"#,
            r#"{"access_token": "x", "expires_on": "1795996800", "token_type": "Bearer"}"#,
            r#"{"access_token": "x", "expires_on": "9/23/2029 1:00:00 AM"}"#,
        ] {
            assert_eq!(wrong_answer(good.as_bytes()), None, "{good}");
        }
        for bad in [
            r#"{"access_token": "a\nb", "expires_in": 3599}"#,
            r#"{"access_token": "x", "expires_in": 1e19}"#,
            r#"{"access_token": ""}"#,
            r#"{"error": "x"}"#,
            r#"["x", 18446744073709551615]"#,
            "not json",
            "",
            r#"{"access_token": "x", "expires_on": "99999999999999"}"#,
        ] {
            assert!(wrong_answer(bad.as_bytes()).is_some(), "{bad}");
        }
    }

    #[test]
    fn a_broken_key_is_not_shown() {
        let error = object_store::Error::Generic {
            store: "GCS",
            source: "Error reading pem file: illegal section start: [45, 45]".into(),
        };
        let failed = none(&error);
        assert!(
            failed.detail.contains("is no PEM") && !failed.detail.contains("45"),
            "{}",
            failed.detail
        );
    }
}
