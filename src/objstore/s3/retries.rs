//! How often a request is made, and how long to wait in between: the one policy of this store.
//!
//! | What fails | Who tries again | How often | Wait |
//! |---|---|---|---|
//! | an answer or a connection, in a way that passes (5xx, 408, 429, 499, 520, refused, cut) | the SDK | as often as is left | random, up to 0.2 s at first, 1 s at most |
//! | nothing moves for the stall time | [`RetryBudget::run`] | once more | none, it was long enough |
//! | a body that was damaged on its way; an answer that breaks off in its body | [`RetryBudget::run`] | once more | 0.2 s |
//!
//! All of them share one budget: a call makes at most `max_retries` requests (10 if not configured) for one object, one
//! part of an object, or one page of a listing, whatever goes wrong. Only a refusal that asks for another form (MD5, a
//! signed body, no condition) may find the budget used up: it is followed by one more request, three times in the life of a process as a rule.
//! A stream begins a new budget with every piece that arrives. What opens, completes, lists and aborts multipart uploads
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
const WITHOUT_PROGRESS: u32 = 2;

/// The longest wait before the second try; with the SDK's it doubles up to [`LONGEST_WAIT`].
const FIRST_WAIT: Duration = Duration::from_millis(200);
const LONGEST_WAIT: Duration = Duration::from_secs(1);

/// What the SDK is told.
pub(super) fn retry_config(attempts: u32) -> RetryConfig {
    RetryConfig::standard()
        .with_max_attempts(attempts)
        .with_initial_backoff(FIRST_WAIT)
        .with_max_backoff(LONGEST_WAIT)
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

/// How many requests one call may still make; clones share it.
#[derive(Clone, Debug)]
pub(super) struct RetryBudget(Arc<Counts>);

#[derive(Debug)]
struct Counts {
    most: u32,
    /// Requests that were made.
    made: AtomicU32,
    /// Tries in a row that brought nothing.
    without_progress: AtomicU32,
    /// Whether something came since the last failure.
    progressed: AtomicBool,
}

impl RetryBudget {
    fn at_most(most: u32) -> Self {
        Self(Arc::new(Counts {
            most: most.max(1),
            made: AtomicU32::new(0),
            without_progress: AtomicU32::new(0),
            progressed: AtomicBool::new(false),
        }))
    }

    fn left(&self) -> u32 {
        self.0.most.saturating_sub(self.0.made.load(Ordering::Relaxed))
    }

    /// Something came: the budget is new.
    pub(super) fn renew(&self) {
        self.0.made.store(0, Ordering::Relaxed);
        self.0.without_progress.store(0, Ordering::Relaxed);
        self.0.progressed.store(true, Ordering::Relaxed);
    }

    /// Waits before another try, or says that there is none.
    pub(super) async fn wait_for_retry(&self, error: &Error) -> bool {
        if !self.0.progressed.swap(false, Ordering::Relaxed) {
            self.0.without_progress.fetch_add(1, Ordering::Relaxed);
        }
        if self.left() == 0 || self.0.without_progress.load(Ordering::Relaxed) >= WITHOUT_PROGRESS {
            return false;
        }
        tracing::debug!(%error, "request failed, retrying");
        if error.kind != ErrorKind::Stalled {
            tokio::time::sleep(FIRST_WAIT).await;
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
                Err(Failed::Again(error)) if self.wait_for_retry(&error).await => {}
                Err(Failed::Again(error)) => return Err(error),
            }
        }
    }
}

impl Store {
    /// A new budget.
    pub(super) fn retry_budget(&self) -> RetryBudget {
        RetryBudget::at_most(self.attempts)
    }

    /// A request as this bucket makes it: with the headers for its purpose, and within the budget.
    pub(super) fn within_budget<T, E, B>(
        &self,
        request: CustomizableOperation<T, E, B>,
        purpose: Purpose,
        budget: &RetryBudget,
    ) -> CustomizableOperation<T, E, B> {
        let request = request.interceptor(Each {
            headers: self.headers.clone(),
            purpose,
            budget: Some(budget.clone()),
        });
        match budget.left() {
            all if all == budget.0.most => request,
            left => request.config_override(Builder::new().retry_config(retry_config(left.max(1)))),
        }
    }

    /// A request with the headers for its purpose.
    pub(super) fn with_headers<T, E, B>(
        &self,
        request: CustomizableOperation<T, E, B>,
        purpose: Purpose,
    ) -> CustomizableOperation<T, E, B> {
        request.interceptor(Each {
            headers: self.headers.clone(),
            purpose,
            budget: None,
        })
    }
}

/// What is done to each attempt of the SDK.
#[derive(Debug)]
struct Each {
    headers: Headers,
    purpose: Purpose,
    budget: Option<RetryBudget>,
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
        if let Some(budget) = &self.budget {
            budget.0.made.fetch_add(1, Ordering::Relaxed);
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
        let (budget, runs) = (RetryBudget::at_most(most), AtomicU32::new(0));
        let once = || {
            runs.fetch_add(1, Ordering::Relaxed);
            budget.0.made.fetch_add(requests, Ordering::Relaxed);
            std::future::ready(Err::<(), _>(failed()))
        };
        budget.run(once).await.unwrap_err();
        runs.into_inner()
    }

    #[tokio::test(start_paused = true)]
    async fn what_the_sdk_does_not_try_again_is_tried_once_more_within_the_budget() {
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
    async fn what_came_renews_the_budget() {
        let (budget, broken) = (RetryBudget::at_most(3), error(ErrorKind::Network));
        for _ in 0..50 {
            budget.0.made.fetch_add(3, Ordering::Relaxed);
            budget.renew();
            assert!(
                budget.wait_for_retry(&broken).await,
                "the break after a piece is not without_progress"
            );
        }
        assert!(budget.wait_for_retry(&broken).await);
        assert!(!budget.wait_for_retry(&broken).await);
    }
}
