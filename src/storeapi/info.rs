//! Info: what this endpoint is. It is asked every few seconds and answers from what is known, without any I/O.

use tonic::{Request, Response, Status, async_trait};

use super::{Context, label_sets};
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
    /// Answers for this Prometheus.
    pub fn new(context: Context) -> Self {
        Self { context }
    }
}

#[async_trait]
impl Info for InfoService {
    /// Fails as a whole while we are not ready: an answer without labels would be asked for everything.
    async fn info(&self, _: Request<InfoRequest>) -> Result<Response<InfoResponse>, Status> {
        if self.context.probe.ready().is_err() || !self.context.snapshots.borrow().seen {
            return Err(Status::unknown("Not ready"));
        }
        let view = self.context.view();
        let (min_time, max_time) = (view.min_time_ms, i64::MAX);
        let labels = (!view.labels.is_empty()).then(|| label_sets::external(&view.labels));
        let tsdb_info = |labels| TsdbInfo {
            labels: Some(labels),
            min_time,
            max_time,
        };
        Ok(Response::new(InfoResponse {
            label_sets: labels.clone().into_iter().collect(),
            component_type: "sidecar".to_owned(),
            store: Some(StoreInfo {
                min_time,
                max_time,
                supports_sharding: true,
                supports_without_replica_labels: true,
                tsdb_infos: labels.into_iter().map(tsdb_info).collect(),
                supports_projections: false,
            }),
            // An empty message says that the service is there.
            rules: Some(RulesInfo {}),
            metric_metadata: Some(MetricMetadataInfo {}),
            targets: Some(TargetsInfo {}),
            exemplars: Some(ExemplarsInfo::default()),
            query: None,
            status: Some(StatusInfo {}),
        }))
    }
}
