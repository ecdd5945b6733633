//! What of a call comes from sealed blocks: chosen and opened before Prometheus is asked for the rest.

use std::{collections::BTreeSet, ops::RangeInclusive};

use tokio::time::Instant;

use super::{
    call::SeriesCall,
    query::Query,
    source::{
        PrometheusFrames, Single, Source,
        blocks::{BlockFrames, Environment, Reading},
        merged::Merged,
        metrics::{Metrics, Origin},
    },
};
use crate::{
    model::Matcher,
    sealed::{Cover, OpenBlocks, Reason, Sealed},
    storeapi::{
        budget::{Budget, Reservation},
        context::Context,
    },
    threads::BlockingPool,
    tsdb::read::Selector,
};

/// Chooses what comes from blocks; clones share it.
#[derive(Clone, Debug)]
pub(super) struct SealedReads {
    /// `None`: nothing ever does.
    sealed: Option<Sealed>,
    budget: Budget,
    /// Where patterns are compiled.
    pool: BlockingPool,
    metrics: Metrics,
}

/// What of one call comes from where.
#[derive(Debug)]
pub(super) struct Part {
    /// What Prometheus is asked for (ms since 1970, both ends inclusive); `None` if it is not asked.
    pub(super) prometheus: Option<RangeInclusive<i64>>,
    /// Blocks of ranges before that and behind it; none if Prometheus is asked for all.
    blocks: Option<Blocks>,
}

#[derive(Debug)]
struct Blocks {
    before: OpenBlocks,
    after: OpenBlocks,
    selector: Selector,
    sealed: Sealed,
    metrics: Metrics,
    reservation: Reservation,
    /// Since when they are open.
    since: Instant,
}

impl SealedReads {
    pub(super) fn new(context: &Context, metrics: Metrics) -> Self {
        Self {
            sealed: context.sealed.clone(),
            budget: context.budget.clone(),
            pool: context.pool.clone(),
            metrics,
        }
    }

    /// Whether Prometheus will have to be asked for something, as far as can be seen without a look at the disk.
    pub(super) fn needs_prometheus(&self, query: &Query) -> bool {
        let sealed = self.sealed.as_ref().filter(|_| query.start_ms <= query.end_ms);
        sealed.is_none_or(|sealed| sealed.needs_prometheus(query.start_ms, query.end_ms))
    }

    /// Where it is counted what comes from where.
    pub(super) fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Nothing of a call for which Prometheus must be asked.
    pub(super) fn nothing(&self, query: &Query, reason: Reason) -> Part {
        self.counted(self.all_of_prometheus(query, reason))
    }

    /// What of `query` comes from blocks, which are open.
    pub(super) async fn part(&self, query: &Query) -> Part {
        self.counted(match &self.sealed {
            Some(sealed) if query.start_ms <= query.end_ms => self.choose(sealed, query).await,
            _ => Part::of_prometheus(query),
        })
    }

    /// Counts where a part comes from.
    fn counted(&self, part: Part) -> Part {
        self.metrics.called(part.origin());
        part
    }

    fn all_of_prometheus(&self, query: &Query, reason: Reason) -> Part {
        if self.sealed.is_some() {
            self.metrics.asked(&BTreeSet::from([reason]));
        }
        Part::of_prometheus(query)
    }

    async fn choose(&self, sealed: &Sealed, query: &Query) -> Part {
        let Some(selector) = self.selector(query).await else {
            return self.all_of_prometheus(query, Reason::Pattern);
        };
        let since = Instant::now();
        let cover = sealed.cover(query.start_ms, query.end_ms).await;
        let has_blocks = cover.has_blocks();
        let Cover {
            before,
            prometheus,
            after,
        } = cover;
        if let Some(asked) = &prometheus {
            self.metrics.asked(&asked.reasons);
            tracing::debug!(reasons = ?asked.reasons, range = ?asked.range, "Prometheus is asked");
        }
        let prometheus = prometheus.map(|asked| asked.range);
        if !has_blocks {
            let blocks = None;
            return Part { prometheus, blocks };
        }
        let mut reservation = self.budget.reservation();
        if !reservation.reserve(before.memory() + after.memory()) {
            return self.all_of_prometheus(query, Reason::Slow);
        }
        let blocks = Blocks {
            before,
            after,
            selector,
            sealed: sealed.clone(),
            metrics: self.metrics.clone(),
            reservation,
            since,
        };
        Part {
            prometheus,
            blocks: Some(blocks),
        }
    }

    /// The matchers of a query made ready, unless they cannot be used here.
    async fn selector(&self, query: &Query) -> Option<Selector> {
        if !query.matchers.iter().any(Matcher::needs_work) {
            return Selector::new(&query.matchers).ok();
        }
        let matchers = query.matchers.clone();
        self.pool.run(move || Selector::new(&matchers)).await.ok()?.ok()
    }
}

impl Part {
    /// Prometheus is asked for all.
    fn of_prometheus(query: &Query) -> Self {
        Self {
            prometheus: Some(query.start_ms..=query.end_ms),
            blocks: None,
        }
    }

    /// Where the series come from.
    pub(super) fn origin(&self) -> Origin {
        match (&self.blocks, &self.prometheus) {
            (None, Some(_)) => Origin::Prometheus,
            (_, None) => Origin::Blocks,
            (Some(_), Some(_)) => Origin::Both,
        }
    }

    /// Whether anything comes from blocks.
    pub(super) fn has_blocks(&self) -> bool {
        self.blocks.is_some()
    }

    /// The series of blocks, which begin to be read, and of Prometheus, which has answered for its range. Those with one of
    /// `names` come apart, as in [`Query::split_by`], and those of the query `streamed` in order. `None` if there is nothing.
    pub(super) fn source(
        self,
        prometheus: Option<PrometheusFrames>,
        call: &SeriesCall,
        names: &[String],
        streamed: Option<i64>,
    ) -> Option<Source> {
        let Some(blocks) = &self.blocks else {
            return prometheus.map(|frames| Source::Single(Single::Prometheus(frames)));
        };
        let ahead = blocks.reservation.sibling();
        let (before, after) = self.read(names, call);
        Some(match (before, prometheus, after) {
            (None, None, None) => return None,
            (None, Some(frames), None) => Source::Single(Single::Prometheus(frames)),
            (Some(frames), None, None) | (None, None, Some(frames)) => Source::Single(Single::Blocks(Box::new(frames))),
            (before, prometheus, after) => {
                let blocks = |frames: Option<BlockFrames>| frames.map(|frames| Single::Blocks(Box::new(frames)));
                let parts = [blocks(before), prometheus.map(Single::Prometheus), blocks(after)];
                let touched = call.query.relabel.touched().to_vec();
                let parts = parts.into_iter().flatten().collect();
                Source::Merged(Merged::new(parts, streamed, touched, ahead))
            }
        })
    }

    /// The labels of series in blocks.
    pub(super) fn label_sets(self, call: &SeriesCall) -> [Option<BlockFrames>; 2] {
        let (before, after) = self.read(&[], call);
        [before, after]
    }

    /// Begins to read the blocks: what lies before Prometheus' range, and what lies behind it.
    fn read(self, names: &[String], call: &SeriesCall) -> (Option<BlockFrames>, Option<BlockFrames>) {
        let Some(blocks) = self.blocks else {
            return (None, None);
        };
        let (with_chunks, patience) = (!call.query.skip_chunks, call.patience);
        let mut selectors: Vec<Selector> = Vec::with_capacity(names.len() + 1);
        let mut rest = blocks.selector;
        for name in names {
            selectors.push(rest.and_label(name, true));
            rest = rest.and_label(name, false);
        }
        selectors.push(rest);
        let (sealed, metrics, since) = (blocks.sealed, blocks.metrics, blocks.since);
        let mut reservation = blocks.reservation;
        let mut frames = |blocks: OpenBlocks| {
            if blocks.is_empty() {
                return None;
            }
            let memory = blocks.memory();
            reservation.release(memory);
            let mut own = reservation.sibling();
            own.reserve(memory);
            let reading = Reading {
                blocks,
                queries: (0..).zip(selectors.iter().cloned()).collect(),
                with_chunks,
                patience,
                since,
            };
            let environment = Environment {
                sealed: sealed.clone(),
                metrics: metrics.clone(),
                reservation: own,
            };
            Some(BlockFrames::new(reading, environment))
        };
        (frames(blocks.before), frames(blocks.after))
    }
}
