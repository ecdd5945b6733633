//! Exemplars, as Prometheus has them.

use std::mem;

use tonic::Status;

use super::{
    context::Context,
    errors, label_sets,
    message_buffer::MessageBuffer,
    respond::{Answer, Call},
};
use crate::{
    model::Labels,
    ops::grpc::Caller,
    pb::thanos::{Exemplar, ExemplarData, ExemplarsRequest},
    prometheus::api::{self, Accept, ExemplarPart, Reserve},
};

/// The service `thanos.Exemplars`.
#[derive(Clone, Debug)]
pub struct ExemplarsService {
    context: Context,
}

impl ExemplarsService {
    /// A service for this Prometheus.
    pub fn new(context: Context) -> Self {
        Self { context }
    }
}

impl Call for ExemplarsService {
    const SERVICE: &'static str = "thanos.Exemplars";
    const PATH: &'static str = "/thanos.Exemplars/Exemplars";
    type Request = ExemplarsRequest;

    /// One message per series; the query is passed on as it is.
    async fn answer(&self, request: ExemplarsRequest, caller: Caller) -> Result<Answer, Status> {
        let labels = self.context.labelled_view()?.labels;
        let found = Found::new(labels, Answer::new(self.context.budget.reservation()));
        let options = self.context.request_options(&caller);
        let times = (request.start, request.end);
        let found = self
            .context
            .client
            .exemplars(&request.query, times, &options, found)
            .await;
        Ok(found.map_err(errors::status)?.answer)
    }
}

/// The series so far: their exemplars come before them.
#[derive(Debug)]
struct Found {
    external: Labels,
    answer: Answer,
    /// Exemplars of the series that comes, as fields of an `ExemplarData`.
    exemplars: MessageBuffer,
}

impl Reserve for Found {
    fn reserve(&mut self, bytes: usize) -> bool {
        self.answer.reservation.reserve(bytes)
    }
}

impl Accept<ExemplarPart> for Found {
    fn accept(&mut self, part: ExemplarPart) -> bool {
        match part {
            ExemplarPart::Exemplar(from) => {
                let before = self.exemplars.len();
                self.exemplars.field(2, &exemplar(from));
                self.answer.reservation.reserve(self.exemplars.len() - before)
            }
            ExemplarPart::Series(from) => {
                let exemplars = mem::take(&mut self.exemplars);
                let reserved = exemplars.len();
                let mut data = MessageBuffer::default();
                data.fields(&ExemplarData {
                    series_labels: Some(label_sets::with_external(from.series_labels, &self.external)),
                    exemplars: Vec::new(),
                });
                data.append(exemplars);
                let mut message = MessageBuffer::default();
                message.nested(1, data);
                self.answer.reservation.reserve(message.len() - reserved) && self.answer.add(message).is_ok()
            }
        }
    }
}

impl Found {
    fn new(external: Labels, answer: Answer) -> Self {
        Self {
            external,
            answer,
            exemplars: MessageBuffer::default(),
        }
    }
}

fn exemplar(from: api::Exemplar) -> Exemplar {
    Exemplar {
        labels: Some(label_sets::plain(from.labels)),
        value: from.value,
        ts: from.time_ms,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        pb::thanos::{ExemplarsResponse, exemplars_response},
        prometheus::{ErrorKind, api::testing},
        storeapi::{budget::Budget, respond::testing::messages},
    };

    fn read(value: &str, time: &str) -> Result<ExemplarData, ErrorKind> {
        let json = format!(
            r#"[{{"seriesLabels": {{"__name__": "x", "cluster": "other"}}, "other": [],
                  "exemplars": [{{"labels": {{"trace": "1"}}, "value": {value}, "timestamp": {time}}}]}}]"#
        );
        let external = Labels::from_pairs([("cluster", "eu")]);
        let found = Found::new(external, Answer::new(Budget::new(1 << 20).reservation()));
        let found = testing::exemplars(&json, found)?;
        let [ExemplarsResponse { result }] = &messages(found.answer)[..] else {
            panic!("not one message");
        };
        match result.clone() {
            Some(exemplars_response::Result::Data(data)) => Ok(data),
            other => panic!("no exemplars: {other:?}"),
        }
    }

    #[test]
    fn external_labels_are_on_the_series_and_not_on_the_exemplars() {
        let found = read(r#""6.5""#, "1700000000.123").unwrap();
        let set = |pairs: &[(&str, &str)]| Some(label_sets::external(&Labels::from_pairs(pairs.iter().copied())));
        assert_eq!(found.series_labels, set(&[("__name__", "x"), ("cluster", "eu")]));
        let want = Exemplar {
            labels: set(&[("trace", "1")]),
            value: 6.5,
            ts: 1_700_000_000_123,
        };
        assert_eq!(found.exemplars, [want]);
    }

    #[test]
    fn values_are_quoted_and_may_be_no_numbers() {
        let value = |text: &str| read(text, "1.001").map(|data| (data.exemplars[0].value, data.exemplars[0].ts));
        assert!(value(r#""NaN""#).unwrap().0.is_nan());
        assert_eq!(value(r#""+Inf""#).unwrap(), (f64::INFINITY, 1001));
        assert_eq!(value(r#""-Inf""#).unwrap(), (f64::NEG_INFINITY, 1001));
        assert!(value("6.5").is_err() && value(r#""x""#).is_err());
    }
}
