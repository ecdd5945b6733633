//! A store's refusal, by kind and with help for the operator: [`classify`] is the one table.

use std::{path::Path, time::SystemTime};

use super::HttpResponse;
use crate::objstore::{ErrorKind, Op};

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
    /// The header or argument that the refusal is about, where the store names it.
    pub(super) about: Option<String>,
    pub(super) request_id: Option<String>,
}

impl Answer {
    pub(super) fn new(response: &HttpResponse, code: Option<&str>, message: Option<&str>) -> Self {
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
            about: told("Header").or_else(|| told("ArgumentName")),
            request_id: header("x-amz-request-id").map(|id| tidy(&id)),
        }
    }

    /// Whether one of these words is in what the store said, in lower case.
    fn speaks_of(&self, words: &[&str]) -> bool {
        let said = [&self.code, &self.message, self.about.as_ref().unwrap_or(&self.code)];
        let said = said.map(|text| text.to_ascii_lowercase());
        words.iter().any(|word| said.iter().any(|text| text.contains(word)))
    }

    /// What the store said, in its own words.
    pub(super) fn said(&self) -> String {
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
pub(in crate::objstore::s3) fn tidy(text: &str) -> String {
    let line: String = text
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(MESSAGE_LIMIT)
        .collect();
    line.trim().to_owned()
}

/// What kind of failure an answer is, what was said, and what helps. `key_file` is the customer's key, if there is one.
pub(super) fn classify(op: Op, answer: &Answer, key_file: Option<&Path>) -> (ErrorKind, String) {
    let kind = kind(op, answer);
    let said = answer.said();
    let detail = match help(op, kind, answer, key_file) {
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
        | "BandwidthLimitExceeded"
        | "KMS.ThrottlingException" => Throttled,
        "BadDigest"
        | "InvalidDigest"
        | "XAmzContentSHA256Mismatch"
        | "XAmzContentChecksumMismatch"
        | "ContentSHA256Mismatch" => Integrity,
        "RequestTimeout" | "IncompleteBody" => Network,
        "InternalError" | "KMS.KMSInternalException" | "KMS.InternalException" | "KMS.DependencyTimeoutException" => {
            Server
        }
        "InvalidObjectState" => Refused,
        "InvalidStorageClass" => Configuration,
        _ if op == Op::Get && other_key(answer) => Refused,
        "AccessDenied" | "AllAccessDisabled" | "AccountProblem" | "KMS.AccessDeniedException" => Forbidden,
        // The key of one object, or the one that all are to be sent with.
        code if code.starts_with("KMS.") && op == Op::Upload => Configuration,
        code if code.starts_with("KMS.") => Refused,
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
        501 if op == Op::Upload => Configuration,
        501 => Refused,
        499 | 500.. => Server,
        _ => Refused,
    }
}

/// Whether an object is refused since it was encrypted with a key that the request does not have.
fn other_key(answer: &Answer) -> bool {
    let words = ["encrypt", "customer key", "customer-key", "customerkey", "sse-c"];
    matches!(answer.status, 400 | 403) && !answer.code.starts_with("KMS.") && answer.speaks_of(&words)
}

fn help(op: Op, kind: ErrorKind, answer: &Answer, key_file: Option<&Path>) -> Option<String> {
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
        Forbidden => forbidden(op, answer, key_file),
        Region => region(answer),
        Clock => clock(answer),
        Throttled => "it is asked less often until it recovers".to_owned(),
        Integrity => "the data was damaged on the way, or changed while it was read".to_owned(),
        Configuration => configuration(answer).to_owned(),
        Refused => return refused(op, answer, key_file),
        _ => return None,
    })
}

fn refused(op: Op, answer: &Answer, key_file: Option<&Path>) -> Option<String> {
    Some(match (answer.code.as_str(), answer.status) {
        ("InvalidObjectState", _) => {
            "the object is archived: restore it from the archive (RestoreObject), then it can be read".to_owned()
        }
        ("EntityTooLarge" | "MaxMessageLengthExceeded", _) => {
            "more than this store takes in one request: disable_multipart must be off, or part_size smaller".to_owned()
        }
        (_, 413) => {
            "too large for the store, or for a proxy in front of it, which may limit bodies: a smaller part_size \
                     helps, and disable_multipart must be off"
                .to_owned()
        }
        (code, _) if code.starts_with("KMS.") => {
            "check the state of the KMS key that the object was encrypted with".into()
        }
        _ if op == Op::Get && other_key(answer) => wrong_key(key_file),
        // Answers to HEAD say nothing but this.
        ("", 400) if op == Op::Get && key_file.is_some() => wrong_key(key_file),
        _ => return None,
    })
}

fn wrong_key(key_file: Option<&Path>) -> String {
    match key_file {
        Some(file) => format!(
            "the object was encrypted with another customer's key than that in {} (sse_config.encryption_key), or with \
             none: read it with the key that it was sent with",
            file.display()
        ),
        None => "the object is encrypted with a customer's key: set sse_config to type SSE-C with the key that it was \
                 sent with"
            .to_owned(),
    }
}

fn configuration(answer: &Answer) -> &'static str {
    match answer.code.as_str() {
        "InvalidStorageClass" => {
            "put_user_metadata asks for a storage class (X-Amz-Storage-Class) that this store lacks"
        }
        code if code.starts_with("KMS.") => "check sse_config.kms_key_id and the key's state",
        _ => "the store cannot do what the configuration asks of every object: see put_user_metadata and sse_config",
    }
}

fn forbidden(op: Op, answer: &Answer, key_file: Option<&Path>) -> String {
    let kms = answer.code.starts_with("KMS.");
    match op {
        Op::Upload if kms => {
            "the credentials need kms:GenerateDataKey and kms:Decrypt for sse_config.kms_key_id".to_owned()
        }
        Op::Get if kms => "the credentials need kms:Decrypt for the key that the object was encrypted with".to_owned(),
        Op::Upload => {
            "the credentials need s3:PutObject here (with SSE-KMS also kms:GenerateDataKey and kms:Decrypt)".to_owned()
        }
        Op::Get => {
            let rights = "the credentials need s3:GetObject, and s3:ListBucket on the bucket: without it a missing object \
                          is answered like a forbidden one";
            match key_file {
                Some(file) => format!(
                    "{rights}; or the object was encrypted with another customer's key than that in {}",
                    file.display()
                ),
                None => rights.to_owned(),
            }
        }
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

/// Whether a refusal asks for `Content-MD5` in place of another checksum.
pub(super) fn asks_for_md5(answer: &Answer) -> bool {
    match (answer.status, answer.code.as_str()) {
        (_, "BadDigest" | "XAmzContentChecksumMismatch") => false,
        (400, "MissingContentMD5") | (501, _) => true,
        (400, _) => answer.speaks_of(CHECKSUM),
        _ => false,
    }
}

/// Whether a refusal is about the condition that an object is to be new.
pub(super) fn refuses_condition(answer: &Answer) -> bool {
    match answer.status {
        // Which header is not implemented is seldom said: the checksum was sent to this store before.
        501 => !answer.speaks_of(CHECKSUM),
        400 => answer.speaks_of(&["if-none-match", "conditional", "precondition"]),
        _ => false,
    }
}

/// Words by which a refusal is known to be about checksums.
const CHECKSUM: &[&str] = &["md5", "checksum", "crc32c"];

#[cfg(test)]
mod tests;
