//! Targets: what Prometheus scrapes, and what it found but dropped.

use tonic::{Request, Response, Status, async_trait};

use super::{Context, Messages, errors, label_sets, one, times::timestamp};
use crate::{
    model::Labels,
    pb::thanos::{
        ActiveTarget, DroppedTarget, TargetDiscovery, TargetHealth, TargetsRequest, TargetsResponse,
        targets_request::State, targets_response, targets_server::Targets,
    },
    prometheus::api,
};

/// The service `thanos.Targets`.
#[derive(Clone, Debug)]
pub struct TargetsService {
    context: Context,
}

impl TargetsService {
    /// Answers for this Prometheus.
    pub fn new(context: Context) -> Self {
        Self { context }
    }
}

#[async_trait]
impl Targets for TargetsService {
    type TargetsStream = Messages<TargetsResponse>;

    /// One message, whatever there is.
    async fn targets(&self, request: Request<TargetsRequest>) -> Result<Response<Self::TargetsStream>, Status> {
        let state = match request.into_inner().state() {
            State::Any => None,
            State::Active => Some("active"),
            State::Dropped => Some("dropped"),
        };
        let labels = self.context.view().labels;
        let targets = self.context.client.targets(state).await.map_err(errors::status)?;
        let result = targets_response::Result::Targets(discovery(targets, &labels));
        Ok(one(TargetsResponse { result: Some(result) }))
    }
}

fn discovery(from: api::Targets, external: &Labels) -> TargetDiscovery {
    let active = from.active_targets.into_iter().map(|from| active(from, external));
    let dropped = from.dropped_targets.into_iter().map(|from| DroppedTarget {
        discovered_labels: Some(label_sets::with_external(from.discovered_labels, external)),
    });
    TargetDiscovery {
        active_targets: active.collect(),
        dropped_targets: dropped.collect(),
    }
}

fn active(from: api::ActiveTarget, external: &Labels) -> ActiveTarget {
    ActiveTarget {
        discovered_labels: Some(label_sets::with_external(from.discovered_labels, external)),
        labels: Some(label_sets::with_external(from.labels, external)),
        scrape_pool: from.scrape_pool,
        scrape_url: from.scrape_url,
        global_url: from.global_url,
        last_error: from.last_error,
        last_scrape: Some(timestamp(from.last_scrape)),
        last_scrape_duration: from.last_scrape_duration,
        health: health(&from.health).into(),
    }
}

fn health(text: &str) -> TargetHealth {
    match &*text.to_ascii_lowercase() {
        "up" => TargetHealth::Up,
        "down" => TargetHealth::Down,
        "unknown" => TargetHealth::Unknown,
        _ => {
            tracing::debug!(health = text, "a target has a health that is not known");
            TargetHealth::Unknown
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_laid_over_all_sets_but_nothing_else_changes() {
        let json = r#"{
            "activeTargets": [{
                "discoveredLabels": {"__address__": "x:1", "cluster": "other"},
                "labels": {"job": "node", "instance": "x:1"},
                "scrapePool": "node", "scrapeUrl": "http://x:1/metrics", "globalUrl": "http://y:1/metrics",
                "lastError": "no", "lastScrape": "2023-11-14T22:13:20.5Z", "lastScrapeDuration": 0.25,
                "health": "UP", "scrapeInterval": "1s"
            }, {"health": "weak", "lastScrape": "0001-01-01T00:00:00Z"}],
            "droppedTargets": [{"discoveredLabels": {"a": "b"}, "scrapePool": "node"}],
            "droppedTargetCounts": {"node": 1}
        }"#;
        let external = Labels::from_pairs([("cluster", "eu")]);
        let found = discovery(serde_json::from_str(json).unwrap(), &external);
        let set = |pairs: &[(&str, &str)]| Some(label_sets::external(&Labels::from_pairs(pairs.iter().copied())));
        let first = ActiveTarget {
            discovered_labels: set(&[("__address__", "x:1"), ("cluster", "eu")]),
            labels: set(&[("cluster", "eu"), ("instance", "x:1"), ("job", "node")]),
            scrape_pool: "node".into(),
            scrape_url: "http://x:1/metrics".into(),
            global_url: "http://y:1/metrics".into(),
            last_error: "no".into(),
            last_scrape: Some(prost_types::Timestamp {
                seconds: 1_700_000_000,
                nanos: 500_000_000,
            }),
            last_scrape_duration: 0.25,
            health: 1,
        };
        let second = ActiveTarget {
            discovered_labels: set(&[("cluster", "eu")]),
            labels: set(&[("cluster", "eu")]),
            last_scrape: Some(timestamp(None)),
            health: 2,
            ..ActiveTarget::default()
        };
        assert_eq!(found.active_targets, [first, second]);
        assert_eq!(
            found.dropped_targets[0].discovered_labels,
            set(&[("a", "b"), ("cluster", "eu")])
        );
        assert_eq!((found.dropped_targets.len(), health("down")), (1, TargetHealth::Down));
        let empty = r#"{"activeTargets": null, "droppedTargets": null}"#;
        let empty = discovery(serde_json::from_str(empty).unwrap(), &external);
        assert_eq!(empty, TargetDiscovery::default());
    }
}
