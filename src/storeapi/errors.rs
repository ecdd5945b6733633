//! The gRPC status of a call for which Prometheus could not be asked, or returned an error.

use tonic::{Code, Status};

use crate::prometheus::{
    Error, ErrorKind,
    remote_read::{ReadError, ReadErrorKind},
};

/// Longest text of a status, in bytes; clients take 8 to 16 KiB of headers, in which other letters than ASCII's take thrice
/// their size.
const TEXT_MAX: usize = 2 << 10;

/// The status for a failed call to Prometheus. Its text has the URL (without credentials), what went wrong,
/// and Prometheus' own message.
pub fn status(error: Error) -> Status {
    let text = with_limit(&error.kind, error.to_string());
    Status::new(code(&error.kind), truncate(text))
}

/// The status for a failed remote read, by the same rules.
pub fn read_status(error: &ReadError) -> Status {
    let code = match &error.kind {
        ReadErrorKind::Http(kind) => code(kind),
        ReadErrorKind::NoMemory(_) => Code::ResourceExhausted,
        _ => Code::Internal,
    };
    let text = match &error.kind {
        ReadErrorKind::Http(kind) => with_limit(kind, error.to_string()),
        _ => error.to_string(),
    };
    Status::new(code, truncate(text))
}

/// The text, and where the limit comes from if it was a limit of time.
fn with_limit(kind: &ErrorKind, mut text: String) -> String {
    if let ErrorKind::Timeout(_) = kind {
        text.push_str(" (the limit is the caller's deadline, or without one --store.timeout)");
    }
    text
}

/// A text that a client can take: it travels among the headers, and too many of those end more than the call.
pub fn truncate(mut text: String) -> String {
    text.truncate(text.floor_char_boundary(TEXT_MAX));
    text
}

fn code(kind: &ErrorKind) -> Code {
    match kind {
        ErrorKind::Refused => Code::Unavailable,
        ErrorKind::Timeout(_) => Code::DeadlineExceeded,
        ErrorKind::TooMuch { .. } | ErrorKind::Shed(_) => Code::ResourceExhausted,
        ErrorKind::TooLong { .. } | ErrorKind::Status { code: 400, .. } => Code::InvalidArgument,
        ErrorKind::Status { code: 404, .. } => Code::NotFound,
        ErrorKind::Status { code: 499, .. } => Code::Cancelled,
        ErrorKind::Status { code: 503, .. } => Code::Unavailable,
        _ => Code::Internal,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::prometheus::Shed;

    #[test]
    fn each_kind_has_its_code() {
        let text = String::new;
        let refused = |code| ErrorKind::Status { code, body: text() };
        for (kind, want) in [
            (ErrorKind::Refused, Code::Unavailable),
            (ErrorKind::Unreachable(text()), Code::Internal),
            (ErrorKind::TooLong { length: 2, limit: 1 }, Code::InvalidArgument),
            (ErrorKind::Timeout(Duration::ZERO), Code::DeadlineExceeded),
            (refused(302), Code::Internal),
            (refused(400), Code::InvalidArgument),
            (refused(401), Code::Internal),
            (refused(404), Code::NotFound),
            (refused(422), Code::Internal),
            (refused(429), Code::Internal),
            (refused(499), Code::Cancelled),
            (refused(500), Code::Internal),
            (refused(502), Code::Internal),
            (refused(503), Code::Unavailable),
            (ErrorKind::Failed(text()), Code::Internal),
            (ErrorKind::Cut(text()), Code::Internal),
            (ErrorKind::TooLarge { limit: 1 }, Code::Internal),
            (ErrorKind::TooMuch { read: 1 }, Code::ResourceExhausted),
            (
                ErrorKind::Shed(Shed::Full { most: 2, slots: 1 }),
                Code::ResourceExhausted,
            ),
            (ErrorKind::NotJson { line: 1, column: 1 }, Code::Internal),
            (ErrorKind::NotUnderstood(text()), Code::Internal),
        ] {
            assert_eq!(code(&kind), want, "{kind:?}");
        }
    }

    #[test]
    fn a_remote_read_has_the_same_codes() {
        let read = |kind| {
            let url = "http://localhost:9090/api/v1/read".to_owned();
            let is_over = false;
            read_status(&ReadError { url, kind, is_over })
        };
        let refused = read(ErrorKind::Refused.into());
        assert_eq!(refused.code(), Code::Unavailable);
        assert!(
            refused
                .message()
                .starts_with("POST http://localhost:9090/api/v1/read: "),
            "{refused}"
        );
        assert_eq!(
            read(ReadErrorKind::ContentType("text/html".to_owned())).code(),
            Code::Internal
        );
    }

    #[test]
    fn a_long_text_is_cut_between_two_letters() {
        assert_eq!(truncate("ä".repeat(3000)).len(), TEXT_MAX);
        assert_eq!(truncate("aä".repeat(3000)).len(), TEXT_MAX - 1);
        assert_eq!(truncate("short".to_owned()), "short");
    }

    #[test]
    fn the_text_says_what_was_asked_and_what_prometheus_says() {
        let body = "match[] must contain at least one non-empty matcher".to_owned();
        let error = Error {
            method: "GET",
            url: "http://localhost:9090/api/v1/series".to_owned(),
            kind: ErrorKind::Status { code: 400, body },
        };
        assert_eq!(
            status(error).message(),
            "GET http://localhost:9090/api/v1/series: status 400 (match[] must contain at least one non-empty matcher): \
             it rejects the request"
        );
    }
}
