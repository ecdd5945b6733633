//! Metadata: type, help and unit of metrics, as targets tell them.

use tonic::{Request, Response, Status, async_trait};

use super::{Context, Messages, errors, one};
use crate::{
    pb::thanos::{
        Meta, MetricMetadata, MetricMetadataEntry, MetricMetadataRequest, MetricMetadataResponse,
        metadata_server::Metadata, metric_metadata_response,
    },
    prometheus::api,
};

/// The service `thanos.Metadata`.
#[derive(Clone, Debug)]
pub struct MetadataService {
    context: Context,
}

impl MetadataService {
    /// Answers for this Prometheus.
    pub fn new(context: Context) -> Self {
        Self { context }
    }
}

#[async_trait]
impl Metadata for MetadataService {
    type MetricMetadataStream = Messages<MetricMetadataResponse>;

    /// One message, whatever there is. A negative limit is none; 0, also when it is not set, asks for nothing.
    async fn metric_metadata(
        &self,
        request: Request<MetricMetadataRequest>,
    ) -> Result<Response<Self::MetricMetadataStream>, Status> {
        let request = request.into_inner();
        let found = self.context.client.metadata(&request.metric, request.limit).await;
        let found = found.map_err(errors::status)?.into_iter();
        let metadata = found.map(|(metric, metas)| (metric, entry(metas))).collect();
        let result = metric_metadata_response::Result::Metadata(MetricMetadata { metadata });
        Ok(one(MetricMetadataResponse { result: Some(result) }))
    }
}

fn entry(metas: Vec<api::Meta>) -> MetricMetadataEntry {
    let metas = metas.into_iter().map(|meta| Meta {
        r#type: meta.kind,
        help: meta.help,
        unit: meta.unit,
    });
    MetricMetadataEntry { metas: metas.collect() }
}
