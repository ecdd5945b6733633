//! Reads responses whose size is bounded, whatever Prometheus sends.

use serde::de::DeserializeOwned;

use super::error::ErrorKind;

/// Largest answer that is kept whole, in bytes: flags and build info are a few KiB.
pub(super) const SMALL: usize = 1 << 20;

/// How much of an error answer is read, in bytes: a message can quote a long selector.
const ERROR_BODY: usize = 64 << 10;

/// Reads a body of at most `limit` bytes.
pub(super) async fn collect(response: &mut reqwest::Response, limit: usize) -> Result<Vec<u8>, ErrorKind> {
    let mut body = Vec::new();
    let accept = |chunk: &[u8]| {
        body.extend_from_slice(chunk);
        Ok(())
    };
    each_chunk(response, limit, accept).await?;
    Ok(body)
}

/// Hands over a body of at most `limit` bytes piece by piece.
pub(super) async fn each_chunk(
    response: &mut reqwest::Response,
    limit: usize,
    mut accept: impl FnMut(&[u8]) -> Result<(), ErrorKind>,
) -> Result<(), ErrorKind> {
    let mut left = limit;
    while let Some(chunk) = response.chunk().await.map_err(ErrorKind::from_body)? {
        left = left.checked_sub(chunk.len()).ok_or(ErrorKind::TooLarge { limit })?;
        accept(&chunk)?;
    }
    Ok(())
}

/// The error for a response that is not a success, with the beginning of its body as far as it can be read.
pub(super) async fn refusal(mut response: reqwest::Response) -> ErrorKind {
    let code = response.status().as_u16();
    let mut body = Vec::new();
    while let Ok(Some(chunk)) = response.chunk().await {
        let left = ERROR_BODY - body.len();
        body.extend_from_slice(&chunk[..chunk.len().min(left)]);
        if body.len() == ERROR_BODY {
            break;
        }
    }
    ErrorKind::status(code, &body)
}

/// The `data` of an answer of Prometheus' API; `expected` says in words what it should be.
pub(super) fn data<T: DeserializeOwned>(body: &[u8], expected: &str) -> Result<T, ErrorKind> {
    #[derive(serde::Deserialize)]
    struct Answer<T> {
        data: T,
    }
    let answer: Answer<T> = serde_json::from_slice(body).map_err(|error| ErrorKind::from_json(&error, expected))?;
    Ok(answer.data)
}
