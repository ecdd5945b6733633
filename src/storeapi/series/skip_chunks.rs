//! Series without chunks: their labels only, from `/api/v1/series`.
//!
//! Prometheus gives them in no order, so they are collected and sorted, within the budget of all calls. Other than in
//! Thanos the shard is respected, replica labels go also where they are stored, and no label set comes twice.

use std::{collections::BTreeSet, ops::ControlFlow};

use tonic::Status;

use super::{call::Asked, convert::Convert, encode::OutSeries, query::Query};
use crate::{
    prometheus::{
        Client,
        api::{Ask, Question},
        remote_read::wire::LabelBytes,
    },
    storeapi::{budget::Held, context::Context, errors},
};

/// What a label set costs beyond its bytes.
const OVERHEAD: usize = 64;

/// Asks for label sets and makes them what is sent: sorted, each once, those of the shard, not more than the limit.
///
/// # Errors
/// See [`errors::status`]; `ResourceExhausted` beyond the budget.
pub(super) async fn read(
    context: &Context,
    asked: &Asked,
    convert: &mut Convert,
    held: &mut Held,
) -> Result<Vec<OutSeries>, Status> {
    let query = &asked.query;
    let (client, ask) = (&context.client, context.ask(&asked.caller));
    if query.start_ms > query.end_ms {
        return Ok(Vec::new());
    }
    // Prometheus may cut its answer, unless a part of it is not for this shard.
    let limit = if query.shard.is_none() { query.limit } else { 0 };
    let (mut given, mut sets) = collect((client, &ask), query, limit, convert, held).await?;
    if limit > 0 && given >= limit && sets.len() < limit {
        // It did, and what it gave has become fewer: others may have been cut away for those.
        held.keep(0);
        (given, sets) = collect((client, &ask), query, 0, convert, held).await?;
    }
    tracing::debug!(given, sent = sets.len(), "label sets");
    let series = move || {
        let sets = sets.into_iter();
        sets.map(|labels| OutSeries::new(labels, Vec::new())).collect()
    };
    // Of many it takes more than a moment.
    let made = context.lane.run(series).await;
    made.map_err(|lost| Status::internal(lost.to_string()))
}

/// How many series Prometheus gave, and what they became. No more is read than is wanted.
async fn collect(
    (client, ask): (&Client, &Ask),
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
    let mut reading = held.another();
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
    client
        .each_series(&question, ask, take, &mut |bytes| reading.take(bytes))
        .await
        .map_err(errors::status)?;
    match full {
        Some(status) => Err(status),
        None => Ok((given, sets)),
    }
}
