//! What Google's store answers when it refuses, by kind and with help for the operator.

use serde::Deserialize;

use crate::objstore::{ErrorKind, Op, rest::Refusal, transfer::words::tidy};

#[derive(Default, Deserialize)]
struct Document {
    #[serde(default)]
    error: Told,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Told {
    message: String,
    errors: Vec<Item>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Item {
    reason: String,
}

pub(super) fn explain(op: Op, answer: &Refusal) -> (ErrorKind, String) {
    let told = serde_json::from_slice::<Document>(&answer.body)
        .unwrap_or_default()
        .error;
    let reason = told.errors.first().map(|item| item.reason.as_str()).unwrap_or_default();
    // Some answers are plain text.
    let message = match told.message.is_empty() {
        true => tidy(&String::from_utf8_lossy(&answer.body)),
        false => tidy(&told.message),
    };
    let kind = kind(op, answer.status, reason, &message);
    let mut detail = format!("the store answered {}", answer.status);
    for part in [tidy(reason), message] {
        if !part.is_empty() {
            detail = format!("{detail}: {part}");
        }
    }
    if let Some(help) = help(op, kind) {
        detail = format!("{detail}; {help}");
    }
    (kind, detail)
}

fn kind(op: Op, status: u16, reason: &str, message: &str) -> ErrorKind {
    use ErrorKind::*;
    let mentions = |word: &str| message.to_ascii_lowercase().contains(word);
    match (status, reason) {
        (_, "rateLimitExceeded" | "userRateLimitExceeded" | "quotaExceeded" | "SlowDown") | (429, _) => Throttled,
        // The bytes were not those of the checksum that went with them.
        (400, _) if op == Op::Upload && (mentions("crc32c") || mentions("hash")) => Integrity,
        (401, _) => Credentials,
        (403, _) => Forbidden,
        // Where no object is asked for, there can be nothing else that is not there.
        (404, _) if mentions("bucket") || op == Op::Iter => NoBucket,
        (404 | 410, _) => NotFound,
        (412, _) => Integrity,
        (408 | 499, _) => Server,
        (500.., _) => Server,
        _ => Refused,
    }
}

fn help(op: Op, kind: ErrorKind) -> Option<&'static str> {
    Some(match (kind, op) {
        (ErrorKind::NoBucket, _) => "create the bucket, or correct `bucket`",
        (ErrorKind::Credentials, _) => {
            "check the key of the service account, or which account the metadata server gives to this pod; and this host's clock"
        }
        (ErrorKind::Forbidden, Op::Upload) => {
            "the account needs storage.objects.create, and storage.objects.delete to replace what is there"
        }
        (ErrorKind::Forbidden, Op::Get) => "the account needs storage.objects.get",
        (ErrorKind::Forbidden, Op::Iter) => "the account needs storage.objects.list",
        (ErrorKind::Forbidden, Op::Delete) => {
            "the account needs storage.multipartUploads.abort or storage.objects.create"
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http::HeaderMap;

    use super::*;

    fn explained(op: Op, status: u16, body: &str) -> (ErrorKind, String) {
        let refusal = Refusal {
            status,
            headers: HeaderMap::new(),
            body: Bytes::copy_from_slice(body.as_bytes()),
        };
        explain(op, &refusal)
    }

    fn json(code: u16, reason: &str, message: &str) -> String {
        format!(
            r#"{{"error": {{"code": {code}, "message": "{message}", "errors": [{{"reason": "{reason}", "message": "{message}"}}]}}}}"#
        )
    }

    #[test]
    fn refusals_are_known_by_status_reason_and_words() {
        use ErrorKind::*;
        for (op, status, reason, message, wanted) in [
            (
                Op::Get,
                404,
                "notFound",
                "No such object: metrics/01/meta.json",
                NotFound,
            ),
            (
                Op::Iter,
                404,
                "notFound",
                "The specified bucket does not exist.",
                NoBucket,
            ),
            (Op::Upload, 401, "authError", "Invalid Credentials", Credentials),
            (
                Op::Upload,
                403,
                "forbidden",
                "a@b does not have storage.objects.create access",
                Forbidden,
            ),
            (Op::Upload, 403, "rateLimitExceeded", "slow down", Throttled),
            (Op::Upload, 429, "rateLimitExceeded", "slow down", Throttled),
            (
                Op::Upload,
                400,
                "invalid",
                "Provided CRC32C \\\"AAAAAA==\\\" doesn't match calculated CRC32C",
                Integrity,
            ),
            (Op::Upload, 400, "invalid", "Invalid argument", Refused),
            (Op::Upload, 503, "backendError", "Backend Error", Server),
            (Op::Get, 408, "", "", Server),
        ] {
            let (kind, detail) = explained(op, status, &json(status, reason, message));
            assert_eq!(kind, wanted, "{detail}");
            assert!(detail.starts_with(&format!("the store answered {status}")), "{detail}");
        }
    }

    #[test]
    fn what_is_no_json_is_shown_in_one_line() {
        let (kind, detail) = explained(Op::Get, 502, "<html>\nBad Gateway\u{1b}</html>");
        assert_eq!(kind, ErrorKind::Server);
        assert_eq!(detail, "the store answered 502: <html> Bad Gateway </html>");
        assert_eq!(
            explained(Op::Get, 403, "").1,
            "the store answered 403; the account needs storage.objects.get"
        );
    }
}
