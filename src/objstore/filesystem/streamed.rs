//! Writing an object whose bytes are made meanwhile.
//!
//! The way to disk is that of a file (`write`), in steps: a batch is written while the next one is being filled. A thread
//! that may block and a slot are taken for each step alone: a producer that needs such threads itself, or that feeds several
//! objects turn by turn, is never waited for with one of them in hand. Memory: two batches and a piece for each call.
//!
//! On an error of the producer, on a drop: the temporary file is removed on a thread that may block, in the background;
//! [`Bucket::settle`](super::Bucket::settle) waits for that. On a crash it stays, as any other.

use tokio::runtime::Handle;
use tokio_util::task::{TaskTracker, task_tracker::TaskTrackerToken};

use super::{
    Filesystem,
    write::{Unfinished, Writer},
};
use crate::{
    objstore::{
        Error, Op, Pieces,
        batches::{Batch, Batches},
    },
    threads::StopOnDrop,
};

/// How many bytes are written in one step.
const BATCH: u64 = 1 << 20;

/// An object that is not finished, between two steps: dropped there, it is cleared away where one may block.
struct Paused {
    /// The second one keeps whoever waits for the clean-up waiting; it is dropped last.
    held: Option<(Unfinished, TaskTrackerToken)>,
    cleanup: TaskTracker,
    runtime: Handle,
}

impl Paused {
    fn unfinished(&mut self) -> &mut Unfinished {
        let (unfinished, _) = self.held.as_mut().expect(HELD);
        unfinished
    }
}

/// Why it is there.
const HELD: &str = "it is taken by the last step and by dropping alone";

impl Drop for Paused {
    fn drop(&mut self) {
        if let Some(held) = self.held.take() {
            self.cleanup.spawn_blocking_on(move || drop(held), &self.runtime);
        }
    }
}

impl Filesystem {
    /// Writes what `pieces` bring, at most `at_most` bytes; returns how many they were.
    pub(super) async fn put_pieces(&self, key: &str, pieces: Pieces<'_>, at_most: u64) -> Result<u64, Error> {
        let target = self.path(Op::Upload, key)?;
        let stop = StopOnDrop::default();
        let mut batches = Batches::new(pieces, at_most);
        let begin = {
            let (target, cleanup, runtime) = (target.clone(), self.cleanup.clone(), Handle::current());
            move |writer: &Writer| {
                let held = Some((writer.begin(&target)?, cleanup.token()));
                Ok(Paused { held, cleanup, runtime })
            }
        };
        let (mut paused, mut next) = tokio::try_join!(self.writing(key, begin), self.batch(key, &mut batches))?;
        let mut len = 0;
        while next.len() > 0 {
            len += next.len();
            let cancelled = stop.flag();
            let append = move |writer: &Writer| {
                for piece in next.pieces() {
                    writer.append(paused.unfinished(), piece, &cancelled)?;
                }
                Ok(paused)
            };
            (paused, next) = tokio::try_join!(self.writing(key, append), self.batch(key, &mut batches))?;
        }
        let cancelled = stop.flag();
        let finish = move |writer: &Writer| {
            let (unfinished, _token) = paused.held.take().expect(HELD);
            writer.finish(unfinished, &target, &cancelled)
        };
        self.writing(key, finish).await?;
        Ok(len)
    }

    async fn batch(&self, key: &str, batches: &mut Batches<'_>) -> Result<Batch, Error> {
        let next = batches.next(BATCH).await;
        next.map_err(|unusable| unusable.into_error(self.place(key)))
    }
}
