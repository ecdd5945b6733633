//! Targets: what Prometheus scrapes, and what it discovered but dropped.

use tonic::Status;

use super::{
    context::Context,
    errors, label_sets,
    message_buffer::MessageBuffer,
    respond::{Answer, Call},
    times::timestamp,
};
use crate::{
    model::Labels,
    ops::grpc::Caller,
    pb::thanos::{ActiveTarget, DroppedTarget, TargetHealth, TargetsRequest, targets_request::State},
    prometheus::api::{self, Accept, Reserve, Target},
};

/// The service `thanos.Targets`.
#[derive(Clone, Debug)]
pub struct TargetsService {
    context: Context,
}

impl TargetsService {
    /// A service for this Prometheus.
    pub fn new(context: Context) -> Self {
        Self { context }
    }
}

impl Call for TargetsService {
    const SERVICE: &'static str = "thanos.Targets";
    const PATH: &'static str = "/thanos.Targets/Targets";
    type Request = TargetsRequest;

    /// One message, whatever there is.
    async fn answer(&self, request: TargetsRequest, caller: Caller) -> Result<Answer, Status> {
        let state = match request.state() {
            State::Any => None,
            State::Active => Some("active"),
            State::Dropped => Some("dropped"),
        };
        let found = Discovery {
            external: self.context.labelled_view()?.labels,
            answer: Answer::new(self.context.budget.reservation()),
            targets: MessageBuffer::default(),
        };
        let options = self.context.request_options(&caller);
        let found = self.context.client.targets(state, &options, found).await;
        found.map_err(errors::status)?.finish()
    }
}

/// The targets so far, as fields of a `TargetDiscovery`.
#[derive(Debug)]
struct Discovery {
    external: Labels,
    answer: Answer,
    targets: MessageBuffer,
}

impl Reserve for Discovery {
    fn reserve(&mut self, bytes: usize) -> bool {
        self.answer.reservation.reserve(bytes)
    }
}

impl Accept<Target> for Discovery {
    fn accept(&mut self, target: Target) -> bool {
        let before = self.targets.len();
        match target {
            Target::Active(from) => self.targets.field(1, &active(*from, &self.external)),
            Target::Dropped(from) => self.targets.field(2, &dropped(from, &self.external)),
        }
        self.answer.reservation.reserve(self.targets.len() - before)
    }
}

impl Discovery {
    fn finish(mut self) -> Result<Answer, Status> {
        let mut message = MessageBuffer::default();
        message.nested(1, self.targets);
        self.answer.add(message)?;
        Ok(self.answer)
    }
}

fn dropped(from: api::DroppedTarget, external: &Labels) -> DroppedTarget {
    DroppedTarget {
        discovered_labels: Some(label_sets::with_external(from.discovered_labels, external)),
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
            tracing::debug!(health = text, "a target has an unknown health");
            TargetHealth::Unknown
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        pb::thanos::{TargetDiscovery, TargetsResponse, targets_response},
        prometheus::api::testing,
        storeapi::{budget::Budget, respond::testing::messages},
    };

    fn discovery(json: &str, external: &Labels) -> TargetDiscovery {
        let found = Discovery {
            external: external.clone(),
            answer: Answer::new(Budget::new(1 << 20).reservation()),
            targets: MessageBuffer::default(),
        };
        let found = testing::targets(json, found).unwrap();
        let [TargetsResponse { result }] = &messages(found.finish().unwrap())[..] else {
            panic!("not one message");
        };
        match result.clone() {
            Some(targets_response::Result::Targets(targets)) => targets,
            other => panic!("no targets: {other:?}"),
        }
    }

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
        let found = discovery(json, &external);
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
        let empty = discovery(empty, &external);
        assert_eq!(empty, TargetDiscovery::default());
    }
}
