//! Store.Series: the series of Prometheus, complete, in order and in constant memory.
//!
//! ```text
//! request -> query (matchers settled) -> gate -> remote read -> frames -> convert (labels, shard, chunks) -> limits
//!         -> order (a stack, and what conflicts merged in) -> batches -> read ahead (for a slow client) -> body
//! ```
//! Each step is pulled by the next, and by a task that reads ahead when the client is slow: Prometheus is read at its
//! own speed. An answer is complete or ends with an error; a call that the client drops drops its request to
//! Prometheus.

pub mod answer;
pub mod body;
pub mod convert;
pub mod encode;
pub mod limits;
pub mod metrics;
pub mod order;
pub mod query;
pub mod read_ahead;
pub mod relabel;
pub mod shard;
pub mod source;

mod call;
mod load;
mod remote_reads;
mod sampled;
mod sealed_part;
mod skip_chunks;
mod unsorted_server;

use std::{sync::Arc, time::Duration};

use prometheus_client::registry::Registry;
use tonic::Status;

pub use self::load::Load;
use self::{
    body::SeriesBody,
    call::SeriesCall,
    limits::Limits,
    metrics::Metrics,
    query::Query,
    read_ahead::{Delivery, SENDING, memory::Memory, spill::SpillDir},
    remote_reads::RemoteReads,
};
use super::{budget::Reservation, context::Context};
use crate::{model::duration::parse_prometheus, ops::grpc::Caller, pb::thanos::SeriesRequest};

const BLOCK_DURATION: &str = "storage.tsdb.min-block-duration";
/// Prometheus waits for a client for at most this part of its block duration.
const PART_OF_A_BLOCK: u32 = 4;

/// What is done for clients that read slowly.
#[derive(Clone, Debug)]
pub struct SlowClients {
    /// Memory for what they have not taken yet.
    pub memory: Memory,
    /// Files for what there is no memory for.
    pub spill_dir: Option<SpillDir>,
    /// How long Prometheus may wait for one of them in all.
    pub patience: Duration,
}

/// Answers Series calls; clones share it.
#[derive(Clone, Debug)]
pub struct Series {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    context: Context,
    slow_clients: SlowClients,
    remote_reads: RemoteReads,
    metrics: Metrics,
}

impl Series {
    /// A service that keeps to `limits`.
    pub fn new(context: Context, limits: Limits, slow_clients: SlowClients, registry: &mut Registry) -> Self {
        let remote_reads = RemoteReads::new(context.clone(), limits, registry);
        let inner = Inner {
            context,
            slow_clients,
            metrics: remote_reads.metrics().clone(),
            remote_reads,
        };
        Self { inner: Arc::new(inner) }
    }

    /// Answers one call; `reservation` is the memory of its request.
    ///
    /// # Errors
    /// What is wrong with the request; that Prometheus cannot be asked, or refuses; that there are no external labels now.
    pub async fn call(
        &self,
        request: SeriesRequest,
        reservation: Option<Reservation>,
        caller: Caller,
    ) -> Result<SeriesBody, Status> {
        let inner = &self.inner;
        let pending = inner.metrics.pending();
        let view = inner.context.labelled_view()?;
        let Some(query) = Query::new(request, &view, &inner.context.patterns).await? else {
            return Ok(SeriesBody::empty(pending));
        };
        let batch = query.batch;
        let call = Arc::new(SeriesCall {
            query,
            view,
            caller,
            patience: inner.patience(),
            _reservation: reservation,
        });
        let (answer, strategy) = inner.remote_reads.ask(&call).await?;
        let delivery = Delivery {
            batch,
            patience: call.patience,
            share: inner.slow_clients.memory.share(),
            metrics: inner.metrics.clone(),
            caller: call.caller.clone(),
            retry: inner.remote_reads.retry(call, strategy),
        };
        delivery.caller.set_stage(SENDING);
        Ok(SeriesBody::new(
            answer,
            delivery,
            inner.slow_clients.spill_dir.clone(),
            pending,
        ))
    }
}

impl Inner {
    /// How long Prometheus may wait for one client.
    fn patience(&self) -> Duration {
        let snapshot = self.context.snapshots.borrow();
        let block = snapshot.flags.get(BLOCK_DURATION);
        let block = block.and_then(|text| parse_prometheus(text).ok());
        let part = block.map_or(Duration::MAX, |block| block / PART_OF_A_BLOCK);
        self.slow_clients.patience.min(part)
    }
}
