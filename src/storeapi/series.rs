//! Store.Series: what Prometheus holds, exact, in order and in constant memory.
//!
//! ```text
//! request -> query (matchers settled) -> gate -> remote read -> frames -> convert (labels, shard, chunks) -> limits
//!         -> order (a stack, and what conflicts merged in) -> batches -> ahead (of a client that lags) -> body
//! ```
//! Each step is pulled by the next, and by a task that reads ahead when the client lags: Prometheus is read at its own speed. An
//! answer is whole or ends with an error; dropped by the client, it drops the request to Prometheus.

pub mod ahead;
pub mod answer;
pub mod body;
pub mod convert;
pub mod encode;
pub mod limits;
pub mod metrics;
pub mod order;
pub mod query;
pub mod relabel;
pub mod shard;

mod asking;
mod call;
mod sampled;
mod skip_chunks;

use std::{sync::Arc, time::Duration};

use prometheus_client::registry::Registry;
use tonic::Status;

use self::{
    ahead::{Giving, room::Room, spill::Space},
    asking::Asking,
    body::SeriesBody,
    call::Asked,
    limits::Limits,
    metrics::Metrics,
    query::Query,
};
use super::{budget::Held, context::Context};
use crate::{model::duration::parse_prometheus, ops::grpc::Caller, pb::thanos::SeriesRequest};

const BLOCK_DURATION: &str = "storage.tsdb.min-block-duration";
/// Prometheus waits for a client for at most this part of the time in which it fills a block.
const PART_OF_A_BLOCK: u32 = 4;

/// What is done for clients that read slowly.
#[derive(Clone, Debug)]
pub struct Slow {
    /// Memory for what they have not taken yet.
    pub room: Room,
    /// Files for what there is no memory for.
    pub space: Option<Space>,
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
    slow: Slow,
    asking: Asking,
    metrics: Metrics,
}

impl Series {
    /// A service that keeps to `limits`.
    pub fn new(context: Context, limits: Limits, slow: Slow, registry: &mut Registry) -> Self {
        let asking = Asking::new(context.clone(), limits, registry);
        let inner = Inner {
            context,
            slow,
            metrics: asking.metrics().clone(),
            asking,
        };
        Self { inner: Arc::new(inner) }
    }

    /// Answers one call; `held` is the memory of its request.
    ///
    /// # Errors
    /// What is wrong with the request; that Prometheus cannot be asked, or refuses; that there are no external labels now.
    pub async fn call(&self, request: SeriesRequest, held: Option<Held>, caller: Caller) -> Result<SeriesBody, Status> {
        let inner = &self.inner;
        let pending = inner.metrics.pending();
        let view = inner.context.labelled_view()?;
        let Some(query) = Query::new(request, &view, &inner.context.patterns).await? else {
            return Ok(SeriesBody::empty(pending));
        };
        let batch = query.batch;
        let asked = Arc::new(Asked {
            query,
            view,
            caller,
            _held: held,
        });
        let (answer, way) = inner.asking.ask(&asked).await?;
        let giving = Giving {
            batch,
            patience: inner.patience(),
            share: inner.slow.room.share(),
            metrics: inner.metrics.clone(),
            caller: asked.caller.clone(),
            again: inner.asking.again(asked, way),
        };
        giving.caller.is_at("sending");
        Ok(SeriesBody::new(answer, giving, inner.slow.space.clone(), pending))
    }
}

impl Inner {
    /// How long Prometheus may wait for one client.
    fn patience(&self) -> Duration {
        let snapshot = self.context.snapshots.borrow();
        let block = snapshot.flags.get(BLOCK_DURATION);
        let block = block.and_then(|text| parse_prometheus(text).ok());
        let part = block.map_or(Duration::MAX, |block| block / PART_OF_A_BLOCK);
        self.slow.patience.min(part)
    }
}
