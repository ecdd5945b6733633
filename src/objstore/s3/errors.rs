//! From what a store answers, or fails to answer, to an error by kind with help for the operator.
//!
//! What an answer means stands in `answer`. Texts hold what the store said about the request (code, message, request id), never
//! headers, keys or signatures.

mod answer;

use std::{error::Error as StdError, path::Path};

use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_s3::error::ProvideErrorMetadata;
use aws_smithy_runtime_api::client::result::SdkError;

use self::answer::{Answer, asks_for_md5, classify, refuses_condition, refuses_unsigned_body};
use super::{progress::Stall, transport};
pub(super) use crate::objstore::transfer::words::{chain, find, tidy};
use crate::objstore::{ErrorKind, Op};

pub(super) use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};

/// From the SDK's error to kind and text.
pub(super) fn explain<E>(op: Op, error: &SdkError<E, HttpResponse>, key_file: Option<&Path>) -> (ErrorKind, String)
where
    E: ProvideErrorMetadata + StdError + Send + Sync + 'static,
{
    if let Some(error) = find::<CredentialsError>(error) {
        let detail = format!("no credentials: {}; check where they are to come from", chain(error));
        return (ErrorKind::Credentials, detail);
    }
    if let Some(stall) = find::<Stall>(error) {
        return (ErrorKind::Stalled, stall.to_string());
    }
    if let Some(answer) = refusal(error) {
        return classify(op, &answer, key_file);
    }
    match error {
        SdkError::ResponseError(broken) => {
            let status = broken.raw().status();
            if !status.is_success() {
                return classify(op, &Answer::new(broken.raw(), None, None), key_file);
            }
            let detail = format!(
                "the answer ({}) is cut or is not that of an S3 store: {}",
                status.as_u16(),
                below(error)
            );
            (ErrorKind::Network, detail)
        }
        SdkError::TimeoutError(_) => (ErrorKind::Stalled, format!("no answer in time: {}", below(error))),
        SdkError::DispatchFailure(failure) if failure.is_timeout() => {
            (ErrorKind::Stalled, format!("no answer in time: {}", below(error)))
        }
        SdkError::DispatchFailure(_) if transport::not_connected(error) => (ErrorKind::Network, below(error)),
        SdkError::DispatchFailure(_) if transport::not_http(error) => {
            let detail = format!("what answers does not speak HTTP: {}; see `insecure`", below(error));
            (ErrorKind::Network, detail)
        }
        SdkError::DispatchFailure(_) => (ErrorKind::Network, format!("no answer: {}", below(error))),
        _ => (
            ErrorKind::Refused,
            format!("the request cannot be made: {}", below(error)),
        ),
    }
}

/// What the store said, if it refused the request in its own words.
fn refusal<E: ProvideErrorMetadata>(error: &SdkError<E, HttpResponse>) -> Option<Answer> {
    let SdkError::ServiceError(refused) = error else {
        return None;
    };
    let meta = refused.err().meta();
    Some(Answer::new(refused.raw(), meta.code(), meta.message()))
}

/// Whether a refusal means that the store wants `Content-MD5` in place of CRC32C, and why we think so.
pub(super) fn wants_md5<E: ProvideErrorMetadata>(error: &SdkError<E, HttpResponse>) -> Option<String> {
    refusal(error).filter(asks_for_md5).map(|answer| answer.said())
}

/// Whether a refusal means that the store wants bodies signed, and why we think so.
pub(super) fn wants_signed_body<E: ProvideErrorMetadata>(error: &SdkError<E, HttpResponse>) -> Option<String> {
    refusal(error).filter(refuses_unsigned_body).map(|answer| answer.said())
}

/// Whether an object that was to be new is refused since there is one.
pub(super) fn is_there_already<E>(error: &SdkError<E, HttpResponse>) -> bool {
    error
        .raw_response()
        .is_some_and(|answer| answer.status().as_u16() == 412)
}

/// Whether a refusal means that the store does not know the condition that an object is to be new, and why we think so.
pub(super) fn knows_no_condition<E: ProvideErrorMetadata>(error: &SdkError<E, HttpResponse>) -> Option<String> {
    refusal(error).filter(refuses_condition).map(|answer| answer.said())
}

/// The kind of failure when an answer breaks off in its body.
pub(super) fn broken_off(error: &(dyn StdError + 'static)) -> ErrorKind {
    match find::<Stall>(error) {
        Some(_) => ErrorKind::Stalled,
        None => ErrorKind::Network,
    }
}

/// The store's code, if it gave one.
pub(super) fn code<E: ProvideErrorMetadata>(error: &SdkError<E, HttpResponse>) -> Option<&str> {
    error.as_service_error().and_then(|error| error.meta().code())
}

/// The chain below the SDK's own, empty words.
fn below<E: StdError + 'static>(error: &SdkError<E, HttpResponse>) -> String {
    error.source().map_or_else(|| error.to_string(), chain)
}
