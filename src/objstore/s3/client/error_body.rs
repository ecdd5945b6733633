//! What a refusal says beside its status: in a header, or in the flat XML of S3's errors; and what it was about.

use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};

/// The region that the bucket is in, or that the request should have been signed for.
pub(super) fn region(answer: &HttpResponse) -> Option<String> {
    let named = answer.headers().get("x-amz-bucket-region").map(str::to_owned);
    named
        .or_else(|| element(answer, "Region"))
        .filter(|region| is_region(region))
}

/// The error's code.
pub(super) fn code(answer: &HttpResponse) -> Option<String> {
    element(answer, "Code")
}

/// The region that a request was signed for.
pub(super) fn signed_region(request: &HttpRequest) -> Option<String> {
    let (_, scope) = request.headers().get("authorization")?.split_once("Credential=")?;
    // Key, day, region, service.
    scope.split('/').nth(2).map(str::to_owned)
}

/// What a signature's scope and a host name can hold.
fn is_region(text: &str) -> bool {
    !text.is_empty() && text.len() < 64 && text.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'-')
}

fn element(answer: &HttpResponse, name: &str) -> Option<String> {
    let body = std::str::from_utf8(answer.body().bytes()?).ok()?;
    let (_, rest) = body.split_once(&format!("<{name}>"))?;
    let (text, _) = rest.split_once("</")?;
    Some(text.trim().to_owned())
}
