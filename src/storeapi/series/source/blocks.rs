//! The series of sealed blocks, in frames that are made on another thread.
//!
//! A few frames are made ahead of the one that is sent, and no more: a client that is slow makes reading wait. Dropping it
//! ends the reading at the next series that is looked at.
//!
//! **Guests.** A block that was deleted while it is read keeps its space on the disk until it is closed. It may be kept for as
//! long as a client may lag; then the call ends with Aborted, and the next one finds the blocks that there are now.

#[cfg(test)]
pub(super) mod tests;
mod worker;

use std::{
    collections::VecDeque,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    sync::mpsc,
    time::{Instant, Sleep, sleep},
};
use tokio_util::task::AbortOnDropHandle;
use tonic::Status;
use tracing::{Span, info_span};

use self::worker::{AHEAD, Failure, Made, Worker};
use super::metrics::{Metrics, Origin};
use crate::{
    prometheus::remote_read::wire::Frame,
    sealed::{OpenBlocks, Sealed},
    spans,
    storeapi::budget::Reservation,
    threads::StopOnDrop,
    tsdb::read::{Progress, Selector},
};

/// How long the disk may take without any progress.
const STALL: Duration = Duration::from_secs(10);

/// What is read of blocks for one call.
#[derive(Debug)]
pub struct Reading {
    /// The blocks with their ranges, in the order of time.
    pub blocks: OpenBlocks,
    /// What is asked for, in the order of the queries of the split request.
    pub queries: VecDeque<(i64, Selector)>,
    /// Whether chunks are wanted, or labels only.
    pub with_chunks: bool,
    /// How long deleted blocks may be held.
    pub patience: Duration,
    /// Since when they are open.
    pub since: Instant,
}

/// What reading needs beside the blocks.
#[derive(Debug)]
pub struct Environment {
    /// Where blocks are read, and where damaged ones are reported.
    pub sealed: Sealed,
    /// Where it is counted.
    pub metrics: Metrics,
    /// What the reader takes.
    pub reservation: Reservation,
}

/// Frames of series from blocks.
#[derive(Debug)]
pub struct BlockFrames {
    /// `None` once there is nothing more.
    made: Option<mpsc::Receiver<Made>>,
    environment: Environment,
    progress: Progress,
    /// Whether a thread is at work for this call, which may have to wait for one.
    is_at_work: Arc<AtomicBool>,
    /// The progress when it was last looked at, and the next time at which it is.
    seen: u64,
    timer: Pin<Box<Sleep>>,
    /// Until this is dropped.
    span: Span,
    _stop: StopOnDrop,
    /// A task, so that it goes on whether or not somebody polls: what waits for a thread must take it, or give it up.
    _task: AbortOnDropHandle<()>,
}

impl BlockFrames {
    /// Begins to read.
    pub fn new(reading: Reading, environment: Environment) -> Self {
        let stop = StopOnDrop::default();
        let progress = Progress::new(stop.flag());
        let is_at_work = Arc::<AtomicBool>::default();
        let (to, made) = mpsc::channel(AHEAD);
        let blocks = reading.blocks.wanted().len();
        let span = info_span!(target: spans::TARGET, "read_sealed_blocks", blocks);
        let worker = Worker::new(reading, progress.clone(), Arc::clone(&is_at_work), to);
        let task = tokio::spawn(worker::run(environment.sealed.pool().clone(), worker));
        Self {
            made: Some(made),
            environment,
            progress,
            is_at_work,
            seen: 0,
            timer: Box::pin(sleep(STALL)),
            span,
            _stop: stop,
            _task: AbortOnDropHandle::new(task),
        }
    }

    /// The next frame; `None` at the end. After an error there is nothing more.
    pub fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame, Status>>> {
        let Some(made) = &mut self.made else {
            return Poll::Ready(None);
        };
        let next = match made.poll_recv(cx) {
            Poll::Ready(Some(Made::Frame(frame))) => return Poll::Ready(Some(Ok(self.counted(frame)))),
            Poll::Ready(Some(Made::End(last))) => last.map(|frame| Ok(self.counted(frame))),
            Poll::Ready(Some(Made::Failed(failure))) => Some(Err(self.status(failure))),
            // Not an end: nothing said so.
            Poll::Ready(None) => Some(Err(Status::internal("reading sealed blocks was cut short"))),
            Poll::Pending => Some(Err(ready!(self.poll_stall(cx)))),
        };
        self.made = None;
        if let Some(Err(status)) = &next {
            spans::fail(&self.span, &status.message());
        }
        Poll::Ready(next)
    }

    fn counted(&self, frame: Frame) -> Frame {
        self.environment.metrics.read(Origin::Blocks, &frame.series);
        frame
    }

    /// Ready with an error once a thread that is at work makes no progress.
    fn poll_stall(&mut self, cx: &mut Context<'_>) -> Poll<Status> {
        loop {
            ready!(self.timer.as_mut().poll(cx));
            let steps = self.progress.steps();
            // It may have been at work for longer than anybody has waited.
            let fired = self.timer.deadline();
            let is_late = fired.elapsed() > STALL / 2;
            if steps == self.seen && self.is_at_work.load(Ordering::Relaxed) && !is_late {
                self.environment.sealed.stalled();
                return Poll::Ready(Status::unavailable(format!(
                    "reading sealed blocks made no progress for {STALL:?}: the disk of --tsdb.path hangs, or this host is \
                     overloaded; --no-store.sealed-from-disk leaves all reading to Prometheus"
                )));
            }
            self.seen = steps;
            self.timer.as_mut().reset(Instant::now() + STALL);
        }
    }

    fn status(&self, failure: Failure) -> Status {
        match failure {
            Failure::Damaged(error) => {
                let text = format!("{error}; Prometheus is asked for its range from now on");
                self.environment.sealed.report(&error);
                Status::internal(text)
            }
            Failure::Lost(lost) => Status::internal(lost.to_string()),
            Failure::Held => Status::aborted(
                "Prometheus has deleted a block that this call still reads, which keeps its space on the disk, and the call has \
                 lasted longer than --store.max-client-lag: ask again, for a shorter time",
            ),
        }
    }
}
