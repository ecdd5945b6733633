//! What reads blocks for one call: on a thread that may block, in turns.
//!
//! A turn ends when enough frames wait for the client, and after some time, so that other calls have theirs: a call keeps no
//! thread that waits for its client. A panic comes out as a failure of the call.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::mpsc::{Sender, error::TrySendError},
    time::{Instant, sleep_until},
};

use super::Reading;
use crate::{
    prometheus::remote_read::wire::Frame,
    sealed::OpenBlocks,
    storeapi::series::source::size,
    threads::{BlockingPool, Lost},
    tsdb::read::{Next, Progress, ReadError, SeriesReader},
};

/// So many frames at most wait for the client.
pub(super) const AHEAD: usize = 3;
/// A call that waited goes on when there is room for so many: each turn costs changes of threads.
const ROOM: usize = 2;
/// How often it is looked at, once a deleted block may be held no longer, whether there is one.
const LOOK_AGAIN: Duration = Duration::from_secs(10);
/// After so long others have their turn.
const TURN: Duration = Duration::from_millis(5);
/// A frame has so many series at most.
pub(super) const SERIES: usize = 1024;
/// A frame is complete when it has so many bytes, or so many were read for it that live as long.
const BYTES: usize = 256 << 10;

/// What is made.
#[derive(Debug)]
pub(super) enum Made {
    Frame(Frame),
    /// There are no more, but for this if there is any; the last thing.
    End(Option<Frame>),
    /// Reading ended early; the last thing.
    Failed(Failure),
}

/// Why reading ended early.
#[derive(Debug)]
pub(super) enum Failure {
    Damaged(ReadError),
    /// A block is deleted and was held for too long.
    Held,
    /// The thread has panicked.
    Lost(Lost),
}

/// What is on the thread that reads.
#[derive(Debug)]
pub(super) struct Worker {
    // Dropped first, so that it is `reading` that closes files.
    reader: Option<(i64, SeriesReader)>,
    reading: Reading,
    progress: Progress,
    is_at_work: Arc<AtomicBool>,
    to: Sender<Made>,
    /// The last thing was made.
    is_over: bool,
}

/// How a turn ends.
#[derive(Debug)]
enum Turn {
    /// For others.
    Yield(Box<Worker>),
    /// There was no room for this.
    Full(Box<Worker>, Made),
    Over,
}

/// Lets `worker` have its turns until all is made, or nobody wants it any more.
pub(super) async fn run(pool: BlockingPool, worker: Box<Worker>) {
    let to = worker.to.clone();
    if let Err(lost) = turns(&pool, &to, worker).await {
        // Nobody takes it any more, otherwise.
        let _ = to.send(Made::Failed(Failure::Lost(lost))).await;
    }
}

async fn turns(pool: &BlockingPool, to: &Sender<Made>, mut worker: Box<Worker>) -> Result<(), Lost> {
    loop {
        worker = match pool.run(move || worker.turn()).await? {
            Turn::Yield(worker) => worker,
            Turn::Full(worker, made) => match wait_for_room(pool, to, worker, made).await? {
                Some(worker) => worker,
                None => return Ok(()),
            },
            Turn::Over => return Ok(()),
        };
    }
}

/// Sends what was made once there is room; `None` if that was the last thing, or nobody takes it any more. Files of deleted blocks are closed meanwhile when they
/// may be held no longer.
async fn wait_for_room(
    pool: &BlockingPool,
    to: &Sender<Made>,
    mut worker: Box<Worker>,
    mut made: Made,
) -> Result<Option<Box<Worker>>, Lost> {
    let patient_until = worker.reading.since.checked_add(worker.reading.patience);
    let mut look_at = patient_until.unwrap_or_else(|| Instant::now() + LOOK_AGAIN);
    loop {
        tokio::select! {
            room = to.reserve_many(ROOM) => {
                let Some(room) = room.ok().and_then(|mut room| room.next()) else {
                    return Ok(None);
                };
                room.send(made);
                return Ok((!worker.is_over).then_some(worker));
            }
            () = sleep_until(look_at), if !worker.is_over => {}
        }
        (worker, made) = pool.run(move || worker.let_go(made)).await?;
        look_at = Instant::now() + LOOK_AGAIN;
    }
}

impl Worker {
    pub(super) fn new(
        reading: Reading,
        progress: Progress,
        is_at_work: Arc<AtomicBool>,
        to: Sender<Made>,
    ) -> Box<Self> {
        Box::new(Self {
            reader: None,
            reading,
            progress,
            is_at_work,
            to,
            is_over: false,
        })
    }

    fn turn(mut self: Box<Self>) -> Turn {
        let is_at_work = Arc::clone(&self.is_at_work);
        is_at_work.store(true, Ordering::Relaxed);
        let end = Instant::now() + TURN;
        let turn = loop {
            if self.is_over {
                break Turn::Over;
            }
            if let Some(made) = self.step() {
                if !matches!(made, Made::Frame(_)) {
                    self.end();
                }
                match self.to.try_send(made) {
                    Ok(()) => {}
                    Err(TrySendError::Full(made)) => break Turn::Full(self, made),
                    Err(TrySendError::Closed(_)) => break Turn::Over,
                }
            }
            if Instant::now() >= end {
                break Turn::Yield(self);
            }
        };
        is_at_work.store(false, Ordering::Relaxed);
        turn
    }

    /// Closes all files: nothing more is read.
    fn end(&mut self) {
        self.is_over = true;
        self.reader = None;
        self.reading.blocks = OpenBlocks::default();
    }

    /// Whether a block is deleted that may be held no longer.
    fn is_held_too_long(&self) -> bool {
        self.reading.since.elapsed() > self.reading.patience && self.reading.blocks.has_deleted()
    }

    /// Looks at this while `made` waits; in its place the failure is to be sent, if it is so.
    fn let_go(mut self: Box<Self>, made: Made) -> (Box<Self>, Made) {
        if !self.is_held_too_long() {
            return (self, made);
        }
        self.end();
        (self, Made::Failed(Failure::Held))
    }

    /// Makes the next thing, or a part of the way to it.
    fn step(&mut self) -> Option<Made> {
        if self.is_held_too_long() {
            return Some(Made::Failed(Failure::Held));
        }
        let made = self.read();
        let made = made.and_then(|made| self.reading.blocks.check_unwritten().map(|()| made));
        made.unwrap_or_else(|error| Some(Made::Failed(Failure::Damaged(error))))
    }

    fn read(&mut self) -> Result<Option<Made>, ReadError> {
        let (mut series, mut bytes, mut read_before) = (Vec::new(), 0, None);
        loop {
            let (query_index, reader) = match &mut self.reader {
                Some(reader) => reader,
                None => match self.next_query()? {
                    Some(reader) => self.reader.insert(reader),
                    None => return Ok(Some(Made::End(None))),
                },
            };
            let query_index = *query_index;
            let before = *read_before.get_or_insert(reader.large_bytes());
            let (is_over, is_pause) = match reader.next_series()? {
                Next::Series(one) => {
                    bytes += size(&one);
                    series.push(one);
                    (false, false)
                }
                Next::Pause => (false, true),
                Next::End => (true, false),
            };
            let kept = (reader.large_bytes() - before) as usize;
            if is_over {
                self.reader = None;
                read_before = None;
            }
            let is_enough = is_over || is_pause || series.len() >= SERIES || bytes.max(kept) >= BYTES;
            match series.is_empty() {
                false if is_enough => {
                    let frame = Frame { query_index, series };
                    return Ok(Some(match is_over && self.reading.queries.is_empty() {
                        true => Made::End(Some(frame)),
                        false => Made::Frame(frame),
                    }));
                }
                true if is_pause => return Ok(None),
                _ => {}
            }
        }
    }

    fn next_query(&mut self) -> Result<Option<(i64, SeriesReader)>, ReadError> {
        let Some((index, selector)) = self.reading.queries.pop_front() else {
            return Ok(None);
        };
        let (blocks, with_chunks) = (self.reading.blocks.wanted(), self.reading.with_chunks);
        let reader = SeriesReader::new(blocks, &selector, with_chunks, &self.progress)?;
        Ok(Some((index, reader)))
    }
}
