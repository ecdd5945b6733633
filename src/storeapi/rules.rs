//! Rules: the groups of rules with their alerts, as Prometheus has them. Only the kind of rule is filtered here; whoever
//! asks filters the rest.

use futures_util::{StreamExt, stream};
use tonic::{Request, Response, Status, async_trait};

use super::{Context, Messages, errors, label_sets, times::timestamp};
use crate::{
    model::Labels,
    pb::thanos::{
        self, AlertInstance, AlertState, PartialResponseStrategy, RecordingRule, RulesRequest, RulesResponse, rule,
        rules_request::Type, rules_response, rules_server::Rules,
    },
    prometheus::api,
};

/// The service `thanos.Rules`.
#[derive(Clone, Debug)]
pub struct RulesService {
    context: Context,
}

impl RulesService {
    /// Answers for this Prometheus.
    pub fn new(context: Context) -> Self {
        Self { context }
    }
}

#[async_trait]
impl Rules for RulesService {
    type RulesStream = Messages<RulesResponse>;

    /// One message per group, in Prometheus' order.
    async fn rules(&self, request: Request<RulesRequest>) -> Result<Response<Self::RulesStream>, Status> {
        let kind = match request.into_inner().r#type() {
            Type::All => None,
            Type::Alert => Some("alert"),
            Type::Record => Some("record"),
        };
        let labels = self.context.view().labels;
        let groups = self.context.client.rules(kind).await.map_err(errors::status)?;
        let message = move |from| {
            let group = rules_response::Result::Group(group(from, &labels));
            Ok(RulesResponse { result: Some(group) })
        };
        Ok(Response::new(stream::iter(groups.into_iter().map(message)).boxed()))
    }
}

fn group(from: api::RuleGroup, external: &Labels) -> thanos::RuleGroup {
    let (name, file) = (from.name, from.file);
    let rules = from.rules.into_iter();
    thanos::RuleGroup {
        rules: rules.filter_map(|from| rule(from, external, &file, &name)).collect(),
        name,
        file,
        interval: from.interval,
        evaluation_duration_seconds: from.evaluation_time,
        last_evaluation: Some(timestamp(from.last_evaluation)),
        partial_response_strategy: PartialResponseStrategy::Abort.into(),
        limit: from.limit,
    }
}

/// A rule; `None` if it is of a kind that is not known, which must not cost the others.
fn rule(from: api::Rule, external: &Labels, file: &str, group: &str) -> Option<thanos::Rule> {
    let result = match &*from.kind.to_ascii_lowercase() {
        "recording" => rule::Result::Recording(recording(from, external)),
        "alerting" => rule::Result::Alert(alert(from, external)),
        _ => {
            let (kind, name) = (from.kind, from.name);
            tracing::warn!(kind, name, group, file, "left out a rule of a kind that is not known");
            return None;
        }
    };
    Some(thanos::Rule { result: Some(result) })
}

fn recording(from: api::Rule, external: &Labels) -> RecordingRule {
    RecordingRule {
        name: from.name,
        query: from.query,
        labels: Some(label_sets::with_external(from.labels, external)),
        health: from.health,
        last_error: from.last_error,
        evaluation_duration_seconds: from.evaluation_time,
        last_evaluation: Some(timestamp(from.last_evaluation)),
    }
}

fn alert(from: api::Rule, external: &Labels) -> thanos::Alert {
    thanos::Alert {
        state: state(&from.state).into(),
        name: from.name,
        query: from.query,
        duration_seconds: from.duration,
        labels: Some(label_sets::with_external(from.labels, external)),
        annotations: Some(label_sets::plain(from.annotations)),
        alerts: from.alerts.into_iter().map(instance).collect(),
        health: from.health,
        last_error: from.last_error,
        evaluation_duration_seconds: from.evaluation_time,
        last_evaluation: Some(timestamp(from.last_evaluation)),
        keep_firing_for_seconds: from.keep_firing_for,
    }
}

/// An alert: without external labels and with another strategy than its group. Readers expect it so.
fn instance(from: api::Alert) -> AlertInstance {
    AlertInstance {
        labels: Some(label_sets::plain(from.labels)),
        annotations: Some(label_sets::plain(from.annotations)),
        state: state(&from.state).into(),
        active_at: from.active_at.map(|time| timestamp(Some(time))),
        value: from.value,
        partial_response_strategy: PartialResponseStrategy::Warn.into(),
    }
}

fn state(text: &str) -> AlertState {
    let text = text.to_ascii_uppercase();
    AlertState::from_str_name(&text).unwrap_or_else(|| {
        if text != "UNKNOWN" {
            tracing::debug!(state = text, "an alert is in a state that is not known");
        }
        AlertState::Unknown
    })
}

#[cfg(test)]
mod tests;
