//! The StoreAPI: the gRPC services that Thanos Query calls, answered from one Prometheus.
//!
//! A call uses the labels, the min time and the version of the moment it starts ([`Context::view`]). No service has
//! state of its own: a crash costs only the calls that run. Dropping a call drops its request to Prometheus.

pub mod budget;
pub mod errors;
pub mod exemplars;
pub mod info;
pub mod label_calls;
pub mod metadata;
pub mod min_time;
pub mod patterns;
pub mod request_limits;
pub mod rules;
pub mod selection;
pub mod series;
pub mod status;
pub mod store;
pub mod targets;

mod context;
mod label_sets;
mod message_buffer;
mod respond;
mod times;

use tonic::service::Routes;

pub use self::context::{Context, View};
use self::{
    exemplars::ExemplarsService,
    info::InfoService,
    label_calls::LabelCalls,
    metadata::MetadataService,
    request_limits::{LimitedService, RequestLimits},
    respond::UnaryService,
    rules::RulesService,
    series::Series,
    status::StatusService,
    store::StoreService,
    targets::TargetsService,
};
use crate::pb::thanos::info::info_server::InfoServer;

/// All services of the StoreAPI; a request has at most `message_max` bytes, and is counted before it is decoded.
pub fn routes(context: &Context, series: Series, message_max: usize) -> Routes {
    let request_limits = RequestLimits::new(context.budget.clone(), message_max);
    let store = StoreService::new(series, LabelCalls::new(context.clone()), request_limits.clone());
    let info = InfoServer::new(InfoService::new(context.clone())).max_decoding_message_size(message_max);
    Routes::new(store)
        .add_service(LimitedService::new(info, request_limits.clone()))
        .add_service(UnaryService::new(
            RulesService::new(context.clone()),
            request_limits.clone(),
        ))
        .add_service(UnaryService::new(
            TargetsService::new(context.clone()),
            request_limits.clone(),
        ))
        .add_service(UnaryService::new(
            MetadataService::new(context.clone()),
            request_limits.clone(),
        ))
        .add_service(UnaryService::new(
            ExemplarsService::new(context.clone()),
            request_limits.clone(),
        ))
        .add_service(UnaryService::new(StatusService::new(context.clone()), request_limits))
}
