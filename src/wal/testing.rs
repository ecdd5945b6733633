//! A sender for tests, a round at a time.

use std::{path::Path, sync::Arc, time::Duration};

use prometheus_client::registry::Registry;
use tokio::sync::watch;

use super::{Metrics, Sender, Settings, Shown};
use crate::{
    model::Labels,
    objstore::Bucket,
    shipper::{Overviews, PrometheusStatus},
};

/// What is known of the blocks.
#[derive(Debug, Default)]
pub(crate) struct Blocks(Overviews);

impl Blocks {
    /// All samples before this time (ms since 1970) are in the bucket, and all blocks but one that was made at the other, if there is
    /// one.
    pub(crate) fn set_durable(&self, until_ms: i64, open_since_ms: Option<u64>) {
        self.0.set_durable(until_ms, open_since_ms);
    }
}

/// One that sends the logs of the data directory `dir` under these labels, with what is known of the blocks.
pub(crate) fn sender(dir: &Path, bucket: Arc<dyn Bucket>, labels: &Labels, blocks: &Blocks) -> Sender {
    let status = PrometheusStatus {
        labels: Some(labels.clone()),
        ..PrometheusStatus::default()
    };
    let settings = Settings {
        dir: dir.to_owned(),
        interval: Duration::from_secs(10),
        overviews: blocks.0.clone(),
        shown: Shown::default(),
    };
    // What was said last can still be read when nobody says more.
    let (_, prometheus) = watch::channel(status);
    let metrics = Metrics::register(&mut Registry::default());
    Sender::new(settings, bucket, prometheus, metrics)
}
