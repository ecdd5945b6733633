//! LabelNames and LabelValues: which labels there are, with the external ones over what is stored.
//!
//! What is stored under the name of an external label is never shown: everything that is served carries the external
//! label's value. Nothing older than the min time is asked for, as with Series.

use std::collections::{BTreeSet, HashSet};

use tonic::Status;

use super::{
    Context, View, errors,
    patterns::Patterns,
    selection::{Selection, select},
};
use crate::{
    model::Matcher,
    pb::thanos::{LabelMatcher, LabelNamesRequest, LabelNamesResponse, LabelValuesRequest, LabelValuesResponse},
    prometheus::{api::Question, version::at_least},
};

/// The two unary calls of the service `thanos.Store`.
#[derive(Clone, Debug)]
pub struct LabelCalls {
    context: Context,
    patterns: Patterns,
}

impl LabelCalls {
    /// Answers for this Prometheus.
    pub fn new(context: Context) -> Self {
        let patterns = Patterns::new(context.lane.clone());
        Self { context, patterns }
    }

    /// The names of labels: those of series that match, and if there are any, those of the external labels; without the
    /// replica labels, sorted, each once, at most as many as the limit. Warnings of Prometheus are not passed on, since a
    /// reader takes a warning for a partial answer.
    ///
    /// # Errors
    /// `InvalidArgument` for a bad matcher, and see [`errors::status`].
    pub async fn names(&self, request: LabelNamesRequest) -> Result<LabelNamesResponse, Status> {
        let view = self.context.view();
        let Some(matchers) = self.left(request.matchers, &view).await? else {
            return Ok(LabelNamesResponse::default());
        };
        let replica: HashSet<&str> = request.without_replica_labels.iter().map(String::as_str).collect();
        // Those that are taken away here must not be counted there.
        let extra = i64::try_from(replica.len()).unwrap_or(i64::MAX);
        let limit = if request.limit > 0 {
            request.limit.saturating_add(extra)
        } else {
            0
        };
        let Some(question) = question(&matchers, request.start, request.end, limit, &view) else {
            return Ok(LabelNamesResponse::default());
        };
        let client = &self.context.client;
        let stored = if matchers.is_empty() || knows_matchers(&view) {
            client.label_names(&question).await
        } else {
            client.label_names_of_series(&question).await
        };
        let mut names: BTreeSet<String> = stored.map_err(errors::status)?.into_iter().collect();
        if !names.is_empty() {
            let external = view.labels.iter().filter(|label| !label.value.is_empty());
            names.extend(external.map(|label| label.name.to_string()));
        }
        names.retain(|name| !replica.contains(name.as_str()));
        Ok(LabelNamesResponse {
            names: cut(names, request.limit),
            ..LabelNamesResponse::default()
        })
    }

    /// The values of a label, sorted, each once, at most as many as the limit. An external label has its own value, if
    /// any series matches what else is asked; if nothing else is asked, that value whatever is stored.
    ///
    /// # Errors
    /// `InvalidArgument` for a bad matcher or no label, and see [`errors::status`].
    pub async fn values(&self, request: LabelValuesRequest) -> Result<LabelValuesResponse, Status> {
        if request.label.is_empty() {
            return Err(Status::invalid_argument("label name parameter cannot be empty"));
        }
        if request.without_replica_labels.contains(&request.label) {
            return Ok(LabelValuesResponse::default());
        }
        let view = self.context.view();
        let Some(matchers) = self.left(request.matchers, &view).await? else {
            return Ok(LabelValuesResponse::default());
        };
        let external = view.labels.get(&request.label).filter(|value| !value.is_empty());
        if let Some(value) = external.filter(|_| matchers.is_empty()) {
            return Ok(answer([value.to_owned()].into(), 0));
        }
        let Some(question) = question(&matchers, request.start, request.end, request.limit, &view) else {
            return Ok(LabelValuesResponse::default());
        };
        let values = match external {
            Some(value) => {
                let any = self.context.client.any_series(&question).await;
                any.map_err(errors::status)?
                    .then(|| value.to_owned())
                    .into_iter()
                    .collect()
            }
            None => self.stored_values(&request.label, &question, &view).await?,
        };
        Ok(answer(values, request.limit))
    }

    /// The matchers that are left for Prometheus; `None` if an external label contradicts.
    async fn left(&self, matchers: Vec<LabelMatcher>, view: &View) -> Result<Option<Vec<Matcher>>, Status> {
        Ok(match select(&self.patterns, matchers, &view.labels).await? {
            Selection::Nothing => None,
            Selection::Matching(matchers) => Some(matchers),
        })
    }

    async fn stored_values(
        &self,
        label: &str,
        question: &Question<'_>,
        view: &View,
    ) -> Result<BTreeSet<String>, Status> {
        let client = &self.context.client;
        let values = if question.matchers.is_empty() || knows_matchers(view) {
            client.label_values(label, &view.version, question).await
        } else {
            client.label_values_of_series(label, question).await
        };
        Ok(values.map_err(errors::status)?.into_iter().collect())
    }
}

/// What to ask Prometheus; `None` if all of the time is older than what is served.
fn question<'a>(matchers: &'a [Matcher], start_ms: i64, end_ms: i64, limit: i64, view: &View) -> Option<Question<'a>> {
    let start_ms = start_ms.max(view.min_time_ms);
    (start_ms <= end_ms).then_some(Question {
        matchers,
        start_ms,
        end_ms,
        limit,
    })
}

/// Whether Prometheus takes matchers when it is asked for names or values.
fn knows_matchers(view: &View) -> bool {
    at_least(&view.version, 2, 24)
}

fn answer(values: BTreeSet<String>, limit: i64) -> LabelValuesResponse {
    LabelValuesResponse {
        values: cut(values, limit),
        ..LabelValuesResponse::default()
    }
}

/// At most `limit` texts, if it is positive.
fn cut(texts: BTreeSet<String>, limit: i64) -> Vec<String> {
    let most = usize::try_from(limit)
        .ok()
        .filter(|&limit| limit > 0)
        .unwrap_or(usize::MAX);
    texts.into_iter().take(most).collect()
}
