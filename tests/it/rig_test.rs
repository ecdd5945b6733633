//! The rig itself: what the other tests stand on does what it says.

use std::time::Duration;

use crate::rig::{Prometheus, Tools, prometheus::Options};

#[tokio::test]
async fn every_prometheus_seals_blocks_in_seconds() {
    let mut all = Vec::new();
    for leg in Tools::find().legs {
        all.push(Prometheus::start(&leg, Options::default()).await);
    }
    for prometheus in &mut all {
        prometheus.wait_for_blocks(2, Duration::from_secs(60)).await;
        assert!(prometheus.stop().await.success(), "{}", prometheus.version());
    }
}
