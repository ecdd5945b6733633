//! Info: what this endpoint is. It is called every few seconds and answered from the last heartbeat, without any I/O.

use tonic::{Request, Response, Status, async_trait};

use super::{context::Context, label_sets};
use crate::pb::thanos::info::{
    ExemplarsInfo, InfoRequest, InfoResponse, MetricMetadataInfo, RulesInfo, StatusInfo, StoreInfo, TargetsInfo,
    TsdbInfo, info_server::Info,
};

/// The service `thanos.info.Info`.
#[derive(Clone, Debug)]
pub struct InfoService {
    context: Context,
}

impl InfoService {
    /// A service for this Prometheus.
    pub fn new(context: Context) -> Self {
        Self { context }
    }
}

#[async_trait]
impl Info for InfoService {
    /// Offers what Prometheus can answer: an agent has no store. Fails as a whole while we are not ready: an answer without labels would be asked for everything.
    async fn info(&self, _: Request<InfoRequest>) -> Result<Response<InfoResponse>, Status> {
        let view = self.context.view();
        // The probe may hear of lost labels a moment later.
        if self.context.probe.ready().is_err() || view.labels.is_empty() || !view.seen {
            return Err(Status::unknown("Not ready"));
        }
        let (min_time, max_time) = (view.min_time_ms, i64::MAX);
        let labels = label_sets::external(&view.labels);
        let tsdb_info = TsdbInfo {
            labels: Some(labels.clone()),
            min_time,
            max_time,
        };
        // An agent stores nothing: it has its targets, and the metadata of their metrics.
        let stores = !self.context.snapshots.borrow().is_agent();
        Ok(Response::new(InfoResponse {
            label_sets: vec![labels],
            component_type: "sidecar".to_owned(),
            store: stores.then(|| StoreInfo {
                min_time,
                max_time,
                supports_sharding: true,
                supports_without_replica_labels: true,
                tsdb_infos: vec![tsdb_info],
                supports_projections: false,
            }),
            // An empty message announces the service.
            rules: stores.then_some(RulesInfo {}),
            metric_metadata: Some(MetricMetadataInfo {}),
            targets: Some(TargetsInfo {}),
            exemplars: stores.then(ExemplarsInfo::default),
            query: None,
            status: stores.then_some(StatusInfo {}),
        }))
    }
}
