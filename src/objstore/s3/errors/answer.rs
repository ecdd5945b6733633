//! A store's refusal, by kind and with help for the operator: [`classify`] is the one table.

use std::{path::Path, time::SystemTime};

use super::{HttpResponse, tidy};
use crate::objstore::{ErrorKind, Op, transfer::words::element};

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
    /// The storage class of the object, where the refusal is about that.
    pub(super) storage_class: Option<String>,
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
        let in_body = |name: &str| element(body, name).map(tidy);
        Self {
            status: response.status().as_u16(),
            code: code.map(tidy).or_else(|| in_body("Code")).unwrap_or_default(),
            message: message.map(tidy).or_else(|| in_body("Message")).unwrap_or_default(),
            region: header("x-amz-bucket-region").or_else(|| in_body("Region")),
            endpoint: in_body("Endpoint"),
            their_time: in_body("ServerTime").or_else(|| header("date")),
            our_time: in_body("RequestTime"),
            about: in_body("Header").or_else(|| in_body("ArgumentName")),
            storage_class: in_body("StorageClass"),
            request_id: header("x-amz-request-id").map(|id| tidy(&id)),
        }
    }

    /// Whether one of these words is in what the store said, in lower case.
    fn mentions_any(&self, words: &[&str]) -> bool {
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
        | "UnauthorizedAccess"
        | "AccountProblem"
        | "AllAccessDisabled" => Credentials,
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
        "InvalidStorageClass" => Configuration,
        _ => match obstacle(op, answer) {
            Some(obstacle) => kind_of_obstacle(op, obstacle, answer),
            None if answer.code == "AccessDenied" => Forbidden,
            None => kind_of_status(op, answer),
        },
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

/// Why a store refuses one object, whatever may be done with the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Obstacle {
    /// It is in an archive, and must be restored before it can be read.
    Archived,
    /// It was encrypted with a customer's key (SSE-C) that the request does not have.
    CustomerKey,
    /// It was encrypted with a key of a key management service that is disabled, gone, or not for us. An upload is refused
    /// for the key that the configuration names.
    KmsKey,
    /// It may not be replaced: object lock, a retention policy.
    Locked,
}

fn obstacle(op: Op, answer: &Answer) -> Option<Obstacle> {
    if answer.code == "InvalidObjectState" {
        return Some(Obstacle::Archived);
    }
    if answer.code.starts_with("KMS.") {
        return Some(Obstacle::KmsKey);
    }
    if !matches!(answer.status, 400 | 403 | 409 | 501) {
        return None;
    }
    // Such a message names users, buckets and keys, which may be called anything; the action alone tells.
    if let Some((_, action)) = answer.message.split_once("not authorized to perform: ") {
        return action.starts_with("kms:").then_some(Obstacle::KmsKey);
    }
    // The connection, or a setting of the bucket: neither is about one object.
    if answer.mentions_any(&["in transit", "lock configuration"]) {
        return None;
    }
    match op {
        Op::Get | Op::Upload if answer.mentions_any(&["kms", "key management"]) => Some(Obstacle::KmsKey),
        Op::Get if answer.mentions_any(CUSTOMER_KEY) => Some(Obstacle::CustomerKey),
        Op::Get if answer.mentions_any(&["archive", "glacier", "notrestored"]) => Some(Obstacle::Archived),
        Op::Upload if answer.mentions_any(&["objectlocked", "object lock", "worm", "retention"]) => {
            Some(Obstacle::Locked)
        }
        _ => None,
    }
}

/// Words by which a refusal is known to be about a customer's key.
const CUSTOMER_KEY: &[&str] = &["encrypt", "customer key", "customer-key", "customerkey", "sse-c"];

fn kind_of_obstacle(op: Op, obstacle: Obstacle, answer: &Answer) -> ErrorKind {
    match (obstacle, op, answer.status) {
        (Obstacle::KmsKey, Op::Get | Op::Upload, 403) => ErrorKind::Forbidden,
        (Obstacle::KmsKey, Op::Upload, _) => ErrorKind::Configuration,
        _ => ErrorKind::Refused,
    }
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
            "AccountProblem" | "AllAccessDisabled" => {
                "the store has disabled the account or all access to the bucket: ask its operator".to_owned()
            }
            _ => "check the access key, or where credentials come from".to_owned(),
        },
        Forbidden => forbidden(op, answer, key_file),
        Region => region(answer),
        Clock => clock(answer),
        Throttled => "the request is retried with growing waits".to_owned(),
        Integrity => "the data was damaged on the way, or changed while it was read".to_owned(),
        Configuration => configuration(answer).to_owned(),
        Refused => return refused(op, answer, key_file),
        _ => return None,
    })
}

fn refused(op: Op, answer: &Answer, key_file: Option<&Path>) -> Option<String> {
    match obstacle(op, answer) {
        Some(Obstacle::Archived) => return Some(archived(answer)),
        Some(Obstacle::CustomerKey) => return Some(wrong_key(key_file)),
        Some(Obstacle::KmsKey) => {
            let help = "the KMS key that the object was encrypted with cannot be used: check its state, and whether it was \
                        deleted";
            return Some(help.to_owned());
        }
        Some(Obstacle::Locked) => {
            return Some("the object is locked: its retention must end before it can be replaced".to_owned());
        }
        None => {}
    }
    Some(match (answer.code.as_str(), answer.status) {
        ("EntityTooLarge" | "MaxMessageLengthExceeded", _) => {
            "more than this store takes in one request: disable_multipart must be off, or part_size smaller".to_owned()
        }
        (_, 413) => {
            "too large for the store, or for a proxy in front of it, which may limit bodies: a smaller part_size \
                     helps, and disable_multipart must be off"
                .to_owned()
        }
        // An answer to HEAD has no words: the commonest reason.
        ("", 400) if op == Op::Get => wrong_key(key_file),
        _ => return None,
    })
}

fn archived(answer: &Answer) -> String {
    let class = answer.storage_class.as_ref();
    let class = class.map_or_else(String::new, |class| format!(" (storage class {class})"));
    format!("the object is archived{class}: restore it from the archive (RestoreObject), then it can be read")
}

fn wrong_key(key_file: Option<&Path>) -> String {
    match key_file {
        Some(file) => format!(
            "the object was encrypted with another customer's key than that in {} (sse_config.encryption_key), or with \
             none: read it with the key that it was sent with",
            file.display()
        ),
        None => {
            "the object seems to be encrypted with a customer's key: set sse_config to type SSE-C with the key that \
                 it was sent with"
                .to_owned()
        }
    }
}

fn configuration(answer: &Answer) -> &'static str {
    match answer.code.as_str() {
        "InvalidStorageClass" => {
            "put_user_metadata asks for a storage class (X-Amz-Storage-Class) that this store lacks"
        }
        _ if obstacle(Op::Upload, answer) == Some(Obstacle::KmsKey) => {
            "check sse_config.kms_key_id and the key's state"
        }
        _ => "the store cannot do what the configuration asks of every object: see put_user_metadata and sse_config",
    }
}

fn forbidden(op: Op, answer: &Answer, key_file: Option<&Path>) -> String {
    let kms = obstacle(op, answer) == Some(Obstacle::KmsKey);
    match op {
        Op::Upload if kms => {
            "the credentials need kms:GenerateDataKey and kms:Decrypt for sse_config.kms_key_id".to_owned()
        }
        Op::Get if kms => {
            "the credentials need kms:Decrypt for the KMS key that the object was encrypted with".to_owned()
        }
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
        (400, _) => answer.mentions_any(CHECKSUM),
        _ => false,
    }
}

/// Whether a refusal of a request with an unsigned body is about that. Of a policy Amazon says only that it
/// denies explicitly; such policies are written against `UNSIGNED-PAYLOAD`.
pub(super) fn refuses_unsigned_body(answer: &Answer) -> bool {
    const WORDS: &[&str] = &[
        "unsigned-payload",
        "unsigned payload",
        "content-sha256",
        "contentsha256",
    ];
    match answer.status {
        403 if answer.code == "AccessDenied" => answer.mentions_any(&["explicit deny"]) || answer.mentions_any(WORDS),
        400 | 403 | 411 | 501 => answer.mentions_any(WORDS),
        _ => false,
    }
}

/// Whether a refusal is about the condition that an object is to be new.
pub(super) fn refuses_condition(answer: &Answer) -> bool {
    match answer.status {
        // Which header is not implemented is seldom said: the checksum was sent to this store before.
        501 => !answer.mentions_any(CHECKSUM),
        400 => answer.mentions_any(&["if-none-match", "conditional", "precondition"]),
        _ => false,
    }
}

/// Words by which a refusal is known to be about checksums.
const CHECKSUM: &[&str] = &["md5", "checksum", "crc32c"];

#[cfg(test)]
mod tests;
