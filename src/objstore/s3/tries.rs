//! How often a request is made, and how long to rest in between: the one policy of this store.
//!
//! | What fails | Who tries again | How often | Rest |
//! |---|---|---|---|
//! | an answer or a connection, in a way that passes (5xx, 408, 429, 499, 520, refused, cut) | the SDK | as often as is left | random, up to 0.2 s at first, 1 s at most |
//! | nothing moves for the stall time | [`Tries::run`] | once more | none, it was long enough |
//! | a body that was damaged on its way; an answer that breaks off in its body | [`Tries::run`] | once more | 0.2 s |
//!
//! All of them draw on one account: a call makes at most `max_retries` requests (10 if not configured) for one object, one
//! part of an object, or one page of a listing, whatever goes wrong. Only a refusal that asks for other headers (MD5, no
//! condition) may find the account empty: it is followed by one more request, twice in the life of a process at most.
//! A stream begins a new account with every piece that arrives. What opens, completes, lists and aborts multipart uploads
//! is tried again by the SDK alone.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::Duration,
};

use aws_sdk_s3::{
    client::customize::CustomizableOperation,
    config::{
        Builder, ConfigBag, Intercept, RuntimeComponents, interceptors::BeforeTransmitInterceptorContextMut,
        retry::RetryConfig,
    },
};
use aws_smithy_runtime_api::{box_error::BoxError, client::interceptors::dyn_dispatch_hint};

use super::{
    Store,
    headers::{Headers, Purpose},
};
use crate::objstore::{Error, ErrorKind};

/// How many tries in a row may bring nothing, where the SDK does not try again.
const FRUITLESS: u32 = 2;

/// The longest rest before the second try; with the SDK's it doubles up to [`LONGEST_REST`].
const FIRST_REST: Duration = Duration::from_millis(200);
const LONGEST_REST: Duration = Duration::from_secs(1);

/// What the SDK is told.
pub(super) fn retry_config(attempts: u32) -> RetryConfig {
    RetryConfig::standard()
        .with_max_attempts(attempts)
        .with_initial_backoff(FIRST_REST)
        .with_max_backoff(LONGEST_REST)
}

/// Why one try failed.
#[derive(Debug)]
pub(super) enum Failed {
    /// Another one may fare better, and the SDK has not made it.
    Again(Error),
    /// It is over.
    Over(Error),
}

impl From<Error> for Failed {
    fn from(error: Error) -> Self {
        match error.kind {
            ErrorKind::Stalled | ErrorKind::Integrity => Failed::Again(error),
            _ => Failed::Over(error),
        }
    }
}

/// The account of one call; clones share it.
#[derive(Clone, Debug)]
pub(super) struct Tries(Arc<Account>);

#[derive(Debug)]
struct Account {
    most: u32,
    /// Requests that were made.
    made: AtomicU32,
    /// Tries in a row that brought nothing.
    fruitless: AtomicU32,
    /// Whether something came since the last failure.
    fruitful: AtomicBool,
}

impl Tries {
    fn at_most(most: u32) -> Self {
        Self(Arc::new(Account {
            most: most.max(1),
            made: AtomicU32::new(0),
            fruitless: AtomicU32::new(0),
            fruitful: AtomicBool::new(false),
        }))
    }

    fn left(&self) -> u32 {
        self.0.most.saturating_sub(self.0.made.load(Ordering::Relaxed))
    }

    /// Something came: the account is new.
    pub(super) fn renew(&self) {
        self.0.made.store(0, Ordering::Relaxed);
        self.0.fruitless.store(0, Ordering::Relaxed);
        self.0.fruitful.store(true, Ordering::Relaxed);
    }

    /// Rests before another try, or says that there is none.
    pub(super) async fn another(&self, error: &Error) -> bool {
        if !self.0.fruitful.swap(false, Ordering::Relaxed) {
            self.0.fruitless.fetch_add(1, Ordering::Relaxed);
        }
        if self.left() == 0 || self.0.fruitless.load(Ordering::Relaxed) >= FRUITLESS {
            return false;
        }
        tracing::debug!(%error, "trying once more");
        if error.kind != ErrorKind::Stalled {
            tokio::time::sleep(FIRST_REST).await;
        }
        true
    }

    /// Runs `once`, and again where that may help.
    pub(super) async fn run<T, F>(&self, once: impl Fn() -> F) -> Result<T, Error>
    where
        F: Future<Output = Result<T, Failed>>,
    {
        loop {
            match once().await {
                Ok(done) => return Ok(done),
                Err(Failed::Over(error)) => return Err(error),
                Err(Failed::Again(error)) if self.another(&error).await => {}
                Err(Failed::Again(error)) => return Err(error),
            }
        }
    }
}

impl Store {
    /// A new account.
    pub(super) fn tries(&self) -> Tries {
        Tries::at_most(self.attempts)
    }

    /// A request as this bucket makes it: with the headers for its purpose, and on account.
    pub(super) fn on_account<T, E, B>(
        &self,
        request: CustomizableOperation<T, E, B>,
        purpose: Purpose,
        tries: &Tries,
    ) -> CustomizableOperation<T, E, B> {
        let request = request.interceptor(Each {
            headers: self.headers.clone(),
            purpose,
            tries: Some(tries.clone()),
        });
        match tries.left() {
            all if all == tries.0.most => request,
            left => request.config_override(Builder::new().retry_config(retry_config(left.max(1)))),
        }
    }

    /// A request with the headers for its purpose.
    pub(super) fn dressed<T, E, B>(
        &self,
        request: CustomizableOperation<T, E, B>,
        purpose: Purpose,
    ) -> CustomizableOperation<T, E, B> {
        request.interceptor(Each {
            headers: self.headers.clone(),
            purpose,
            tries: None,
        })
    }
}

/// What is done to each attempt of the SDK.
#[derive(Debug)]
struct Each {
    headers: Headers,
    purpose: Purpose,
    tries: Option<Tries>,
}

#[dyn_dispatch_hint]
impl Intercept for Each {
    fn name(&self) -> &'static str {
        "Each"
    }

    fn modify_before_signing(
        &self,
        context: &mut BeforeTransmitInterceptorContextMut<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        if let Some(tries) = &self.tries {
            tries.0.made.fetch_add(1, Ordering::Relaxed);
        }
        self.headers.set(self.purpose, context.request_mut())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::objstore::Op;

    fn error(kind: ErrorKind) -> Error {
        Error {
            op: Op::Upload,
            key: "x".into(),
            kind,
            detail: String::new(),
            source: None,
        }
    }

    /// How often it is run when each run makes so many requests and fails in this way.
    async fn runs(most: u32, requests: u32, failed: impl Fn() -> Failed) -> u32 {
        let (tries, runs) = (Tries::at_most(most), AtomicU32::new(0));
        let once = || {
            runs.fetch_add(1, Ordering::Relaxed);
            tries.0.made.fetch_add(requests, Ordering::Relaxed);
            std::future::ready(Err::<(), _>(failed()))
        };
        tries.run(once).await.unwrap_err();
        runs.into_inner()
    }

    #[tokio::test(start_paused = true)]
    async fn what_the_sdk_does_not_try_again_is_tried_once_more_within_the_account() {
        use ErrorKind::{Forbidden, Integrity, Network, Server, Stalled};
        for (most, requests, kind, expected) in [
            (10, 1, Stalled, 2),
            (10, 9, Integrity, 2),
            (10, 10, Stalled, 1),
            (1, 1, Stalled, 1),
            (10, 1, Network, 1),
            (10, 1, Server, 1),
            (10, 1, Forbidden, 1),
        ] {
            let runs = runs(most, requests, || error(kind).into()).await;
            assert_eq!(runs, expected, "{most} {requests} {kind:?}");
        }
        assert_eq!(runs(10, 1, || Failed::Again(error(Network))).await, 2, "it broke off");
    }

    #[tokio::test(start_paused = true)]
    async fn what_came_makes_the_account_new() {
        let (tries, broken) = (Tries::at_most(3), error(ErrorKind::Network));
        for _ in 0..50 {
            tries.0.made.fetch_add(3, Ordering::Relaxed);
            tries.renew();
            assert!(tries.another(&broken).await, "the break after a piece is not fruitless");
        }
        assert!(tries.another(&broken).await);
        assert!(!tries.another(&broken).await);
    }
}
