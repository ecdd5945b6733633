//! From the configuration to a client of the SDK.
//!
//! Building it reads the TLS files that are named and touches no network. Nothing that the SDK does on its own account
//! changes what is sent: no checksums but those that the caller gives, no chunked encoding, no time limits but those of
//! the transport, no second guess at stalled streams. How often requests are tried stands in `retries`.

mod error_body;
mod region;
mod site;

use std::time::Duration;

use aws_credential_types::provider::SharedCredentialsProvider;
use aws_sdk_s3::{
    Client,
    config::{
        AppName, BehaviorVersion, Builder, ConfigBag, Intercept, Region, RequestChecksumCalculation,
        ResponseChecksumValidation, RuntimeComponents, StalledStreamProtectionConfig,
        interceptors::{BeforeDeserializationInterceptorContextMut, BeforeTransmitInterceptorContextMut},
        timeout::TimeoutConfig,
    },
};
use aws_smithy_runtime_api::{
    box_error::BoxError,
    client::{
        interceptors::{context::InterceptorContext, dyn_dispatch_hint},
        retries::classifiers::{ClassifyRetry, RetryAction},
    },
};
use aws_smithy_types::{
    config_bag::{Storable, StoreReplace},
    retry::ErrorKind,
};

use self::{region::Regions, site::Site};
use super::{
    credentials::{self, Cache},
    retries::retry_config,
    transport::{DIAL, Proxies, Transport},
};
use crate::objstore::config::{ConfigError, Credentials, S3Config};

/// The client that a configuration describes. Reads the files that TLS needs; the store is not asked anything yet.
pub(super) async fn client(config: &S3Config) -> Result<Client, ConfigError> {
    let transport = Transport::new(&config.http, config.trace, Proxies::from_env());
    if !config.insecure {
        transport.check_tls().await?;
    }
    Ok(build(
        config,
        transport,
        credentials::provider(config, credentials::real_env()),
    ))
}

fn build(config: &S3Config, transport: Transport, provider: SharedCredentialsProvider) -> Client {
    let cache = Cache::new();
    let site = Site::of(config);
    let path_style = site.path_style;
    let base = || {
        Builder::new()
            .behavior_version(BehaviorVersion::latest())
            .http_client(transport.clone())
            .credentials_provider(provider.clone())
            .identity_cache(cache.clone())
            // Both are replaced by the resolver, which learns the region at the first request.
            .region(Region::from_static(region::FALLBACK))
            .use_dual_stack(false)
            .force_path_style(path_style)
            .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
            .response_checksum_validation(ResponseChecksumValidation::WhenRequired)
            .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
            .timeout_config(TimeoutConfig::builder().connect_timeout(DIAL).build())
            .retry_config(retry_config(config.attempts))
            .app_name(AppName::new("narthex").expect("these letters may be in an app's name"))
            .interceptor(UserAgent)
    };
    let regions = Regions::new(&config.bucket, site, base());
    let corrections = Corrections {
        regions: regions.clone(),
        renewable: (!matches!(config.credentials, Credentials::Static { .. })).then_some(cache.clone()),
    };
    Client::from_conf(base().endpoint_resolver(regions).retry_classifier(corrections).build())
}

/// Says who we are, in front of what the SDK says of itself; and ties to each answer which region was signed for.
#[derive(Debug)]
struct UserAgent;

/// The region that a request was signed for.
#[derive(Clone, Debug)]
struct SignedFor(String);

impl Storable for SignedFor {
    type Storer = StoreReplace<Self>;
}

#[dyn_dispatch_hint]
impl Intercept for UserAgent {
    fn name(&self) -> &'static str {
        "UserAgent"
    }

    fn modify_before_transmit(
        &self,
        context: &mut BeforeTransmitInterceptorContextMut<'_>,
        _: &RuntimeComponents,
        bag: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        if let Some(region) = error_body::signed_region(context.request()) {
            bag.interceptor_state().store_put(SignedFor(region));
        }
        let headers = context.request_mut().headers_mut();
        let sdk = headers.get("user-agent").unwrap_or_default().to_owned();
        headers.insert("user-agent", format!("narthex/{} {sdk}", env!("CARGO_PKG_VERSION")));
        Ok(())
    }

    fn modify_before_deserialization(
        &self,
        context: &mut BeforeDeserializationInterceptorContextMut<'_>,
        _: &RuntimeComponents,
        bag: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        if let Some(signed) = bag.load::<SignedFor>() {
            context.response_mut().add_extension(signed.clone());
        }
        Ok(())
    }
}

/// Refusals that another try can heal once something is put right: the region, or credentials that ended early.
#[derive(Debug)]
struct Corrections {
    regions: Regions,
    /// Where credentials come from a source that may have newer ones.
    renewable: Option<Cache>,
}

impl ClassifyRetry for Corrections {
    fn classify_retry(&self, context: &InterceptorContext) -> RetryAction {
        let failed = context.output_or_error().is_some_and(|outcome| outcome.is_err());
        let Some(answer) = context.response().filter(|_| failed) else {
            return RetryAction::NoActionIndicated;
        };
        let again = RetryAction::retryable_error_with_explicit_delay(ErrorKind::ServerError, Duration::ZERO);
        // The SDK asks more than once about one answer: what the request said must decide, not what we know by now.
        if let (Some(region), Some(SignedFor(signed))) = (error_body::region(answer), answer.extension())
            && region != *signed
            && self.regions.correct(&region)
        {
            return again;
        }
        let code = error_body::code(answer);
        // Somebody else wrote the same key in the same moment.
        if let Some("ConditionalRequestConflict" | "OperationAborted") = code.as_deref() {
            return RetryAction::transient_error();
        }
        let Some(cache) = &self.renewable else {
            return RetryAction::NoActionIndicated;
        };
        match code.as_deref() {
            Some("ExpiredToken" | "ExpiredTokenException") => {
                cache.forget();
                RetryAction::retryable_error(ErrorKind::ServerError)
            }
            // A key, or its secret, may have been replaced at its source; that is seen at the next request.
            Some("InvalidAccessKeyId" | "InvalidToken" | "SignatureDoesNotMatch") => {
                cache.forget();
                RetryAction::NoActionIndicated
            }
            _ => RetryAction::NoActionIndicated,
        }
    }

    fn name(&self) -> &'static str {
        "Corrections"
    }
}

#[cfg(test)]
mod tests;
