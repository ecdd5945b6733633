//! The series of one answer, pulled one by one: frames are read only when the next series is wanted.
//!
//! Nothing here blocks its thread for more than a moment: many collected series are sorted on another one, and
//! collecting them yields now and then to the other tasks of this thread.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use tonic::Status;

use super::{
    convert::Convert,
    encode::OutSeries,
    limits::{Limits, Usage},
    metrics::Metrics,
    order::{Labelled, Order, OutOfOrder, Placed, sort},
    source::Source,
};
use crate::{
    model::LabelBytes,
    prometheus::remote_read::wire::Frame,
    storeapi::budget::Reservation,
    threads::{BlockingPool, Lost},
};

/// Bytes that a collected series takes beyond its own: what is reserved for it, and released with it.
pub(super) const OVERHEAD: usize = 256;
/// Prometheus sends frames of 1 MiB and a chunk, unless its flag is changed.
const USUAL_FRAME: usize = 2 << 20;
/// So many series are sorted, and dropped, where they are.
const FEW: usize = 1000;
/// Series that are collected without a pause: a millisecond's work, or two.
const AT_ONCE: usize = 500;

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
    pub reservation: Reservation,
    /// Where much is sorted.
    pub pool: BlockingPool,
    /// Where the call is counted.
    pub metrics: Metrics,
}

/// An answer that ends early.
#[derive(Debug)]
pub enum Failed {
    /// Series arrived in an order that cannot be restored.
    OutOfOrder(OutOfOrder),
    /// Anything else.
    Status(Status),
}

impl From<Status> for Failed {
    fn from(status: Status) -> Self {
        Self::Status(status)
    }
}

impl From<OutOfOrder> for Failed {
    fn from(out_of_order: OutOfOrder) -> Self {
        Self::OutOfOrder(out_of_order)
    }
}

impl From<Failed> for Status {
    fn from(failed: Failed) -> Self {
        match failed {
            Failed::OutOfOrder(out_of_order) => Self::internal(out_of_order.to_string()),
            Failed::Status(status) => status,
        }
    }
}

/// An answer in progress. Dropping it closes the connection to Prometheus and releases the permit.
#[derive(Debug)]
pub struct Answer {
    plan: Plan,
    source: Option<Source>,
    used: Usage,
    order: Order<OutSeries>,
    sorting: Option<Sorting>,
    /// Bytes that are held for a large frame that has not come whole yet.
    torn: usize,
    /// Series collected since the last pause.
    at_once: usize,
    /// Different series that are out, if that matters, and the labels of the last one.
    given: usize,
    last: Option<LabelBytes>,
}

/// What was collected, while it is sorted, and what comes after it.
struct Sorting {
    sorted: Pin<Box<dyn Future<Output = Result<Vec<OutSeries>, Lost>> + Send>>,
    then: Next,
}

impl std::fmt::Debug for Sorting {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sorting").finish_non_exhaustive()
    }
}

/// What comes of Prometheus' answer.
enum Next {
    Frame(Frame),
    End,
}

impl Answer {
    /// An answer whose frames are still to come.
    pub fn streaming(plan: Plan, source: Source) -> Self {
        let mut answer = Self::empty(plan);
        answer.source = Some(source);
        answer
    }

    /// An answer whose series are still to be collected ([`Answer::collect`], [`Answer::finish`]).
    pub fn collecting(plan: Plan) -> Self {
        Self::empty(plan)
    }

    /// All is collected: sorts it, which may take a while.
    pub fn finish(&mut self) {
        self.order.finish();
    }

    /// An answer of these series, which are in order and for each of which its size and [`OVERHEAD`] are reserved.
    ///
    /// # Errors
    /// `ResourceExhausted`: a limit.
    pub fn sorted(plan: Plan, series: Vec<OutSeries>) -> Result<Self, Status> {
        let mut answer = Self::empty(plan);
        for one in &series {
            answer.count(one)?;
        }
        answer.order.put_sorted(series);
        answer.order.finish();
        Ok(answer)
    }

    fn empty(plan: Plan) -> Self {
        Self {
            order: plan.convert.order(),
            plan,
            source: None,
            used: Usage::default(),
            sorting: None,
            torn: 0,
            at_once: 0,
            given: 0,
            last: None,
        }
    }

    /// The next series; `None` at the end of a whole answer. After an error there is nothing more.
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<OutSeries, Failed>>> {
        let next = ready!(self.poll(cx));
        if next.is_err() {
            self.stop();
        }
        Poll::Ready(next.transpose())
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<OutSeries>, Failed>> {
        loop {
            if let Some(sorting) = &mut self.sorting {
                let sorted = ready!(sorting.sorted.as_mut().poll(cx));
                let sorted = sorted.map_err(|lost| Status::internal(lost.to_string()))?;
                self.order.put_sorted(sorted);
                if let Some(Sorting { then, .. }) = self.sorting.take() {
                    self.process(then)?;
                }
            }
            if let Some(placed) = self.order.next()? {
                self.at_once = 0;
                return Poll::Ready(Ok(self.emit(placed)));
            }
            let Some(source) = &mut self.source else {
                return Poll::Ready(Ok(None));
            };
            if self.at_once >= AT_ONCE {
                self.at_once = 0;
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            let polled = source.poll_frame(cx);
            let torn = source.torn_bytes();
            self.reserve_partial_frame(torn)?;
            let next = match ready!(polled) {
                Some(Ok(frame)) => Next::Frame(frame),
                Some(Err(status)) => return Poll::Ready(Err(status.into())),
                None => {
                    self.source = None;
                    Next::End
                }
            };
            self.accept(next)?;
        }
    }

    /// Whether an open remote read is behind it, which Prometheus keeps until it is read to its end.
    pub fn holds_prometheus(&self) -> bool {
        self.source.as_ref().is_some_and(Source::holds_prometheus)
    }

    /// Counts what was given. To be called when the answer is complete.
    pub fn complete(&self) {
        self.plan.metrics.answered(self.used.series, self.used.chunks);
    }

    /// Returns a series, unless there are enough.
    fn emit(&mut self, placed: Placed<OutSeries>) -> Option<OutSeries> {
        let Placed { series, was_collected } = placed;
        if was_collected {
            self.plan.reservation.release(series.size() + OVERHEAD);
        }
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

    /// Holds memory for a frame that has not come whole, if that is no usual one.
    fn reserve_partial_frame(&mut self, bytes: usize) -> Result<(), Status> {
        let bytes = if bytes > USUAL_FRAME { bytes } else { 0 };
        if bytes == self.torn {
            return Ok(());
        }
        self.plan.reservation.release(std::mem::replace(&mut self.torn, 0));
        self.plan.reservation.reserve_for(bytes, "the frames of this answer")?;
        self.torn = bytes;
        Ok(())
    }

    /// Takes what comes next, once what was collected before it is sorted.
    fn accept(&mut self, next: Next) -> Result<(), Failed> {
        let needs_order = match &next {
            Next::Frame(frame) => self.plan.streamed == Some(frame.query_index),
            Next::End => true,
        };
        if needs_order && self.order.unsorted() > FEW {
            let mut collected = self.order.take_collected();
            let pool = self.plan.pool.clone();
            let sorted = async move {
                pool.run(move || {
                    sort(&mut collected);
                    collected
                })
                .await
            };
            let (sorted, then) = (Box::pin(sorted), next);
            self.sorting = Some(Sorting { sorted, then });
            return Ok(());
        }
        self.process(next)
    }

    fn process(&mut self, next: Next) -> Result<(), Failed> {
        match next {
            Next::Frame(frame) => self.take_frame(frame),
            Next::End => {
                self.order.finish();
                Ok(())
            }
        }
    }

    fn take_frame(&mut self, frame: Frame) -> Result<(), Failed> {
        let queries = 0..=self.plan.streamed.unwrap_or(0);
        if !queries.contains(&frame.query_index) {
            return Err(Failed::Status(Status::internal(format!(
                "query Prometheus: it answered query {} of a request with {}",
                frame.query_index,
                queries.end() + 1
            ))));
        }
        for series in frame.series {
            self.at_once += 1;
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

    fn push(&mut self, series: OutSeries) -> Result<(), Failed> {
        self.count(&series)?;
        let before = self.order.parts_bytes();
        self.order.push(series)?;
        let after = self.order.parts_bytes();
        if before == after {
            return Ok(());
        }
        self.plan.reservation.release(before);
        Ok(self
            .plan
            .reservation
            .reserve_for(after, "the parts of series that begin others")?)
    }

    /// Takes a series that may belong anywhere.
    ///
    /// # Errors
    /// `ResourceExhausted`: a limit, or the memory.
    pub fn collect(&mut self, series: OutSeries) -> Result<(), Failed> {
        self.count(&series)?;
        self.plan
            .reservation
            .reserve_for(series.size() + OVERHEAD, &self.plan.why)?;
        Ok(self.order.collect(series.detached())?)
    }

    fn count(&mut self, series: &OutSeries) -> Result<(), Status> {
        self.used
            .add(series.chunks().len(), self.plan.limits)
            .map_err(|exceeded| {
                self.plan.metrics.dropped(&exceeded);
                exceeded.into()
            })
    }

    /// Ends the answer early.
    fn stop(&mut self) {
        self.source = None;
        // What is sorted on another thread is much; until that begins it is owned here.
        if let Some(sorting) = self.sorting.take() {
            discard(sorting);
        }
        let mut order = std::mem::replace(&mut self.order, self.plan.convert.order());
        let left = order.take_collected();
        if left.len() > FEW {
            discard(left);
        }
    }
}

/// Drops what is left of a large answer on another thread.
fn discard(left: impl Send + 'static) {
    if let Ok(runtime) = tokio::runtime::Handle::try_current() {
        runtime.spawn_blocking(move || drop(left));
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        self.stop();
    }
}

#[cfg(test)]
pub(super) mod tests;
