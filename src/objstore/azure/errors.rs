//! What Azure's store answers when it refuses, by kind and with help for the operator.

use crate::objstore::{
    ErrorKind, Op,
    rest::Refusal,
    transfer::words::{element, tidy},
};

pub(super) fn explain(op: Op, answer: &Refusal) -> (ErrorKind, String) {
    let body = String::from_utf8_lossy(&answer.body);
    // Answers to HEAD have no body.
    let code = answer
        .header("x-ms-error-code")
        .or_else(|| element(&body, "Code"))
        .unwrap_or_default();
    // Its second line is the request's id, which comes below.
    let message = element(&body, "Message")
        .and_then(|message| message.lines().next())
        .unwrap_or_default();
    let message = match (code.is_empty(), message.is_empty()) {
        (true, true) => tidy(&body),
        _ => tidy(message),
    };
    let kind = kind(answer.status, code);
    let mut detail = format!("the store answered {}", answer.status);
    for part in [tidy(code), message] {
        if !part.is_empty() {
            detail = format!("{detail}: {part}");
        }
    }
    if let Some(why) = element(&body, "AuthenticationErrorDetail") {
        // What was signed is of no use to anybody who reads a log.
        let why = why
            .split("Server used following string to sign")
            .next()
            .unwrap_or_default();
        detail = format!("{detail}: {}", tidy(why));
    }
    if let Some(id) = answer.header("x-ms-request-id") {
        detail = format!("{detail} (request {})", tidy(id));
    }
    if let Some(help) = help(op, kind, code) {
        detail = format!("{detail}; {help}");
    }
    (kind, detail)
}

fn kind(status: u16, code: &str) -> ErrorKind {
    use ErrorKind::*;
    match code {
        "ContainerNotFound" => return NoBucket,
        "ContainerBeingDeleted" => return Server,
        "BlobNotFound" | "ResourceNotFound" => return NotFound,
        "AuthenticationFailed" | "InvalidAuthenticationInfo" | "NoAuthenticationInformation" => return Credentials,
        "AuthorizationFailure"
        | "AuthorizationPermissionMismatch"
        | "InsufficientAccountPermissions"
        | "AuthorizationProtocolMismatch"
        | "AuthorizationResourceTypeMismatch"
        | "AuthorizationServiceMismatch"
        | "AuthorizationSourceIPMismatch"
        | "AccountIsDisabled"
        | "ContainerDisabled"
        | "PublicAccessNotPermitted" => return Forbidden,
        "ServerBusy" | "OperationTimedOut" => return Throttled,
        "Md5Mismatch" | "Crc64Mismatch" => return Integrity,
        // Another writer has put its own blocks together in between, and ours are gone.
        "InvalidBlockList" => return Integrity,
        // It has left some whose names have another length: the same request fails again.
        "InvalidBlobOrBlock" => return Refused,
        "BlobArchived" | "BlobBeingRehydrated" | "BlobUsesCustomerSpecifiedEncryption" => return Configuration,
        _ => {}
    }
    match status {
        401 => Credentials,
        403 => Forbidden,
        404 => NotFound,
        408 | 499 => Server,
        429 => Throttled,
        500.. => Server,
        _ => Refused,
    }
}

fn help(op: Op, kind: ErrorKind, code: &str) -> Option<&'static str> {
    Some(match (code, kind, op) {
        ("AuthorizationSourceIPMismatch" | "AuthorizationFailure", ..) => {
            "look at the networks that the storage account lets in, and at what the identity may do"
        }
        ("InvalidBlockList" | "InvalidBlobOrBlock", ..) => {
            "another program has written, or begun to write, the same object: what it left behind goes after a week, or when the \
             object is deleted"
        }
        ("BlobArchived", ..) => "bring the object back from the archive tier",
        (_, ErrorKind::NoBucket, _) => "create the container, or correct `container`",
        (_, ErrorKind::Credentials, _) => {
            "check the account's name and key, the time until which a shared access signature is good, or the identity; and this host's clock"
        }
        (_, ErrorKind::Forbidden, Op::Upload) => "the identity needs the role Storage Blob Data Contributor",
        (_, ErrorKind::Forbidden, _) => "the identity needs the role Storage Blob Data Reader, or Contributor to ship",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http::HeaderMap;

    use super::*;

    fn refusal(status: u16, code: &str, body: &str) -> Refusal {
        let mut headers = HeaderMap::new();
        if !code.is_empty() {
            headers.insert("x-ms-error-code", code.parse().unwrap());
        }
        Refusal {
            status,
            headers,
            body: Bytes::copy_from_slice(body.as_bytes()),
        }
    }

    #[test]
    fn refusals_are_known_by_code_and_else_by_status() {
        use ErrorKind::*;
        for (status, code, wanted) in [
            (404, "ContainerNotFound", NoBucket),
            (404, "BlobNotFound", NotFound),
            (404, "", NotFound),
            (403, "AuthenticationFailed", Credentials),
            (401, "InvalidAuthenticationInfo", Credentials),
            (403, "AuthorizationPermissionMismatch", Forbidden),
            (503, "ServerBusy", Throttled),
            (500, "OperationTimedOut", Throttled),
            (500, "InternalError", Server),
            (400, "Md5Mismatch", Integrity),
            (400, "InvalidBlockList", Integrity),
            (400, "InvalidBlobOrBlock", Refused),
            (409, "ContainerBeingDeleted", Server),
            (403, "ContainerDisabled", Forbidden),
            (409, "BlobArchived", Configuration),
            (400, "InvalidHeaderValue", Refused),
        ] {
            let (kind, detail) = explain(Op::Upload, &refusal(status, code, ""));
            assert_eq!(kind, wanted, "{detail}");
        }
    }

    #[test]
    fn the_stores_words_are_shown_and_what_helps() {
        let body = "\u{feff}<?xml version=\"1.0\" encoding=\"utf-8\"?><Error><Code>AuthorizationPermissionMismatch</Code>\
                    <Message>This request is not authorized.\nRequestId:abc\nTime:x</Message></Error>";
        let (kind, detail) = explain(Op::Upload, &refusal(403, "", body));
        assert_eq!(kind, ErrorKind::Forbidden);
        assert_eq!(
            detail,
            "the store answered 403: AuthorizationPermissionMismatch: This request is not authorized.; the identity needs \
             the role Storage Blob Data Contributor"
        );
        let (_, odd) = explain(Op::Get, &refusal(502, "", "<html>\nbad</html>"));
        assert_eq!(odd, "the store answered 502: <html> bad</html>");
    }
}
