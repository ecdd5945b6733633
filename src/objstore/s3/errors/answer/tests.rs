use super::*;
use crate::objstore::{Error, Scope};

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
        (Upload, answer(501, "NotImplemented", ""), Configuration, "sse_config"),
        (Iter, answer(501, "NotImplemented", ""), Refused, "501"),
        (Upload, answer(400, "BadDigest", ""), Integrity, "damaged"),
        (Upload, answer(400, "RequestTimeout", ""), Network, "RequestTimeout"),
        (Upload, answer(400, "EntityTooLarge", ""), Refused, "part_size"),
        (
            Upload,
            answer(400, "KMS.DisabledException", ""),
            Configuration,
            "kms_key_id",
        ),
        (
            Upload,
            answer(400, "KMS.NotFoundException", ""),
            Configuration,
            "kms_key_id",
        ),
        (
            Get,
            answer(400, "KMS.DisabledException", ""),
            Refused,
            "check its state",
        ),
        (
            Upload,
            answer(403, "KMS.AccessDeniedException", ""),
            Forbidden,
            "kms:GenerateDataKey",
        ),
        (
            Get,
            answer(403, "KMS.AccessDeniedException", ""),
            Forbidden,
            "kms:Decrypt",
        ),
        (
            Upload,
            answer(400, "KMS.ThrottlingException", ""),
            Throttled,
            "growing waits",
        ),
        (
            Upload,
            answer(400, "InvalidStorageClass", ""),
            Configuration,
            "X-Amz-Storage-Class",
        ),
        (Upload, answer(413, "", ""), Refused, "a proxy in front"),
        (Upload, answer(413, "", "<html>"), Refused, "smaller part_size"),
        (Upload, answer(413, "EntityTooLarge", ""), Refused, "disable_multipart"),
        (
            Get,
            answer(403, "InvalidObjectState", "not valid for the storage class"),
            Refused,
            "restore it from the archive",
        ),
        (Upload, answer(409, "ConditionalRequestConflict", ""), Server, "409"),
        (Upload, answer(412, "PreconditionFailed", ""), Refused, "412"),
        (
            Upload,
            answer(400, "InvalidArgument", "what is this"),
            Refused,
            "InvalidArgument: what is this",
        ),
    ] {
        let (got, detail) = classify(op, &answer, None);
        assert_eq!(got, kind, "{op:?} {answer:?}");
        assert!(detail.contains(help), "{detail:?} does not say {help:?}");
    }
}

#[test]
fn an_object_of_another_customers_key_is_told_with_the_key() {
    let file = Some(Path::new("/etc/narthex/sse.key"));
    let encrypted = "The object was stored using a form of Server Side Encryption.";
    for (status, code, message) in [
        (400, "InvalidRequest", encrypted),
        (
            403,
            "AccessDenied",
            "The calculated MD5 hash of the key did not match: SSE-C",
        ),
        (400, "InvalidEncryptionAlgorithmError", ""),
        (400, "", ""),
    ] {
        let answer = answer(status, code, message);
        let (kind, detail) = classify(Op::Get, &answer, file);
        assert_eq!(kind, ErrorKind::Refused, "{answer:?}");
        assert!(
            detail.contains("/etc/narthex/sse.key") && !detail.contains("s3:GetObject"),
            "{detail}"
        );
    }
    for answer in [answer(400, "InvalidRequest", encrypted), answer(400, "", "")] {
        let (kind, detail) = classify(Op::Get, &answer, None);
        assert_eq!(kind, ErrorKind::Refused);
        assert!(detail.contains("set sse_config to type SSE-C"), "{detail}");
    }
    // An answer to HEAD says nothing: it may be the one or the other.
    let (kind, detail) = classify(Op::Get, &answer(403, "", ""), file);
    assert_eq!(kind, ErrorKind::Forbidden);
    assert!(
        detail.contains("s3:GetObject") && detail.contains("/etc/narthex/sse.key"),
        "{detail}"
    );
}

#[test]
fn what_is_said_of_connections_and_buckets_is_not_taken_for_a_reason_of_one_object() {
    for (op, answer) in [
        (
            Op::Get,
            answer(400, "InvalidRequest", "Data must be encrypted in transit"),
        ),
        (
            Op::Upload,
            answer(400, "InvalidRequest", "Bucket is missing Object Lock Configuration"),
        ),
    ] {
        let (_, text) = classify(op, &answer, None);
        for reason in ["customer", "is locked", "archive", "KMS"] {
            assert!(!text.contains(reason), "{text}");
        }
        assert!(text.contains(&answer.message), "{text}");
    }
}

#[test]
fn why_one_object_is_refused_is_said_in_its_own_words() {
    let denied = |action: &str, resource: &str| {
        let user = "User: arn:aws:iam::1:user/kms-archive-encryptor";
        let message =
            format!("{user} is not authorized to perform: {action} on resource: {resource} because no policy allows");
        answer(403, "AccessDenied", &message)
    };
    let glacier = Answer {
        storage_class: Some("DEEP_ARCHIVE".into()),
        ..answer(
            403,
            "InvalidObjectState",
            "The operation is not valid for the object's storage class",
        )
    };
    let key = "arn:aws:kms:eu-west-1:1:key/k";
    for (op, answer, scope, help) in [
        (
            Op::Get,
            glacier,
            Scope::Object,
            "archived (storage class DEEP_ARCHIVE): restore it",
        ),
        (
            Op::Get,
            answer(409, "NotRestored", "The object is archived"),
            Scope::Object,
            "restore it from the archive",
        ),
        (Op::Get, denied("kms:Decrypt", key), Scope::Object, "need kms:Decrypt"),
        (
            Op::Upload,
            denied("kms:GenerateDataKey", key),
            Scope::Bucket,
            "kms:GenerateDataKey",
        ),
        (
            Op::Get,
            answer(400, "KMS.KMSInvalidStateException", "key/k is pending deletion"),
            Scope::Object,
            "check its state",
        ),
        (
            Op::Get,
            answer(
                501,
                "NotImplemented",
                "Server side encryption specified but KMS is not configured",
            ),
            Scope::Object,
            "KMS key",
        ),
        // Names of users and buckets are no reasons.
        (
            Op::Get,
            denied("s3:GetObject", "arn:aws:s3:::glacier-kms-encrypted/x"),
            Scope::Object,
            "need s3:GetObject",
        ),
        (
            Op::Upload,
            answer(
                403,
                "RetentionPolicyNotMet",
                "Object is subject to bucket's retention policy",
            ),
            Scope::Object,
            "the object is locked",
        ),
        (
            Op::Upload,
            denied("s3:PutObject", "arn:aws:s3:::retention/x"),
            Scope::Bucket,
            "need s3:PutObject",
        ),
    ] {
        let (kind, detail) = classify(op, &answer, None);
        assert!(detail.contains(help), "{detail:?} does not say {help:?}");
        assert_eq!(help.contains("s3:"), detail.contains("need s3:"), "{detail}");
        let error = Error {
            op,
            key: String::new(),
            kind,
            detail,
            source: None,
        };
        assert_eq!(error.scope(), scope, "{error}: {kind:?}");
    }
}

#[test]
fn what_concerns_one_object_is_told_from_what_concerns_all() {
    use Op::*;
    for (scope, op, answers) in [
        (
            Scope::Object,
            Upload,
            &[
                (413, ""),
                (400, "EntityTooLarge"),
                (400, "InvalidArgument"),
                (400, "BadDigest"),
                (412, ""),
            ][..],
        ),
        (
            Scope::Object,
            Get,
            &[
                (403, "InvalidObjectState"),
                (403, "AccessDenied"),
                (403, ""),
                (400, ""),
                (404, "NoSuchKey"),
                (404, ""),
                (405, ""),
                (400, "KMS.DisabledException"),
                (403, "KMS.AccessDeniedException"),
                (501, ""),
            ],
        ),
        (
            Scope::Bucket,
            Upload,
            &[
                (403, "AccessDenied"),
                (403, ""),
                (404, "NoSuchBucket"),
                (404, ""),
                (400, "InvalidStorageClass"),
                (400, "KMS.DisabledException"),
                (403, "KMS.AccessDeniedException"),
                (501, "NotImplemented"),
                (403, "SignatureDoesNotMatch"),
                (403, "RequestTimeTooSkewed"),
                (301, "PermanentRedirect"),
                (409, "OperationAborted"),
                (429, ""),
                (500, "InternalError"),
                (503, "SlowDown"),
            ],
        ),
        (
            Scope::Bucket,
            Get,
            &[
                (404, "NoSuchBucket"),
                (400, "ExpiredToken"),
                (403, "AccountProblem"),
                (403, "AllAccessDisabled"),
                (401, ""),
                (500, ""),
                (503, "SlowDown"),
            ],
        ),
        (
            Scope::Bucket,
            Iter,
            &[(403, "AccessDenied"), (400, ""), (404, ""), (501, ""), (500, "")],
        ),
    ] {
        for (status, code) in answers {
            let (kind, detail) = classify(op, &answer(*status, code, ""), None);
            let error = Error {
                op,
                key: String::new(),
                kind,
                detail,
                source: None,
            };
            assert_eq!(error.scope(), scope, "{op:?} {status} {code}: {kind:?}");
        }
    }
}

#[test]
fn only_words_about_the_condition_lead_to_sending_without_it() {
    for (refuses, answer) in [
        (
            true,
            answer(
                501,
                "NotImplemented",
                "A header you provided implies functionality that is not implemented",
            ),
        ),
        (true, answer(400, "InvalidArgument", "unsupported header If-None-Match")),
        (
            true,
            Answer {
                about: Some("If-None-Match".into()),
                ..answer(400, "InvalidArgument", "what is this?")
            },
        ),
        (
            false,
            answer(501, "NotImplemented", "x-amz-checksum-crc32c is not implemented"),
        ),
        (false, answer(400, "InvalidArgument", "Invalid storage class")),
        (false, answer(412, "PreconditionFailed", "")),
        (false, answer(403, "AccessDenied", "If-None-Match")),
    ] {
        assert_eq!(refuses_condition(&answer), refuses, "{answer:?}");
    }
}

#[test]
fn a_skewed_clock_shows_both_times() {
    let answer = Answer {
        our_time: Some("20260101T000000Z".into()),
        their_time: Some("2026-01-01T01:00:00Z".into()),
        ..answer(403, "RequestTimeTooSkewed", "The difference is too large.")
    };
    let (_, detail) = classify(Op::Upload, &answer, None);
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
    let (_, detail) = classify(Op::Get, &answer, None);
    assert!(detail.len() < 400 && !detail.contains(char::is_control), "{detail}");
    assert_eq!(element("<Error><Region> eu </Region></Error>", "Region"), Some("eu"));
    assert_eq!(element("<Error><Region></Region></Error>", "Region"), None);
    assert_eq!(element("<html>", "Region"), None);
}
