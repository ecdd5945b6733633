//! Series without chunks: their labels only, from `/api/v1/series`.
//!
//! Prometheus gives them in no order, so they are collected and sorted, within the budget of all calls. Other than in
//! Thanos the shard is respected, replica labels go also where they are stored, and no label set comes twice.

use std::{collections::BTreeSet, ops::ControlFlow};

use tonic::Status;

use super::{convert::Convert, encode::OutSeries, query::Query};
use crate::{
    prometheus::{Client, api::Question, remote_read::wire::LabelBytes},
    storeapi::{budget::Held, errors},
};

/// What a label set costs beyond its bytes.
const OVERHEAD: usize = 64;

/// Asks for label sets and makes them what is sent: sorted, each once, those of the shard, not more than the limit.
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
    // Prometheus may cut its answer, unless a part of it is not for this shard.
    let limit = if query.shard.is_none() { query.limit } else { 0 };
    let (mut given, mut sets) = collect(client, query, limit, convert, held).await?;
    if limit > 0 && given >= limit && sets.len() < limit {
        // It did, and what it gave has become fewer: others may have been cut away for those.
        held.keep(0);
        (given, sets) = collect(client, query, 0, convert, held).await?;
    }
    tracing::debug!(given, sent = sets.len(), "label sets");
    Ok(sets
        .into_iter()
        .map(|labels| OutSeries::new(labels, Vec::new()))
        .collect())
}

/// How many series Prometheus gave, and what they became. No more is read than is wanted.
async fn collect(
    client: &Client,
    query: &Query,
    limit: usize,
    convert: &mut Convert,
    held: &mut Held,
) -> Result<(usize, BTreeSet<LabelBytes>), Status> {
    let question = Question {
        matchers: &query.matchers,
        start_ms: query.start_ms,
        end_ms: query.end_ms,
        limit: i64::try_from(limit).unwrap_or(0),
    };
    let (mut given, mut sets, mut full) = (0, BTreeSet::new(), None);
    let take = |stored: LabelBytes| {
        given += 1;
        if let Some(labels) = convert.labels(&stored) {
            let size = labels.as_bytes().len() + OVERHEAD;
            if sets.insert(labels)
                && let Err(status) = held.add(size, "label sets")
            {
                full = Some(status);
                return ControlFlow::Break(());
            }
        }
        match query.limit > 0 && sets.len() >= query.limit {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        }
    };
    client.each_series(&question, take).await.map_err(errors::status)?;
    match full {
        Some(status) => Err(status),
        None => Ok((given, sets)),
    }
}
