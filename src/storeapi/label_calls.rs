//! LabelNames and LabelValues: which labels there are, with the external labels over the stored ones.
//!
//! What is stored under the name of an external label is never shown: everything that is served carries the external
//! label's value. Nothing older than `--min-time` is served; unlike with Series, the age of the oldest block does not
//! matter, since samples that came out of order may be older.

use std::collections::{BTreeSet, HashSet};

use tonic::Status;

use super::{
    budget::Reservation,
    context::{Context, View},
    errors,
    message_buffer::MessageBuffer,
    respond::Answer,
    selection::{Selection, select},
};
use crate::{
    model::Matcher,
    ops::grpc::Caller,
    pb::thanos::{LabelMatcher, LabelNamesRequest, LabelValuesRequest},
    prometheus::{
        Error,
        api::{RequestOptions, SeriesFilter, Texts},
        version::at_least,
    },
};

/// With more texts than this an answer is encoded on the pool: this thread serves all queries.
const MANY: usize = 2000;

/// The two unary calls of the service `thanos.Store`.
#[derive(Clone, Debug)]
pub struct LabelCalls {
    context: Context,
}

impl LabelCalls {
    /// A service for this Prometheus.
    pub fn new(context: Context) -> Self {
        Self { context }
    }

    /// The names of labels: those of series that match, and if there are any, those of the external labels; without the
    /// replica labels, sorted, each once, at most as many as the limit. Warnings of Prometheus are not passed on, since a
    /// reader takes a warning for a partial answer.
    ///
    /// # Errors
    /// `InvalidArgument` for a bad matcher, `Unavailable` without external labels, and see [`errors::status`].
    pub(super) async fn names(&self, request: LabelNamesRequest, caller: &Caller) -> Result<Answer, Status> {
        let view = self.context.labelled_view()?;
        let Some(matchers) = self.matchers_for_prometheus(request.matchers, &view).await? else {
            return self.nothing();
        };
        let replica: HashSet<String> = request.without_replica_labels.into_iter().collect();
        // Those that are taken away here must not be counted there.
        let extra = i64::try_from(replica.len()).unwrap_or(i64::MAX);
        let limit = if request.limit > 0 {
            request.limit.saturating_add(extra)
        } else {
            0
        };
        let Some(filter) = filter(&view, &matchers, (request.start, request.end), limit) else {
            return self.nothing();
        };
        let (client, options, reservation) = (
            &self.context.client,
            self.context.request_options(caller),
            self.context.budget.reservation(),
        );
        let stored = if matchers.is_empty() || knows_matchers(&view) {
            client.label_names(&filter, &options, reservation).await
        } else {
            client.label_names_of_series(&filter, &options, reservation).await
        };
        let external = view.labels;
        self.answer(stored, request.limit, move |names| {
            if !names.is_empty() {
                let external = external.iter().filter(|label| !label.value.is_empty());
                names.extend(external.map(|label| label.name.to_string()));
            }
            names.retain(|name| !replica.contains(name));
        })
        .await
    }

    /// The values of a label, sorted, each once, at most as many as the limit. An external label has its own value, if
    /// any series matches what else is asked; if nothing else is asked, that value whatever is stored.
    ///
    /// # Errors
    /// `InvalidArgument` for a bad matcher or no label, `Unavailable` without external labels, and see
    /// [`errors::status`].
    pub(super) async fn values(&self, request: LabelValuesRequest, caller: &Caller) -> Result<Answer, Status> {
        if request.label.is_empty() {
            return Err(Status::invalid_argument("label name parameter cannot be empty"));
        }
        if request.without_replica_labels.contains(&request.label) {
            return self.nothing();
        }
        let view = self.context.labelled_view()?;
        let Some(matchers) = self.matchers_for_prometheus(request.matchers, &view).await? else {
            return self.nothing();
        };
        let external = view.labels.get(&request.label).filter(|value| !value.is_empty());
        let mut reservation = self.context.budget.reservation();
        if let Some(value) = external.filter(|_| matchers.is_empty()) {
            return encode([value.to_owned()].into(), 0, reservation);
        }
        let Some(filter) = filter(&view, &matchers, (request.start, request.end), request.limit) else {
            return self.nothing();
        };
        let options = self.context.request_options(caller);
        if let Some(value) = external {
            let reserve = &mut |bytes| reservation.reserve(bytes);
            let any = self.context.client.any_series(&filter, &options, reserve).await;
            let any = any.map_err(errors::status)?;
            let values = any.then(|| value.to_owned()).into_iter().collect();
            return encode(values, request.limit, reservation);
        }
        let stored = self
            .stored_values(&request.label, &filter, &view, &options, reservation)
            .await;
        self.answer(stored, request.limit, |_| ()).await
    }

    /// The matchers that are left for Prometheus; `None` if an external label contradicts.
    async fn matchers_for_prometheus(
        &self,
        matchers: Vec<LabelMatcher>,
        view: &View,
    ) -> Result<Option<Vec<Matcher>>, Status> {
        Ok(match select(&self.context.patterns, matchers, &view.labels).await? {
            Selection::Nothing => None,
            Selection::Matching(matchers) => Some(matchers),
        })
    }

    async fn stored_values(
        &self,
        label: &str,
        filter: &SeriesFilter<'_>,
        view: &View,
        options: &RequestOptions,
        reservation: Reservation,
    ) -> Result<Texts<Reservation>, Error> {
        let client = &self.context.client;
        if filter.matchers.is_empty() || knows_matchers(view) {
            client
                .label_values((label, &view.version), filter, options, reservation)
                .await
        } else {
            client.label_values_of_series(label, filter, options, reservation).await
        }
    }

    fn nothing(&self) -> Result<Answer, Status> {
        encode(BTreeSet::new(), 0, self.context.budget.reservation())
    }

    /// What was found, after a `change`.
    async fn answer(
        &self,
        found: Result<Texts<Reservation>, Error>,
        limit: i64,
        change: impl FnOnce(&mut BTreeSet<String>) + Send + 'static,
    ) -> Result<Answer, Status> {
        let Texts {
            mut texts, reservation, ..
        } = found.map_err(errors::status)?;
        let many = texts.len() > MANY;
        let work = move || {
            change(&mut texts);
            encode(texts, limit, reservation)
        };
        if !many {
            return work();
        }
        let done = self.context.pool.run(work).await;
        done.map_err(|lost| Status::internal(lost.to_string()))?
    }
}

/// What to ask Prometheus about a time (ms since 1970, both inclusive); `None` if all of it is older than what is served.
fn filter<'a>(
    view: &View,
    matchers: &'a [Matcher],
    (start_ms, end_ms): (i64, i64),
    limit: i64,
) -> Option<SeriesFilter<'a>> {
    let start_ms = start_ms.max(view.limit_ms);
    (start_ms <= end_ms).then_some(SeriesFilter {
        matchers,
        start_ms,
        end_ms,
        limit,
    })
}

/// A message of at most `limit` texts, if that is positive. Those of names and of values have the same form.
fn encode(texts: BTreeSet<String>, limit: i64, mut reservation: Reservation) -> Result<Answer, Status> {
    let most = usize::try_from(limit).ok().filter(|&limit| limit > 0);
    let mut message = MessageBuffer::default();
    for text in texts.into_iter().take(most.unwrap_or(usize::MAX)) {
        message.text(1, &text);
    }
    if !reservation.reserve(message.len()) {
        return Err(Status::resource_exhausted(
            "no memory for the answer: all calls together may hold --store.memory-limit; select less, send fewer \
             requests at once, or raise it",
        ));
    }
    let mut answer = Answer::new(reservation);
    answer.add(message)?;
    Ok(answer)
}

/// Whether Prometheus takes matchers when it is asked for names or values.
fn knows_matchers(view: &View) -> bool {
    at_least(&view.version, 2, 24)
}
