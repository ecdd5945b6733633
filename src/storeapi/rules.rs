//! Rules: the groups of rules with their alerts, as Prometheus has them. Only the kind of rule is filtered here; the
//! querier filters the rest.

use std::mem;

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
    pb::thanos::{
        Alert, AlertInstance, AlertState, PartialResponseStrategy, RecordingRule, RuleGroup, RulesRequest,
        rules_request::Type,
    },
    prometheus::api::{self, Accept, Reserve, RulePart},
};

/// The service `thanos.Rules`.
#[derive(Clone, Debug)]
pub struct RulesService {
    context: Context,
}

impl RulesService {
    /// A service for this Prometheus.
    pub fn new(context: Context) -> Self {
        Self { context }
    }
}

impl Call for RulesService {
    const SERVICE: &'static str = "thanos.Rules";
    const PATH: &'static str = "/thanos.Rules/Rules";
    type Request = RulesRequest;

    /// One message per group, in Prometheus' order.
    async fn answer(&self, request: RulesRequest, caller: Caller) -> Result<Answer, Status> {
        let kind = match request.r#type() {
            Type::All => None,
            Type::Alert => Some("alert"),
            Type::Record => Some("record"),
        };
        let labels = self.context.labelled_view()?.labels;
        let groups = Groups::new(labels, Answer::new(self.context.budget.reservation()));
        let options = self.context.request_options(&caller);
        let groups = self.context.client.rules(kind, &options, groups).await;
        Ok(groups.map_err(errors::status)?.answer)
    }
}

/// The groups so far: what is in one comes before it.
#[derive(Debug)]
struct Groups {
    external: Labels,
    answer: Answer,
    /// Alerts of the rule that comes, as fields of an `Alert`.
    alerts: MessageBuffer,
    /// Rules of the group that comes, as fields of a `RuleGroup`.
    rules: MessageBuffer,
    /// How many rules of the group are of a kind that is not known, with kind and name of the last one.
    unknown: Option<(u64, String, String)>,
}

impl Reserve for Groups {
    fn reserve(&mut self, bytes: usize) -> bool {
        self.answer.reservation.reserve(bytes)
    }
}

impl Accept<RulePart> for Groups {
    fn accept(&mut self, part: RulePart) -> bool {
        let before = self.alerts.len() + self.rules.len();
        match part {
            RulePart::Alert(from) => self.alerts.field(7, &instance(from, &self.external)),
            RulePart::Rule(from) => self.rule(*from),
            RulePart::Group(from) => return self.group(from),
        }
        let grown = (self.alerts.len() + self.rules.len()).saturating_sub(before);
        self.answer.reservation.reserve(grown)
    }
}

impl Groups {
    fn new(external: Labels, answer: Answer) -> Self {
        Self {
            external,
            answer,
            alerts: MessageBuffer::default(),
            rules: MessageBuffer::default(),
            unknown: None,
        }
    }

    /// Adds a rule; one of a kind that is not known is left out, since it must not cost the others.
    fn rule(&mut self, from: api::Rule) {
        let alerts = mem::take(&mut self.alerts);
        let mut rule = MessageBuffer::default();
        match &*from.kind.to_ascii_lowercase() {
            "recording" => rule.field(1, &recording(from, &self.external)),
            "alerting" => rule.nested(2, alert(from, alerts, &self.external)),
            _ => {
                let before = self.unknown.take().map_or(0, |(count, ..)| count);
                self.unknown = Some((before + 1, from.kind, from.name));
                return;
            }
        }
        self.rules.nested(3, rule);
    }

    fn group(&mut self, from: api::RuleGroup) -> bool {
        let (group, file) = (&*from.name, &*from.file);
        if let Some((count, kind, name)) = self.unknown.take() {
            tracing::warn!(count, kind, name, group, file, "skipped rules of an unknown kind");
        }
        let own = group.len() + file.len();
        let rest = RuleGroup {
            interval: from.interval,
            evaluation_duration_seconds: from.evaluation_time,
            last_evaluation: Some(timestamp(from.last_evaluation)),
            partial_response_strategy: PartialResponseStrategy::Abort.into(),
            limit: from.limit,
            ..RuleGroup::default()
        };
        let mut group = MessageBuffer::default();
        group.fields(&RuleGroup {
            name: from.name,
            file: from.file,
            ..RuleGroup::default()
        });
        group.append(mem::take(&mut self.rules));
        group.fields(&rest);
        let mut message = MessageBuffer::default();
        message.nested(1, group);
        self.answer.reservation.reserve(own + GROUP) && self.answer.add(message).is_ok()
    }
}

/// What a group takes beside its names and rules, in bytes, at most.
const GROUP: usize = 128;

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

/// An alerting rule with its alerts, as fields of an `Alert`, in the order of their numbers.
fn alert(from: api::Rule, alerts: MessageBuffer, external: &Labels) -> MessageBuffer {
    let mut alert = MessageBuffer::default();
    alert.fields(&Alert {
        state: state(&from.state).into(),
        name: from.name,
        query: from.query,
        duration_seconds: from.duration,
        labels: Some(label_sets::with_external(from.labels, external)),
        annotations: Some(label_sets::plain(from.annotations)),
        ..Alert::default()
    });
    alert.append(alerts);
    alert.fields(&Alert {
        health: from.health,
        last_error: from.last_error,
        evaluation_duration_seconds: from.evaluation_time,
        last_evaluation: Some(timestamp(from.last_evaluation)),
        keep_firing_for_seconds: from.keep_firing_for,
        ..Alert::default()
    });
    alert
}

/// An alert: with the external labels under its own, since a rule may set one of them itself, and with another strategy
/// than its group, since readers expect it so.
fn instance(from: api::Alert, external: &Labels) -> AlertInstance {
    AlertInstance {
        labels: Some(label_sets::over_external(from.labels, external)),
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
            tracing::debug!(state = text, "an alert has an unknown state");
        }
        AlertState::Unknown
    })
}

#[cfg(test)]
mod tests;
