//! Metadata: type, help and unit of metrics, as targets report them.

use std::mem;

use tonic::Status;

use super::{
    context::Context,
    errors,
    message_buffer::MessageBuffer,
    respond::{Answer, Call},
};
use crate::{
    ops::grpc::Caller,
    pb::thanos::{Meta, MetricMetadataRequest},
    prometheus::api::{Accept, MetadataPart, Reserve},
};

/// What a metric takes beside its name and its metadata, in bytes, at most.
const METRIC: usize = 32;

/// The service `thanos.Metadata`.
#[derive(Clone, Debug)]
pub struct MetadataService {
    context: Context,
}

impl MetadataService {
    /// A service for this Prometheus.
    pub fn new(context: Context) -> Self {
        Self { context }
    }
}

impl Call for MetadataService {
    const SERVICE: &'static str = "thanos.Metadata";
    const PATH: &'static str = "/thanos.Metadata/MetricMetadata";
    type Request = MetricMetadataRequest;

    /// One message, whatever there is. A negative limit is none; 0, also when it is not set, asks for nothing.
    async fn answer(&self, request: MetricMetadataRequest, caller: Caller) -> Result<Answer, Status> {
        let metrics = Metrics::new(Answer::new(self.context.budget.reservation()));
        let options = self.context.request_options(&caller);
        let client = &self.context.client;
        let found = client.metadata(&request.metric, request.limit, &options, metrics).await;
        found.map_err(errors::status)?.finish()
    }
}

/// The metrics so far.
#[derive(Debug)]
struct Metrics {
    answer: Answer,
    /// Metadata of the metric that follows, as fields of a `MetricMetadataEntry`.
    metas: MessageBuffer,
    /// Fields of a `MetricMetadata`.
    metrics: MessageBuffer,
}

impl Reserve for Metrics {
    fn reserve(&mut self, bytes: usize) -> bool {
        self.answer.reservation.reserve(bytes)
    }
}

impl Accept<MetadataPart> for Metrics {
    fn accept(&mut self, part: MetadataPart) -> bool {
        let taken = match part {
            MetadataPart::Meta(meta) => {
                let before = self.metas.len();
                self.metas.field(
                    2,
                    &Meta {
                        r#type: meta.kind,
                        help: meta.help,
                        unit: meta.unit,
                    },
                );
                self.metas.len() - before
            }
            MetadataPart::Metric(name) => {
                let mut metric = MessageBuffer::default();
                metric.text(1, &name);
                metric.nested(2, mem::take(&mut self.metas));
                self.metrics.nested(1, metric);
                name.len() + METRIC
            }
        };
        self.answer.reservation.reserve(taken)
    }
}

impl Metrics {
    fn new(answer: Answer) -> Self {
        Self {
            answer,
            metas: MessageBuffer::default(),
            metrics: MessageBuffer::default(),
        }
    }

    fn finish(mut self) -> Result<Answer, Status> {
        let mut message = MessageBuffer::default();
        message.nested(1, self.metrics);
        self.answer.add(message)?;
        Ok(self.answer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        pb::thanos::{MetricMetadataResponse, metric_metadata_response},
        prometheus::api::testing,
        storeapi::{budget::Budget, respond::testing::messages},
    };

    #[test]
    fn metrics_have_what_is_said_of_them_and_null_is_nothing() {
        let json = r#"{"up": [{"type": "gauge", "help": "h", "unit": ""}, {}], "a\u0062": [], "none": null}"#;
        let metrics = Metrics::new(Answer::new(Budget::new(1 << 20).reservation()));
        let found = testing::metadata(json, metrics).unwrap().finish().unwrap();
        let [MetricMetadataResponse { result }] = &messages(found)[..] else {
            panic!("not one message");
        };
        let Some(metric_metadata_response::Result::Metadata(found)) = result else {
            panic!("no metadata");
        };
        let kinds = |metric: &str| -> Vec<String> {
            let metas = found.metadata[metric].metas.iter();
            metas.map(|meta| format!("{} {}", meta.r#type, meta.help)).collect()
        };
        assert_eq!(found.metadata.len(), 3);
        assert_eq!(kinds("up"), ["gauge h", " "]);
        assert!(kinds("ab").is_empty() && kinds("none").is_empty());
        for wrong in [r#"{"up": {}}"#, r#"{"up": "x"}"#, r#"["up"]"#, r#"{"up": [1]}"#] {
            let metrics = Metrics::new(Answer::new(Budget::new(1 << 20).reservation()));
            let error = testing::metadata(wrong, metrics).unwrap_err();
            assert!(
                error.to_string().contains("expected lists by metric in data"),
                "{error}"
            );
        }
    }
}
