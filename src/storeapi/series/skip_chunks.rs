//! Series without chunks: their labels only, from `/api/v1/series`.
//!
//! Prometheus returns them in no order, so they are collected and sorted, within the budget of all calls. Unlike in
//! Thanos the shard is respected, replica labels are removed also where they are stored, and no label set comes twice.

use std::{collections::BTreeSet, ops::ControlFlow};

use tonic::Status;

use super::{answer::OVERHEAD, call::SeriesCall, convert::Convert, encode::OutSeries, query::Query};
use crate::{
    model::LabelBytes,
    prometheus::{
        Client,
        api::{RequestOptions, SeriesFilter},
    },
    storeapi::{budget::Reservation, context::Context, errors},
};

/// Asks for label sets and makes them what is sent: sorted, each once, those of the shard, not more than the limit.
///
/// # Errors
/// See [`errors::status`]; `ResourceExhausted` beyond the budget.
pub(super) async fn read(
    context: &Context,
    call: &SeriesCall,
    convert: &mut Convert,
    reservation: &mut Reservation,
) -> Result<Vec<OutSeries>, Status> {
    let query = &call.query;
    let (client, options) = (&context.client, context.request_options(&call.caller));
    if query.start_ms > query.end_ms {
        return Ok(Vec::new());
    }
    // Prometheus may cut its answer, unless a part of it is not for this shard.
    let limit = if query.shard.is_none() { query.limit } else { 0 };
    let (mut received, mut sets) = collect((client, &options), query, limit, convert, reservation).await?;
    if limit > 0 && received >= limit && sets.len() < limit {
        // It did, and what it gave has become fewer: others may have been cut away for those.
        reservation.shrink_to(0);
        (received, sets) = collect((client, &options), query, 0, convert, reservation).await?;
    }
    tracing::debug!(received, sent = sets.len(), "label sets");
    let series = move || {
        let sets = sets.into_iter();
        sets.map(|labels| OutSeries::new(labels, Vec::new())).collect()
    };
    // Of many it takes more than a moment.
    let made = context.pool.run(series).await;
    made.map_err(|lost| Status::internal(lost.to_string()))
}

/// How many series Prometheus gave, and what they became. No more is read than is wanted.
async fn collect(
    (client, options): (&Client, &RequestOptions),
    query: &Query,
    limit: usize,
    convert: &mut Convert,
    reservation: &mut Reservation,
) -> Result<(usize, BTreeSet<LabelBytes>), Status> {
    let filter = SeriesFilter {
        matchers: &query.matchers,
        start_ms: query.start_ms,
        end_ms: query.end_ms,
        limit: i64::try_from(limit).unwrap_or(0),
    };
    let (mut received, mut sets, mut full) = (0, BTreeSet::new(), None);
    let mut reading = reservation.sibling();
    let take = |stored: LabelBytes| {
        received += 1;
        if let Some(labels) = convert.labels(&stored) {
            let size = held_size(&labels);
            if sets.insert(labels)
                && let Err(status) = reservation.reserve_for(size, "label sets")
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
        .each_series(&filter, options, take, &mut |bytes| reading.reserve(bytes))
        .await
        .map_err(errors::status)?;
    match full {
        Some(status) => Err(status),
        None => Ok((received, sets)),
    }
}

/// What is reserved for a label set, until the series that is made of it is sent.
fn held_size(labels: &LabelBytes) -> usize {
    labels.as_bytes().len() + OVERHEAD
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use prometheus_client::registry::Registry;

    use super::*;
    use crate::storeapi::{
        budget::Budget,
        series::{
            answer::{Answer, tests::plan},
            metrics::Metrics,
        },
    };

    #[tokio::test]
    async fn with_each_label_set_that_is_sent_what_was_reserved_for_it_is_released() {
        let budget = Budget::new(1 << 20);
        let mut plan = plan(None, Metrics::register(&mut Registry::default()));
        plan.reservation = budget.reservation();
        let values = [&b"a"[..], b"bb", b"ccc"];
        let sets = values.map(|value| LabelBytes::from_sorted([(&b"n"[..], value)]));
        let sizes = sets.each_ref().map(held_size);
        plan.reservation.reserve(sizes.iter().sum());
        let series = sets.map(|labels| OutSeries::new(labels, Vec::new()));
        let mut answer = Answer::sorted(plan, series.into()).unwrap();
        let mut left = vec![budget.used()];
        while let Some(series) = poll_fn(|cx| answer.poll_next(cx)).await {
            series.unwrap();
            left.push(budget.used());
        }
        let wanted: Vec<usize> = (0..=3).map(|sent| sizes[sent..].iter().sum()).collect();
        assert_eq!(left, wanted);
    }
}
