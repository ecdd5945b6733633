//! The series of one answer, pulled one by one: frames are read only when the next series is wanted.

use std::{
    collections::VecDeque,
    task::{Context, Poll, ready},
};

use tonic::Status;

use super::{
    convert::Convert,
    encode::OutSeries,
    limits::{Limits, Used},
    metrics::Metrics,
    order::{Disorder, Labelled, Order},
};
use crate::{
    prometheus::remote_read::{
        Frames,
        gate::Pass,
        wire::{Frame, LabelBytes},
    },
    storeapi::{budget::Held, errors},
};

/// Bytes that a collected series takes beyond its own.
const OVERHEAD: usize = 256;

/// How the answer of one call is made.
#[derive(Debug)]
pub struct Plan {
    /// What happens to each series.
    pub convert: Convert,
    /// The query whose series come nearly in order; those of the others are collected. `None` collects all.
    pub streamed: Option<i64>,
    /// Why series are collected, in words for an error.
    pub why: String,
    /// The limits of every call.
    pub limits: Limits,
    /// At most so many series; 0 is no limit.
    pub wanted: usize,
    /// Memory for what is collected.
    pub held: Held,
    /// Where the call is counted.
    pub metrics: Metrics,
}

/// An answer that is being given. Dropping it closes the connection to Prometheus and gives back the place in the queue.
#[derive(Debug)]
pub struct Answer {
    plan: Plan,
    frames: Option<(Box<Frames>, Pass)>,
    used: Used,
    order: Order<OutSeries>,
    ready: VecDeque<OutSeries>,
    /// Different series that are out, if that matters, and the labels of the last one.
    given: usize,
    last: Option<LabelBytes>,
}

impl Answer {
    /// An answer whose frames are still to come.
    pub fn streaming(plan: Plan, frames: Box<Frames>, pass: Pass) -> Self {
        let mut answer = Self::empty(plan);
        answer.frames = Some((frames, pass));
        answer
    }

    /// An answer of these series, in any order.
    ///
    /// # Errors
    /// `ResourceExhausted`: a limit, or the memory.
    pub fn of(plan: Plan, series: impl IntoIterator<Item = Result<OutSeries, Status>>) -> Result<Self, Status> {
        let mut answer = Self::empty(plan);
        for series in series {
            answer.collect(series?)?;
        }
        answer.order.finish(&mut answer.ready).map_err(disorder)?;
        Ok(answer)
    }

    /// An answer of these series, which are in order and whose memory is held already.
    ///
    /// # Errors
    /// `ResourceExhausted`: a limit.
    pub fn sorted(plan: Plan, series: Vec<OutSeries>) -> Result<Self, Status> {
        let mut answer = Self::empty(plan);
        for one in &series {
            answer.count(one)?;
        }
        answer.ready = series.into();
        Ok(answer)
    }

    fn empty(plan: Plan) -> Self {
        Self {
            order: plan.convert.order(),
            plan,
            frames: None,
            used: Used::default(),
            ready: VecDeque::new(),
            given: 0,
            last: None,
        }
    }

    /// The next series; `None` at the end of a whole answer. After an error there is nothing more.
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<OutSeries, Status>>> {
        loop {
            if let Some(series) = self.ready.pop_front() {
                return Poll::Ready(self.give(series).map(Ok));
            }
            let Some((frames, _)) = &mut self.frames else {
                return Poll::Ready(None);
            };
            let taken = match ready!(frames.poll_frame(cx)) {
                Some(Ok(frame)) => self.take(frame),
                Some(Err(error)) => Err(errors::read_status(&error)),
                None => self.end(),
            };
            if let Err(status) = taken {
                self.stop();
                return Poll::Ready(Some(Err(status)));
            }
        }
    }

    /// Counts what was given. To be called when the answer is complete.
    pub fn complete(&self) {
        self.plan.metrics.answered(self.used.series, self.used.chunks);
    }

    /// Hands a series out, unless there are enough.
    fn give(&mut self, series: OutSeries) -> Option<OutSeries> {
        if self.plan.wanted > 0 && self.last.as_ref() != Some(series.labels()) {
            if self.given == self.plan.wanted {
                self.stop();
                return None;
            }
            self.given += 1;
            self.last = Some(series.labels().clone());
        }
        Some(series)
    }

    fn take(&mut self, frame: Frame) -> Result<(), Status> {
        let queries = 0..=self.plan.streamed.unwrap_or(0);
        if !queries.contains(&frame.query_index) {
            return Err(Status::internal(format!(
                "query Prometheus: it answers query {} of {}, which was not asked",
                frame.query_index,
                queries.end() + 1
            )));
        }
        for series in frame.series {
            let Some(series) = self.plan.convert.series(series)? else {
                continue;
            };
            if self.plan.streamed == Some(frame.query_index) {
                self.push(series)?;
            } else {
                self.collect(series)?;
            }
        }
        Ok(())
    }

    fn push(&mut self, series: OutSeries) -> Result<(), Status> {
        self.count(&series)?;
        let before = self.order.parts_bytes();
        self.order.push(series, &mut self.ready).map_err(disorder)?;
        let after = self.order.parts_bytes();
        if before == after {
            return Ok(());
        }
        self.plan.held.give_back(before);
        self.plan.held.add(after, "the parts of series that begin others")
    }

    fn collect(&mut self, series: OutSeries) -> Result<(), Status> {
        self.count(&series)?;
        self.plan.held.add(series.size() + OVERHEAD, &self.plan.why)?;
        self.order.collect(series.detached()).map_err(disorder)
    }

    fn count(&mut self, series: &OutSeries) -> Result<(), Status> {
        self.used
            .add(series.chunks().len(), self.plan.limits)
            .map_err(|exceeded| {
                self.plan.metrics.dropped(&exceeded);
                exceeded.into()
            })
    }

    fn end(&mut self) -> Result<(), Status> {
        if let Some((frames, pass)) = self.frames.take() {
            self.plan.metrics.frames(frames.count());
            pass.finish();
        }
        self.order.finish(&mut self.ready).map_err(disorder)
    }

    /// Ends the answer early.
    fn stop(&mut self) {
        if let Some((frames, _)) = self.frames.take() {
            self.plan.metrics.frames(frames.count());
        }
        self.ready.clear();
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        self.stop();
    }
}

fn disorder(error: Disorder) -> Status {
    Status::internal(error.to_string())
}

#[cfg(test)]
pub(super) mod tests;
