//! Whether Prometheus stores series with a label.

use std::time::Duration;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::{Client, Error, ErrorKind};
use crate::prometheus::{answer, api::label_in_path};

/// How much of the answer is read, in bytes. One value is asked for; Prometheus before 2.52 gives all of them.
const READ: usize = 4 << 10;

impl Client {
    /// Whether there is any series with the label `name`, at any time; `None` if that is not known: a Prometheus of this
    /// `version` cannot be asked about such a name, or not all of its storage has answered. No more than 4 KiB of the
    /// answer are read.
    ///
    /// # Errors
    /// See [`ErrorKind`]. After `limit` it is a timeout.
    pub async fn stores_label(&self, name: &str, version: &str, limit: Duration) -> Result<Option<bool>, Error> {
        let Some(element) = label_in_path(name, version) else {
            return Ok(None);
        };
        let ask = async |mut url: url::Url| {
            url.query_pairs_mut().append_pair("limit", "1");
            let mut response = self.inner.transport.get(url).await?;
            match response.status().as_u16() {
                200 => {}
                204 => return Ok(Some(false)),
                _ => return Err(answer::refusal(response).await),
            }
            let mut body = Vec::new();
            while let Some(chunk) = response.chunk().await.map_err(ErrorKind::from_body)? {
                body.extend_from_slice(&chunk);
                if body.len() > READ {
                    // An empty answer is shorter.
                    return Ok(Some(true));
                }
            }
            parse(&body)
        };
        self.call(
            &format!("/api/v1/label/{element}/values"),
            limit.min(self.inner.timeout),
            ask,
        )
        .await
    }
}

/// Parses a whole response.
fn parse(body: &[u8]) -> Result<Option<bool>, ErrorKind> {
    #[derive(Deserialize)]
    struct Answer<'a> {
        status: &'a str,
        #[serde(borrow)]
        data: Option<Vec<&'a RawValue>>,
        #[serde(borrow, default)]
        warnings: Option<Vec<&'a RawValue>>,
    }
    let answer: Answer<'_> =
        serde_json::from_slice(body).map_err(|error| ErrorKind::from_json(&error, "values in data"))?;
    let Some(values) = answer.data.filter(|_| answer.status == "success") else {
        return Ok(None);
    };
    let any = !values.is_empty();
    // A storage that is only read, as `remote_read` of its configuration, cannot be asked for values and is a warning.
    let whole = answer.warnings.is_none_or(|warnings| warnings.is_empty());
    Ok((any || whole).then_some(any))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_only_believed_without_warnings() {
        for (body, want) in [
            (r#"{"status":"success","data":["a"]}"#, Some(true)),
            (
                r#"{"status":"success","data":["a"],"warnings":["results truncated due to limit"]}"#,
                Some(true),
            ),
            (r#"{"status":"success","data":[]}"#, Some(false)),
            (r#"{"status":"success","data":[],"warnings":[]}"#, Some(false)),
            (r#"{"status":"success","data":null}"#, None),
            (r#"{"status":"error","data":[]}"#, None),
            (r#"{"status":"success","data":[],"warnings":["not implemented"]}"#, None),
        ] {
            assert_eq!(parse(body.as_bytes()).unwrap(), want, "{body}");
        }
        for body in ["", "[]", "{\"data\":1}", "{\"data\":[\"a\""] {
            assert!(parse(body.as_bytes()).is_err(), "{body}");
        }
    }
}
