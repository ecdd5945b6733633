//! The SDK's client with the stall timeout around its transport, and with what this program relies on.
//!
//! The SDK does not retry an attempt that stalled: it is tried once more, on another connection (`retries`).

use aws_sdk_s3::{
    Client,
    config::{RequestChecksumCalculation, ResponseChecksumValidation, StalledStreamProtectionConfig},
};
use aws_smithy_runtime_api::client::{
    interceptors::context::InterceptorContext,
    retries::classifiers::{ClassifyRetry, RetryAction},
};

use super::{errors, progress::Stall};
use crate::objstore::{Limits, config::S3Config, transfer::stall_timeout::StallTimeout};

/// Statuses that are worth a retry beside those that the SDK knows (5xx): time-out, too many requests, and two that
/// proxies use for connections that were closed or an origin that failed.
const MORE_TRANSIENT_STATUSES: [u16; 4] = [408, 429, 499, 520];

/// The client with the stall timeout around its transport; no checksums but ours (the SDK's own would turn a plain PUT into a
/// chunked one with a trailer), no second timeout.
pub(super) fn with_stall_timeout(client: &Client, limits: &Limits, wanted: &S3Config) -> Client {
    let config = client.config();
    let mut builder = config
        .to_builder()
        .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
        .response_checksum_validation(ResponseChecksumValidation::WhenRequired)
        .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
        .retry_classifier(Retries);
    if let Some(inner) = config.http_client() {
        builder = builder.http_client(StallTimeout::new(inner, limits, !wanted.insecure, &wanted.http));
    }
    Client::from_conf(builder.build())
}

/// What the SDK's own rules for retries lack.
#[derive(Debug)]
struct Retries;

impl ClassifyRetry for Retries {
    fn classify_retry(&self, context: &InterceptorContext) -> RetryAction {
        if let Some(Err(error)) = context.output_or_error()
            && errors::find::<Stall>(error).is_some()
        {
            return RetryAction::RetryForbidden;
        }
        match context.response().map(|response| response.status().as_u16()) {
            Some(status) if MORE_TRANSIENT_STATUSES.contains(&status) => RetryAction::transient_error(),
            _ => RetryAction::NoActionIndicated,
        }
    }

    fn name(&self) -> &'static str {
        "more transient statuses, no stalls"
    }
}
