//! Series without chunks: their labels only, from sealed blocks and from `/api/v1/series`.
//!
//! Prometheus returns them in no order, so they are collected and sorted, within the budget of all calls. Unlike in
//! Thanos the shard is respected, replica labels are removed also where they are stored, and no label set comes twice.

use std::{
    collections::BTreeSet,
    ops::{ControlFlow, RangeInclusive},
};

use tonic::Status;

use super::{
    answer::{OVERHEAD, Plan},
    call::SeriesCall,
    convert::Convert,
    encode::OutSeries,
    query::Query,
    sealed_part::Part,
    source::blocks::BlockFrames,
};
use crate::{
    model::LabelBytes,
    prometheus::{
        Client,
        api::{RequestOptions, SeriesFilter},
    },
    storeapi::{budget::Reservation, context::Context, errors},
};

/// Reads label sets from blocks, asks for the others, and makes them what is sent: sorted, each once, those of the shard, not more
/// than the limit.
///
/// # Errors
/// See [`errors::status`]; `ResourceExhausted` beyond the budget; a block that cannot be read.
pub(super) async fn read(
    context: &Context,
    call: &SeriesCall,
    part: Part,
    plan: &mut Plan,
) -> Result<Vec<OutSeries>, Status> {
    let query = &call.query;
    let (client, options) = (&context.client, context.request_options(&call.caller));
    if query.start_ms > query.end_ms {
        return Ok(Vec::new());
    }
    let mut sets = Sets {
        sets: BTreeSet::new(),
        most: query.limit,
        convert: &mut plan.convert,
        reservation: &mut plan.reservation,
    };
    let range = part.prometheus.clone();
    for frames in part.label_sets(call).into_iter().flatten() {
        sets.add_frames(frames).await?;
    }
    if let Some(range) = range.filter(|_| !sets.are_enough()) {
        // Prometheus may cut its answer, unless a part of it is not for this shard.
        let limit = if query.shard.is_none() { query.limit } else { 0 };
        let received = sets.ask((client, &options), query, &range, limit).await?;
        if limit > 0 && received >= limit && !sets.are_enough() {
            // It did, and what it gave has become fewer: others may have been cut away for those.
            sets.ask((client, &options), query, &range, 0).await?;
        }
    }
    let sets = sets.sets;
    tracing::debug!(sent = sets.len(), "label sets");
    let series = move || {
        let sets = sets.into_iter();
        sets.map(|labels| OutSeries::new(labels, Vec::new())).collect()
    };
    // Of many it takes more than a moment.
    let made = context.pool.run(series).await;
    made.map_err(|lost| Status::internal(lost.to_string()))
}

/// The label sets that are sent.
struct Sets<'a> {
    sets: BTreeSet<LabelBytes>,
    /// No more are wanted; 0 is no limit.
    most: usize,
    convert: &'a mut Convert,
    /// What is reserved for them.
    reservation: &'a mut Reservation,
}

impl Sets<'_> {
    fn are_enough(&self) -> bool {
        self.most > 0 && self.sets.len() >= self.most
    }

    /// Adds what becomes of a stored label set.
    fn add(&mut self, stored: &LabelBytes) -> Result<(), Status> {
        match self.convert.labels(stored) {
            Some(labels) => {
                let size = held_size(&labels);
                match self.sets.insert(labels) {
                    true => self.reservation.reserve_for(size, "label sets"),
                    false => Ok(()),
                }
            }
            None => Ok(()),
        }
    }

    async fn add_frames(&mut self, mut frames: BlockFrames) -> Result<(), Status> {
        while !self.are_enough()
            && let Some(frame) = std::future::poll_fn(|cx| frames.poll_frame(cx)).await
        {
            for series in frame?.series {
                // The set would keep the whole frame.
                self.add(&series.labels.detached())?;
                if self.are_enough() {
                    break;
                }
            }
            // Others live on this thread.
            tokio::task::yield_now().await;
        }
        Ok(())
    }

    /// Adds what Prometheus has; returns how many series it gave. No more is read than is wanted.
    async fn ask(
        &mut self,
        (client, options): (&Client, &RequestOptions),
        query: &Query,
        range: &RangeInclusive<i64>,
        limit: usize,
    ) -> Result<usize, Status> {
        let filter = SeriesFilter {
            matchers: &query.matchers,
            start_ms: *range.start(),
            end_ms: *range.end(),
            limit: i64::try_from(limit).unwrap_or(0),
        };
        let (mut received, mut full) = (0, None);
        let mut reading = self.reservation.sibling();
        let take = |stored: LabelBytes| {
            received += 1;
            if let Err(status) = self.add(&stored) {
                full = Some(status);
                return ControlFlow::Break(());
            }
            match self.are_enough() {
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
            None => Ok(received),
        }
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
