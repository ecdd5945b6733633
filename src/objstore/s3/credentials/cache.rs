//! How long credentials are kept, and when they are asked for again.
//!
//! In memory only. A store may say that they have ended before their time: then the source is asked once more, at most
//! every few seconds, however many requests are refused. Asking ends after half a minute.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use aws_sdk_s3::config::{ConfigBag, IdentityCache, ResolveCachedIdentity, RuntimeComponents, SharedIdentityCache};
use aws_smithy_runtime_api::{
    box_error::BoxError,
    client::{
        identity::{IdentityFuture, SharedIdentityResolver},
        runtime_components::RuntimeComponentsBuilder,
    },
};

/// How long all sources together may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long before their end temporary credentials are renewed, at most.
const AHEAD: Duration = Duration::from_secs(60);
/// After this time credentials without an end are read again: a file may have been rewritten.
const REREAD: Duration = Duration::from_secs(15 * 60);
/// Renewals that refusals ask for are at least this far apart.
const CALM: Duration = Duration::from_secs(5);

/// The SDK's cache of credentials, which can be told to forget them: a store may say that they have ended before their
/// time, and only the source has newer ones.
#[derive(Clone, Debug)]
pub(in crate::objstore::s3) struct Cache(Arc<Renewable>);

#[derive(Debug)]
struct Renewable {
    cache: ArcSwap<SharedIdentityCache>,
    /// When it was last told to forget.
    forgot: Mutex<Option<Instant>>,
}

fn fresh() -> Arc<SharedIdentityCache> {
    Arc::new(
        IdentityCache::lazy()
            .load_timeout(PATIENCE)
            .buffer_time(AHEAD)
            .default_expiration(REREAD)
            .build(),
    )
}

impl Cache {
    pub(in crate::objstore::s3) fn new() -> Self {
        Self(Arc::new(Renewable {
            cache: ArcSwap::new(fresh()),
            forgot: Mutex::default(),
        }))
    }

    /// The next request asks the source again, unless it was asked just now.
    pub(in crate::objstore::s3) fn forget(&self) {
        let mut forgot = self.0.forgot.lock().unwrap_or_else(PoisonError::into_inner);
        if forgot.is_none_or(|then| then.elapsed() >= CALM) {
            *forgot = Some(Instant::now());
            self.0.cache.store(fresh());
        }
    }
}

impl ResolveCachedIdentity for Cache {
    fn resolve_cached_identity<'a>(
        &'a self,
        resolver: SharedIdentityResolver,
        components: &'a RuntimeComponents,
        bag: &'a ConfigBag,
    ) -> IdentityFuture<'a> {
        IdentityFuture::new(async move {
            let cache = self.0.cache.load_full();
            cache.resolve_cached_identity(resolver, components, bag).await
        })
    }

    fn validate_base_client_config(
        &self,
        components: &RuntimeComponentsBuilder,
        bag: &ConfigBag,
    ) -> Result<(), BoxError> {
        self.0.cache.load().validate_base_client_config(components, bag)
    }

    fn validate_final_config(&self, components: &RuntimeComponents, bag: &ConfigBag) -> Result<(), BoxError> {
        self.0.cache.load().validate_final_config(components, bag)
    }
}
