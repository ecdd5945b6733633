//! The series of sealed blocks, in frames that are made on another thread.
//!
//! A frame is read ahead while the one before it is sent, and no more: a client that is slow makes reading wait. Dropping it
//! ends the reading at the next series that is looked at.
//!
//! **Guests.** A block that was deleted while it is read keeps its space on the disk until it is closed. It may be kept for as
//! long as a client may lag; then the call ends with Aborted, and the next one finds the blocks that there are now.

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

use tokio::time::{Instant, Sleep, sleep};
use tokio_util::task::AbortOnDropHandle;
use tonic::Status;

use super::{
    metrics::{Metrics, Origin},
    size,
};
use crate::{
    prometheus::remote_read::wire::Frame,
    sealed::{OpenBlocks, Sealed},
    storeapi::budget::Reservation,
    threads::{BlockingPool, Lost, StopOnDrop},
    tsdb::read::{Next, Progress, ReadError, Selector, SeriesReader},
};

/// A frame has so many series at most.
const SERIES: usize = 512;
/// A frame is complete when it has so many bytes.
const BYTES: usize = 256 << 10;
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
    state: State,
    environment: Environment,
    progress: Progress,
    /// Whether a thread is at work for this call, which may have to wait for one.
    is_at_work: Arc<AtomicBool>,
    /// The progress when it was last looked at, and the next time at which it is.
    seen: u64,
    timer: Pin<Box<Sleep>>,
    _stop: StopOnDrop,
}

#[derive(Debug)]
enum State {
    /// In a task, so that it goes on whether or not somebody polls: what waits for a thread must take it, or give it up.
    Working(AbortOnDropHandle<Result<Done, Lost>>),
    Over,
}

/// A piece of work that is done.
#[derive(Debug)]
struct Done {
    worker: Box<Worker>,
    step: Result<Step, Failure>,
}

#[derive(Debug)]
enum Step {
    Frame(Frame),
    /// Nothing yet, and others shall have their turn.
    Pause,
    End,
}

/// Why reading ended early.
#[derive(Debug)]
enum Failure {
    Damaged(ReadError),
    /// A block is deleted and was held for too long.
    Held,
}

/// What is on the thread that reads.
#[derive(Debug)]
struct Worker {
    // Dropped first, so that it is `reading` that closes files.
    reader: Option<(i64, SeriesReader)>,
    reading: Reading,
    progress: Progress,
    is_at_work: Arc<AtomicBool>,
}

impl BlockFrames {
    /// Begins to read.
    pub fn new(reading: Reading, environment: Environment) -> Self {
        let stop = StopOnDrop::default();
        let progress = Progress::new(stop.flag());
        let is_at_work = Arc::<AtomicBool>::default();
        let worker = Box::new(Worker {
            reader: None,
            reading,
            progress: progress.clone(),
            is_at_work: Arc::clone(&is_at_work),
        });
        Self {
            state: State::work(environment.sealed.pool(), worker),
            environment,
            progress,
            is_at_work,
            seen: 0,
            timer: Box::pin(sleep(STALL)),
            _stop: stop,
        }
    }

    /// The next frame; `None` at the end. After an error there is nothing more.
    pub fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame, Status>>> {
        loop {
            let State::Working(work) = &mut self.state else {
                return Poll::Ready(None);
            };
            let Poll::Ready(done) = Pin::new(work).poll(cx) else {
                let stalled = ready!(self.poll_stall(cx));
                self.state = State::Over;
                return Poll::Ready(Some(Err(stalled)));
            };
            self.state = State::Over;
            let Done { worker, step } = match done {
                Ok(Ok(done)) => done,
                Ok(Err(lost)) => return Poll::Ready(Some(Err(Status::internal(lost.to_string())))),
                Err(error) => return Poll::Ready(Some(Err(Status::internal(error.to_string())))),
            };
            match step {
                Ok(Step::Pause) => self.state = State::work(self.environment.sealed.pool(), worker),
                Ok(Step::Frame(frame)) => {
                    self.state = State::work(self.environment.sealed.pool(), worker);
                    self.environment.metrics.read(Origin::Blocks, &frame.series);
                    return Poll::Ready(Some(Ok(frame)));
                }
                Ok(Step::End) => return Poll::Ready(None),
                Err(failure) => return Poll::Ready(Some(Err(self.status(failure)))),
            }
        }
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
            Failure::Held => Status::aborted(
                "Prometheus has deleted a block that this call still reads, which takes space on its disk: the client reads \
                 too slowly; ask again, for a shorter time",
            ),
        }
    }
}

impl State {
    fn work(pool: &BlockingPool, mut worker: Box<Worker>) -> Self {
        let pool = pool.clone();
        let work = async move {
            let work = move || {
                worker.is_at_work.store(true, Ordering::Relaxed);
                let step = worker.step();
                worker.is_at_work.store(false, Ordering::Relaxed);
                Done { worker, step }
            };
            pool.run(work).await
        };
        Self::Working(AbortOnDropHandle::new(tokio::spawn(work)))
    }
}

impl Worker {
    /// Makes the next frame, or a part of the way to it.
    fn step(&mut self) -> Result<Step, Failure> {
        let held = self.reading.since.elapsed() > self.reading.patience;
        if held && self.reading.blocks.has_deleted() {
            return Err(Failure::Held);
        }
        let step = self.read()?;
        self.reading.blocks.check_unwritten().map_err(Failure::Damaged)?;
        Ok(step)
    }

    fn read(&mut self) -> Result<Step, Failure> {
        let (mut series, mut bytes) = (Vec::new(), 0);
        loop {
            let (query_index, reader) = match &mut self.reader {
                Some(reader) => reader,
                None => match self.next_query()? {
                    Some(reader) => self.reader.insert(reader),
                    None => return Ok(Step::End),
                },
            };
            let query_index = *query_index;
            let (is_over, is_pause) = match reader.next_series().map_err(Failure::Damaged)? {
                Next::Series(one) => {
                    bytes += size(&one);
                    series.push(one);
                    (false, false)
                }
                Next::Pause => (false, true),
                Next::End => (true, false),
            };
            if is_over {
                self.reader = None;
            }
            let is_enough = is_over || is_pause || series.len() >= SERIES || bytes >= BYTES;
            match series.is_empty() {
                false if is_enough => return Ok(Step::Frame(Frame { query_index, series })),
                true if is_pause => return Ok(Step::Pause),
                _ => {}
            }
        }
    }

    fn next_query(&mut self) -> Result<Option<(i64, SeriesReader)>, Failure> {
        let Some((index, selector)) = self.reading.queries.pop_front() else {
            return Ok(None);
        };
        let (blocks, with_chunks) = (self.reading.blocks.wanted(), self.reading.with_chunks);
        let reader = SeriesReader::new(blocks, &selector, with_chunks, &self.progress);
        Ok(Some((index, reader.map_err(Failure::Damaged)?)))
    }
}
