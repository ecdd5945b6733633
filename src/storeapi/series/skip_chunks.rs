//! Series without chunks: their labels only, from `/api/v1/series`.
//!
//! Prometheus gives them in no order, so they are collected and sorted, within the budget of all calls. Other than in
//! Thanos the shard is respected, replica labels go also where they are stored, and no label set comes twice.

use tonic::Status;

use super::{budget::Held, convert::Convert, encode::OutSeries, query::Query};
use crate::{
    prometheus::{Client, api::Question},
    storeapi::errors,
};

/// Asks for label sets and makes them what is sent: sorted, each once, those of the shard.
///
/// # Errors
/// See [`errors::status`]; `ResourceExhausted` beyond the budget.
pub(super) async fn read(
    client: &Client,
    query: &Query,
    convert: &mut Convert,
    held: &mut Held,
) -> Result<Vec<OutSeries>, Status> {
    if query.start_ms > query.end_ms {
        return Ok(Vec::new());
    }
    let question = Question {
        matchers: &query.matchers,
        start_ms: query.start_ms,
        end_ms: query.end_ms,
        limit: limit(query),
    };
    let stored = client.series(&question, held.room()).await.map_err(errors::status)?;
    let mut sets = Vec::with_capacity(stored.len());
    for set in stored {
        if let Some(labels) = convert.labels(&set) {
            held.add(labels.as_bytes().len(), "label sets")?;
            sets.push(labels);
        }
    }
    sets.sort_unstable();
    sets.dedup();
    Ok(sets
        .into_iter()
        .map(|labels| OutSeries::new(labels, Vec::new()))
        .collect())
}

/// What Prometheus may cut: nothing, where some of what it gives is not sent.
fn limit(query: &Query) -> i64 {
    match query.shard.is_none() && !query.relabel.merges() {
        true => i64::try_from(query.limit).unwrap_or(0),
        false => 0,
    }
}
