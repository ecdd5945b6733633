//! Emulators of Google's and Azure's stores in processes of their own, and clients for them by hand, so that a mistake in the
//! libraries that narthex uses cannot hide itself.
//!
//! Google's emulator knows no conditions, no pages and no end of a session; Azure's (Azurite) does all that we ask for.

use std::{
    collections::BTreeMap,
    path::Path,
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use reqwest::{Method, RequestBuilder, Response};
use serde_json::Value;
use tempfile::TempDir;
use tokio::sync::OnceCell;

use super::{
    bucket::BucketView,
    http,
    process::{Process, free_port},
    s3_client::{element, elements, escape, good, hmac},
    tools::{Tools, temp_dir},
    wait::try_until,
};

/// The account that every Azurite has, and its key: both stand in Microsoft's documentation.
const ACCOUNT: &str = "devstoreaccount1";
const KEY: &str = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";

const AZURE_VERSION: &str = "2021-12-02";

/// Whose store it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Gcs,
    Azure,
}

/// A running emulator; killed when dropped.
#[derive(Debug)]
pub(crate) struct Emulator {
    kind: Kind,
    port: u16,
    process: Process,
    _dir: TempDir,
}

impl Emulator {
    /// The one of this test process, started by whoever asks first. It ends with the process.
    pub(crate) async fn shared(kind: Kind) -> &'static Emulator {
        static SHARED: [OnceCell<Emulator>; 2] = [const { OnceCell::const_new() }; 2];
        SHARED[kind as usize].get_or_init(|| Emulator::start(kind)).await
    }

    async fn start(kind: Kind) -> Emulator {
        for _ in 0..5 {
            let dir = temp_dir("emulator");
            let port = free_port();
            let process = spawn(kind, port, dir.path());
            let probe = CloudClient::new(kind, port, "probe");
            let serving = async || match process.exited() {
                Some(_) => Some(false),
                None => probe.create_bucket().await.is_ok().then_some(true),
            };
            if try_until(Duration::from_secs(90), serving).await == Some(true) {
                return Emulator {
                    kind,
                    port,
                    process,
                    _dir: dir,
                };
            }
            let log = process.log();
            assert!(
                log.to_ascii_lowercase().contains("address already in use"),
                "the emulator of {kind:?} did not start; its log:\n{log}"
            );
        }
        panic!("no free port for the emulator of {kind:?} after five tries");
    }

    /// Makes a fresh bucket with a name that begins with `name`.
    pub(crate) async fn bucket(&self, name: &str) -> BucketView {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("{name}-{}", COUNT.fetch_add(1, Ordering::Relaxed));
        let client = CloudClient::new(self.kind, self.port, &name);
        client
            .create_bucket()
            .await
            .unwrap_or_else(|error| panic!("cannot make bucket {name}: {error}"));
        BucketView::cloud(client)
    }

    /// Sends a signal by name, e.g. `STOP` and `CONT`.
    pub(crate) fn signal(&self, signal: &str) {
        self.process.signal(signal);
    }
}

fn spawn(kind: Kind, port: u16, dir: &Path) -> Process {
    let mut command = match kind {
        Kind::Gcs => {
            let mut command = Command::new("python3");
            command
                .args(["-m", "gcp_storage_emulator", "start", "--host=127.0.0.1"])
                .arg(format!("--port={port}"))
                .arg("--in-memory")
                .env("PYTHONPATH", Tools::gcs_emulator());
            command
        }
        Kind::Azure => {
            let (node, script) = Tools::azurite();
            let mut command = Command::new(node);
            command
                .arg(script)
                .args(["--silent", "--blobHost", "127.0.0.1", "--blobPort"])
                .arg(port.to_string())
                .arg("--location")
                .arg(dir.join("data"));
            command
        }
    };
    command.current_dir(dir);
    Process::spawn("emulator", &mut command, &dir.join("emulator.log"), Some(dir))
}

/// One bucket of one emulator.
#[derive(Clone, Debug)]
pub(crate) struct CloudClient {
    kind: Kind,
    port: u16,
    bucket: String,
}

impl CloudClient {
    fn new(kind: Kind, port: u16, bucket: &str) -> CloudClient {
        let bucket = bucket.to_owned();
        CloudClient { kind, port, bucket }
    }

    /// `type` and `config` with which narthex writes here.
    pub(crate) fn config(&self) -> (&'static str, String) {
        match self.kind {
            Kind::Gcs => (
                "GCS",
                format!(
                    "bucket: {}\nservice_account: '{{\"gcs_base_url\": \"http://127.0.0.1:{}\", \"disable_oauth\": true, \
                     \"client_email\": \"\", \"private_key\": \"\", \"private_key_id\": \"\"}}'\n",
                    self.bucket, self.port
                ),
            ),
            Kind::Azure => (
                "AZURE",
                format!(
                    "storage_account: {ACCOUNT}\ncontainer: {}\nstorage_connection_string: \
                     DefaultEndpointsProtocol=http;AccountName={ACCOUNT};AccountKey={KEY};BlobEndpoint=http://127.0.0.1:{}/{ACCOUNT};\n",
                    self.bucket, self.port
                ),
            ),
        }
    }

    async fn create_bucket(&self) -> Result<(), String> {
        let answer = match self.kind {
            Kind::Gcs => {
                let url = format!("http://127.0.0.1:{}/storage/v1/b?project=rig", self.port);
                let body = serde_json::json!({"name": self.bucket}).to_string();
                let request = http::client()
                    .post(url)
                    .header("content-type", "application/json")
                    .body(body);
                request.send().await.map_err(|error| error.to_string())?
            }
            Kind::Azure => {
                self.azure(Method::PUT, "", &[("restype", "container")], &[], Vec::new())
                    .await?
            }
        };
        match answer.status().as_u16() {
            409 => Ok(()),
            _ => good(answer).await.map(drop),
        }
    }

    /// Stores an object.
    pub(crate) async fn put(&self, key: &str, body: Vec<u8>) -> Result<(), String> {
        let answer = match self.kind {
            Kind::Gcs => {
                let url = format!(
                    "http://127.0.0.1:{}/upload/storage/v1/b/{}/o?uploadType=media&name={}",
                    self.port,
                    self.bucket,
                    escape(key, false)
                );
                http::client()
                    .post(url)
                    .body(body)
                    .send()
                    .await
                    .map_err(|error| error.to_string())?
            }
            Kind::Azure => {
                self.azure(Method::PUT, key, &[], &[("x-ms-blob-type", "BlockBlob")], body)
                    .await?
            }
        };
        good(answer).await.map(drop)
    }

    /// Removes an object; it is good if there is none.
    pub(crate) async fn delete(&self, key: &str) -> Result<(), String> {
        let answer = match self.kind {
            Kind::Gcs => self.google(|client| client.delete(self.object(key))).await?,
            Kind::Azure => self.azure(Method::DELETE, key, &[], &[], Vec::new()).await?,
        };
        match answer.status().as_u16() {
            404 => Ok(()),
            _ => good(answer).await.map(drop),
        }
    }

    /// An object, still to be read; `None` when there is no such key.
    pub(crate) async fn get(&self, key: &str) -> Result<Option<Response>, String> {
        let answer = match self.kind {
            Kind::Gcs => {
                self.google(|client| client.get(format!("{}?alt=media", self.object(key))))
                    .await?
            }
            Kind::Azure => self.azure(Method::GET, key, &[], &[], Vec::new()).await?,
        };
        match answer.status().as_u16() {
            404 => Ok(None),
            _ => good(answer).await.map(Some),
        }
    }

    /// All keys that begin with `prefix`, with their sizes.
    pub(crate) async fn list(&self, prefix: &str) -> Result<BTreeMap<String, u64>, String> {
        match self.kind {
            Kind::Gcs => self.list_google(prefix).await,
            Kind::Azure => self.list_azure(prefix).await,
        }
    }

    async fn list_google(&self, prefix: &str) -> Result<BTreeMap<String, u64>, String> {
        let url = format!(
            "http://127.0.0.1:{}/storage/v1/b/{}/o?prefix={}",
            self.port,
            self.bucket,
            escape(prefix, false)
        );
        let answer = good(self.google(|client| client.get(url)).await?).await?;
        let page = answer.bytes().await.map_err(|error| error.to_string())?;
        let page: Value = serde_json::from_slice(&page).map_err(|error| error.to_string())?;
        let items = page["items"].as_array().cloned().unwrap_or_default();
        let entry = |item: &Value| {
            let size = item["size"].as_str().and_then(|size| size.parse().ok());
            Some((item["name"].as_str()?.to_owned(), size?))
        };
        items
            .iter()
            .map(|item| entry(item).ok_or_else(|| format!("an odd entry: {item}")))
            .collect()
    }

    async fn list_azure(&self, prefix: &str) -> Result<BTreeMap<String, u64>, String> {
        let mut found = BTreeMap::new();
        let mut next: Option<String> = None;
        loop {
            let mut query = vec![("comp", "list"), ("prefix", prefix), ("restype", "container")];
            query.extend(next.as_deref().map(|marker| ("marker", marker)));
            query.sort_unstable();
            let page = good(self.azure(Method::GET, "", &query, &[], Vec::new()).await?).await?;
            let page = page.text().await.map_err(|error| error.to_string())?;
            for entry in elements(&page, "Blob") {
                let key = element(entry, "Name").ok_or("a listing without Name")?;
                let size = element(entry, "Content-Length").and_then(|size| size.parse().ok());
                found.insert(key, size.ok_or("a listing without Content-Length")?);
            }
            match element(&page, "NextMarker") {
                Some(marker) if !marker.is_empty() => next = Some(marker),
                _ => return Ok(found),
            }
        }
    }

    fn object(&self, key: &str) -> String {
        format!(
            "http://127.0.0.1:{}/storage/v1/b/{}/o/{}",
            self.port,
            self.bucket,
            escape(key, false)
        )
    }

    async fn google(&self, request: impl FnOnce(reqwest::Client) -> RequestBuilder) -> Result<Response, String> {
        request(http::client()).send().await.map_err(|error| error.to_string())
    }

    /// A request signed by hand (Shared Key). `query` is sorted.
    async fn azure(
        &self,
        method: Method,
        key: &str,
        query: &[(&str, &str)],
        headers: &[(&str, &str)],
        body: Vec<u8>,
    ) -> Result<Response, String> {
        let path = match key {
            "" => format!("/{ACCOUNT}/{}", self.bucket),
            key => format!("/{ACCOUNT}/{}/{}", self.bucket, escape(key, true)),
        };
        let now = jiff::Timestamp::now().strftime("%a, %d %b %Y %H:%M:%S GMT").to_string();
        let mut all = vec![("x-ms-date", now.as_str()), ("x-ms-version", AZURE_VERSION)];
        all.extend_from_slice(headers);
        all.sort_unstable();
        let canonical: String = all.iter().map(|(name, value)| format!("{name}:{value}\n")).collect();
        let asked: String = query.iter().map(|(name, value)| format!("\n{name}:{value}")).collect();
        let length = if body.is_empty() {
            String::new()
        } else {
            body.len().to_string()
        };
        // Verb, encoding, language, length, MD5, type, date, four conditions, range.
        let text = format!("{method}\n\n\n{length}\n\n\n\n\n\n\n\n\n{canonical}/{ACCOUNT}{path}{asked}");
        let secret = STANDARD.decode(KEY).expect("the key is base64");
        let signature = STANDARD.encode(hmac(&secret, text.as_bytes()));
        let query: Vec<String> = query
            .iter()
            .map(|(name, value)| format!("{name}={}", escape(value, false)))
            .collect();
        let url = format!("http://127.0.0.1:{}{path}?{}", self.port, query.join("&"));
        let mut request = http::client()
            .request(method, url)
            .header("authorization", format!("SharedKey {ACCOUNT}:{signature}"))
            .body(body);
        for (name, value) in all {
            request = request.header(name, value);
        }
        request.send().await.map_err(|error| error.to_string())
    }
}
