//! From what a store answers, or fails to answer, to an error by kind with help for the operator.
//!
//! [`classify`] is the one table. Texts hold what the store said about the request (code, message, request id), never
//! headers, keys or signatures.

use std::{error::Error as StdError, time::SystemTime};

use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_s3::error::ProvideErrorMetadata;
use aws_smithy_runtime_api::client::result::SdkError;

use super::guard::Stall;
use crate::objstore::{ErrorKind, Op};

pub(super) use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};

/// How much of a store's message is passed on, in characters.
const MESSAGE_LIMIT: usize = 300;

/// A store's refusal, taken apart.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) code: String,
    pub(super) message: String,
    /// The region that the store names as the right one.
    pub(super) region: Option<String>,
    /// The endpoint that the store names as the right one.
    pub(super) endpoint: Option<String>,
    /// The store's clock.
    pub(super) their_time: Option<String>,
    /// Our clock, as the store read it from the request.
    pub(super) our_time: Option<String>,
    pub(super) request_id: Option<String>,
}

impl Answer {
    fn new(response: &HttpResponse, code: Option<&str>, message: Option<&str>) -> Self {
        let body = response
            .body()
            .bytes()
            .and_then(|body| std::str::from_utf8(body).ok())
            .unwrap_or_default();
        let header = |name: &str| response.headers().get(name).map(str::to_owned);
        let told = |name: &str| element(body, name).map(tidy);
        Self {
            status: response.status().as_u16(),
            code: code.map(tidy).or_else(|| told("Code")).unwrap_or_default(),
            message: message.map(tidy).or_else(|| told("Message")).unwrap_or_default(),
            region: header("x-amz-bucket-region").or_else(|| told("Region")),
            endpoint: told("Endpoint"),
            their_time: told("ServerTime").or_else(|| header("date")),
            our_time: told("RequestTime"),
            request_id: header("x-amz-request-id").map(|id| tidy(&id)),
        }
    }

    /// What the store said, in its own words.
    fn said(&self) -> String {
        let mut said = format!("the store answered {}", self.status);
        for part in [&self.code, &self.message] {
            if !part.is_empty() {
                said.push_str(if said.ends_with(|c: char| c.is_ascii_digit()) {
                    " "
                } else {
                    ": "
                });
                said.push_str(part);
            }
        }
        if let Some(id) = &self.request_id {
            said.push_str(&format!(" (request {id})"));
        }
        said
    }
}

/// The text of the first element of this name in an XML error; these documents are flat.
fn element<'a>(body: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = body.split_once(&format!("<{name}>"))?;
    let (text, _) = rest.split_once(&format!("</{name}>"))?;
    (!text.trim().is_empty()).then(|| text.trim())
}

/// One line of bounded length: stores and proxies answer all sorts of things.
pub(super) fn tidy(text: &str) -> String {
    let line: String = text
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(MESSAGE_LIMIT)
        .collect();
    line.trim().to_owned()
}

/// What kind of failure an answer is, what was said, and what helps.
pub(super) fn classify(op: Op, answer: &Answer) -> (ErrorKind, String) {
    let kind = kind(op, answer);
    let said = answer.said();
    let detail = match help(op, kind, answer) {
        Some(help) => format!("{said}; {help}"),
        None => said,
    };
    (kind, detail)
}

fn kind(op: Op, answer: &Answer) -> ErrorKind {
    use ErrorKind::*;
    match answer.code.as_str() {
        "NoSuchBucket" => NoBucket,
        "NoSuchKey" => NotFound,
        // Another try opens a new upload.
        "NoSuchUpload" | "InvalidPart" | "OperationAborted" | "ConditionalRequestConflict" => Server,
        "InvalidAccessKeyId"
        | "SignatureDoesNotMatch"
        | "ExpiredToken"
        | "ExpiredTokenException"
        | "InvalidToken"
        | "TokenRefreshRequired"
        | "InvalidSecurity"
        | "InvalidClientTokenId"
        | "UnrecognizedClientException"
        | "AuthFailure"
        | "MissingAuthenticationToken"
        | "NotSignedUp"
        | "UnauthorizedAccess" => Credentials,
        "AuthorizationHeaderMalformed" if answer.region.is_none() && !answer.message.contains("region") => Credentials,
        "AuthorizationHeaderMalformed"
        | "PermanentRedirect"
        | "TemporaryRedirect"
        | "Redirect"
        | "IllegalLocationConstraintException"
        | "IncorrectEndpoint" => Region,
        "RequestTimeTooSkewed" | "RequestExpired" => Clock,
        "SlowDown"
        | "SlowDownRead"
        | "SlowDownWrite"
        | "Throttling"
        | "ThrottlingException"
        | "ThrottledException"
        | "RequestThrottled"
        | "RequestLimitExceeded"
        | "TooManyRequests"
        | "TooManyRequestsException"
        | "BandwidthLimitExceeded" => Throttled,
        "BadDigest"
        | "InvalidDigest"
        | "XAmzContentSHA256Mismatch"
        | "XAmzContentChecksumMismatch"
        | "ContentSHA256Mismatch" => Integrity,
        "RequestTimeout" | "IncompleteBody" => Network,
        "InternalError" => Server,
        "AccessDenied" | "AllAccessDisabled" | "AccountProblem" | "KMS.AccessDeniedException" => Forbidden,
        _ => kind_of_status(op, answer),
    }
}

/// For answers without a code, or one that only this store knows. Answers to HEAD, and those of proxies, have none.
fn kind_of_status(op: Op, answer: &Answer) -> ErrorKind {
    use ErrorKind::*;
    match answer.status {
        301 | 302 | 307 | 308 => Region,
        400 if answer.region.is_some() => Region,
        401 => Credentials,
        403 => Forbidden,
        404 if op == Op::Get => NotFound,
        404 => NoBucket,
        408 => Network,
        409 => Server,
        429 | 503 => Throttled,
        501 => Refused,
        499 | 500.. => Server,
        _ => Refused,
    }
}

fn help(op: Op, kind: ErrorKind, answer: &Answer) -> Option<String> {
    use ErrorKind::*;
    Some(match kind {
        NoBucket => "create the bucket, or correct `bucket` and `endpoint`".to_owned(),
        Credentials => match answer.code.as_str() {
            "SignatureDoesNotMatch" => {
                "the secret key does not fit the access key, or a proxy changes requests on their way".to_owned()
            }
            "ExpiredToken" | "ExpiredTokenException" | "TokenRefreshRequired" => {
                "the temporary credentials have expired: renew them, or let their source do so".to_owned()
            }
            _ => "check the access key, or where credentials come from".to_owned(),
        },
        Forbidden => forbidden(op),
        Region => region(answer),
        Clock => clock(answer),
        Throttled => "it is asked less often until it recovers".to_owned(),
        Integrity => "the data was damaged on the way, or changed while it was read".to_owned(),
        Refused if answer.code == "EntityTooLarge" => {
            "more than this store takes in one request: disable_multipart must be off, or part_size smaller".to_owned()
        }
        Refused if answer.code.starts_with("KMS.") => "check sse_config.kms_key_id and the key's state".to_owned(),
        _ => return None,
    })
}

fn forbidden(op: Op) -> String {
    match op {
        Op::Upload => {
            "the credentials need s3:PutObject here (with SSE-KMS also kms:GenerateDataKey and kms:Decrypt)".to_owned()
        }
        Op::Get => "the credentials need s3:GetObject, and s3:ListBucket on the bucket: without it a missing object \
                    is answered like a forbidden one"
            .to_owned(),
        Op::Iter => "the credentials need s3:ListBucket on the bucket (not only on its objects)".to_owned(),
        Op::Delete => "the credentials need s3:AbortMultipartUpload".to_owned(),
    }
}

fn region(answer: &Answer) -> String {
    match (&answer.region, &answer.endpoint) {
        (Some(region), _) => {
            format!("the bucket lives in region {region:?}: set `region`, and `endpoint` if it names one")
        }
        (None, Some(endpoint)) => format!("the bucket must be addressed at {endpoint:?}: set `endpoint`"),
        (None, None) => "the bucket lives in another region: set `region`, and `endpoint` if it names one".to_owned(),
    }
}

fn clock(answer: &Answer) -> String {
    let ours = answer.our_time.clone().unwrap_or_else(|| now().to_string());
    match &answer.their_time {
        Some(theirs) => format!("this host says {ours}, the store says {theirs}: set the clock of this host (NTP)"),
        None => format!("this host says {ours}: compare the clocks of this host and of the store (NTP)"),
    }
}

fn now() -> jiff::Timestamp {
    jiff::Timestamp::try_from(SystemTime::now()).unwrap_or_default()
}

/// From the SDK's error to kind and text.
pub(super) fn explain<E>(op: Op, error: &SdkError<E, HttpResponse>) -> (ErrorKind, String)
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
    match error {
        SdkError::ServiceError(refused) => {
            let meta = refused.err().meta();
            classify(op, &Answer::new(refused.raw(), meta.code(), meta.message()))
        }
        SdkError::ResponseError(broken) => {
            let status = broken.raw().status();
            if !status.is_success() {
                return classify(op, &Answer::new(broken.raw(), None, None));
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
        SdkError::DispatchFailure(_) => (ErrorKind::Network, format!("no answer: {}", below(error))),
        _ => (
            ErrorKind::Refused,
            format!("the request cannot be made: {}", below(error)),
        ),
    }
}

/// Whether a refusal means that the store wants `Content-MD5` in place of CRC32C, and why we think so.
pub(super) fn wants_md5<E>(error: &SdkError<E, HttpResponse>) -> Option<String>
where
    E: ProvideErrorMetadata + StdError + Send + Sync + 'static,
{
    let SdkError::ServiceError(refused) = error else {
        return None;
    };
    let meta = refused.err().meta();
    let answer = Answer::new(refused.raw(), meta.code(), meta.message());
    asks_for_md5(&answer).then(|| answer.said())
}

fn asks_for_md5(answer: &Answer) -> bool {
    let message = answer.message.to_ascii_lowercase();
    let about_checksums = ["md5", "checksum", "crc32c"].iter().any(|word| message.contains(word));
    match (answer.status, answer.code.as_str()) {
        (_, "BadDigest" | "XAmzContentChecksumMismatch") => false,
        (400, "MissingContentMD5") | (501, _) => true,
        (400, _) => about_checksums,
        _ => false,
    }
}

/// The store's code, if it gave one.
pub(super) fn code<E: ProvideErrorMetadata>(error: &SdkError<E, HttpResponse>) -> Option<&str> {
    error.as_service_error().and_then(|error| error.meta().code())
}

/// The first error of a type in a chain of sources.
pub(super) fn find<'a, T: StdError + 'static>(error: &'a (dyn StdError + 'static)) -> Option<&'a T> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        next = error.source();
    }
    None
}

/// An error and all that it stems from, in one line.
pub(super) fn chain(error: &dyn StdError) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let more = error.to_string();
        if !text.ends_with(&more) {
            text = format!("{text}: {more}");
        }
        source = error.source();
    }
    tidy(&text)
}

/// The chain below the SDK's own, empty words.
fn below<E: StdError + 'static>(error: &SdkError<E, HttpResponse>) -> String {
    error.source().map_or_else(|| error.to_string(), chain)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, code: &str, message: &str) -> Answer {
        Answer {
            status,
            code: code.into(),
            message: message.into(),
            ..Answer::default()
        }
    }

    #[test]
    fn answers_become_kinds_with_help() {
        use ErrorKind::*;
        use Op::*;
        let region = |status, code: &str| Answer {
            region: Some("eu-west-1".into()),
            ..answer(status, code, "")
        };
        for (op, answer, kind, help) in [
            (Get, answer(404, "NoSuchKey", ""), NotFound, "404 NoSuchKey"),
            (Get, answer(404, "", ""), NotFound, "404"),
            (Get, answer(404, "NoSuchBucket", ""), NoBucket, "create the bucket"),
            (Upload, answer(404, "", ""), NoBucket, "create the bucket"),
            (Upload, answer(404, "NoSuchUpload", ""), Server, "NoSuchUpload"),
            (
                Upload,
                answer(403, "SignatureDoesNotMatch", ""),
                Credentials,
                "secret key does not fit",
            ),
            (
                Iter,
                answer(403, "InvalidAccessKeyId", ""),
                Credentials,
                "check the access key",
            ),
            (Iter, answer(400, "ExpiredToken", ""), Credentials, "have expired"),
            (Iter, answer(401, "", ""), Credentials, "check"),
            (
                Upload,
                answer(403, "AccessDenied", "Access Denied"),
                Forbidden,
                "s3:PutObject",
            ),
            (Get, answer(403, "", ""), Forbidden, "s3:ListBucket"),
            (Iter, answer(403, "AccessDenied", ""), Forbidden, "s3:ListBucket"),
            (
                Delete,
                answer(403, "AccessDenied", ""),
                Forbidden,
                "s3:AbortMultipartUpload",
            ),
            (Iter, region(301, "PermanentRedirect"), Region, "region \"eu-west-1\""),
            (Iter, region(301, ""), Region, "region \"eu-west-1\""),
            (
                Iter,
                region(400, "AuthorizationHeaderMalformed"),
                Region,
                "region \"eu-west-1\"",
            ),
            (Iter, region(400, ""), Region, "region \"eu-west-1\""),
            (
                Iter,
                answer(400, "AuthorizationHeaderMalformed", "bad date"),
                Credentials,
                "check",
            ),
            (Iter, answer(307, "TemporaryRedirect", ""), Region, "another region"),
            (Upload, answer(403, "RequestTimeTooSkewed", ""), Clock, "this host says"),
            (
                Upload,
                answer(503, "SlowDown", "Please reduce your request rate."),
                Throttled,
                "reduce your request rate",
            ),
            (Upload, answer(503, "", ""), Throttled, "503"),
            (Upload, answer(429, "", ""), Throttled, "429"),
            (Upload, answer(500, "InternalError", ""), Server, "500"),
            (Upload, answer(502, "", ""), Server, "502"),
            (Upload, answer(507, "", ""), Server, "507"),
            (Upload, answer(501, "NotImplemented", ""), Refused, "501"),
            (Upload, answer(400, "BadDigest", ""), Integrity, "damaged"),
            (Upload, answer(400, "RequestTimeout", ""), Network, "RequestTimeout"),
            (Upload, answer(400, "EntityTooLarge", ""), Refused, "part_size"),
            (Upload, answer(400, "KMS.DisabledException", ""), Refused, "kms_key_id"),
            (
                Upload,
                answer(400, "InvalidArgument", "what is this"),
                Refused,
                "InvalidArgument: what is this",
            ),
        ] {
            let (got, detail) = classify(op, &answer);
            assert_eq!(got, kind, "{op:?} {answer:?}");
            assert!(detail.contains(help), "{detail:?} does not say {help:?}");
        }
    }

    #[test]
    fn a_skewed_clock_shows_both_times() {
        let answer = Answer {
            our_time: Some("20260101T000000Z".into()),
            their_time: Some("2026-01-01T01:00:00Z".into()),
            ..answer(403, "RequestTimeTooSkewed", "The difference is too large.")
        };
        let (_, detail) = classify(Op::Upload, &answer);
        assert!(
            detail.contains("20260101T000000Z") && detail.contains("2026-01-01T01:00:00Z"),
            "{detail}"
        );
    }

    #[test]
    fn only_words_about_checksums_lead_to_md5() {
        for (asks, answer) in [
            (
                true,
                answer(
                    400,
                    "InvalidRequest",
                    "Content-MD5 OR x-amz-checksum- HTTP header is required",
                ),
            ),
            (
                true,
                answer(400, "InvalidArgument", "unsupported header x-amz-checksum-crc32c"),
            ),
            (
                true,
                answer(501, "NotImplemented", "A header you provided is not implemented"),
            ),
            (true, answer(400, "MissingContentMD5", "")),
            (
                false,
                answer(400, "BadDigest", "The CRC32C you specified did not match"),
            ),
            (false, answer(400, "InvalidArgument", "Invalid storage class")),
            (false, answer(403, "AccessDenied", "checksum")),
            (false, answer(500, "InternalError", "checksum")),
        ] {
            assert_eq!(asks_for_md5(&answer), asks, "{answer:?}");
        }
    }

    #[test]
    fn what_stores_say_is_kept_short_and_in_one_line() {
        let answer = answer(400, "Odd", &tidy(&format!("a\nb\u{1b}[31m{}", "x".repeat(1000))));
        let (_, detail) = classify(Op::Get, &answer);
        assert!(detail.len() < 400 && !detail.contains(char::is_control), "{detail}");
        assert_eq!(element("<Error><Region> eu </Region></Error>", "Region"), Some("eu"));
        assert_eq!(element("<Error><Region></Region></Error>", "Region"), None);
        assert_eq!(element("<html>", "Region"), None);
    }
}
