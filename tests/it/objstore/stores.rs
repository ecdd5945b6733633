//! What the stores that are spoken to by HTTP say, so that one fault can be played by each of them.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use md5::{Digest as _, Md5};

use super::{
    s3_yaml,
    scripted::{Act, Request, answer, ok, refusal, take},
};

/// Whose words are spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Store {
    S3,
    Google,
    Azure,
}

/// An address of Google's upload session.
const SESSION: &str = "/session?upload_id=1";

impl Store {
    pub(super) const ALL: [Store; 3] = [Store::S3, Store::Google, Store::Azure];

    /// The configuration of a bucket at `host`; `more` are further lines of its `config`.
    pub(super) fn yaml(self, host: &str, more: &[&str]) -> String {
        let more: String = more.iter().map(|line| format!("  {line}\n")).collect();
        match self {
            Store::S3 => s3_yaml(host, "thanos", &[]) + &more,
            Store::Google => {
                let key = format!(
                    r#"{{"gcs_base_url": "http://{host}", "disable_oauth": true, "client_email": "", "private_key": "", "private_key_id": ""}}"#
                );
                format!("type: GCS\nconfig:\n  bucket: thanos\n  service_account: '{key}'\n{more}")
            }
            Store::Azure => format!(
                "type: AZURE\nconfig:\n  storage_account: acc\n  container: thanos\n  storage_connection_string: \
                 AccountName=acc;AccountKey=a2V5;BlobEndpoint=http://{host}/acc;\n{more}"
            ),
        }
    }

    /// How many requests go before the one with an object's bytes.
    pub(super) fn before_bytes(self) -> usize {
        usize::from(self == Store::Google)
    }

    /// Takes an object with these bytes, in one request or what it needs.
    pub(super) fn take(self, request: &Request, bytes: &[u8]) -> Act {
        match self {
            Store::S3 => take(request),
            Store::Azure => {
                let md5 = STANDARD.encode(Md5::digest(bytes));
                answer("201 Created", &format!("etag: \"e\"\r\ncontent-md5: {md5}\r\n"), "")
            }
            Store::Google if request.method == "POST" => opened(request),
            Store::Google => described(bytes),
        }
    }

    /// What tells one version of an object from another one, as a header.
    pub(super) fn tag(self) -> &'static str {
        match self {
            Store::S3 | Store::Azure => "etag: \"e1\"\r\n",
            Store::Google => "x-goog-generation: 17\r\n",
        }
    }

    /// The version that a request insists on, or nothing.
    pub(super) fn wants(self, request: &Request) -> String {
        match self {
            Store::S3 | Store::Azure => request.header("if-match").to_owned(),
            Store::Google => {
                let (_, wanted) = request.target.split_once("ifGenerationMatch=").unwrap_or_default();
                wanted.to_owned()
            }
        }
    }

    /// A refusal in the store's form.
    pub(super) fn refusal(self, status: &str, code: &str, message: &str) -> Act {
        match self {
            Store::S3 | Store::Azure => refusal(status, code, message),
            Store::Google => {
                let number = &status[..3];
                let body = format!(
                    r#"{{"error": {{"code": {number}, "message": "{message}", "errors": [{{"reason": "{code}", "message": "{message}"}}]}}}}"#
                );
                answer(status, "content-type: application/json\r\n", &body)
            }
        }
    }

    /// The word with which the store says that it is asked too often.
    pub(super) fn busy(self) -> &'static str {
        match self {
            Store::S3 => "SlowDown",
            Store::Google => "rateLimitExceeded",
            Store::Azure => "ServerBusy",
        }
    }

    /// A page of a listing: one object of 7 bytes below `d/`, and what the next page is asked for with.
    pub(super) fn page(self, key: &str, next: &str) -> Act {
        match self {
            Store::S3 => {
                let more = match next {
                    "" => "<IsTruncated>false</IsTruncated>".to_owned(),
                    next => {
                        format!("<IsTruncated>true</IsTruncated><NextContinuationToken>{next}</NextContinuationToken>")
                    }
                };
                let contents = format!("<Contents><Key>d/{key}</Key><Size>7</Size></Contents>");
                ok("", &format!("<ListBucketResult>{contents}{more}</ListBucketResult>"))
            }
            Store::Google => {
                let mut page = serde_json::json!({"items": [{"name": format!("d/{key}"), "size": "7"}]});
                if !next.is_empty() {
                    page["nextPageToken"] = next.into();
                }
                ok("", &page.to_string())
            }
            Store::Azure => {
                let blob = format!(
                    "<Blob><Name>d/{key}</Name><Properties><Content-Length>7</Content-Length></Properties></Blob>"
                );
                ok(
                    "",
                    &format!(
                        "<EnumerationResults><Blobs>{blob}</Blobs><NextMarker>{next}</NextMarker></EnumerationResults>"
                    ),
                )
            }
        }
    }

    /// With what a page of a listing is asked for; `None` for the first one.
    pub(super) fn page_asked(self, request: &Request) -> Option<String> {
        let name = match self {
            Store::S3 => "continuation-token=",
            Store::Google => "pageToken=",
            Store::Azure => "marker=",
        };
        let (_, rest) = request.target.split_once(name)?;
        rest.split('&').next().map(str::to_owned)
    }
}

/// Google's store opens a session.
pub(super) fn opened(request: &Request) -> Act {
    ok(&format!("location: http://{}{SESSION}\r\n", request.header("host")), "")
}

/// What Google's store says of an object with these bytes.
pub(super) fn described(bytes: &[u8]) -> Act {
    let checksum = STANDARD.encode(crc32c::crc32c(bytes).to_be_bytes());
    let body = format!(r#"{{"name": "x", "size": "{}", "crc32c": "{checksum}"}}"#, bytes.len());
    ok("content-type: application/json\r\n", &body)
}
