//! Plain HTTP requests.

use std::{sync::OnceLock, time::Duration};

use bytes::Bytes;
use reqwest::{Client, StatusCode};

use super::limit;

/// How long a server may say nothing.
const SILENCE: Duration = Duration::from_secs(30);

/// A client that no proxy of the environment gets in the way of, and whose requests end when nothing comes for 30 s: a
/// busy machine may take long for a large answer.
pub(crate) fn client() -> Client {
    limit::begin();
    // A client belongs to the runtime that it was first used on, and each test has its own.
    static PROVIDER: OnceLock<()> = OnceLock::new();
    PROVIDER.get_or_init(|| {
        // An error means that the program under test was faster, with the same provider.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    });
    Client::builder()
        .no_proxy()
        // All is plain HTTP: reading the certificates of the system for each client took a third of the suite's time.
        .tls_certs_only([])
        .connect_timeout(SILENCE)
        .read_timeout(SILENCE)
        .build()
        .expect("a plain client can be built")
}

/// Status and body of a GET; `None` when nobody answers.
pub(crate) async fn get(url: &str) -> Option<(StatusCode, Bytes)> {
    let response = client().get(url).send().await.ok()?;
    Some((response.status(), response.bytes().await.ok()?))
}

/// Whether a GET is answered with 200.
pub(crate) async fn ok(url: &str) -> bool {
    get(url).await.is_some_and(|(status, _)| status == StatusCode::OK)
}
