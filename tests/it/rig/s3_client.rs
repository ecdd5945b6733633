//! A small S3 client of our own: requests signed by hand (Signature Version 4), so that a mistake in the library that
//! narthex uses cannot hide itself.

use std::collections::BTreeMap;

use reqwest::{Method, Response};
use sha2::{Digest, Sha256};

use super::{
    http,
    weed::{ACCESS_KEY, SECRET_KEY},
};

const REGION: &str = "us-east-1";

/// One bucket of one server, addressed by path.
#[derive(Clone, Debug)]
pub(crate) struct S3Client {
    endpoint: String,
    bucket: String,
}

impl S3Client {
    /// `endpoint` is e.g. `http://127.0.0.1:1234`.
    pub(crate) fn new(endpoint: String, bucket: &str) -> S3Client {
        S3Client {
            endpoint,
            bucket: bucket.to_owned(),
        }
    }

    /// The bucket's name.
    pub(crate) fn bucket(&self) -> &str {
        &self.bucket
    }

    /// The server's address without the scheme.
    pub(crate) fn host(&self) -> &str {
        self.endpoint
            .split_once("://")
            .map_or(&*self.endpoint, |(_, host)| host)
    }

    /// Makes the bucket; it is good if it is there.
    pub(crate) async fn create_bucket(&self) -> Result<(), String> {
        let answer = self.send(Method::PUT, "", &[], Vec::new()).await?;
        match answer.status().as_u16() {
            200 | 409 => Ok(()),
            _ => Err(failure(answer).await),
        }
    }

    /// Stores an object.
    pub(crate) async fn put(&self, key: &str, body: Vec<u8>) -> Result<(), String> {
        good(self.send(Method::PUT, key, &[], body).await?).await.map(drop)
    }

    /// Removes an object; it is good if there is none.
    pub(crate) async fn delete(&self, key: &str) -> Result<(), String> {
        good(self.send(Method::DELETE, key, &[], Vec::new()).await?)
            .await
            .map(drop)
    }

    /// An object, still to be read; `None` when there is no such key.
    pub(crate) async fn get(&self, key: &str) -> Result<Option<Response>, String> {
        let answer = self.send(Method::GET, key, &[], Vec::new()).await?;
        if answer.status().as_u16() == 404 {
            Ok(None)
        } else {
            good(answer).await.map(Some)
        }
    }

    /// All keys that begin with `prefix`, with their sizes.
    pub(crate) async fn list(&self, prefix: &str) -> Result<BTreeMap<String, u64>, String> {
        let mut found = BTreeMap::new();
        let mut next = None;
        loop {
            let mut query = vec![("list-type", "2"), ("prefix", prefix)];
            query.extend(next.as_deref().map(|token| ("continuation-token", token)));
            let page = good(self.send(Method::GET, "", &query, Vec::new()).await?).await?;
            let page = page.text().await.map_err(|error| error.to_string())?;
            for entry in elements(&page, "Contents") {
                let key = element(entry, "Key").ok_or("a listing without Key")?;
                let size = element(entry, "Size")
                    .and_then(|size| size.parse().ok())
                    .ok_or("a listing without Size")?;
                found.insert(key, size);
            }
            match element(&page, "NextContinuationToken") {
                Some(token) if !token.is_empty() => next = Some(token),
                _ => return Ok(found),
            }
        }
    }

    /// The keys of the multipart uploads that are open.
    pub(crate) async fn open_uploads(&self) -> Result<Vec<String>, String> {
        let page = good(self.send(Method::GET, "", &[("uploads", "")], Vec::new()).await?).await?;
        let page = page.text().await.map_err(|error| error.to_string())?;
        Ok(elements(&page, "Upload")
            .filter_map(|upload| element(upload, "Key"))
            .collect())
    }

    async fn send(&self, method: Method, key: &str, query: &[(&str, &str)], body: Vec<u8>) -> Result<Response, String> {
        let path = match key {
            "" => format!("/{}", self.bucket),
            key => format!("/{}/{}", self.bucket, escape(key, true)),
        };
        let mut query: Vec<String> = query
            .iter()
            .map(|(name, value)| format!("{}={}", escape(name, false), escape(value, false)))
            .collect();
        query.sort();
        let query = query.join("&");
        let hash = hex(&Sha256::digest(&body));
        let now = jiff::Timestamp::now().strftime("%Y%m%dT%H%M%SZ").to_string();
        let signed = "host;x-amz-content-sha256;x-amz-date";
        let headers = format!("host:{}\nx-amz-content-sha256:{hash}\nx-amz-date:{now}\n", self.host());
        let canonical = format!("{method}\n{path}\n{query}\n{headers}\n{signed}\n{hash}");
        let (scope, signature) = sign(&now, &canonical);
        http::client()
            .request(method, format!("{}{path}?{query}", self.endpoint))
            .header("x-amz-content-sha256", hash)
            .header("x-amz-date", now)
            .header(
                "authorization",
                format!(
                    "AWS4-HMAC-SHA256 Credential={ACCESS_KEY}/{scope}, SignedHeaders={signed}, Signature={signature}"
                ),
            )
            .body(body)
            .send()
            .await
            .map_err(|error| error.to_string())
    }
}

/// The scope and the signature of a canonical request.
fn sign(now: &str, canonical: &str) -> (String, String) {
    let day = &now[..8];
    let scope = format!("{day}/{REGION}/s3/aws4_request");
    let text = format!("AWS4-HMAC-SHA256\n{now}\n{scope}\n{}", hex(&Sha256::digest(canonical)));
    let key = [day, REGION, "s3", "aws4_request"]
        .iter()
        .fold(format!("AWS4{SECRET_KEY}").into_bytes(), |key, part| {
            hmac(&key, part.as_bytes()).to_vec()
        });
    (scope, hex(&hmac(&key, text.as_bytes())))
}

/// HMAC-SHA256 with a key of at most 64 bytes.
pub(super) fn hmac(key: &[u8], text: &[u8]) -> [u8; 32] {
    let pad = |with: u8| {
        let mut block = [with; 64];
        block.iter_mut().zip(key).for_each(|(byte, key)| *byte ^= key);
        block
    };
    let inner = Sha256::new().chain_update(pad(0x36)).chain_update(text).finalize();
    Sha256::new()
        .chain_update(pad(0x5c))
        .chain_update(inner)
        .finalize()
        .into()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

pub(super) fn escape(text: &str, keep_slash: bool) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => char::from(byte).to_string(),
            b'/' if keep_slash => "/".to_owned(),
            _ => format!("%{byte:02X}"),
        })
        .collect()
}

pub(super) async fn good(answer: Response) -> Result<Response, String> {
    if answer.status().is_success() {
        Ok(answer)
    } else {
        Err(failure(answer).await)
    }
}

async fn failure(answer: Response) -> String {
    let (url, status) = (answer.url().clone(), answer.status());
    format!("{url}: {status} {}", answer.text().await.unwrap_or_default())
}

/// The contents of every element `name`; answers of S3 do not nest elements of one name.
pub(super) fn elements<'a>(xml: &'a str, name: &str) -> impl Iterator<Item = &'a str> {
    let (open, close) = (format!("<{name}>"), format!("</{name}>"));
    let mut rest = xml;
    std::iter::from_fn(move || {
        let start = rest.find(&open)? + open.len();
        let end = start + rest[start..].find(&close)?;
        let found = &rest[start..end];
        rest = &rest[end + close.len()..];
        Some(found)
    })
}

pub(super) fn element(xml: &str, name: &str) -> Option<String> {
    let text = elements(xml, name).next()?;
    let text = text
        .replace("&lt;", "<")
        .replace("&gt;", ">")
        .replace("&quot;", "\"")
        .replace("&#34;", "\"");
    Some(text.replace("&apos;", "'").replace("&#39;", "'").replace("&amp;", "&"))
}
