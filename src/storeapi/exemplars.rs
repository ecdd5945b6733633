//! Exemplars: examples behind samples, as Prometheus has them.

use futures_util::{StreamExt, stream};
use tonic::{Request, Response, Status, async_trait};

use super::{Context, Messages, errors, label_sets};
use crate::{
    model::Labels,
    pb::thanos::{
        Exemplar, ExemplarData, ExemplarsRequest, ExemplarsResponse, exemplars_response, exemplars_server::Exemplars,
    },
    prometheus::api,
};

/// The service `thanos.Exemplars`.
#[derive(Clone, Debug)]
pub struct ExemplarsService {
    context: Context,
}

impl ExemplarsService {
    /// Answers for this Prometheus.
    pub fn new(context: Context) -> Self {
        Self { context }
    }
}

#[async_trait]
impl Exemplars for ExemplarsService {
    type ExemplarsStream = Messages<ExemplarsResponse>;

    /// One message per series; the query is passed on as it is.
    async fn exemplars(&self, request: Request<ExemplarsRequest>) -> Result<Response<Self::ExemplarsStream>, Status> {
        let request = request.into_inner();
        let labels = self.context.view().labels;
        let found = self
            .context
            .client
            .exemplars(&request.query, request.start, request.end);
        let found = found.await.map_err(errors::status)?;
        let message = move |from| {
            let data = exemplars_response::Result::Data(data(from, &labels));
            Ok(ExemplarsResponse { result: Some(data) })
        };
        Ok(Response::new(stream::iter(found.into_iter().map(message)).boxed()))
    }
}

fn data(from: api::SeriesExemplars, external: &Labels) -> ExemplarData {
    let exemplars = from.exemplars.into_iter().map(|from| Exemplar {
        labels: Some(label_sets::plain(from.labels)),
        value: from.value,
        ts: from.time_ms,
    });
    ExemplarData {
        series_labels: Some(label_sets::with_external(from.series_labels, external)),
        exemplars: exemplars.collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(value: &str, time: &str) -> Result<ExemplarData, serde_json::Error> {
        let json = format!(
            r#"{{"seriesLabels": {{"__name__": "x", "cluster": "other"}}, "other": [],
                 "exemplars": [{{"labels": {{"trace": "1"}}, "value": {value}, "timestamp": {time}}}]}}"#
        );
        Ok(data(
            serde_json::from_str(&json)?,
            &Labels::from_pairs([("cluster", "eu")]),
        ))
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
