//! What Prometheus reports of its storage: from 3.12 on a few metrics by name, before that its metrics page.

use std::time::Duration;

use super::{Client, Error};
use crate::prometheus::{
    answer,
    metrics_page::{
        self, Storage,
        families::{self, Family},
    },
    version::at_least,
};

/// The metrics of Prometheus itself, as JSON and by name; since 3.12.
const BY_NAME: &str = "/api/v1/status/self_metrics";

/// All of them, as text.
const PAGE: &str = "/metrics";

impl Client {
    /// How long a call may take, as a whole.
    pub(in crate::prometheus) fn limit(&self) -> Duration {
        self.inner.timeout
    }

    /// What a Prometheus of this `version` reports of its storage; nothing if it has no metrics page (404). From 3.12 on
    /// the metrics are asked for by name, and the page is only read where that is refused: it can be many megabytes.
    ///
    /// # Errors
    /// See [`ErrorKind`](crate::prometheus::ErrorKind).
    pub async fn storage(&self, version: &str) -> Result<Storage, Error> {
        if at_least(version, 3, 12) {
            match self.storage_by_name().await {
                // What the page is not there for: Prometheus does not answer.
                Err(error) if !error.kind.is_an_answer() => return Err(error),
                Err(error) => tracing::debug!(%error, "the metrics page is read instead"),
                storage => return storage,
            }
        }
        self.storage_of_page().await
    }

    async fn storage_by_name(&self) -> Result<Storage, Error> {
        let ask = async |mut url: url::Url| {
            url.query_pairs_mut()
                .append_pair("metric_name_pattern", &families::NAMES.join("|"));
            let mut response = self.inner.transport.get(url).await?;
            if response.status().as_u16() != 200 {
                return Err(answer::refusal(response).await);
            }
            let body = answer::collect(&mut response, answer::SMALL).await?;
            let families: Vec<Family> = answer::data(&body, "metrics in data")?;
            Ok(families::storage(&families))
        };
        self.call(BY_NAME, self.inner.timeout, ask).await
    }

    async fn storage_of_page(&self) -> Result<Storage, Error> {
        let ask = async |url| {
            // Nothing but `*/*` is accepted by name, so that the page comes as text.
            let mut response = self.inner.transport.get(url).await?;
            match response.status().as_u16() {
                200 => {}
                404 => return Ok(Storage::default()),
                _ => return Err(answer::refusal(response).await),
            }
            let mut scan = metrics_page::Scan::default();
            answer::each_chunk(&mut response, metrics_page::LIMIT, |chunk| scan.push(chunk)).await?;
            scan.finish()
        };
        self.call(PAGE, self.inner.timeout, ask).await
    }
}
